"""Relevance: whether an answer says which question it answers, among distractors from other topics.

The base is asked the other way round: how much likelier does an answer make its own question than the others? That is
pointwise mutual information, log p(question | answer) - log p(question), and costs one pass over the answer, since all
questions continue it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from moltlm.data.types import ChatModel, Progress, silent

DISTRACTORS = 7
FEWEST = 3
"""Distractors without which relevance is left out."""
START = "Answer: {}\nQuestion:"


@dataclass(frozen=True)
class Questions:
    """Where distractors come from: the held-out questions with their topics."""

    texts: list[str]
    topics: list[str]

    def distractors(self, question: str, count: int = DISTRACTORS) -> list[str]:
        """Questions of other topics, always the same for a question; of any topic if there are too few."""
        topics = {topic for text, topic in zip(self.texts, self.topics, strict=True) if text == question}
        others = [row for row in zip(self.texts, self.topics, strict=True) if row[0].strip() != question.strip()]
        elsewhere = [text for text, topic in others if topic not in topics]
        pool = elsewhere if len(set(elsewhere)) >= FEWEST else [text for text, _ in others]
        return sorted(set(pool), key=lambda text: _order(question, text))[:count]


def _order(question: str, text: str) -> str:
    return hashlib.sha256(f"{question}\n{text}".encode()).hexdigest()


def information(
    model: ChatModel, answers: list[str], candidates: list[list[str]], batch_size: int, progress: Progress = silent
) -> list[np.ndarray]:
    """For each answer, the nats of information that it has about each of its candidate questions."""
    every = sorted({question for row in candidates for question in row})
    alone = dict(zip(every, model.score_continuations([START.format("")], [every], batch_size)[0], strict=True))
    starts = [START.format(answer) for answer in answers]
    scores = model.score_continuations(starts, candidates, batch_size, progress)
    return [
        np.array([score - alone[question] for score, question in zip(row, questions, strict=True)])
        for row, questions in zip(scores, candidates, strict=True)
    ]


def relevance(
    model: ChatModel,
    questions: list[str],
    answers: list[str],
    pool: Questions,
    batch_size: int,
    progress: Progress = silent,
) -> list[float | None]:
    """One value for each answer, 0..1: 0 if it is no likelier to be of its own question than chance has it. None where
    the pool has too few other questions."""
    candidates = [[question, *pool.distractors(question)] for question in questions]
    enough = [place for place, row in enumerate(candidates) if len(row) > FEWEST]
    values: list[float | None] = [None] * len(questions)
    if not enough:
        return values
    rows = information(model, [answers[i] for i in enough], [candidates[i] for i in enough], batch_size, progress)
    for place, row in zip(enough, rows, strict=True):
        values[place] = above_chance(row)
    return values


def above_chance(row: np.ndarray) -> float:
    """The posterior of the first candidate, less what chance gives it, 0..1."""
    posterior = np.exp(row - row.max())
    share, chance = float(posterior[0] / posterior.sum()), 1 / len(row)
    return max(0.0, (share - chance) / (1 - chance))
