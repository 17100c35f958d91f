"""Token gates: how much each of several trained adapters counts for each token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from moltlm.adapters import mixture, stack, training
from moltlm.adapters.mixture import Mixture
from moltlm.adapters.protections import active
from moltlm.adapters.protections.strength import set_scale
from moltlm.adapters.task import ordered_trainer
from moltlm.adapters.training import AdapterJob, Schedule, TrainingResult
from moltlm.data.types import Exchange


@dataclass(frozen=True, kw_only=True)
class TokenGatesJob(AdapterJob):
    """Attributes:
    start: folder of the adapters composed as one (`adapters.compose`).
    experts: rank of each of them, in order.
    mix: examples in training order, for `config.router.steps` equal batches.
    """

    name: str = "experts"
    start: Path
    experts: list[int]
    mix: list[Exchange]


def train_token_gates(job: TokenGatesJob) -> TrainingResult:
    """Gate the adapter in `job.start`, whose rank is cut into the experts, token by token; train the gates alone, and
    write both to `job.folder`.

    What protections retain here is the model without the experts.

    Raises:
        BadInput: a protection of `config.protect` lacks what it compares with, or cannot work with gates.
    """
    set_seed(job.seed)
    protections = active(job.config.protect, "token gates")
    model, hashes = stack.trainable_above(job, protections)
    gates = Mixture("token", job.experts, len(job.experts))
    mixture.attach(model, job.name, gates)
    for key, parameter in model.named_parameters():
        parameter.requires_grad = key.endswith(f".lora_A.{job.name}.gate.weight")
    protections.start(job.context(model, "token gates", lambda: _adapter_off(model, job.name)))
    router = job.config.router
    schedule = Schedule(router.steps, len(job.mix) // router.steps, router.learning_rate)
    trainer = ordered_trainer(job, model, job.mix, schedule, protections)
    result = training.run_training(job, trainer, "gates")
    training.save(trainer.model, job.folder, job.name)
    mixture.save(job.folder, gates)
    record = {
        **router.model_dump(),
        **job.config.protect.model_dump(exclude_defaults=True),
        "examples": len(job.mix),
        "seed": job.seed,
        "seconds": round(result.seconds, 1),
        **result.records,
    }
    stack.write_card(job, "gates", hashes, record)
    return result


@contextmanager
def _adapter_off(model: Any, adapter: str) -> Iterator[None]:
    set_scale(model, adapter, 0.0)
    try:
        yield
    finally:
        set_scale(model, adapter, 1.0)
