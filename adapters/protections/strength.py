"""The weakest strength of the trained adapter that will do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from peft.tuners.lora import LoraLayer

from moltlm.adapters.protections.base import WEIGHT_STAGES, Context, Protection
from moltlm.adapters.protections.layers import adapter_layers
from moltlm.adapters.serve import TextModel

SUFFICIENT = 0.95
"""Share of the best strength's right answers that a weaker one has to reach."""


class Strength(Protection):
    """Tries the trained adapter at several strengths on held-out training examples, and keeps the weakest that gets
    nearly as many right as the best. Token gates choose among adapters whose strengths were chosen already."""

    switch = "scales"
    needs = ("trial",)
    stages = WEIGHT_STAGES
    example: ClassVar = {"scales": [0.5]}

    def start(self, context: Context) -> None:
        self._context = context

    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        context, trial = self._context, self._context.material.trial
        assert trial is not None  # it is among the needs
        model.eval()
        text, correct = TextModel(model, context.text.tokenizer), {}
        for scale in sorted({*context.settings.scales, 1.0}):
            set_scale(model, context.adapter, scale)
            correct[scale] = trial(text, context.progress)
        set_scale(model, context.adapter, 1.0)
        best = max(correct.values())
        strength = next(scale for scale, count in correct.items() if count >= SUFFICIENT * best) if best else 1.0
        if strength == 1:
            return {}
        weaken(model, context.adapter, strength)
        return {"strength": strength}


def set_scale(model: Any, adapter: str, factor: float) -> None:
    """Serve the adapter at this strength: 0 is off, 1 as it was trained. Two calls do not add up."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale(adapter, factor)


@torch.no_grad()
def weaken(model: Any, adapter: str, factor: float) -> None:
    """Change the weights to those of the adapter served at this strength."""
    for layer in adapter_layers(model, adapter):
        layer.lora_B[adapter].weight.mul_(factor)
