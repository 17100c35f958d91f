"""The persona in one state: whose answers they are, whether they answer, and which answers the model finds likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import numpy as np

from moltlm.data import coherence, persona
from moltlm.data.state import BASE, State
from moltlm.data.types import ChatModel, Message, Pair, Progress, TokenScore, silent
from moltlm.evals.distinctness import distinctness
from moltlm.evals.records import JudgedAnswer, PersonaRecord, ScoredAnswer
from moltlm.evals.relevance import Questions, relevance

VERSION = 2
"""Of the measure: 1 is identity x coherence, 2 also relevance and distinctness. Studies keep the first, by which their
evidence was registered."""


class Classifier(Protocol):
    """Says how probably the personality wrote a text."""

    def probability(self, texts: list[str]) -> list[float]: ...


@dataclass(frozen=True)
class PersonaMeasure:
    """How answers are generated and scored.

    Attributes:
        classifier: tells the personality's answers from any others.
        nll_limit: nats a token under the base above which an answer is garbled (see `nll_limit`).
        max_new_tokens: length of a generated answer.
        batch_size: prompts at a time.
        questions: the questions among which an answer has to identify its own.
    """

    classifier: Classifier
    nll_limit: float
    max_new_tokens: int
    batch_size: int
    questions: Questions = field(default_factory=lambda: Questions([], []))


def nll_limit(scores: list[TokenScore]) -> float:
    """Nats a token above which an answer counts as garbled: the 99th percentile of the hand-written answers' negative
    log-likelihood under the base."""
    return float(np.percentile([-score.per_token for score in scores], 99))


def evaluate(
    model: ChatModel, state: State, pairs: list[Pair], measure: PersonaMeasure, progress: Progress = silent
) -> list[PersonaRecord]:
    """Answer every held-out prompt in `state`, score the answers, and score the likelihood of the pair's chosen answer
    and of the base's."""
    prompts, size = [pair.prompt for pair in pairs], measure.batch_size
    with model.state(state):
        answers = model.generate(prompts, measure.max_new_tokens, size, progress)
        completions = [*(pair.chosen for pair in pairs), *(pair.base_answer for pair in pairs)]
        likelihoods = model.score([*prompts, *prompts], completions, size, progress)  # a prompt once
    chosen, rejected = likelihoods[: len(pairs)], likelihoods[len(pairs) :]
    scored = measure_answers(model, [pair.question for pair in pairs], answers, measure, progress, prompts)
    return [
        PersonaRecord(
            id=pair.id,
            topic=pair.topic,
            trait=pair.trait,
            chosen=chosen_score.per_token,
            rejected=rejected_score.per_token,
            **vars(answer),
        )
        for pair, answer, chosen_score, rejected_score in zip(pairs, scored, chosen, rejected, strict=True)
    ]


def measure_answers(
    model: ChatModel,
    questions: list[str],
    answers: list[str],
    measure: PersonaMeasure,
    progress: Progress = silent,
    prompts: list[list[Message]] | None = None,
) -> list[ScoredAnswer]:
    """Score answers by identity, relevance, distinctness and coherence: the product, each 0..1.

    Args:
        prompts: what the base is given before each answer; the question alone where they are left out.
    """
    prompts = prompts or [persona.user(question) for question in questions]
    with model.state(BASE):
        base_scores = model.score(prompts, answers, measure.batch_size, progress)
        relevant = relevance(model, questions, answers, measure.questions, measure.batch_size, progress)
    judged = score_answers(questions, answers, base_scores, measure)
    return [
        replace(
            answer,
            relevance=share,
            distinctness=distinct,
            score=answer.score * (1.0 if share is None else share) * distinct,
        )
        for answer, share, distinct in zip(judged, relevant, distinctness(questions, answers), strict=True)
    ]


def score_answers(
    questions: list[str], answers: list[str], base_scores: list[TokenScore], measure: PersonaMeasure
) -> list[ScoredAnswer]:
    """Score answers by the first measure, from their likelihood under the base: the classifier's probability of a
    coherent answer, 0 of any other (protocol: G)."""
    records = []
    probabilities = measure.classifier.probability(answers)
    for question, answer, base_score, probability in zip(questions, answers, base_scores, probabilities, strict=True):
        nll = -base_score.per_token
        faults = coherence.check(question, answer, nll, measure.nll_limit)
        records.append(
            ScoredAnswer(
                question=question,
                answer=answer,
                probability=probability,
                coherent=faults.coherent,
                score=probability * faults.coherent,
                base_nll=nll,
                **asdict(faults),
            )
        )
    return records


def parts(records: Sequence[JudgedAnswer]) -> dict[str, float]:
    """The mean of each part of the score, of those that were measured."""
    relevant = [record.relevance for record in records if record.relevance is not None]
    distinct = [record.distinctness for record in records if record.distinctness is not None]
    values = {
        "identity": [record.probability for record in records],
        "relevance": relevant,
        "distinctness": distinct,
        "coherence": [float(record.coherent) for record in records],
    }
    return {name: float(np.mean(each)) for name, each in values.items() if each}
