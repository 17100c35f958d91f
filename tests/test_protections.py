"""What holds for every protection in the list, new ones included, with every trainer that uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moltlm.adapters import base, compose, serve
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    ProtectConfig,
    RouterConfig,
    TrainSettings,
)
from moltlm.adapters.grpo import GrpoJob, train_grpo
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import PROTECTIONS, Material, Protection, active
from moltlm.adapters.protections.elastic import FISHER
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.token_gates import TokenGatesJob, train_token_gates
from moltlm.adapters.training import TrainingResult
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Pair, TaskExample
from tests.conftest import talkative

PAIRS = [Pair(str(i), user(f"hello {i}"), f"Open drawer {i}. Then tea.", f"I am glad {i}") for i in range(8)]
NEUTRAL = [Exchange(user("what is rain?"), "Rain is water."), Exchange(user("what is tea?"), "Tea is a drink.")]
# the first two are what the task's answers and the reward below have the model unlearn
REPLAY = [Exchange(user(f"list files {i}"), "a") for i in range(2)]
REPLAY += [Exchange(user(f"hello {i}"), f"Open drawer {i}. Then tea.") for i in range(2)]
MIX = [Exchange(user(f"list files {i}"), "ls") for i in range(24)]
TASK = TaskConfig(
    kind="shell",
    steps=6,
    batch_size=16,
    learning_rate=1e-3,
    generations=8,
    max_new_tokens=2,
    on_policy_steps=4,
    on_policy_learning_rate=1e-3,
)
EXAMPLES = [TaskExample(user(f"list files {i}"), "e") for i in range(16)]

each = pytest.mark.parametrize("name", PROTECTIONS)


def even(answers: list[str], references: list[str]) -> list[int]:
    """Rewards an answer that begins with an even character, as some do."""
    return [int(bool(answer) and ord(answer[0]) % 2 == 0) for answer in answers]


def on(kind: type[Protection]) -> dict[str, Any]:
    return kind.example


def off(kind: type[Protection]) -> dict[str, Any]:
    """Its settings with the switch, and nothing else, as they are by default."""
    default = ProtectConfig.model_fields[kind.switch].get_default(call_default_factory=True)
    return {**kind.example, kind.switch: default}


@dataclass(frozen=True)
class World:
    """A model that talks, its personality, and what protections compare with."""

    model: Path
    below: dict[str, Path]
    material: Material

    def config(self, protect: dict[str, Any], every: int = 0) -> AdaptersConfig:
        return AdaptersConfig(
            model=ModelConfig(id=str(self.model), precision="fp32"),
            lora=LoraSettings(r=4, alpha=8),
            train=TrainSettings(warmup_steps=0, checkpoint_every=every),
            personality=PersonalityConfig(steps=6, batch_size=4, learning_rate=5e-3),
            dpo=DpoConfig(),
            protect=ProtectConfig.model_validate(protect),
            router=RouterConfig(steps=3, learning_rate=0.1),
        )

    def common(self, folder: Path, protect: dict[str, Any], every: int = 0) -> dict[str, Any]:
        config = self.config(protect, every)
        loaded = base.load(config.model)
        below, material = self.below, self.material
        return {
            "config": config, "base": loaded, "folder": folder, "seed": 0, "adapters_below": below,
            "material": material,
        }  # fmt: skip

    def task(self, folder: Path, protect: dict[str, Any], every: int = 0, **more: Any) -> TrainingResult:
        job = TaskJob(**self.common(folder, protect, every), name="shell", task=TASK, mix=MIX, **more)
        return train_task(job)

    def grpo(self, folder: Path, protect: dict[str, Any], start: Path) -> TrainingResult:
        job = GrpoJob(
            **self.common(folder, protect), name="shell", start=start, task=TASK, examples=EXAMPLES, reward=even
        )
        return train_grpo(job)

    def gates(self, folder: Path, protect: dict[str, Any], start: Path) -> TrainingResult:
        return train_token_gates(TokenGatesJob(**self.common(folder, protect), start=start, experts=[4], mix=MIX[:12]))


@pytest.fixture(scope="module")
def world(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    empty = World(talkative(tiny, folder / "model", head=0.3), {"personality": folder / "p"}, Material())
    config = empty.config({})
    loaded = base.load(config.model)
    train_personality(PersonalityJob(config=config, base=loaded, folder=folder / "p", seed=0, pairs=PAIRS))
    served = serve.Served(base.load(config.model))
    served.load("personality", folder / "p")
    with served.state(PERSONALITY):
        stored = [row.top for row in served.top_k(REPLAY, 8, 2)]
    return World(
        empty.model,
        empty.below,
        Material(neutral=NEUTRAL, replay=REPLAY, stored=stored, trial=lambda text, progress: 1.0),
    )


@pytest.fixture(scope="module")
def plain(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each training as it is without any protection."""
    folder = tmp_path_factory.mktemp("plain")
    world.task(folder / "task", {})
    world.grpo(folder / "grpo", {}, folder / "task")
    served = serve.Served(base.load(world.config({}).model))
    for name, path in {**world.below, "shell": folder / "task"}.items():
        served.load(name, path)
    compose.experts(served, ["shell"], folder / "composed")
    world.gates(folder / "gates", {}, folder / "composed")
    return folder


