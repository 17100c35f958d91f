"""PEFT's LoRA layers with fewer passes over memory: y = W x + s B A x, the second term added in place."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora.bnb import Linear4bit
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional as F


class _LowRank(torch.autograd.Function):
    """W x + b + the sum over adapters of s B A x. W and b are frozen.

    PEFT makes four temporaries as large as the output for each adapter, and autograd keeps two of them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scales: list[float], *factors: Tensor
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = F.linear(rows, weight, bias)
        inner = []
        for scale, a, b in zip(scales, factors[::2], factors[1::2], strict=True):
            inner.append(rows @ a.T)
            out.addmm_(inner[-1], b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, *factors, *inner)
        ctx.scales, ctx.shape = scales, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, weight, *others = ctx.saved_tensors
        count = len(ctx.scales)
        factors, inner = others[: 2 * count], others[2 * count :]
        out = gradients[0].reshape(-1, weight.shape[0])
        needed = ctx.needs_input_grad
        x = out @ weight if needed[0] else None
        results: list[Tensor | None] = []
        for k, scale in enumerate(ctx.scales):
            a, b = factors[2 * k], factors[2 * k + 1]
            through = (out @ b).mul_(scale)
            if x is not None:
                x.addmm_(through, a)
            results.append(through.T @ rows if needed[4 + 2 * k] else None)
            results.append((out.T @ inner[k]).mul_(scale) if needed[5 + 2 * k] else None)
        return (None if x is None else x.view(ctx.shape), None, None, None, *results)


def fuse(model: Any) -> None:
    """Let the LoRA layers of a model on a CPU compute what they compute in fewer passes. A layer that is more than a
    plain fp32 one at a call is left to PEFT; a 4-bit one that keeps fp32 weights counts as plain."""
    for module in model.modules():
        plain = type(module) is Linear and type(module.base_layer) is nn.Linear
        dequantised = type(module) is Linear4bit and hasattr(module.base_layer, "plain_weight")
        if (plain or dequantised) and "forward" not in vars(module):
            module.forward = partial(_forward, module, module.forward)


def _weight(layer: Any) -> Tensor:
    """The base's weight in fp32: its own, or the one that a 4-bit layer keeps (`adapters.cpu.keep_dequantised`)."""
    return getattr(layer.base_layer, "plain_weight", layer.base_layer.weight)


def _forward(layer: Any, original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if args or kwargs or not names or not _plain(layer, names, x):
        return original(x, *args, **kwargs)
    if not torch.is_grad_enabled():  # B is zero in a new adapter, as when reference values are computed
        names = [name for name in names if layer.lora_B[name].weight.any()]
    factors = [part[name].weight for name in names for part in (layer.lora_A, layer.lora_B)]
    scales = [layer.scaling[name] for name in names]
    return _LowRank.apply(x, _weight(layer), layer.base_layer.bias, scales, *factors)  # type: ignore[no-any-return]


def _plain(layer: Any, names: list[str], x: Tensor) -> bool:
    factors = [part[name] for name in names for part in (layer.lora_A, layer.lora_B)]
    weights = [_weight(layer), *(part.weight for part in factors)]
    return (
        not (layer.disable_adapters or layer.merged or torch.is_autocast_enabled("cpu"))
        and not any(name in layer.lora_variant for name in names)
        and not (layer.training and any(getattr(layer.lora_dropout[name], "p", 0) for name in names))
        and all(layer.lora_B[name].bias is None for name in names)
        and all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
        and x.dtype == torch.float32
        and not layer.base_layer.weight.requires_grad
        and not any(part._forward_hooks or part._forward_pre_hooks for part in [layer.base_layer, *factors])
    )
