"""Whether the stages of a configuration fit into a machine, and which settings make them fit. Imports no torch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moltlm.pipeline.config import Config
from moltlm.pipeline.setup import estimate
from moltlm.pipeline.setup.estimate import GIB, Device, Memory

MARGIN = 1.05
"""Of what is estimated: that much has to be there."""
SHORTEST = 128
"""Tokens below which `model.max_length` is not lowered."""


@dataclass(frozen=True)
class Machine:
    """Where a job would run, and its memory in GiB: that of the GPU if there is one."""

    device: Device
    gib: float

    def __str__(self) -> str:
        return f"{'one GPU with' if self.device == 'cuda' else 'a CPU with'} {self.gib:.3g} GiB"


def this_machine(limits: Path = Path("/sys/fs/cgroup/memory.max")) -> Machine:
    """What `nvidia-smi` says of the first GPU; without one, the memory that this process may use."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        output = subprocess.run(query, capture_output=True, text=True).stdout
        numbers = [line for line in output.splitlines() if line.strip().isdigit()]
        if numbers:
            return Machine("cuda", int(numbers[0]) / 1024)
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    limit = limits.read_text().strip() if limits.is_file() else ""
    sizes += [int(limit)] if limit.isdigit() else []
    return Machine("cpu", min(sizes) / GIB if sizes else math.inf)


def too_large(config: Config, machine: Machine) -> dict[str, Memory]:
    """The stages that do not fit."""
    stages = estimate.stages(config, machine.device)
    return {name: memory for name, memory in stages.items() if memory.total * MARGIN > machine.gib}


def remedies(config: Config, machine: Machine, change: Callable[[list[str]], Config]) -> list[str] | None:
    """The settings, as KEY=VALUE, with which everything fits; None if no settings do. Those that change no result are
    tried first; none is in the answer that is not needed.

    Args:
        change: the configuration with some settings changed.
    """
    chosen: dict[str, str] = {}

    def with_settings(settings: dict[str, str]) -> Config:
        return change([f"{key}={value}" for key, value in settings.items()])

    for key, value in _candidates(config, machine.device):
        if not too_large(with_settings(chosen), machine):
            break
        less = {**chosen, key: value}
        if _excess(with_settings(less), machine) < _excess(with_settings(chosen), machine):
            chosen = less
    if too_large(with_settings(chosen), machine):
        return None
    for key in list(chosen):
        without = {other: value for other, value in chosen.items() if other != key}
        chosen = chosen if too_large(with_settings(without), machine) else without
    return [f"{key}={value}" for key, value in chosen.items()]


def _excess(config: Config, machine: Machine) -> float:
    """GiB that are missing, over all stages."""
    return sum(memory.total * MARGIN - machine.gib for memory in too_large(config, machine).values())


def _candidates(config: Config, device: Device) -> Iterator[tuple[str, str]]:
    """Settings that save memory, each further than the one before it."""
    size = config.model.eval_batch_size
    while size > 1:
        size //= 2
        yield "model.eval_batch_size", str(size)
    batches = [config.personality.batch_size, *(task.batch_size for task in config.tasks.values())]
    for share in range(config.train.gradient_accumulation + 1, math.gcd(*batches) + 1):
        if math.gcd(*batches) % share == 0:
            yield "train.gradient_accumulation", str(share)
    yield "train.gradient_checkpointing", "true"
    if device == "cuda":
        yield "train.optimizer", "paged_adamw_8bit"
    if config.personality.parameters == "lora":
        yield "model.precision", "nf4"
        yield "model.double_quant", "true"
    length = config.model.max_length
    while length >= 2 * SHORTEST:
        length //= 2
        yield "model.max_length", str(length)
    rank = config.lora.r
    while rank >= 16:
        rank //= 2
        yield "lora.r", str(rank)
