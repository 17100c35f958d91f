"""The loss of on-policy self-distillation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from moltlm.adapters.protections.base import cyclic
from moltlm.adapters.serve import TextModel
from moltlm.data.types import Message


class SelfDistillation:
    """KL(teacher || model), nats a token, on the model's own sampled answers to the prompts. The teacher is the same
    model with the spec as its system prompt (SDFT; Shenfeld et al. 2026, arXiv:2601.19897).

    Args:
        batch: prompts in each call.
        tokens: length of a sampled answer.
        start_is_teacher: the teacher is the model as the training began, which a new adapter that is turned off is;
            else it is the model as it is now.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: list[list[Message]],
        spec: str,
        batch: int,
        tokens: int,
        start_is_teacher: bool,
        seed: int,
    ) -> None:
        self._tokenizer, self._prompts, self._batch = tokenizer, [*prompts], min(batch, len(prompts))
        random.Random(seed).shuffle(self._prompts)
        self._spec: Message = {"role": "system", "content": spec}
        self._tokens, self._start_is_teacher, self._seed = tokens, start_is_teacher, seed

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        text = TextModel(model, self._tokenizer)
        prompts = [self._prompts[i] for i in cyclic(call, self._batch, len(self._prompts))]
        model.eval()
        answers = text.generate(prompts, self._tokens, self._batch, temperature=1.0, seed=self._seed + call)
        with_spec = text.encode([[self._spec, *prompt] for prompt in prompts], answers)
        with torch.no_grad(), _adapter_off(model) if self._start_is_teacher else nullcontext():
            teacher = [torch.log_softmax(logits.float(), -1) for logits in text.completion_logits(with_spec)]
        model.train()
        total, count = torch.zeros((), device=model.device), 0
        for old, logits in zip(teacher, text.completion_logits(text.encode(prompts, answers)), strict=True):
            total = total + (old.exp() * (old - torch.log_softmax(logits.float(), -1))).sum()
            count += len(old)
        return total / count


@contextmanager
def _adapter_off(model: Any, adapter: str = "default") -> Iterator[None]:
    """The trained adapter turned off by its scale: PEFT's own way changes what is trainable."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.set_scale(adapter, 0.0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(adapter, 1.0)
