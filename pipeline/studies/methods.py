"""The comparison of methods against forgetting in numbers: a row for each method and seed, their means, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from pydantic import ValidationError

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json
from moltlm.evals.continual import Transfer
from moltlm.pipeline.typed_json import first_problem, from_plain

PERSONA_KEPT, CAPABILITY_COST, ACCURACY_SHARE = 0.95, 1.0, 0.95
"""What a method has to do to pass: keep this share of the personality's gain, cost at most so many points of
capability, and reach this share of the reference's final accuracy."""
LEAST_GAIN = 0.05
"""Of persona score, 0..1."""


@dataclass(frozen=True)
class CapabilityChange:
    """Points of accuracy over all benchmark items pooled, paired by item: after the sequence minus the personality
    alone, with its 95% interval."""

    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class MeasuredTransfer(Transfer):
    """Transfer by one measure of a task: nats a token for the likelihood of the right answers, 0..1 for token F1.

    Attributes:
        matrix: (tasks, tasks): row k is measured after training task k; None where it was not measured.
        before: (tasks,): before any task was trained.
        oracle: final value where an oracle names the task of each request; None where no router is involved.
    """

    matrix: list[list[float | None]]
    before: list[float]
    oracle: float | None


@dataclass(frozen=True)
class SequenceMeasures:
    """One method with one seed, after the whole sequence of tasks. Accuracies are 0..1.

    Attributes:
        layout: `protect.layout` of the method.
        tasks: the tasks in the order of training, which is that of `accuracy`, `before` and `steps`.
        accuracy: (tasks, tasks): row k is measured after training task k; None where it was not measured.
        before: (tasks,): accuracy before any task was trained.
        final: mean accuracy after the last task.
        learned: mean accuracy of each task right after its own training.
        backward: backward transfer; None for one task, as the next two.
        forward: forward transfer to tasks that are not trained yet (zero-shot).
        forgetting: mean loss from each task's best measured accuracy; between its training and the end it is measured
            only with `sequence.history`.
        oracle: final accuracy where an oracle names the task of each request; None where no router is involved.
        persona: mean persona score, 0..1.
        persona_kept: share of the personality's gain in persona score over the base that is kept; None where it gained
            less than `LEAST_GAIN`, of which a share says nothing.
        coherent: share of coherent answers.
        capability: change of capability since the personality.
        kl: KL to the base on neutral answers, nats a token.
        seconds: training time of the tasks, gates and routers not counted.
        steps: optimizer steps of each task.
        peak_gib: the largest memory of any training.
        likelihood: transfer by the mean log-likelihood of the right answers, nats a token; None where it was not
            measured, as the next.
        f1: transfer by the token F1 of the answers.
    """

    layout: str
    tasks: list[str]
    accuracy: list[list[float | None]]
    before: list[float]
    final: float
    learned: float
    backward: float | None
    forward: float | None
    forgetting: float | None
    oracle: float | None
    persona: float
    persona_kept: float | None
    coherent: float
    capability: CapabilityChange
    kl: float
    seconds: float
    steps: list[int]
    peak_gib: float
    likelihood: MeasuredTransfer | None = None
    f1: MeasuredTransfer | None = None


@dataclass(frozen=True)
class _Trial:
    method: str
    seed: int


@dataclass(frozen=True)
class MethodRow(SequenceMeasures, _Trial):
    """A row of methods.json: the measures of one method (its name in the config) with one seed."""


@dataclass(frozen=True)
class TransferMeans(Transfer):
    """The means of transfer by one measure over seeds; `oracle` as in `MeasuredTransfer`."""

    oracle: float | None


@dataclass(frozen=True)
class MethodMeans:
    """The means of one method over its seeds; None where nothing is known.

    `share` is the part of the reference's final accuracy that is reached with the same seeds, and `share_of_learned`
    that of what the reference could do before it forgot any of it; None without a reference to compare with.
    `peak_gib` is the largest of all seeds.
    """

    method: str
    layout: str
    seeds: int
    final: float
    learned: float
    backward: float | None
    forward: float | None
    forgetting: float | None
    oracle: float | None
    persona_kept: float | None
    coherent: float
    capability: float
    kl: float
    seconds: float
    peak_gib: float
    share: float | None
    share_of_learned: float | None
    likelihood: TransferMeans | None
    f1: TransferMeans | None


@dataclass(frozen=True)
class MethodsVerdict:
    """The methods that meet all three demands; none can where the reference was not run or learned nothing."""

    reference: Literal["compared", "not run", "learned nothing"]
    passing: list[MethodMeans]


class _OfTasks(Protocol):
    @property
    def tasks(self) -> list[str]: ...


T = TypeVar("T", bound=_OfTasks)


