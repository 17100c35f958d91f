"""Compose several trained adapters into one, exactly, or approximately with the error measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from moltlm.adapters import card, mixture, training
from moltlm.adapters.serve import Served
from moltlm.data.errors import BadInput

Method = Literal["cat", "average", "linear", "svd", "ties", "dare_linear", "dare_ties"]
PEFTS: dict[str, str] = {
    "cat": "cat",
    "average": "cat",
    "linear": "linear",
    "svd": "svd",
    "ties": "ties_svd",
    "dare_linear": "dare_linear_svd",
    "dare_ties": "dare_ties_svd",
}
"""PEFT's names. Its `ties` and `dare` work on A and B separately, which neither paper does: both methods work on the
change of the weights, as PEFT's `_svd` variants do before they factorise it again."""

ROUNDING = 1e-4
WHOLE = "experts"


@dataclass(frozen=True)
class Composition:
    """How an adapter was composed.

    Attributes:
        error: relative distance of the change of all weights from that of the stacked adapters: the square root of
            sum |D' - D|^2 / sum |D|^2 over the layers, where D is the sum of the weighted changes. 0 for cat.
    """

    method: str
    names: list[str]
    weights: list[float]
    rank: int
    error: float

    @property
    def exact(self) -> bool:
        return self.error < ROUNDING


def compose(
    served: Served,
    names: list[str],
    name: str,
    method: Method,
    weights: list[float] | None = None,
    density: float = 0.5,
    rank: int | None = None,
    seed: int = 0,
) -> Composition:
    """Add to `served` an adapter that is composed of loaded ones.

    Args:
        names: the adapters to compose.
        name: of the new adapter.
        method: cat: the exact sum, whose rank is the sum of the ranks. average: the exact mean. linear: sums A and B
            separately, which leaves cross terms. svd: the sum, truncated to `rank`. ties (Yadav et al. 2023,
            arXiv:2306.01708) and dare (Yu et al. 2024, arXiv:2311.03099) keep a share `density` of each change's
            entries, and truncate to `rank`.
        weights: factor of each adapter; by default 1, or 1/n for average.
        rank: by default the sum of the ranks, with which svd is exact.

    Raises:
        BadInput: an adapter is not loaded or is a mixture, or linear has adapters of different ranks.
    """
    missing = [one for one in names if one not in served.adapters]
    if missing or name in served.adapters or len(names) < 2:
        raise BadInput(
            f"{', '.join(names)} cannot be composed as {name}: that takes two or more loaded adapters and a new name.",
            f"Loaded: {', '.join(served.adapters) or 'none'}.",
        )
    model: Any = served.model
    if any(mixture.gated(model, one) for one in names):
        raise BadInput("A mixture of experts cannot be composed: its gates would be lost.", "Name other adapters.")
    share = 1 / len(names) if method == "average" else 1.0
    factors = weights or [share] * len(names)
    ranks = [rank_of(model, one) for one in names]
    if method == "linear" and len(set(ranks)) > 1:
        raise BadInput(f"linear needs adapters of one rank, not of {ranks}.", "Use cat or svd.")
    options: dict[str, Any] = {}
    if PEFTS[method].endswith("svd"):
        # PEFT's factors do not fit together where the rank is above a layer's smaller dimension
        limit = min(min(layer.in_features, layer.out_features) for layer in layers(model))
        options["svd_rank"] = min(rank or sum(ranks), limit)
    if method in ("ties", "dare_linear", "dare_ties"):
        options["density"] = density
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_weighted_adapter(names, factors, name, combination_type=PEFTS[method], **options)
    if PEFTS[method] == "cat":
        _in_fp32(model, names, name, factors)
    served.manifests[name] = served.manifests[names[-1]]
    with served.state(served.current):  # PEFT activates the new adapter
        pass
    return Composition(method, names, factors, rank_of(model, name), error(model, name, names, factors))


def experts(served: Served, names: list[str], folder: Path, top: int | None = None) -> list[int]:
    """Write the adapters to `folder` as one, their exact sum; with `top`, as an Arrow mixture of them.

    Returns:
        The rank of each, in order.
    """
    ranks = [rank_of(served.model, name) for name in names]
    composition = compose(served, names, WHOLE, "cat") if len(names) > 1 else None
    whole = WHOLE if composition else names[0]
    if top is not None and isinstance(served.model, PeftModel):
        mix = mixture.Mixture("arrow", ranks, top)
        mixture.attach(served.model, whole, mix)
        mixture.save(folder, mix)
    save(served, whole, composition or Composition("cat", names, [1.0], ranks[0], 0.0), folder)
    return ranks


@torch.no_grad()
def _in_fp32(model: Any, names: list[str], name: str, weights: list[float]) -> None:
    """Concatenate in fp32: PEFT does so in the base's type, and rounds where that has 16 bits."""
    for layer in layers(model):
        parts = [(one, weight) for one, weight in zip(names, weights, strict=True) if one in layer.lora_A]
        if not parts:  # the adapters are on other layers than one below them
            continue
        reads = [weight * layer.scaling[one] * layer.lora_A[one].weight.float() for one, weight in parts]
        layer.lora_A[name].weight.data = torch.cat(reads, 0)
        layer.lora_B[name].weight.data = torch.cat([layer.lora_B[one].weight.float() for one, _ in parts], 1)
        layer.scaling[name] = 1.0


@torch.no_grad()
def error(model: PeftModel, name: str, names: list[str], weights: list[float]) -> float:
    """See `Composition.error`. One layer at a time, in fp32."""
    difference = total = 0.0
    for layer in layers(model):
        exact = sum(
            weight * delta(layer, one) for one, weight in zip(names, weights, strict=True) if one in layer.lora_A
        )
        if isinstance(exact, torch.Tensor):
            actual = delta(layer, name) if name in layer.lora_A else torch.zeros_like(exact)
            difference += float((actual - exact).square().sum())
            total += float(exact.square().sum())
    return (difference / total) ** 0.5 if total else 0.0


def rank_of(model: Any, name: str) -> int:
    """The rank of a loaded adapter."""
    return model.peft_config[name].r


def layers(model: Any) -> Iterator[Any]:
    """All LoRA layers."""
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def delta(layer: Any, name: str) -> torch.Tensor:
    """(out, in): what an adapter adds to a layer's weight at its current scale."""
    return layer.scaling[name] * (layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float())


def save(served: Served, name: str, composition: Composition, folder: Path) -> None:
    """Write the composed adapter as an ordinary adapter folder, whose manifest names its parts."""
    if not isinstance(served.model, PeftModel):
        raise BadInput("No adapter is loaded.", "Load some first.")
    training.save_adapter(served.model, folder, name)
    parts = [served.manifests[one] for one in composition.names]
    below = {label: value for part in parts for label, value in part.adapters_below.items()}
    below = {label: value for label, value in below.items() if label not in composition.names}
    of = {part.name: part.weights_sha256 for part in parts}
    record = {**asdict(composition), "of": of}
    last = parts[-1]
    card.write(folder, card.Manifest(name, last.base, last.base_digest, last.precision, below, record))
