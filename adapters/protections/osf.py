"""Learning away from what the frozen weights do most."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch

from moltlm.adapters.config import ProtectConfig
from moltlm.adapters.protections.base import WEIGHT_STAGES, Context, Protection
from moltlm.adapters.protections.layers import adapter_layers, weight_below

EXACT = 1024
"""Up to this size the singular vectors are computed exactly."""


class Osf(Protection):
    """The adapter neither reads nor writes along the strongest directions of each weight below it, base and other
    adapters together: OSF's constraint (Nayak et al. 2025, arXiv:2504.07097), whose trained part here is a LoRA and not
    all the rest of the weight. So the result is a plain LoRA on any base, a 4-bit one included.

    Token gates scale an adapter's rank-one parts, so they cannot bring it out of the subspace where it was trained.
    """

    switch = "subspace"
    stages = WEIGHT_STAGES
    example: ClassVar = {"subspace": "osf", "subspace_directions": 16}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return cls() if settings.subspace == "osf" else None

    def start(self, context: Context) -> None:
        model, self._adapter = context.text.model, context.adapter
        self._directions: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            for layer in adapter_layers(model, self._adapter):
                weight = weight_below(layer, self._adapter)
                # at least half of the directions are left to learn in
                count = min(context.settings.subspace_directions, min(weight.shape) // 2)
                self._directions.append((layer, *_strongest(weight, count)))
        self._project()

    def after_step(self, model: Any, step: int) -> None:
        self._project()

    @torch.no_grad()
    def _project(self) -> None:
        for layer, u, v in self._directions:
            reads, writes = layer.lora_A[self._adapter].weight, layer.lora_B[self._adapter].weight
            reads -= (reads @ v) @ v.T
            writes -= u @ (u.T @ writes)


def _strongest(weight: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, count) and (in, count): the first singular vectors, approximate for large weights."""
    if min(weight.shape) <= EXACT:
        u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        return u[:, :count].clone(), vh[:count].T.clone()
    u, _, v = torch.svd_lowrank(weight, q=count + 8, niter=4)
    return u[:, :count].clone(), v[:, :count].clone()
