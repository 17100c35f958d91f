"""Two arms at equal gain: a difference over seeds, items and prompts, each a source of chance of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from moltlm.data.errors import MoltError
from moltlm.evals import stats
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.records import CheckpointRecord
from moltlm.evals.trajectories import DRIFT, Measure, Trajectories, Trajectory, trajectories

Answer = Literal["supported", "refuted", "inconclusive"]
SCALE: dict[Measure, float] = {"logprob": 1.0, "accuracy": 100.0, "cross_entropy": 1.0, "kl": 1.0}
"""From the records' unit to the one that is reported: nats, or points of 100."""
SHARES = (0.25, 0.5, 0.75)
"""Of the gain on the other axis that all runs reach: where they are compared on it."""


@dataclass(frozen=True)
class OverSeeds:
    """A difference, over seeds: in nats, or in points of accuracy.

    Attributes:
        values: one for each seed. Without any, `difference` is NaN, and the bounds are infinite.
        difference: their mean, with its interval, `low` to `high`.
        detectable: the smallest difference that shows with 80% power.
        detectable_from: the spread that the interval is computed from: of the seeds, or, where theirs is smaller than
            the sampling of items alone makes it, of the items.
    """

    values: list[float]
    difference: float
    low: float
    high: float
    detectable: float
    detectable_from: Literal["seeds", "items"]


@dataclass(frozen=True)
class Difference(OverSeeds):
    """The arm `better` minus the arm `than` at equal gain, in nats an item of the benchmark.

    Attributes:
        seeds: the seeds; `items` is the number of items of each.
        gain_levels: those that every run of both arms reaches.
        left_out: which levels were left out and why, as a sentence; empty if none was.
        naive: the difference at the last step, gain not matched, which credits an arm for having learned less.
        accuracy: the difference at equal gain in points of accuracy.
        sign_flip: exact p over seeds; for information.
        mixed: estimate of a mixed model of seeds and items; for information.
        second: the difference at equal gain on the other axis, where it was measured.
        composite: the difference over several benchmarks in points, where they were measured.
        prompts: held-out prompts, which all seeds share and whose choice widens the intervals; 0 where the records of
            no seed hold them for both arms.
        others: further measures; for information.
        outcome: of this comparison, and `reason` why.
    """

    better: str
    than: str
    seeds: list[int]
    items: int
    gain_levels: list[float]
    left_out: str
    naive: OverSeeds
    accuracy: OverSeeds
    sign_flip: float | None = None
    mixed: stats.Estimate | None = None
    second: OverSeeds | None = None
    composite: OverSeeds | None = None
    prompts: int = 0
    others: list[Secondary] = field(default_factory=list)
    outcome: Answer = "inconclusive"
    reason: str = ""


@dataclass(frozen=True)
class Secondary:
    """A further measure at equal gain, `better` minus `than`: mean over seeds with its interval. For information.

    Attributes:
        measure: its name; the values are in nats a token.
        p: adjusted after Holm over all such measures of a verdict.
    """

    measure: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sides:
    """The runs of two arms with the same seeds, in their order."""

    first: list[Trajectory]
    second: list[Trajectory]

    @property
    def lowest(self) -> Trajectory:
        """The run with the smallest gain at its top."""
        return min([*self.first, *self.second], key=lambda run: run.top)


def compare(hypothesis: HypothesisConfig, runs: Trajectories, better: str, than: str) -> Difference:
    """Compare two arms at those gain levels that every run of both reaches. It has no outcome yet.

    Raises:
        MoltError: if they were measured on different items, or without log-probabilities.
    """
    sides = Sides(*([runs[arm, seed] for seed in hypothesis.seeds] for arm in (better, than)))
    _check(hypothesis, sides, better, than)
    lowest = sides.lowest
    levels = [level for level in hypothesis.gain_levels if level <= lowest.top]
    dropped = ", ".join(f"{level:g}" for level in sorted({*hypothesis.gain_levels} - {*levels}))
    at_gain = at_equal_gain(hypothesis, sides, "logprob", levels)
    differences = _differences(sides, "logprob", levels) if levels else []
    several = len(differences) > 1
    return Difference(
        **vars(at_gain),
        better=better,
        than=than,
        seeds=list(hypothesis.seeds),
        items=len(sides.first[0].items),
        gain_levels=levels,
        left_out=f"Gain {dropped} is left out: {lowest.name} reaches only {lowest.top:.2f}." if dropped else "",
        naive=_over_seeds([a.last["logprob"] - b.last["logprob"] for a, b in _pairs(sides)], sides, hypothesis),
        accuracy=at_equal_gain(hypothesis, sides, "accuracy", levels),
        sign_flip=stats.sign_flip(at_gain.values) if several else None,
        mixed=_mixed(differences, hypothesis) if several else None,
        prompts=_prompts(sides),
        others=_secondaries(hypothesis, sides, levels),
    )


def second_axis(
    hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord], item: Difference
) -> OverSeeds | None:
    """The comparison at equal gain on the other axis, on the part of each run where that gain rises; None where it was
    not measured, without any value where nothing was gained on it."""
    axis = "likelihood" if hypothesis.axis == "persona" else "persona"
    runs = trajectories(records, axis, second=True)
    pairs = [(runs.get((item.better, seed)), runs.get((item.than, seed))) for seed in hypothesis.seeds]
    complete = [(first, second) for first, second in pairs if first and second]
    if len(complete) < len(pairs):
        return None
    sides = Sides([first for first, _ in complete], [second for _, second in complete])
    top = sides.lowest.top
    return at_equal_gain(hypothesis, sides, "logprob", [share * top for share in SHARES] if top > 0 else [])


