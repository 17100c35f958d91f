"""What a stage says while it works."""

from __future__ import annotations

import pytest

from moltlm.pipeline import console
from moltlm.pipeline.console import Console


@pytest.mark.parametrize("resumed", [1, 150])
def test_the_time_left_is_that_of_the_steps_taken_here(
    resumed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five seconds a step, after a minute in which a model was read: neither that minute nor steps before an interruption
    spoil the estimate."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Console().progress("personality") as progress:
        now[0] = 60.0
        for step in range(resumed, resumed + 21):
            progress(step, 300, "loss 1.0")
            now[0] += 5
    lines = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    assert lines and all("about" in line for line in lines)
    for line in lines:
        step, left = int(line.split("/")[0].split()[-1]), float(line.split("about ")[1].split()[0])
        assert left == pytest.approx(5 * (300 - step), abs=1)
