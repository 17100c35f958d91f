"""One adapter made of several trained ones: exactly, or approximately with the error measured."""

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
"""PEFT's names. Its `ties` and `dare` work on A and B apart, which is neither method: those of the papers work on the
change of the weights, as its `_svd` variants do before they factorise it again."""


ROUNDING = 1e-4
WHOLE = "experts"


@dataclass(frozen=True)
class Composition:
    """`error` is how far the change of all weights is from the stack's, as a share of the stack's: the square root of
    sum |D' - D|^2 / sum |D|^2 over the layers, D being the sum of the weighted changes. 0 for cat."""

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
    """Add to `served` an adapter `name` made of loaded ones, each times its weight (1, or 1/n for average).

    cat: the sum, exactly, ranks adding up; average: the mean, exactly. linear: sums A and B apart, which leaves cross
    terms. svd: the sum, cut to `rank` (default: the sum of ranks, which loses nothing). ties (Yadav et al. 2023) and
    dare (Yu et al. 2024) keep a share `density` of each change's entries, then cut to `rank`. Raises BadInput for
    adapters that are not loaded, for mixtures, or for linear of different ranks.
    """
    missing = [one for one in names if one not in served.adapters]
    if missing or name in served.adapters or len(names) < 2:
        known = f"Loaded: {', '.join(served.adapters) or 'none'}."
        raise BadInput(
            f"{', '.join(names)} cannot be composed as {name}: two or more that are loaded, a new name.", known
        )
    model: Any = served.model
    if any(mixture.gated(model, one) for one in names):
        raise BadInput("A mixture of experts cannot be composed: its gates would be lost.", "Name others.")
    share = 1 / len(names) if method == "average" else 1.0
    factors = weights or [share] * len(names)
    ranks = [rank_of(model, one) for one in names]
    if method == "linear" and len(set(ranks)) > 1:
        raise BadInput(f"linear needs adapters of one rank, not of {ranks}.", "Use cat or svd.")
    options: dict[str, Any] = {}
    if PEFTS[method].endswith("svd"):
        # PEFT makes factors that do not fit together where the rank is above a layer's own
        most = min(min(layer.in_features, layer.out_features) for layer in layers(model))
        options["svd_rank"] = min(rank or sum(ranks), most)
    if method in ("ties", "dare_linear", "dare_ties"):
        options["density"] = density
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_weighted_adapter(names, factors, name, combination_type=PEFTS[method], **options)
    if PEFTS[method] == "cat":
        _in_fp32(model, names, name, factors)
    served.manifests[name] = served.manifests[names[-1]]
    with served.state(served.current):  # PEFT makes the new one active
        pass
    return Composition(method, names, factors, rank_of(model, name), error(model, name, names, factors))


def experts(served: Served, names: list[str], folder: Path, top: int | None = None) -> list[int]:
    """Write to `folder` the adapters as one, their exact sum, and return the rank of each, in order. With `top`, it is
    an Arrow mixture of them."""
    ranks = [rank_of(served.model, name) for name in names]
    made = compose(served, names, WHOLE, "cat") if len(names) > 1 else None
    whole = WHOLE if made else names[0]
    if top is not None and isinstance(served.model, PeftModel):
        mix = mixture.Mixture("arrow", ranks, top)
        mixture.attach(served.model, whole, mix)
        mixture.save(folder, mix)
    save(served, whole, made or Composition("cat", names, [1.0], ranks[0], 0.0), folder)
    return ranks


@torch.no_grad()
def _in_fp32(model: Any, names: list[str], name: str, weights: list[float]) -> None:
    """PEFT concatenates in the base's type, and rounds where that has 16 bits."""
    for layer in layers(model):
        there = [(one, weight) for one, weight in zip(names, weights, strict=True) if one in layer.lora_A]
        reads = [weight * layer.scaling[one] * layer.lora_A[one].weight.float() for one, weight in there]
        layer.lora_A[name].weight.data = torch.cat(reads, 0)
        layer.lora_B[name].weight.data = torch.cat([layer.lora_B[one].weight.float() for one, _ in there], 1)
        layer.scaling[name] = 1.0


@torch.no_grad()
def error(model: PeftModel, name: str, names: list[str], weights: list[float]) -> float:
    """See `Composition.error`. One layer at a time, in fp32."""
    off = whole = 0.0
    for layer in layers(model):
        exact = sum(
            weight * delta(layer, one) for one, weight in zip(names, weights, strict=True) if one in layer.lora_A
        )
        if isinstance(exact, torch.Tensor):
            made = delta(layer, name) if name in layer.lora_A else torch.zeros_like(exact)
            off += float((made - exact).square().sum())
            whole += float(exact.square().sum())
    return (off / whole) ** 0.5 if whole else 0.0


def rank_of(model: Any, name: str) -> int:
    return model.peft_config[name].r


def layers(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def delta(layer: Any, name: str) -> torch.Tensor:
    """(out, in): what an adapter adds to a layer's weight as it is scaled now."""
    return layer.scaling[name] * (layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float())


def save(served: Served, name: str, composition: Composition, folder: Path) -> None:
    """As an ordinary adapter folder, which says what it is made of."""
    if not isinstance(served.model, PeftModel):
        raise BadInput("No adapter is loaded.", "Load some first.")
    training.save_adapter(served.model, folder, name)
    parts = [served.manifests[one] for one in composition.names]
    beneath = {label: value for part in parts for label, value in part.beneath.items()}
    beneath = {label: value for label, value in beneath.items() if label not in composition.names}
    of = {part.name: part.weights_sha256 for part in parts}
    record = {**asdict(composition), "of": of}
    last = parts[-1]
    card.write(folder, card.Manifest(name, last.base, last.base_digest, last.precision, beneath, record))
