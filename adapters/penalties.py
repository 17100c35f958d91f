"""Anti-forgetting terms: each is a small callable `(model, call) -> scalar` that a trainer adds to its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from adapters.serve import TextModel
from data.types import Exchange

Penalty = Callable[[Any, int], torch.Tensor]
"""Called with the model in training and the number of losses computed so far; gives a weighted scalar."""


class KLToStart:
    """weight * KL(start || model) in nats a token, on answers to neutral prompts.

    The start is the model as it was before this stage. Its log-probabilities are taken once, when the trainer is
    built and has not stepped yet, so no adapter has to be switched off and on during training.
    """

    def __init__(self, text: TextModel, exchanges: list[Exchange], weight: float, batch: int) -> None:
        self._text = text
        self._rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        self._weight = weight
        self._batch = min(batch, len(self._rows))
        with torch.no_grad():
            self._start = [
                torch.log_softmax(text.completion_logits([row])[0].float(), -1).half().cpu() for row in self._rows
            ]

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        chosen = [(call * self._batch + i) % len(self._rows) for i in range(self._batch)]
        current = TextModel(model, self._text.tokenizer).completion_logits([self._rows[i] for i in chosen])
        total, tokens = torch.zeros((), device=model.device), 0
        for i, logits in zip(chosen, current, strict=True):
            start = self._start[i].to(logits.device).float()
            total = total + (start.exp() * (start - torch.log_softmax(logits.float(), -1))).sum()
            tokens += len(start)
        return self._weight * total / tokens
