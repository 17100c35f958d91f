"""Orthogonality of what an adapter reads to what the adapters below it read."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from moltlm.adapters.protections.base import WEIGHT_STAGES, Context, Protection


class OrthogonalLora(Protection):
    """weight * sum of (A_below A^T)^2 over all layers and adapters below (O-LoRA, Wang et al. 2023, arXiv:2310.14152,
    eq. 8). Token gates train no A, so the adapters that they gate stay as orthogonal as they are."""

    switch = "orthogonal_weight"
    stages = WEIGHT_STAGES
    example: ClassVar = {"orthogonal_weight": 1.0}

    def start(self, context: Context) -> None:
        self._weight, self._adapter = context.settings.orthogonal_weight, context.adapter
        self._below = context.adapters_below

    def penalty(self, model: Any, call: int) -> torch.Tensor | None:
        parts = []
        for module in model.modules():
            reads = getattr(module, "lora_A", {})
            if self._adapter in reads:
                weight = reads[self._adapter].weight
                parts += [(reads[name].weight @ weight.T).square().sum() for name in self._below if name in reads]
        return self._weight * torch.stack(parts).sum() if parts else None
