"""Distillation from what the replay buffer stores of the personality's distribution."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch

from moltlm.adapters.config import ProtectConfig
from moltlm.adapters.protections.base import Context, Protection, Stage, cyclic
from moltlm.adapters.serve import TextModel
from moltlm.data.errors import BadInput


class StoredDistillation(Protection):
    """weight * KL(stored || model), nats a token, over the stored tokens and any other: dark experience replay (Buzzega
    et al. 2020, arXiv:2004.07211) on what the buffer keeps, without the model that produced it."""

    switch = "distill_weight"
    needs = ("stored",)
    example: ClassVar = {"distill_weight": 3.0, "distill": "stored"}

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        return super().from_settings(settings) if settings.distill == "stored" else None

    def label(self, stage: Stage) -> str:
        return "protect.distill_weight with protect.distill=stored"

    def start(self, context: Context) -> None:
        text, stored = context.text, context.material.stored
        exchanges = context.material.distilled or context.material.replay[: len(stored)]
        self._tokenizer, self._weight = text.tokenizer, context.settings.distill_weight
        self._rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        for (_, answer), row in zip(self._rows, stored, strict=True):
            if len(answer) != len(row.ids):
                raise BadInput(
                    "The buffer's distributions are of another tokenizer.", "Build it again: molt replay build CONFIG"
                )
        self._ids = [torch.from_numpy(row.ids.astype("int64")) for row in stored]
        outcomes = [torch.cat([_tensor(row.logprobs), _tensor(row.log_tail)[:, None]], 1) for row in stored]
        self._stored = [torch.log_softmax(row, -1) for row in outcomes]
        self._batch = min(context.anchor_batch, len(self._rows))

    def penalty(self, model: Any, call: int) -> torch.Tensor:
        indices = cyclic(call, self._batch, len(self._rows))
        answers = TextModel(model, self._tokenizer).completion_logits([self._rows[i] for i in indices])
        total, tokens = torch.zeros((), device=model.device), 0
        for i, logits in zip(indices, answers, strict=True):
            new = torch.log_softmax(logits.float(), -1)
            ids, old = self._ids[i].to(new.device), self._stored[i].to(new.device)
            listed = new.gather(1, ids)
            rest = new.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True)
            total = total + (old.exp() * (old - torch.cat([listed, rest], 1))).sum()
            tokens += len(ids)
        return self._weight * total / tokens


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(values.astype("float32"))
