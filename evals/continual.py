"""Transfer and forgetting over a sequence of tasks, from the matrix of a score. Their signs are fixed here only.

R is (T, T): R[k][j] is the score on task j after training task k, both in the order of training; NaN where it was
not measured. That changes nothing where j > k + 1; where j < k < T - 1, `forgetting` misses a best score that was
reached there. A score is an accuracy, a token F1 or a log-likelihood: higher is better. Positive is good for every
measure but `forgetting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transfer:
    """Scores and their differences, in the unit of the score.

    Attributes:
        final: mean score after the last task.
        learned: mean score of each task right after its own training.
        backward: backward transfer (Lopez-Paz and Ranzato 2017, arXiv:1706.08840); None for one task, as the next two.
        forward: forward transfer, ibid.: what earlier tasks give to one that is not trained yet (zero-shot).
        forgetting: from each task's best score before the last training (Chaudhry et al. 2018, arXiv:1801.10112).
    """

    final: float
    learned: float
    backward: float | None
    forward: float | None
    forgetting: float | None


def transfer(matrix: Sequence[Sequence[float]], before: Sequence[float]) -> Transfer:
    """Transfer by the matrix R.

    Args:
        matrix: R, (T, T).
        before: scores (T,) before any task was trained.

    Raises:
        ValueError: if the shapes do not agree.
    """
    r, start = np.asarray(matrix, dtype=float), np.asarray(before, dtype=float)
    n = len(start)
    if r.shape != (n, n):
        raise ValueError(f"scores of shape {r.shape} for {n} tasks")
    last, learned = r[-1], r.diagonal()
    if n == 1:
        return Transfer(float(last.mean()), float(learned.mean()), None, None, None)
    return Transfer(
        final=float(last.mean()),
        learned=float(learned.mean()),
        backward=float((last - learned)[:-1].mean()),
        forward=float(np.mean([r[k - 1][k] - start[k] for k in range(1, n)])),
        forgetting=float((np.nanmax(r[:-1, :-1], axis=0) - last[:-1]).mean()),
    )
