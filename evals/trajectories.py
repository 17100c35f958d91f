"""Trainings as trajectories along gain, so that arms are compared where they have gained the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from moltlm.data.errors import MoltError
from moltlm.evals.records import BasePoint, CheckpointRecord, ItemRecord

Axis = Literal["persona", "likelihood"]
Measure = Literal["logprob", "accuracy", "cross_entropy", "kl"]
DRIFT: tuple[Measure, ...] = ("cross_entropy", "kl")


@dataclass(frozen=True)
class Point:
    """A checkpoint.

    Attributes:
        step: optimizer steps.
        gain: over the base, on the hypothesis' axis.
        accuracy: share of right items, 0..1.
        feasible: the model is coherent, and all that was measured are numbers.
        kl: KL to the base on neutral answers, nats a token; None where it was not measured.
        logprob: mean log-probability of the right answer, nats an item; None where it was not measured.
    """

    step: int
    gain: float
    accuracy: float
    feasible: bool
    kl: float | None = None
    logprob: float | None = None

    @property
    def in_numbers(self) -> bool:
        """Whether all that was measured are numbers."""
        return all(
            math.isfinite(value) for value in (self.gain, self.accuracy, self.kl, self.logprob) if value is not None
        )


@dataclass(frozen=True)
class Curve:
    """The checkpoints of one arm with one seed, from the base at step 0."""

    arm: str
    seed: int
    points: list[Point]


@dataclass(frozen=True)
class Trajectory:
    """One arm with one seed: its coherent checkpoints, of which the first is the base at step 0 and gain 0.

    Attributes:
        name: arm and seed, for a reader.
        items: the items' ids, in the order of the columns.
        curve: all checkpoints.
        gains: (points,) gains as they were measured.
        by_prompt: (points, prompts) gains of each held-out prompt; None where the base's are not in the records.
        values: by measure, (points, items), or (points, 1) of a drift; only what was measured at every point.
        last: by measure, the change since the base at the last step, coherent or not.
    """

    name: str
    items: list[int | str]
    curve: Curve
    gains: np.ndarray
    by_prompt: np.ndarray | None
    values: dict[Measure, np.ndarray]
    last: dict[Measure, np.ndarray]

    @property
    def top(self) -> float:
        """The largest gain that is reached coherently, after gain is made monotone in step."""
        return float(_monotone(self.gains)[-1])

    def change(self, measure: Measure, levels: Sequence[float]) -> np.ndarray:
        """Since the base, interpolated linearly in gain, averaged over the levels; one value a column. The levels lie
        between 0 and `top`: nothing is extrapolated.

        Raises:
            ValueError: for a level beyond `top`.
        """
        if max(levels) > self.top + 1e-9:
            raise ValueError(f"{self.name} does not reach gain {max(levels):g}")
        values = self.values[measure]
        return weights(self.gains, levels) @ values - values[0]

    def without_each_prompt(self, measure: Measure, levels: Sequence[float]) -> np.ndarray | None:
        """(prompts,) the mean change if each held-out prompt in turn had not been asked; None where it is unknown. A
        level that is then just out of reach is read at the top."""
        if self.by_prompt is None or self.by_prompt.shape[1] < 2:
            return None
        means, prompts = self.values[measure].mean(axis=1), self.by_prompt.shape[1]
        gains = (self.by_prompt.sum(axis=1, keepdims=True) - self.by_prompt) / (prompts - 1)
        return np.array([weights(each, levels) @ means - means[0] for each in gains.T])

    def rising(self) -> Trajectory:
        """The part until the largest gain. After it, isotonic regression would pool what lies far apart in time, as
        where a model overfits."""
        end = int(np.argmax(self.gains)) + 1
        return replace(
            self,
            gains=self.gains[:end],
            by_prompt=None if self.by_prompt is None else self.by_prompt[:end],
            values={name: values[:end] for name, values in self.values.items()},
        )


Trajectories = dict[tuple[str, int], Trajectory]


def trajectories(records: Sequence[CheckpointRecord], axis: Axis, second: bool = False) -> Trajectories:
    """Group the records by arm and seed. Along the likelihood, and along a second axis, a trajectory ends where its
    gain is largest.

    Args:
        axis: what gain is measured in, here.
        second: take the gain on the other axis than the hypothesis', where it was measured.

    Raises:
        MoltError: if checkpoints of one training were measured on other items than its base.
    """
    groups: dict[tuple[str, int], list[CheckpointRecord]] = {}
    for record in sorted(records, key=lambda record: record.step):
        if not second or record.second is not None:
            groups.setdefault((record.arm, record.seed), []).append(record)
    runs = {(arm, seed): _trajectory(arm, seed, group, axis, second) for (arm, seed), group in groups.items()}
    return {key: run.rising() for key, run in runs.items()} if second or axis == "likelihood" else runs


def weights(gains: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """(points,) what each point weighs in the mean over the levels, by linear interpolation in gain. Gain is made
    monotone in the order of the points; those that are then equal share their weight."""
    unique, place, count = np.unique(_monotone(gains), return_inverse=True, return_counts=True)
    basis = np.array([np.interp(levels, unique, column).mean() for column in np.eye(len(unique))])
    return basis[place] / count[place]


def _monotone(gains: np.ndarray) -> np.ndarray:
    return np.round(np.maximum(isotonic_regression(gains).x, 0.0), 12)


def _trajectory(arm: str, seed: int, records: list[CheckpointRecord], axis: Axis, second: bool) -> Trajectory:
    """From step 0, which is the base; `records` are in the order of their steps."""
    trained = [record for record in records if record.step > 0]
    measured = [records[0].base_items, *(record.items for record in trained)]
    items = sorted((item.item for item in measured[0]), key=str)
    tables = [{item.item: item for item in each} for each in measured]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise MoltError(f"{arm} seed {seed}: its checkpoints were not measured on the base's items.")
    columns = _columns([[table[item] for item in items] for table in tables]) | _drift(records[0].base, trained)
    gains = [0.0, *(float((record.second if second else record.gain) or 0.0) for record in trained)]
    curve = Curve(arm, seed, _points(trained, gains, columns))
    coherent = [place for place, point in enumerate(curve.points) if point.feasible]
    by_prompt = _by_prompt(records[0].base, trained, axis)
    return Trajectory(
        f"{arm} seed {seed}",
        items,
        curve,
        np.array(gains)[coherent],
        None if by_prompt is None else by_prompt[coherent],
        {name: values[coherent] for name, values in columns.items()},
        {name: values[-1] - values[0] for name, values in columns.items()},
    )


def _points(trained: list[CheckpointRecord], gains: list[float], columns: dict[Measure, np.ndarray]) -> list[Point]:
    accuracy = columns["accuracy"].mean(axis=1).tolist()
    logprob = columns["logprob"].mean(axis=1).tolist() if "logprob" in columns else [None] * len(gains)
    points = [Point(0, 0.0, accuracy[0], True, logprob=logprob[0])]
    for place, record in enumerate(trained, start=1):
        point = Point(record.step, gains[place], accuracy[place], record.feasible, record.kl, logprob[place])
        points.append(replace(point, feasible=record.feasible and point.in_numbers))
    return points


def _columns(rows: list[list[ItemRecord]]) -> dict[Measure, np.ndarray]:
    """(points, items) of each measure that every item has."""
    columns: dict[Measure, np.ndarray] = {"accuracy": np.array([[item.correct for item in row] for row in rows], float)}
    logprobs = [[item.logprob for item in row] for row in rows]
    if all(value is not None for row in logprobs for value in row):
        columns["logprob"] = np.array(logprobs, float)
    return columns


def _drift(base: BasePoint | None, trained: list[CheckpointRecord]) -> dict[Measure, np.ndarray]:
    """(points, 1) of each drift that was measured at the base and at every checkpoint."""
    columns = {}
    for name in DRIFT:
        values = [getattr(point, name, None) for point in (base, *trained)]
        if all(value is not None for value in values):
            columns[name] = np.array(values, float)[:, None]
    return columns


def _by_prompt(base: BasePoint | None, trained: list[CheckpointRecord], axis: Axis) -> np.ndarray | None:
    """(points, prompts) gains of each prompt, the base's row first; None where they do not have the same prompts."""
    if base is None:
        return None
    points = (base, *trained)
    if axis == "likelihood":
        rows = [point.likelihoods for point in points]
    else:
        scores = [{answer.id: answer.score for answer in point.answers} for point in points]
        if any(each.keys() != scores[0].keys() for each in scores):
            return None
        rows = [[each[prompt] for prompt in scores[0]] for each in scores]
    if len({len(row) for row in rows}) > 1:
        return None
    return np.array(rows, float) - np.array(rows[0], float)
