"""Exports in llama.cpp, which Ollama runs on. Needs llama-cpp-python, and LLAMA_CPP=a folder with llama.cpp's source, for
its converters: LLAMA_CPP=... python -m pytest tests/test_llama_cpp.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from moltlm.adapters import base, card, export, serve
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.llama_cpp import lora
from tests.test_compose import trained
from tests.test_export import ANSWERS, PROMPTS

pytestmark = pytest.mark.slow
SOURCE = os.environ.get("LLAMA_CPP", "")
MODEL = Path("smollm2-135m-instruct")


def converted(script: str, out: Path, *arguments: str | Path) -> Path:
    command = [sys.executable, Path(SOURCE) / script, *arguments, "--outtype", "f32", "--outfile", out]
    path = os.pathsep.join([f"{SOURCE}/gguf-py", SOURCE, *sys.path])
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "PYTHONPATH": path})
    return out


def logprobs(model: Any, rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    found = []
    for prompt, answer in rows:
        model.reset()
        model.eval([*prompt, *answer])
        places = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        found.append(torch.log_softmax(torch.tensor(model.scores[places]), -1))
    return torch.cat(found)


@pytest.mark.skipif(not SOURCE, reason="LLAMA_CPP names no folder")
@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_llama_cpp_gives_what_was_trained(tmp_path: Path, precision: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    config = ModelConfig.model_validate({"id": str(MODEL), "precision": precision})
    personality = trained(MODEL, tmp_path / "personality", "personality", 0, std=0.04)
    below = {"personality": card.weights_hash(personality)}
    stack = [personality, trained(MODEL, tmp_path / "task", "task", 1, 6, below, std=0.04)]
    export.adapter(config, stack, tmp_path / "adapter")
    export.merged(config, stack, tmp_path / "merged")

    quantised, plain = export.dequantised(config), base.load(config, "fp32")
    plain.model.load_state_dict({name: value.float() for name, value in quantised.model.state_dict().items()})
    plain.model.save_pretrained(tmp_path / "base")
    plain.tokenizer.save_pretrained(tmp_path / "base")
    rows = serve.TextModel(plain.model, plain.tokenizer).encode(PROMPTS, ANSWERS)
    wanted = export._logprobs(export._stacked(plain, stack), PROMPTS, ANSWERS)

    alone = converted("convert_hf_to_gguf.py", tmp_path / "base.gguf", tmp_path / "base")
    merged = converted("convert_hf_to_gguf.py", tmp_path / "merged.gguf", tmp_path / "merged")
    above = converted(
        "convert_lora_to_gguf.py", tmp_path / "adapter.gguf", "--base", tmp_path / "base", tmp_path / "adapter"
    )
    away = {}
    for name, files in {
        "base": {"model_path": str(alone)},
        "merged": {"model_path": str(merged)},
        "adapter": {"model_path": str(alone), "lora_path": str(above)},
    }.items():
        model = llama_cpp.Llama(**files, logits_all=True, n_ctx=128, verbose=False)
        away[name] = export._difference(wanted, logprobs(model, rows))[0]
        model.close()
    print(precision, away)
    assert away["adapter"] < 1e-4 and away["merged"] < export.AGREES and away["base"] > 5 * export.AGREES


FAMILIES = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "smollm3": {"pad_token_id": 0},
    "granite": {},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "phi3": {"pad_token_id": 0},
    "olmo2": {"pad_token_id": 0},
}


@pytest.mark.skipif(not SOURCE, reason="LLAMA_CPP names no folder")
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_adapter_is_written_as_llama_cpps_converter_does(tmp_path: Path, kind: str) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 2, "vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2}
    config: Any = AutoConfig.for_model(kind, **shape, **rest, **FAMILIES[kind])
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    for key, value in adapted.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(value)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    arguments = ("--base", tmp_path / "base", tmp_path / "adapter")
    wanted = GGUFReader(converted("convert_lora_to_gguf.py", tmp_path / "wanted.gguf", *arguments))
    lora.write(tmp_path / "adapter", config, tmp_path / "ours.gguf", "it")
    ours = GGUFReader(tmp_path / "ours.gguf")
    assert {tensor.name for tensor in ours.tensors} == {tensor.name for tensor in wanted.tensors}
    values = {tensor.name: tensor.data for tensor in wanted.tensors}
    assert all((tensor.data == values[tensor.name]).all() for tensor in ours.tensors)
    for field in ("general.architecture", "adapter.lora.alpha", "adapter.type", "general.type"):
        assert ours.fields[field].contents() == wanted.fields[field].contents()
