"""Hashes of every tensor that a training must not change, taken before it and compared after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from moltlm.data.errors import MoltError


def hashes(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Hashes of the tensors' bytes by name, on any device and of any dtype."""
    return {name: _hash(tensor) for name, tensor in named}


def _hash(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).hexdigest()


def trainable(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters that a trainer would change, by name."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def hash_trained(model: Any, names: set[str]) -> dict[str, str]:
    """Hashes of the parameters with these names."""
    return hashes((name, value) for name, value in model.named_parameters() if name in names)


def hash_frozen(model: Any, names: set[str]) -> dict[str, str]:
    """Hashes of all parameters and buffers but those with these names."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return hashes((name, value) for name, value in tensors if name not in names)


def check(before: dict[str, str], after: dict[str, str], stage: str) -> int:
    """The number of frozen tensors, all unchanged. Raises MoltError when one did."""
    changed = [name for name, value in before.items() if after.get(name) != value]
    if changed:
        raise MoltError(f"{stage}: {len(changed)} frozen tensors changed, first {changed[0]}. The result is not kept.")
    return len(before)


def check_finite(model: Any, names: set[str], stage: str, advice: str) -> None:
    """Raises MoltError if a parameter with one of these names holds a NaN or an infinity."""
    trained = ((name, value) for name, value in model.named_parameters() if name in names)
    broken = [name for name, value in trained if not bool(torch.isfinite(value).all())]
    if broken:
        raise MoltError(
            f"{stage}: the training diverged: {len(broken)} of {len(names)} trained tensors are not finite, first "
            f"{broken[0]}. The result is not kept.",
            advice,
        )


def check_changed(
    before: dict[str, str],
    after: dict[str, str],
    stage: str,
    fix: str = "Raise the learning rate or the steps: at 1e-6 adapters hardly move.",
) -> int:
    """The number of trainable tensors, all changed. Raises MoltError, with what mends it, when one did not."""
    unchanged = [name for name, value in before.items() if after.get(name) == value]
    if unchanged:
        raise MoltError(
            f"{stage}: {len(unchanged)} of {len(before)} trainable tensors did not move, first {unchanged[0]}.",
            fix,
        )
    return len(before)
