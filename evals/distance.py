"""How far new data is from what the model has learned already: a risk to be told before training, not after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

FAR, STRANGE = 1.5, 1.5
"""Above these the texts can nearly always be told apart, and the answers are that much less likely than the old."""
FOLDS = 5


@dataclass(frozen=True)
class Distance:
    """`apart` is the proxy A-distance of the prompts, from 0 (cannot be told apart) to 2 (Ben-David et al. 2007).
    `surprise` and `usual` are the model's nats a token on new and old answers before it is trained on the new."""

    apart: float
    surprise: float
    usual: float

    @property
    def risk(self) -> str:
        """low: near in both; high: far in both; else medium."""
        signs = (self.apart > FAR) + (self.surprise > STRANGE * self.usual)
        return ("low", "medium", "high")[signs]

    def sentence(self, name: str) -> str:
        return (
            f"{name}: {self.risk} risk of forgetting: prompts are {self.apart:.1f} of 2 away from what is replayed, "
            f"answers cost {self.surprise:.1f} nats a token where those cost {self.usual:.1f}"
        )


def apart(new: np.ndarray, old: np.ndarray, seed: int = 0) -> float:
    """Proxy A-distance 2 (1 - 2 e), at least 0, of embeddings (n, d) and (m, d): e is the error, balanced over the two
    sides, of a linear classifier by cross-validation. 0 where a side has fewer than two rows."""
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
