"""Joint training: one adapter above the personality that learns all tasks at once, as a bound for what learns them one
after another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moltlm.data.config import TaskConfig
from moltlm.data.state import PERSONALITY
from moltlm.pipeline import layout
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import teaching
from moltlm.pipeline.stages.initial import training_facts
from moltlm.pipeline.stages.pairs import load_exchanges, pairs, source_of
from moltlm.pipeline.stages.personality import personality
from moltlm.pipeline.stages.tasks import training_examples

STATE = PERSONALITY.above(layout.JOINT)


def together(tasks: Sequence[TaskConfig]) -> TaskConfig:
    """The settings of the training on all tasks: their steps in all, the largest batch size, and the mean learning
    rate. Nothing is replayed."""
    rates = [task.learning_rate for task in tasks]
    return tasks[0].model_copy(
        update={
            "steps": sum(task.steps for task in tasks),
            "batch_size": max(task.batch_size for task in tasks),
            "learning_rate": rates[0] if len(set(rates)) == 1 else sum(rates) / len(rates),
            "replay_ratio": 0.0,
            "arrival": "batch",
            "on_policy": "none",
        }
    )


@once_per_config
def joint(run: Run) -> Artifact:
    """Train one adapter on the shuffled examples of all tasks (`together`). Part of `molt compare-methods CONFIG`"""
    config, below = run.config, personality(run)
    tasks = config.tasks
    settings = together(list(tasks.values()))
    seeds = {name: layout.seed_of(run, task) for name, task in tasks.items()}
    inputs: dict[str, Any] = {
        "personality": below.fingerprint,
        "tasks": {name: [source_of(task), identity(task, {"train"})] for name, task in tasks.items()},
        "training": [settings.steps, settings.batch_size, settings.learning_rate],
        "seeds": seeds,
        **{name: identity(getattr(config, name)) for name in ("lora", "train")},
    }

    def make(folder: Path) -> dict[str, Any]:
        examples = [item for name, task in tasks.items() for item in training_examples(task, name, seeds[name])]
        lesson = teaching.Lesson(
            name=layout.JOINT.name,
            task=settings,
            seed=min(seeds.values()),
            examples=examples,
            buffer=None,
            memory=[],
            neutral=load_exchanges(pairs(run), "neutral_train"),
            instructions=[],
            adapters_below={"personality": below.folder},
            start=None,
        )
        return training_facts(teaching.teach(run, lesson, folder).trained)

    return run.do("joint", inputs, make)
