"""Which tokens of a batch are the prompt. Whatever runs a model sets the mask; adapters that are routed by the prompt
read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

current_mask: ContextVar[Any] = ContextVar("prompted", default=None)


@contextmanager
def prompted(mask: Any) -> Iterator[None]:
    """Inside the `with`, the prompt is where `mask`, a tensor (batch, length), is 1."""
    token = current_mask.set(mask)
    try:
        yield
    finally:
        current_mask.reset(token)
