"""Training of a task: the mix of examples and replay, the distance between them, practice on own samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltlm.data import mix as mixing
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import MoltError
from moltlm.data.replay import Buffer
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Progress, TaskExample
from moltlm.evals import distance as distances
from moltlm.evals import tasks as scores
from moltlm.evals.distance import Distance
from moltlm.pipeline.run import Run

if TYPE_CHECKING:
    from moltlm.adapters.protections import Material
    from moltlm.adapters.protections.base import Trial
    from moltlm.adapters.serve import TextModel
    from moltlm.adapters.training import TrainingResult

TEMPERATURE = 0.7
DISTANCE_EXAMPLES = 64
"""Examples of each side from which the distance is computed."""
TRIAL = 64
"""Examples that strengths of the adapter are tried on, at most a quarter of all."""


@dataclass(frozen=True)
class Lesson:
    """Everything that a task is trained with.

    Attributes:
        examples: the task's training examples.
        buffer: the replay buffer, if it is used.
        memory: examples of earlier tasks to replay.
        neutral: the base's own answers to neutral prompts.
        instructions: exchanges that are replayed in place of the neutral ones; may be empty.
        adapters_below: folders of the frozen adapters below, lowest first.
        start: folder of the adapter to train further, if any.
    """

    name: str
    task: TaskConfig
    seed: int
    examples: list[Exchange]
    buffer: Buffer | None
    memory: list[Exchange]
    neutral: list[Exchange]
    instructions: list[Exchange]
    adapters_below: dict[str, Path]
    start: Path | None

    @property
    def replayable(self) -> list[Exchange]:
        """What can be replayed: the buffer, and the memory of earlier tasks."""
        return [*(self.buffer.exchanges if self.buffer else []), *self.memory]


@dataclass(frozen=True)
class TaskTraining:
    """A trained task: the training, its mix of exchanges in order, the distance of the task from what is replayed, and
    the chosen strength of the adapter."""

    trained: TrainingResult
    mix: list[Exchange]
    distance: Distance
    strength: float


def teach(run: Run, lesson: Lesson, folder: Path) -> TaskTraining:
    """Train the adapter of a task into `folder`."""
    distance = _distance(run, lesson)
    run.console.say(f"  {distance.sentence(lesson.name)}")
    lesson, trial = _held_out(run, lesson)
    mix = mixture(lesson, run.config.replay.neutral_share)
    run.release()
    with run.console.progress(lesson.name) as progress:
        trained = _train(run, lesson, mix, folder, progress, trial)
    return TaskTraining(trained, mix, distance, trained.records.get("strength", 1.0))


def _held_out(run: Run, lesson: Lesson) -> tuple[Lesson, Trial | None]:
    """The lesson without the examples that strengths are tried on, and what tries a model on them."""
    if not run.config.protect.scales:
        return lesson, None
    count = min(TRIAL, len(lesson.examples) // 4)
    held_out, batch = lesson.examples[:count], run.config.model.eval_batch_size
    prompts, references = [item.prompt for item in held_out], [item.answer for item in held_out]

    def trial(model: TextModel, progress: Progress) -> float:
        answers = model.generate(prompts, lesson.task.max_new_tokens, batch, progress)
        return sum(scores.score(lesson.task, answers, references))

    return replace(lesson, examples=lesson.examples[count:]), trial if held_out else None


def _loaded(run: Run, lesson: Lesson, folder: Path) -> Any:
    """The base with the adapters below and, as the task's own, the one in `folder`."""
    run.release()
    for name, path in {**lesson.adapters_below, lesson.name: folder}.items():
        run.base.load(name, path)
    return run.base


def _train(
    run: Run, lesson: Lesson, mix: list[Exchange], folder: Path, progress: Progress, trial: Trial | None
) -> TrainingResult:
    from moltlm.adapters import base, task

    return task.train_task(
        task.TaskJob(
            config=run.config.adapters(),
            base=base.load(run.config.model),
            folder=folder,
            seed=lesson.seed,
            progress=progress,
            name=lesson.name,
            adapters_below=lesson.adapters_below,
            start=lesson.start,
            material=_material(lesson, trial),
            task=lesson.task,
            mix=mix,
        )
    )


def _material(lesson: Lesson, trial: Trial | None) -> Material:
    from moltlm.adapters.protections import Material

    return Material(
        neutral=lesson.neutral,
        replay=lesson.replayable,
        stored=lesson.buffer.stored if lesson.buffer else [],
        trial=trial,
    )


