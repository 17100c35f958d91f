"""A task adapter, trained on examples above a frozen personality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import set_seed
from trl import SFTConfig

from moltlm.adapters import mixture, processes, stack, training
from moltlm.adapters.protections import active
from moltlm.adapters.protections.base import ActiveProtections
from moltlm.adapters.trainers import ChatTrainer
from moltlm.adapters.training import AdapterJob, Schedule, TrainingResult
from moltlm.adapters.training_data import completions
from moltlm.data.config import TaskConfig
from moltlm.data.types import Exchange


@dataclass(frozen=True, kw_only=True)
class TaskJob(AdapterJob):
    """Attributes:
    mix: examples in training order, replay among them: `task.steps` equal batches.
    """

    task: TaskConfig
    mix: list[Exchange]


@processes.together
def train_task(job: TaskJob) -> TrainingResult:
    """Train a task adapter on `job.mix` and write it to `job.folder`.

    Raises:
        BadInput: a protection of `config.protect` lacks what it compares with.
    """
    return training.within_memory(job, len(job.mix) // job.task.steps, _train)


def _train(job: TaskJob) -> TrainingResult:
    set_seed(job.seed)
    protect, task = job.config.protect, job.task
    protections = active(protect, "task")
    model, hashes = stack.trainable_above(job, protections)
    protections.start(job.context(model, "task"))
    schedule = Schedule(task.steps, len(job.mix) // task.steps, task.learning_rate)
    trainer = ordered_trainer(job, model, job.mix, schedule, protections)
    result = training.run_training(job, trainer, job.name)
    training.save(trainer.model, job.folder, job.name)
    if protect.layout == "mixture":
        mixture.save(job.folder, mixture.separable(job.config))
    record = {
        **task.model_dump(),
        **protect.model_dump(exclude_defaults=True),
        "examples": len(job.mix),
        "seed": job.seed,
        "seconds": round(result.seconds, 1),
        **result.records,
    }
    stack.write_card(job, job.name, hashes, record)
    return result


def ordered_trainer(
    job: AdapterJob, model: Any, mix: list[Exchange], schedule: Schedule, protections: ActiveProtections
) -> ChatTrainer:
    """SFT on the exchanges in their order."""
    tokenizer = job.base.tokenizer
    return ChatTrainer(
        model=model,
        args=SFTConfig(
            **training.trainer_arguments(job, schedule),
            completion_only_loss=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=completions(mix, tokenizer, job.config.model.max_length),
        processing_class=tokenizer,
        protections=protections,
    )
