"""The gate: a candidate is promoted only if it meets every criterion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moltlm.evals import stats
from moltlm.evals.records import R, pair
from moltlm.evals.stats import Comparison, Outcome

Kind = Literal["noninferior", "improved"]
"""noninferior: not worse by the margin or more; improved: better, by any amount."""


@dataclass(frozen=True)
class PairedValues:
    """One value of each item in both states.

    Attributes:
        before: 0..1, larger is better.
        after: the same items in the same order.
        strata: a label for each item; strata count equally, whatever their size. Empty: no strata.
    """

    before: Sequence[float]
    after: Sequence[float]
    strata: Sequence[str] = ()


@dataclass(frozen=True)
class Criterion:
    """One thing that a candidate has to fulfil.

    Attributes:
        name: for a reader.
        source: the records and the field that the values come from, such as "persona.score".
        kind: what is required of the values.
        values: of what is in use and of the candidate.
        margin: points of 100; 0 where `kind` is improved.
    """

    name: str
    source: str
    kind: Kind
    values: PairedValues
    margin: float = 0.0


@dataclass(frozen=True)
class CriterionResult:
    """The result of one criterion; all numbers but `n` are in points of 100.

    Attributes:
        name: of the criterion, as `kind`, `source` and `margin`.
        n: items.
        difference: candidate minus what is in use, with its one-sided bounds, `low` and `high`.
        outcome: pass, fail, or unresolved with these items.
        needed_n: about how many items resolve it with 80% power at this spread, if nothing was truly lost, or, where
            these items already were enough for that, if the difference is truly this one. None where no number does.
        sentence: for a reader.
    """

    name: str
    kind: Kind
    source: str
    n: int
    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    needed_n: int | None
    sentence: str


@dataclass(frozen=True)
class GateVerdict:
    """Whether the candidate is promoted, and the result of each criterion."""

    promoted: bool
    checks: list[CriterionResult]

    @property
    def skill(self) -> CriterionResult | None:
        """The criterion that something was learned; None where the candidate had nothing to learn."""
        return next((check for check in self.checks if check.kind == "improved"), None)

    @property
    def retained(self) -> list[CriterionResult]:
        """The criteria that nothing was lost, but for what has to improve anyway."""
        improved = {check.source for check in self.checks if check.kind == "improved"}
        return [check for check in self.checks if check.kind == "noninferior" and check.source not in improved]


def paired(
    before: Sequence[R],
    after: Sequence[R],
    value: Callable[[R], float],
    stratum: Callable[[R], str] | None = None,
) -> PairedValues:
    """The values of two states' records, matched by key.

    Args:
        value: of a record, 0..1, larger is better.
        stratum: the label of a record's stratum.

    Raises:
        MoltError: if the records are not of the same items.
    """
    pairs = pair(before, after)
    return PairedValues(
        [float(value(old)) for old, _ in pairs],
        [float(value(new)) for _, new in pairs],
        [stratum(old) for old, _ in pairs] if stratum else (),
    )


def judge(criteria: Sequence[Criterion], confidence: float) -> GateVerdict:
    """Judge each criterion. What cannot be resolved with these items counts as not promoted.

    Each criterion errs at 1 - confidence, one-sided. Since all must pass, a candidate that is worse in any of them is
    promoted no more often than that, and no correction for their number is due (intersection-union test, Berger 1982).
    """
    results = [_result(criterion, confidence) for criterion in criteria]
    return GateVerdict(all(result.outcome == "pass" for result in results), results)


def confidence_at(look: int, confidence: float) -> float:
    """The confidence of one of many looks at the same items, counted from 1, so that all of them together err at
    1 - confidence: look k may err at the share 6 / (pi k)^2 of that, and these shares sum to 1 (alpha spending, as in
    Lan and DeMets 1983; the bound over looks is Bonferroni's).

    Raises:
        ValueError: for a look before the first.
    """
    if look < 1:
        raise ValueError("looks are counted from 1")
    return 1 - (1 - confidence) * 6 / (math.pi * look) ** 2


def compare(values: PairedValues, confidence: float = 0.95) -> Comparison:
    """The paired comparison; with strata, the mean of their differences and the error of that mean.

    Raises:
        ValueError: if the strata are not one label for each item.
    """
    if not values.strata:
        return stats.paired(values.before, values.after, confidence)
    if not len(values.before) == len(values.after) == len(values.strata):
        raise ValueError("strata needs one label for each item of both sides")
    before, after, strata = np.asarray(values.before), np.asarray(values.after), np.asarray(values.strata)
    parts = [
        stats.paired(before[strata == name].tolist(), after[strata == name].tolist(), confidence)
        for name in dict.fromkeys(values.strata)
    ]
    return stats.stratified(parts, confidence)


def _result(criterion: Criterion, confidence: float) -> CriterionResult:
    # the two-sided interval whose bounds are the one-sided ones of this confidence
    comparison = compare(criterion.values, 2 * confidence - 1)
    judged = _noninferior if criterion.kind == "noninferior" else _improved
    outcome, needed, words = judged(comparison, criterion.margin, confidence)
    low, high = ((comparison.difference + side * comparison.bound(confidence)) * 100 for side in (-1, 1))
    points = comparison.difference * 100
    return CriterionResult(
        name=criterion.name,
        kind=criterion.kind,
        source=criterion.source,
        n=comparison.n,
        difference=points,
        low=low,
        high=high,
        margin=criterion.margin,
        outcome=outcome,
        needed_n=needed,
        sentence=f"{criterion.name}: {points:+z.1f} points (n={comparison.n}), {words}",
    )


def _noninferior(comparison: Comparison, margin: float, confidence: float) -> tuple[Outcome, int | None, str]:
    """Outcome, needed items, and words."""
    outcome = stats.noninferior(comparison, margin / 100, confidence)
    needed, case = stats.needed_n(comparison, margin / 100, confidence), "nothing was truly lost"
    if outcome == "unresolved" and (needed or 0) <= comparison.n:
        # so many items mostly pass a candidate that lost nothing: assume that the loss is the observed one
        needed, case = _more_than(comparison, margin / 100, confidence), "the change is truly this"
    words = {
        "pass": f"not worse by {margin:g} points or more, at {confidence * 100:.4g}% confidence",
        "fail": f"worse by more than {margin:g} points, at {confidence * 100:.4g}% confidence",
        "unresolved": f"which may be worse by {margin:g} points or not; {_remedy(needed, case)}",
    }
    return outcome, needed, words[outcome]


def _improved(comparison: Comparison, margin: float, confidence: float) -> tuple[Outcome, int | None, str]:
    """Outcome, needed items, and words. Any gain counts, so there is no margin."""
    outcome: Outcome = "unresolved"
    if abs(comparison.difference) > comparison.bound(confidence):
        outcome = "pass" if comparison.difference > 0 else "fail"
    needed = None
    if outcome == "unresolved" and comparison.difference > 0:
        needed = _more_than(comparison, margin, confidence)
    words = {
        "pass": f"better than before, at {confidence * 100:.4g}% confidence",
        "fail": f"worse than before, at {confidence * 100:.4g}% confidence",
        "unresolved": f"which may be no gain; {_remedy(needed, 'the gain is truly this')}",
    }
    return outcome, needed, words[outcome]


def _more_than(comparison: Comparison, margin: float, confidence: float) -> int | None:
    """Items needed if the true difference is the observed one; more than there are, since these were not enough."""
    needed = stats.needed_n(comparison, margin, confidence, truth=comparison.difference)
    return None if needed is None else max(needed, comparison.n + 1)


def _remedy(needed: int | None, case: str) -> str:
    if needed is None:
        return "as it stands, more items are not expected to resolve it"
    return f"about {needed} items would resolve it if {case}"
