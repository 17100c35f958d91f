"""What happens where memory runs out: less at a time, which gives the same in more passes, and then a clear error."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from moltlm.data.errors import MoltError

Row, Result = TypeVar("Row"), TypeVar("Result")
_MESSAGE = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU, or of this process, has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MESSAGE.search(str(error)) is not None


def too_small(what: str) -> MoltError:
    """The error where not even this fits."""
    return MoltError(
        f"Out of memory for {what}. What was finished is kept.",
        "Ask which settings fit: molt estimate CONFIG   Less is taken with a smaller model.max_length, with "
        "train.gradient_checkpointing=true, and with model.precision=nf4.",
    )


def in_parts(call: Callable[[Sequence[Row]], Sequence[Result]], rows: Sequence[Row]) -> list[Result]:
    """What a call gives for rows, one result for each: at once, or, where memory does not suffice, half by half.

    Raises:
        MoltError: a single row does not fit.
    """
    try:
        return list(call(rows))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free()
    if len(rows) == 1:
        raise too_small("a single text")
    half = len(rows) // 2
    return [*in_parts(call, rows[:half]), *in_parts(call, rows[half:])]


def accumulations(batch: int, count: int) -> Iterator[int]:
    """Numbers of micro-batches into which a batch can be cut, from `count` on; each is at least twice the former."""
    yield count
    while count < batch:
        count = next(min(each, batch) for each in range(2 * count, 2 * batch + 1) if batch % min(each, batch) == 0)
        yield count


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def drop(model: Any) -> None:
    """Free the weights of a model that is of no more use, whoever still holds it."""
    for value in (*model.parameters(), *model.buffers()):
        value.data = torch.empty(0, dtype=value.dtype, device=value.device)
    free()
