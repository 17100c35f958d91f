"""The verdict on a hypothesis, from the records of its grid and the rule in its file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moltlm.evals import stats
from moltlm.evals.comparisons import Answer, Difference, compare, composite, second_axis
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.records import CheckpointRecord
from moltlm.evals.trajectories import Curve, Measure, Trajectories, Trajectory, trajectories

CONFIDENCE = 0.95
"""What a hypothesis has if its file names none."""
SEEDS = 4
"""Fewer decide nothing: two that agree by chance look certain."""


@dataclass(frozen=True)
class TuningResult:
    """A setting of an arm on the tuning seeds.

    Attributes:
        gain: what all of them reach.
        gain_levels: the levels up to it.
        logprob: at each of these levels the mean log-probability of an item's right answer, nats.
        accuracy: the same in accuracy, 0..1.
    """

    gain: float
    gain_levels: list[float]
    logprob: list[float]
    accuracy: list[float]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a hypothesis.

    Attributes:
        reasons: sentences; what decided comes first.
        margin: in nats an item.
        confidence: two-sided, of the intervals, 0..1.
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
    confidence: float = field(default=CONFIDENCE, kw_only=True)


def judge(hypothesis: HypothesisConfig, records: Sequence[CheckpointRecord]) -> Verdict:
    """Supported, refuted or inconclusive, the last with the smallest effect that the trainings could have shown.

    Log-probabilities of the benchmark's right answers are compared at equal gain: along each training gain is made
    monotone in step by isotonic regression, and each item's value is interpolated linearly in gain. A level that a
    training of either arm does not reach, or only when incoherent, is dropped from their comparison; nothing is
    extrapolated. What is compared is the change since each arm's own base, which is the same for all unless an arm
    `beside` has another precision.

    Supported: against every arm in `than`, lower bound above 0 and estimate at least the margin; and, where they are
    measured, the same sign at equal gain on the other axis, and a composite that is not worse by its margin. Refuted:
    against any of them, upper bound below the margin, and the positive control, where one is named, stands out.
    Fewer than `SEEDS` seeds decide nothing.

    Args:
        records: one for each arm, seed and checkpoint, in any order.

    Raises:
        MoltError: if arms or checkpoints were measured on different items.
    """
    runs = trajectories(records, hypothesis.axis)
    control = [hypothesis.positive_control] if hypothesis.positive_control else []
    missing = _missing(hypothesis, runs, [hypothesis.better, *hypothesis.than])
    uninformative = [gap for name in hypothesis.beside for gap in _missing(hypothesis, runs, [name])]
    unchecked = _missing(hypothesis, runs, control)
    informative = [name for name in hypothesis.beside if not _missing(hypothesis, runs, [name])]
    arms = [hypothesis.better, *hypothesis.than, *informative, *([] if unchecked else control)]
    judged = [runs[arm, seed] for arm in dict.fromkeys(arms) for seed in hypothesis.seeds if (arm, seed) in runs]
    curves = [run.curve for run in judged]
    reasons = [f"Runs are missing: {', '.join(missing + unchecked)}."]
    blank = Verdict(
        id=hypothesis.id,
        claim=hypothesis.claim,
        outcome="inconclusive",
        reasons=reasons,
        margin=hypothesis.margin,
        comparisons=[],
        control=None,
        beside=[],
        gain_levels=[],
        curves=curves,
        confidence=hypothesis.confidence,
    )
    if missing:
        return blank
    comparisons = [_extended(hypothesis, runs, records, than) for than in hypothesis.than]
    comparisons = [_doubted(_ruled(item, hypothesis), hypothesis) for item in _adjusted(comparisons)]
    checked = _check_control(hypothesis, runs) if control and not unchecked else None
    information = [replace(_extended(hypothesis, runs, records, name), others=[]) for name in informative]
    used = {level for item in [*comparisons, checked] if item for level in item.gain_levels}
    return replace(
        blank,
        outcome=_answer(hypothesis, comparisons, checked),
        reasons=[
            *_reasons(hypothesis, comparisons, checked, unchecked),
            *(_informed(item, hypothesis) for item in information),
            *([f"For information, runs are missing: {', '.join(uninformative)}."] if uninformative else []),
            *_infeasible(judged),
        ],
        comparisons=comparisons,
        control=checked,
        beside=information,
        gain_levels=sorted(used),
    )


def _extended(
    hypothesis: HypothesisConfig, runs: Trajectories, records: Sequence[CheckpointRecord], than: str
) -> Difference:
    """`better` against another arm, with the second axis and the composite."""
    item = compare(hypothesis, runs, hypothesis.better, than)
    second, several = second_axis(hypothesis, records, item), composite(hypothesis, records, item)
    return replace(item, second=second, composite=several)


def _adjusted(comparisons: list[Difference]) -> list[Difference]:
    """The p-values of the further measures, Holm's over all of them."""
    values = iter(stats.holm([other.p for item in comparisons for other in item.others]))
    return [replace(item, others=[replace(other, p=next(values)) for other in item.others]) for item in comparisons]


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
    if outcome == "supported":
        seconds = [item.second for item in comparisons]
        further = {"second axis": seconds, "composite": [item.composite for item in comparisons]}
        if lacking := [name for name, values in further.items() if None in values]:
            reasons.append(f"The records have no {' and no '.join(lacking)}, which could have contradicted this.")
        if any(second and not second.values for second in seconds):
            reasons.append("Nothing was gained on the second axis, which could have contradicted this.")
    return reasons


