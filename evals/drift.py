"""How far a state has moved from the base, on texts that nobody scores as right or wrong."""

from __future__ import annotations

from typing import Any

from moltlm.data.state import BASE, State
from moltlm.data.types import ChatModel, Exchange, Progress, silent


def evaluate(
    model: ChatModel, state: State, texts: dict[str, list[Exchange]], batch_size: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One record for each exchange of each named set: `cross_entropy` of its answer in this state, and
    KL(base || state) along it, both in nats a token."""
    records = []
    for where, items in texts.items():
        prompts, answers = [item.prompt for item in items], [item.answer for item in items]
        with model.state(state):
            scores = model.score(prompts, answers, batch_size, progress)
            apart = model.kl_from(BASE, prompts, answers, batch_size, progress)
        for item, score, kl in zip(items, scores, apart, strict=True):
            records.append({"where": where, "question": item.question, "cross_entropy": -score.per_token, "kl": kl})
    return records
