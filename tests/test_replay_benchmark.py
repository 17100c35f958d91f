"""The unit of the comparison of replay selectors is the seed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "replay.py"))


def row(arm: str, seeds: list[float]) -> dict[str, Any]:
    return {"arm": arm, "ratio": 0.05, "seeds": seeds}


def test_intervals_are_students_over_seeds() -> None:
    """Differences .02, .03, .04: a mean of .03, and t(2) = 4.303 standard errors of .01 / sqrt(3)."""
    plain, better = BENCHMARK["compared"]([row("uniform", [0.7, 0.8, 0.6]), row("herding", [0.72, 0.83, 0.64])])
    assert "against_uniform" not in plain
    found = better["against_uniform"]
    assert (found["difference"], found["seeds"]) == (0.03, 3)
    assert found["high"] - found["difference"] == pytest.approx(4.3027 * 0.01 / 3**0.5, abs=1e-4)


def test_cells_without_all_seeds_are_not_compared() -> None:
    rows = BENCHMARK["compared"]([row("uniform", [0.7, 0.8, 0.6]), row("herding", [0.72, 0.83])])
    assert not any("against_uniform" in each for each in rows)


def test_the_committed_table_is_that_of_its_seeds() -> None:
    folder = ROOT / "docs" / "results"
    committed = json.loads((folder / "replay.json").read_text())
    rows = BENCHMARK["compared"](committed["quality"])
    assert rows == committed["quality"]
    assert BENCHMARK["text"](rows, committed["scale"]) == (folder / "replay.md").read_text()
