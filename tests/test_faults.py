"""A cycle that is killed, or refused its files, anywhere: what is in use is whole, and the next cycle ends the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "faults.py"


@pytest.mark.slow
def test_a_cycle_survives_kills_and_full_disks_over_its_whole_length(tmp_path: Path) -> None:
    """Two kills and two full disks; `benchmarks/faults.py` makes as many as one likes."""
    spec = importlib.util.spec_from_file_location("faults", FILE)
    assert spec is not None and spec.loader is not None
    faults = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faults)
    rows = faults.table(tmp_path, kills=2, refusals=2, with_damage=False)
    assert len(rows) == 4
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[3] == f"{cells[1]} {faults.SAME}", row
        assert "not readable" not in cells[2] and "another" not in cells[2], row
