"""Intervals, paired comparisons, non-inferiority, seeds. From scipy and statsmodels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

Outcome = Literal["pass", "fail", "unresolved"]
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean with its two-sided interval; infinite bounds where one value cannot give any."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """After against before, paired by item. `difference`, `low` and `high` are after - before in the unit of the
    values; `p` is two-sided; `lost` and `gained` count items that went down and up; `detectable` is the smallest
    difference that n items with this spread show with 80% power; `error` and `df` give other bounds."""

    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    lost: int
    gained: int
    detectable: float
    error: float
    df: float

    def bound(self, confidence: float) -> float:
        """Half-width of the one-sided interval at this confidence."""
        return float(scipy_stats.t.ppf(confidence, self.df)) * self.error


def proportion(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's interval."""
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Estimate(n, successes / n, float(low), float(high))


def mean(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Student's interval. One value has no spread, so its bounds are infinite."""
    array = np.asarray(values, dtype=float)
    center, error = float(array.mean()), _standard_error(array)
    half = (
        float(scipy_stats.t.ppf((1 + confidence) / 2, max(len(array) - 1, 1))) * error if len(array) > 1 else math.inf
    )
    return Estimate(len(array), center, center - half, center + half)


def paired(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Compare two states on the same items, in the same order.

    Where no item changed, the sample shows no spread but the population may have some: the error is then that of one
    item in n + 2 having changed by the range of the values (after Agresti and Min 2005, who add to each count).
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if len(first) != len(second) or not len(first):
        raise ValueError("paired comparison needs the same items on both sides, at least one")
    change = second - first
    return _comparison(
        n=len(change),
        before=float(first.mean()),
        after=float(second.mean()),
        error=_error_of_change(change),
        df=max(len(change) - 1, 1),
        p=_p_value(first, second),
        lost=int((change < 0).sum()),
        gained=int((change > 0).sum()),
        confidence=confidence,
    )


def stratified(parts: Sequence[Comparison], confidence: float = 0.95) -> Comparison:
    """Several paired comparisons as one, each weighted equally whatever its size; the errors add in squares."""
    k = len(parts)
    error = math.sqrt(sum(part.error**2 for part in parts)) / k
    difference = sum(part.difference for part in parts) / k
    return _comparison(
        n=sum(part.n for part in parts),
        before=sum(part.before for part in parts) / k,
        after=sum(part.after for part in parts) / k,
        error=error,
        df=sum(part.df for part in parts),
        p=2 * float(scipy_stats.norm.sf(abs(difference) / error)),
        lost=sum(part.lost for part in parts),
        gained=sum(part.gained for part in parts),
        confidence=confidence,
    )


def _comparison(
    n: int, before: float, after: float, error: float, df: float, p: float, lost: int, gained: int, confidence: float
) -> Comparison:
    half = float(scipy_stats.t.ppf((1 + confidence) / 2, df)) * error
    z = scipy_stats.norm.ppf((1 + confidence) / 2) + scipy_stats.norm.ppf(POWER)
    difference = after - before
    return Comparison(
        n, before, after, difference, difference - half, difference + half, p, lost, gained, float(z * error), error, df
    )


def noninferior(comparison: Comparison, margin: float, confidence: float = 0.95) -> Outcome:
    """pass: surely not worse by the margin; fail: surely worse by it; both one-sided; else unresolved."""
    half = comparison.bound(confidence)
    if comparison.difference - half > -margin:
        return "pass"
    return "fail" if comparison.difference + half < -margin else "unresolved"


def needed_items(comparison: Comparison, margin: float, confidence: float = 0.95) -> int:
    """Items that would resolve a margin with 80% power at this spread, were there no difference."""
    z = scipy_stats.norm.ppf(confidence) + scipy_stats.norm.ppf(POWER)
    return max(2, math.ceil((z * comparison.error * math.sqrt(comparison.n) / margin) ** 2))


def detectable(sd: float, n: int, confidence: float = 0.95) -> float:
    """Smallest mean difference that n seeds with this standard deviation show with 80% power (two-sided t-test)."""
    if n < 2 or not math.isfinite(sd):
        return math.inf
    effect = TTestPower().solve_power(effect_size=None, nobs=n, alpha=1 - confidence, power=POWER)
    return float(np.asarray(effect).item()) * sd


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf


def _error_of_change(change: np.ndarray) -> float:
    n = len(change)
    if n > 1 and np.ptp(change) > 0:
        return _standard_error(change)
    share = 1 / (n + 2)
    return math.sqrt(share * (1 - share) / n)


def _p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Exact McNemar for right/wrong items, a sign-flip permutation test for anything else."""
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        table = [[int(((first == a) & (second == b)).sum()) for b in (0, 1)] for a in (0, 1)]
        return float(mcnemar(table, exact=True).pvalue)
    if not np.any(first != second):
        return 1.0
    found = scipy_stats.permutation_test(
        (second - first,),
        lambda values, axis=-1: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=4999,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
