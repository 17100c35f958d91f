"""What a stage does, in small and thrown away, so that it can be timed before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional as F

from moltlm.adapters import fused, training
from moltlm.adapters.config import LoraSettings
from moltlm.adapters.serve import Served


@contextmanager
def new_adapter(model: Served, lora: LoraSettings) -> Iterator[bool]:
    """Inside the `with`, a served base without adapters has a new one, active, trainable, and changing no answer.

    Yields:
        Whether it has: not where adapters are loaded.
    """
    plain = model.model
    if isinstance(plain, PeftModel):
        yield False
        return
    wrapped = get_peft_model(plain, training.lora_config(lora, plain))
    fused.fuse(wrapped)
    model.model = wrapped
    try:
        yield True
    finally:
        model.model = wrapped.unload()


def step(model: Served, rows: list[tuple[list[int], list[int]]]) -> None:
    """The forward and the backward pass of a training step on prompts and answers, by the answers' likelihood. No
    weight changes."""
    logits = torch.cat(model.completion_logits(rows))
    targets = torch.tensor([token for _, answer in rows for token in answer], device=logits.device)
    F.cross_entropy(logits.float(), targets, reduction="sum").backward()
    model.model.zero_grad()
