"""Packed tokens give the losses and gradients of padded rows, as TRL computes them, and fewer tokens are computed."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from moltlm.adapters import base, fused, trainers
from moltlm.adapters.config import ModelConfig
from moltlm.data import packing

PROMPT, OTHER = [5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 20, 21]
BATCHES: dict[str, list[tuple[list[int], list[int]]]] = {
    "both sides of pairs": [(PROMPT, [30, 31, 32]), (OTHER, [33] * 9), (PROMPT, [30, 35]), (OTHER, [36])],
    "one answer begins another": [(PROMPT, [40, 41]), (PROMPT, [40, 41, 42, 43]), (PROMPT, [40, 41])],
    "nothing shared": [([50 + k, *PROMPT[: k + 1]], [60 + k] * (k + 1)) for k in range(5)],
    "a single row": [(PROMPT, [44, 45])],
    "a row without a label": [(PROMPT, [44, 45]), (OTHER, [])],
    "long and short": [(PROMPT * 12, [70] * 40), (OTHER, [71]), (PROMPT * 12, [72, 73])],
}


def tiny_model(model_type: str, **changes: Any) -> Any:
    """Random weights, with an adapter whose B is not zero."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        **{"sliding_window": None, **changes},
    )
    base = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(base, lora).train()


def inputs(rows: list[tuple[list[int], list[int]]], side: str = "right") -> dict[str, torch.Tensor]:
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    padded: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, answer in rows:
        tokens, pads = prompt + answer, width - len(prompt) - len(answer)
        columns = {"input_ids": (tokens, 0), "attention_mask": ([1] * len(tokens), 0)}
        columns["labels"] = ([-100] * len(prompt) + answer, -100)
        for name, (values, fill) in columns.items():
            padded[name].append(values + [fill] * pads if side == "right" else [fill] * pads + values)
    return {name: torch.tensor(values) for name, values in padded.items()}


def scored(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities, and the gradients of a sum in which each of them has a weight of its own."""
    log_probs = model(**batch, fused_lm_head=True).log_probs
    weights = torch.linspace(0.5, 1.5, log_probs.numel()).view_as(log_probs)
    (log_probs * weights).sum().backward()
    return log_probs.detach(), {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


def assert_as_trl(model: Any, batch: dict[str, torch.Tensor]) -> None:
    stock = copy.deepcopy(model)
    add_fused_lm_head(stock.get_base_model())
    trainers.add_compact_lm_head(model.get_base_model())
    expected, expected_gradients = scored(stock, batch)
    log_probs, gradients = scored(model, batch)
    torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
def test_losses_and_gradients_are_those_of_trl(rows: list[tuple[list[int], list[int]]]) -> None:
    model = tiny_model("llama")
    assert packing.possible(model.get_base_model())
    assert_as_trl(model, inputs(rows))


@pytest.mark.parametrize("model_type", packing.ARCHITECTURES)
def test_every_architecture_agrees_with_trl(model_type: str) -> None:
    model = tiny_model(model_type)
    assert packing.possible(model.get_base_model())
    assert_as_trl(model, inputs(BATCHES["both sides of pairs"]))


def test_padding_on_the_left_changes_nothing() -> None:
    assert_as_trl(tiny_model("llama"), inputs(BATCHES["long and short"], side="left"))


def test_gradient_checkpointing_changes_nothing() -> None:
    model = tiny_model("llama")
    model.enable_input_require_grads()
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    assert not packing.possible(model.get_base_model())
    assert_as_trl(model, inputs(BATCHES["both sides of pairs"]))


def test_a_shared_beginning_is_computed_once() -> None:
    rows = [prompt + answer for prompt, answer in BATCHES["both sides of pairs"]]
    packed = packing.pack(rows)
    assert [packed.tokens[places[: len(row)]].tolist() for row, places in zip(rows, packed.places, strict=True)] == rows
    beginnings = {tuple(row[: k + 1]) for row in rows for k in range(len(row))}
    assert len(packed.tokens) == len(beginnings) < sum(map(len, rows))
    assert all(packed.positions[packed.places[i, k]] == k for i, row in enumerate(rows) for k in range(len(row)))


def test_every_token_is_a_query_once_and_sees_its_own_beginning() -> None:
    packed = packing.pack([prompt + answer for prompt, answer in BATCHES["long and short"] if answer])
    blocks = packed.blocks
    assert blocks.queries.flatten()[blocks.outputs].tolist() == list(range(len(packed.tokens)))
    visible = (~blocks.hidden).sum(-1).flatten()[blocks.outputs]
    assert visible.tolist() == (packed.positions + 1).tolist()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("mistral", {"sliding_window": 4}), ("llama", {"attention_dropout": 0.1}), ("gpt_neox", {})],
    ids=["sliding window", "dropout", "another architecture"],
)
def test_a_model_that_packing_would_change_is_not_packed(model_type: str, changes: dict[str, Any]) -> None:
    assert not packing.possible(tiny_model(model_type, **changes).get_base_model())


@pytest.mark.parametrize("active", [["default"], ["below", "default"]], ids=["one adapter", "one above a frozen one"])
def test_fused_layers_give_the_outputs_and_gradients_of_peft(active: list[str]) -> None:
    model = tiny_model("llama")
    below = LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model.add_adapter("below", below)
    model.base_model.set_adapter(active)
    for name, value in model.named_parameters():
        value.requires_grad = ".default." in name
    stock = copy.deepcopy(model)
    fused.fuse(model)
    for each in (stock, model):
        trainers.add_compact_lm_head(each.get_base_model())
    batch = inputs(BATCHES["both sides of pairs"])
    expected, expected_gradients = scored(stock, batch)
    log_probs, gradients = scored(model, batch)
    torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_fused_4_bit_layers_that_keep_fp32_weights_give_those_of_peft(tiny: Path) -> None:
    def adapted() -> Any:
        loaded = base.load(ModelConfig(id=str(tiny), precision="nf4", compute_dtype="float32"))
        torch.manual_seed(0)
        config = LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", init_lora_weights=False)
        return get_peft_model(loaded.model, config)

    stock, model = adapted(), adapted()
    fused.fuse(model)
    tokens = torch.tensor([[5, 9, 11, 3, 7], [4, 8, 2, 6, 1]])
    results = []
    for each in (stock, model):
        logits = each(input_ids=tokens).logits
        logits.square().mean().backward()
        gradients = {name: value.grad for name, value in each.named_parameters() if value.requires_grad}
        results.append((logits, gradients))
    (expected, expected_gradients), (logits, gradients) = results
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert "forward" in vars(layer) and gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_fused_layer_leaves_to_peft_what_is_not_plain() -> None:
    model = tiny_model("llama")
    fused.fuse(model)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    x = torch.randn(3, 32)
    inputs_of_a: list[Any] = []
    layer(x)
    assert not inputs_of_a
    layer.lora_A["default"].register_forward_hook(lambda module, args, output: inputs_of_a.append(args))
    layer(x)
    assert len(inputs_of_a) == 1
    with model.disable_adapter():
        torch.testing.assert_close(layer(x), layer.base_layer(x))


@pytest.mark.parametrize("adapter", [True, False], ids=["with an adapter", "with the adapter off"])
@torch.no_grad()
def test_completions_have_the_logits_that_they_have_alone(adapter: bool) -> None:
    model = tiny_model("llama").eval()
    rows = [row for batch in BATCHES.values() for row in batch if row[1]]
    with nullcontext() if adapter else model.disable_adapter():
        packed = packing.completion_logits(model, rows)
        for (prompt, completion), logits in zip(rows, packed, strict=True):
            alone = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