def practise(run: Run, lesson: Lesson, folder: Path) -> dict[str, Any]:
    """Train the adapter in `lesson.start` further on the model's own samples, into `folder`: GRPO, or rounds of
    training on those of its answers that are right (Chen et al. 2025, arXiv:2510.18874)."""
    from moltlm.adapters import base, grpo

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
                    adapters_below=lesson.adapters_below,
                    start=_required(lesson.start),
                    material=_material(lesson, trial),
                    task=settings,
                    examples=[TaskExample(item.prompt, item.answer) for item in lesson.examples],
                    reward=lambda answers, references: scores.score(settings, answers, references),
                )
            )
        return {"seconds": round(trained.seconds, 1), "steps": trained.steps, "peak_gib": round(trained.peak_gib, 2)}
    return _regenerate(run, lesson, folder, trial)


def _regenerate(run: Run, lesson: Lesson, folder: Path, trial: Trial | None) -> dict[str, Any]:
    settings, start, right, seconds, peak = lesson.task, _required(lesson.start), [], 0.0, 0.0
    changes = {"steps": settings.on_policy_steps, "learning_rate": settings.on_policy_learning_rate, "arrival": "batch"}
    for number in range(settings.on_policy_rounds):
        samples = _right_samples(run, lesson, start, number)
        right.append(len(samples))
        if len(samples) < settings.batch_size:
            share = f"{len(samples)} of {len(lesson.examples)}"
            raise MoltError(
                f"{lesson.name}: only {share} sampled answers are right, too few to learn from.",
                f"Train it longer first: raise tasks.{lesson.name}.steps, or set on_policy=none",
            )
        last = number == settings.on_policy_rounds - 1
        round_folder = folder if last else folder / f"round-{number}"
        part = replace(
            lesson, task=settings.model_copy(update=changes), examples=samples, start=start, seed=lesson.seed + number
        )
        run.release()
        with run.console.progress(f"{lesson.name}, own answers") as progress:
            trained = _train(run, part, mixture(part, run.config.replay.neutral_share), round_folder, progress, trial)
        start, seconds, peak = round_folder, seconds + trained.seconds, max(peak, trained.peak_gib)
    steps = settings.on_policy_steps * settings.on_policy_rounds
    return {"right": right, "seconds": round(seconds, 1), "steps": steps, "peak_gib": round(peak, 2)}


def _right_samples(run: Run, lesson: Lesson, start: Path, number: int) -> list[Exchange]:
    """Those of the model's sampled answers to the training prompts that are right."""
    model, state = _loaded(run, lesson, start), states.of(*lesson.adapters_below, lesson.name)
    prompts, batch = [item.prompt for item in lesson.examples], run.config.model.eval_batch_size
    with run.console.progress(f"{lesson.name}, own answers") as progress, model.state(state):
        tokens, temperature = lesson.task.max_new_tokens, TEMPERATURE
        answers = model.generate(prompts, tokens, batch, progress, temperature, lesson.seed + number)
    marks = scores.score(lesson.task, answers, [item.answer for item in lesson.examples])
    rows = zip(lesson.examples, answers, marks, strict=True)
    return [replace(item, answer=answer) for item, answer, right in rows if right]


def _required(start: Path | None) -> Path:
    """The adapter to practise. Raises ValueError if there is none."""
    if start is None:
        raise ValueError("practice goes on from a trained adapter")
    return start


def mixture(lesson: Lesson, share: float = 0.0) -> list[Exchange]:
    """The exchanges of a training in order; `share` of the replayed ones is neutral."""
    settings = lesson.task
    replayed = lesson.replayable if settings.replay_ratio else []
    if replayed and share:
        neutral = round(share * settings.replayed)
        replayed = mixing.mix(
            replayed, lesson.instructions or lesson.neutral, 1, settings.replayed, neutral, lesson.seed
        )
    budget = (settings.steps, settings.batch_size, settings.replayed)
    if settings.arrival == "stream":
        return mixing.stream(lesson.examples, replayed, *budget, settings.stream_memory, lesson.seed)
    return mixing.mix(lesson.examples, replayed, *budget, lesson.seed)


def _distance(run: Run, lesson: Lesson) -> Distance:
    """The distance of the task from what is replayed, or from neutral answers where nothing is."""
    model, batch = run.base, run.config.model.eval_batch_size
    if "personality" not in model.adapters:
        model.load("personality", lesson.adapters_below["personality"])
    sides = [rows[:DISTANCE_EXAMPLES] for rows in (lesson.examples, lesson.replayable or lesson.neutral)]
    with model.state(PERSONALITY):
        likelihoods = [model.score([i.prompt for i in rows], [i.answer for i in rows], batch) for rows in sides]
    new, old = (model.embed([item.question for item in rows]) for rows in sides)
    task_nll, replay_nll = (-sum(score.per_token for score in side) / len(side) for side in likelihoods)
    return Distance(distances.proxy_a_distance(new, old), task_nll, replay_nll)