def read_table(file: Path, name: str, kind: type[list[T]], tasks: Sequence[str]) -> list[T]:
    """Read rows that a comparison wrote.

    Args:
        name: what the comparison calls such a file.

    Raises:
        BadInput: if it is none, or one of other tasks than these.
    """
    try:
        rows = from_plain(read_json(file), kind)
    except ValidationError as error:
        raise BadInput(
            f"{file} is no {name}: {first_problem(error)}.", "Name the file that molt compare-methods wrote."
        ) from None
    if any(sorted(row.tasks) != sorted(tasks) for row in rows):
        raise BadInput(f"{file} is of other tasks than {', '.join(tasks)}.", "Name one of the same tasks.")
    return rows


def read_rows(file: Path, tasks: Sequence[str], orders: Mapping[int, Sequence[str]] | None = None) -> list[MethodRow]:
    """Read a methods.json.

    Args:
        orders: the order of the tasks that each seed has to have.

    Raises:
        BadInput: if it is none, one of other tasks than these, or of another order.
    """
    rows = read_table(file, "methods.json", list[MethodRow], tasks)
    for row in rows:
        order = (orders or {}).get(row.seed, row.tasks)
        if row.tasks != list(order):
            raise BadInput(
                f"In {file}, {row.method} with seed {row.seed} learned {', '.join(row.tasks)}, not {', '.join(order)}.",
                "Name a file of the same orders, or set sequence.orders to its own.",
            )
    return rows


def means(rows: Sequence[MethodRow], reference: str | None = None) -> list[MethodMeans]:
    """The means of each method, in the order in which the methods first occur."""
    plain = {row.seed: row for row in rows if row.method == reference}
    names = dict.fromkeys(row.method for row in rows)
    return [_means_of([row for row in rows if row.method == name], plain) for name in names]


def _means_of(rows: Sequence[MethodRow], plain: dict[int, MethodRow]) -> MethodMeans:
    pairs = [(row, plain[row.seed]) for row in rows if row.seed in plain]
    reached = sum(row.final for row, _ in pairs)
    return MethodMeans(
        method=rows[0].method,
        layout=rows[0].layout,
        seeds=len(rows),
        **vars(_transfer_means(rows)),
        persona_kept=_mean_of_known([row.persona_kept for row in rows]),
        coherent=_mean([row.coherent for row in rows]),
        capability=_mean([row.capability.difference for row in rows]),
        kl=_mean([row.kl for row in rows]),
        seconds=_mean([row.seconds for row in rows]),
        peak_gib=max(row.peak_gib for row in rows),
        share=_share(reached, sum(other.final for _, other in pairs)),
        share_of_learned=_share(reached, sum(other.learned for _, other in pairs)),
        likelihood=transfer_means([row.likelihood for row in rows]),
        f1=transfer_means([row.f1 for row in rows]),
    )


def transfer_means(seeds: Sequence[MeasuredTransfer | None]) -> TransferMeans | None:
    """The means over the seeds that have this measure; None where none has."""
    measured = [each for each in seeds if each is not None]
    return _transfer_means(measured) if measured else None


def _transfer_means(seeds: Sequence[MeasuredTransfer | MethodRow]) -> TransferMeans:
    """The same of a row's own accuracies, which has transfer by exact match in fields of the same names."""
    return TransferMeans(
        final=_mean([each.final for each in seeds]),
        learned=_mean([each.learned for each in seeds]),
        backward=_mean_of_known([each.backward for each in seeds]),
        forward=_mean_of_known([each.forward for each in seeds]),
        forgetting=_mean_of_known([each.forgetting for each in seeds]),
        oracle=_mean_of_known([each.oracle for each in seeds]),
    )


def best(rows: Sequence[MethodMeans], n: int, reference: str) -> list[str]:
    """The names of the `n` methods besides the reference with the best balance of learning and keeping: by the smaller
    of the share of the personality that is kept and the share of the reference's accuracy that is reached."""
    others = [row for row in rows if row.method != reference]
    others.sort(key=lambda row: -min(_or_last(row.persona_kept), _or_last(row.share)))
    return [row.method for row in others[:n]]


def verdict(rows: Sequence[MethodMeans], reference: str) -> MethodsVerdict:
    """Which methods keep the personality, cost no capability and learn as much as the reference does."""
    plain = next((row for row in rows if row.method == reference), None)
    if plain is None:
        return MethodsVerdict("not run", [])
    if not plain.final:
        return MethodsVerdict("learned nothing", [])
    return MethodsVerdict("compared", [row for row in rows if row.method != reference and _passes(row)])


def _passes(row: MethodMeans) -> bool:
    return (
        _or_last(row.persona_kept) >= PERSONA_KEPT
        and row.capability >= -CAPABILITY_COST
        and _or_last(row.share) >= ACCURACY_SHARE
    )


def _or_last(share: float | None) -> float:
    """A share of nothing is unknown, and comes last."""
    return -np.inf if share is None else share


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known_values = [value for value in values if value is not None and math.isfinite(value)]
    return _mean(known_values) if known_values else None
