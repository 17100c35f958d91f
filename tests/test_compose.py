"""Composed adapters: exact ones are the stack, approximate ones are what their papers say, each error is the true one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from moltlm.adapters import base, card, compose, serve, training
from moltlm.adapters.config import ModelConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.state import State

PROMPTS, ANSWERS = [user("hello"), user("what is rain?")], ["a cup of tea", "water"]


def trained(
    tiny: Path, folder: Path, name: str, seed: int, r: int = 4, below: dict[str, str] | None = None, std: float = 0.05
) -> Path:
    """An adapter of noise, as a training would have left it."""
    loaded = base.load(ModelConfig(id=str(tiny), precision="fp32"))
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, config, adapter_name=name)
    torch.manual_seed(seed)
    for key, value in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(value, std=std)
    training.save_adapter(model, folder, name)
    card.write(folder, card.Manifest(name, str(tiny), loaded.digest, "fp32", below or {}))
    return folder


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    ranks = {"personality": 4, "a": 4, "b": 4, "wide": 6}
    return {name: trained(tiny, folder / name, name, i, r) for i, (name, r) in enumerate(ranks.items())}


@pytest.fixture
def served(tiny: Path, folders: dict[str, Path]) -> serve.Served:
    found = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    for name, folder in folders.items():
        found.load(name, folder)
    return found


def logits(served: serve.Served, state: str) -> torch.Tensor:
    rows = served.encode(PROMPTS, ANSWERS)
    with served.state(State.parse(state)), torch.no_grad():
        return torch.cat(served.completion_logits(rows))


def deltas(served: serve.Served, name: str) -> list[np.ndarray]:
    return [compose.delta(layer, name).detach().double().cpu().numpy() for layer in compose.layers(served.model)]


def test_cat_is_the_stack_and_average_its_mean(served: serve.Served) -> None:
    before = logits(served, "a")
    found = compose.compose(served, ["personality", "a", "wide"], "all", "cat")
    assert torch.allclose(logits(served, "all"), logits(served, "personality+a+wide"), atol=1e-4)
    assert found.error < 1e-6 and found.rank == 14
    mean = compose.compose(served, ["a", "b"], "mean", "average")
    assert mean.error < 1e-6
    for one, other, both in zip(*(deltas(served, name) for name in ("a", "b", "mean")), strict=True):
        assert np.allclose(both, (one + other) / 2, atol=1e-6)
    assert torch.equal(logits(served, "a"), before)  # what it is made of stays


def test_svd_loses_what_the_singular_values_beyond_its_rank_hold(served: serve.Served) -> None:
    names, errors = ["a", "b"], []
    total = [one + other for one, other in zip(deltas(served, "a"), deltas(served, "b"), strict=True)]
    for rank in (1, 3, 6, 8):
        found = compose.compose(served, names, f"svd{rank}", "svd", rank=rank)
        values = [np.linalg.svd(one, compute_uv=False) for one in total]
        lost = sum((each[rank:] ** 2).sum() for each in values) / sum((each**2).sum() for each in values)
        assert found.error == pytest.approx(lost**0.5, abs=1e-4)
        errors.append(found.error)
    assert all(one > other for one, other in pairwise(errors)) and errors[-1] < 1e-4


def test_linear_has_the_cross_terms_of_its_halves(served: serve.Served) -> None:
    """sqrt(w) on both sides: (B1 + B2)(A1 + A2) has B1 A2 + B2 A1 too many."""
    found = compose.compose(served, ["a", "b"], "sum", "linear", [0.5, 0.5])
    off = whole = 0.0
    for layer in compose.layers(served.model):
        one, other = (
            (layer.lora_B[name].weight.detach().double(), layer.lora_A[name].weight.detach().double())
            for name in ("a", "b")
        )
        scale = layer.scaling["a"] * 0.5
        off += float((scale * (one[0] @ other[1] + other[0] @ one[1])).square().sum())
        whole += float((scale * (one[0] @ one[1] + other[0] @ other[1])).square().sum())
    assert found.error == pytest.approx((off / whole) ** 0.5, rel=1e-3)
    with pytest.raises(BadInput, match="one rank"):
        compose.compose(served, ["a", "wide"], "no", "linear")


def test_ties_keeps_the_largest_and_the_majority_sign(served: serve.Served) -> None:
    compose.compose(served, ["a", "b"], "ties", "ties", density=0.5, rank=64)
    for one, other, made in zip(*(deltas(served, name) for name in ("a", "b", "ties")), strict=True):
        kept = []
        for change in (one, other):
            flat = np.abs(change).ravel()
            least = np.sort(flat)[::-1][int(0.5 * flat.size) - 1]
            kept.append(np.where(np.abs(change) >= least, change, 0.0))
        stacked = np.stack(kept)
        sign = np.where(stacked.sum(0) >= 0, 1, -1)
        agree = (np.sign(stacked) == sign) & (stacked != 0)
        expected = (stacked * agree).sum(0) / np.maximum(agree.sum(0), 1)
        u, values, v = np.linalg.svd(expected, full_matrices=False)  # the smallest layer has rank 32
        assert np.allclose(made, (u[:, :32] * values[:32]) @ v[:32], atol=1e-4)


def test_dare_drops_at_random_and_rescales(served: serve.Served) -> None:
    """Each entry of a change is 0 or twice itself at a density of half, so the sum is one of four values."""
    compose.compose(served, ["a", "b"], "dare", "dare_linear", density=0.5, rank=64, seed=3)
    for one, other, made in zip(*(deltas(served, name) for name in ("a", "b", "dare")), strict=True):
        choices = np.stack([0 * one, 2 * one, 2 * other, 2 * one + 2 * other])
        if min(made.shape) == 32:  # of larger ones the smaller singular values are lost
            assert np.abs(choices - made).min(0).max() < 1e-3
    again = [
        compose.compose(served, ["a", "b"], name, "dare_ties", seed=s) for name, s in (("x", 1), ("y", 1), ("z", 2))
    ]
    assert again[0].error == again[1].error != again[2].error


def test_a_composed_adapter_is_saved_and_loaded_as_any_other(tiny: Path, tmp_path: Path, served: serve.Served) -> None:
    found = compose.compose(served, ["a", "b"], "both", "svd", rank=3)
    compose.save(served, "both", found, tmp_path / "both")
    again = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    again.load("both", tmp_path / "both")
    assert torch.allclose(logits(again, "both"), logits(served, "both"), atol=1e-5)
    told = card.read(tmp_path / "both").training
    assert told["method"] == "svd" and set(told["of"]) == {"a", "b"} and told["error"] == found.error


def test_scaling_is_live_and_does_not_add_up(served: serve.Served) -> None:
    whole, without = logits(served, "personality+a"), logits(served, "personality")
    served.scale("a", 0.0)
    assert torch.allclose(logits(served, "personality+a"), without, atol=1e-5)
    served.scale("a", 0.5)
    half = logits(served, "personality+a")
    served.scale("a", 0.5)
    assert torch.equal(logits(served, "personality+a"), half)
    served.scale("a", 1.0)
    assert torch.equal(logits(served, "personality+a"), whole)
    with pytest.raises(BadInput, match="No adapter nobody"):
        served.scale("nobody", 1.0)


@pytest.mark.parametrize(("names", "name"), [(["a"], "x"), (["a", "nobody"], "x"), (["a", "b"], "wide")])
def test_what_cannot_be_composed(served: serve.Served, names: list[str], name: str) -> Any:
    with pytest.raises(BadInput, match="cannot be composed"):
        compose.compose(served, names, name, "cat")
