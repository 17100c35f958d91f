"""The persona in one state: the style of what the model writes, and which answers it finds likely."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from moltlm.data import coherence, persona
from moltlm.data.state import BASE, State
from moltlm.data.types import ChatModel, Message, Pair, Progress, TokenScore, silent
from moltlm.evals.records import PersonaRecord, ScoredAnswer
from moltlm.evals.style import StyleClassifier


@dataclass(frozen=True)
class PersonaMeasure:
    """How answers are generated and scored.

    Attributes:
        classifier: tells the personality's style from any other.
        nll_limit: nats a token under the base above which an answer is garbled (see `nll_limit`).
        max_new_tokens: length of a generated answer.
        batch_size: prompts at a time.
    """

    classifier: StyleClassifier
    nll_limit: float
    max_new_tokens: int
    batch_size: int


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
        chosen = model.score(prompts, [pair.chosen for pair in pairs], size, progress)
        rejected = model.score(prompts, [pair.base_answer for pair in pairs], size, progress)
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
    """Score answers by style and coherence.

    Args:
        prompts: what the base is given before each answer; the question alone where they are left out.
    """
    prompts = prompts or [persona.user(question) for question in questions]
    with model.state(BASE):
        base_scores = model.score(prompts, answers, measure.batch_size, progress)
    return score_answers(questions, answers, base_scores, measure)


def score_answers(
    questions: list[str], answers: list[str], base_scores: list[TokenScore], measure: PersonaMeasure
) -> list[ScoredAnswer]:
    """Score answers whose likelihood under the base is known: style probability of a coherent answer, 0 of any other
    (protocol: G)."""
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
