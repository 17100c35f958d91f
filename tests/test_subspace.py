"""Adapters that learn in a part of weight space only: which part, and that they stay in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from moltlm.adapters import base, compose, serve, stack
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    ProtectConfig,
    TrainSettings,
)
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import Material, active, corda
from moltlm.adapters.protections.layers import dequantize_module_weight
from moltlm.adapters.task import TaskJob, train_task
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.types import Exchange, Pair

PAIRS = [Pair(str(i), user(f"hello {i}"), f"Open drawer {i}. Then tea.", f"I am glad {i}") for i in range(8)]
REPLAY = [Exchange(user(f"hello {i}"), f"Open drawer {i}. Then tea.") for i in range(3)]
MIX = [Exchange(user(f"list files {i}"), "ls") for i in range(24)]
TASK = TaskConfig(kind="shell", steps=6, learning_rate=5e-3)


def settings(tiny: Path, precision: str = "fp32", **protect: object) -> AdaptersConfig:
    return AdaptersConfig(
        model=ModelConfig(id=str(tiny), precision=precision),  # type: ignore[arg-type]
        lora=LoraSettings(r=4, alpha=8),
        train=TrainSettings(warmup_steps=0),
        personality=PersonalityConfig(steps=6, batch_size=4, learning_rate=5e-3),
        dpo=DpoConfig(),
        protect=ProtectConfig.model_validate(protect),
    )


@pytest.fixture(scope="module")
def beneath(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("personality")
    config = settings(tiny)
    train_personality(PersonalityJob(config=config, base=base.load(config.model), folder=folder, seed=0, pairs=PAIRS))
    return {"personality": folder}


def job(config: AdaptersConfig, beneath: dict[str, Path], folder: Path, **changes: Any) -> TaskJob:
    return TaskJob(
        config=config,
        base=base.load(config.model),
        folder=folder,
        seed=0,
        name="shell",
        adapters_below=beneath,
        task=TASK,
        mix=MIX,
        **changes,
    )


def trained(config: AdaptersConfig, beneath: dict[str, Path], folder: Path, start: Path | None = None) -> PeftModel:
    """The model with personality and task, as they are served afterwards."""
    train_task(job(config, beneath, folder, start=start, material=Material(replay=REPLAY)))
    served = serve.Served(base.load(config.model))
    for name, path in {**beneath, "shell": folder}.items():
        served.load(name, path)
    served.activate(states.of("personality", "shell"))
    assert isinstance(served.model, PeftModel)
    return served.model


def weight(layer: torch.nn.Module) -> np.ndarray:
    """Of the base with the personality, in float64."""
    plain = dequantize_module_weight(layer.get_base_layer()).double()  # type: ignore[operator]
    return (plain + compose.delta(layer, "personality").double()).detach().cpu().numpy()


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_osf_leaves_the_strongest_directions_alone(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], precision: str
) -> None:
    config = settings(tiny, precision, subspace="osf", subspace_directions=16)
    model = trained(config, beneath, tmp_path)
    for layer in compose.layers(model):
        u, _, vh = np.linalg.svd(weight(layer))
        most = min(16, min(layer.in_features, layer.out_features) // 2)
        change = compose.delta(layer, "shell").detach().cpu()
        size = float(change.norm())
        assert size > 1e-4
        assert np.linalg.norm(u[:, :most].T @ change.numpy()) < 1e-3 * size
        assert np.linalg.norm(change.numpy() @ vh[:most].T) < 1e-3 * size


def test_corda_begins_where_it_matters_least_and_takes_that_off_for_good(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path]
) -> None:
    config = settings(tiny, subspace="corda")
    task, protections = job(config, beneath, tmp_path, material=Material(replay=REPLAY)), active(config.protect, "task")
    model, _ = stack.trainable_above(task, protections)
    text = serve.TextModel(model, base.load_text(config.model).tokenizer)
    rows = text.encode([item.prompt for item in REPLAY], [item.answer for item in REPLAY])
    with torch.no_grad():
        before = text.completion_logits(rows)
    read: dict[int, list[np.ndarray]] = {}
    layers = list(compose.layers(model))
    hooks = [
        layer.register_forward_hook(
            lambda module, inputs, output, place=place: read.setdefault(place, []).append(
                inputs[0][0].double().cpu().numpy()
            )
        )
        for place, layer in enumerate(layers)
    ]
    with torch.no_grad():
        for row in rows:
            text.completion_logits([row])
    for hook in hooks:
        hook.remove()
    protections.start(task.context(model, "task"))
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, text.completion_logits(rows), strict=True))
    for place in (0, 6, 13):
        layer, x = layers[place], np.concatenate(read[place])
        covariance = x.T @ x / len(x)
        covariance += corda.DAMPING * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        u, s, vh = np.linalg.svd(weight(layer) @ covariance, full_matrices=False)
        least = (u[:, -4:] * s[-4:]) @ vh[-4:] @ np.linalg.inv(covariance)
        a, b = layer.lora_A["shell"].weight.detach()[:4], layer.lora_B["shell"].weight.detach()[:, :4]
        made = layer.scaling["shell"] * (b @ a).double().cpu().numpy()
        assert np.abs(made - least).max() < 1e-3 * np.abs(weight(layer)).max()


def test_the_part_that_was_taken_off_never_moves(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    config = settings(tiny, "nf4", subspace="corda", average_decay=0.5)
    first = trained(config, beneath, tmp_path / "first")
    second = trained(config, beneath, tmp_path / "second", start=tmp_path / "first")
    for one, two in zip(compose.layers(first), compose.layers(second), strict=True):
        assert one.r["shell"] == 8 and one.scaling["shell"] == one.scaling["personality"]
        assert torch.equal(one.lora_A["shell"].weight[4:], two.lora_A["shell"].weight[4:])
        assert torch.equal(one.lora_B["shell"].weight[:, 4:], two.lora_B["shell"].weight[:, 4:])
        assert not torch.equal(one.lora_B["shell"].weight[:, :4], -one.lora_B["shell"].weight[:, 4:])
        assert not torch.equal(one.lora_B["shell"].weight[:, :4], two.lora_B["shell"].weight[:, :4])


def test_corda_without_anything_to_keep_is_an_error(tiny: Path, tmp_path: Path, beneath: dict[str, Path]) -> None:
    config = settings(tiny, subspace="corda")
    with pytest.raises(BadInput, match="subspace=corda needs replayed"):
        train_task(job(config, beneath, tmp_path))
    with pytest.raises(ValueError, match="subspace=none"):
        settings(tiny, layout="mixture", experts=2, subspace="osf")
