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
    assert all(one.auroc < 0.7 and one.low < 0.5 for one in found.detectors[1:])
    assert (best.roc[0], best.roc[-1]) == ((0.0, 0.0), (1.0, 1.0)) and found.lead == 34


@pytest.mark.parametrize(("settings", "seeds"), [(12, 1), (6, 4), (12, 3)])
def test_what_settings_have_in_common_by_chance_is_no_sign(settings: int, seeds: int) -> None:
    """Costs and predictors that vary between settings alone, unrelated: with few settings or seeds some fit by chance."""
    for draw in range(4):
        rng, rows = np.random.default_rng(draw), []
        for setting in range(settings):
            level = {name: float(rng.normal()) for name in (*early.PREDICTORS, "loss", "log_rate")}
            cost = 5 + 10 * float(rng.normal())
            rows += [early.EarlyRun(str(setting), seed, level, cost + float(rng.normal()), 34) for seed in range(seeds)]
        assert early.detect(rows).best is None


def test_a_training_without_a_number_is_left_out_and_said() -> None:
    rows = trainings("kl")
    bad = replace(rows[0], signals={**rows[0].signals, "kl": float("nan")})
    detected = early.detect([bad, *rows[1:]])
    assert (detected.n, detected.left_out) == (len(rows) - 1, 1) and detected.best == "kl"


def test_a_predictor_that_some_trainings_lack_is_not_tried() -> None:
    rows = trainings("kl")
    without = {name: value for name, value in rows[0].signals.items() if name != "state_shift"}
    detected = early.detect([replace(rows[0], signals=without), *rows[1:]])
    assert {one.predictor for one in detected.detectors} == set(early.PREDICTORS) - {"state_shift"}


def test_where_the_rate_says_it_all_nothing_beats_it() -> None:
    found = early.detect(trainings("log_rate", noise=0.5))
    assert found.best is None and found.baseline is not None and found.baseline.auroc > 0.9


def test_a_baseline_below_chance_is_no_bar() -> None:
    """Rates that each occur in one setting are fitted to the others and tell the wrong way round; what tells nothing
    beats them and is still no sign."""
    rng, rows = np.random.default_rng(5), []
    for setting in range(6):
        for seed in range(4):
            signals = {name: float(rng.normal()) for name in (*early.PREDICTORS, "loss")}
            signals["log_rate"] = float(setting % 2)
            rows.append(early.EarlyRun(str(setting), seed, signals, 5 + 20 * (rng.random() - 0.5), 34))
    detected = early.detect(rows)
    assert detected.baseline is not None and detected.best is None
    for one in detected.detectors:
        assert one.gain <= one.auroc - early.CHANCE + 1e-9 and one.gain_high <= 1 - early.CHANCE


def test_where_hardly_any_run_forgets_nothing_is_claimed() -> None:
    rows = [early.EarlyRun(f"{i % 3}", i, {}, 0.0, 34) for i in range(30)]
    found = early.detect(rows)
    assert (found.n, found.events, found.baseline, found.detectors, found.best) == (30, 0, None, [], None)
    assert early.detect([]).n == 0


def test_where_one_setting_alone_is_spared_nothing_is_claimed() -> None:
    """What was fitted without it knows no training that was spared, and would tell the wrong way round."""
    rows = [replace(row, cost=0.0 if row.group == "0-1.0" else 20.0 + row.cost) for row in trainings("kl")]
    rows = [row for row in rows if row.group in ("0-1.0", "0-2.0", "1-1.0", "2-4.0")]
    detected = early.detect(rows)
    assert (detected.n, detected.events, detected.detectors, detected.best) == (40, 30, [], None)
    both = [replace(row, cost=0.0) if row.group == "1-1.0" else row for row in rows]
    assert early.detect(both).detectors


def test_where_nearly_all_forget_the_worse_half_is_told_from_the_rest() -> None:
    rows = [replace(row, cost=row.cost + 30) for row in trainings("kl")]
    found = early.detect(rows)
    costs = np.array([row.cost for row in rows]).reshape(9, 10)  # settings, seeds
    centred = costs - costs.mean(axis=0) + costs.mean()
    assert found.drop == pytest.approx(float(np.median(centred))) and found.events == len(rows) / 2
    assert found.best == "kl" and early.detect(trainings("kl")).drop == early.DROP


def test_the_luck_of_a_seeds_items_predicts_nothing() -> None:
    """The items of a seed are easier or harder for the base, which is in the cost and in the first drop alike; else
    both are chance. Seeds that ran the harsher settings only are no worse for it."""
    rng, rows = np.random.default_rng(4), []
    for seed in range(10):
        luck = 4.0 * (seed - 4.5)
        for arm in range(8):
            signals = {name: float(rng.normal()) for name in (*early.PREDICTORS, "loss")}
            signals |= {"log_rate": float(arm % 2), "drop": luck + rng.normal()}
            rows.append(early.EarlyRun(str(arm), seed, signals, float(luck + 5 + rng.normal()), 34))
    found = early.detect(rows)
    drop = next(one for one in found.detectors if one.predictor == "drop")
    assert found.best is None and 0.3 < drop.auroc < 0.7  # 1.0 while the luck was in both
    harsh = [
        replace(
            row, cost=row.cost - 4 + 8 * (int(row.group) > 3), signals={**row.signals, "kl": float(int(row.group) > 3)}
        )
        for row in rows
    ]
    some = [row for row in harsh if row.seed > 4 or int(row.group) > 1]  # half of the seeds ran six settings of eight
    detected = early.detect(some)
    kl = next(one for one in detected.detectors if one.predictor == "kl")
    assert kl.auroc > 0.95


def test_a_run_by_hand() -> None:
    def row(step: int, right: list[int]) -> CheckpointRecord:
        return checkpoint(step=step, correct=right, base_correct=[1, 1, 1, 0], coherent=0.75)

    losses = [(step, float(step)) for step in range(1, 41)]
    found = early.run([row(6, [1, 1, 0, 0]), row(40, [0, 0, 0, 0])], losses, "lora-1e-4", 3, 1e-4)
    assert found.signals["drop"] == pytest.approx(25) and found.cost == pytest.approx(75) and found.lead == 34
    assert found.signals["loss"] == 3.5 and found.signals["incoherent"] == 0.25
