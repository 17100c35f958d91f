"""The two training stages: the personality (DPO or SFT, LoRA or full), and a task above a frozen personality."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PrinterCallback, set_seed
from trl import DPOConfig, SFTConfig

from adapters import card, frozen
from adapters.base import Base
from adapters.config import AdaptersConfig, LoraSettings
from adapters.penalties import KLToStart, Penalty
from adapters.serve import TextModel
from adapters.trainers import ChatTrainer, PersonalityTrainer, Watch
from data.config import TaskConfig
from data.types import Exchange, Pair, Progress, silent

Measure = Callable[[int, TextModel], None]


@dataclass(frozen=True)
class Trained:
    """What a stage made. `frozen` tensors were checked to be bit-identical, `moved` ones to have moved."""

    folder: Path
    seconds: float
    parameters: int
    frozen: int
    moved: int


def train_personality(
    config: AdaptersConfig,
    base: Base,
    pairs: list[Pair],
    neutral: list[Exchange],
    folder: Path,
    seed: int,
    progress: Progress = silent,
    start: Path | None = None,
    measure: Measure | None = None,
    at: tuple[int, ...] = (),
) -> Trained:
    """Train on `pairs` and write the adapter (or the full weights) to `folder`. Consumes `base`.

    `start` continues an existing personality, which is then also the DPO reference. `neutral` is needed for a KL
    weight above 0. `measure` is called with the model in eval mode at the steps `at`.
    """
    settings = config.personality
    set_seed(seed)
    if settings.parameters == "full":
        model = base.model.float().requires_grad_(True)
    elif start is not None:
        card.check_base(start, base.digest)
        model = PeftModel.from_pretrained(base.model, str(start), adapter_name="default", is_trainable=True)
    else:
        model = get_peft_model(base.model, _lora(config.lora))
    penalties: list[Penalty] = []
    if config.dpo.kl_weight:
        text = TextModel(model, base.tokenizer)
        penalties.append(KLToStart(text, neutral, config.dpo.kl_weight, config.dpo.kl_batch))
    arguments = _arguments(config, settings.batch_size, settings.learning_rate, settings.steps, seed, folder)
    if settings.method == "dpo":
        trainer: Any = PersonalityTrainer(
            model=model,
            args=DPOConfig(
                **arguments,
                beta=config.dpo.beta,
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, config.dpo.nll_weight],
                precompute_ref_log_probs=True,
            ),
            train_dataset=preferences(pairs),
            processing_class=base.tokenizer,
            reference=config.dpo.reference,
            penalties=penalties,
        )
    else:
        exchanges = [Exchange(pair.prompt, pair.chosen) for pair in pairs]
        trainer = ChatTrainer(
            model=model,
            args=SFTConfig(**arguments, completion_only_loss=True),
            train_dataset=_completions(exchanges),
            processing_class=base.tokenizer,
            penalties=penalties,
        )
    checks = _run(trainer, base.tokenizer, folder, "personality", progress, measure, at)
    training = {
        **settings.model_dump(),
        **(config.dpo.model_dump() if settings.method == "dpo" else {"kl_weight": config.dpo.kl_weight}),
        "pairs": len(pairs),
        "seed": seed,
        "start": str(start.name) if start else "base",
        "seconds": round(checks.seconds, 1),
    }
    _save(trainer.model, folder, "default")
    card.write(folder, card.Manifest("personality", config.model.id, base.digest, config.model.precision, {}, training))
    return checks


def train_task(
    config: AdaptersConfig,
    base: Base,
    name: str,
    task: TaskConfig,
    mix: list[Exchange],
    personality: Path,
    folder: Path,
    seed: int,
    progress: Progress = silent,
) -> Trained:
    """Train a task adapter on `mix` (in its order, `task.steps` equal batches), with the personality active and
    frozen beneath it. Consumes `base`."""
    below = card.check_base(personality, base.digest)
    set_seed(seed)
    model = PeftModel.from_pretrained(base.model, str(personality), adapter_name="personality")
    model.add_adapter(name, _lora(config.lora))
    tuner: Any = model.base_model
    tuner.set_adapter(["personality", name])  # makes both trainable
    for key, parameter in model.named_parameters():
        parameter.requires_grad = f".{name}." in key
    batch = len(mix) // task.steps
    arguments = _arguments(config, batch, task.learning_rate, task.steps, seed, folder)
    trainer = ChatTrainer(
        model=model,
        args=SFTConfig(**arguments, completion_only_loss=True, train_sampling_strategy="sequential"),
        train_dataset=_completions(mix),
        processing_class=base.tokenizer,
        penalties=[],
    )
    checks = _run(trainer, base.tokenizer, folder, name, progress)
    _save(trainer.model, folder, name)
    training = {**task.model_dump(), "examples": len(mix), "seed": seed, "seconds": round(checks.seconds, 1)}
    beneath = {"personality": below.weights_sha256}
    card.write(folder, card.Manifest(name, config.model.id, base.digest, config.model.precision, beneath, training))
    return checks


def _run(
    trainer: Any,
    tokenizer: Any,
    folder: Path,
    stage: str,
    progress: Progress,
    measure: Measure | None = None,
    at: tuple[int, ...] = (),
) -> Trained:
    """Train between two hash checks: the frozen tensors stayed, the trainable ones moved."""
    model = trainer.model
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    still, moving = frozen.split(model, names)
    hook = None if measure is None else lambda step, model: measure(step, TextModel(model, tokenizer))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(folder / "metrics.jsonl", progress, hook, at))
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    after_still, after_moving = frozen.split(model, names)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Trained(
        folder,
        seconds,
        count,
        frozen.check(still, after_still, stage),
        frozen.check_moved(moving, after_moving, stage),
    )


def _lora(settings: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )


def _arguments(
    config: AdaptersConfig, batch: int, learning_rate: float, steps: int, seed: int, folder: Path
) -> dict[str, Any]:
    train = config.train
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": max(1, batch // train.gradient_accumulation),
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        # the first step of a warm-up has rate 0, and LoRA's A only moves once its B has
        "warmup_steps": max(0, min(train.warmup_steps, steps - 2)),
        "max_steps": steps,
        "max_grad_norm": train.max_grad_norm,
        "weight_decay": 0.0,
        "optim": train.optimizer,
        "gradient_checkpointing": train.gradient_checkpointing,
        "max_length": config.model.max_length,
        "bf16": _autocast(config),
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _autocast(config: AdaptersConfig) -> bool:
    """Mixed precision wherever the base computes in bf16: the trained tensors stay fp32."""
    model = config.model
    return model.precision == "bf16" or (model.precision == "nf4" and model.compute_dtype == "bfloat16")


def preferences(pairs: list[Pair]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": pair.prompt,
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def _completions(exchanges: list[Exchange]) -> Dataset:
    return Dataset.from_list(
        [{"prompt": item.prompt, "completion": [{"role": "assistant", "content": item.answer}]} for item in exchanges]
    )


def _save(model: Any, folder: Path, adapter: str) -> None:
    if not isinstance(model, PeftModel):
        model.to(torch.bfloat16).save_pretrained(folder)
        return
    model.save_pretrained(str(folder), selected_adapters=[adapter])
    if adapter != "default":  # PEFT writes a named adapter one folder down
        for file in (folder / adapter).iterdir():
            file.replace(folder / file.name)
        (folder / adapter).rmdir()
