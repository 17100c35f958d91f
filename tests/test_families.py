"""Families of architectures: no stage is wrong in silence. The benchmark compares each with plain forward passes."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moltlm.adapters import architecture, base, serve, targets
from moltlm.adapters.config import LoraSettings, ModelConfig
from moltlm.data.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "families.py"))
FAMILIES: dict[str, Any] = BENCHMARK["FAMILIES"]
FAST = ("gemma3", "qwen3_moe", "deepseek_v3", "falcon_h1", "seed_oss", "llama4_text", "gpt2")
"""A text model in a wrapper, two mixtures of experts, one with dense layers too, a hybrid, dropout in the base, a router that
is a linear layer, and layers that are none."""


def built(name: str, folder: Path) -> ModelConfig:
    BENCHMARK["build"](FAMILIES[name], folder)
    return ModelConfig(id=str(folder), precision="fp32")


@pytest.mark.parametrize("name", FAST)
def test_every_stage_is_right_or_refused(name: str, tmp_path: Path) -> None:
    cells = BENCHMARK["cells"](FAMILIES[name], "fp32", tmp_path)
    assert set(cells) == set(BENCHMARK["STAGES"]) and all(cell.startswith("ok") for cell in cells.values()), cells


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_is_wrong(name: str, precision: str, tmp_path: Path) -> None:
    cells = BENCHMARK["cells"](FAMILIES[name], precision, tmp_path)
    assert all(cell.startswith(("ok", "refused")) for cell in cells.values()), cells


def test_the_committed_table_is_that_of_its_cells_and_has_no_wrong_one() -> None:
    results = json.loads((ROOT / "docs" / "results" / "families.json").read_text())
    assert set(results["families"]) == set(FAMILIES)
    cells = [cell for rows in results["families"].values() for row in rows.values() for cell in row.values()]
    assert all(cell.startswith(("ok", "refused")) for cell in cells)
    assert BENCHMARK["table"](results) == (ROOT / "docs" / "results" / "families.md").read_text()


@pytest.mark.parametrize(("name", "why"), [("rwkv", "reads padding as text"), ("mamba", "pass adapters by")])
def test_what_cannot_be_trained_is_refused(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        base.load(built(name, tmp_path))


def test_only_the_text_model_of_a_wrapper_gets_a_lora(tmp_path: Path) -> None:
    model = base.load(built("gemma3", tmp_path)).model
    assert all("language_model" in name for name in targets.targets(model, "all-linear"))
    assert all("language_model" in name for name in targets.targets(model, ["q_proj"]))
    assert any("vision_tower" in name for name in targets.left_out(model))


def test_layers_are_named_by_their_endings_or_an_expression(tmp_path: Path) -> None:
    model = base.load(built("llama", tmp_path)).model
    assert targets.targets(model, ["q_proj"]) == [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    assert targets.targets(model, r".*\.1\..*_proj") == targets.targets(model, "all-linear")[7:]
    for wanted in (["Wqkv"], ["q_proj", "Wqkv"]):
        with pytest.raises(BadInput, match=r"target_modules=\['Wqkv'\]") as error:
            targets.targets(model, wanted)
        assert "q_proj" in error.value.fix


def test_a_base_without_dropout_is_the_same_in_training_and_served(tmp_path: Path) -> None:
    loaded = base.load(built("seed_oss", tmp_path))
    text = serve.TextModel(loaded.model, loaded.tokenizer)
    rows = text.encode([[{"role": "user", "content": "hello"}]], ["today"])
    served = text.completion_logits(rows)[0]
    loaded.model.train()
    assert text.completion_logits(rows)[0].equal(served)


def test_an_architecture_is_known_without_its_weights(tmp_path: Path) -> None:
    config = built("qwen3_moe", tmp_path)
    facts = architecture.facts(config, LoraSettings())
    model = base.load(config).model
    assert facts.kind == type(model).__name__ and facts.shape is not None and facts.shape.hidden_size == 64
    assert facts.adapted == ["k_proj", "o_proj", "q_proj", "v_proj"] and any(
        "experts" in name for name in facts.left_out
    )
    quantised = base.load(config.model_copy(update={"precision": "nf4"})).model
    stored = sum(value.numel() for value in quantised.parameters() if value.dtype != torch.uint8)
    assert facts.in_16_bits == pytest.approx(stored / sum(value.numel() for value in model.parameters()))


STORED = {
    "gptq": ({"quant_method": "gptq", "bits": 4}, "fp32", "quantised by gptq"),
    "fp8": ({"quant_method": "fp8"}, "fp32", "quantised by fp8"),
    "nf4 as fp32": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "fp32",
        "stored in nf4",
    ),
    "8 bits": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "nf4", "stored in 8 bits"),
}


@pytest.mark.parametrize("case", STORED)
def test_weights_in_another_quantised_form_are_refused(tiny: Path, tmp_path: Path, case: str) -> None:
    stored, precision, why = STORED[case]
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": stored}))
    with pytest.raises(BadInput, match=why):
        base.load(ModelConfig.model_validate({"id": str(tmp_path / "model"), "precision": precision}))


def test_a_base_that_is_stored_as_nf4_gives_what_it_was_made_from_gives(tiny: Path, tmp_path: Path) -> None:
    config = ModelConfig(id=str(tiny), precision="nf4")
    first = base.load(config)
    first.model.save_pretrained(tmp_path / "stored")
    first.tokenizer.save_pretrained(tmp_path / "stored")
    second = base.load(config.model_copy(update={"id": str(tmp_path / "stored")}))
    tokens = torch.tensor([[5, 9, 12]])
    assert torch.allclose(first.model(tokens).logits.float(), second.model(tokens).logits.float(), atol=1e-2)


@pytest.mark.parametrize(("name", "why"), [("model.gguf", "GGUF"), ("pytorch_model.bin", "can run code")])
def test_weights_of_another_kind_are_refused(tiny: Path, tmp_path: Path, name: str, why: str) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / name)
    with pytest.raises(BadInput, match=why):
        base.load(ModelConfig(id=str(tmp_path / "model"), precision="fp32"))


def changed(folder: Path, name: str, **values: Any) -> None:
    """Put values into a JSON file of a model."""
    (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def with_fewer_tokens(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    cut = {key: value[:100].clone() if value.shape[0] > 256 else value for key, value in weights.items()}
    save_file(cut, folder / "model.safetensors", {"format": "pt"})
    changed(folder, "config.json", vocab_size=100)


def an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def gguf_alone(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "model.gguf").write_bytes(b"GGUF")


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a weight is missing": (without_a_weight, "lacks 1 of its weights"),
    "fewer tokens": (with_fewer_tokens, "tokens that the model, with 100, does not have"),
    "more layers": (lambda folder: changed(folder, "config.json", num_hidden_layers=4), "which would be random"),
    "other shapes": (lambda folder: changed(folder, "config.json", intermediate_size=96), "do not have the shapes"),
    "a pointer": (lambda folder: (folder / "model.safetensors").write_text("version 1"), "cannot be loaded"),
    "an adapter": (an_adapter, "is an adapter"),
    "GGUF alone": (gguf_alone, "GGUF"),
    "nothing": (lambda folder: [file.unlink() for file in folder.iterdir()], "no config.json"),
    "an encoder": (lambda folder: changed(folder, "config.json", model_type="bert"), "does not write on"),
    "two parts": (lambda folder: changed(folder, "config.json", model_type="t5"), "does not write on"),
    "code": (lambda folder: changed(folder, "config.json", model_type="x", auto_map={"AutoConfig": "x.Y"}), "code"),
    "a type of numbers": (lambda folder: changed(folder, "config.json", dtype="float33"), "float33"),
    "quantised somehow": (
        lambda folder: changed(folder, "config.json", quantization_config="gptq"),
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_no_whole_model_are_refused(tiny: Path, tmp_path: Path, case: str) -> None:
    change, why = FOLDERS[case]
    shutil.copytree(tiny, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(BadInput, match=why):
        base.load(ModelConfig(id=str(tmp_path / "model"), precision="fp32"))


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": "<|im_end|>", "repetition_penalty": 5.0},
        {"eos_token_id": [2], "do_sample": False, "temperature": 0.5, "no_repeat_ngram_size": 1},
        {"eos_token_id": 2, "suppress_tokens": [1, 2], "forced_eos_token_id": 2},
    ],
)
def test_what_a_model_says_of_decoding_changes_no_answer(tiny: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings))
    answers = []
    for folder in (tiny, tmp_path / "model"):
        loaded = base.load(ModelConfig(id=str(folder), precision="fp32"))
        text = serve.TextModel(loaded.model, loaded.tokenizer)
        answers.append(text.generate([[{"role": "user", "content": "hello"}]], 8, 1))
    assert answers[0] == answers[1]
