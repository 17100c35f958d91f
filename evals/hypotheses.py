"""The verdict on a hypothesis, from the records of its grid and the rule in its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from moltlm.data.errors import MoltError
from moltlm.evals import stats
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.trajectories import Curve, Record, Trajectories, Trajectory, at_levels, trajectories

Answer = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class OverSeeds:
    """A difference in points of accuracy: a value for each seed, their mean, its interval.

    `detectable` has 80% power. It comes from the spread of the seeds, or, where they show none (a single one, or all
    equal), from the sampling of items alone. No values: the difference is NaN, its bounds are infinite.
    """

    values: list[float]
    difference: float
    low: float
    high: float
    detectable: float
    detectable_from: Literal["seeds", "items"]


@dataclass(frozen=True)
class Difference(OverSeeds):
    """`better` minus `than` at equal gain; `items` is by seed. `gain_levels` are those that every run
    of both arms reaches. `naive` is the same at the last step, gain not matched, which credits an arm for having
    learned less. `sign_flip` (an exact p over seeds) and `mixed` (the estimate of a mixed model, in points) are other
    ways to look at the same values, and decide nothing. `second` is the same at equal gain on the other axis, and
    `composite` over several benchmarks, where the records have them."""

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
    """A further measure at equal gain, `better` minus `than`, mean over seeds with its interval; `p` is adjusted after
    Holm over all such measures of a verdict. None of them decides."""

    measure: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Tried:
    """A setting of an arm: the gain that all tuning seeds reach, the levels below it, and the mean accuracy there."""

    gain: float
    gain_levels: list[float]
    accuracy: float | None


@dataclass(frozen=True)
class Verdict:
    """`gain_levels` are those that any comparison used; `control` is the positive control against `than[0]`; `beside`
    is shown, and decides nothing."""

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


def judge(hypothesis: HypothesisConfig, records: list[Record]) -> Verdict:
    """Supported, refuted or inconclusive, the last with the smallest effect that the run could have seen.

    `records` has one row for each arm, seed and checkpoint: `arm`, `seed`, `step`, `gain` (nats a token over the base),
    `feasible` (coherent), `items` and `base_items` (`item`, `correct`). Accuracies are compared at equal gain: along
    each run gain is made monotone in step by isotonic regression, and each item's score is interpolated linearly in
    gain. A level that a run of either arm does not reach, or only when incoherent, is dropped from their comparison;
    nothing is extrapolated. What is compared is the change since each arm's own base, which is one and the same unless
    an arm `beside` has another precision.

    Supported: against every arm in `than`, lower bound above 0 and estimate at least the margin; and, where they are
    measured, the same sign at equal gain on the other axis, and a composite that is not worse by the margin. Refuted:
    against any of them, upper bound below the margin, and the positive control, where one is named, stands out.
    """
    runs = trajectories(records)
    control = [hypothesis.positive_control] if hypothesis.positive_control else []
    missing = _missing(hypothesis, runs, [hypothesis.better, *hypothesis.than])
    unchecked = _missing(hypothesis, runs, control)
    others = [name for name in hypothesis.beside if not _missing(hypothesis, runs, [name])]
    arms = [hypothesis.better, *hypothesis.than, *others, *([] if unchecked else control)]
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
    beside = [_compare(hypothesis, runs, hypothesis.better, name) for name in others]
    beside = [replace(item, second=_second(hypothesis, records, item)) for item in beside]
    used = {level for item in [*comparisons, checked] if item for level in item.gain_levels}
    return replace(
        blank,
        outcome=_answer(hypothesis, comparisons, checked),
        reasons=[
            *_reasons(hypothesis, comparisons, checked, unchecked),
            *(f"Beside, deciding nothing: {_shown(item)}." for item in beside if item.values),
            *_infeasible(judged),
        ],
        comparisons=comparisons,
        control=checked,
        beside=beside,
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
    outcome, found = _answer(hypothesis, comparisons, control), [item.reason for item in comparisons]
    if hypothesis.positive_control:
        lacks = f"The positive control lacks runs ({', '.join(unchecked)}), so nothing can be refuted."
        blunt = outcome != "refuted" and any(item.outcome == "refuted" for item in comparisons)
        found.insert(0 if blunt else len(found), control.reason if control else lacks)
    bare = any(item.second is None or item.composite is None for item in comparisons)
    if outcome == "supported" and bare:
        found.append("This rests on LAMBADA alone: a second axis and a composite are not in the records.")
    return found


def _infeasible(judged: list[Trajectory]) -> list[str]:
    where = [f"{run.name} at step {at.step}" for run in judged for at in run.curve.points if not at.feasible]
    return [f"Left out as incoherent, which is infeasible, not forgetting: {', '.join(where)}."] if where else []


def _check_control(hypothesis: HypothesisConfig, runs: Trajectories) -> Difference:
    """The positive control must beat the arm that it protects, or a refutation would only show a blunt assay."""
    found = _compare(hypothesis, runs, hypothesis.positive_control or "", hypothesis.than[0])
    if found.low > 0:
        return replace(found, outcome="supported", reason=f"The positive control stands out: {_shown(found)}.")
    blunt = (
        f"The assay is not sensitive, so nothing can be refuted: its positive control may do nothing: {_shown(found)}."
    )
    return replace(found, outcome="inconclusive", reason=blunt)


def _compare(hypothesis: HypothesisConfig, runs: Trajectories, better: str, than: str) -> Difference:
    ours, theirs = ([runs[arm, seed] for seed in hypothesis.seeds] for arm in (better, than))
    items = [run.items for run in ours]
    if items != [run.items for run in theirs]:
        what = f"{better} and {than} were not measured on the same items, so they cannot be compared."
        raise MoltError(what, f"Measure them again: molt hypothesis run {hypothesis.id} CONFIG")
    mine, other = ([run.last - run.start for run in side] for side in (ours, theirs))
    last = _over_seeds(mine, other, items, hypothesis.confidence)
    least = min([*ours, *theirs], key=lambda run: run.top)
    levels = [level for level in hypothesis.gain_levels if 0 <= level <= least.top]
    found, more = OverSeeds([], math.nan, -math.inf, math.inf, math.inf, "seeds"), {}
    if levels:
        mine, other = ([run.change(levels) for run in side] for side in (ours, theirs))
        found = _over_seeds(mine, other, items, hypothesis.confidence)
        more = _robust(mine, other, hypothesis, found) if len(ours) > 1 else {}
    blank = Difference(
        **vars(found),
        better=better,
        than=than,
        seeds=list(hypothesis.seeds),
        items=len(items[0]),
        gain_levels=levels,
        naive=last,
        **more,
    )
    ruled, dropped = _ruled(blank, hypothesis.margin), sorted({*hypothesis.gain_levels} - {*levels})
    if not dropped:
        return ruled
    shown = ", ".join(f"{level:g}" for level in dropped)
    return replace(ruled, reason=f"{ruled.reason} Gain {shown} is left out: {least.name} reaches only {least.top:.2f}.")


def _robust(
    mine: list[np.ndarray], other: list[np.ndarray], hypothesis: HypothesisConfig, found: OverSeeds
) -> dict[str, Any]:
    apart = [(100 * (ours - theirs)).tolist() for ours, theirs in zip(mine, other, strict=True)]
    seeds = [seed for seed, values in zip(hypothesis.seeds, apart, strict=True) for _ in values]
    values = [value for each in apart for value in each]
    fitted = stats.mixed(values, seeds, list(range(len(values))), hypothesis.confidence)
    return {"sign_flip": stats.sign_flip(found.values), "mixed": fitted}


def _with_others(
    hypothesis: HypothesisConfig, comparisons: list[Difference], records: list[Record]
) -> list[Difference]:
    """With the second axis and the composite, which can take a support away, and further measures, which decide
    nothing; their p-values are Holm's over all of them."""
    found = []
    for item in comparisons:
        second, composite = _second(hypothesis, records, item), _composite(hypothesis, records, item)
        more = replace(item, second=second, composite=composite, others=_secondaries(hypothesis, records, item))
        found.append(_doubted(more, hypothesis.margin))
    p = stats.holm([other.p for item in found for other in item.others])
    values = iter(p)
    return [replace(item, others=[replace(other, p=next(values)) for other in item.others]) for item in found]


