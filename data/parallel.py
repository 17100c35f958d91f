"""Parts of a batch at once, each on its own thread. A small model gains little from threads that share each operation,
since they wait for each other at every one of its thousand operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parts(function: Callable[[list[Item]], list[Result]], rows: Sequence[Item], least: int) -> list[Result]:
    """What `function` returns for all rows, computed for parts of them at once where no gradients are asked for.

    Args:
        function: gives a result for each row, whatever the others are. It changes nothing and draws no random numbers.
        least: fewest rows of a part.
    """
    threads = torch.get_num_threads()
    count = min(threads, len(rows) // least)
    if count < 2 or torch.is_grad_enabled():
        return function(list(rows))
    size = -(-len(rows) // count)
    parts = [list(rows[start : start + size]) for start in range(0, len(rows), size)]

    def compute(part: list[Item]) -> list[Result]:
        with torch.no_grad():  # it holds for one thread only
            return function(part)

    pool = ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(threads // len(parts),))
    try:
        with pool:
            return [result for part in pool.map(compute, parts) for result in part]
    finally:
        torch.set_num_threads(threads)  # in a thread it sets that of all matrix products
