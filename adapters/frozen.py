"""Frozen stays frozen: hashes of every tensor that a stage must not move, taken before and compared after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from moltlm.data.errors import MoltError


def hashes(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Name to hash of a tensor's bytes, wherever it lives and whatever its dtype."""
    return {name: _hash(tensor) for name, tensor in named}


def _hash(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).hexdigest()


def trainable(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """What a trainer would move, by name."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def split(model: Any, trainable: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Hashes of the tensors (parameters and buffers) outside and inside `trainable`."""
    everything = hashes([*model.named_parameters(), *model.named_buffers()])
    frozen = {name: value for name, value in everything.items() if name not in trainable}
    return frozen, {name: value for name, value in everything.items() if name in trainable}


def check(before: dict[str, str], after: dict[str, str], stage: str) -> int:
    """The number of frozen tensors, all unchanged. Raises MoltError naming those that moved."""
    moved = [name for name, value in before.items() if after.get(name) != value]
    if moved:
        raise MoltError(f"{stage}: {len(moved)} frozen tensors changed, first {moved[0]}. The result is not kept.")
    return len(before)


def check_moved(before: dict[str, str], after: dict[str, str], stage: str) -> int:
    """The number of trainable tensors, all changed. Raises MoltError naming one that did not move."""
    still = [name for name, value in before.items() if after.get(name) == value]
    if still:
        raise MoltError(
            f"{stage}: {len(still)} of {len(before)} trainable tensors did not move, first {still[0]}.",
            "Raise the learning rate or the steps: at 1e-6 adapters hardly move.",
        )
    return len(before)
