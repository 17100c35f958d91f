"""What makes a CPU fast: threads for the processors that the process may use, and bf16 through fp32.

Torch emulates each product of bf16 on CPUs that have no instructions for it: 4 times slower than fp32 with AVX512, 40
times and more with AVX2 (pytorch issue 146508)."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from torch.nn.functional import linear

PRODUCTS = (torch.mm, torch.addmm, torch.bmm, torch.baddbmm)
WORTH = 2.0
ROOM_GIB = 2.0


@cache
def limit_threads() -> None:
    """Use no more threads than the process has processors, unless the environment says how many. Torch does not read
    the quota of a container: with 64 threads on two processors each step waits for the last of them."""
    if "OMP_NUM_THREADS" not in os.environ and (count := processors()) < torch.get_num_threads():
        torch.set_num_threads(count)


def processors(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """How many processors the process may use: by its affinity, and the quotas of its control groups (1 or 2)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    line = next((line for line in _text(own).splitlines() if line.startswith("0::")), "0::/")
    path = groups / line.removeprefix("0::").strip("/")
    quotas = [_text(folder / "cpu.max").split() for folder in (path, *path.parents) if folder.is_relative_to(groups)]
    quotas.append([_text(groups / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])
    limits = [int(quota[0]) / int(quota[1]) for quota in quotas if len(quota) == 2 and all(map(str.isdigit, quota))]
    return max(1, min([affinity, *map(math.ceil, limits)]))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


@cache
def speed_bf16() -> bool:
    """Compute products of bf16 matrices through fp32 from now on, forward and backward, if a measurement shows that to
    be at least `WORTH` times as fast. They are products of the same bf16 numbers, summed in fp32 and rounded to bf16.

    Returns:
        Whether they are computed so.
    """
    left, right = torch.ones(256, 512, dtype=torch.bfloat16), torch.ones(512, 512, dtype=torch.bfloat16)
    slow = _seconds(torch.mm, left, right) >= WORTH * _seconds(through_fp32(torch.mm), left, right)
    if slow:
        install()
    return slow


@cache
def install() -> torch.library.Library:
    """Compute every product of bf16 matrices on the CPU through fp32, until the returned library is destroyed."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that a kernel is replaced, as intended
        for product in PRODUCTS:
            library.impl(product.__name__, through_fp32(product), "CPU")
    return library


def through_fp32(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel for `product` that computes bf16 through fp32 and other types as usual. It calls the product's variant
    with `out`, which is not replaced."""

    def kernel(*operands: Tensor, **scalars: float) -> Tensor:
        dtype = operands[0].dtype
        matrices = [operand.float() for operand in operands] if dtype == torch.bfloat16 else operands
        return product(*matrices, **scalars, out=matrices[0].new_empty(0)).to(dtype)

    return kernel


def keep_dequantised(model: Any) -> bool:
    """Let the 4-bit layers multiply by fp32 weights that are dequantised once and not at each call, if all of them fit
    in `ROOM_GIB`. Where products of bf16 go through fp32, or the layers compute in fp32, outputs and gradients are
    identical to the bit. Saving,
    hashing and merging still use the 4-bit weights.

    Returns:
        Whether they fit.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear4bit)]
    fits = sum(layer.in_features * layer.out_features * 4 for layer in layers) <= ROOM_GIB * 2**30
    for layer in layers if fits else []:
        layer.forward = _dequantised(layer)
    return fits


def _dequantised(layer: Linear4bit) -> Callable[[Tensor], Tensor]:
    quantised: Any = layer.weight
    compute = layer.compute_dtype or quantised.quant_state.dtype
    weight = dequantize_4bit(quantised.data, quantised.quant_state).to(compute).float()
    if compute == torch.float32:
        layer.plain_weight = weight  # type: ignore[assignment]
    bias = None if layer.bias is None else layer.bias.to(compute).float()

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return linear(x.to(compute).float(), weight, bias).to(compute).to(x.dtype)

    return forward


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Use SDPA in place of eager attention where products of bf16 go through fp32: eager attention copies all keys and
    values to fp32 for each new token. For training SDPA is the slower one."""
    config = model.config.get_text_config()
    supported = model._supports_sdpa and getattr(config, "attn_logit_softcapping", None) is None
    if torch.cuda.is_available() or config._attn_implementation != "eager" or not supported or not speed_bf16():
        yield
        return
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = "eager"


def _seconds(product: Callable[..., Tensor], left: Tensor, right: Tensor) -> float:
    """Processor time, and the minimum of several: other processes can only add to it."""
    seconds = []
    for _ in range(7):
        start = time.process_time()
        product(left, right)
        seconds.append(time.process_time() - start)
    return min(seconds)
