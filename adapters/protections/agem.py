"""Gradients that do not raise the loss on what is to be retained."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from moltlm.adapters import frozen
from moltlm.adapters.protections.base import Context, Protection, cyclic
from moltlm.adapters.serve import TextModel


class AGem(Protection):
    """Averaged gradient episodic memory (Chaudhry et al. 2019, arXiv:1812.00420): where a step's gradient conflicts
    with that of a batch of replayed answers, the conflicting part is removed. The optimizer then uses the gradient as
    any other: its momentum may still carry conflicting parts of earlier steps."""

    switch = "agem"
    needs = ("replay",)
    example: ClassVar = {"agem": True}

    def start(self, context: Context) -> None:
        replay = context.material.replay
        self._context, self._tokenizer = context, context.text.tokenizer
        self._rows = context.text.encode([item.prompt for item in replay], [item.answer for item in replay])
        self._batch = min(context.anchor_batch, len(self._rows))

    def before_step(self, model: Any, step: int) -> None:
        weights = [value for _, value in frozen.trainable(model) if value.grad is not None]
        gradients = [value.grad for value in weights]
        projected = project(gradients, self._reference(model, weights, step))  # type: ignore[arg-type]
        for value, gradient in zip(weights, projected, strict=True):
            value.grad = gradient

    def _reference(self, model: Any, weights: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        """The gradient of the mean loss of a replayed answer's token. Replaces `grad` of the weights."""
        for value in weights:
            value.grad = None
        rows = [self._rows[i] for i in cyclic(step - 1, self._batch, len(self._rows))]
        with self._context.autocast():
            answers = TextModel(model, self._tokenizer).completion_logits(rows)
            targets = torch.cat([torch.tensor(answer, device=model.device) for _, answer in rows])
            loss = torch.nn.functional.cross_entropy(torch.cat(answers).float(), targets)
        loss.backward()  # and not torch.autograd.grad, which gradient checkpointing may not allow
        return [torch.zeros_like(value) if value.grad is None else value.grad for value in weights]


def project(gradients: list[torch.Tensor], reference: list[torch.Tensor]) -> list[torch.Tensor]:
    """g - (g . r / r . r) r where g . r is negative, else g (eq. 11). Both are cut into tensors of the same shapes."""
    dot = sum((g * r).sum() for g, r in zip(gradients, reference, strict=True))
    if dot >= 0:
        return gradients
    share = dot / sum(r.square().sum() for r in reference)
    return [g - share * r for g, r in zip(gradients, reference, strict=True)]
