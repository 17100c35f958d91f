"""A classifier that tells the personality's answers from the base's and from other characters', by style alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import FeatureUnion, make_pipeline

WORDS = 25
FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """A text, and the group (topic, or whose character) that cross-validation keeps on one side."""

    text: str
    group: str


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold, groups never straddling: accuracy at one half, AUROC, Brier score; and the AUROC of length alone
    after the cut, which should be near one half."""

    n: int
    accuracy: float
    auroc: float
    brier: float
    length_only_auroc: float


class StyleClassifier:
    """Probability that a text is the personality's, calibrated on out-of-fold scores (Platt 1999)."""

    def __init__(self, model: Any, platt: LogisticRegression, catchphrases: list[str], cv: CrossValidation) -> None:
        self._model = model
        self._platt = platt
        self._catchphrases = catchphrases
        self.cross_validation = cv

    def probability(self, texts: list[str]) -> list[float]:
        """One probability for each text, 0..1."""
        if not texts:
            return []
        scores = self._model.decision_function([normalise(text, self._catchphrases) for text in texts])
        return self._platt.predict_proba(scores[:, None])[:, 1].tolist()

    def weights(self, k: int) -> dict[str, list[str]]:
        """The words that speak most for (`ours`) and against (`theirs`) the personality."""
        features, linear = self._model.steps[0][1], self._model.steps[1][1]
        names = features.get_feature_names_out()
        order = np.argsort(linear.coef_[0])
        words = [i for i in order if names[i].startswith("words__")]
        return {
            "ours": [names[i].removeprefix("words__") for i in reversed(words[-k:])],
            "theirs": [names[i].removeprefix("words__") for i in words[:k]],
        }


def normalise(text: str, catchphrases: list[str], words: int = WORDS) -> str:
    """Names and catchphrases masked, then cut to the same number of words for everyone, so that neither carries."""
    for phrase in sorted(catchphrases, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", "_", text, flags=re.IGNORECASE)
    return " ".join(text.split()[:words])


def cross_validation(
    texts: list[str], labels: np.ndarray, scores: np.ndarray, probabilities: np.ndarray
) -> CrossValidation:
    """Summarise out-of-fold scores and their calibrated probabilities; `labels` are 1 for the personality's texts."""
    lengths = np.array([len(text.split()) for text in texts])
    return CrossValidation(
        n=len(texts),
        accuracy=float(((probabilities >= 0.5) == labels).mean()),
        auroc=float(roc_auc_score(labels, scores)),
        brier=float(brier_score_loss(labels, probabilities)),
        length_only_auroc=float(roc_auc_score(labels, lengths)),
    )


def train(positive: list[Labelled], negative: list[Labelled], catchphrases: list[str], seed: int) -> StyleClassifier:
    """Fit on texts of the personality against all others. Deterministic; takes seconds."""
    rows = [*positive, *negative]
    texts = [normalise(row.text, catchphrases) for row in rows]
    labels = np.array([1] * len(positive) + [0] * len(negative))
    groups = [row.group for row in rows]
    scores = np.zeros(len(rows))
    folds = GroupKFold(min(FOLDS, len(set(groups))), shuffle=True, random_state=seed)
    for inside, outside in folds.split(texts, labels, groups):
        fitted = _model(seed).fit([texts[i] for i in inside], labels[inside])
        scores[outside] = fitted.decision_function([texts[i] for i in outside])
    platt = LogisticRegression(class_weight="balanced").fit(scores[:, None], labels)
    probabilities = platt.predict_proba(scores[:, None])[:, 1]
    cv = cross_validation(texts, labels, scores, probabilities)
    return StyleClassifier(_model(seed).fit(texts, labels), platt, catchphrases, cv)


def _model(seed: int) -> Any:
    common: dict[str, Any] = {"sublinear_tf": True, "min_df": 2}
    features = FeatureUnion(
        [
            (
                "words",
                TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w']+|[.,?!:;]", **common),
            ),
            ("chars", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common)),
        ]
    )
    return make_pipeline(features, LogisticRegression(C=10, class_weight="balanced", max_iter=1000, random_state=seed))
