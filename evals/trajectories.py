"""Training runs as trajectories along gain, so that arms can be compared where they have gained the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from moltlm.data.errors import MoltError

Record = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A checkpoint: gain over the base on the hypothesis' axis, accuracy in 0..1, whether the model was coherent, and
    KL to the base on neutral answers, nats a token, where it was measured."""

    step: int
    gain: float
    accuracy: float
    feasible: bool
    kl: float | None = None


@dataclass(frozen=True)
class Curve:
    """The path of one arm with one seed, from the base at step 0."""

    arm: str
    seed: int
    points: list[Point]


@dataclass(frozen=True)
class Trajectory:
    """One arm with one seed. `start` holds each item's score of the base, `last` at the last step; along the coherent
    checkpoints, `gains` strictly increase from 0 and `scores` is gains x items."""

    name: str
    items: list[Any]
    curve: Curve
    start: np.ndarray
    last: np.ndarray
    gains: np.ndarray
    scores: np.ndarray

    @property
    def top(self) -> float:
        return float(self.gains[-1])

    def at(self, levels: list[float]) -> np.ndarray:
        """Each item's score, interpolated linearly in gain, averaged over the levels."""
        return np.apply_along_axis(lambda item: np.interp(levels, self.gains, item), 0, self.scores).mean(axis=0)

    def change(self, levels: list[float]) -> np.ndarray:
        """The same since the base."""
        return self.at(levels) - self.start


Trajectories = dict[tuple[str, int], Trajectory]


def trajectories(records: list[Record]) -> Trajectories:
    """By arm and seed. MoltError where checkpoints of one were measured on other items than its base."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for row in sorted(records, key=lambda row: row["step"]):
        groups.setdefault((row["arm"], row["seed"]), []).append(row)
    return {(arm, seed): _trajectory(arm, seed, rows) for (arm, seed), rows in groups.items()}


def _trajectory(arm: str, seed: int, rows: list[Record]) -> Trajectory:
    """From step 0, which is the base."""
    start = {"step": 0, "gain": 0.0, "feasible": True, "items": rows[0]["base_items"]}
    rows = [start, *(row for row in rows if row["step"] > 0)]
    tables = [{item["item"]: item["correct"] for item in row["items"]} for row in rows]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise MoltError(f"{arm} seed {seed}: its checkpoints were not measured on the base's items.")
    items = sorted(tables[0], key=str)
    scores = np.array([[table[item] for item in items] for table in tables], dtype=float)
    points = [
        Point(
            row["step"],
            row["gain"],
            float(score.mean()),
            bool(row["feasible"] and math.isfinite(row["gain"])),
            row.get("kl"),
        )
        for row, score in zip(rows, scores, strict=True)
    ]
    coherent = [place for place, at in enumerate(points) if at.feasible]
    steps, gains = [float(points[place].step) for place in coherent], [points[place].gain for place in coherent]
    levels, averaged = _along(steps, gains, scores[coherent])
    curve = Curve(arm, seed, points)
    return Trajectory(f"{arm} seed {seed}", items, curve, scores[0], scores[-1], levels, averaged)


def _along(steps: list[float], gains: list[float], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain made monotone in step, each level once, and the mean of what was measured there."""
    monotone = np.round(IsotonicRegression(y_min=0.0).fit_transform(steps, gains), 12)
    levels = np.unique(monotone)
    return levels, np.stack([values[monotone == level].mean(axis=0) for level in levels])


def at_levels(records: list[Record], arm: str, seed: int, measure: str, levels: list[float]) -> float | None:
    """A measure along one trajectory, interpolated linearly in gain, averaged over the levels; None where unknown."""
    rows = [row for row in records if (row["arm"], row["seed"]) == (arm, seed) and row["feasible"]]
    rows = sorted((row for row in rows if measure in row), key=lambda row: row["step"])
    if not rows or not levels:
        return None
    steps, gains = [row["step"] for row in rows], [row["gain"] for row in rows]
    known, means = _along(steps, gains, np.array([row[measure] for row in rows]))
    return float(np.interp(levels, known, means).mean())