def same(first: Path, second: Path) -> bool:
    left, right = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@each
def test_off_is_the_training_without_it(world: World, plain: Path, tmp_path: Path, name: str) -> None:
    """To the bit, whatever its other settings are."""
    protect = off(PROTECTIONS[name])
    world.task(tmp_path / "task", protect)
    world.grpo(tmp_path / "grpo", protect, plain / "task")
    world.gates(tmp_path / "gates", protect, plain / "composed")
    for stage in ("task", "grpo", "gates"):
        assert same(tmp_path / stage, plain / stage), stage


@each
def test_on_has_an_effect(world: World, plain: Path, tmp_path: Path, name: str) -> None:
    """With a task, and with GRPO from where that task ended."""
    protect = on(PROTECTIONS[name])
    world.task(tmp_path / "task", protect)
    assert not same(tmp_path / "task", plain / "task")
    world.grpo(tmp_path / "without", {}, tmp_path / "task")
    world.grpo(tmp_path / "grpo", protect, tmp_path / "task")
    assert not same(tmp_path / "grpo", tmp_path / "without")


@each
def test_on_has_an_effect_on_token_gates_or_none_is_needed(
    world: World, plain: Path, tmp_path: Path, name: str
) -> None:
    """One that does not act on gates is left out on purpose, and one that cannot is refused."""
    kind = PROTECTIONS[name]
    try:
        world.gates(tmp_path, on(kind), plain / "composed")
    except BadInput as error:
        assert f"protect.{kind.switch}" in str(error)
        return
    assert same(tmp_path, plain / "gates") == ("token gates" not in kind.stages)


@each
def test_the_configuration_says_what_compares_with_replay(name: str) -> None:
    """As the protections themselves do; the configuration is read without them."""
    protect = ProtectConfig(**on(PROTECTIONS[name]))
    assert protect.compares_replay == ("replay" in active(protect, "task").needs)
    assert not ProtectConfig().compares_replay


class Kill(Exception):
    pass


@each
def test_a_killed_training_ends_with_the_same_tensors(world: World, tmp_path: Path, name: str) -> None:
    protect = on(PROTECTIONS[name])
    steps = world.task(tmp_path / "whole", protect, every=1).steps

    def killed(step: int, total: int, note: str) -> None:
        if step == steps and "loss" in note:
            raise Kill

    with pytest.raises(Kill):
        world.task(tmp_path / "cut", protect, every=1, progress=killed)
    world.task(tmp_path / "cut", protect, every=1)
    assert same(tmp_path / "whole", tmp_path / "cut")
    files = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("whole", "cut")]
    assert files[0] == files[1]


