"""Persona gain by authorship: unlike style, it gives nothing for one sentence repeated for every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moltlm.evals.distinctness import distinctness
from moltlm.evals.records import AnswerRecord, BasePoint, CheckpointRecord
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs


def by_authorship(run: Run, records: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """The checkpoints with each answer scored by authorship: the probability that the personality wrote it, rather than
    the base or another character; 0 if it is incoherent, or nearly the same as the answer to another prompt. The
    registered gain (protocol: G) is style times coherence, which one sentence for every prompt can have. Whether an
    answer fits its question is left out, since that takes the model (`evals.relevance`).

    Args:
        records: with the answers, and with those of the untrained model.

    Returns:
        The records with new scores of the answers, persona and gain, and those of their untrained model.
    """
    classifier = pairs.classifier(run)
    questions = {pair.id: pair.question for pair in pairs.load_pairs(pairs.pairs(run), "heldout")}
    scored: dict[tuple[tuple[str, bool], ...], list[AnswerRecord]] = {}  # trainings of a seed share the untrained model

    def score(point: BasePoint) -> list[AnswerRecord]:
        if (key := tuple((answer.answer, answer.coherent) for answer in point.answers)) not in scored:
            texts, coherent = [text for text, _ in key], [good for _, good in key]
            authorship = np.array(classifier.probability(texts))
            distinct = distinctness([questions[answer.id] for answer in point.answers], texts)
            scored[key] = [
                replace(answer, score=float(value))
                for answer, value in zip(point.answers, authorship * distinct * coherent, strict=True)
            ]
        return scored[key]

    rows = []
    for record in records:
        assert record.base is not None  # `grid.records_of` adds it
        now, before = (replace(point, answers=score(point)) for point in (record, record.base))
        now, before = (replace(point, persona=_mean(point.answers)) for point in (now, before))
        rows.append(replace(now, base=before, gain=now.persona - before.persona))
    return rows


def _mean(answers: Sequence[AnswerRecord]) -> float:
    return float(np.mean([answer.score for answer in answers]))
