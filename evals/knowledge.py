"""How much new knowledge fits before something is forgotten: bits of trained facts against points of capability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from moltlm.evals import stats


@dataclass(frozen=True)
class KnowledgeRun:
    """One training.

    Attributes:
        rank: of the LoRA.
        facts: how many facts it was trained on.
        seed: its seed.
        bits: stored, over all facts; at most `limit`.
        limit: what all facts are worth, bits.
        cost: points of accuracy lost since the base.
        control: the same after training on as many tokens of the base's own answers.
        random: the same after training on the same questions with random answers; None where it was not trained.
        bound: `bits` is an upper bound, not a measurement.
    """

    rank: int
    facts: int
    seed: int
    bits: float
    limit: float
    cost: float
    control: float
    random: float | None = None
    bound: bool = False


@dataclass(frozen=True)
class Point:
    """All seeds of one rank and number of facts.

    Attributes:
        facts: how many were trained on.
        limit: what they are worth, bits; `bits` and its interval lie within 0 and this.
    """

    facts: int
    limit: float
    bits: stats.Estimate
    cost: stats.Estimate
    control: stats.Estimate
    random: stats.Estimate | None = None


@dataclass(frozen=True)
class Capacity:
    """What adapters of one rank store.

    Attributes:
        rank: of the LoRA.
        seeds: how many there are.
        drop: the limit, in points of accuracy.
        points: by number of facts.
        reached: how many seeds lose `drop` points at all.
        at_drop: bits stored where they do; None where fewer than two do.
        bound: all bits are upper bounds.
    """

    rank: int
    seeds: int
    drop: float
    points: list[Point]
    reached: int
    at_drop: stats.Estimate | None
    bound: bool


def bits(logprobs: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """Mean bits stored a fact: log2 V plus the log-probability of the right answer, renormalised over the V possible
    ones; at most log2 V. An unlikely form of the answer costs nothing, and confidence in a wrong one earns nothing.

    Args:
        logprobs: for each question, of every possible answer, in nats.
        right: the place of the right one.
    """
    table = np.asarray(logprobs, dtype=float)
    renormalised = log_softmax(table, axis=1)[np.arange(len(table)), list(right)]
    return float(np.log2(table.shape[1]) + renormalised.mean() / math.log(2))


def limit(facts: int, answers: int) -> float:
    """What `facts` facts with so many equally likely answers are worth, bits."""
    return facts * math.log2(answers)


def upper_bound(difference: float, facts: int, answers: int) -> float:
    """Bits that may be stored, from how much likelier the right answers to trained facts are than those to untrained
    ones (bits, over all facts), where nothing else was measured.

    The right answer to an untrained fact is no likelier than by chance on average, so the difference is an upper bound.
    It can exceed what the facts are worth, since confidence in wrong answers lowers the untrained side.
    """
    return min(difference, limit(facts, answers))


def capacities(runs: Sequence[KnowledgeRun], drop: float) -> list[Capacity]:
    """Each rank by itself, in order. The seeds of a rank may have been trained on different numbers of facts.

    Args:
        drop: the limit, in points of accuracy.
    """
    results = []
    for rank in sorted({run.rank for run in runs}):
        of_rank = [run for run in runs if run.rank == rank]
        seeds = sorted({run.seed for run in of_rank})
        limits = [_limit([run for run in of_rank if run.seed == seed], drop) for seed in seeds]
        reached = [limit for limit in limits if limit is not None]
        counts = sorted({run.facts for run in of_rank})
        points = [_point([run for run in of_rank if run.facts == facts]) for facts in counts]
        largest = max(run.limit for run in of_rank)
        at_drop = stats.within(stats.seed_difference(reached), 0.0, largest) if len(reached) > 1 else None
        bound = any(run.bound for run in of_rank)
        results.append(Capacity(rank, len(seeds), drop, points, len(reached), at_drop, bound))
    return results


def _point(runs: list[KnowledgeRun]) -> Point:
    largest = runs[0].limit
    random = [run.random for run in runs if run.random is not None]
    bits, cost, control = (
        stats.seed_difference(values)
        for values in zip(*((run.bits, run.cost, run.control) for run in runs), strict=True)
    )
    return Point(
        facts=runs[0].facts,
        limit=largest,
        bits=stats.within(bits, 0.0, largest),
        cost=cost,
        control=control,
        random=stats.seed_difference(random) if random else None,
    )


def _limit(runs: list[KnowledgeRun], drop: float) -> float | None:
    """Bits where one seed has lost `drop` points; None if it never loses as much.

    Cost is made monotone in the number of facts, and interpolated from no facts and no loss on.
    """
    runs = sorted(runs, key=lambda run: run.facts)
    counts = [0, *(run.facts for run in runs)]
    costs = IsotonicRegression(y_min=0.0).fit_transform(counts, [0.0, *(run.cost for run in runs)])
    stored = [0.0, *(run.bits for run in runs)]
    above = next((place for place, cost in enumerate(costs) if cost >= drop), None)
    if above is None:
        return None
    share = (drop - costs[above - 1]) / (costs[above] - costs[above - 1])
    return stored[above - 1] + float(share) * (stored[above] - stored[above - 1])
