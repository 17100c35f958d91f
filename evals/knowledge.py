"""How much new knowledge fits before something is forgotten: bits of trained facts against points of capability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from moltlm.evals import stats


@dataclass(frozen=True)
class KnowledgeRun:
    """One training.

    Attributes:
        rank: of the LoRA.
        facts: how many facts it was trained on.
        seed: its seed.
        bits: stored, over all facts.
        cost: points of accuracy lost since the base.
        control: the same after training on as many tokens of the base's own answers.
    """

    rank: int
    facts: int
    seed: int
    bits: float
    cost: float
    control: float


@dataclass(frozen=True)
class Point:
    """All seeds of one rank and number of facts."""

    facts: int
    bits: stats.Estimate
    cost: stats.Estimate
    control: stats.Estimate


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
    """

    rank: int
    seeds: int
    drop: float
    points: list[Point]
    reached: int
    at_drop: stats.Estimate | None


def bits(trained: Sequence[float], untrained: Sequence[float], facts: int) -> float:
    """Bits stored in `facts` facts; not clipped at 0.

    With V equally likely answers a fact is worth log2 V minus its negative log-likelihood. What facts of the same kind
    are worth without training on them is the form of the answer; it is subtracted, so log2 V cancels.

    Args:
        trained: log-probabilities of whole answers to the facts that were trained on, in nats.
        untrained: those of facts that were not.
    """
    return facts * (float(np.mean(trained)) - float(np.mean(untrained))) / math.log(2)


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
        limit = stats.mean(reached) if len(reached) > 1 else None
        results.append(Capacity(rank, len(seeds), drop, points, len(reached), limit))
    return results


def _point(runs: list[KnowledgeRun]) -> Point:
    values = ([run.bits for run in runs], [run.cost for run in runs], [run.control for run in runs])
    return Point(runs[0].facts, *(stats.mean(each) for each in values))


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
