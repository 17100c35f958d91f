"""The running average of the weights in place of the last ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from moltlm.adapters import frozen
from moltlm.adapters.protections.base import Context, Protection


class RunningAverage(Protection):
    """The weights along the path, averaged with an exponential decay, replace the last ones at the end (Polyak and
    Juditsky 1992; against forgetting Lin et al. 2024, arXiv:2309.06256)."""

    switch = "average_decay"
    example: ClassVar = {"average_decay": 0.5}

    def start(self, context: Context) -> None:
        self._decay: float = context.settings.average_decay or 0.0
        self._average = {name: value.detach().clone() for name, value in frozen.trainable(context.text.model)}

    def after_step(self, model: Any, step: int) -> None:
        for name, value in frozen.trainable(model):
            self._average[name].lerp_(value.detach(), 1 - self._decay)

    @torch.no_grad()
    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        for name, value in frozen.trainable(model):
            value.copy_(self._average[name])
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        return self._average

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        self._average = {name: value.to(self._average[name].device) for name, value in tensors.items()}
