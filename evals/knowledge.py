"""How much new knowledge fits before something is forgotten: bits of taught facts against points of capability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from moltlm.evals import stats


@dataclass(frozen=True)
class Taught:
    """One training on `facts` facts. Costs are points of accuracy lost since the base, `control` after as many tokens
    of the base's own text."""

    rank: int
    facts: int
    seed: int
    bits: float
    cost: float
    control: float


@dataclass(frozen=True)
class Point:
    facts: int
    bits: stats.Estimate
    cost: stats.Estimate
    control: stats.Estimate


@dataclass(frozen=True)
class Capacity:
    """What adapters of one rank hold. `at_drop`: bits stored where `drop` points are lost, over the `reached` of
    `seeds` seeds that lose them at all; None where fewer than two do."""

    rank: int
    seeds: int
    drop: float
    points: list[Point]
    reached: int
    at_drop: stats.Estimate | None


def bits(taught: Sequence[float], untaught: Sequence[float], facts: int) -> float:
    """Bits stored, from the log-probabilities (nats, of whole answers) of what was taught and of facts of the same kind
    that were not. With V equally likely answers a fact is worth log2 V less its negative log-likelihood; of that goes
    what untaught ones are worth, which is the form of the answer. So log2 V falls out. Not clipped at 0."""
    return facts * (float(np.mean(taught)) - float(np.mean(untaught))) / math.log(2)


def find(rows: Sequence[Taught], drop: float) -> list[Capacity]:
    """Each rank by itself, in order. The seeds of a rank need not have been taught the same numbers of facts."""
    found = []
    for rank in sorted({row.rank for row in rows}):
        of = [row for row in rows if row.rank == rank]
        seeds = sorted({row.seed for row in of})
        limits = [_at([row for row in of if row.seed == seed], drop) for seed in seeds]
        reached = [limit for limit in limits if limit is not None]
        points = [_point([row for row in of if row.facts == facts]) for facts in sorted({row.facts for row in of})]
        limit = stats.mean(reached) if len(reached) > 1 else None
        found.append(Capacity(rank, len(seeds), drop, points, len(reached), limit))
    return found


def _point(rows: list[Taught]) -> Point:
    values = ([getattr(row, name) for row in rows] for name in ("bits", "cost", "control"))
    return Point(rows[0].facts, *(stats.mean(each) for each in values))


def _at(rows: list[Taught], drop: float) -> float | None:
    """Bits where one seed has lost `drop` points: cost made monotone in the number of facts, interpolated from nothing
    taught and nothing lost on. None if it never loses as much."""
    rows = sorted(rows, key=lambda row: row.facts)
    counts = [0, *(row.facts for row in rows)]
    costs = IsotonicRegression(y_min=0.0).fit_transform(counts, [0.0, *(row.cost for row in rows)])
    stored = [0.0, *(row.bits for row in rows)]
    above = next((place for place, cost in enumerate(costs) if cost >= drop), None)
    if above is None:
        return None
    share = (drop - costs[above - 1]) / (costs[above] - costs[above - 1])
    return stored[above - 1] + float(share) * (stored[above] - stored[above - 1])
