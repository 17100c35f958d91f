"""A task adapter trained further on the model's own samples, by whether they are right (GRPO)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from moltlm.adapters import stack, training
from moltlm.adapters.protections import active
from moltlm.adapters.trainers import reward_trainer
from moltlm.adapters.training import AdapterJob, Schedule, TrainingResult
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.types import TaskExample

Reward = Callable[[list[str], list[str]], list[int]]
"""From answers and references: 1 for each answer that is right, else 0."""


@dataclass(frozen=True, kw_only=True)
class GrpoJob(AdapterJob):
    """Attributes:
    start: folder of the task adapter to train further.
    """

    start: Path
    task: TaskConfig
    examples: list[TaskExample]
    reward: Reward


def train_grpo(job: GrpoJob) -> TrainingResult:
    """Train the adapter in `job.start` for `task.on_policy_steps`, each of `task.batch_size` samples in groups of
    `task.generations`, and write it to `job.folder`. A group that is all right or all wrong has no gradient.

    Raises:
        BadInput: the adapter is a mixture, or a protection of `config.protect` lacks what it compares with.
    """
    config, task = job.config, job.task
    if config.protect.layout == "mixture":
        raise BadInput("GRPO cannot train a mixture: its gates would see the answer.", "Use on_policy=regenerate.")
    set_seed(job.seed)
    protections = active(config.protect, "grpo")
    model, hashes = stack.trainable_above(job, protections)
    protections.start(job.context(model, "grpo"))
    trainer = reward_trainer(
        training.trainer_arguments(job, Schedule(task.on_policy_steps, task.batch_size, task.on_policy_learning_rate)),
        [(item.prompt, item.answer) for item in job.examples],
        lambda _, answers, references: [float(value) for value in job.reward(answers, references)],
        task.generations,
        task.max_new_tokens,
        model=model,
        processing_class=job.base.tokenizer,
        protections=protections,
    )
    result = training.run_training(job, trainer, job.name)
    training.save(trainer.model, job.folder, job.name)
    record = {
        **task.model_dump(),
        **config.protect.model_dump(exclude_defaults=True),
        "examples": len(job.examples),
        "seed": job.seed,
        "seconds": round(result.seconds, 1),
        **result.records,
    }
    stack.write_card(job, job.name, hashes, record)
    return result
