"""A mixture of LoRA experts within one adapter. Its rank is cut into slices, the experts, and gates in each layer
weight them for a request or a token. So a mixture is trained, stored and stacked like any other adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from moltlm.adapters.card import MIXTURE
from moltlm.adapters.config import AdaptersConfig
from moltlm.data import prompted
from moltlm.data.io import read_json, write_json

FIRST = 0.02
"""Standard deviation of new gates: if all were equal, all experts would learn the same."""


@dataclass(frozen=True)
class Mixture:
    """`experts` are the ranks of the slices, in order.

    separable: two blocks of equally many experts. The first is gated by the content of the prompt (the mean over the
    prompt of the layer's input), the second by the form of the answer (the layer's input where the answer begins). Each
    keeps its `top` gates, times the number of experts, so equal gates are the plain adapter. After SMoLoRA (Wang et al.
    2024, arXiv:2411.13949), whose two routers read image and instruction.
    token: a learned softmax over the experts and a no-expert option for each token, from the layer's input; X-LoRA
    (Buehler and Buehler 2024, arXiv:2402.07148) in one pass, where the original computes all gates in an extra pass.
    arrow: for each token the `top` experts whose first right singular vector agrees best with the layer's input
    (Ostapenko et al. 2024, arXiv:2405.11157); nothing is trained.
    """

    kind: Literal["separable", "token", "arrow"]
    experts: list[int]
    top: int

    @property
    def blocks(self) -> int:
        return 2 if self.kind == "separable" else 1


def separable(config: AdaptersConfig) -> Mixture:
    """The mixture of `protect.layout=mixture`: equal slices of the LoRA's rank."""
    count = 2 * config.protect.experts
    return Mixture("separable", [config.lora.r // count] * count, config.protect.top_experts)


class PromptMask:
    """Which tokens are the prompt (batch, length) in the current forward pass: those that the caller marked
    (`data.prompted`), or those without a label, or all. While a text is continued, the gates of the first pass apply.
    """

    def __init__(self) -> None:
        self.mask = torch.empty(0)
        self.begins_text = True


class Gate(nn.Module):
    """The gates of one layer: (batch, length or 1, rank) from the layer's input (batch, length, width)."""

    def __init__(self, mixture: Mixture, width: int, prompts: PromptMask) -> None:
        super().__init__()
        self.mixture = mixture
        self._prompts = prompts
        self._last = torch.empty(0)
        rows = len(mixture.experts) + (mixture.kind == "token")
        self.weight = nn.Parameter(FIRST * torch.randn(rows, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mixture.kind == "separable":
            if self._prompts.begins_text:
                self._last = self._by_prompt(x)
            return self._last
        scores = _normed(x) @ self.weight.T
        if self.mixture.kind == "token":
            return self._spread(scores.softmax(-1)[..., :-1])
        return self._spread(_top(scores.abs(), self.mixture.top))

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        mask = self._prompts.mask.to(x.device, torch.float32)
        inputs = _normed(x)
        content = (inputs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        last = (mask * torch.arange(1, x.shape[1] + 1, device=x.device)).argmax(1)
        form = inputs[torch.arange(len(inputs), device=x.device), last]
        block = len(self.mixture.experts) // 2
        parts = [
            block * _largest((view @ weight.T).softmax(-1), self.mixture.top)
            for view, weight in zip((content, form), self.weight.split(block), strict=True)
        ]
        return self._spread(torch.cat(parts, -1))[:, None]

    def _spread(self, gates: torch.Tensor) -> torch.Tensor:
        ranks = torch.tensor(self.mixture.experts, device=gates.device)
        return gates.repeat_interleave(ranks, -1, output_size=sum(self.mixture.experts))


def _normed(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],))


def _largest(shares: torch.Tensor, top: int) -> torch.Tensor:
    """The largest `top` of the last dimension unchanged, so even a single gate gets a gradient; the others are 0."""
    best = shares.topk(min(top, shares.shape[-1]), dim=-1)
    return torch.zeros_like(shares).scatter(-1, best.indices, best.values)


def _top(scores: torch.Tensor, top: int) -> torch.Tensor:
    """Softmax over the best `top` of the last dimension; the others are 0."""
    best = scores.topk(min(top, scores.shape[-1]), dim=-1)
    return scores.new_full(scores.shape, -torch.inf).scatter(-1, best.indices, best.values).softmax(-1)


def attach(model: PeftModel, name: str, mixture: Mixture) -> None:
    """Add new gates to the adapter `name`, whose rank has to be the sum of the experts' ranks."""
    prompts = _prompt_mask(model)
    for layer in _layers(model, name):
        reads = layer.lora_A[name]
        reads.gate = Gate(mixture, reads.in_features, prompts).to(reads.weight.device)
        reads.register_forward_hook(_apply)
        if mixture.kind == "arrow":
            reads.gate.weight.data = _directions(reads.weight, layer.lora_B[name].weight, mixture.experts)


def gated(model: Any, name: str) -> bool:
    """Whether the adapter is a mixture."""
    return any(hasattr(layer.lora_A[name], "gate") for layer in _layers(model, name))


def save(folder: Path, mixture: Mixture) -> None:
    """Write the mixture's description beside the weights, which PEFT writes together with the gates."""
    write_json(folder / MIXTURE, asdict(mixture))


def load(folder: Path) -> Mixture | None:
    """The mixture in this adapter folder, or None for a plain adapter."""
    return Mixture(**read_json(folder / MIXTURE)) if (folder / MIXTURE).is_file() else None


@torch.no_grad()
def restore(model: PeftModel, name: str, folder: Path) -> None:
    """Give the adapter `name`, loaded from `folder`, its gates back if it is a mixture."""
    mixture = load(folder)
    if mixture is None:
        return
    attach(model, name, mixture)
    tensors = load_file(folder / "adapter_model.safetensors")
    stored = {key.split(".lora_A.")[0]: value for key, value in tensors.items() if key.endswith(".gate.weight")}
    for key, value in model.named_parameters():
        if key.endswith(f".lora_A.{name}.gate.weight"):
            value.copy_(
                stored[key.split(".lora_A.")[0]]
            )  # their keys still have the name that the adapter was saved under


def _apply(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return output * module.gate(inputs[0]).to(output.dtype)


def _layers(model: PeftModel, name: str) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer) and name in module.lora_A)


def _prompt_mask(model: Any) -> PromptMask:
    """The model's prompt mask, updated before every forward pass. Both models need the hook: PEFT calls the forward of
    its inner model without its hooks, and generation calls the inner model alone."""
    inner = model.get_base_model()
    if not hasattr(inner, "prompt_mask"):
        inner.prompt_mask = PromptMask()
        for module in (model, inner):
            module.register_forward_pre_hook(partial(_update, inner.prompt_mask), with_kwargs=True)
    return inner.prompt_mask


def _update(prompts: PromptMask, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    marked = prompted.current_mask.get()
    if marked is not None:
        prompts.begins_text, prompts.mask = True, marked
        return
    tokens, mask, labels = args[0] if args else kwargs["input_ids"], kwargs.get("attention_mask"), kwargs.get("labels")
    present, past = torch.ones_like(tokens) if mask is None else mask, kwargs.get("past_key_values")
    prompts.begins_text = present.shape == tokens.shape and (past is None or past.get_seq_length() == 0)
    if prompts.begins_text:
        prompts.mask = present if labels is None else present * (labels == -100)


@torch.no_grad()
def _directions(reads: torch.Tensor, writes: torch.Tensor, experts: list[int]) -> torch.Tensor:
    """(experts, width): the first right singular vector of each slice's B A, computed from the small factors."""
    directions = []
    for a, b in zip(reads.float().split(experts, 0), writes.float().split(experts, 1), strict=True):
        q, r = torch.linalg.qr(a.T)
        directions.append(q @ torch.linalg.svd(b @ r.T, full_matrices=False).Vh[0])
    return torch.stack(directions)
