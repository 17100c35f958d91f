"""bf16 on CPUs without instructions for it, where torch emulates each product: 4 times slower than fp32 with AVX512,
40 and more with AVX2 (pytorch issue 146508)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

PRODUCTS = (torch.mm, torch.addmm, torch.bmm, torch.baddbmm)
WORTH = 2.0


@cache
def speed_bf16() -> bool:
    """Whether products of bf16 go through fp32 here, from now on, in forward and backward: if that is `WORTH` times as
    fast or more, which is measured. They are products of the same bf16 numbers, summed in fp32 and rounded to bf16."""
    left, right = torch.ones(256, 512, dtype=torch.bfloat16), torch.ones(512, 512, dtype=torch.bfloat16)
    slow = _seconds(torch.mm, left, right) >= WORTH * _seconds(through_fp32(torch.mm), left, right)
    if slow:
        install()
    return slow


@cache
def install() -> torch.library.Library:
    """Put every product of bf16 matrices on the CPU through fp32, until what is returned is destroyed."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced is what we want
        for product in PRODUCTS:
            library.impl(product.__name__, through_fp32(product), "CPU")
    return library


def through_fp32(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel for `product`; of other types than bf16 it is the product itself. Both go by its variant with `out`,
    which is not replaced."""

    def kernel(*given: Tensor, **scalars: float) -> Tensor:
        dtype = given[0].dtype
        matrices = [one.float() for one in given] if dtype == torch.bfloat16 else given
        return product(*matrices, **scalars, out=matrices[0].new_empty(0)).to(dtype)

    return kernel


def _seconds(product: Callable[..., Tensor], left: Tensor, right: Tensor) -> float:
    """Of the processor, not of the clock, and the least of several: other processes can only add."""
    found = []
    for _ in range(7):
        start = time.process_time()
        product(left, right)
        found.append(time.process_time() - start)
    return min(found)
