"""How far a state is from the base, on texts that nobody scores as right or wrong."""

from __future__ import annotations

from moltlm.data.state import BASE, State
from moltlm.data.types import ChatModel, Exchange, Progress, silent
from moltlm.evals.records import DriftRecord


def evaluate(
    model: ChatModel, state: State, texts: dict[str, list[Exchange]], batch_size: int, progress: Progress = silent
) -> list[DriftRecord]:
    """Cross-entropy of each answer in `state`, and KL(base || state) along it, both in nats a token.

    Args:
        texts: exchanges by the name of their set.
    """
    records = []
    for text_set, exchanges in texts.items():
        prompts, answers = [item.prompt for item in exchanges], [item.answer for item in exchanges]
        with model.state(state):
            rows = model.score_against(BASE, prompts, answers, batch_size, progress)
        for place, (exchange, row) in enumerate(zip(exchanges, rows, strict=True)):
            entropy = -row.score.per_token
            records.append(
                DriftRecord(text_set=text_set, item=place, question=exchange.question, cross_entropy=entropy, kl=row.kl)
            )
    return records
