"""Can forgetting be seen early? Which of what is known after a few steps tells how much a training will have cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moltlm.evals import stats

Record = dict[str, Any]
DROP = 5.0
"""Points of accuracy whose loss at the end is the event; where too many lose as many, the median is."""
SHARE = 0.2
"""Each class has to make up this much of the runs, or there is nothing to tell apart."""
PREDICTORS = ("kl", "cross_entropy", "incoherent", "likelihood", "persona", "drop")
BASELINE = ("log_rate", "loss")
RESAMPLES = 2000


@dataclass(frozen=True)
class Early:
    """One training: what was known at an early step, and what it had cost in the end, in points of accuracy."""

    group: str
    seed: int
    known: dict[str, float]
    cost: float
    lead: int


@dataclass(frozen=True)
class Detector:
    """A predictor on runs of settings that it has not seen. `gain` is its AUROC above the baseline's, both with 95%
    intervals over seeds; `sensitivity` and `specificity` at thresholds from the other settings."""

    predictor: str
    auroc: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    sensitivity: float
    specificity: float
    roc: list[tuple[float, float]]


@dataclass(frozen=True)
class Detection:
    """`events` of `n` runs lost `drop` points or more. No detectors where a class is too rare. `best` beats the
    baseline (log learning rate and training loss) by an interval above 0, or is None."""

    n: int
    events: int
    drop: float
    lead: float
    baseline: Detector | None
    detectors: list[Detector]
    best: str | None


def run(records: Sequence[Record], metrics: Sequence[Record], group: str, seed: int, rate: float) -> Early:
    """Of one job: what its first checkpoint and the losses until then say. `records` as the grid writes them."""
    first, last = records[0], records[-1]
    before = [row["loss"] for row in metrics if row["step"] <= first["step"]]
    known = {
        "log_rate": math.log(rate),
        "loss": float(np.mean(before)),
        "kl": first["kl"],
        "cross_entropy": first["cross_entropy"],
        "incoherent": 1 - first["coherent"],
        "likelihood": first["likelihood"],
        "persona": first["persona"],
        "drop": cost(first),
    }
    return Early(group, seed, known, cost(last), last["step"] - first["step"])


def detect(runs: Sequence[Early], seed: int = 0) -> Detection:
    """Each predictor alone, by logistic regression, always judged on runs of an arm and learning rate that were left
    out (protocol: early detection)."""
    costs, drop = np.array([one.cost for one in runs]), DROP
    if runs and (costs >= drop).mean() > 1 - SHARE:
        drop = float(np.median(costs))
    event = costs >= drop
    lead = float(np.mean([one.lead for one in runs])) if runs else 0.0
    groups = [one.group for one in runs]
    if not runs or not SHARE <= event.mean() <= 1 - SHARE or len(set(groups)) < 3:
        return Detection(len(runs), int(event.sum()), drop, lead, None, [], None)
    draws = stats.cluster_draws([one.seed for one in runs], RESAMPLES, seed)
    held = {name: _held_out(runs, (name,), event, groups) for name in PREDICTORS}
    base = _held_out(runs, BASELINE, event, groups)
    found = [_judged(name, held[name], base, event, draws) for name in PREDICTORS]
    found.sort(key=lambda one: -one.auroc)
    best = next((one.predictor for one in found if one.gain_low > 0), None)
    baseline = _judged("log rate and loss", base, base, event, draws)
    return Detection(len(runs), int(event.sum()), drop, lead, baseline, found, best)


def cost(row: Record) -> float:
    """Points of accuracy that are lost since the base at a checkpoint."""
    now, then = ([item["correct"] for item in row[key]] for key in ("items", "base_items"))
    return 100 * (float(np.mean(then)) - float(np.mean(now)))


def _held_out(
    runs: Sequence[Early], names: Sequence[str], event: np.ndarray, groups: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """For each run the log-odds of the event by what the other settings teach, and whether they raise the alarm."""
    features = np.array([[one.known[name] for name in names] for one in runs])
    odds, alarm = np.zeros(len(runs)), np.zeros(len(runs), dtype=bool)
    for inside, outside in LeaveOneGroupOut().split(features, event, groups):
        if len(set(event[inside])) < 2:
            odds[outside] = 30.0 if event[inside][0] else -30.0
            alarm[outside] = event[inside][0]
            continue
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[inside], event[inside])
        odds[outside] = fitted.decision_function(features[outside])
        false, true, thresholds = roc_curve(event[inside], fitted.decision_function(features[inside]))
        alarm[outside] = odds[outside] >= thresholds[int(np.argmax(true - false))]  # Youden's J
    return odds, alarm


def _auroc(event: np.ndarray, odds: np.ndarray) -> float:
    """By Mann and Whitney's count; a hundred times as fast as scikit-learn's, which matters for resampling."""
    yes = int(event.sum())
    ranks = float(rankdata(odds)[event].sum())
    return (ranks - yes * (yes + 1) / 2) / (yes * (len(event) - yes))


def _judged(
    name: str,
    held: tuple[np.ndarray, np.ndarray],
    base: tuple[np.ndarray, np.ndarray],
    event: np.ndarray,
    draws: list[np.ndarray],
) -> Detector:
    odds, alarm = held
    auroc, other = _auroc(event, odds), _auroc(event, base[0])
    both = [at for at in draws if 0 < event[at].sum() < len(at)]
    values = np.array([[_auroc(event[at], odds[at]), _auroc(event[at], base[0][at])] for at in both])
    low, high = np.quantile(values[:, 0], (0.025, 0.975))
    gain_low, gain_high = np.quantile(values[:, 0] - values[:, 1], (0.025, 0.975))
    false, true, _ = roc_curve(event, odds)
    return Detector(
        name,
        auroc,
        float(low),
        float(high),
        auroc - other,
        float(gain_low),
        float(gain_high),
        float(alarm[event].mean()),
        float((~alarm[~event]).mean()),
        list(zip(false.tolist(), true.tolist(), strict=True)),
    )
