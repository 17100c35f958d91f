"""A mixture of LoRA experts within one adapter: its rank is cut into slices, the experts, and gates in each layer say
how much each counts for a request or a token. So a mixture is trained, stored and stacked as any other adapter is."""

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
"""Standard deviation of new gates: without any difference all experts would learn the same."""


@dataclass(frozen=True)
class Mixture:
    """`experts` are the ranks of the slices, in order.

    separable: two blocks of as many experts; the first is gated by what is asked (the mean over the prompt of what the
    layer reads), the second by how it is to be answered (what it reads where the answer begins), each keeping its
    `top`, times their number. Equal gates are the plain adapter. After SMoLoRA (Wang et al. 2024, arXiv:2411.13949),
    whose two routers read image and instruction.
    token: a learned softmax over the experts and nobody for each token, from what the layer reads; X-LoRA (Buehler and
    Buehler 2024, arXiv:2402.07148) in one pass, where the original makes all gates from a pass of its own.
    arrow: for each token the `top` experts whose first right singular vector agrees best with what the layer reads
    (Ostapenko et al. 2024, arXiv:2405.11157); nothing is learned.
    """

    kind: Literal["separable", "token", "arrow"]
    experts: list[int]
    top: int

    @property
    def blocks(self) -> int:
        return 2 if self.kind == "separable" else 1


def separable(config: AdaptersConfig) -> Mixture:
    """That of the mixture layout: equal slices of the LoRA's rank."""
    count = 2 * config.protect.experts
    return Mixture("separable", [config.lora.r // count] * count, config.protect.top_experts)


class Prompts:
    """Which tokens are the prompt (batch, length) in the forward pass that is going on: as it is said, or what has no
    label, or all that is given. Gates of earlier passes stand while a text is continued."""

    def __init__(self) -> None:
        self.mask = torch.empty(0)
        self.fresh = True


class Gate(nn.Module):
    """The gates of one layer: (batch, length or 1, rank) from what it reads (batch, length, width)."""

    def __init__(self, mixture: Mixture, width: int, seen: Prompts) -> None:
        super().__init__()
        self.mixture = mixture
        self._seen = seen
        self._last = torch.empty(0)
        rows = len(mixture.experts) + (mixture.kind == "token")
        self.weight = nn.Parameter(FIRST * torch.randn(rows, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mixture.kind == "separable":
            if self._seen.fresh:
                self._last = self._by_prompt(x)
            return self._last
        scores = _levelled(x) @ self.weight.T
        if self.mixture.kind == "token":
            return self._spread(scores.softmax(-1)[..., :-1])
        return self._spread(_top(scores.abs(), self.mixture.top))

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        mask = self._seen.mask.to(x.device, torch.float32)
        read = _levelled(x)
        what = (read * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        last = (mask * torch.arange(1, x.shape[1] + 1, device=x.device)).argmax(1)
        how = read[torch.arange(len(read), device=x.device), last]
        each = len(self.mixture.experts) // 2
        parts = [
            each * _kept((view @ weight.T).softmax(-1), self.mixture.top)
            for view, weight in zip((what, how), self.weight.split(each), strict=True)
        ]
        return self._spread(torch.cat(parts, -1))[:, None]

    def _spread(self, gates: torch.Tensor) -> torch.Tensor:
        ranks = torch.tensor(self.mixture.experts, device=gates.device)
        return gates.repeat_interleave(ranks, -1, output_size=sum(self.mixture.experts))


def _levelled(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],))


def _kept(shares: torch.Tensor, top: int) -> torch.Tensor:
    """The best `top` of the last dimension as they are, so that a gate learns even alone; the others are 0."""
    best = shares.topk(min(top, shares.shape[-1]), dim=-1)
    return torch.zeros_like(shares).scatter(-1, best.indices, best.values)


def _top(scores: torch.Tensor, top: int) -> torch.Tensor:
    """Softmax over the best `top` of the last dimension; the others are 0."""
    best = scores.topk(min(top, scores.shape[-1]), dim=-1)
    return scores.new_full(scores.shape, -torch.inf).scatter(-1, best.indices, best.values).softmax(-1)


def attach(model: PeftModel, name: str, mixture: Mixture) -> None:
    """Gate the adapter `name`, whose rank has to be the sum of the experts'. The gates are new, and part of it."""
    seen = _watched(model)
    for layer in _layers(model, name):
        reads = layer.lora_A[name]
        reads.gate = Gate(mixture, reads.in_features, seen).to(reads.weight.device)
        reads.register_forward_hook(_apply)
        if mixture.kind == "arrow":
            reads.gate.weight.data = _directions(reads.weight, layer.lora_B[name].weight, mixture.experts)


def gated(model: Any, name: str) -> bool:
    return any(hasattr(layer.lora_A[name], "gate") for layer in _layers(model, name))


def save(folder: Path, mixture: Mixture) -> None:
    """Beside the weights, which PEFT writes, gates among them."""
    write_json(folder / MIXTURE, asdict(mixture))


def load(folder: Path) -> Mixture | None:
    """None for an adapter that is no mixture."""
    return Mixture(**read_json(folder / MIXTURE)) if (folder / MIXTURE).is_file() else None


@torch.no_grad()
def restore(model: PeftModel, name: str, folder: Path) -> None:
    """Gate the adapter `name`, loaded from `folder`, as it was, if it was a mixture."""
    mixture = load(folder)
    if mixture is None:
        return
    attach(model, name, mixture)
    found = load_file(folder / "adapter_model.safetensors")
    stored = {key.split(".lora_A.")[0]: value for key, value in found.items() if key.endswith(".gate.weight")}
    for key, value in model.named_parameters():
        if key.endswith(f".lora_A.{name}.gate.weight"):
            value.copy_(stored[key.split(".lora_A.")[0]])  # PEFT leaves the name that it had in their keys


def _apply(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return output * module.gate(inputs[0]).to(output.dtype)


def _layers(model: PeftModel, name: str) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer) and name in module.lora_A)


def _watched(model: Any) -> Prompts:
    """What the gates know of the prompt, kept up to date before every forward pass: PEFT calls its inner model's
    forward past its hooks, and generation calls the inner model alone."""
    inner = model.get_base_model()
    if not hasattr(inner, "prompts_seen"):
        inner.prompts_seen = Prompts()
        for each in (model, inner):
            each.register_forward_pre_hook(partial(_see, inner.prompts_seen), with_kwargs=True)
    return inner.prompts_seen


def _see(seen: Prompts, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    told = prompted.current_mask.get()
    if told is not None:
        seen.fresh, seen.mask = True, told
        return
    tokens, mask, labels = args[0] if args else kwargs["input_ids"], kwargs.get("attention_mask"), kwargs.get("labels")
    given, past = torch.ones_like(tokens) if mask is None else mask, kwargs.get("past_key_values")
    seen.fresh = given.shape == tokens.shape and (past is None or past.get_seq_length() == 0)
    if seen.fresh:
        seen.mask = given if labels is None else given * (labels == -100)


@torch.no_grad()
def _directions(reads: torch.Tensor, writes: torch.Tensor, experts: list[int]) -> torch.Tensor:
    """(experts, width): the first right singular vector of each slice's B A, by way of its small factors."""
    found = []
    for a, b in zip(reads.float().split(experts, 0), writes.float().split(experts, 1), strict=True):
        q, r = torch.linalg.qr(a.T)
        found.append(q @ torch.linalg.svd(b @ r.T, full_matrices=False).Vh[0])
    return torch.stack(found)
