"""What a sequence of tasks left of each, from the matrix of accuracies: the signs are fixed here, and nowhere else.

R is (T, T): R[k][j] is the accuracy on task j after training task k, both in the order of training; NaN where it was
not measured, which does no harm where j > k + 1. Positive is good for every measure but `forgetting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transfer:
    """`final`: mean accuracy after the last task. `learned`: mean of each right after its own training. `backward` and
    `forward` transfer after Lopez-Paz and Ranzato (2017, arXiv:1706.08840), `forgetting` after Chaudhry et al. (2018,
    arXiv:1801.10112), from each task's best accuracy before the last training. The last three are None for one task."""

    final: float
    learned: float
    backward: float | None
    forward: float | None
    forgetting: float | None


def transfer(matrix: Sequence[Sequence[float]], before: Sequence[float]) -> Transfer:
    """From R and the accuracies (T,) before any task was trained. Raises ValueError where the shapes do not agree."""
    r, start = np.asarray(matrix, dtype=float), np.asarray(before, dtype=float)
    n = len(start)
    if r.shape != (n, n):
        raise ValueError(f"accuracies of shape {r.shape} for {n} tasks")
    last, own = r[-1], r.diagonal()
    if n == 1:
        return Transfer(float(last.mean()), float(own.mean()), None, None, None)
    return Transfer(
        final=float(last.mean()),
        learned=float(own.mean()),
        backward=float((last - own)[:-1].mean()),
        forward=float(np.mean([r[k - 1][k] - start[k] for k in range(1, n)])),
        forgetting=float((np.nanmax(r[:-1, :-1], axis=0) - last[:-1]).mean()),
    )
