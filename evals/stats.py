"""Intervals, paired comparisons, non-inferiority, seeds. From scipy and statsmodels.

Values are shares of 1 (an item's score lies in 0..1) unless said otherwise; margins are on the scale of the values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower, normal_sample_size_one_tail
from statsmodels.stats.proportion import proportion_confint

Outcome = Literal["pass", "fail", "unresolved"]
POWER = 0.8
RESAMPLES = 4999
SAME = 1e-9
"""Differences closer than this are equal but for rounding."""
SLIGHT = 0.01
"""An item whose score in 0..1 changed by no more than this has not moved."""
FEW = 5
"""Where fewer items moved, they do not show how many may move and how far, and Student's interval is too narrow."""
UNKNOWN = dict.fromkeys(("difference", "low", "high", "detectable"), math.nan)


@dataclass(frozen=True)
class Estimate:
    """A mean with its two-sided interval; infinite bounds where one value cannot give any."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """After against before, paired by item (or by cluster of items, which are then what is counted).

    Attributes:
        n: items or clusters.
        before: their mean before; `after` the mean after.
        difference: after - before, with its two-sided interval, `low` to `high`.
        p: two-sided.
        lost: how many went down; `gained` how many went up.
        detectable: the smallest difference that n with this spread show with 80% power.
        error: standard error of the difference, which with `df` gives bounds at other confidences.
        df: degrees of freedom.
    """

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
        return _quantile(confidence, self.df) * self.error


def proportion(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's interval (1927)."""
    if n < 1:
        raise ValueError("a proportion needs at least one trial")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Estimate(n, successes / n, _number(low), _number(high))


