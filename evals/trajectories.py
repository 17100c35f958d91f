"""Trainings as trajectories along gain, so that arms are compared where they have gained the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.isotonic import IsotonicRegression

from moltlm.data.errors import MoltError
from moltlm.evals.records import CheckpointRecord

DriftMeasure = Literal["cross_entropy", "kl"]


@dataclass(frozen=True)
class Point:
    """A checkpoint.

    Attributes:
        step: optimizer steps.
        gain: over the base, on the hypothesis' axis.
        accuracy: share of right items, 0..1.
        feasible: the model is coherent, and its gain a number.
        kl: KL to the base on neutral answers, nats a token; None where it was not measured.
    """

    step: int
    gain: float
    accuracy: float
    feasible: bool
    kl: float | None = None


@dataclass(frozen=True)
class Curve:
    """The checkpoints of one arm with one seed, from the base at step 0."""

    arm: str
    seed: int
    points: list[Point]


@dataclass(frozen=True)
class Trajectory:
    """One arm with one seed, item by item.

    Attributes:
        name: arm and seed, for a reader.
        items: the items' ids, in the order of the arrays.
        curve: its checkpoints.
        start: (items,) scores of the base.
        last: (items,) scores at the last step.
        gains: (levels,) gains of the coherent checkpoints, strictly increasing from 0.
        scores: (levels, items) scores there.
    """

    name: str
    items: list[int | str]
    curve: Curve
    start: np.ndarray
    last: np.ndarray
    gains: np.ndarray
    scores: np.ndarray

    @property
    def top(self) -> float:
        """The largest gain that is reached coherently."""
        return float(self.gains[-1])

    def at(self, levels: list[float]) -> np.ndarray:
        """Each item's score, interpolated linearly in gain, averaged over the levels."""
        return np.apply_along_axis(lambda item: np.interp(levels, self.gains, item), 0, self.scores).mean(axis=0)

    def change(self, levels: list[float]) -> np.ndarray:
        """`at` minus the base's scores."""
        return self.at(levels) - self.start


Trajectories = dict[tuple[str, int], Trajectory]


def trajectories(records: Sequence[CheckpointRecord]) -> Trajectories:
    """Group the records by arm and seed.

    Raises:
        MoltError: if checkpoints of one training were measured on other items than its base.
    """
    groups: dict[tuple[str, int], list[CheckpointRecord]] = {}
    for record in sorted(records, key=lambda record: record.step):
        groups.setdefault((record.arm, record.seed), []).append(record)
    return {(arm, seed): _trajectory(arm, seed, group) for (arm, seed), group in groups.items()}


def _trajectory(arm: str, seed: int, records: list[CheckpointRecord]) -> Trajectory:
    """From step 0, which is the base; `records` are in the order of their steps."""
    trained = [record for record in records if record.step > 0]
    measured = [records[0].base_items, *(record.items for record in trained)]
    tables = [{item.item: item.correct for item in items} for items in measured]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise MoltError(f"{arm} seed {seed}: its checkpoints were not measured on the base's items.")
    items = sorted(tables[0], key=str)
    scores = np.array([[table[item] for item in items] for table in tables], dtype=float)
    points = [Point(0, 0.0, float(scores[0].mean()), True)]
    points += [
        Point(
            record.step,
            record.gain,
            float(score.mean()),
            record.feasible and math.isfinite(record.gain),
            record.kl,
        )
        for record, score in zip(trained, scores[1:], strict=True)
    ]
    coherent = [place for place, point in enumerate(points) if point.feasible]
    steps, gains = [float(points[place].step) for place in coherent], [points[place].gain for place in coherent]
    levels, averaged = _along(steps, gains, scores[coherent])
    curve = Curve(arm, seed, points)
    return Trajectory(f"{arm} seed {seed}", items, curve, scores[0], scores[-1], levels, averaged)


def _along(steps: list[float], gains: list[float], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain made monotone in step, each level once, and the mean of what was measured there."""
    monotone = np.round(IsotonicRegression(y_min=0.0).fit_transform(steps, gains), 12)
    levels = np.unique(monotone)
    return levels, np.stack([values[monotone == level].mean(axis=0) for level in levels])


def at_levels(
    records: Sequence[CheckpointRecord], arm: str, seed: int, measure: DriftMeasure, levels: list[float]
) -> float | None:
    """A measure along one trajectory, interpolated linearly in gain, averaged over the levels; None where it was not
    measured."""
    of_run = [record for record in records if (record.arm, record.seed) == (arm, seed) and record.feasible]
    points = [
        (record.step, record.gain, value)
        for record in sorted(of_run, key=lambda record: record.step)
        if (value := getattr(record, measure)) is not None
    ]
    if not points or not levels:
        return None
    steps, gains, values = (list(column) for column in zip(*points, strict=True))
    reached, means = _along(steps, gains, np.array(values))
    return float(np.interp(levels, reached, means).mean())