def _infeasible(judged: list[Trajectory]) -> list[str]:
    left_out = [(f"{run.name} at step {at.step}", at) for run in judged for at in run.curve.points if not at.feasible]
    broken = [name for name, at in left_out if not at.in_numbers]
    incoherent = [name for name, at in left_out if at.in_numbers]
    return [
        *(
            [f"Left out as incoherent, which is infeasible, not forgetting: {', '.join(incoherent)}."]
            if incoherent
            else []
        ),
        *([f"Left out, since something that was measured is no number: {', '.join(broken)}."] if broken else []),
    ]


def _check_control(hypothesis: HypothesisConfig, runs: Trajectories) -> Difference:
    """The positive control must beat the arm that it protects, or a refutation would only show a blunt assay."""
    control = compare(hypothesis, runs, hypothesis.positive_control or "", hypothesis.than[0])
    control = replace(control, others=[])
    if not control.values:
        arms = f"{control.better} - {control.than}"
        reason = f"The positive control, {arms}, has no common support, so nothing can be refuted. {control.left_out}"
        return replace(control, reason=reason)
    if control.low > 0:
        reason = _sentence("The positive control stands out: ", control, hypothesis)
        return replace(control, outcome="supported", reason=reason)
    blunt = "The assay is not sensitive, so nothing can be refuted: its positive control may do nothing: "
    return replace(control, outcome="inconclusive", reason=_sentence(blunt, control, hypothesis))


def _informed(item: Difference, hypothesis: HypothesisConfig) -> str:
    if item.values:
        return _sentence("For information, deciding nothing: ", item, hypothesis)
    return f"For information, {item.better} - {item.than}: no common support. {item.left_out}".strip()


def _ruled(comparison: Difference, hypothesis: HypothesisConfig) -> Difference:
    """supported: lower bound above 0 and the estimate at least the margin; refuted: upper bound below the margin."""
    if not comparison.values:
        arms = f"{comparison.better} - {comparison.than}"
        reason = f"{arms}: no common support, so they cannot be compared. {comparison.left_out}"
        return replace(comparison, reason=reason)
    outcome, why = _rule(comparison, hypothesis.margin)
    return replace(comparison, outcome=outcome, reason=_sentence("", comparison, hypothesis, f": {why}"))


def _rule(comparison: Difference, margin: float) -> tuple[Answer, str]:
    if len(comparison.seeds) < SEEDS:
        return "inconclusive", f"too few seeds, of which a verdict needs {SEEDS}"
    if math.isinf(comparison.low):
        return "inconclusive", "hardly any item changed, so the measure shows nothing"
    if comparison.low > 0 and comparison.difference >= margin:
        return "supported", f"better, with an estimate of at least {margin:g}"
    if comparison.high < margin:
        return "refuted", f"any advantage is below {margin:g}{', and it is worse' if comparison.high < 0 else ''}"
    return "inconclusive", "not decided"


