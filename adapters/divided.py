"""Steps that are divided into micro-batches and over processes, which changes memory and time and not the result.

A row and a token weigh the same wherever in a step they are. Each process computes its part of every micro-batch, and
losses and gradients are added up; where there are more processes than micro-batches, these are cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moltlm.adapters import frozen, processes

_PART = "part"
_COUNT = "num_tokens"
_OVER_TOKENS = ("mean_token_accuracy", "entropy")


@dataclass(frozen=True)
class Part:
    """What a process computes of a micro-batch.

    Attributes:
        rows: how many, as a share of those that the step's micro-batches have on average.
        tokens: how many with a label, as such a share.
        leads: whether it computes what a micro-batch has once, such as the penalties of protections.
    """

    rows: float = 1.0
    tokens: float = 1.0
    leads: bool = True


WHOLE = Part()


def rows_of(process: int, count: int, batch: int, accumulation: int, size: int) -> range:
    """The rows of a step's `batch`-th micro-batch, of `size` rows, that a process computes. Those of all `count`
    processes together are all rows, each once; the first of a micro-batch's processes has one row at least."""
    groups = math.gcd(accumulation, count)
    width = count // groups  # processes that share a micro-batch
    if batch % groups != process // width:
        return range(0)
    place = process % width
    first, last = (-(-size * each // width) for each in (place, place + 1))
    return range(first, last)


class DividedTrainer:
    """A trainer whose processes, if there are several, share each step. To the libraries each looks like the only one:
    batches, their order, checkpoints and logs are those of one process.

    `part` says what of a micro-batch the loss is computed on.
    """

    part = WHOLE
    step_batches: list[Any]

    def labels_of(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """(rows, tokens) of a micro-batch: which tokens have a label. None where the loss cannot be divided; its
        micro-batches weigh alike."""
        return None

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if processes.count() == 1 and len(batches) < 2:
            return batches, items
        labels = [each for batch in batches if (each := self.labels_of(batch)) is not None]
        if labels:
            means = sum(map(len, labels)) / len(labels), sum(float(each.sum()) for each in labels) / len(labels)
            places = range(len(batches))
            batches = [self._own(*each, *means) for each in zip(batches, labels, places, strict=True)]
        return batches, items

    def _own(
        self, batch: Mapping[str, torch.Tensor], labels: torch.Tensor, place: int, mean_rows: float, mean_tokens: float
    ) -> dict[str, Any]:
        """This process's part of a micro-batch; empty where it has none."""
        accumulation = self._trainer.args.gradient_accumulation_steps
        rows = rows_of(processes.number(), processes.count(), place, accumulation, len(labels))
        if not rows:
            return {}
        own = torch.arange(rows.start, rows.stop)
        part = Part(len(rows) / mean_rows, float(labels[own].sum()) / max(1.0, mean_tokens), rows.start == 0)
        return {**{name: _rows(value, own, len(labels)) for name, value in batch.items()}, _PART: part}

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        trainer = self._trainer
        trainer.step_batches.append(inputs)
        if processes.count() == 1:
            # what GRPO has before it has sampled is a list of prompts
            self.part = inputs.pop(_PART, WHOLE) if isinstance(inputs, dict) else WHOLE
            loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        else:
            loss = self._share_of_step(model, inputs, *args, **kwargs)
        trainer._calls += 1
        return loss

    def _share_of_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = torch.zeros((), device=self._trainer.args.device)
        model.train()
        if inputs:
            self.part = inputs.pop(_PART)
            self._parts.append(self.part)
            loss = super().training_step(model, inputs, *args, **kwargs).float()  # type: ignore[misc]
        processes.add_up([loss])
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        if processes.count() > 1:
            weights: list[Any] = [value for _, value in frozen.trainable(self._trainer.model)]
            for value in weights:
                value.grad = torch.zeros_like(value) if value.grad is None else value.grad
            processes.add_up([value.grad for value in weights])
        return super()._clip_grad_norm(model)  # type: ignore[misc]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if processes.count() > 1:
            metrics = self._trainer._metrics["train"]
            tokens = getattr(self, "_total_train_tokens", 0)
            every = processes.gathered(({**metrics, _COUNT: [tokens]}, self._parts))
            metrics.clear()
            metrics.update({name: [value] for name, value in merged(every).items()})
            self._parts.clear()
        super().log(logs, start_time)  # type: ignore[misc]

    @property
    def _trainer(self) -> Any:
        return self

    @property
    def _parts(self) -> list[Part]:
        """Of each micro-batch since the last log."""
        return self.__dict__.setdefault("parts_since_log", [])


def _rows(value: torch.Tensor, own: torch.Tensor, count: int) -> torch.Tensor:
    """These of `count` rows; of both sides where one tensor has the chosen and then the rejected ones."""
    return value[own] if len(value) == count else value[torch.cat([own, own + count])]


def merged(every: Sequence[tuple[Mapping[str, list[float]], list[Part]]]) -> dict[str, float]:
    """The metrics of all processes: means over their micro-batches weighted by rows, or by tokens where they are means
    over tokens, and the count of tokens added up.

    Args:
        every: for each process its values by name, one for each micro-batch, and its part of each.
    """
    totals: dict[str, float] = {}
    weights: dict[str, float] = {}
    for metrics, parts in every:
        for name, values in metrics.items():
            shares = [part.tokens if name in _OVER_TOKENS else part.rows for part in parts]
            if name == _COUNT or len(values) != len(shares):
                shares = [1.0] * len(values)
            totals[name] = totals.get(name, 0.0) + sum(v * share for v, share in zip(values, shares, strict=True))
            weights[name] = weights.get(name, 0.0) + sum(shares)
    return {name: total if name == _COUNT else total / weights[name] for name, total in totals.items()}
