"""The processes of one command, where `accelerate launch` or `torchrun` has started several.

The first process runs the command. The others are helpers: they wait for its trainings, compute their parts of each
batch, and write nothing.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from moltlm.data.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("moltlm")

WAIT = timedelta(days=365)
"""A helper waits while the first process does what only one can do."""
STEP_WAIT = timedelta(hours=2)
"""How long a process waits for the others within a training."""
GOODBYE = timedelta(seconds=10)
_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES = ("LOCAL_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
Job = TypeVar("Job")
Result = TypeVar("Result")
Value = TypeVar("Value")


class PartDone(Exception):
    """A helper has done its part of a training: what follows is the first process's."""


class Launch:
    """This process among all of the command.

    Attributes:
        number: of this process, from 0.
        training: whether all processes are in one training now.
    """

    def __init__(self, number: int, count: int, store: Any, keeps_store: bool = False) -> None:
        self.number, self.count, self.training = number, count, False
        self._store, self._keeps_store, self._messages = store, keeps_store, 0

    def send(self, message: Any) -> None:
        """Give all helpers a message, from the first process."""
        self._messages += 1
        self._store.set(f"message-{self._messages}", pickle.dumps(message))

    def receive(self) -> Any:
        """The next message, in a helper."""
        self._messages += 1
        key = f"message-{self._messages}"
        self._store.wait([key], WAIT)
        return pickle.loads(self._store.get(key))

    def meet(self) -> None:
        """Connect the processes, once. Raises BadInput if some compute on a GPU and some do not."""
        import torch
        from torch import distributed

        if distributed.is_initialized():
            return
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        self._store.set(f"kind-{self.number}", kind)
        names = [f"kind-{number}" for number in range(self.count)]
        self._store.wait(names, STEP_WAIT)
        without = [number for number, name in enumerate(names) if self._store.get(name) == b"cpu"]
        if without and len(without) < self.count:
            raise BadInput(
                f"{len(without)} of {self.count} processes have no GPU, the first of them process {without[0] + 1}.",
                f"Start one process for each GPU: --num_processes {self.count - len(without)}",
            )
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
            store=distributed.PrefixStore("group", self._store),
            rank=self.number,
            world_size=self.count,
            timeout=STEP_WAIT,
        )

    def reports(self) -> bool:
        """Whether this process is the one that reports an error: the first to have one. What the others run into then
        follows from it."""
        try:
            return self._store.compare_set("failed", "", str(self.number)) == str(self.number).encode()
        except RuntimeError:  # the process that keeps the store has gone
            return self.number == 0

    def leave(self, failed: bool = False) -> None:
        """End with the others: the first process lets the helpers go, and goes last if it keeps the store."""
        import torch
        from torch import distributed

        with suppress(RuntimeError):
            if self.number == 0:
                self.send(None)
            if distributed.is_initialized() and not (failed and torch.cuda.is_available()):
                distributed.destroy_process_group()  # over gloo, that also ends what the others wait for
            self._store.set(f"gone-{self.number}", "")
            if self._keeps_store:
                self._store.wait([f"gone-{number}" for number in range(self.count)], GOODBYE)


_launch: Launch | None = None


@contextmanager
def joined() -> Iterator[Launch | None]:
    """This process among those of the command; None where it is alone. An error that follows from another process's
    ends this one without a word."""
    global _launch
    sharding = _sharding()
    _launch = launch = _from_environment()
    if launch is None:
        yield None
        return
    try:
        if sharding:
            raise BadInput(
                f"The launcher asks for {sharding}, and moltlm divides batches alone: each GPU holds the whole base.",
                "Start it without: accelerate launch --multi_gpu --num_processes COUNT -m moltlm.pipeline.cli ...",
            )
        yield launch
    except SystemExit:
        launch.leave()
        raise
    except BaseException:  # also an interrupt
        reports = launch.reports()
        launch.leave(failed=True)
        if reports:
            raise
        raise SystemExit(1) from None
    else:
        launch.leave()
    finally:
        _launch = None


def _sharding() -> str:
    """What the launcher wants the model to be divided by; empty if nothing."""
    ways = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
    return " and ".join(name for key, name in ways.items() if os.environ.get(key, "").lower() == "true")


def _from_environment() -> Launch | None:
    """As the launcher has described it. The description is then removed: what runs in the first process alone must not
    wait for others in the libraries that read it. Each process sees its own GPU alone."""
    environment = os.environ
    count = int(environment.get("WORLD_SIZE") or 1)
    if count == 1 or any(name not in environment for name in _NAMES):
        return None
    from torch import distributed

    store, number, _ = next(distributed.rendezvous("env://"))
    place = int(environment.get("LOCAL_RANK", number))
    visible = [device for device in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible[place : place + 1]) if visible else str(place)
    keeps_store = number == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    for name in [name for name in environment if name in _NAMES or name.startswith(_PREFIXES)]:
        del environment[name]
    return Launch(number, count, distributed.PrefixStore("moltlm", store), keeps_store)


def together(train: Callable[[Job], Result]) -> Callable[[Job], Result]:
    """Let all processes of the command take part in a training, if the job can be divided."""

    @functools.wraps(train)
    def divided(job: Any) -> Result:
        launch = _launch
        if launch is None:
            return train(job)
        if not job.divisible:
            logger.warning(
                "DPO and SFT are shared by processes. This training is neither: one trains, the others wait."
            )
            return train(job)
        if launch.number == 0:
            launch.send((divided, job.for_helpers()))
        launch.meet()
        launch.training = True
        try:
            return train(job)
        finally:
            launch.training = False

    return divided


def launched() -> int:
    """How many processes the command has."""
    return 1 if _launch is None else _launch.count


def count() -> int:
    """How many processes share the training under way."""
    return _launch.count if _launch is not None and _launch.training else 1


def number() -> int:
    """The number of this process among those that share the training, from 0."""
    return _launch.number if _launch is not None and _launch.training else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all that share the training."""
    if count() == 1:
        return make()
    from torch import distributed

    box = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def gathered(value: Value) -> list[Value]:
    """What each process that shares the training has, in order."""
    if count() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one type by their sums over the processes that share the training."""
    if count() > 1 and tensors:
        _in_one(tensors, lambda flat, distributed: distributed.all_reduce(flat))


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one type by those of the first process."""
    if count() > 1 and tensors:
        _in_one(tensors, lambda flat, distributed: distributed.broadcast(flat, src=0))


def _in_one(tensors: Sequence[Tensor], operate: Callable[[Tensor, Any], Any]) -> None:
    import torch
    from torch import distributed

    with torch.no_grad():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        operate(flat, distributed)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def check_divides(size: int, setting: str) -> None:
    """Raises BadInput, naming what works, if a batch cannot be divided over the processes of the command."""
    count = launched()
    if size % count == 0:
        return
    *others, last = [str(each) for each in range(1, size + 1) if size % each == 0 and each > 1] or ["1"]
    counts = f"{', '.join(others)} or {last}" if others else last
    next_size = -(-size // count) * count
    raise BadInput(
        f"{setting}={size} cannot be divided over {count} processes.",
        f"Start {counts} processes: --num_processes {(others or [last])[0]}; or set {setting}={next_size}",
    )