def _doubted(found: Difference, margin: float) -> Difference:
    if found.outcome != "supported":
        return found
    why = ""
    if found.second and not found.second.difference > 0:
        why = f"At equal gain on the second axis it is not better ({found.second.difference:+z.1f} points)."
    elif found.composite and not found.composite.low > -margin:
        low = found.composite.low
        why = f"The composite may be worse by more than {margin:g} points (lower bound {low:+z.1f})."
    return replace(found, outcome="inconclusive", reason=f"{found.reason} {why}") if why else found


def _second(hypothesis: HypothesisConfig, records: list[Record], item: Difference) -> OverSeeds | None:
    """At a quarter, half and three quarters of the gain on the other axis that all runs reach."""
    rows = [{**row, "gain": row["second"]} for row in records if row.get("second") is not None]
    runs = trajectories(rows)
    pairs = [(runs.get((item.better, seed)), runs.get((item.than, seed))) for seed in hypothesis.seeds]
    known = [(mine, other) for mine, other in pairs if mine and other]
    if len(known) < len(pairs):
        return None
    top = min(run.top for pair in known for run in pair)
    if top <= 0:
        return None
    levels = [share * top for share in (0.25, 0.5, 0.75)]
    ours, theirs = ([pair[side].change(levels) for pair in known] for side in (0, 1))
    return _over_seeds(ours, theirs, [mine.items for mine, _ in known], hypothesis.confidence)


