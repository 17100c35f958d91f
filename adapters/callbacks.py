"""What happens between the steps of a training: the protections' moments, and the log."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from moltlm.adapters import frozen, processes
from moltlm.adapters.protections.base import ActiveProtections
from moltlm.data.errors import MoltError
from moltlm.data.types import Progress


class Diverged(MoltError):
    """A training is worth nothing any more; every process that shares it sees that in the same step."""


class ProtectionMoments(TrainerCallback):
    """Calls the protections at the trainer's steps, and writes what they report to the trainer's log."""

    def __init__(self, trainer: Any, protections: ActiveProtections) -> None:
        self._trainer, self._protections = trainer, protections

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._protections.before_step(kwargs["model"], state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        report = self._protections.after_step(kwargs["model"], state.global_step)
        for name, value in report.metrics.items():
            self._trainer._metrics["train"][name].append(value)
        # what each process computes by itself may differ in the last digit
        control.should_training_stop |= processes.from_first(lambda: report.stop)
        processes.copy_from_first([value for _, value in frozen.trainable(kwargs["model"])])


class StopOnDivergence(TrainerCallback):
    """Ends a training whose loss or gradient is not finite any more, before it is worth nothing.

    Args:
        advice: what mends it.
        name_examples: names the examples of a step's batches.
    """

    def __init__(self, trainer: Any, advice: str, name_examples: Callable[[list[Any]], str]) -> None:
        self._trainer, self._advice, self._name_examples = trainer, advice, name_examples

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.step_batches = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Raises Diverged for a loss or gradient that is NaN or infinite."""
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                batch = self._name_examples(self._trainer.step_batches)
                raise Diverged(
                    f"The training diverged: {name} is {value} at step {state.global_step}, on {batch}. Nothing is "
                    "kept.",
                    self._advice,
                )


class MetricsLog(TrainerCallback):
    """Writes each logged step to a JSONL file, reports the progress, and calls `measure` at given steps."""

    def __init__(
        self,
        log: Path,
        progress: Progress,
        measure: Callable[[int, Any], None] | None = None,
        measure_at: tuple[int, ...] = (),
    ) -> None:
        self._log = log
        self._progress = progress
        self._measure = measure
        self._measure_at = measure_at
        log.parent.mkdir(parents=True, exist_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what an interrupted attempt logged after its last checkpoint: those steps are repeated."""
        rows = self._log.read_text().splitlines() if self._log.is_file() else []
        count = next((index for index, row in enumerate(rows) if _step(row) > state.global_step), len(rows))
        self._log.write_text("".join(f"{row}\n" for row in rows[:count]))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        values = {key: value for key, value in (logs or {}).items() if value == value}  # NaN: not measured
        if "loss" not in values:
            return
        with self._log.open("a") as out:
            out.write(json.dumps({"step": state.global_step, **values}) + "\n")
        drift = f", drift {values['drift']:.3f}" if "drift" in values else ""
        self._progress(state.global_step, state.max_steps, f"loss {values['loss']:.3f}{drift}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._measure and state.global_step in self._measure_at:
            model = kwargs["model"]
            model.eval()
            self._measure(state.global_step, model)
            model.train()


def _step(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return float("inf")
