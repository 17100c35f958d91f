"""The verdict on a hypothesis, from the records of its grid and the rule in its file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from moltlm.data.errors import MoltError
from moltlm.evals import stats
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.records import CheckpointRecord
from moltlm.evals.trajectories import Curve, DriftMeasure, Trajectories, Trajectory, at_levels, trajectories

Answer = Literal["supported", "refuted", "inconclusive"]
SECONDARIES: tuple[DriftMeasure, ...] = ("cross_entropy", "kl")
SHARES = (0.25, 0.5, 0.75)
"""Of the gain on the other axis that all runs reach: where they are compared on it."""


@dataclass(frozen=True)
class OverSeeds:
    """A difference in points of accuracy, over seeds.

    Attributes:
        values: one for each seed. Without any, `difference` is NaN, and the bounds are infinite.
        difference: their mean, with its interval, `low` to `high`.
        detectable: the smallest difference that shows with 80% power.
        detectable_from: the spread that it is computed from: of the seeds, or, where they have none (a single seed, or
            all equal), of the sampling of items alone.
    """

    values: list[float]
    difference: float
    low: float
    high: float
    detectable: float
    detectable_from: Literal["seeds", "items"]


@dataclass(frozen=True)
class Difference(OverSeeds):
    """The arm `better` minus the arm `than` at equal gain.

    Attributes:
        seeds: the seeds; `items` is the number of items of each.
        gain_levels: those that every run of both arms reaches.
        naive: the difference at the last step, gain not matched, which credits an arm for having learned less.
        sign_flip: exact p over seeds; for information.
        mixed: estimate of a mixed model in points; for information.
        second: the difference at equal gain on the other axis, where it was measured.
        composite: the difference over several benchmarks, where they were measured.
        others: further measures; for information.
        outcome: of this comparison, and `reason` why.
    """

    better: str
    than: str
    seeds: list[int]
    items: int
    gain_levels: list[float]
    naive: OverSeeds
    sign_flip: float | None = None
    mixed: stats.Estimate | None = None
    second: OverSeeds | None = None
    composite: OverSeeds | None = None
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
class TuningResult:
    """A setting of an arm: the gain that all tuning seeds reach, the levels below it, and the mean accuracy there (None
    without levels)."""

    gain: float
    gain_levels: list[float]
    accuracy: float | None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a hypothesis.

    Attributes:
        reasons: sentences; what decided comes first.
        comparisons: `better` against each arm of `than`; these decide.
        control: the positive control against `than[0]`.
        beside: `better` against further arms, for information.
        gain_levels: those that any comparison used.
        curves: the trainings that were compared.
    """

    id: str
    claim: str
    outcome: Answer
    reasons: list[str]
    margin: float
    comparisons: list[Difference]
    control: Difference | None
    beside: list[Difference]
    gain_levels: list[float]
    curves: list[Curve]


def judge(hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord]) -> Verdict:
    """Supported, refuted or inconclusive, the last with the smallest effect that the trainings could have shown.

    Accuracies are compared at equal gain: along each training gain is made monotone in step by isotonic regression, and
    each item's score is interpolated linearly in gain. A level that a training of either arm does not reach, or only
    when incoherent, is dropped from their comparison; nothing is extrapolated. What is compared is the change since
    each arm's own base, which is the same for all unless an arm `beside` has another precision.

    Supported: against every arm in `than`, lower bound above 0 and estimate at least the margin; and, where they are
    measured, the same sign at equal gain on the other axis, and a composite that is not worse by the margin. Refuted:
    against any of them, upper bound below the margin, and the positive control, where one is named, stands out.

    Args:
        records: one for each arm, seed and checkpoint, in any order.

    Raises:
        MoltError: if arms or checkpoints were measured on different items.
    """
    runs = trajectories(records)
    control = [hypothesis.positive_control] if hypothesis.positive_control else []
    missing = _missing(hypothesis, runs, [hypothesis.better, *hypothesis.than])
    unchecked = _missing(hypothesis, runs, control)
    informative = [name for name in hypothesis.beside if not _missing(hypothesis, runs, [name])]
    arms = [hypothesis.better, *hypothesis.than, *informative, *([] if unchecked else control)]
    judged = [runs[arm, seed] for arm in dict.fromkeys(arms) for seed in hypothesis.seeds if (arm, seed) in runs]
    curves = [run.curve for run in judged]
    reasons = [f"Runs are missing: {', '.join(missing + unchecked)}."]
    blank = Verdict(
        hypothesis.id, hypothesis.claim, "inconclusive", reasons, hypothesis.margin, [], None, [], [], curves
    )
    if missing:
        return blank
    comparisons = [_compare(hypothesis, runs, hypothesis.better, than) for than in hypothesis.than]
    comparisons = _with_others(hypothesis, comparisons, records)
    checked = _check_control(hypothesis, runs) if control and not unchecked else None
    information = [_compare(hypothesis, runs, hypothesis.better, name) for name in informative]
    information = [replace(item, second=_second(hypothesis, records, item)) for item in information]
    used = {level for item in [*comparisons, checked] if item for level in item.gain_levels}
    return replace(
        blank,
        outcome=_answer(hypothesis, comparisons, checked),
        reasons=[
            *_reasons(hypothesis, comparisons, checked, unchecked),
            *(f"For information, deciding nothing: {_sentence(item)}." for item in information if item.values),
            *_infeasible(judged),
        ],
        comparisons=comparisons,
        control=checked,
        beside=information,
        gain_levels=sorted(used),
    )


