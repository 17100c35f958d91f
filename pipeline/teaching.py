"""How a task is taught: what is mixed in, what is kept, and how far the new is from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters import base, train
from data import mix as mixing
from data.config import TaskConfig
from data.replay import Buffer
from data.types import Exchange
from evals import distance
from pipeline.run import Run

LOOKED_AT = 64
"""Examples of each side by which the distance is judged."""


@dataclass(frozen=True)
class Lesson:
    """All that a task is taught with. `memory` holds examples of earlier tasks, `neutral` the base's own answers;
    `beneath` are the folders of the adapters below, lowest first, `start` that of the one to go on from."""

    name: str
    task: TaskConfig
    seed: int
    taught: list[Exchange]
    buffer: Buffer | None
    memory: list[Exchange]
    neutral: list[Exchange]
    beneath: dict[str, Path]
    start: Path | None

    @property
    def kept(self) -> list[Exchange]:
        return [*(self.buffer.exchanges if self.buffer else []), *self.memory]


def teach(run: Run, lesson: Lesson, folder: Path) -> tuple[train.Trained, list[Exchange], distance.Distance]:
    """Train the adapter into `folder`: what came of it, what it was trained on, and how far that was."""
    far = _distance(run, lesson)
    run.console.say(f"  {far.sentence(lesson.name)}")
    mix = mixture(lesson)
    run.release()
    with run.console.progress(lesson.name) as progress:
        trained = train.train_task(
            run.config.adapters(),
            base.load(run.config.model),
            lesson.name,
            lesson.task,
            mix,
            lesson.beneath,
            folder,
            lesson.seed,
            progress,
            train.Protected(lesson.neutral, lesson.kept, lesson.buffer.stored if lesson.buffer else []),
            lesson.start,
        )
    return trained, mix, far


def mixture(lesson: Lesson) -> list[Exchange]:
    """In training order."""
    task = lesson.task
    again = lesson.kept if task.replay_ratio else []
    budget = (task.steps, task.batch_size, task.replayed)
    if task.arrival == "stream":
        return mixing.stream(lesson.taught, again, *budget, task.stream_memory, lesson.seed)
    return mixing.mix(lesson.taught, again, *budget, lesson.seed)


def _distance(run: Run, lesson: Lesson) -> distance.Distance:
    """Of the task from what is replayed, or from neutral answers where nothing is."""
    model, batch = run.base, run.config.model.eval_batch_size
    if "personality" not in model.adapters:
        model.load("personality", lesson.beneath["personality"])
    sides = [rows[:LOOKED_AT] for rows in (lesson.taught, lesson.kept or lesson.neutral)]
    with model.state("personality"):
        scores = [model.score([i.prompt for i in rows], [i.answer for i in rows], batch) for rows in sides]
    new, old = (model.embed([item.question for item in rows]) for rows in sides)
    surprise, usual = (-sum(score.per_token for score in side) / len(side) for side in scores)
    return distance.Distance(distance.apart(new, old), surprise, usual)
