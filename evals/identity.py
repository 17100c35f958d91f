"""Authorship: the probability that the personality wrote an answer, rather than the base or another character.

Features are what carries over from topic to topic (Stamatatos 2009): words and pairs of words, with rates of function
words, punctuation and lengths of sentences. On short texts this is a hint, not a proof: see
docs/concepts/persona-measures.md for how well near voices are told apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from moltlm.data.coherence import COMMON, words
from moltlm.data.persona import Persona
from moltlm.data.types import Exchange
from moltlm.evals.style import CrossValidation, Labelled, cross_validation, normalise

OWN = "persona"
FOLDS = 5
WORDS = 80
LONG, LOW, HIGH = 12, 3, 7
"""Words of a long and of a short sentence; letters of a word that is not long."""
MARKS = ",?:;!"
SCALE = 0.1
"""Weight of a standardised rate beside a tf-idf vector of unit length."""
_FUNCTION_WORDS = sorted(COMMON)


class IdentityClassifier:
    """The probability that a text is the personality's, calibrated on out-of-fold scores (Platt 1999) in which all
    other characters count alike."""

    def __init__(self, model: Any, platt: LogisticRegression, catchphrases: list[str], cv: CrossValidation) -> None:
        self._model = model
        self._platt = platt
        self._catchphrases = catchphrases
        self.cross_validation = cv
        self.characters = [str(name) for name in model.classes_ if name != OWN]

    def probability(self, texts: list[str]) -> list[float]:
        """One probability for each text, 0..1."""
        if not texts:
            return []
        scores = _log_odds(self._model, [normalise(text, self._catchphrases, WORDS) for text in texts])
        return self._platt.predict_proba(scores[:, None])[:, 1].tolist()

    def attribution(self, texts: list[str]) -> list[dict[str, float]]:
        """For each text the probability that each character wrote it, by name, OWN among them; they sum to 1."""
        if not texts:
            return []
        shares = self._model.predict_proba([normalise(text, self._catchphrases, WORDS) for text in texts])
        return [dict(zip(map(str, self._model.classes_), map(float, row), strict=True)) for row in shares]

    def weights(self, k: int) -> dict[str, list[str]]:
        """The words that speak most for (`ours`) and against (`theirs`) the personality."""
        features, linear = self._model.steps[0][1], self._model.steps[1][1]
        names = features.transformer_list[0][1].get_feature_names_out()
        coefficients = linear.coef_[list(linear.classes_).index(OWN)] if len(linear.classes_) > 2 else -linear.coef_[0]
        order = np.argsort(coefficients[: len(names)])
        return {"ours": [names[i] for i in reversed(order[-k:])], "theirs": [names[i] for i in order[:k]]}


def other_characters(
    base: list[Labelled], persona: Persona, shipped: Mapping[str, Sequence[Exchange]]
) -> dict[str, list[Labelled]]:
    """The texts that the personality's are told from, by whose they are: the base's answers, those of other characters
    that come with the persona, and those of the shipped characters."""
    others = {"base": base}
    for item in persona.other_characters:
        others.setdefault(item.source, []).append(Labelled(item.answer, item.source))
    for name, rows in shipped.items():
        others[name] = [Labelled(row.answer, row.topic) for row in rows]
    return {name: rows for name, rows in others.items() if rows}


def train(
    positive: Sequence[Labelled], others: Mapping[str, Sequence[Labelled]], catchphrases: list[str], seed: int
) -> IdentityClassifier:
    """Fit on texts of the personality and of each other character. Deterministic; takes seconds.

    Args:
        positive: texts of the personality. With fewer than ten groups (topics) of them, cross-validation is over texts
            and not over groups, since a model of the few that are left says little about the whole.
        others: the texts of the base and of other characters, by name, none without any.
    """
    rows = [(OWN, row) for row in positive] + [(name, row) for name, each in others.items() for row in each]
    names = np.array([name for name, _ in rows])
    texts = [normalise(row.text, catchphrases, WORDS) for _, row in rows]
    few = len({row.group for row in positive}) < 2 * FOLDS
    groups = [str(place) if few else row.group for place, (_, row) in enumerate(rows)]
    scores = np.zeros(len(rows))
    folds = GroupKFold(min(FOLDS, len(set(groups))), shuffle=True, random_state=seed)
    for inside, outside in folds.split(texts, names, groups):
        if len(set(names[inside])) > 1 and OWN in names[inside]:
            fitted = _model(seed).fit([texts[i] for i in inside], names[inside])
            scores[outside] = _log_odds(fitted, [texts[i] for i in outside])
    labels = (names == OWN).astype(int)
    platt = LogisticRegression().fit(scores[:, None], labels, sample_weight=_equal_characters(names))
    probabilities = platt.predict_proba(scores[:, None])[:, 1]
    cv = cross_validation(texts, labels, scores, probabilities)
    return IdentityClassifier(_model(seed).fit(texts, names), platt, catchphrases, cv)


def _equal_characters(names: np.ndarray) -> np.ndarray:
    """Weights by which the personality counts as much as all others together, and these count alike."""
    counts = Counter(names.tolist())
    shares = {name: 1.0 if name == OWN else 1 / (len(counts) - 1) for name in counts}
    return np.array([shares[name] / counts[name] for name in names]) * len(names) / 2


def _log_odds(model: Any, texts: list[str]) -> np.ndarray:
    probability = model.predict_proba(texts)[:, list(model.classes_).index(OWN)].clip(1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability))


def _model(seed: int) -> Any:
    tfidf = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w']+|[.,?!:;]", sublinear_tf=True, min_df=2)
    rates = make_pipeline(FunctionTransformer(_rates), StandardScaler(), FunctionTransformer(_scaled))
    features = FeatureUnion([("words", tfidf), ("rates", rates)])
    return make_pipeline(features, LogisticRegression(C=10, class_weight="balanced", max_iter=500, random_state=seed))


def _scaled(values: np.ndarray) -> np.ndarray:
    return SCALE * values.clip(-4, 4)


def _rates(texts: list[str]) -> np.ndarray:
    return np.array([rates(text) for text in texts])


def rates(text: str) -> list[float]:
    """Lengths of sentences, rates of marks, contractions and long words, and of function words (square roots)."""
    tokens = words(text)
    count, total = Counter(tokens), max(len(tokens), 1)
    sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s+", text) if sentence] or [""]
    lengths = [len(words(sentence)) for sentence in sentences]
    n = len(sentences)
    return [
        float(np.mean(lengths)), float(np.std(lengths)), min(lengths), max(lengths), n,
        sum(length <= LOW for length in lengths) / n, sum(length >= LONG for length in lengths) / n,
        *(text.count(mark) / n for mark in MARKS), float(text.endswith("?")),
        sum("'" in token for token in tokens) / total, sum(len(token) > HIGH for token in tokens) / total,
        sum(map(len, tokens)) / total, len(count) / total,
        *((count[word] / total) ** 0.5 for word in _FUNCTION_WORDS),
    ]  # fmt: skip
