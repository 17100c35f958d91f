"""Learning where the weights matter least for what is to be retained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from peft import LoraConfig

from moltlm.adapters.config import ProtectConfig
from moltlm.adapters.protections.base import WEIGHT_STAGES, Context, Protection, Stage
from moltlm.adapters.protections.layers import adapter_layers, weight_below
from moltlm.adapters.serve import TextModel
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange

DAMPING = 1e-2
"""Of the covariances, as a share of their mean diagonal, so that they can be inverted."""


class Corda(Protection):
    """CorDA in its knowledge-preserving mode (Yang et al. 2024, arXiv:2406.05223): the adapter begins as the part of
    each weight that matters least for what the layers read in replayed exchanges, and the base is left without it.

    As the base here stays as it is (4-bit weights cannot be rewritten), the adapter has twice the rank: its second half
    takes that part off and never moves, its first half is trained, and at the start they cancel. Token gates train
    neither.
    """

    switch = "subspace"
    needs = ("replay",)
    stages = WEIGHT_STAGES
    example: ClassVar = {"subspace": "corda"}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return cls() if settings.subspace == "corda" else None

    def label(self, stage: Stage) -> str:
        return "protect.subspace=corda"

    def shape(self, lora: LoraConfig) -> LoraConfig:
        lora.r, lora.lora_alpha = 2 * lora.r, 2 * lora.lora_alpha
        return lora

    def start(self, context: Context) -> None:
        text, self._adapter = context.text, context.adapter
        self._fixed: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
        layers = list(adapter_layers(text.model, self._adapter))
        if context.start is None:
            for layer, covariance in zip(layers, _covariances(text, layers, context.material.replay), strict=True):
                _begin(layer, self._adapter, covariance)
        elif any(layer.r[self._adapter] != 2 * context.config.lora.r for layer in layers):
            raise BadInput(
                "protect.subspace=corda cannot train an adapter further that did not begin with it.",
                "Train the task anew with this setting, or turn it off: protect.subspace=none",
            )
        self._fixed = [(layer, *(part.clone() for part in self._second_half(layer))) for layer in layers]

    def after_step(self, model: Any, step: int) -> None:
        for layer, reads, writes in self._fixed:
            current_reads, current_writes = self._second_half(layer)
            current_reads.copy_(reads)
            current_writes.copy_(writes)

    def _second_half(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        reads, writes = layer.lora_A[self._adapter].weight.data, layer.lora_B[self._adapter].weight.data
        half = len(reads) // 2
        return reads[half:], writes[:, half:]


@torch.no_grad()
def _begin(layer: Any, adapter: str, covariance: torch.Tensor) -> None:
    reads, writes = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    rank = len(reads) // 2
    u, s, vh = torch.linalg.svd(weight_below(layer, adapter) @ covariance, full_matrices=False)
    root = s[-rank:].sqrt()
    a = torch.linalg.solve(covariance, (root[:, None] * vh[-rank:]).T).T  # the covariance is its own transpose
    b = u[:, -rank:] * root / layer.scaling[adapter]
    reads.copy_(torch.cat([a, a], 0))
    writes.copy_(torch.cat([b, -b], 1))


@torch.no_grad()
def _covariances(text: TextModel, layers: list[Any], exchanges: list[Exchange]) -> list[torch.Tensor]:
    """(width, width) for each layer: of what it reads over prompts and answers, damped."""
    sums = [torch.zeros(layer.in_features, layer.in_features, device=text.model.device) for layer in layers]
    count = [0] * len(layers)

    def add(index: int) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            rows = inputs[0].float().flatten(0, -2)
            sums[index] += rows.T @ rows
            count[index] += len(rows)

        return hook

    hooks = [layer.register_forward_hook(add(index)) for index, layer in enumerate(layers)]
    try:
        for row in text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges]):
            text.completion_logits([row])  # one by one: no padding is counted
    finally:
        for hook in hooks:
            hook.remove()
    means = [total / max(n, 1) for total, n in zip(sums, count, strict=True)]
    return [one + DAMPING * one.diagonal().mean() * torch.eye(len(one), device=one.device) for one in means]
