"""A set of 64-bit keys that grows by sorted batches, in numpy: eight bytes a key."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class SortedRuns:
    """Sorted arrays, each more than twice as long as the next: there are few of them, and a key is seldom moved."""

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def add(self, keys: np.ndarray) -> None:
        """Add keys, which are sorted."""
        while self.runs and len(self.runs[-1]) <= 2 * len(keys):
            keys = np.concatenate([self.runs.pop(), keys])
            keys.sort()
        if len(keys):
            self.runs.append(keys)

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key is in the set."""
        present = np.zeros(len(keys), bool)
        for run, places in self.at_or_after(keys):
            present |= run.take(places, mode="clip") == keys
        return present

    def at_or_after(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each array, and in it the place of the first key that is not smaller than each of `keys`."""
        for run in self.runs:
            yield run, np.searchsorted(run, keys)