def _answer(hypothesis: HypothesisConfig, comparisons: list[Difference], control: Difference | None) -> Answer:
    """Supported needs every comparison, refuted any; a control that is named must stand out, or nothing is refuted."""
    outcomes = {item.outcome for item in comparisons}
    if "refuted" not in outcomes:
        return "supported" if outcomes == {"supported"} else "inconclusive"
    sensitive = hypothesis.positive_control is None or (control is not None and control.low > 0)
    return "refuted" if sensitive else "inconclusive"


def _reasons(
    hypothesis: HypothesisConfig, comparisons: list[Difference], control: Difference | None, unchecked: list[str]
) -> list[str]:
    """What decided comes first."""
    outcome, reasons = _answer(hypothesis, comparisons, control), [item.reason for item in comparisons]
    if hypothesis.positive_control:
        lacks = f"The positive control lacks runs ({', '.join(unchecked)}), so nothing can be refuted."
        blunt = outcome != "refuted" and any(item.outcome == "refuted" for item in comparisons)
        reasons.insert(0 if blunt else len(reasons), control.reason if control else lacks)
    bare = any(item.second is None or item.composite is None for item in comparisons)
    if outcome == "supported" and bare:
        reasons.append("This rests on LAMBADA alone: a second axis and a composite are not in the records.")
    return reasons


def _infeasible(judged: list[Trajectory]) -> list[str]:
    points = [f"{run.name} at step {at.step}" for run in judged for at in run.curve.points if not at.feasible]
    return [f"Left out as incoherent, which is infeasible, not forgetting: {', '.join(points)}."] if points else []


def _check_control(hypothesis: HypothesisConfig, runs: Trajectories) -> Difference:
    """The positive control must beat the arm that it protects, or a refutation would only show a blunt assay."""
    control = _compare(hypothesis, runs, hypothesis.positive_control or "", hypothesis.than[0])
    if control.low > 0:
        return replace(control, outcome="supported", reason=f"The positive control stands out: {_sentence(control)}.")
    blunt = "The assay is not sensitive, so nothing can be refuted: its positive control may do nothing"
    return replace(control, outcome="inconclusive", reason=f"{blunt}: {_sentence(control)}.")


def _compare(hypothesis: HypothesisConfig, runs: Trajectories, better: str, than: str) -> Difference:
    first, second = ([runs[arm, seed] for seed in hypothesis.seeds] for arm in (better, than))
    items = [run.items for run in first]
    if items != [run.items for run in second]:
        what = f"{better} and {than} were not measured on the same items, so they cannot be compared."
        raise MoltError(what, f"Measure them again: molt hypothesis run {hypothesis.id} CONFIG")
    changes, others = ([run.last - run.start for run in side] for side in (first, second))
    last = _over_seeds(changes, others, items, hypothesis)
    lowest = min([*first, *second], key=lambda run: run.top)
    levels = [level for level in hypothesis.gain_levels if 0 <= level <= lowest.top]
    at_gain, robust = OverSeeds([], math.nan, -math.inf, math.inf, math.inf, "seeds"), {}
    if levels:
        changes, others = ([run.change(levels) for run in side] for side in (first, second))
        at_gain = _over_seeds(changes, others, items, hypothesis)
        robust = _robust(changes, others, hypothesis, at_gain) if len(first) > 1 else {}
    comparison = Difference(
        **vars(at_gain),
        better=better,
        than=than,
        seeds=list(hypothesis.seeds),
        items=len(items[0]),
        gain_levels=levels,
        naive=last,
        **robust,
    )
    ruled, dropped = _ruled(comparison, hypothesis.margin), sorted({*hypothesis.gain_levels} - {*levels})
    if not dropped:
        return ruled
    names = ", ".join(f"{level:g}" for level in dropped)
    reason = f"{ruled.reason} Gain {names} is left out: {lowest.name} reaches only {lowest.top:.2f}."
    return replace(ruled, reason=reason)


