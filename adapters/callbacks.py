"""What happens between the steps of a training: the average of the path, a stop on drift, a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from moltlm.adapters import frozen
from moltlm.data.types import Progress


class Average(TrainerCallback):
    """The weights along the path, averaged with an exponential decay, in place of the last ones at the end (Polyak and
    Juditsky 1992; as a cure for forgetting Lin et al. 2024, arXiv:2309.06256). A class for the average it carries."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.values: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.values:
            self.values = {name: value.detach().clone() for name, value in frozen.trainable(kwargs["model"])}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, value in frozen.trainable(kwargs["model"]):
            self.values[name].lerp_(value.detach(), 1 - self._decay)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for name, value in frozen.trainable(kwargs["model"]):
                value.copy_(self.values[name])


class KeepTo(TrainerCallback):
    """Puts the weights back to where they may be, after every step."""

    def __init__(self, project: Callable[[], None]) -> None:
        self._project = project

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._project()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._project()


class StopOnDrift(TrainerCallback):
    """Measures the drift every few steps, logs it, and ends the training when it is above the limit. A class for the
    trainer's log that it writes to."""

    def __init__(self, trainer: Any, drift: Callable[[Any], float], limit: float, every: int) -> None:
        self._trainer, self._drift, self._limit, self._every = trainer, drift, limit, every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every:
            return
        model = kwargs["model"]
        model.eval()
        drift = self._drift(model)
        model.train()
        self._trainer._metrics["train"]["drift"].append(drift)
        # LoRA's A only moves in the second step
        control.should_training_stop |= drift > self._limit and state.global_step > 1


class Watch(TrainerCallback):
    """Writes each logged step to a JSONL file, tells the progress, and calls `measure` at given steps."""

    def __init__(
        self,
        log: Path,
        progress: Progress,
        measure: Callable[[int, Any], None] | None = None,
        at: tuple[int, ...] = (),
    ) -> None:
        self._log = log
        self._progress = progress
        self._measure = measure
        self._at = at
        log.parent.mkdir(parents=True, exist_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What an interrupted try logged after its last checkpoint is done again."""
        rows = self._log.read_text().splitlines() if self._log.is_file() else []
        kept = rows[: next((place for place, row in enumerate(rows) if _step(row) > state.global_step), len(rows))]
        self._log.write_text("".join(f"{row}\n" for row in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        known = {key: value for key, value in (logs or {}).items() if value == value}  # NaN: not measured
        if "loss" not in known:
            return
        with self._log.open("a") as out:
            out.write(json.dumps({"step": state.global_step, **known}) + "\n")
        drift = f", drift {known['drift']:.3f}" if "drift" in known else ""
        self._progress(state.global_step, state.max_steps, f"loss {known['loss']:.3f}{drift}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._measure and state.global_step in self._at:
            model = kwargs["model"]
            model.eval()
            self._measure(state.global_step, model)
            model.train()


def _step(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except ValueError:  # cut off by a kill
        return float("inf")
