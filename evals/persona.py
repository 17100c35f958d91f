"""Persona, measured on what the model writes and on what it finds likely. Everything ends in records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from moltlm.data import coherence, persona
from moltlm.data.state import BASE, State
from moltlm.data.types import ChatModel, Message, Pair, Progress, TokenScore, silent
from moltlm.evals.config import PersonaEvalConfig
from moltlm.evals.style import StyleClassifier


def nll_limit(scores: list[TokenScore]) -> float:
    """Nats a token above which an answer counts as garbled: the 99th percentile of the hand-written answers' negative
    log-likelihood under the base."""
    return float(np.percentile([-score.per_token for score in scores], 99))


def evaluate(
    model: ChatModel,
    state: State,
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
    found = judged(model, [pair.question for pair in pairs], answers, classifier, limit, batch_size, progress, prompts)
    return [
        {
            "id": pair.id,
            "topic": pair.topic,
            "trait": pair.trait,
            **row,
            "chosen": chosen[index].per_token,
            "rejected": rejected[index].per_token,
        }
        for index, (pair, row) in enumerate(zip(pairs, found, strict=True))
    ]


def judged(
    model: ChatModel,
    questions: list[str],
    answers: list[str],
    classifier: StyleClassifier,
    limit: float,
    batch_size: int,
    progress: Progress = silent,
    prompts: list[list[Message]] | None = None,
) -> list[dict[str, Any]]:
    """What there is to say of each answer: its style, and whether it is language at all, for which the base has to find
    it likely enough after its prompt, or after its question alone."""
    asked = prompts or [persona.user(question) for question in questions]
    with model.state(BASE):
        under_base = model.score(asked, answers, batch_size, progress)
    return verdicts(questions, answers, under_base, classifier, limit)


def verdicts(
    questions: list[str], answers: list[str], under_base: list[TokenScore], classifier: StyleClassifier, limit: float
) -> list[dict[str, Any]]:
    """`score` is the style classifier's probability of a coherent answer, 0 of any other (protocol: G)."""
    records = []
    for question, answer, score, style in zip(
        questions, answers, under_base, classifier.probability(answers), strict=True
    ):
        nll = -score.per_token
        check = coherence.check(question, answer, nll, limit)
        records.append(
            {
                "question": question,
                "answer": answer,
                "probability": style,
                "coherent": check.coherent,
                "score": style * check.coherent,
                "base_nll": nll,
                **asdict(check),
            }
        )
    return records