def _robust(
    first: list[np.ndarray], second: list[np.ndarray], hypothesis: HypothesisConfig, over_seeds: OverSeeds
) -> dict[str, Any]:
    differences = [(100 * (one - other)).tolist() for one, other in zip(first, second, strict=True)]
    seeds = [seed for seed, values in zip(hypothesis.seeds, differences, strict=True) for _ in values]
    values = [value for each in differences for value in each]
    fitted = stats.mixed(values, seeds, list(range(len(values))), hypothesis.confidence)
    return {"sign_flip": stats.sign_flip(over_seeds.values), "mixed": fitted}


def _with_others(
    hypothesis: HypothesisConfig, comparisons: list[Difference], records: Sequence[CheckpointRecord]
) -> list[Difference]:
    """Add the second axis and the composite, which can take a support away, and further measures, which decide nothing;
    their p-values are Holm's over all of them."""
    extended = []
    for item in comparisons:
        second, composite = _second(hypothesis, records, item), _composite(hypothesis, records, item)
        item = replace(item, second=second, composite=composite, others=_secondaries(hypothesis, records, item))
        extended.append(_doubted(item, hypothesis.margin))
    p = stats.holm([other.p for item in extended for other in item.others])
    values = iter(p)
    return [replace(item, others=[replace(other, p=next(values)) for other in item.others]) for item in extended]


def _doubted(comparison: Difference, margin: float) -> Difference:
    """A supported comparison is inconclusive if the second axis or the composite contradicts it."""
    if comparison.outcome != "supported":
        return comparison
    second, composite, doubt = comparison.second, comparison.composite, ""
    if second and not second.difference > 0:
        doubt = f"At equal gain on the second axis it is not better ({second.difference:+z.1f} points)."
    elif composite and not composite.low > -margin:
        doubt = f"The composite may be worse by more than {margin:g} points (lower bound {composite.low:+z.1f})."
    if not doubt:
        return comparison
    return replace(comparison, outcome="inconclusive", reason=f"{comparison.reason} {doubt}")


def _second(hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord], item: Difference) -> OverSeeds | None:
    """The comparison at equal gain on the other axis; None where it was not measured or nothing was gained on it."""
    runs = trajectories([replace(record, gain=record.second) for record in records if record.second is not None])
    pairs = [(runs.get((item.better, seed)), runs.get((item.than, seed))) for seed in hypothesis.seeds]
    complete = [(first, second) for first, second in pairs if first and second]
    if len(complete) < len(pairs):
        return None
    top = min(run.top for pair in complete for run in pair)
    if top <= 0:
        return None
    levels = [share * top for share in SHARES]
    changes, others = ([pair[side].change(levels) for pair in complete] for side in (0, 1))
    return _over_seeds(changes, others, [first.items for first, _ in complete], hypothesis)


def _composite(hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord], item: Difference) -> OverSeeds | None:
    by_run = {(record.arm, record.seed): record.composite for record in records if record.composite is not None}
    sides = [[by_run.get((arm, seed)) for seed in hypothesis.seeds] for arm in (item.better, item.than)]
    values = [one - other for one, other in zip(*sides, strict=True) if one is not None and other is not None]
    if len(values) < len(hypothesis.seeds):
        return None
    interval = stats.mean(values, hypothesis.confidence)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.inf
    detectable = stats.detectable(sd, len(values), hypothesis.confidence)
    return OverSeeds(values, interval.mean, interval.low, interval.high, detectable, "seeds")


def _secondaries(
    hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord], item: Difference
) -> list[Secondary]:
    """Cross-entropy and KL to the base at equal gain, nats a token."""
    secondaries = []
    for measure in SECONDARIES:
        values = []
        for seed in hypothesis.seeds:
            first, second = (
                at_levels(records, arm, seed, measure, item.gain_levels) for arm in (item.better, item.than)
            )
            if first is not None and second is not None:
                values.append(first - second)
        if len(values) == len(hypothesis.seeds) > 1:
            interval = stats.mean(values, hypothesis.confidence)
            p = stats.t_test(values)
            secondaries.append(Secondary(measure, interval.mean, interval.low, interval.high, p))
    return secondaries


