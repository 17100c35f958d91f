"""The verdict on a hypothesis, from the records of its grid and the rule in its file (docs/protocol)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.isotonic import IsotonicRegression

from evals import stats
from evals.config import HypothesisConfig

Record = dict[str, Any]
Answer = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Difference:
    """`better` minus `than` in points of accuracy, over seeds; `naive` is at the last step, gain not matched."""

    better: str
    than: str
    seeds: list[int]
    values: list[float]
    items: int
    difference: float
    low: float
    high: float
    detectable: float
    naive: dict[str, float]
    outcome: Answer
    reason: str


@dataclass(frozen=True)
class Verdict:
    id: str
    claim: str
    outcome: Answer
    reasons: list[str]
    margin: float
    comparisons: list[Difference]
    gain_levels: list[float]
    curves: list[dict[str, Any]]


def judge(hypothesis: HypothesisConfig, records: list[Record]) -> Verdict:
    """Supported, refuted or inconclusive, the last with the smallest effect that the run could have seen.

    `records` has one row for each arm, seed and checkpoint: `arm`, `seed`, `step`, `gain` (nats a token), `items` and
    `base_items` (`item`, `correct`). Accuracies are compared at equal gain: along each run gain is made monotone in
    step by isotonic regression and accuracy is interpolated linearly in gain. Levels that a run does not reach are
    dropped for all, never extrapolated.
    """
    runs = _runs(records)
    arms = [hypothesis.better, *hypothesis.than]
    control = hypothesis.positive_control
    wanted = [(arm, seed) for arm in [*arms, *([control] if control else [])] for seed in hypothesis.seeds]
    missing = [f"{arm} seed {seed}" for arm, seed in wanted if (arm, seed) not in runs]
    present = {key: run for key, run in runs.items() if key in wanted}
    levels = [
        level for level in hypothesis.gain_levels if present and all(_reaches(run, level) for run in present.values())
    ]
    found = (
        [] if missing else [_difference(hypothesis, runs, hypothesis.better, than, levels) for than in hypothesis.than]
    )
    outcome, reasons = _decide(hypothesis, found, missing, levels)
    if control and not missing and levels:
        outcome, reasons = _with_control(hypothesis, runs, levels, outcome, reasons)
    if any(not row["feasible"] for row in records if row["step"] == hypothesis.steps):
        reasons.append("Some runs end incoherent; they are infeasible rather than examples of forgetting.")
    return Verdict(
        hypothesis.id, hypothesis.claim, outcome, reasons, hypothesis.margin, found, levels, _curves(present)
    )


def _decide(
    hypothesis: HypothesisConfig, found: list[Difference], missing: list[str], levels: list[float]
) -> tuple[Answer, list[str]]:
    if missing:
        return "inconclusive", [f"Runs are missing: {', '.join(missing)}."]
    reasons = [item.reason for item in found]
    if not levels:
        return "inconclusive", ["No gain level is reached by all runs (no common support).", *reasons]
    outcomes = {item.outcome for item in found}
    if "refuted" in outcomes:
        return "refuted", reasons
    return ("supported" if outcomes == {"supported"} else "inconclusive"), reasons


def _difference(
    hypothesis: HypothesisConfig, runs: dict[tuple[str, int], list[Record]], better: str, than: str, levels: list[float]
) -> Difference:
    seeds = hypothesis.seeds
    at_end = [100 * (_accuracy(runs[better, seed][-1]) - _accuracy(runs[than, seed][-1])) for seed in seeds]
    naive = stats.mean(at_end, hypothesis.confidence)
    values = (
        [100 * (_matched(runs[better, seed], levels) - _matched(runs[than, seed], levels)) for seed in seeds]
        if levels
        else []
    )
    items = len(runs[better, seeds[0]][0]["items"])
    estimate = stats.mean(values, hypothesis.confidence) if values else stats.Estimate(0, float("nan"), -np.inf, np.inf)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("inf")
    seen = stats.detectable(spread, len(values), hypothesis.confidence)
    outcome, reason = _rule(hypothesis, better, than, estimate, seen)
    return Difference(
        better=better,
        than=than,
        seeds=seeds,
        values=values,
        items=items,
        difference=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        detectable=seen,
        naive={"difference": naive.mean, "low": naive.low, "high": naive.high},
        outcome=outcome,
        reason=reason,
    )


def _rule(
    hypothesis: HypothesisConfig, better: str, than: str, estimate: stats.Estimate, seen: float
) -> tuple[Answer, str]:
    """supported: lower bound above 0 and the estimate at least the margin; refuted: upper bound below the margin."""
    margin = hypothesis.margin
    if not estimate.n:
        return "inconclusive", f"{better} and {than} cannot be compared at equal gain."
    shown = (
        f"{better} - {than}: {estimate.mean:+.1f} points of LAMBADA at equal persona gain "
        f"({estimate.low:+.1f} to {estimate.high:+.1f}, {estimate.n} seeds)"
    )
    if estimate.low > 0 and estimate.mean >= margin:
        return "supported", f"{shown}: better, by {margin:g} points or more."
    if estimate.high < margin:
        return "refuted", f"{shown}: any advantage is below {margin:g} points."
    could = f"{seen:.1f} points" if np.isfinite(seen) else "nothing: one seed has no spread to judge by"
    return "inconclusive", f"{shown}: not decided. With 80% power this run could have seen {could}."


def _with_control(
    hypothesis: HypothesisConfig,
    runs: dict[tuple[str, int], list[Record]],
    levels: list[float],
    outcome: Answer,
    reasons: list[str],
) -> tuple[Answer, list[str]]:
    """The positive control must beat the arm that it protects, or a refutation would only show a blunt assay."""
    control = hypothesis.positive_control or ""
    found = _difference(hypothesis, runs, control, hypothesis.than[0], levels)
    reasons = [*reasons, f"Positive control: {found.reason}"]
    if found.low <= 0 and outcome == "refuted":
        return "inconclusive", [*reasons, "The assay is not sensitive: its positive control does not stand out."]
    return outcome, reasons


def _runs(records: list[Record]) -> dict[tuple[str, int], list[Record]]:
    """Each run from step 0, which is the base on the run's own items."""
    runs: dict[tuple[str, int], list[Record]] = {}
    for row in sorted(records, key=lambda row: row["step"]):
        start = {**row, "step": 0, "gain": 0.0, "items": row["base_items"]}
        runs.setdefault((row["arm"], row["seed"]), [start]).append(row)
    return runs


