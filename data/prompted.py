"""Which tokens of a batch are the prompt: said by what runs a model, heard by gates that go by the prompt alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

current_mask: ContextVar[Any] = ContextVar("prompted", default=None)


@contextmanager
def prompted(mask: Any) -> Iterator[None]:
    """Within, the prompt is where `mask`, a tensor (batch, length), is 1."""
    token = current_mask.set(mask)
    try:
        yield
    finally:
        current_mask.reset(token)
