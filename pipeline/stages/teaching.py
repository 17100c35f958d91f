"""How a task is taught: what is mixed in, what is kept, and how far the new is from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import base, grpo, task
from moltlm.adapters.protections import Material
from moltlm.adapters.protections.base import Trial
from moltlm.adapters.serve import TextModel
from moltlm.adapters.training import TrainingResult
from moltlm.data import mix as mixing
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import MoltError
from moltlm.data.replay import Buffer
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Progress, TaskExample
from moltlm.evals import distance
from moltlm.evals import tasks as scores
from moltlm.pipeline.run import Run

TEMPERATURE = 0.7
LOOKED_AT = 64
"""Examples of each side by which the distance is judged."""
TRIAL = 64
"""Examples that strengths of the adapter are tried on, at most a quarter of all."""


@dataclass(frozen=True)
class Lesson:
    """All that a task is taught with. `memory` holds examples of earlier tasks, `neutral` the base's own answers,
    `instructions` what is replayed in their place, if anything; `beneath` are the folders of the adapters below, lowest
    first, `start` that of the one to go on from."""

    name: str
    task: TaskConfig
    seed: int
    taught: list[Exchange]
    buffer: Buffer | None
    memory: list[Exchange]
    neutral: list[Exchange]
    instructions: list[Exchange]
    beneath: dict[str, Path]
    start: Path | None

    @property
    def kept(self) -> list[Exchange]:
        return [*(self.buffer.exchanges if self.buffer else []), *self.memory]


@dataclass(frozen=True)
class Taught:
    """What came of a lesson: the training, what was in it, how far that was, and the strength that was chosen."""

    trained: TrainingResult
    mix: list[Exchange]
    far: distance.Distance
    strength: float


def teach(run: Run, lesson: Lesson, folder: Path) -> Taught:
    """Train the adapter into `folder`."""
    far = _distance(run, lesson)
    run.console.say(f"  {far.sentence(lesson.name)}")
    lesson, trial = _held_out(run, lesson)
    mix = mixture(lesson, run.config.replay.neutral_share)
    run.release()
    with run.console.progress(lesson.name) as progress:
        trained = _train(run, lesson, mix, folder, progress, trial)
    return Taught(trained, mix, far, trained.records.get("strength", 1.0))


def _held_out(run: Run, lesson: Lesson) -> tuple[Lesson, Trial | None]:
    """The lesson without the examples that strengths are tried on, and what tries a model on them."""
    if not run.config.protect.scales:
        return lesson, None
    count = min(TRIAL, len(lesson.taught) // 4)
    held_out, batch = lesson.taught[:count], run.config.model.eval_batch_size
    prompts, references = [item.prompt for item in held_out], [item.answer for item in held_out]

    def trial(model: TextModel, progress: Progress) -> float:
        answers = model.generate(prompts, lesson.task.max_new_tokens, batch, progress)
        return sum(scores.score(lesson.task, answers, references))

    return replace(lesson, taught=lesson.taught[count:]), trial if held_out else None


def _loaded(run: Run, lesson: Lesson, folder: Path) -> Any:
    """The base with the lesson's adapters, that in `folder` as its own."""
    run.release()
    for name, path in {**lesson.beneath, lesson.name: folder}.items():
        run.base.load(name, path)
    return run.base


def _train(
    run: Run, lesson: Lesson, mix: list[Exchange], folder: Path, progress: Progress, trial: Trial | None
) -> TrainingResult:
    return task.train_task(
        task.TaskJob(
            config=run.config.adapters(),
            base=base.load(run.config.model),
            folder=folder,
            seed=lesson.seed,
            progress=progress,
            name=lesson.name,
            adapters_below=lesson.beneath,
            start=lesson.start,
            material=_material(lesson, trial),
            task=lesson.task,
            mix=mix,
        )
    )


def _material(lesson: Lesson, trial: Trial | None) -> Material:
    return Material(lesson.neutral, lesson.kept, lesson.buffer.stored if lesson.buffer else [], trial)