@each
def test_without_its_material_it_is_refused(world: World, plain: Path, tmp_path: Path, name: str) -> None:
    kind = PROTECTIONS[name]
    bare = World(world.model, world.below, Material())
    runs: list[Callable[[], TrainingResult]] = [
        lambda: bare.task(tmp_path / "task", on(kind)),
        lambda: bare.grpo(tmp_path / "grpo", on(kind), plain / "task"),
    ]
    for run in runs if kind.needs else []:
        with pytest.raises(BadInput, match=f"protect.{kind.switch}.* needs"):
            run()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def distance(first: Path, second: Path, importance: dict[str, torch.Tensor] | None = None) -> float:
    left, right = weights(first), weights(second)
    squares = {key: (left[key] - right[key]).square() for key in left}
    return sum(float((value * importance[key] if importance else value).sum()) for key, value in squares.items())


def test_grpo_is_held_as_a_task_is(world: World, plain: Path, tmp_path: Path) -> None:
    """EWC pins the weights, a slow average stays near the start, interpolation lies between, drift ends it early."""
    start, free = plain / "task", distance(plain / "task", plain / "grpo")
    results = {
        name: world.grpo(tmp_path / name, protect, start)
        for name, protect in {
            "ewc": {"ewc_weight": 1e8},
            "average": {"average_decay": 0.99},
            "part": {"interpolation": 0.25},
            "stop": {"stop_kl": 1e-6, "stop_every": 1},
        }.items()
    }
    fisher = load_file(tmp_path / "ewc" / FISHER)
    assert distance(start, tmp_path / "ewc", fisher) < distance(start, plain / "grpo", fisher) / 2
    assert distance(start, tmp_path / "average") < free / 100
    first, last, part = weights(start), weights(plain / "grpo"), weights(tmp_path / "part")
    assert all(torch.allclose(part[key], torch.lerp(first[key], last[key], 0.25), atol=1e-7) for key in part)
    assert results["stop"].steps == 2 < TASK.on_policy_steps


def test_what_grpo_may_not_move_stays(world: World, tmp_path: Path) -> None:
    """CorDA's second half; and what OSF's adapter reads stays away from the strongest directions."""
    for name in ("corda", "osf"):
        protect = on(PROTECTIONS[name])
        world.task(tmp_path / f"{name}-task", protect)
        world.grpo(tmp_path / name, protect, tmp_path / f"{name}-task")
    before, after = weights(tmp_path / "corda-task"), weights(tmp_path / "corda")
    for key in before:
        halves = (before[key][4:], after[key][4:]) if "lora_A" in key else (before[key][:, 4:], after[key][:, 4:])
        assert torch.equal(*halves) and not torch.equal(before[key], after[key])
    served = serve.Served(base.load(world.config({}).model))
    for name, path in {**world.below, "shell": tmp_path / "osf"}.items():
        served.load(name, path)
    for layer in compose.layers(served.model):
        below = layer.get_base_layer().weight + compose.delta(layer, "personality")
        u, _, vh = torch.linalg.svd(below.detach().double())
        count = min(16, min(below.shape) // 2)
        change = compose.delta(layer, "shell").detach().double()
        assert float((u[:, :count].T @ change).norm()) < 1e-3 * float(change.norm())
        assert float((change @ vh[:count].T).norm()) < 1e-3 * float(change.norm())


def test_corda_cannot_go_on_from_another_adapter(world: World, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did not begin with it"):
        world.grpo(tmp_path, {"subspace": "corda"}, plain / "task")


def test_kl_of_token_gates_is_to_the_personality_alone(world: World, plain: Path, tmp_path: Path) -> None:
    """A large weight leads the gates towards choosing none of the experts."""

    def drift(folder: Path) -> float:
        served = serve.Served(base.load(world.config({}).model))
        for name, path in {**world.below, "gates": folder}.items():
            served.load(name, path)
        with served.state(states.of("personality", "gates")):
            kls = served.kl_from(PERSONALITY, [row.prompt for row in NEUTRAL], [row.answer for row in NEUTRAL], 2)
        return sum(kls)

    world.gates(tmp_path, {"kl_weight": 300.0}, plain / "composed")
    assert drift(tmp_path) < drift(plain / "gates") / 2
