"""Methods against forgetting in order of what the model can do after the last task, by the likelihood of right answers
(protocol: methods)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moltlm.evals import stats
from moltlm.evals.stats import Estimate
from moltlm.pipeline.studies.methods import MethodRow

MARGIN = 0.05
"""Nats a token: methods that are nearer to each other than this are tied, however sure the difference is."""


@dataclass(frozen=True)
class Ranked:
    """A method among the others.

    Attributes:
        place: 1 + the number of methods that are better (`better`); methods that tie can share it. None for a method
            that does not have two seeds in common with each method that has a place (`compared`).
        final: mean log-likelihood of the right answers after the last task, over tasks and seeds, nats a token.
        gain: `final` less that of the reference with the same seeds, with Student's 95% interval over seeds, each of
            which has its own order of the tasks where there are several; None without a common seed.
    """

    method: str
    seeds: int
    place: int | None
    final: float
    gain: Estimate | None


def ranking(rows: Sequence[MethodRow], reference: str) -> list[Ranked]:
    """The methods whose likelihood was measured, best first."""
    finals: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.likelihood is not None and math.isfinite(row.likelihood.final):
            finals.setdefault(row.method, {})[row.seed] = row.likelihood.final
    placed = compared(finals)
    ranked = [
        Ranked(
            method=name,
            seeds=len(seeds),
            place=1 + sum(better(finals[other], seeds) for other in placed) if name in placed else None,
            final=float(np.mean(list(seeds.values()))),
            gain=difference(seeds, finals.get(reference, {})),
        )
        for name, seeds in finals.items()
    ]
    return sorted(ranked, key=lambda one: (one.place or len(ranked) + 1, -one.final))


def compared(finals: Mapping[str, dict[int, float]]) -> list[str]:
    """The methods that can be compared with each other, each with two common seeds at least. Those with most seeds come
    first; one that lacks common seeds with them is left out."""
    names: list[str] = []
    for name, seeds in sorted(finals.items(), key=lambda item: -len(item[1])):
        if len(seeds) > 1 and all(len(seeds.keys() & finals[other].keys()) > 1 for other in names):
            names.append(name)
    return names


def difference(one: dict[int, float], other: dict[int, float]) -> Estimate | None:
    """One method less another, paired by seed. Seeds that agree exactly have no interval, as a single one."""
    common = [one[seed] - other[seed] for seed in one if seed in other]
    return stats.seed_difference(common) if common else None


def better(one: dict[int, float], other: dict[int, float]) -> bool:
    """Whether a method is better than another: by `MARGIN` at least, and surely, by the interval over common seeds.
    Of a single seed nothing is sure."""
    estimate = difference(one, other)
    return estimate is not None and estimate.mean >= MARGIN and estimate.low > 0
