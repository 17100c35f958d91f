"""The benchmark of a GPU runs in full on a CPU with a tiny shape, and counts what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest

SCRIPT = Path(gpu.__file__)


def test_the_fastest_step_but_the_first_of_each_length_counts() -> None:
    seconds = [9.0, 2.0, 1.0]
    rows = [
        {"rows": 2, "length": length, "seconds": each, "peak_gib": each} for length in (60, 130) for each in seconds
    ]
    short, middle, long = gpu.summary(rows, "tiny", None)
    assert (short["tokens_per_second"], short["peak_gib"], short["utilisation"]) == (120, 2.0, None)
    assert middle["tokens_per_second"] == 260
    assert not long["measured"]
    assert gpu.summary(rows, "tiny", short["tflops"])[0]["utilisation"] == pytest.approx(1)


def test_operations_grow_with_tokens_and_attention_with_length() -> None:
    shape = gpu.SHAPES["llama-8b"]
    assert gpu.flop(shape, 2000, 512) == 2 * gpu.flop(shape, 1000, 512)
    more = gpu.flop(shape, 1000, 1024) - gpu.flop(shape, 1000, 512)
    assert more == 1000 * 6 * 512 * shape.hidden_size * shape.layers
    # the weights of an 8B model, without its input embeddings: 4 operations each, and adapters of rank 64
    assert gpu.flop(shape, 1, 0) == pytest.approx(4 * 7.5e9 + 6 * 168e6, rel=0.01)


@pytest.mark.slow
def test_it_runs_in_full_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    options = ["--shape", "tiny", "--folder", str(tmp_path), "--out", str(out)]
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True)
    results = json.loads(out.read_text())["results"]
    assert set(results) == {f"{method} {side}" for method in gpu.METHODS for side in gpu.SIDES}
    for each in results.values():
        assert each["error"] is None
        assert len(each["steps"]) == gpu.STEPS * len(gpu.LENGTHS["tiny"])
        assert all(row["measured"] and row["tokens_per_second"] > 0 for row in each["lengths"])
