"""Is there a threshold? Whether capability falls from some dose on, rather than all along or by and by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from evals import stats

PLACES, STEEPNESS = 25, (4.0, 8.0, 16.0, 32.0, 64.0)
RESAMPLES = 200
SPAN = 1 / 3
"""A change point is known if its interval covers less than this part of the doses."""


@dataclass(frozen=True)
class Dose:
    """How far a training had gone (on any scale), and what it had cost by then."""

    seed: int
    dose: float
    cost: float


@dataclass(frozen=True)
class Threshold:
    """`shown` needs a broken stick to predict seeds that were left out better than a line and than a sigmoid, both by a
    95% interval over seeds above 0, and its change point (`at`, with a 95% interval over seeds) to be known to a third
    of the range. `over_line` and `over_sigmoid` are mean squared errors above the stick's; `stick` is its cost at the
    least dose, at the change point, and at the greatest."""

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


Shape = Callable[[np.ndarray], list[np.ndarray]]
"""From doses, on 0..1, the design matrices that least squares may choose from."""


def find(rows: Sequence[Dose], seed: int = 0) -> Threshold | None:
    """None for fewer than three seeds or ten different doses (protocol: threshold)."""
    seeds = np.array([row.seed for row in rows])
    x, y = np.array([row.dose for row in rows]), np.array([row.cost for row in rows])
    names = list(dict.fromkeys(seeds.tolist()))
    if len(names) < 3 or len(set(x.tolist())) < 10:
        return None
    first, last = float(x.min()), float(x.max())
    scaled = (x - first) / (last - first)
    errors = {
        shape: [_error(shape, scaled, y, seeds == name) for name in names] for shape in (_lines, _sticks, _sigmoids)
    }
    over = [
        stats.mean([other - stick for other, stick in zip(errors[shape], errors[_sticks], strict=True)])
        for shape in (_lines, _sigmoids)
    ]
    best, stick = _fit(_sticks, scaled, y)
    at = float(_places()[best])
    draws = stats.cluster_draws(seeds.tolist(), RESAMPLES, seed)
    again = [_places()[_fit(_sticks, scaled[places], y[places])[0]] for places in draws]
    low, high = np.quantile(again, (0.025, 0.975))
    shown = all(one.low > 0 for one in over) and high - low < SPAN
    points = [first + value * (last - first) for value in (at, float(low), float(high))]
    return Threshold(
        len(rows),
        len(names),
        bool(shown),
        points[0],
        points[1],
        points[2],
        (first, last),
        over[0],
        over[1],
        tuple(float(_at(stick, at, place)) for place in (0.0, at, 1.0)),  # type: ignore[arg-type]
    )


def _lines(x: np.ndarray) -> list[np.ndarray]:
    return [np.column_stack([np.ones_like(x), x])]


def _sticks(x: np.ndarray) -> list[np.ndarray]:
    return [np.column_stack([np.ones_like(x), x, np.maximum(0, x - place)]) for place in _places()]


def _sigmoids(x: np.ndarray) -> list[np.ndarray]:
    steps = [1 / (1 + np.exp(-steep * (x - place))) for place, steep in product(_places(), STEEPNESS)]
    return [np.column_stack([np.ones_like(x), step]) for step in steps]


def _places() -> np.ndarray:
    return np.linspace(0.05, 0.95, PLACES)


def _fit(shape: Shape, x: np.ndarray, y: np.ndarray) -> tuple[int, np.ndarray]:
    """Which design fits best, and its coefficients."""
    designs = shape(x)
    found = [np.linalg.lstsq(design, y, rcond=None)[0] for design in designs]
    errors = [float(((design @ one - y) ** 2).sum()) for design, one in zip(designs, found, strict=True)]
    best = int(np.argmin(errors))
    return best, found[best]


def _error(shape: Shape, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> float:
    """Mean squared error on the rows that are `out`, of what the others teach."""
    best, coefficients = _fit(shape, x[~out], y[~out])
    return float(((shape(x[out])[best] @ coefficients - y[out]) ** 2).mean())


def _at(stick: np.ndarray, change: float, x: float) -> float:
    return float(stick[0] + stick[1] * x + stick[2] * max(0.0, x - change))