def _doubted(comparison: Difference, hypothesis: HypothesisConfig) -> Difference:
    """A supported comparison is inconclusive if the second axis or the composite contradicts it."""
    if comparison.outcome != "supported":
        return comparison
    second, several, doubt = comparison.second, comparison.composite, ""
    if second and second.values and not second.difference > 0:
        doubt = f"At equal gain on the second axis it is not better ({second.difference:+z.2f} nats)."
    elif several and not several.low > -hypothesis.composite_margin:
        bound = f"lower bound {several.low:+z.1f}" if math.isfinite(several.low) else "its seeds agree, so no interval"
        doubt = f"The composite may be worse by more than {hypothesis.composite_margin:g} points ({bound})."
    if not doubt:
        return comparison
    return replace(comparison, outcome="inconclusive", reason=f"{comparison.reason} {doubt}")


def _sentence(before: str, item: Difference, hypothesis: HypothesisConfig, after: str = "") -> str:
    """The effect, its interval, what was counted and what could have been seen, as a sentence; then the levels that
    were left out."""
    seeds = f"{len(item.seeds)} seeds of {item.items} items"
    level = "" if hypothesis.confidence == CONFIDENCE else f"{hypothesis.confidence:.0%} interval "
    bounds = f"{level}{item.low:+z.2f} to {item.high:+z.2f}, {seeds}"
    if len(item.seeds) == 1:
        bounds = f"one seed of {item.items} items, no interval"
    elif math.isinf(item.low):
        bounds = f"{seeds}, no interval"
    elif item.detectable_from == "items":
        bounds += " that differ less than their items alone would make them, so the interval is that of the items"
    axis = "persona gain" if hypothesis.axis == "persona" else "gain of likelihood"
    effect = f"{item.difference:+z.2f} nats of LAMBADA at equal {axis} ({bounds})"
    power = f" With 80% power {item.detectable:.2f} could have been seen." if math.isfinite(item.detectable) else ""
    return f"{before}{item.better} - {item.than}: {effect}{after}.{power} {item.left_out}".strip()


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


def tuning_results(hypothesis: HypothesisConfig, settings: list[list[CheckpointRecord]]) -> list[TuningResult]:
    """The result of each setting of an arm in its tuning runs, at each gain level that all their seeds reach."""
    results = []
    for records in settings:
        group = list(trajectories(records, hypothesis.axis).values())
        top = min(run.top for run in group)
        levels = [level for level in sorted(hypothesis.gain_levels) if level <= top]
        results.append(
            TuningResult(top, levels, _at_each(group, "logprob", levels), _at_each(group, "accuracy", levels))
        )
    return results


def _at_each(group: list[Trajectory], measure: Measure, levels: list[float]) -> list[float]:
    return [
        float(np.mean([(run.change(measure, [level]) + run.values[measure][0]).mean() for run in group]))
        for level in levels
    ]


def at_common_levels(results: Sequence[TuningResult]) -> list[float | None]:
    """The log-probability of each setting, averaged over the gain levels that all comparable settings reach; None for
    one that is not comparable.

    Comparable are those that reach two levels or more, or one, where none reaches two. So a setting is not passed over
    because it stops short of a level that others reach, and none is averaged over other levels than its rivals.
    """
    reached = max(len(one.gain_levels) for one in results)
    enough = max(1, min(2, reached))
    common = min((len(one.gain_levels) for one in results if len(one.gain_levels) >= enough), default=0)
    return [float(np.mean(one.logprob[:common])) if len(one.gain_levels) >= enough else None for one in results]


def best(results: Sequence[TuningResult]) -> int:
    """Position of the setting that keeps most at equal gain; where none reaches any level, of the one that gains
    most."""
    values = at_common_levels(results)
    if all(value is None for value in values):
        return int(np.argmax([one.gain for one in results]))
    return int(np.argmax([-math.inf if value is None or math.isnan(value) else value for value in values]))