def practise(run: Run, lesson: Lesson, folder: Path) -> dict[str, Any]:
    """Train the adapter in `lesson.start` further on the model's own samples, into `folder`: GRPO, or rounds of
    training on those of its answers that are right (Chen et al. 2025, arXiv:2510.18874)."""
    lesson, trial = _held_out(run, lesson)
    settings = lesson.task
    if settings.on_policy == "grpo":
        run.release()
        with run.console.progress(f"{lesson.name}, GRPO") as progress:
            trained = grpo.train_grpo(
                grpo.GrpoJob(
                    config=run.config.adapters(),
                    base=base.load(run.config.model),
                    folder=folder,
                    seed=lesson.seed,
                    progress=progress,
                    name=lesson.name,
                    adapters_below=lesson.beneath,
                    start=_known(lesson.start),
                    material=_material(lesson, trial),
                    task=settings,
                    examples=[TaskExample(item.prompt, item.answer) for item in lesson.taught],
                    reward=lambda answers, references: scores.score(settings, answers, references),
                )
            )
        return {"seconds": round(trained.seconds, 1), "steps": trained.steps, "peak_gib": round(trained.peak_gib, 2)}
    return _regenerate(run, lesson, folder, trial)


def _regenerate(run: Run, lesson: Lesson, folder: Path, trial: Trial | None) -> dict[str, Any]:
    settings, start, right, seconds, peak = lesson.task, _known(lesson.start), [], 0.0, 0.0
    changes = {"steps": settings.on_policy_steps, "learning_rate": settings.on_policy_learning_rate, "arrival": "batch"}
    for number in range(settings.on_policy_rounds):
        own = _own_right(run, lesson, start, number)
        right.append(len(own))
        if len(own) < settings.batch_size:
            raise MoltError(
                f"{lesson.name}: only {len(own)} of {len(lesson.taught)} own answers are right, too few to learn from.",
                f"Teach it better first: raise tasks.{lesson.name}.steps, or set on_policy=none",
            )
        last = number == settings.on_policy_rounds - 1
        here = folder if last else folder / f"round-{number}"
        part = replace(
            lesson, task=settings.model_copy(update=changes), taught=own, start=start, seed=lesson.seed + number
        )
        run.release()
        with run.console.progress(f"{lesson.name}, own answers") as progress:
            trained = _train(run, part, mixture(part, run.config.replay.neutral_share), here, progress, trial)
        start, seconds, peak = here, seconds + trained.seconds, max(peak, trained.peak_gib)
    steps = settings.on_policy_steps * settings.on_policy_rounds
    return {"right": right, "seconds": round(seconds, 1), "steps": steps, "peak_gib": round(peak, 2)}


def _own_right(run: Run, lesson: Lesson, start: Path, number: int) -> list[Exchange]:
    """The model's own answers to the training prompts, sampled, as far as they are right."""
    model, state = _loaded(run, lesson, start), states.of(*lesson.beneath, lesson.name)
    prompts, batch = [item.prompt for item in lesson.taught], run.config.model.eval_batch_size
    with run.console.progress(f"{lesson.name}, own answers") as progress, model.state(state):
        tokens, heat = lesson.task.max_new_tokens, TEMPERATURE
        answers = model.generate(prompts, tokens, batch, progress, heat, lesson.seed + number)
    marks = scores.score(lesson.task, answers, [item.answer for item in lesson.taught])
    rows = zip(lesson.taught, answers, marks, strict=True)
    return [replace(item, answer=answer) for item, answer, right in rows if right]


def _known(start: Path | None) -> Path:
    if start is None:
        raise ValueError("practice goes on from a trained adapter")
    return start


def mixture(lesson: Lesson, share: float = 0.0) -> list[Exchange]:
    """In training order; `share` of what is replayed is neutral."""
    settings = lesson.task
    again = lesson.kept if settings.replay_ratio else []
    if again and share:
        neutral = round(share * settings.replayed)
        again = mixing.mix(again, lesson.instructions or lesson.neutral, 1, settings.replayed, neutral, lesson.seed)
    budget = (settings.steps, settings.batch_size, settings.replayed)
    if settings.arrival == "stream":
        return mixing.stream(lesson.taught, again, *budget, settings.stream_memory, lesson.seed)
    return mixing.mix(lesson.taught, again, *budget, lesson.seed)


def _distance(run: Run, lesson: Lesson) -> distance.Distance:
    """Of the task from what is replayed, or from neutral answers where nothing is."""
    model, batch = run.base, run.config.model.eval_batch_size
    if "personality" not in model.adapters:
        model.load("personality", lesson.beneath["personality"])
    sides = [rows[:LOOKED_AT] for rows in (lesson.taught, lesson.kept or lesson.neutral)]
    with model.state(PERSONALITY):
        scores = [model.score([i.prompt for i in rows], [i.answer for i in rows], batch) for rows in sides]
    new, old = (model.embed([item.question for item in rows]) for rows in sides)
    surprise, usual = (-sum(score.per_token for score in side) / len(side) for side in scores)
    return distance.Distance(distance.proxy_a_distance(new, old), surprise, usual)
