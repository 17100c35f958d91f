"""A study's persona gain by authorship, which one fixed sentence for every prompt does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moltlm.evals.distinctness import distinctness
from moltlm.evals.records import AnswerRecord, BasePoint, CheckpointRecord
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs


def by_authorship(run: Run, records: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """The checkpoints with another score of each answer: the probability that the personality wrote it, rather than the
    base or another character, and 0 if it is incoherent or nearly the answer to another prompt. Style, by which gain is
    registered (protocol: G), asks for neither. Whether an answer fits its question is left out, since that takes the
    model (`evals.relevance`).

    Args:
        records: with the answers, and with those of the untrained model.
    """
    classifier = pairs.classifier(run)
    questions = {pair.id: pair.question for pair in pairs.load_pairs(pairs.pairs(run), "heldout")}
    scored: dict[tuple[str, ...], list[AnswerRecord]] = {}  # trainings with one seed have one untrained model

    def score(point: BasePoint) -> list[AnswerRecord]:
        texts = [answer.answer for answer in point.answers]
        if (key := tuple(texts)) not in scored:
            own = np.array(classifier.probability(texts))
            distinct = distinctness([questions[answer.id] for answer in point.answers], texts)
            coherent = [answer.coherent for answer in point.answers]
            scored[key] = [
                replace(answer, score=float(value))
                for answer, value in zip(point.answers, own * distinct * coherent, strict=True)
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