def _composite(hypothesis: HypothesisConfig, records: list[Record], item: Difference) -> OverSeeds | None:
    sides = []
    for arm in (item.better, item.than):
        found = {row["seed"]: row["composite"] for row in records if row["arm"] == arm and "composite" in row}
        sides.append([found.get(seed) for seed in hypothesis.seeds])
    if any(value is None for side in sides for value in side):
        return None
    values = [float(mine - other) for mine, other in zip(*sides, strict=True)]
    interval = stats.mean(values, hypothesis.confidence)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.inf
    seen = stats.detectable(sd, len(values), hypothesis.confidence)
    return OverSeeds(values, interval.mean, interval.low, interval.high, seen, "seeds")


def _secondaries(hypothesis: HypothesisConfig, records: list[Record], item: Difference) -> list[Secondary]:
    """Cross-entropy and KL to the base at equal gain, nats a token."""
    found = []
    for measure in ("cross_entropy", "kl"):
        values = []
        for seed in hypothesis.seeds:
            mine, other = (at_levels(records, arm, seed, measure, item.gain_levels) for arm in (item.better, item.than))
            if mine is not None and other is not None:
                values.append(mine - other)
        if len(values) == len(hypothesis.seeds) > 1:
            interval = stats.mean(values, hypothesis.confidence)
            found.append(Secondary(measure, interval.mean, interval.low, interval.high, stats.t_test(values)))
    return found


def tried(hypothesis: HypothesisConfig, records: list[list[Record]]) -> list[Tried]:
    """What several settings of an arm came to in their tuning runs, at the gain levels that all their seeds reach."""
    found = []
    for rows in records:
        group = list(trajectories(rows).values())
        top = min(run.top for run in group)
        levels = [level for level in sorted(hypothesis.gain_levels) if level <= top]
        accuracy = float(np.mean([run.at(levels).mean() for run in group])) if levels else None
        found.append(Tried(top, levels, accuracy))
    return found


def best(settings: list[Tried]) -> int:
    """Which of them is the most capable at equal gain. Only those that reach the most gain levels compete; where none
    reaches any, the one that gains most."""
    most = max(len(one.gain_levels) for one in settings)
    if not most:
        return int(np.argmax([one.gain for one in settings]))
    return int(np.argmax([one.accuracy or 0 if len(one.gain_levels) == most else -1 for one in settings]))


def _over_seeds(
    ours: list[np.ndarray], theirs: list[np.ndarray], items: list[list[Any]], confidence: float
) -> OverSeeds:
    """Student's interval over seeds, which draw their own items; where seeds show no spread, by items."""
    values = [100 * float((mine - other).mean()) for mine, other in zip(ours, theirs, strict=True)]
    n, sd = len(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if sd > stats.SAME:
        found, seen, source = stats.seed_difference(values, confidence), stats.detectable(sd, n, confidence), "seeds"
    else:
        before, after = np.concatenate(theirs).tolist(), np.concatenate(ours).tolist()
        pooled = stats.paired(before, after, confidence, clusters=[item for block in items for item in block])
        found, source = stats.seed_difference(values, confidence, 100 * pooled.error), "items"
        alone = n == 1  # a t-test over one seed sees nothing; over its items it does
        seen = 100 * (pooled.detectable if alone else stats.detectable(pooled.error * math.sqrt(n), n, confidence))
    return OverSeeds(values, found.mean, found.low, found.high, seen, source)


def _ruled(found: Difference, margin: float) -> Difference:
    """supported: lower bound above 0 and the estimate at least the margin; refuted: upper bound below the margin."""
    if not found.values:
        return replace(found, reason=f"{found.better} - {found.than}: no common support, so they cannot be compared.")
    if found.low > 0 and found.difference >= margin:
        return replace(
            found, outcome="supported", reason=f"{_shown(found)}: better, with an estimate of at least {margin:g}."
        )
    if found.high < margin:
        worse = ", and it is worse" if found.high < 0 else ""
        reason = f"{_shown(found)}: any advantage is below {margin:g} points{worse}."
        return replace(found, outcome="refuted", reason=reason)
    seen = f"With 80% power these {len(found.seeds)} seeds could have seen {found.detectable:.1f} points."
    if len(found.seeds) == 1:
        seen = (
            "One seed cannot tell how much seeds differ. By the sampling of its items alone, which leaves that out, it "
            f"could have seen {found.detectable:.1f} points with 80% power."
        )
    return replace(found, reason=f"{_shown(found)}: not decided. {seen}")


def _shown(found: Difference) -> str:
    seeds = f"{len(found.seeds)} seeds of {found.items} items"
    bounds = f"{found.low:+z.1f} to {found.high:+z.1f}, {seeds}"
    if len(found.seeds) == 1:
        bounds = f"one seed of {found.items} items, no interval"
    elif found.detectable_from == "items":
        bounds += " that agree exactly, so the interval is that of their items"
    return f"{found.better} - {found.than}: {found.difference:+z.1f} points of LAMBADA at equal persona gain ({bounds})"


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