def _accuracy(row: Record) -> float:
    return float(np.mean([item["correct"] for item in row["items"]]))


def _monotone(run: list[Record]) -> np.ndarray:
    steps, gains = [row["step"] for row in run], [row["gain"] for row in run]
    return IsotonicRegression(y_min=0.0).fit_transform(steps, gains)


def _reaches(run: list[Record], level: float) -> bool:
    return bool(_monotone(run)[-1] >= level)


def _matched(run: list[Record], levels: list[float]) -> float:
    """Accuracy at the levels of gain, averaged. Between checkpoints each item's score, and so their mean, is linear."""
    gains, accuracy = _monotone(run), [_accuracy(row) for row in run]
    return float(np.mean([_interpolate(gains, accuracy, level) for level in levels]))


def _interpolate(gains: np.ndarray, values: list[float], level: float) -> float:
    after = int(np.searchsorted(gains, level))
    if gains[after] == level or after == 0:
        return values[after]
    share = (level - gains[after - 1]) / (gains[after] - gains[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def _curves(runs: dict[tuple[str, int], list[Record]]) -> list[dict[str, Any]]:
    point: Callable[[Record], dict[str, float]] = lambda row: {  # noqa: E731
        "step": row["step"],
        "gain": row["gain"],
        "accuracy": _accuracy(row),
    }
    return [{"arm": arm, "seed": seed, "points": [point(row) for row in run]} for (arm, seed), run in runs.items()]
