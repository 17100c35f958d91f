"""An early end of the training when the model has drifted too far."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from moltlm.adapters.protections.anchor import ReferenceStates
from moltlm.adapters.protections.base import Context, Protection, StepReport
from moltlm.data.errors import BadInput

BATCH = 8


class StopOnDrift(Protection):
    """Measures the drift, KL(reference || model) over all neutral answers in nats a token, every few steps; logs it,
    and ends the training when it is above the limit."""

    switch = "stop_kl"
    needs = ("neutral",)
    example: ClassVar = {"stop_kl": 1e-5, "stop_every": 1}

    def start(self, context: Context) -> None:
        if context.stage == "token gates":
            raise BadInput(
                "protect.stop_kl cannot stop the training of token gates: they begin away from the personality and are "
                "trained towards it.",
                "Turn it off: protect.stop_kl=null, or let another router choose: router.method=learned",
            )
        self._context, self._limit = context, context.settings.stop_kl or 0.0
        self._reference = ReferenceStates(context, context.material.neutral)

    def after_step(self, model: Any, step: int) -> StepReport | None:
        if step % self._context.settings.stop_every:
            return None
        model.eval()
        drift = self.drift(model)
        model.train()
        # LoRA's A only moves in the second step
        return StepReport({"drift": drift}, stop=drift > self._limit and step > 1)

    @torch.no_grad()
    def drift(self, model: Any) -> float:
        """The mean over all answers, batch by batch."""
        n = len(self._reference)
        batch = min(BATCH, n)
        parts = [range(first, min(first + batch, n)) for first in range(0, n, batch)]
        with self._context.autocast():
            return float(sum(float(self._reference.kl(model, part, 1.0)) * len(part) for part in parts)) / n
