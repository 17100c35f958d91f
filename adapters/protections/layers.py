"""What protections in weight space know of an adapter's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight


def adapter_layers(model: Any, adapter: str) -> Iterator[Any]:
    """The LoRA layers that have this adapter."""
    return (module for module in model.modules() if isinstance(module, LoraLayer) and adapter in module.lora_A)


def weight_below(layer: Any, adapter: str) -> torch.Tensor:
    """(out, in): the layer's base weight, dequantised, with the active adapters other than this one."""
    total = dequantize_module_weight(layer.get_base_layer()).float()
    for other in layer.active_adapters:
        if other != adapter and other in layer.lora_A:
            total = total + layer.scaling[other] * (layer.lora_B[other].weight @ layer.lora_A[other].weight).float()
    return total
