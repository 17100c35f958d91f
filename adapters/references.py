"""Reference log-probabilities, stored by everything that they were computed from.

Seeds, arms of a grid and retrainings compare with the same reference on the same pairs. One forward pass over all pairs
costs as much as a third of an epoch of training on them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft.tuners.lora import LoraLayer

from moltlm.adapters import frozen
from moltlm.data.io import fingerprint, read_json, write_json

VERSION = 1
"""Of how they are computed."""
Sides = tuple[float, float]
"""Log-probability in nats of the chosen and of the rejected answer."""


def digest(model: Any, precision: str) -> str:
    """Of all that the model's outputs depend on. Adapters whose B is zero change none, so two seeds of a new adapter
    have the same digest."""
    silent = [f".{name}." for name in _silent_adapters(model)]
    total = hashlib.blake2b(digest_size=16)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if ".lora_" in name and any(part in name for part in silent):
            continue
        state = getattr(value, "quant_state", None)
        scales = {} if state is None else {"scales": state.absmax}
        for key, code in frozen.hashes({name: value, **scales}.items()).items():
            total.update(f"{key} {code}\n".encode())
    settings = [VERSION, precision, model.config._attn_implementation, torch.__version__, transformers.__version__]
    return fingerprint([total.hexdigest(), *settings])


def _silent_adapters(model: Any) -> set[str]:
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    names = {name for layer in layers for name in layer.lora_B}
    return {
        name for name in names if not any(layer.lora_B[name].weight.any() for layer in layers if name in layer.lora_B)
    }


def pair_keys(dataset: Dataset, max_length: int | None) -> list[str]:
    """Identify each tokenized pair as it is after truncation."""
    columns = zip(dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    return [
        fingerprint([len(prompt), (prompt + chosen)[:max_length], (prompt + rejected)[:max_length]])
        for prompt, chosen, rejected in columns
    ]


def load(file: Path) -> dict[str, Sides]:
    """The stored values by pair; none where the file is missing."""
    return {key: (chosen, rejected) for key, (chosen, rejected) in read_json(file).items()} if file.is_file() else {}


def save(file: Path, values: dict[str, Sides]) -> None:
    """Add values to the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**load(file), **values})
