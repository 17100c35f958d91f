"""Answers of a batch whose ended rows are dropped, and whose common beginnings are read once, are those that
transformers generates for each prompt alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_packing import tiny_model
from transformers import GenerationConfig

from moltlm.adapters import base, decoding, fused, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data import packing
from moltlm.data.persona import user
from moltlm.data.state import BASE, PERSONALITY, State

SYSTEM = [7, 8, 9, 10, 11, 12]
PROMPTS = [[*SYSTEM, *row] for row in ([20], [21, 22, 23], [21, 22, 24, 25], [26] * 9)] + [[30, 31]]
LENGTH = 24


def model_that_stops(model_type: str) -> tuple[Any, list[int]]:
    """Random weights with large logits, and tokens that end an answer: what it writes at step 2, 5, 8 and so on."""
    model = tiny_model(model_type, tie_word_embeddings=False).eval()
    torch.manual_seed(2)
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=1.0)
    endless = [generated(model, [prompt], [], do_sample=False)[0] for prompt in PROMPTS]
    return model, [row[3 * place + 2] for place, row in enumerate(endless)]


def generated(model: Any, prompts: list[list[int]], stops: list[int], **options: Any) -> list[list[int]]:
    """By transformers, without what is padded after a row has ended."""
    model.get_base_model().generation_config = GenerationConfig(eos_token_id=stops or None, pad_token_id=0)
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    out = model.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=LENGTH, **options)[:, width:]
    rows = []
    for row in out.tolist():
        ends = [place for place, token in enumerate(row) if token in stops]
        rows.append(row[: ends[0] + 1] if ends else row)
    return rows


@pytest.mark.parametrize("model_type", packing.ARCHITECTURES)
def test_a_batch_with_dropped_rows_gives_the_tokens_of_each_prompt_alone(model_type: str) -> None:
    model, stops = model_that_stops(model_type)
    alone = [generated(model, [prompt], stops, do_sample=False)[0] for prompt in PROMPTS]
    assert len({len(row) for row in alone}) > 1  # rows end at different steps
    assert decoding.generate(model, PROMPTS, LENGTH, stops) == alone
    fused.fuse(model)
    assert decoding.generate(model, PROMPTS, LENGTH, stops) == alone


def test_samples_are_those_of_transformers_for_the_same_seed() -> None:
    model, stops = model_that_stops("llama")
    with serve.seeded(5):
        expected = generated(model, PROMPTS, stops, **serve.sampling(0.8))
    assert len({len(row) for row in expected}) > 1
    with serve.seeded(5):
        assert decoding.generate(model, PROMPTS, LENGTH, stops, 0.8) == expected


def test_no_token_is_computed_after_a_row_has_ended_nor_a_beginning_twice() -> None:
    model, stops = model_that_stops("llama")
    computed = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, args: computed.append(args[0].shape[:2].numel()))
    written = decoding.generate(model, PROMPTS, LENGTH, stops)
    beginnings = {tuple(prompt[: k + 1]) for prompt in PROMPTS for k in range(len(prompt))}
    # the last token of a row is never read
    assert sum(computed) == len(beginnings) + sum(len(row) - 1 for row in written)


def logprobs(served: serve.Served, state: State, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """(answer tokens, vocabulary), by a plain forward pass."""
    with served.state(state), torch.no_grad():
        logits = served.model(torch.tensor([prompt + answer])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("packed", [True, False])
def test_a_state_is_scored_and_compared_with_the_base_in_one_pass(
    tiny: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "possible", lambda model: packed)
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    served.model = get_peft_model(served.model, lora, adapter_name="personality")
    served.activate(BASE)
    prompts = [user("hello, what should i do?"), user("tea"), user("tea")]
    answers = ["rain", "tea in the window", "please"]
    with served.state(PERSONALITY):
        first = served.score_against(BASE, prompts, answers, 2)
        again = served.score_against(BASE, prompts, answers, 3)
    for (prompt, answer), one, other in zip(served.encode(prompts, answers), first, again, strict=True):
        p, q = (logprobs(served, state, prompt, answer) for state in (BASE, PERSONALITY))
        expected = float((p.exp() * (p - q)).sum(-1).mean())
        assert expected > 1e-3
        for row in (one, other):
            assert row.kl == pytest.approx(expected, abs=1e-4)
            assert row.score.logprob == pytest.approx(float(q[range(len(answer)), answer].sum()), abs=1e-3)


def test_what_the_base_says_of_a_continuation_is_computed_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    starts, texts = ["Answer: tea\nQuestion:", "Answer:"], [["what", "hello"], ["rain"]]
    first = served.score_continuations(starts, texts, 2)
    monkeypatch.setattr(packing, "completion_states", None)
    assert served.score_continuations(starts, texts, 2) == first
    with pytest.raises(TypeError):
        served.score_continuations(["Answer: rain\nQuestion:"], [["what"]], 2)