def mean(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Student's interval. One value has no spread, so its bounds are infinite; equal values have one of no width, as
    their unit is not known: `proportion` and `paired` do better for shares."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        raise ValueError("a mean needs at least one value")
    center, half = float(array.mean()), _quantile((1 + confidence) / 2, len(array) - 1) * _standard_error(array)
    return Estimate(len(array), center, center - half, center + half)


def within(estimate: Estimate, low: float, high: float) -> Estimate:
    """The same with a mean and bounds that lie in what is possible: an interval over few values may reach beyond."""
    mean, lower, upper = (min(max(value, low), high) for value in (estimate.mean, estimate.low, estimate.high))
    return replace(estimate, mean=mean, low=lower, high=upper)


def score(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of scores that lie in 0..1, as `mean`; so do its bounds.

    Equal scores do not show that all are equal: the share of others is at most what n equal ones leave room for
    (Clopper and Pearson 1934), and they may lie anywhere in 0..1.
    """
    estimate = mean(values, confidence)
    if len(values) > 1 and np.ptp(values) <= SAME:
        others = _exact(0, len(values), confidence)[1]
        estimate = replace(
            estimate, low=estimate.mean * (1 - others), high=estimate.mean + (1 - estimate.mean) * others
        )
    return within(estimate, 0.0, 1.0)


def paired(
    before: Sequence[float],
    after: Sequence[float],
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Comparison:
    """Compare two states on the same items, in the same order, each score in 0..1, by Student's interval within -1..1.

    `clusters` (a label for each item) averages within each cluster first, since its items are no independent draws.
    Items of which hardly any moved, or all one way, get a wider bound: see `_error`.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if len(first) != len(second) or not len(first):
        raise ValueError("paired comparison needs the same items on both sides, at least one")
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        raise ValueError("paired comparison needs finite values")
    if clusters is not None:
        first, second = _by_cluster(first, clusters), _by_cluster(second, clusters)
    change = second - first
    comparison = Comparison(
        n=len(change),
        before=float(first.mean()),
        after=float(second.mean()),
        error=_error(change, confidence),
        df=max(len(change) - 1, 1),
        p=_p_value(first, second),
        lost=int((change < -SAME).sum()),
        gained=int((change > SAME).sum()),
        **UNKNOWN,
    )
    return _with_interval(comparison, confidence)


def stratified(parts: Sequence[Comparison], confidence: float = 0.95) -> Comparison:
    """Several paired comparisons as one, each weighted equally whatever its size.

    The strata are independent samples, so their squared errors add; degrees of freedom after Satterthwaite (1946).
    """
    if not parts:
        raise ValueError("a stratified comparison needs at least one part")
    k, variance = len(parts), sum(part.error**2 for part in parts)
    error = math.sqrt(variance) / k
    df = variance**2 / sum(part.error**4 / part.df for part in parts)
    before, after = (sum(getattr(part, side) for part in parts) / k for side in ("before", "after"))
    comparison = Comparison(
        n=sum(part.n for part in parts),
        before=before,
        after=after,
        error=error,
        df=df,
        p=2 * float(scipy_stats.t.sf(abs(after - before) / error, df)),
        lost=sum(part.lost for part in parts),
        gained=sum(part.gained for part in parts),
        **UNKNOWN,
    )
    return _with_interval(comparison, confidence)


def noninferior(comparison: Comparison, margin: float, confidence: float = 0.95) -> Outcome:
    """pass: surely not worse by the margin; fail: surely worse by it; both one-sided; else unresolved."""
    half = comparison.bound(confidence)
    if comparison.difference - half > -margin:
        return "pass"
    return "fail" if comparison.difference + half < -margin else "unresolved"


def equivalent(comparison: Comparison, margin: float, confidence: float = 0.95) -> Outcome:
    """Two one-sided tests (Schuirmann 1987). pass: surely within the margin on both sides; fail: surely beyond it on
    one; else unresolved."""
    half, size = comparison.bound(confidence), abs(comparison.difference)
    if size + half < margin:
        return "pass"
    return "fail" if size - half > margin else "unresolved"


def t_test(values: Sequence[float]) -> float:
    """Two-sided p of a mean of 0; equal values that are not 0 have p 0."""
    if np.ptp(values) <= SAME:
        return 1.0 if abs(values[0]) <= SAME else 0.0
    test: Any = scipy_stats.ttest_1samp(values, 0.0)
    return _number(test.pvalue)


def sign_flip(values: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of a mean of 0 by a permutation test of signs: exact, and so never below 2 in 2^n, for up to twelve
    values, by `RESAMPLES` random ones for more."""
    change = np.sort(np.asarray(values, dtype=float))  # so that their order cannot change which signs are drawn
    if len(change) < 2 or np.abs(change).max() < SAME:
        return 1.0
    test = scipy_stats.permutation_test(
        (change,),
        lambda values, axis=-1: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def cluster_draws(labels: Sequence[Hashable], count: int, seed: int) -> list[np.ndarray]:
    """Resampled places for a bootstrap over clusters: labels are drawn with replacement, each with all its places."""
    clusters: dict[Hashable, list[int]] = {}
    for place, label in enumerate(labels):
        clusters.setdefault(label, []).append(place)
    rng, parts = np.random.default_rng(seed), [np.array(places) for places in clusters.values()]
    return [np.concatenate([parts[i] for i in rng.choice(len(parts), len(parts))]) for _ in range(count)]


def crossed_draws(first: Sequence[Hashable], second: Sequence[Hashable], count: int, seed: int) -> list[np.ndarray]:
    """As `cluster_draws`, for places with two labels, both of which are chance: labels of both kinds are drawn, and a
    place comes as often as its two labels together (the pigeonhole bootstrap, Owen 2007)."""
    rng = np.random.default_rng(seed)
    codes = [
        np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1] for labels in (first, second)
    ]
    draws = []
    for _ in range(count):
        times = [
            np.bincount(rng.integers(size, size=size), minlength=size) for size in (each.max() + 1 for each in codes)
        ]
        draws.append(np.repeat(np.arange(len(first)), times[0][codes[0]] * times[1][codes[1]]))
    return draws


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false positive among them is that of one test (Holm 1979)."""
    if not len(p_values):
        return []
    adjusted: Any = multipletests(p_values, method="holm")
    return adjusted[1].tolist()


def mixed(
    differences: Sequence[float], seeds: Sequence[Hashable], items: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """The mean of paired differences, one for each seed and item, both random effects: a linear mixed model by REML,
    with a normal interval.

    Where seeds share no items, an item's effect is part of the residual. It supplements an interval over seeds and does
    not replace it: with few seeds it relies on the items.
    """
    table = pd.DataFrame({"y": differences, "seed": list(seeds), "item": list(items), "all": 0})
    if table["item"].is_unique:
        model = MixedLM.from_formula("y ~ 1", groups="seed", data=table)
    else:
        parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
        model = MixedLM.from_formula("y ~ 1", groups="all", vc_formula=parts, re_formula="0", data=table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance on its boundary, 0, is reported as not converged
        fitted: Any = model.fit(reml=True)
    center, error = float(fitted.fe_params.iloc[0]), float(fitted.bse_fe.iloc[0])
    half = float(scipy_stats.norm.ppf((1 + confidence) / 2)) * error
    return Estimate(len(table), center, center - half, center + half)


@dataclass(frozen=True)
class Noise:
    """The spread of runs that ought to be equal.

    Attributes:
        runs: how many.
        sd: standard deviation of one run about their mean (unbiased, all values pooled).
        high: its one-sided upper bound.
        largest: the largest difference of two runs.
    """

    runs: int
    sd: float
    high: float
    largest: float


def noise_floor(runs: Sequence[Sequence[float]], confidence: float = 0.95) -> Noise:
    """The noise of identical runs, two or more, each with the same values in the same order: smaller differences
    between runs mean nothing."""
    table = np.asarray(runs, dtype=float)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError("a noise floor needs two or more runs of the same values")
    df = (len(table) - 1) * table.shape[1]
    variance = float(((table - table.mean(0)) ** 2).sum() / df)
    high = math.sqrt(variance * df / float(scipy_stats.chi2.ppf(1 - confidence, df)))
    return Noise(len(table), math.sqrt(variance), high, float(np.ptp(table, axis=0).max()))


def needed_n(comparison: Comparison, margin: float, confidence: float = 0.95, truth: float = 0.0) -> int | None:
    """About how many items tell, with 80% power at this spread, on which side of -margin a true difference lies.

    None if `truth` lies on the margin itself, where no number does.
    """
    distance = abs(margin + truth)
    if distance < SAME:
        return None
    sd = comparison.error * math.sqrt(comparison.n)
    return max(2, math.ceil(_number(normal_sample_size_one_tail(distance, POWER, 1 - confidence, sd))))


def seed_difference(differences: Sequence[float], confidence: float = 0.95, item_error: float = math.inf) -> Estimate:
    """The mean of one difference a seed, by Student's interval over seeds; infinite bounds for a single seed.

    Several seeds that agree exactly (coarse scores do) would give an interval of no width: `item_error`, the standard
    error from sampling items alone, in the same unit, then stands in for theirs; without it the bounds are infinite.
    """
    estimate = mean(differences, confidence)
    if estimate.n == 1 or np.ptp(differences) > SAME:
        return estimate
    half = _quantile((1 + confidence) / 2, estimate.n - 1) * item_error
    return Estimate(estimate.n, estimate.mean, estimate.mean - half, estimate.mean + half)


def seed_or_item_error(
    differences: Sequence[np.ndarray], items: Sequence[Hashable], confidence: float = 0.95, bounded: bool = True
) -> tuple[float, Literal["seeds", "items"]]:
    """Standard error of the mean of seeds, and whether it is that of the seeds or that of the items.

    The means of seeds differ at least as much as the sampling of their items makes them differ. Few seeds can agree by
    chance, so the error of the items alone is a floor.

    Args:
        differences: (items,) of each seed, unscaled.
        items: a label for each item, seed after seed; items that seeds share are averaged first.
        bounded: the values lie in 0..1. Of others that hardly any item changed, nothing is known: the error is
            infinite.
    """
    pooled = _by_cluster(np.concatenate([np.asarray(each, dtype=float) for each in differences]), items)
    if bounded:
        by_items = _error(pooled, confidence)
    else:
        by_items = _standard_error(pooled) if (np.abs(pooled) > SAME).sum() >= FEW else math.inf
    by_seeds = _standard_error(np.array([float(np.mean(each)) for each in differences]))
    if math.isfinite(by_seeds) and by_seeds >= by_items:
        return by_seeds, "seeds"
    return by_items, "items"


def seed_interval(values: Sequence[float], error: float, confidence: float = 0.95) -> Estimate:
    """The mean of one value a seed, with Student's interval over seeds for this standard error; infinite bounds for a
    single seed."""
    n, center = len(values), float(np.mean(values))
    half = _quantile((1 + confidence) / 2, n - 1) * error if n > 1 else math.inf
    return Estimate(n, center, center - half, center + half)


def detectable(sd: float, n: int, confidence: float = 0.95, power: float = POWER) -> float:
    """Smallest mean difference that n values with this standard deviation show (two-sided t-test), in sd's unit."""
    if n < 2 or not math.isfinite(sd):
        return math.inf
    return _effect(float(n), confidence, power) * sd


def _with_interval(comparison: Comparison, confidence: float) -> Comparison:
    """Fill in difference, interval and detectable difference."""
    difference, n, df, error = comparison.after - comparison.before, comparison.n, comparison.df, comparison.error
    half = _quantile((1 + confidence) / 2, df) * error
    # error = sd / sqrt(n) with df + 1 = n where there are no strata; with them, of a sample as informative
    detectable = _effect(df + 1, confidence, POWER) * math.sqrt(df + 1) * error if n > 1 else math.inf
    return replace(
        comparison,
        difference=difference,
        low=max(difference - half, -1.0),
        high=min(difference + half, 1.0),
        detectable=detectable,
    )


@lru_cache(maxsize=1024)
def _effect(n: float, confidence: float, power: float) -> float:
    """Smallest mean in standard deviations. Solved one-sided at half the level: statsmodels' two-sided power is NaN for
    large effects at small n and its root is then wrong; the other tail adds next to nothing."""
    solved: Any = TTestPower().solve_power(
        effect_size=None, nobs=n, alpha=(1 - confidence) / 2, power=power, alternative="larger"
    )
    return _number(solved)


def _quantile(confidence: float, df: float) -> float:
    return float(scipy_stats.t.ppf(confidence, max(df, 1)))


def _standard_error(values: np.ndarray) -> float:
    return float(scipy_stats.sem(values)) if len(values) > 1 else math.inf


def _error(change: np.ndarray, confidence: float) -> float:
    """Standard error of the mean change of scores in 0..1; a larger one where these items hide the spread that the
    population may have.

    Student's interval promises too much where few items moved, or all one way and by the whole score: 60 right/wrong
    items would pass 19% of the candidates that lost 5 points at a margin of 5, instead of 5%. There the error is what
    makes Student's bound the longer side of the exact interval of the share that moved (Clopper and Pearson 1934; with
    none of n, about 3.7/n at 95%, one-sided the rule of three), times the room of a move: the largest that was seen,
    or, where none was, what scores in 0..1 leave. A change that all items share is none.
    """
    n = len(change)
    shared = float(change.mean()) if np.ptp(change) <= SAME else 0.0
    moves = change[np.abs(change - shared) > SLIGHT]
    one_way = (moves > 0).all() or (moves < 0).all()
    by_whole_scores = set(np.unique(change)) in ({-1.0, 0.0}, {0.0, 1.0})
    if not ((one_way and len(moves) < FEW) or by_whole_scores):
        return _standard_error(change)
    share = len(moves) / n
    low, high = _exact(len(moves), n, confidence)
    room = float(np.abs(moves).max()) if len(moves) else 1 + abs(float(change.mean()))
    half = room * max(share - low, high - share)
    return max(_standard_error(change) if n > 1 else 0.0, half / _quantile((1 + confidence) / 2, n - 1))


def _exact(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934)."""
    bounds: Any = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    return _number(bounds[0]), _number(bounds[1])


def _by_cluster(values: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    if len(clusters) != len(values):
        raise ValueError("clusters needs one label for each item")
    places = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    index = [places[label] for label in clusters]
    return np.bincount(index, values) / np.bincount(index)


def _p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Exact McNemar for right/wrong items, a sign-flip permutation test for anything else."""
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        table = [[int(((first == a) & (second == b)).sum()) for b in (0, 1)] for a in (0, 1)]
        exact: Any = mcnemar(table, exact=True)
        return float(exact.pvalue)
    return sign_flip(second - first)


def _number(value: Any) -> float:
    """statsmodels returns floats, arrays of one or numpy scalars."""
    return float(np.asarray(value).item())
