"""Persona, measured on what the model writes and on what it finds likely. Everything ends in records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from data import coherence
from data.types import ChatModel, Pair, Progress, TokenScore, silent
from evals.config import PersonaEvalConfig
from evals.style import StyleClassifier


def nll_limit(scores: list[TokenScore]) -> float:
    """Nats a token above which an answer counts as garbled: the 99th percentile of the hand-written answers' negative
    log-likelihood under the base."""
    return float(np.percentile([-score.per_token for score in scores], 99))


def evaluate(
    model: ChatModel,
    state: str,
    pairs: list[Pair],
    classifier: StyleClassifier,
    limit: float,
    config: PersonaEvalConfig,
    batch_size: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """One record for each held-out pair.

    `score` is the style classifier's probability if the answer is coherent, else 0 (protocol: G). `chosen` and
    `rejected` are log-likelihoods in nats a token of the hand-written and of the base's answer in this state.
    """
    prompts = [pair.prompt for pair in pairs]
    with model.state(state):
        answers = model.generate(prompts, config.max_new_tokens, batch_size, progress)
        chosen = model.score(prompts, [pair.chosen for pair in pairs], batch_size, progress)
        rejected = model.score(prompts, [pair.rejected for pair in pairs], batch_size, progress)
    with model.state("base"):
        under_base = model.score(prompts, answers, batch_size, progress)
    probabilities = classifier.probability(answers)
    records = []
    for index, pair in enumerate(pairs):
        nll = -under_base[index].per_token
        check = coherence.check(pair.question, answers[index], nll, limit)
        records.append(
            {
                "id": pair.id,
                "topic": pair.topic,
                "trait": pair.trait,
                "question": pair.question,
                "answer": answers[index],
                "probability": probabilities[index],
                "coherent": check.coherent,
                "score": probabilities[index] * check.coherent,
                "base_nll": nll,
                "chosen": chosen[index].per_token,
                "rejected": rejected[index].per_token,
                **asdict(check),
            }
        )
    return records
