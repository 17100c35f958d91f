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

from moltlm.adapters import base, card, export, serve
from moltlm.adapters.config import ModelConfig
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
