"""What every training stage shares: the trainer's arguments, checkpoints to go on from, and the checks around it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.optim import GlobalOptimManager
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerCallback

from moltlm.adapters import card, frozen
from moltlm.adapters.callbacks import Watch
from moltlm.adapters.config import CHECKPOINTS, AdaptersConfig, LoraSettings
from moltlm.adapters.serve import TextModel
from moltlm.data.types import Progress

Measure = Callable[[int, TextModel], None]


@dataclass(frozen=True)
class Trained:
    """What a stage made. `frozen` tensors were checked to be bit-identical, `moved` ones to have moved."""

    folder: Path
    seconds: float
    parameters: int
    frozen: int
    moved: int
    steps: int
    peak_gib: float


def run(
    trainer: Any,
    tokenizer: Any,
    folder: Path,
    stage: str,
    progress: Progress,
    measure: Measure | None = None,
    at: tuple[int, ...] = (),
    callbacks: list[TrainerCallback] | None = None,
) -> Trained:
    """Train between two hash checks: the frozen tensors stayed, the trainable ones moved. Goes on from the newest whole
    checkpoint of an interrupted try."""
    model = trainer.model
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    still, moving = frozen.split(model, names)
    hook = None if measure is None else lambda step, model: measure(step, TextModel(model, tokenizer))
    kept = folder / CHECKPOINTS
    trainer.remove_callback(PrinterCallback)
    for callback in [*(callbacks or []), Watch(kept / "metrics.jsonl", progress, hook, at)]:
        trainer.add_callback(callback)
    _reset_peak()
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=newest(kept))
    seconds, peak = time.monotonic() - began, _peak_gib()
    _let_go()
    after_still, after_moving = frozen.split(model, names)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = Trained(
        folder,
        seconds,
        count,
        frozen.check(still, after_still, stage),
        frozen.check_moved(moving, after_moving, stage),
        trainer.state.global_step,
        peak,
    )
    (kept / "metrics.jsonl").replace(folder / "metrics.jsonl")
    shutil.rmtree(kept)
    return found


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux; elsewhere the peak is the whole process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_gib() -> float:
    """Of the GPU's memory if there is one, else of this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found.group(1)) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def _let_go() -> None:
    """Transformers has bitsandbytes list the embeddings of each model that an 8-bit optimizer trains, for good: 1 GiB a
    training of an 8B model."""
    GlobalOptimManager.get_instance().module_weight_config_triple.clear()


def newest(folder: Path) -> str | None:
    """The latest checkpoint that is whole: the trainer writes its state last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    return next((str(path) for path in found if _whole(path / "trainer_state.json")), None)


def _whole(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text()), dict)
    except (OSError, ValueError):
        return False


def lora(settings: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )


def arguments(
    config: AdaptersConfig,
    batch: int,
    learning_rate: float,
    steps: int,
    seed: int,
    folder: Path,
    resumable: bool = True,
) -> dict[str, Any]:
    """For TRL's configs. `resumable`: write checkpoints, where the settings want them."""
    train = config.train
    save = train.checkpoint_every if resumable else 0
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "per_device_train_batch_size": micro(config, batch),
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
        "bf16": autocast(config),
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "save_strategy": "steps" if save else "no",
        "save_steps": save or 1,
        "save_total_limit": 1,
        "report_to": [],
        "disable_tqdm": True,
    }


def micro(config: AdaptersConfig, batch: int) -> int:
    """Of so many a step, those in each micro-batch."""
    return max(1, batch // config.train.gradient_accumulation)


def autocast(config: AdaptersConfig) -> bool:
    """Mixed precision wherever the base computes in bf16: the trained tensors stay fp32."""
    model = config.model
    return model.precision == "bf16" or (model.precision == "nf4" and model.compute_dtype == "bfloat16")


def weaken(folder: Path, factor: float) -> None:
    """The adapter in `folder` as if it had been served at this strength."""
    weights, manifest = folder / "adapter_model.safetensors", card.read(folder)
    tensors = load_file(weights)
    save_file({key: value * factor if "lora_B" in key else value for key, value in tensors.items()}, weights)
    card.write(folder, replace(manifest, training={**manifest.training, "strength": factor}))


def save(model: Any, folder: Path, adapter: str) -> None:
    if not isinstance(model, PeftModel):
        model.to(torch.bfloat16).save_pretrained(folder)
        return
    save_adapter(model, folder, adapter)


def save_adapter(model: PeftModel, folder: Path, adapter: str) -> None:
    """Its files directly in `folder`, whatever its name."""
    model.save_pretrained(str(folder), selected_adapters=[adapter])
    if adapter != "default":  # PEFT writes a named adapter one folder down
        for file in (folder / adapter).iterdir():
            file.replace(folder / file.name)
        (folder / adapter).rmdir()
