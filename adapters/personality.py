"""The personality: an adapter (or all weights) trained on preference pairs by DPO, SFT, self-distillation or GRPO."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import set_seed
from trl import DPOConfig, SFTConfig
from trl.experimental.orpo import ORPOConfig

from moltlm.adapters import card, processes, training
from moltlm.adapters.config import GROUP
from moltlm.adapters.protections import active
from moltlm.adapters.protections.base import Context, Material
from moltlm.adapters.self_distillation import SelfDistillation
from moltlm.adapters.serve import TextModel
from moltlm.adapters.trainers import (
    ChatTrainer,
    OddsTrainer,
    PersonalityTrainer,
    SelfDistillationTrainer,
    reward_trainer,
)
from moltlm.adapters.training import Measurements, Schedule, TrainingJob, TrainingResult
from moltlm.adapters.training_data import completions, preferences
from moltlm.data.errors import BadInput
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange, Message, Pair

WEIGHTS = "adapter_model.safetensors"
Reward = Callable[[list[list[Message]], list[str]], list[float]]
"""How good each answer to each prompt is."""


@dataclass(frozen=True, kw_only=True)
class PersonalityJob(TrainingJob):
    """Attributes:
    examples: for sft, what to train on in this order, in place of the chosen sides of the pairs.
    neutral: the base's answers to neutral prompts, for KL, EWC and the stop on drift.
    start: folder of a personality to train further, which is then also the DPO reference.
    spec: what the model is told to be, for sdft.
    reward: for grpo. Both use the prompts of the pairs alone.
    distilled: the personality's own answers on another base with the same vocabulary, and its distributions over them,
        for `dpo.distill_weight`.
    references: folder of stored reference values for dpo (`adapters.references`); None: computed anew.
    replay: exchanges on which the model is distilled from itself as the training begins, with `distill_weight`.
    """

    pairs: list[Pair]
    examples: list[Exchange] = field(default_factory=list)
    neutral: list[Exchange] = field(default_factory=list)
    start: Path | None = None
    measurements: Measurements | None = None
    spec: str = ""
    reward: Reward | None = None
    references: Path | None = None
    distilled: tuple[list[Exchange], list[TopK]] = ([], [])
    replay: list[Exchange] = field(default_factory=list)
    distill_weight: float = 0.0

    @property
    def divisible(self) -> bool:
        method, loss = self.config.personality.method, self.config.dpo.loss
        return method == "sft" or (method == "dpo" and loss != "orpo")

    def for_helpers(self) -> Self:
        return replace(super().for_helpers(), measurements=None)


@processes.together
def train_personality(job: PersonalityJob) -> TrainingResult:
    """Train on the job's pairs and write the adapter, or the full weights, to its folder.

    Raises:
        BadInput: the method or a protection lacks what it needs.
    """
    settings = job.config.personality
    if settings.method == "grpo" or job.measurements is not None:  # groups are not cut, and nothing is measured twice
        return _train(job)
    return training.within_memory(job, settings.batch_size, _train)


def _train(job: PersonalityJob) -> TrainingResult:
    config, settings = job.config, job.config.personality
    set_seed(job.seed)
    model = _model(job)
    context = _context(job, model)
    protections = active(context.settings, "personality").start(context)
    schedule = Schedule(settings.steps, settings.batch_size, settings.learning_rate)
    arguments = training.trainer_arguments(job, schedule, resumable=job.measurements is None)
    common = {"model": model, "processing_class": job.base.tokenizer, "protections": protections}
    trainer = _TRAINERS[settings.method](job, arguments, common)
    result = training.run_training(job, trainer, "personality", job.measurements)
    training.save(trainer.model, job.folder, "default")
    record = {
        **settings.model_dump(),
        **(config.dpo.model_dump() if settings.method == "dpo" else {"kl_weight": config.dpo.kl_weight}),
        "pairs": len(job.pairs),
        **({"examples": len(job.examples)} if job.examples else {}),
        "seed": job.seed,
        "start": str(job.start.name) if job.start else "base",
        "seconds": round(result.seconds, 1),
    }
    card.write(
        job.folder,
        card.Manifest(
            "personality",
            config.model.id,
            job.base.digest,
            config.model.precision,
            {},
            record,
            base_layers=job.base.layers,
        ),
    )
    return result


def weaken(start: Path, trained: Path, folder: Path, share: float) -> None:
    """Write a personality between the one in `start` (0) and the one that was trained further from it (1): weights are
    interpolated (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, eq. 1)."""
    manifest = card.read(trained)
    card.read(start)
    shutil.copytree(trained, folder)
    before, after = (load_file(each / WEIGHTS) for each in (start, trained))
    weights = {name: torch.lerp(before[name].to(value), value, share) for name, value in after.items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    card.write(folder, replace(manifest, training={**manifest.training, "strength": share}))


def _model(job: PersonalityJob) -> Any:
    base = job.base
    if job.config.personality.parameters == "full":
        return base.model.float().requires_grad_(True)
    if job.start is None:
        return get_peft_model(base.model, training.lora_config(job.config.lora, base.model))
    card.check_base(job.start, base)
    return PeftModel.from_pretrained(base.model, str(job.start), adapter_name="default", is_trainable=True)


def _context(job: PersonalityJob, model: Any) -> Context:
    settings, (distilled, stored) = job.config.personality_protection, job.distilled
    if job.distill_weight:
        settings = settings.model_copy(update={"distill_weight": job.distill_weight, "distill": "live"})
    elif not stored:  # the first training on a base distils; a later one goes on from what that gave
        settings = settings.model_copy(update={"distill_weight": 0.0})
    return Context(
        text=TextModel(model, job.base.tokenizer),
        config=job.config,
        settings=settings,
        stage="personality",
        adapter="default",
        start=job.start,
        seed=job.seed,
        # Without replay, what the base does is all that a personality has to retain.
        material=Material(
            neutral=job.neutral,
            replay=job.replay if job.distill_weight else job.neutral,
            stored=stored,
            distilled=distilled,
        ),
        progress=job.progress,
    )


def _preference_trainer(job: PersonalityJob, arguments: dict[str, Any], common: dict[str, Any]) -> Any:
    dpo = job.config.dpo
    rows = preferences(job.pairs, job.base.tokenizer)
    if dpo.loss == "orpo":
        return OddsTrainer(
            args=ORPOConfig(**arguments, beta=dpo.beta),
            train_dataset=rows,
            **common,
        )
    simpo = dpo.loss == "simpo"  # the mean over tokens, without a reference (Meng et al. 2024, arXiv:2405.14734)
    settings = DPOConfig(
        **arguments,
        beta=dpo.beta,
        loss_type=["sigmoid_norm" if simpo else dpo.loss, "sft"],
        loss_weights=[1.0, dpo.nll_weight],
        f_divergence_type=dpo.divergence,
        label_smoothing=dpo.label_smoothing,
        precompute_ref_log_probs=True,
    )
    return PersonalityTrainer(
        args=settings,
        train_dataset=rows,
        reference=dpo.reference,
        margin=dpo.margin if simpo else 0.0,
        references=job.references,
        **common,
    )


def _chat_trainer(job: PersonalityJob, arguments: dict[str, Any], common: dict[str, Any]) -> Any:
    return ChatTrainer(**_chosen(job, arguments), **common)


def _distillation_trainer(job: PersonalityJob, arguments: dict[str, Any], common: dict[str, Any]) -> Any:
    if not job.spec:
        raise BadInput("personality.method=sdft needs the spec's text.", "Give persona.yaml a system_prompt.")
    settings = job.config.personality
    distillation = SelfDistillation(
        job.base.tokenizer,
        [pair.prompt for pair in job.pairs],
        job.spec,
        job.config.micro_batch(settings.batch_size),
        settings.sample_tokens,
        start_is_teacher=job.start is None and settings.parameters == "lora",
        seed=job.seed,
    )
    return SelfDistillationTrainer(distillation=distillation, **_chosen(job, arguments), **common)


def _chosen(job: PersonalityJob, arguments: dict[str, Any]) -> dict[str, Any]:
    """SFT on the job's examples in their order, or on the chosen sides of the pairs."""
    exchanges = job.examples or [Exchange(pair.prompt, pair.chosen) for pair in job.pairs]
    order: dict[str, Any] = {"train_sampling_strategy": "sequential"} if job.examples else {}
    return {
        "args": SFTConfig(**arguments, **order, completion_only_loss=True),
        "train_dataset": completions(exchanges, job.base.tokenizer, job.config.model.max_length),
    }


def _grpo_trainer(job: PersonalityJob, arguments: dict[str, Any], common: dict[str, Any]) -> Any:
    reward = job.reward
    if reward is None:
        raise ValueError("grpo needs a reward")
    rows, tokens = [(pair.prompt, "") for pair in job.pairs], job.config.personality.sample_tokens
    return reward_trainer(
        arguments, rows, lambda prompts, answers, _: reward(prompts, answers), GROUP, tokens, **common
    )


_TRAINERS: dict[str, Callable[[PersonalityJob, dict[str, Any], dict[str, Any]], Any]] = {
    "dpo": _preference_trainer,
    "sft": _chat_trainer,
    "sdft": _distillation_trainer,
    "grpo": _grpo_trainer,
}
