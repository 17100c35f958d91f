"""Early detection on simulated trainings of known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import checkpoint

from moltlm.evals import early
from moltlm.evals.records import CheckpointRecord


def trainings(informative: str, seeds: int = 10, noise: float = 1.0) -> list[early.EarlyRun]:
    """Three arms at three rates each; what a run costs in the end is `informative` times three, and chance."""
    rng, found = np.random.default_rng(3), []
    for arm in range(3):
        for rate in (1.0, 2.0, 4.0):
            for seed in range(seeds):
                known = {name: float(rng.normal()) for name in (*early.PREDICTORS, "loss")}
                known["log_rate"] = float(np.log(rate))
                middle = float(np.log(2)) if informative == "log_rate" else 0.0
                cost = 5 + 3 * (known[informative] - middle) + rng.normal(0, noise)
                found.append(early.EarlyRun(f"{arm}-{rate}", seed, known, float(cost), 34))
    return found


def test_what_tells_is_found_and_beats_rate_and_loss() -> None:
    found = early.detect(trainings("kl"))
    assert found.best == "kl" and found.detectors[0].predictor == "kl"
    best = found.detectors[0]
    assert best.auroc > 0.9 and best.gain_low > 0 and best.sensitivity > 0.7 and best.specificity > 0.7
    assert all(one.auroc < 0.7 and one.gain_low <= 0 for one in found.detectors[1:])
    assert (best.roc[0], best.roc[-1]) == ((0.0, 0.0), (1.0, 1.0)) and found.lead == 34


def test_where_the_rate_says_it_all_nothing_beats_it() -> None:
    found = early.detect(trainings("log_rate", noise=0.5))
    assert found.best is None and found.baseline is not None and found.baseline.auroc > 0.9


def test_where_hardly_any_run_forgets_nothing_is_claimed() -> None:
    rows = [early.EarlyRun(f"{i % 3}", i, {}, 0.0, 34) for i in range(30)]
    found = early.detect(rows)
    assert (found.n, found.events, found.baseline, found.detectors, found.best) == (30, 0, None, [], None)
    assert early.detect([]).n == 0


def test_where_nearly_all_forget_the_worse_half_is_told_from_the_rest() -> None:
    rows = [replace(row, cost=row.cost + 30) for row in trainings("kl")]
    found = early.detect(rows)
    assert found.drop == pytest.approx(float(np.median([row.cost for row in rows]))) and found.events == len(rows) / 2
    assert found.best == "kl" and early.detect(trainings("kl")).drop == early.DROP


def test_a_run_by_hand() -> None:
    def row(step: int, right: list[int]) -> CheckpointRecord:
        return checkpoint(step=step, correct=right, base_correct=[1, 1, 1, 0], coherent=0.75)

    losses = [(step, float(step)) for step in range(1, 41)]
    found = early.run([row(6, [1, 1, 0, 0]), row(40, [0, 0, 0, 0])], losses, "lora-1e-4", 3, 1e-4)
    assert found.signals["drop"] == pytest.approx(25) and found.cost == pytest.approx(75) and found.lead == 34
    assert found.signals["loss"] == 3.5 and found.signals["incoherent"] == 0.25
