"""The persona direction: from hidden states out of character to those in character, at one layer.

A persona vector (Chen et al. 2025, arXiv:2507.21509) is the mean difference of a layer's hidden states, averaged over
the tokens of answers. Here both sides answer the same prompts: the personality's written answers, and the base's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from moltlm.data.errors import BadInput

LEAST = 4
"""Fewest pairs of which a direction can be fitted on one half and tried on the other."""


@dataclass(frozen=True)
class Direction:
    """A direction in the hidden states of one layer.

    Attributes:
        layer: index into the hidden states, where 0 is the embeddings.
        origin: (width,) mean out of character.
        vector: (width,) mean in character less `origin`.
        auroc: how well the projection tells the two sides of pairs that it was not fitted on.
    """

    layer: int
    origin: np.ndarray
    vector: np.ndarray
    auroc: float

    def project(self, states: np.ndarray) -> np.ndarray:
        """(n,) places along the direction: 0 for the mean out of character, 1 for the mean in character.

        Args:
            states: (n, layers + 1, width).
        """
        return (states[:, self.layer] - self.origin) @ self.vector / max(float(self.vector @ self.vector), 1e-12)


def fit(inside: np.ndarray, outside: np.ndarray) -> Direction:
    """The direction at the layer where that of one half of the pairs separates the other half best, in units of the
    spread within the sides.

    Args:
        inside: (n, layers + 1, width) states over the answers in character.
        outside: the same over the answers out of character.

    Raises:
        BadInput: for fewer than LEAST pairs.
    """
    if len(inside) < LEAST:
        raise BadInput(
            f"The persona direction needs {LEAST} pairs with an answer of the base, and there are {len(inside)}.",
            "Give the persona more answers in train.jsonl.",
        )
    layers = range(1, inside.shape[1])
    layer = max(layers, key=lambda each: _separation(*_held_out(inside, outside, each)))
    positive, negative = _held_out(inside, outside, layer)
    labels = [1] * len(positive) + [0] * len(negative)
    origin = outside[:, layer].mean(0)
    vector = inside[:, layer].mean(0) - origin
    return Direction(layer, origin, vector, float(roc_auc_score(labels, [*positive, *negative])))


def save(direction: Direction, path: Path) -> None:
    """Write a direction as npz."""
    np.savez(
        path, layer=direction.layer, origin=direction.origin, vector=direction.vector, auroc=np.float64(direction.auroc)
    )


def load(path: Path) -> Direction:
    """Read what `save` wrote."""
    with np.load(path) as stored:
        return Direction(int(stored["layer"]), stored["origin"], stored["vector"], float(stored["auroc"]))


def _held_out(inside: np.ndarray, outside: np.ndarray, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Projections of both sides (n,), each half on the direction of the other half."""
    positive, negative = np.zeros(len(inside)), np.zeros(len(outside))
    for half in (0, 1):
        tried, fitted = slice(half, None, 2), slice(1 - half, None, 2)
        origin = outside[fitted, layer].mean(0)
        vector = inside[fitted, layer].mean(0) - origin
        scale = max(float(vector @ vector), 1e-12)
        positive[tried] = (inside[tried, layer] - origin) @ vector / scale
        negative[tried] = (outside[tried, layer] - origin) @ vector / scale
    return positive, negative


def _separation(positive: np.ndarray, negative: np.ndarray) -> float:
    """Difference of the means in units of the spread within the sides."""
    spread = np.sqrt((positive.var() + negative.var()) / 2)
    return float((positive.mean() - negative.mean()) / max(spread, 1e-9))
