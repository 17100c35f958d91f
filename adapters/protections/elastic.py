"""Protections that pull the trained weights back to where they started: EWC and L2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from moltlm.adapters import frozen
from moltlm.adapters.protections.base import Context, Protection
from moltlm.adapters.serve import TextModel
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange, Progress, silent

FISHER = "fisher.safetensors"


class L2ToStart(Protection):
    """weight / 2 * sum of (theta - theta_start)^2 over what is trained (L2-SP, Li et al. 2018, arXiv:1802.01483)."""

    switch = "l2_weight"
    example: ClassVar = {"l2_weight": 100.0}

    def start(self, context: Context) -> None:
        self._pull = Pull(context.text.model, context.settings.l2_weight)

    def penalty(self, model: Any, call: int) -> torch.Tensor:
        return self._pull.penalty(model)


class Ewc(Protection):
    """weight / 2 * sum of F (theta - theta_start)^2, F being the Fisher diagonal on replayed answers (Kirkpatrick et
    al. 2017, arXiv:1612.00796, eq. 3). An adapter that is trained further adds to F the decayed F of earlier tasks
    (online EWC, Schwarz et al. 2018, arXiv:1805.06370), which lies beside its weights."""

    switch = "ewc_weight"
    needs = ("replay",)
    example: ClassVar = {"ewc_weight": 1e6}

    def start(self, context: Context) -> None:
        text, settings = context.text, context.settings
        self._fisher = fisher(text, context.material.replay, context.seed, context.progress)
        # A personality is compared with the base alone: there is no earlier task, and no later one to write for.
        self._adapter = None if context.stage == "personality" else context.adapter
        if self._adapter and context.start is not None and (context.start / FISHER).is_file():
            earlier = load_file(context.start / FISHER)
            for key, value in self._fisher.items():
                value += settings.ewc_decay * earlier[_without_adapter(key, self._adapter)].to(value.device)
        self._pull = Pull(text.model, settings.ewc_weight, self._fisher)

    def penalty(self, model: Any, call: int) -> torch.Tensor:
        return self._pull.penalty(model)

    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        if self._adapter:
            tensors = {_without_adapter(key, self._adapter): value.cpu() for key, value in self._fisher.items()}
            save_file(tensors, folder / FISHER)
        return {}


class Pull:
    """weight / 2 * sum of importance * (theta - theta_start)^2 over what is trainable when this is built."""

    def __init__(self, model: Any, weight: float, importance: dict[str, torch.Tensor] | None = None) -> None:
        self._weight = weight
        self._start = {name: value.detach().float().clone() for name, value in frozen.trainable(model)}
        self._importance = {}
        if importance is not None:
            if missing := self._start.keys() - importance.keys():
                raise BadInput(
                    f"The Fisher information lacks {min(missing)}.", "Compute it for the adapter that is trained."
                )
            self._importance = {name: importance[name].to(value.device) for name, value in self._start.items()}

    def penalty(self, model: Any) -> torch.Tensor:
        parts = []
        for name, value in frozen.trainable(model):
            squared = (value - self._start[name]).square()
            parts.append((squared * self._importance[name] if self._importance else squared).sum())
        return self._weight / 2 * torch.stack(parts).sum()


def fisher(
    text: TextModel, exchanges: list[Exchange], seed: int, progress: Progress = silent
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information of what is trained, by parameter name: the mean over the prompts of the
    squared gradient of log p(answer), whose tokens are sampled from the model itself and not the given ones (Kunstner
    et al. 2019, arXiv:1905.12558, on why). Changes nothing."""
    trained = dict(frozen.trainable(text.model))
    diagonal = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in trained.items()}
    rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
    generator = torch.Generator().manual_seed(seed)
    for count, row in enumerate(rows, 1):
        logprobs = torch.log_softmax(text.completion_logits([row])[0].float(), -1)
        sampled = torch.multinomial(logprobs.detach().exp().cpu(), 1, generator=generator).to(logprobs.device)
        gradients = torch.autograd.grad(logprobs.gather(1, sampled).sum(), list(trained.values()), allow_unused=True)
        for name, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                diagonal[name] += gradient.float().square() / len(rows)
        progress(count, len(rows), "Fisher")
    return diagonal


def _without_adapter(key: str, adapter: str) -> str:
    """A parameter's name without that of its adapter, which a later stage may call something else."""
    return key.replace(f".{adapter}.", ".")
