"""Is there a threshold? Whether capability falls from some dose on, rather than linearly or along a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from moltlm.evals import stats

RESAMPLES = 200
SEEDS = 4
"""Fewer seeds show no threshold."""
EDGE = 0.1
"""The share of the doses at either end where no change is looked for (the trimming of Andrews 1993, here a tenth)."""
SPAN = 1 / 3
"""A change point counts as located if its interval covers less than this part of the doses."""


@dataclass(frozen=True)
class Dose:
    """The dose of a training (KL to the base, nats a token) and its cost (points of accuracy) at one checkpoint."""

    seed: int
    dose: float
    cost: float


@dataclass(frozen=True)
class Threshold:
    """Whether there is a threshold.

    Attributes:
        n: the doses.
        seeds: the seeds.
        shown: capability falls beyond the change point, and faster than before it; the broken stick predicts left-out
            seeds better than a line and than a sigmoid, both by an interval above 0 over `SEEDS` seeds or more; and the
            change point is located to a third of the range.
        at: the change point, with a 95% interval over seeds, `low` to `high`, which is never narrower than the distance
            of the places where it is looked for.
        left_out: doses that are left out, since they or their costs are no numbers.
        range: the smallest and the largest dose.
        over_line: mean squared error of a line above the stick's, with its 95% interval over seeds.
        over_sigmoid: the same of a sigmoid.
        stick: fitted cost at the smallest dose, at the change point, and at the largest.
    """

    n: int
    seeds: int
    shown: bool
    at: float
    low: float
    high: float
    range: tuple[float, float]
    over_line: stats.Estimate
    over_sigmoid: stats.Estimate
    stick: tuple[float, float, float]
    left_out: int = 0


@dataclass(frozen=True)
class Shape:
    """A curve that least squares fits: its design matrix for doses on 0..1, and its change point, if it has one."""

    place: float | None
    design: Callable[[np.ndarray], np.ndarray]


def find(rows: Sequence[Dose], seed: int = 0) -> Threshold | None:
    """None for fewer than three seeds or ten different doses (protocol: threshold)."""
    total, rows = len(rows), [row for row in rows if math.isfinite(row.dose) and math.isfinite(row.cost)]
    seeds = np.array([row.seed for row in rows])
    x, y = np.array([row.dose for row in rows]), np.array([row.cost for row in rows])
    names = list(dict.fromkeys(seeds.tolist()))
    if len(names) < 3 or len(set(x.tolist())) < 10:
        return None
    first, last = float(x.min()), float(x.max())
    scaled = (x - first) / (last - first)
    line, stick, sigmoid = (
        [_error(shapes, scaled, y, seeds == name) for name in names] for shapes in (LINES, STICKS, SIGMOIDS)
    )
    over = [
        stats.seed_difference([error - stick_error for error, stick_error in zip(errors, stick, strict=True)])
        for errors in (line, sigmoid)
    ]
    best, coefficients = _fit(STICKS, scaled, y)
    at = float(best.place or 0)
    draws = stats.cluster_draws(seeds.tolist(), RESAMPLES, seed)
    resampled = [float(_fit(STICKS, scaled[places], y[places])[0].place or 0) for places in draws]
    low, high = np.quantile(resampled, (0.025, 0.975)) + np.array([-STEP / 2, STEP / 2])
    start, middle, end = (best.design(np.array([0.0, at, 1.0])) @ coefficients).tolist()
    falls = end > middle and (end - middle) / (1 - at) > (middle - start) / at
    located = len(names) >= SEEDS and all(one.low > 0 for one in over) and high - low < SPAN
    points = [first + value * (last - first) for value in (at, float(low), float(high))]
    return Threshold(
        len(rows),
        len(names),
        bool(falls and located),
        points[0],
        points[1],
        points[2],
        (first, last),
        over[0],
        over[1],
        (start, middle, end),
        total - len(rows),
    )


def _stick(place: float, x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x), x, np.maximum(0, x - place)])


def _sigmoid(place: float, steep: float, x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x), 1 / (1 + np.exp(-steep * (x - place)))])


PLACES = np.linspace(0.05, 0.95, 25).tolist()
STEP = PLACES[1] - PLACES[0]
LINES = [Shape(None, lambda x: np.column_stack([np.ones_like(x), x]))]
STICKS = [Shape(place, partial(_stick, place)) for place in PLACES]
SIGMOIDS = [Shape(place, partial(_sigmoid, place, steep)) for place in PLACES for steep in (4.0, 8.0, 16.0, 32.0, 64.0)]


def _fit(shapes: list[Shape], x: np.ndarray, y: np.ndarray) -> tuple[Shape, np.ndarray]:
    """The shape that fits best, and its coefficients. A change has a share `EDGE` of the doses on either side of it."""
    allowed = [one for one in shapes if one.place is None or EDGE <= (x < one.place).mean() <= 1 - EDGE] or shapes
    designs = [one.design(x) for one in allowed]
    solutions = [np.linalg.lstsq(design, y, rcond=None)[0] for design in designs]
    errors = [float(((design @ each - y) ** 2).sum()) for design, each in zip(designs, solutions, strict=True)]
    best = int(np.argmin(errors))
    return allowed[best], solutions[best]


def _error(shapes: list[Shape], x: np.ndarray, y: np.ndarray, out: np.ndarray) -> float:
    """Mean squared error on the rows that are `out`, of the shape fitted to the others."""
    best, coefficients = _fit(shapes, x[~out], y[~out])
    return float(((best.design(x[out]) @ coefficients - y[out]) ** 2).mean())
