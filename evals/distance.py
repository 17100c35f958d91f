"""How far new data is from what the model has learned already: a risk of forgetting, estimated before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

FAR, STRANGE = 1.5, 1.5
"""Above `FAR` a classifier nearly always distinguishes the prompts; `STRANGE` is a ratio of nats a token."""
FOLDS = 5


@dataclass(frozen=True)
class Distance:
    """How far the examples of a task are from the replayed ones.

    Attributes:
        prompts: proxy A-distance of the prompts, from 0 (indistinguishable) to 2 (Ben-David et al. 2007).
        new_nll: the model's nats a token on the new answers before it is trained on them.
        replayed_nll: the same on the replayed answers.
    """

    prompts: float
    new_nll: float
    replayed_nll: float

    @property
    def risk(self) -> str:
        """low: near in both; high: far in both; else medium."""
        signs = (self.prompts > FAR) + (self.new_nll > STRANGE * self.replayed_nll)
        return ("low", "medium", "high")[signs]

    def sentence(self, name: str) -> str:
        """For a reader, about the task `name`."""
        return (
            f"{name}: {self.risk} risk of forgetting: its prompts are {self.prompts:.1f} of 2 away from the replayed "
            f"ones, and its answers cost {self.new_nll:.1f} nats a token against {self.replayed_nll:.1f}"
        )


def proxy_a_distance(new: np.ndarray, old: np.ndarray, seed: int = 0) -> float:
    """2 (1 - 2 e), at least 0: e is the error, balanced over the two sides, of a linear classifier by cross-validation.

    Args:
        new: embeddings (n, d).
        old: embeddings (m, d). With fewer than two rows on a side the distance is 0.
    """
    folds = min(FOLDS, len(new), len(old))
    if folds < 2:
        return 0.0
    rows = np.concatenate([new, old])
    labels = np.repeat([1, 0], [len(new), len(old)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    predicted: Any = cross_val_predict(model, rows, labels, cv=split)
    wrong = predicted != labels
    error = (wrong[labels == 1].mean() + wrong[labels == 0].mean()) / 2
    return float(max(0.0, 2 * (1 - 2 * error)))