def tuning_results(hypothesis: HypothesisConfig, settings: list[list[CheckpointRecord]]) -> list[TuningResult]:
    """The result of each setting of an arm in its tuning runs, at the gain levels that all their seeds reach."""
    results = []
    for records in settings:
        group = list(trajectories(records).values())
        top = min(run.top for run in group)
        levels = [level for level in sorted(hypothesis.gain_levels) if level <= top]
        accuracy = float(np.mean([run.at(levels).mean() for run in group])) if levels else None
        results.append(TuningResult(top, levels, accuracy))
    return results


def best(results: list[TuningResult]) -> int:
    """Position of the most accurate setting at equal gain.

    Only those that reach the largest number of gain levels compete; where none reaches any, the one that gains most
    wins.
    """
    reached = max(len(one.gain_levels) for one in results)
    if not reached:
        return int(np.argmax([one.gain for one in results]))
    return int(np.argmax([one.accuracy or 0 if len(one.gain_levels) == reached else -1 for one in results]))


def _over_seeds(
    first: list[np.ndarray], second: list[np.ndarray], items: list[list[int | str]], hypothesis: HypothesisConfig
) -> OverSeeds:
    """First minus second: Student's interval over seeds, which have different items; by items where seeds show no
    spread."""
    confidence = hypothesis.confidence
    values = [100 * float((one - other).mean()) for one, other in zip(first, second, strict=True)]
    n, sd = len(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if sd > stats.SAME:
        interval = stats.seed_difference(values, confidence)
        detectable = stats.detectable(sd, n, confidence)
        return OverSeeds(values, interval.mean, interval.low, interval.high, detectable, "seeds")
    before, after = np.concatenate(second).tolist(), np.concatenate(first).tolist()
    pooled = stats.paired(before, after, confidence, clusters=[item for block in items for item in block])
    interval = stats.seed_difference(values, confidence, 100 * pooled.error)
    detectable = 100 * stats.detectable(pooled.error * math.sqrt(n), n, confidence)
    if n == 1:  # a t-test over one seed detects nothing; over its items it does
        detectable = 100 * pooled.detectable
    return OverSeeds(values, interval.mean, interval.low, interval.high, detectable, "items")


def _ruled(comparison: Difference, margin: float) -> Difference:
    """supported: lower bound above 0 and the estimate at least the margin; refuted: upper bound below the margin."""
    if not comparison.values:
        arms = f"{comparison.better} - {comparison.than}"
        return replace(comparison, reason=f"{arms}: no common support, so they cannot be compared.")
    sentence = _sentence(comparison)
    if comparison.low > 0 and comparison.difference >= margin:
        reason = f"{sentence}: better, with an estimate of at least {margin:g}."
        return replace(comparison, outcome="supported", reason=reason)
    if comparison.high < margin:
        worse = ", and it is worse" if comparison.high < 0 else ""
        reason = f"{sentence}: any advantage is below {margin:g} points{worse}."
        return replace(comparison, outcome="refuted", reason=reason)
    seeds, points = len(comparison.seeds), f"{comparison.detectable:.1f} points"
    power = f"With 80% power these {seeds} seeds could have seen {points}."
    if seeds == 1:
        power = (
            "One seed cannot tell how much seeds differ. By the sampling of its items alone, which leaves that out, it "
            f"could have seen {points} with 80% power."
        )
    return replace(comparison, reason=f"{sentence}: not decided. {power}")


def _sentence(item: Difference) -> str:
    seeds = f"{len(item.seeds)} seeds of {item.items} items"
    bounds = f"{item.low:+z.1f} to {item.high:+z.1f}, {seeds}"
    if len(item.seeds) == 1:
        bounds = f"one seed of {item.items} items, no interval"
    elif item.detectable_from == "items":
        bounds += " that agree exactly, so the interval is that of their items"
    return f"{item.better} - {item.than}: {item.difference:+z.1f} points of LAMBADA at equal persona gain ({bounds})"


def _missing(hypothesis: HypothesisConfig, runs: Trajectories, arms: list[str]) -> list[str]:
    """Runs that are absent, or lack a checkpoint that the hypothesis names."""
    gaps = []
    for arm, seed in ((arm, seed) for arm in arms for seed in hypothesis.seeds):
        if (arm, seed) not in runs:
            gaps.append(f"{arm} seed {seed}")
            continue
        lacking = set(hypothesis.checkpoints) - {at.step for at in runs[arm, seed].curve.points}
        gaps += [f"{arm} seed {seed} at step {step}" for step in sorted(lacking)]
    return gaps
