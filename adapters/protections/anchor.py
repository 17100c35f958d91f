"""Protections that compare the model's forward pass with that of a reference: KL on neutral answers, distillation and
feature distillation on replayed ones."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch

from moltlm.adapters.config import ProtectConfig
from moltlm.adapters.protections.base import Context, Protection, cyclic
from moltlm.adapters.serve import TextModel
from moltlm.data import prose
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange

Rows = list[tuple[list[int], list[int]]]
PASSAGES = 200
"""Passages of prose that are compared; the reference's hidden states over all of them are in memory."""


class ReferenceStates:
    """Hidden states of the reference over given answers, and how far a model is from them.

    They are computed once, before the first step, so no adapter has to be switched off and on in training. Of the
    logits only the last hidden states are stored, from which the head computes them again.
    """

    def __init__(self, context: Context, exchanges: list[Exchange], layers: Sequence[int] = ()) -> None:
        text = context.text
        self._tokenizer = text.tokenizer
        self._rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        self._layers = list(layers)
        head = text.model.get_output_embeddings()
        trainable = any(weight.requires_grad for weight in head.parameters())
        self._head = copy.deepcopy(head).requires_grad_(False) if trainable else head
        with torch.no_grad(), context.autocast(), context.reference():
            self._states = [
                [state.cpu() for state in _hidden(text, [row], [*self._layers, -1])[0]] for row in self._rows
            ]

    def __len__(self) -> int:
        return len(self._rows)

    def kl(self, model: Any, indices: Sequence[int], weight: float, temperature: float = 1.0) -> torch.Tensor:
        """weight * T^2 * KL(reference || model) at temperature T, in nats a token (Hinton et al. 2015)."""
        current = self._current(model, indices)
        kl = torch.zeros((), device=model.device)
        tokens = 0
        for i, states in zip(indices, current, strict=True):
            reference = self._states[i][-1].to(model.device)
            tokens += len(reference)
            old, new = (
                torch.log_softmax(_logits(model, head, last) / temperature, -1)
                for head, last in ((self._head, reference), (model.get_output_embeddings(), states[-1]))
            )
            kl = kl + (old.exp() * (old - new)).sum()
        return weight * temperature**2 * kl / tokens

    def features(self, model: Any, indices: Sequence[int], weight: float) -> torch.Tensor:
        """weight * the squared difference of the hidden states, as a share of their squared size, averaged over layers
        and answers (after Romero et al. 2015)."""
        current = self._current(model, indices)
        total = torch.zeros((), device=model.device)
        for i, states in zip(indices, current, strict=True):
            for old, new in zip(self._states[i][:-1], states[:-1], strict=True):
                old = old.to(model.device).float()
                total = total + (new.float() - old).square().sum() / old.square().sum() / len(self._layers)
        return weight * total / len(indices)

    def _current(self, model: Any, indices: Sequence[int]) -> list[list[torch.Tensor]]:
        return _hidden(TextModel(model, self._tokenizer), [self._rows[i] for i in indices], [*self._layers, -1])


class _Kl(Protection):
    """KL(reference || model) on texts that a subclass names."""

    def start(self, context: Context) -> None:
        self._weight, self._temperature = getattr(context.settings, self.switch), context.settings.temperature
        self._reference = ReferenceStates(context, self._exchanges(context))
        self._batch = min(context.anchor_batch, len(self._reference))

    def penalty(self, model: Any, call: int) -> torch.Tensor:
        indices = cyclic(call, self._batch, len(self._reference))
        return self._reference.kl(model, indices, self._weight, self._temperature)

    def _exchanges(self, context: Context) -> list[Exchange]:
        return getattr(context.material, self.needs[0])


class KlToReference(_Kl):
    """KL(reference || model) on the base's answers to neutral prompts: the explicit KL of RLHF."""

    switch = "kl_weight"
    needs = ("neutral",)
    example: ClassVar = {"kl_weight": 3.0}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return super().from_settings(settings) if settings.kl_on in ("chat", "both") else None


class KlOnProse(_Kl):
    """The same KL on ordinary prose. On chat it keeps the chat, and leaves the rest of the language alone."""

    switch = "kl_weight"
    example: ClassVar = {"kl_weight": 3.0, "kl_on": "text"}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return super().from_settings(settings) if settings.kl_on in ("text", "both") else None

    def _exchanges(self, context: Context) -> list[Exchange]:
        """Passages in an order of the seed's."""
        rows = prose.anchor(context.config.train.prose)
        return random.Random(context.seed).sample(rows, min(len(rows), PASSAGES))


class LiveDistillation(_Kl):
    """The same KL on replayed answers (learning without forgetting, Li and Hoiem 2016, arXiv:1606.09282)."""

    switch = "distill_weight"
    needs = ("replay",)
    example: ClassVar = {"distill_weight": 3.0, "distill": "live"}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return super().from_settings(settings) if settings.distill == "live" else None


class Features(Protection):
    """Hidden states stay near those of the reference, on replayed answers (after Romero et al. 2015)."""

    switch = "feature_weight"
    needs = ("replay",)
    example: ClassVar = {"feature_weight": 10.0}

    def start(self, context: Context) -> None:
        self._weight = context.settings.feature_weight
        layers = _compared_layers(context.text.model, context.settings.feature_layers)
        self._reference = ReferenceStates(context, context.material.replay, layers)
        self._batch = min(context.anchor_batch, len(self._reference))

    def penalty(self, model: Any, call: int) -> torch.Tensor:
        return self._reference.features(model, cyclic(call, self._batch, len(self._reference)), self._weight)


def _compared_layers(model: Any, layers: list[int]) -> list[int]:
    """Indices into the hidden states, where 0 is the embeddings; by default every fourth part of the depth."""
    count = model.config.get_text_config().num_hidden_layers
    for layer in layers:
        if not 1 <= layer < count:
            raise BadInput(
                f"protect.feature_layers names layer {layer}, and there are {count}.", f"Use 1 to {count - 1}."
            )
    return layers or list(range(max(1, count // 4), count, max(1, count // 4)))


def _hidden(text: TextModel, rows: Rows, layers: list[int]) -> list[list[torch.Tensor]]:
    """For each row, for each of the layers: (completion tokens, width) at the positions that predict the completion."""
    out = text.forward(rows, logits_to_keep=1, output_hidden_states=True)
    return [
        [out.hidden_states[layer][i, -len(answer) - 1 : -1] for layer in layers] for i, (_, answer) in enumerate(rows)
    ]


def _logits(model: Any, head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """From the last hidden states, as the architecture computes them."""
    config = model.config.get_text_config()
    logits = head(hidden.to(next(head.parameters()).dtype)).float()
    logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
