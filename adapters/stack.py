"""Adapters on top of each other: frozen ones below, and the one that is trained above them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel

from moltlm.adapters import card, mixture, training
from moltlm.adapters.base import Base
from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.protections.base import ActiveProtections
from moltlm.adapters.training import AdapterJob


def stack_adapters(base: Base, folders: dict[str, Path]) -> PeftModel:
    """The base with these adapters loaded, none of them trainable."""
    (first, path), *others = folders.items()
    model = PeftModel.from_pretrained(base.model, str(path), adapter_name=first)
    for name, folder in others:
        model.load_adapter(str(folder), adapter_name=name)
    return model


def trainable_above(job: AdapterJob, protections: ActiveProtections) -> tuple[PeftModel, dict[str, str]]:
    """The model with the adapters below active and frozen, and the job's adapter, new or from `job.start`, alone
    trainable; and the hashes of those below by name."""
    config, base = job.config, job.base
    hashes = {name: card.check_base(path, base).weights_sha256 for name, path in job.adapters_below.items()}
    lora = protections.shape(_lora_config(config, base)) if job.start is None else None
    model = stack_adapters(base, job.adapters_below)
    if lora is not None:
        model.add_adapter(job.name, lora)
        if config.protect.layout == "mixture":
            mixture.attach(model, job.name, mixture.separable(config))
    else:
        card.check_base(job.start, base)
        model.load_adapter(str(job.start), adapter_name=job.name)
        mixture.restore(model, job.name, job.start)
    tuner: Any = model.base_model
    tuner.set_adapter([*job.adapters_below, job.name])  # makes all of them trainable
    for key, parameter in model.named_parameters():
        parameter.requires_grad = f".{job.name}." in key
    return model, hashes


def _lora_config(config: AdaptersConfig, base: Base) -> LoraConfig:
    """Of a new adapter above the personality: on the modules of `protect.target_modules`, if that names any."""
    modules = config.protect.target_modules
    if modules is None:
        return training.lora_config(config.lora, base.model)
    lora = config.lora.model_copy(update={"target_modules": modules})
    return training.lora_config(lora, base.model, "protect.target_modules")


def write_card(job: AdapterJob, label: str, hashes: dict[str, str], training_record: dict[str, Any]) -> None:
    """The manifest and model card of a trained adapter."""
    model = job.config.model
    manifest = card.Manifest(label, model.id, job.base.digest, model.precision, hashes, training_record)
    card.write(job.folder, replace(manifest, base_layers=job.base.layers))
