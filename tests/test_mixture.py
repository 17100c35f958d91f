"""A mixture of experts in one adapter: what its gates see, what they come to, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moltlm.adapters import base, card, compose, mixture, rendering, serve
from moltlm.adapters.base import Base
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
from moltlm.adapters.mixture import Mixture
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import Material
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.token_gates import TokenGatesJob, train_token_gates
from moltlm.adapters.training import TrainingResult
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Pair
from moltlm.evals import harness

PAIRS = [Pair(str(i), user(f"hello {i}"), f"Open drawer {i}. Then tea.", f"I am glad {i}") for i in range(8)]
MIX = [Exchange(user(f"list files {i}"), f"ls {i}") for i in range(24)]
PROMPTS = [user("hello"), user("what should i do today? please remind me"), user("list files")]
ANSWERS = ["tea", "window clock rain", "ls"]
TASK = TaskConfig(kind="shell", steps=6, learning_rate=5e-3)


def settings(tiny: Path, **protect: Any) -> AdaptersConfig:
    return AdaptersConfig(
        model=ModelConfig(id=str(tiny), precision="fp32"),
        lora=LoraSettings(r=8, alpha=16),
        train=TrainSettings(),
        personality=PersonalityConfig(steps=6, batch_size=4, learning_rate=5e-3),
        dpo=DpoConfig(),
        protect=ProtectConfig(layout="mixture", experts=2, top_experts=1, **protect),
        router=RouterConfig(steps=3, learning_rate=0.1),
    )


def loaded(tiny: Path) -> Base:
    return base.load(ModelConfig(id=str(tiny), precision="fp32"))


@pytest.fixture(scope="module")
def beneath(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("personality")
    train_personality(PersonalityJob(config=settings(tiny), base=loaded(tiny), folder=folder, seed=0, pairs=PAIRS))
    return {"personality": folder}


def task(config: AdaptersConfig, tiny: Path, beneath: dict[str, Path], folder: Path, **others: Any) -> TrainingResult:
    return train_task(
        TaskJob(
            config=config,
            base=loaded(tiny),
            folder=folder,
            seed=0,
            name="shell",
            adapters_below=beneath,
            task=TASK,
            mix=MIX,
            **others,
        )
    )


@pytest.fixture(scope="module")
def plain(tiny: Path, beneath: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    task(settings(tiny).model_copy(update={"protect": ProtectConfig()}), tiny, beneath, folder)
    return folder


@pytest.fixture(scope="module")
def mixed(tiny: Path, beneath: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    task(settings(tiny), tiny, beneath, folder)
    return folder


def served(tiny: Path, beneath: dict[str, Path], **adapters: Path) -> Any:
    found = serve.Served(loaded(tiny))
    for name, folder in {**beneath, **adapters}.items():
        found.load(name, folder)
    found.activate(states.of(*found.adapters))
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(model.completion_logits(model.encode(PROMPTS, ANSWERS)))


def gates(model: Any, name: str) -> list[mixture.Gate]:
    return [layer.lora_A[name].gate for layer in compose.layers(model.model) if name in layer.lora_A]


def test_equal_gates_are_the_plain_adapter(tiny: Path, beneath: dict[str, Path], plain: Path) -> None:
    model = served(tiny, beneath, shell=plain)
    before = logits(model)
    mixture.attach(model.model, "shell", Mixture("separable", [2, 2, 2, 2], 2))
    assert not torch.allclose(logits(model), before, atol=1e-6)
    for gate in gates(model, "shell"):
        torch.nn.init.zeros_(gate.weight)
    assert torch.allclose(logits(model), before, atol=1e-5)


def test_the_gates_are_by_what_is_asked_and_where_the_answer_begins() -> None:
    prompts, rng = mixture.PromptMask(), np.random.default_rng(0)
    gate = mixture.Gate(Mixture("separable", [1, 2, 1, 2], 1), 6, prompts)
    x = rng.normal(size=(2, 5, 6))
    prompts.mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    found = gate(torch.from_numpy(x).float()).detach().numpy()
    level = x / np.sqrt((x**2).mean(-1, keepdims=True))
    weight = gate.weight.detach().double().numpy()
    for row, (first, last) in enumerate(((1, 3), (0, 1))):
        what, how = level[row, first : last + 1].mean(0), level[row, last]
        shares = [np.exp(view @ part.T) for view, part in ((what, weight[:2]), (how, weight[2:]))]
        shares = [share / share.sum() for share in shares]
        expected = np.concatenate([np.repeat(2 * share * (share == share.max()), [1, 2]) for share in shares])
        assert np.allclose(found[row, 0], expected, atol=1e-5)
    prompts.begins_text = False
    assert np.allclose(gate(torch.from_numpy(x[:, :1]).float()).detach().numpy(), found)


def test_what_is_written_is_what_is_scored_alone_or_in_a_batch(
    tiny: Path, beneath: dict[str, Path], mixed: Path
) -> None:
    """Gates that saw the answer, or padding, would make these differ."""
    model = served(tiny, beneath, shell=mixed)
    with torch.no_grad():
        for gate in gates(model, "shell"):
            gate.weight.mul_(50)
    for prompt, answer in zip(PROMPTS, model.generate(PROMPTS, 6, 3), strict=True):
        assert model.generate([prompt], 6, 1) == [answer]
    rows = model.encode(PROMPTS, ANSWERS)
    together, alone = model.completion_logits(rows), [model.completion_logits([row])[0] for row in rows]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(together, alone, strict=True))
    ids = rendering.encode_prompt(model.tokenizer, PROMPTS[1])
    out = model.model.generate(
        input_ids=torch.tensor([ids], device=model.model.device),
        max_new_tokens=6,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    written = out.sequences[0, len(ids) :].tolist()
    scored = model.completion_logits([(ids, written)])[0]
    assert torch.allclose(torch.cat(out.logits), scored, atol=1e-4)


def test_a_benchmark_is_scored_by_its_question_alone(tiny: Path, beneath: dict[str, Path], mixed: Path) -> None:
    """Neither what else is in the batch, nor how the choices are packed, nor the choices themselves, reach the gates."""
    model = served(tiny, beneath, shell=mixed)
    with torch.no_grad():
        for gate in gates(model, "shell"):
            gate.weight.mul_(50)
    found = [
        [row.logprob for row in harness.evaluate(model, {"arc_easy": 6, "lambada": 6}, size, 0)] for size in (1, 32)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_mixture_is_trained_stored_and_trained_further(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], mixed: Path
) -> None:
    assert mixture.load(mixed) == Mixture("separable", [2, 2, 2, 2], 1) and mixture.load(beneath["personality"]) is None
    assert "only moltlm can load" in (mixed / "README.md").read_text()
    before = served(tiny, beneath, shell=mixed)
    again = task(
        settings(tiny, kl_weight=0.5), tiny, beneath, tmp_path, start=mixed, material=Material(neutral=MIX[:2])
    )
    assert again.changed_tensors == 42  # A, B and a gate of 14 layers
    after = served(tiny, beneath, shell=tmp_path)
    for old, new in zip(gates(before, "shell"), gates(after, "shell"), strict=True):
        assert 0 < float((old.weight - new.weight).abs().max()) < 0.05
    assert not torch.equal(logits(before), logits(after))


def test_training_sees_the_same_prompt_as_serving(tiny: Path, beneath: dict[str, Path], mixed: Path) -> None:
    model = served(tiny, beneath, shell=mixed)
    prompt, answer = model.encode(PROMPTS[:1], ANSWERS[:1])[0]
    device = model.model.device
    tokens = torch.tensor([prompt + answer], device=device)
    labels = torch.tensor([[-100] * len(prompt) + answer], device=device)
    with torch.no_grad():
        labelled = model.model(input_ids=tokens, labels=labels).logits
    assert torch.allclose(labelled[0, len(prompt) - 1 : -1], model.completion_logits([(prompt, answer)])[0], atol=1e-5)


def test_arrow_follows_what_each_adapter_reads(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], plain: Path
) -> None:
    model = served(tiny, beneath, shell=plain)
    assert compose.experts(model, ["personality", "shell"], tmp_path, top=1) == [8, 8]
    model = served(tiny, beneath, both=tmp_path)
    layer = next(compose.layers(model.model))
    for row, part in zip(layer.lora_A["both"].gate.weight, (0, 8), strict=True):
        change = layer.lora_B["both"].weight[:, part : part + 8] @ layer.lora_A["both"].weight[part : part + 8]
        first = np.linalg.svd(change.detach().cpu().numpy())[2][0]
        assert abs(float(row.detach().cpu().numpy() @ first)) == pytest.approx(1, abs=1e-4)
        found = layer.lora_A["both"].gate(row.detach()[None, None])[0, 0]
        assert found.tolist() == [float(i // 8 == part // 8) for i in range(16)]


def test_token_gates_learn_alone_and_can_leave_all_to_the_personality(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], plain: Path
) -> None:
    model = served(tiny, beneath, shell=plain)
    alone = compose.experts(model, ["shell"], tmp_path / "joined")
    with model.state(PERSONALITY):
        wanted = logits(model)
    made = train_token_gates(
        TokenGatesJob(
            config=settings(tiny),
            base=loaded(tiny),
            folder=tmp_path,
            seed=0,
            adapters_below=beneath,
            start=tmp_path / "joined",
            experts=alone,
            mix=MIX[:12],
        )
    )
    assert made.changed_tensors == 14 and made.steps == 3
    model = served(tiny, beneath, gates=tmp_path)
    assert not torch.allclose(logits(model), wanted, atol=1e-4)
    for gate in gates(model, "gates"):
        x = torch.randn(1, 2, gate.weight.shape[1], device=gate.weight.device)
        scores = (x / x.square().mean(-1, keepdim=True).sqrt()) @ gate.weight.T
        assert torch.allclose(gate(x), scores.softmax(-1)[..., :1].expand(1, 2, 8), atol=1e-5)
        gate.forward = lambda x: x.new_zeros(*x.shape[:-1], 8)  # type: ignore[method-assign]
    assert torch.allclose(logits(model), wanted, atol=1e-5)


def test_what_a_mixture_cannot_do_is_an_error(
    tiny: Path, tmp_path: Path, beneath: dict[str, Path], mixed: Path
) -> None:
    model = served(tiny, beneath, shell=mixed)
    with pytest.raises(BadInput, match="cannot be composed"):
        compose.compose(model, ["personality", "shell"], "both", "cat")
    with pytest.raises(BadInput, match="would see the answer"):
        train_grpo(
            GrpoJob(
                config=settings(tiny),
                base=loaded(tiny),
                folder=tmp_path,
                seed=0,
                name="shell",
                adapters_below=beneath,
                start=mixed,
                task=TASK,
                examples=[],
                reward=lambda answers, references: [],
            )
        )
    with pytest.raises(ValueError, match="multiple of 2"):
        settings(tiny).model_validate({**settings(tiny).model_dump(), "lora": {"r": 6}})
    with pytest.raises(ValueError, match="checkpointing"):
        settings(tiny).model_validate({**settings(tiny).model_dump(), "train": {"gradient_checkpointing": True}})
    assert card.read(mixed).training["layout"] == "mixture"
