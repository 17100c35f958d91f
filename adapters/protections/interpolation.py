"""Weights between those before the training and those after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from moltlm.adapters import frozen
from moltlm.adapters.protections.base import Context, Protection


class Interpolation(Protection):
    """(1 - share) * before + share * after (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, eq. 1)."""

    switch = "interpolation"
    example: ClassVar = {"interpolation": 0.3}

    def start(self, context: Context) -> None:
        self._share = context.settings.interpolation
        self._before = {name: value.detach().clone() for name, value in frozen.trainable(context.text.model)}

    @torch.no_grad()
    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        for name, value in frozen.trainable(model):
            value.copy_(torch.lerp(self._before[name].to(value), value, self._share))
        return {}
