"""Can forgetting be predicted early? Which measurements after a few steps predict what a training will cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moltlm.data.errors import MoltError
from moltlm.evals import stats
from moltlm.evals.records import CheckpointRecord

DROP = 5.0
"""A loss of this many points of accuracy at the end is the event; where too many trainings lose as much, the median
loss is."""
SHARE = 0.2
"""The smallest share of the runs that each class has to have, or nothing can be predicted."""
PREDICTORS = ("kl", "cross_entropy", "incoherent", "likelihood", "persona", "drop", "along_persona", "state_shift")
"""Each is tried where all trainings have it: the last two were not measured at first."""
BASELINE = ("log_rate", "loss")
RESAMPLES = 2000
SEEDS, GROUPS = 4, 8
"""Fewer seeds or settings (arm and learning rate) show no early sign: what they have in common may be chance."""
CHANCE = 0.5
"""The AUROC of a predictor that knows nothing. A baseline that was fitted to other settings can fall short of it."""


@dataclass(frozen=True)
class EarlyRun:
    """One training.

    Attributes:
        group: its arm and learning rate; groups are left out together.
        seed: its seed.
        signals: what was measured at the first checkpoint, by name.
        cost: what it had cost at the end, in points of accuracy, against the base on the same items.
        lead: steps from the first checkpoint to the end.
    """

    group: str
    seed: int
    signals: dict[str, float]
    cost: float
    lead: int


@dataclass(frozen=True)
class Detector:
    """A predictor on runs of settings that it was not fitted on.

    Attributes:
        predictor: its name.
        auroc: with a 95% interval over settings and seeds, `low` to `high`.
        gain: AUROC above the baseline's, or above chance where the baseline falls short of that, with its interval,
            `gain_low` to `gain_high`, which holds with 95% for all predictors together (Bonferroni).
        sensitivity: share of events that raise the alarm, at thresholds from the other settings.
        specificity: share of other runs that do not.
        roc: points (false positive rate, true positive rate).
    """

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
    """What predicts forgetting.

    Attributes:
        n: the runs, of which `events` lost `drop` points of accuracy or more, the effect of their seed taken away.
        groups: the settings (arm and learning rate) of these runs; `seeds` how many seeds they have.
        left_out: further runs, in which something that was measured is no number.
        lead: mean steps from the first checkpoint to the end.
        baseline: log learning rate and training loss; None where nothing can be judged, since a class is too rare or in
            one group alone.
        detectors: the predictors, best first; none where nothing can be judged.
        best: the predictor whose gain has an interval above 0; None if there is none, or for fewer than `SEEDS` seeds
            or `GROUPS` settings.
    """

    n: int
    groups: int
    seeds: int
    left_out: int
    events: int
    drop: float
    lead: float
    baseline: Detector | None
    detectors: list[Detector]
    best: str | None

    @property
    def has_enough(self) -> bool:
        """Whether there are seeds and settings enough to show anything."""
        return self.seeds >= SEEDS and self.groups >= GROUPS


def run(
    records: Sequence[CheckpointRecord],
    losses: Sequence[tuple[int, float]],
    group: str,
    seed: int,
    learning_rate: float,
) -> EarlyRun:
    """The signals of one training at its first checkpoint, and what it cost at the last.

    Args:
        records: its checkpoints, in the order of their steps.
        losses: (step, training loss).

    Raises:
        MoltError: if drift was not measured.
    """
    first, last = records[0], records[-1]
    if first.kl is None or first.cross_entropy is None:
        raise MoltError("A training was measured without neutral answers.", "Set neutral: 8 in the hypothesis' file.")
    signals = {
        "log_rate": math.log(learning_rate),
        "loss": float(np.mean([loss for step, loss in losses if step <= first.step])),
        "kl": first.kl,
        "cross_entropy": first.cross_entropy,
        "incoherent": 1 - first.coherent,
        "likelihood": first.likelihood,
        "persona": first.persona,
        "drop": cost(first),
    }
    states = {"along_persona": first.along_persona, "state_shift": first.state_shift}
    signals |= {name: value for name, value in states.items() if value is not None}
    return EarlyRun(group, seed, signals, cost(last), last.step - first.step)


def detect(runs: Sequence[EarlyRun], seed: int = 0) -> Detection:
    """Fit each predictor alone by logistic regression, and judge it on runs of an arm and learning rate that were left
    out (protocol: early detection).

    All runs of a seed are measured on the same items, of which the base happens to know more or fewer. That is in each
    of their costs, and in `drop`, and would predict one from the other; so both are centred by seed.
    """
    usable = [one for one in runs if all(map(math.isfinite, [one.cost, *one.signals.values()]))]
    left_out, runs = len(runs) - len(usable), _centred(usable) if usable else []
    costs, drop = np.array([one.cost for one in runs]), DROP
    if runs and (costs >= drop).mean() > 1 - SHARE:
        drop = float(np.median(costs))
    event = costs >= drop
    lead = float(np.mean([one.lead for one in runs])) if runs else 0.0
    groups, seeds = [one.group for one in runs], [one.seed for one in runs]
    counts = (len(runs), len(set(groups)), len(set(seeds)), left_out, int(event.sum()), drop, lead)
    if not _can_be_judged(event, groups):
        return Detection(*counts, None, [], None)
    draws = stats.crossed_draws(groups, seeds, RESAMPLES, seed)
    base = _held_out(runs, BASELINE, event, groups)
    measured = [name for name in PREDICTORS if all(name in one.signals for one in runs)]
    detectors = [
        _detector(name, _held_out(runs, (name,), event, groups), base, event, draws, len(measured)) for name in measured
    ]
    detectors.sort(key=lambda one: -one.auroc)
    baseline = _detector("log rate and loss", base, base, event, draws, len(measured))
    detection = Detection(*counts, baseline, detectors, None)
    shown = [one.predictor for one in detectors if detection.has_enough and one.gain_low > 0]
    return replace(detection, best=shown[0]) if shown else detection


def _can_be_judged(event: np.ndarray, groups: Sequence[str]) -> bool:
    """Whether no class is rare, and the others of each group have both classes, of which a model can learn."""
    labels = np.array(groups)
    outside = [event[labels != group] for group in set(groups)]
    return len(outside) > 2 and SHARE <= event.mean() <= 1 - SHARE and all(len(set(each)) == 2 for each in outside)


def _centred(runs: Sequence[EarlyRun]) -> list[EarlyRun]:
    """The runs with cost and `drop` as if all seeds had items of the same difficulty."""
    costs = _without_seeds([one.cost for one in runs], runs)
    drops = _without_seeds([one.signals.get("drop", 0.0) for one in runs], runs)
    return [
        replace(one, cost=cost, signals={**one.signals, "drop": drop})
        for one, cost, drop in zip(runs, costs, drops, strict=True)
    ]


def _without_seeds(values: Sequence[float], runs: Sequence[EarlyRun]) -> list[float]:
    """Less the effect of the seed, by least squares on groups and seeds, so that it does not matter which groups were
    run with a seed. The effects average to 0 over the runs."""
    groups, seeds = ([getattr(one, name) for one in runs] for name in ("group", "seed"))
    of_group, of_seed = (
        np.array([[label == one for one in dict.fromkeys(labels)] for label in labels], float)
        for labels in (groups, seeds)
    )
    solution = np.linalg.lstsq(np.hstack([of_group, of_seed]), np.array(values, float), rcond=None)[0]
    effects = of_seed @ solution[of_group.shape[1] :]
    return (np.array(values, float) - effects + effects.mean()).tolist()


def cost(record: CheckpointRecord) -> float:
    """Points of accuracy lost since the base at a checkpoint."""
    now, before = ([item.correct for item in items] for items in (record.items, record.base_items))
    return 100 * (float(np.mean(before)) - float(np.mean(now)))


def _held_out(
    runs: Sequence[EarlyRun], names: Sequence[str], event: np.ndarray, groups: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """For each run, log-odds of the event by a model of the other settings, and whether they raise the alarm."""
    features = np.array([[one.signals[name] for name in names] for one in runs])
    odds, alarm = np.zeros(len(runs)), np.zeros(len(runs), dtype=bool)
    for inside, outside in LeaveOneGroupOut().split(features, event, groups):
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[inside], event[inside])
        odds[outside] = fitted.decision_function(features[outside])
        false, true, thresholds = roc_curve(event[inside], fitted.decision_function(features[inside]))
        alarm[outside] = odds[outside] >= thresholds[int(np.argmax(true - false))]  # Youden's J
    return odds, alarm


def _auroc(event: np.ndarray, odds: np.ndarray) -> float:
    """By Mann and Whitney's count: a hundred times as fast as scikit-learn's, which matters for resampling."""
    yes = int(event.sum())
    ranks = float(rankdata(odds)[event].sum())
    return (ranks - yes * (yes + 1) / 2) / (yes * (len(event) - yes))


def _detector(
    name: str,
    predictions: tuple[np.ndarray, np.ndarray],
    base: tuple[np.ndarray, np.ndarray],
    event: np.ndarray,
    draws: list[np.ndarray],
    predictors: int,
) -> Detector:
    odds, alarm = predictions
    auroc, other = _auroc(event, odds), max(CHANCE, _auroc(event, base[0]))
    both = [at for at in draws if 0 < event[at].sum() < len(at)]
    values = np.array([[_auroc(event[at], odds[at]), max(CHANCE, _auroc(event[at], base[0][at]))] for at in both])
    low, high = np.quantile(values[:, 0], (0.025, 0.975))
    tail = 0.025 / predictors
    gain_low, gain_high = np.quantile(values[:, 0] - values[:, 1], (tail, 1 - tail))
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
