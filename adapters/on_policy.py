"""A task learned further from the model's own samples, by whether they are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import set_seed

from moltlm.adapters import card, fit, train
from moltlm.adapters.base import Base
from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.serve import TextModel
from moltlm.adapters.train import Protected
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.types import Progress, TaskExample, silent

Reward = Callable[[list[str], list[str]], list[int]]
"""1 for each answer that is right by its reference, else 0."""


def train_grpo(
    config: AdaptersConfig,
    base: Base,
    name: str,
    task: TaskConfig,
    examples: list[TaskExample],
    reward: Reward,
    beneath: dict[str, Path],
    start: Path,
    folder: Path,
    seed: int,
    progress: Progress = silent,
    protected: Protected = Protected(),  # noqa: B008 frozen
) -> fit.Trained:
    """Train the task's adapter in `start` further with GRPO for `task.on_policy_steps`, each of `task.batch_size`
    samples in groups of `task.generations`, above the frozen adapters `beneath`. A group that is all right or all wrong
    teaches nothing. Terms of `config.protect` are added as in `train.train_task`, but for EWC. Consumes `base`.
    Raises BadInput for a mixture."""
    if config.protect.layout == "mixture":
        raise BadInput("GRPO cannot train a mixture: its gates would see the answer.", "Use on_policy=regenerate.")
    set_seed(seed)
    model, hashes = train.above(config, base, name, beneath, start)
    text = TextModel(model, base.tokenizer)
    arguments = fit.arguments(config, task.batch_size, task.on_policy_learning_rate, task.on_policy_steps, seed, folder)
    trainer = train.rewarded(
        arguments,
        [(item.prompt, item.answer) for item in examples],
        lambda _, said, answers: [float(value) for value in reward(said, answers)],
        task.generations,
        task.max_new_tokens,
        model=model,
        processing_class=base.tokenizer,
        penalties=train.terms(text, config, protected, None, name, list(beneath)),
    )
    checks = fit.run(trainer, base.tokenizer, folder, name, progress)
    fit.save(trainer.model, folder, name)
    training = {**task.model_dump(), "examples": len(examples), "seed": seed, "seconds": round(checks.seconds, 1)}
    card.write(folder, card.Manifest(name, config.model.id, base.digest, config.model.precision, hashes, training))
    return checks
