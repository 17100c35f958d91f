"""What a model does while it reads given answers: how likely they are, whether it would say them itself, and its hidden
states over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moltlm.adapters.serve import TextModel
from moltlm.data import memory
from moltlm.data.io import batches
from moltlm.data.types import Exchange, Progress, silent


@dataclass(frozen=True)
class AnswerReading:
    """One answer after its prompt, in the model's current state.

    Attributes:
        per_token: log-probability in nats a token.
        greedy: share of its tokens that are the likeliest ones after those before them: 1 where the model, answering
            greedily, says it word for word.
        states: (layers + 1, width) float32 hidden states, averaged over its tokens; layer 0 is the embeddings. None
            where they were not asked for.
    """

    tokens: int
    per_token: float
    greedy: float
    states: np.ndarray | None = None


@torch.no_grad()
def read(
    model: TextModel, exchanges: list[Exchange], batch_size: int, progress: Progress = silent, states: bool = False
) -> list[AnswerReading]:
    """Read answers in the current state, in one pass.

    Args:
        states: also return hidden states.
    """
    rows = model.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
    readings: dict[int, AnswerReading] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    for group in batches(order, batch_size):
        chunk = [rows[i] for i in group]
        readings.update(zip(group, memory.in_parts(lambda part: _read(model, part, states), chunk), strict=True))
        progress(len(readings), len(rows), "answers")
    return [readings[i] for i in range(len(rows))]


def _read(model: TextModel, rows: Sequence[tuple[list[int], list[int]]], states: bool) -> list[AnswerReading]:
    chunk, read = list(rows), []
    logits, hidden = _with_states(model, chunk) if states else (model.completion_logits(chunk), None)
    for place, (_, answer) in enumerate(chunk):
        target = torch.tensor(answer, device=logits[place].device)
        logprobs = torch.log_softmax(logits[place].float(), -1)
        picked = logprobs.gather(1, target[:, None])[:, 0]
        greedy = float((logprobs.argmax(-1) == target).float().mean())
        read.append(AnswerReading(len(target), float(picked.mean()), greedy, hidden[place] if hidden else None))
    return read


def _with_states(
    model: TextModel, rows: list[tuple[list[int], list[int]]]
) -> tuple[list[torch.Tensor], list[np.ndarray]]:
    """The logits that predict each answer, (tokens, vocabulary), and the hidden states over it."""
    longest = max(len(answer) for _, answer in rows)
    out = model.forward(rows, logits_to_keep=longest + 1, output_hidden_states=True)
    logits = [out.logits[place, -len(answer) - 1 : -1] for place, (_, answer) in enumerate(rows)]
    means = [
        torch.stack([layer[place, -len(answer) :].float().mean(0) for layer in out.hidden_states])
        for place, (_, answer) in enumerate(rows)
    ]
    return logits, [mean.cpu().numpy() for mean in means]