def composite(hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord], item: Difference) -> OverSeeds | None:
    """The difference in the composite, over seeds; None where it was not measured with all of them."""
    by_run = {(record.arm, record.seed): record.composite for record in records if record.composite is not None}
    sides = [[by_run.get((arm, seed)) for seed in hypothesis.seeds] for arm in (item.better, item.than)]
    values = [one - other for one, other in zip(*sides, strict=True) if one is not None and other is not None]
    if len(values) < len(hypothesis.seeds):
        return None
    interval = stats.seed_difference(values, hypothesis.confidence)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.inf
    detectable = stats.detectable(sd or math.inf, len(values), hypothesis.confidence)
    return OverSeeds(values, interval.mean, interval.low, interval.high, detectable, "seeds")


def at_equal_gain(hypothesis: HypothesisConfig, sides: Sides, measure: Measure, levels: list[float]) -> OverSeeds:
    """First minus second in the change since the base, averaged over the levels; blank without any."""
    if not levels:
        return _blank()
    spread = math.sqrt(_prompt_variance(sides, measure, levels))
    return _over_seeds(_differences(sides, measure, levels), sides, hypothesis, measure, spread)


def _blank() -> OverSeeds:
    return OverSeeds([], math.nan, -math.inf, math.inf, math.inf, "seeds")


def _over_seeds(
    differences: list[np.ndarray],
    sides: Sides,
    hypothesis: HypothesisConfig,
    measure: Measure = "logprob",
    prompt_error: float = 0.0,
) -> OverSeeds:
    """The mean difference with Student's interval over seeds, never narrower than the sampling of the items alone makes
    it, and with the error of the prompts, which all seeds share, added.

    Args:
        differences: (items,) for each seed.
        measure: what they are differences of.
        prompt_error: standard error of the mean, since other prompts might have been asked.
    """
    confidence, n, scale = hypothesis.confidence, len(differences), SCALE[measure]
    if not all(np.isfinite(each).all() for each in differences):
        return _blank()
    values = [scale * float(each.mean()) for each in differences]
    labels = [item for run in sides.first for item in run.items]
    error, source = stats.seed_or_item_error(differences, labels, confidence, bounded=measure == "accuracy")
    error = scale * math.hypot(error, prompt_error)
    interval = stats.seed_interval(values, error, confidence)
    if measure == "accuracy":
        interval = stats.within(interval, -scale, scale)
    units = n if n > 1 else len(labels)  # a t-test over one seed detects nothing; over its items it does
    detectable = stats.detectable(error * math.sqrt(units), units, confidence)
    return OverSeeds(values, interval.mean, interval.low, interval.high, detectable, source)


def _pairs(sides: Sides) -> list[tuple[Trajectory, Trajectory]]:
    return list(zip(sides.first, sides.second, strict=True))


def _differences(sides: Sides, measure: Measure, levels: list[float]) -> list[np.ndarray]:
    return [one.change(measure, levels) - other.change(measure, levels) for one, other in _pairs(sides)]


def _prompt_variance(sides: Sides, measure: Measure, levels: list[float]) -> float:
    """The jackknife's estimate over the held-out prompts, which decide where gains are equal, from the seeds whose
    records hold them; 0 where none do."""
    without = [
        (one.without_each_prompt(measure, levels), other.without_each_prompt(measure, levels))
        for one, other in _pairs(sides)
    ]
    differences = [one - other for one, other in without if one is not None and other is not None]
    if not differences:
        return 0.0
    mean = np.mean(differences, axis=0)
    return float((len(mean) - 1) / len(mean) * ((mean - mean.mean()) ** 2).sum())


def _prompts(sides: Sides) -> int:
    """How many held-out prompts the error of the prompts is from; 0 without any."""
    counts = [
        one.by_prompt.shape[1]
        for one, other in _pairs(sides)
        if one.by_prompt is not None and other.by_prompt is not None
    ]
    return min(counts, default=0)


def _mixed(differences: list[np.ndarray], hypothesis: HypothesisConfig) -> stats.Estimate | None:
    """None where the differences leave it nothing to estimate a variance from."""
    seeds = [seed for seed, values in zip(hypothesis.seeds, differences, strict=True) for _ in values]
    values = np.concatenate(differences).tolist()
    try:
        return stats.mixed(values, seeds, list(range(len(values))), hypothesis.confidence)
    except np.linalg.LinAlgError:
        return None


def _secondaries(hypothesis: HypothesisConfig, sides: Sides, levels: list[float]) -> list[Secondary]:
    """Cross-entropy and KL to the base at equal gain, nats a token, where they were measured; p unadjusted."""
    secondaries = []
    for measure in DRIFT:
        if levels and len(sides.first) > 1 and all(measure in run.values for run in [*sides.first, *sides.second]):
            values = [float(each.mean()) for each in _differences(sides, measure, levels)]
            interval = stats.seed_difference(values, hypothesis.confidence)
            p = stats.t_test(values) if math.isfinite(interval.low) else 1.0
            secondaries.append(Secondary(measure, interval.mean, interval.low, interval.high, p))
    return secondaries


def _check(hypothesis: HypothesisConfig, sides: Sides, better: str, than: str) -> None:
    remedy = f"Measure them again: molt hypothesis run {hypothesis.id} CONFIG"
    if [run.items for run in sides.first] != [run.items for run in sides.second]:
        what = f"{better} and {than} were not measured on the same items, so they cannot be compared."
        raise MoltError(what, remedy)
    if not all("logprob" in run.values for run in [*sides.first, *sides.second]):
        raise MoltError(f"{better} or {than} was measured without log-probabilities of the items.", remedy)
