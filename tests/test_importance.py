"""What a loaded personality says of an exchange: importance, embeddings, stored distributions, and the buffer of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moltlm.adapters import base, importance
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    TrainSettings,
)
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.serve import Served
from moltlm.data import replay, topk
from moltlm.data.config import ReplayConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.state import BASE, PERSONALITY
from moltlm.data.types import Exchange, Pair
from moltlm.pipeline.stages import buffer

ROWS = [Exchange(user(f"hello {word}"), f"rain on the {word}", word) for word in ("window", "drawer", "clock", "tea")]


@pytest.fixture(scope="module")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The tiny model with a personality trained for a few steps."""
    folder = tmp_path_factory.mktemp("personality")
    model = ModelConfig(id=str(tiny), precision="fp32", max_length=128)
    config = AdaptersConfig(
        model=model,
        lora=LoraSettings(r=4, alpha=8),
        dpo=DpoConfig(kl_weight=0.0),
        train=TrainSettings(warmup_steps=0, gradient_checkpointing=False, gradient_accumulation=1),
        personality=PersonalityConfig(method="sft", steps=20, batch_size=4, learning_rate=1e-2),
    )
    pairs = [Pair(str(i), row.prompt, row.answer, "x") for i, row in enumerate(ROWS)]
    train_personality(PersonalityJob(config=config, base=base.load(model), folder=folder, seed=0, pairs=pairs))
    found = Served(base.load(model))
    found.load("personality", folder)
    return found


def test_importance_is_what_it_says(served: Served) -> None:
    kl = importance.measure(served, "kl", ROWS, 2)
    margin = importance.measure(served, "margin", ROWS, 2)
    for row, value, gain in zip(ROWS, kl, margin, strict=True):
        rows = served.encode([row.prompt], [row.answer])
        with torch.no_grad(), served.state(PERSONALITY):
            ours = torch.log_softmax(served.completion_logits(rows)[0].double(), -1)
        with torch.no_grad(), served.state(BASE):
            theirs = torch.log_softmax(served.completion_logits(rows)[0].double(), -1)
        target = torch.tensor(rows[0][1], device=ours.device)[:, None]
        assert value == pytest.approx(float((ours.exp() * (ours - theirs)).sum(-1).mean()), rel=1e-3)
        assert gain == pytest.approx(float((ours - theirs).gather(1, target).mean()), rel=1e-3, abs=1e-4)
    assert (kl > 0).all() and margin.mean() > 0.1


def test_gradient_alignment_is_the_cosine_with_all_others(served: Served) -> None:
    """Against whole gradients from autograd, the same prompts one by one; the sketch adds a little noise."""
    rows = [*ROWS, Exchange(user("list files"), "what what what what", "odd")]
    found = importance.measure(served, "gradient", rows, 2)
    gradients = []
    with served.state(PERSONALITY):
        weights = [p for n, p in served.model.named_parameters() if ".personality." in n and ".layers.1." in n]
        for row in rows:
            for weight in weights:
                weight.requires_grad_(True)
            prompt = encode_prompt(served.tokenizer, row.prompt)
            answer = served.tokenizer(row.answer, add_special_tokens=False)["input_ids"]
            tokens = torch.tensor([prompt + answer], device=served.model.device)
            logits = served.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, len(prompt) :])
            gradients.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]).double().cpu().numpy()
            )
            for weight in weights:
                weight.requires_grad_(False)
    whole = importance.leave_one_out_cosine(np.stack(gradients))
    assert np.abs(found - whole).max() < 0.05
    assert found[-1] == min(found)
    assert not any(parameter.requires_grad for parameter in served.model.parameters())


def test_the_sum_of_others_leaves_oneself_out() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    assert importance.leave_one_out_cosine(rows) == pytest.approx([0, 2 / 5**0.5, 1 / 2**0.5])


def test_stored_distributions_are_those_of_the_state(served: Served) -> None:
    with served.state(PERSONALITY):
        found = served.top_k(ROWS, 5, 3)
        rows = served.encode([row.prompt for row in ROWS], [row.answer for row in ROWS])
        with torch.no_grad():
            exact = [torch.log_softmax(served.completion_logits([row])[0].float(), -1).cpu() for row in rows]
    for row, logp in zip(found, exact, strict=True):
        top = logp.topk(5)
        assert np.allclose(row.top.logprobs, top.values.numpy(), atol=1e-4)
        mass = np.exp(row.top.logprobs).sum(1) + np.exp(row.top.log_tail)
        assert np.allclose(mass, 1, atol=1e-4)
        entropy = -(np.exp(row.top.logprobs) * row.top.logprobs).sum(1) - row.tail_plogp
        assert np.allclose(entropy, torch.special.entr(logp.exp()).sum(-1).numpy(), atol=1e-3)


def test_embeddings_depend_on_the_text_alone(served: Served) -> None:
    texts = ["rain on the window", "rain on the drawer", "list files please", ""]
    found = served.embed(texts)
    assert found.shape == (4, 64)
    assert np.allclose(np.linalg.norm(found[:3], axis=1), 1, atol=1e-5) and not found[3].any()
    with served.state(PERSONALITY):
        assert (served.embed([texts[1]])[0] == found[1]).all()
    assert found[0] @ found[1] > found[0] @ found[2]


def test_a_sampled_answer_is_the_same_for_a_seed(served: Served) -> None:
    prompts = [row.prompt for row in ROWS]
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one = served.generate(prompts, 12, 4, temperature=1.0, seed=3)
    assert torch.rand(1) == before  # the surroundings' randomness is left alone
    assert one == served.generate(prompts, 12, 4, temperature=1.0, seed=3)
    assert one != served.generate(prompts, 12, 4, temperature=1.0, seed=4)
    assert served.generate(prompts, 12, 4) == served.generate(prompts, 12, 4)


@pytest.mark.parametrize("kind", ["kl", "margin", "gradient"])
def test_a_buffer_is_built_and_updated(served: Served, tmp_path: Path, kind: str) -> None:
    config = ReplayConfig(budget_tokens=60, importance=kind, top_k=4)  # type: ignore[arg-type]
    facts = buffer.build(served, ROWS, config, 0, 2, tmp_path / "one")
    first = replay.load(tmp_path / "one")
    assert facts["kept"] == len(first.items) and first.tokens <= 60
    assert set(first.distributions) == {item.id for item in first.items}
    assert facts["kl_error"] > facts["kl_rounding"] >= 0 and facts["bytes_per_exchange"]["distribution"] > 0
    more = [Exchange(user("list files please"), "tea and rain", "new"), ROWS[0]]
    facts = buffer.build(served, more, config, 0, 2, tmp_path / "two", start=first)
    second = replay.load(tmp_path / "two")
    assert second.offered == 6 and facts["candidates"] == 2
    assert set(second.distributions) == {item.id for item in second.items}
    for row in second.distributions.values():
        assert isinstance(row, topk.TopK)


def test_what_is_too_long_is_counted(served: Served, tmp_path: Path) -> None:
    long = Exchange(user("hello " * 40), "rain", "long")
    facts = buffer.build(served, [*ROWS, long], ReplayConfig(budget_tokens=60, max_tokens=30), 0, 2, tmp_path)
    assert facts["too_long"] == 1 and facts["candidates"] == 4
    with pytest.raises(BadInput, match="No exchange fits"):
        buffer.build(served, [long], ReplayConfig(max_tokens=16), 0, 2, tmp_path)
