"""What methods against forgetting are compared with: each task learned alone from scratch, and all tasks at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from moltlm.data.state import PERSONALITY, Adapter
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.layout import JOINT
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.stages import measures, tasks
from moltlm.pipeline.stages.joint import STATE, joint
from moltlm.pipeline.studies.engine import Job
from moltlm.pipeline.studies.methods import MethodRow, read_table

Bound = Literal["alone", "joint"]
FILE = "bounds.json"


@dataclass(frozen=True)
class BoundRow:
    """A bound with one seed: a row of bounds.json. The lists are by task, in the order of the config.

    Attributes:
        bound: alone: an adapter for each task, above the personality; joint: one adapter on the examples of all tasks
            at once (`stages.joint`). Neither has any protection or replay.
        exact: exact match, 0..1.
        likelihood: mean log-likelihood of the right answers, nats a token.
        f1: token F1 of the answers, 0..1; None for a task of plain texts.
        seconds: training time.
        steps: optimizer steps in all.
    """

    bound: Bound
    seed: int
    tasks: list[str]
    exact: list[float]
    likelihood: list[float]
    f1: list[float | None]
    seconds: float
    steps: int


Available = Mapping[tuple[Bound, int], BoundRow]
"""The bounds that other runs have."""


@dataclass(frozen=True)
class Gap:
    """What a method has learned of each task right after its training, less what the task reaches alone from scratch:
    means over tasks and seeds. Positive: the sequence helped.

    Attributes:
        likelihood: nats a token; None where no seed has both, as the next two.
        f1: 0..1; `exact` likewise.
    """

    likelihood: float | None
    f1: float | None
    exact: float | None


def cells(config: Config, available: Available) -> list[tuple[Bound, int]]:
    """Both bounds with every seed, without those that other runs have. Empty if the config asks for none."""
    settings = config.sequence
    every = [(bound, seed) for seed in settings.seeds for bound in get_args(Bound)] if settings.bounds else []
    return [cell for cell in every if cell not in available]


def jobs(config: Config, available: Available) -> list[Job]:
    """The bounds that other runs do not have, for an engine."""
    return [Job(f"{bound}, seed {seed}", trial, (bound, seed)) for bound, seed in cells(config, available)]


def measured(run: Run, train: Sequence[int], available: Available) -> list[BoundRow]:
    """The bounds with every seed, as far as they are measured.

    Args:
        train: the seeds whose bounds are trained and measured if they are not stored.
        available: those that other runs have, which are taken as they are.
    """
    stored = [_row(run, bound, seed, seed not in train) for bound, seed in cells(run.config, available)]
    rows = [*available.values(), *(row for row in stored if row is not None)]
    return sorted(rows, key=lambda row: (row.seed, row.bound))


def rows_of(config: Config, other_runs: Sequence[Path]) -> Available:
    """The rows of the bounds.json beside each methods.json, by bound and seed; none if the config asks for no bounds.

    Args:
        other_runs: methods.json files.

    Raises:
        BadInput: for a file that is no bounds.json, or one of other tasks.
    """
    rows: list[BoundRow] = []
    if not config.sequence.bounds:
        return {}
    for file in (path.with_name(FILE) for path in other_runs if path.with_name(FILE).exists()):
        rows += read_table(file, FILE, list[BoundRow], list(config.tasks))
    return {(row.bound, row.seed): row for row in rows if row.seed in config.sequence.seeds}


def trial(run: Run, bound: Bound, seed: int) -> BoundRow:
    """Train and measure one bound with one seed."""
    return _alone(run, seed) if bound == "alone" else _joint(run, seed)


def _row(run: Run, bound: Bound, seed: int, only_read: bool) -> BoundRow | None:
    try:
        with run.reading(only_read):
            return trial(run, bound, seed)
    except Missing:
        return None


def _plain(config: Config, seed: int, source: str) -> Config:
    """The configuration without any protection, each task for itself."""
    changes = {"tasks.*.seed": seed, "tasks.*.replay_ratio": 0.0, "tasks.*.on_policy": "none"}
    return vary(config, {"sequence": {}, "protect": {}, **changes}, source)


def _alone(run: Run, seed: int) -> BoundRow:
    with run.varied(_plain(run.config, seed, "sequence.bounds")):
        names = list(run.config.tasks)
        trainings = [tasks.task(run, Adapter(name)) for name in names]
        scores = [measures.task_score(run, name, PERSONALITY.above(Adapter(name))) for name in names]
        return _measured("alone", seed, names, trainings, scores)


def _joint(run: Run, seed: int) -> BoundRow:
    names = list(run.config.tasks)
    with run.varied(_plain(run.config, seed, "sequence.bounds")):
        training = joint(run)
        with _standing_in(run, training):
            scores = [measures.task_score(run, name, STATE) for name in names]
        return _measured("joint", seed, names, [training], scores)


@contextmanager
def _standing_in(run: Run, training: Artifact) -> Iterator[None]:
    """Serve the joint adapter, which belongs to no task, under its name."""
    before, run.in_use = run.in_use, {**run.in_use, str(JOINT): training}
    try:
        yield
    finally:
        run.in_use = before


def _measured(
    bound: Bound, seed: int, names: list[str], trainings: Sequence[Artifact], scores: Sequence[Artifact]
) -> BoundRow:
    exact, likelihood, f1 = ([score.facts[key] for score in scores] for key in ("exact_match", "likelihood", "f1"))
    seconds, steps = (sum(training.facts[key] for training in trainings) for key in ("seconds", "steps"))
    return BoundRow(bound, seed, names, exact, likelihood, f1, seconds, steps)


def final(rows: Sequence[BoundRow], bound: Bound) -> float | None:
    """Mean log-likelihood over tasks and seeds, nats a token; None where there is no row."""
    values = [value for row in rows if row.bound == bound for value in row.likelihood]
    return float(np.mean(values)) if values else None


def gap(rows: Sequence[MethodRow], bounds: Sequence[BoundRow]) -> Gap:
    """What the rows of one method learned, less what the tasks reach alone with the same seeds."""
    alone = {row.seed: row for row in bounds if row.bound == "alone"}
    pairs = [(row, alone[row.seed]) for row in rows if row.seed in alone]
    return Gap(
        likelihood=_mean([r.likelihood.learned - _mean_of(a.likelihood) for r, a in pairs if r.likelihood is not None]),
        f1=_mean([r.f1.learned - _mean_of([value or 0.0 for value in a.f1]) for r, a in pairs if r.f1 is not None]),
        exact=_mean([r.learned - _mean_of(a.exact) for r, a in pairs]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return _mean_of(values) if values else None


def _mean_of(values: Sequence[float]) -> float:
    return float(np.mean(values))
