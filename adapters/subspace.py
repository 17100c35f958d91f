"""Where in weight space an adapter may learn: away from what the frozen weights do most, or from what kept answers use.

Both act on what lies beneath the adapter, base and personality together, and end in a plain LoRA on any base: neither
rewrites base weights, which 4-bit ones do not allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight

from moltlm.adapters.serve import TextModel
from moltlm.data.types import Exchange

Project = Callable[[], None]
"""Puts the adapter back to where it may be; called before the training and after every step."""
EXACT = 1024
DAMPING = 1e-2
"""Of the covariances, as a share of their mean diagonal, so that they can be inverted."""


def away_from_strongest(model: PeftModel, name: str, directions: int, seed: int) -> Project:
    """The adapter neither reads nor writes along the strongest `directions` of each weight beneath it: OSF's constraint
    (Nayak et al. 2025, arXiv:2504.07097), whose trained part here is a LoRA and not all the rest of the weight."""
    kept = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in _layers(model, name):
            weight = _beneath(layer, name)
            most = min(directions, min(weight.shape) // 2)  # always leaves some to learn in
            u, v = _strongest(weight, most)
            kept.append((layer, u, v))

    @torch.no_grad()
    def project() -> None:
        for layer, u, v in kept:
            reads, writes = layer.lora_A[name].weight, layer.lora_B[name].weight
            reads -= (reads @ v) @ v.T
            writes -= u @ (u.T @ writes)

    return project


def _strongest(weight: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, most) and (in, most): the first singular vectors, of large weights nearly."""
    if min(weight.shape) <= EXACT:
        u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        return u[:, :most].clone(), vh[:most].T.clone()
    u, _, v = torch.svd_lowrank(weight, q=most + 8, niter=4)
    return u[:, :most].clone(), v[:, :most].clone()


def doubled(config: LoraConfig) -> LoraConfig:
    """With room for what `knowledge_preserving` starts from and for taking it off again."""
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    return config


def knowledge_preserving(text: TextModel, name: str, exchanges: list[Exchange], fresh: bool) -> Project:
    """CorDA in its knowledge-preserving mode (Yang et al. 2024, arXiv:2406.05223): the adapter begins as the part of
    each weight that matters least for what the layers read in `exchanges`, and the base is left without it.

    As the base here stays as it is, the second half of the adapter's rank takes that part off and never moves. The
    first half is trained; at the start they cancel.
    """
    layers = list(_layers(text.model, name))
    if fresh:
        for layer, covariance in zip(layers, _covariances(text, layers, exchanges), strict=True):
            _begin(layer, name, covariance)
    halves = [(weight, weight.detach().clone()) for layer in layers for weight in _second_half(layer, name)]

    @torch.no_grad()
    def project() -> None:
        for weight, kept in halves:
            weight.copy_(kept)

    return project


def _second_half(layer: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    reads, writes = layer.lora_A[name].weight.data, layer.lora_B[name].weight.data
    half = len(reads) // 2
    return reads[half:], writes[:, half:]


@torch.no_grad()
def _begin(layer: Any, name: str, covariance: torch.Tensor) -> None:
    reads, writes = layer.lora_A[name].weight, layer.lora_B[name].weight
    rank = len(reads) // 2
    u, s, vh = torch.linalg.svd(_beneath(layer, name) @ covariance, full_matrices=False)
    root = s[-rank:].sqrt()
    a = torch.linalg.solve(covariance, (root[:, None] * vh[-rank:]).T).T  # the covariance is its own transpose
    b = u[:, -rank:] * root / layer.scaling[name]
    reads.copy_(torch.cat([a, a], 0))
    writes.copy_(torch.cat([b, -b], 1))


@torch.no_grad()
def _covariances(text: TextModel, layers: list[Any], exchanges: list[Exchange]) -> list[torch.Tensor]:
    """(width, width) for each layer: of what it reads over prompts and answers, damped."""
    found = [torch.zeros(layer.in_features, layer.in_features, device=text.model.device) for layer in layers]
    count = [0] * len(layers)

    def add(place: int) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            rows = inputs[0].float().flatten(0, -2)
            found[place] += rows.T @ rows
            count[place] += len(rows)

        return hook

    hooks = [layer.register_forward_hook(add(place)) for place, layer in enumerate(layers)]
    try:
        for row in text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges]):
            text.completion_logits([row])  # one by one: no padding is counted
    finally:
        for hook in hooks:
            hook.remove()
    whole = [total / max(n, 1) for total, n in zip(found, count, strict=True)]
    return [one + DAMPING * one.diagonal().mean() * torch.eye(len(one), device=one.device) for one in whole]


def _layers(model: Any, name: str) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer) and name in module.lora_A)


def _beneath(layer: Any, name: str) -> torch.Tensor:
    """(out, in): the layer's weight with the active adapters but this one."""
    whole = dequantize_module_weight(layer.get_base_layer()).float()
    for other in layer.active_adapters:
        if other != name and other in layer.lora_A:
            whole = whole + layer.scaling[other] * (layer.lora_B[other].weight @ layer.lora_A[other].weight).float()
    return whole
