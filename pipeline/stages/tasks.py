"""The task adapters of a run, above its frozen personality."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.data import replay as buffers
from moltlm.data import tasks as task_data
from moltlm.data.config import TaskConfig
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.voices import Voice
from moltlm.data.rows import fingerprint_rows
from moltlm.data.state import PERSONALITY_ADAPTER, Adapter
from moltlm.data.types import Exchange
from moltlm.pipeline import layout
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Missing, Run, once_per_config
from moltlm.pipeline.stages import teaching
from moltlm.pipeline.stages.initial import training_facts
from moltlm.pipeline.stages.pairs import check_paths, load_exchanges, pairs, source_of
from moltlm.pipeline.stages.personality import personality
from moltlm.pipeline.stages.replay import buffer

ON_POLICY = {"generations", "max_new_tokens", "metric"}
"""Settings that practice on own samples depends on, besides those named on_policy."""
NOT_TRAINED = {
    "control", "floor", "metric", "seed", "test", "test_generated", "passage_words", "max_new_tokens", "generations",
    "on_policy", "on_policy_steps", "on_policy_rounds", "on_policy_learning_rate",
}  # fmt: skip
"""Settings of a task that its first training does not depend on."""


@once_per_config
def task(run: Run, adapter: Adapter) -> Artifact:
    """Train a task adapter above the frozen personality, with replay mixed in; its control is trained without replay.
    `molt train task NAME CONFIG`"""
    config, settings = run.config, layout.task_settings(run, adapter)
    check(run, adapter)
    instructions = _instructions(run)
    below = {label: trained(run, label) for label in layout.adapters_below(run, adapter)}
    previous = layout.continued_from(run, adapter)
    start = trained(run, previous) if previous else None
    protect = config.protect
    replay = _replay(run, settings)
    remembered = layout.earlier_tasks(run, adapter) if protect.task_memory else []
    inputs: dict[str, Any] = {
        "adapters_below": {str(label): artifact.fingerprint for label, artifact in below.items()},
        "start": start.fingerprint if start else None,
        "task": identity(settings, exclude=NOT_TRAINED),
        "examples": source_of(settings),
        "replay": replay.fingerprint if replay else None,
        "instructions": fingerprint_rows(instructions) if instructions else None,
        "memory": [[label, source_of(config.tasks[label])] for label in remembered],
        "seed": layout.seed_of(run, settings),
        # the layout shows in `adapters_below` and `start`, except that of a mixture
        "protect": identity(protect, exclude={"layout"}),
        "prose": prose_of(config.train, protect.kl_on),
        "mixture": protect.layout == "mixture" or None,
        # the strength is chosen by answers to training examples
        "answers": identity(settings, {"metric", "max_new_tokens"}) if protect.scales else None,
        **{name: identity(getattr(config, name)) for name in ("lora", "train")},
    }

    def make(folder: Path) -> dict[str, Any]:
        lesson = lesson_of(run, adapter, start)
        result = teaching.teach(run, lesson, folder)
        examples = {id(item) for item in lesson.examples}
        return {
            **training_facts(result.trained),
            "examples": len(result.mix),
            "replayed": sum(id(item) not in examples for item in result.mix),
            **asdict(result.distance),
            "risk": result.distance.risk,
            "strength": result.strength,
        }

    return run.do("task", inputs, make, subject=str(adapter))


def check(run: Run, adapter: Adapter) -> None:
    """Raises BadInput if a task or its files cannot be used."""
    settings = layout.task_settings(run, adapter)
    check_paths(run)
    for split in ("train", "test"):
        task_data.examples(settings, split, layout.seed_of(run, settings))


@once_per_config
def practice(run: Run, adapter: Adapter) -> Artifact:
    """Train the task's adapter further on the model's own samples (`tasks.NAME.on_policy`). Part of
    `molt run CONFIG`"""
    settings, start = layout.task_settings(run, adapter), task(run, adapter)
    on_policy = {name for name in type(settings).model_fields if name in ON_POLICY or name.startswith("on_policy")}
    inputs = {"start": start.fingerprint, "on_policy": identity(settings, on_policy)}

    def make(folder: Path) -> dict[str, Any]:
        return teaching.practise(run, lesson_of(run, adapter, start), folder)

    return run.do("practice", inputs, make, subject=str(adapter))


def trained(run: Run, adapter: Adapter) -> Artifact:
    """The adapter after all its trainings, as it is served: the run's own, unless another one is in use."""
    if str(adapter) in run.in_use:
        return run.in_use[str(adapter)]
    if not run.tasks_stand_alone:
        raise Missing(
            f"{adapter} is not in use above {run.in_use['personality'].fingerprint}, which is the personality in use.",
            "Train it above that, or take the run's own adapters: --own",
        )
    if adapter == PERSONALITY_ADAPTER:
        return personality(run)
    return task(run, adapter) if layout.task_settings(run, adapter).on_policy == "none" else practice(run, adapter)


def lesson_of(run: Run, adapter: Adapter, start: Artifact | None) -> teaching.Lesson:
    """Everything that a task is trained with; `start` is the adapter to train further, if any."""
    replay = _replay(run, layout.task_settings(run, adapter))
    below = {str(label): trained(run, label).folder for label in layout.adapters_below(run, adapter)}
    return lesson_above(run, adapter, below, replay.folder if replay else None, start.folder if start else None)


def lesson_above(
    run: Run, adapter: Adapter, below: dict[str, Path], replay: Path | None, start: Path | None
) -> teaching.Lesson:
    """Everything that a task is trained with.

    Args:
        below: the folders of the adapters below it, lowest first.
        replay: the folder of the replay buffer, if the training needs it (`needs_replay`).
        start: the folder of the adapter to train further, if any.
    """
    settings = layout.task_settings(run, adapter)
    seed = layout.seed_of(run, settings)
    remembered = layout.earlier_tasks(run, adapter) if run.config.protect.task_memory else []
    return teaching.Lesson(
        str(adapter),
        settings,
        seed,
        training_examples(settings, str(adapter), seed),
        buffers.load(replay) if replay else None,
        [item for label in remembered for item in _memory(run, label)],
        load_exchanges(pairs(run), "neutral_train"),
        _instructions(run),
        below,
        start,
    )


def needs_replay(run: Run, settings: TaskConfig) -> bool:
    """Whether the task's training mixes the replay buffer in, or its protections compare with it."""
    protect = run.config.protect
    return bool(settings.replay_ratio or protect.task_memory or protect.compares_replay)


def _replay(run: Run, settings: TaskConfig) -> Artifact | None:
    return buffer(run) if needs_replay(run, settings) else None


def _instructions(run: Run) -> list[Exchange]:
    """The exchanges of `replay.instructions`, which are replayed in place of neutral answers."""
    path = run.config.replay.instructions
    if not path:
        return []
    from moltlm.data.conversations import importers

    voice = Voice(option="conversations.assistant={}")
    return list(importers.read([Path(path)], run.config.conversations, ImportReport(), voice))


def training_examples(settings: TaskConfig, source: str, seed: int) -> list[Exchange]:
    """The training examples of a task as exchanges; `source` says whose they are."""
    return [Exchange(item.prompt, item.answer, source=source) for item in task_data.examples(settings, "train", seed)]


def _memory(run: Run, name: str) -> list[Exchange]:
    """A sample of the examples of an earlier task, to replay."""
    settings = run.config.tasks[name]
    return training_examples(settings, name, layout.seed_of(run, settings))[: run.config.protect.task_memory]
