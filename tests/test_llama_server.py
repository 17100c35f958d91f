"""Exports on llama.cpp's server: tokens, greedy answers and log-probabilities are ours. Needs `llama-server` on the PATH, or
LLAMA_SERVER=its path: python -m pytest -m slow tests/test_llama_server.py"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from moltlm.adapters import export
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.rendering import encode_prompt
from moltlm.data.served import Server
from moltlm.evals.config import ServedConfig
from tests.servers import LENGTH, MODEL, PROMPTS, posted, serving
from tests.test_compose import trained

LLAMA_SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LLAMA_SERVER, reason="there is no llama-server on the PATH")]


def completed(root: str, tokens: list[int]) -> dict[str, Any]:
    """Greedy continuation of tokens, with the log-probability of each."""
    body = {"prompt": tokens, "n_predict": LENGTH, "temperature": 0, "n_probs": 1, "return_tokens": True}
    return posted(f"{root}/completion", body)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [trained(MODEL, folder / "personality", "personality", 0, std=0.02)]


@pytest.mark.parametrize("to", ["gguf", "gguf-adapter"])
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_llama_server_answers_as_trained(tmp_path: Path, stack: list[Path], to: str, precision: str) -> None:
    config = ModelConfig.model_validate({"id": str(MODEL), "precision": precision, "compute_dtype": "float32"})
    if to == "gguf":
        export.gguf(config, stack, tmp_path, "F16", "it")
        options = ["-m", tmp_path / export.MODEL_FILE]
    else:
        export.gguf(config, [], tmp_path / "base", "F16", "it")
        export.adapter(config, stack, tmp_path / "adapter")
        export.gguf_adapter(config, tmp_path / "adapter", "it")
        options = ["-m", tmp_path / "base" / export.MODEL_FILE, "--lora", tmp_path / "adapter" / export.ADAPTER_FILE]
        options += ["--chat-template-file", tmp_path / "adapter" / export.TEMPLATE_FILE]
    ours = export._stacked(export.dequantised(config), stack)
    ours.model.float()
    apart, same = 0.0, 0
    with serving([LLAMA_SERVER, *options, "-c", "1024"]) as root:
        server = Server(ServedConfig(url=f"{root}/v1"))
        for prompt in PROMPTS:
            tokens = encode_prompt(ours.tokenizer, prompt)
            assert server.prompt_tokens(prompt) == tokens
            reply = completed(root, tokens)
            answer = reply["tokens"]
            with torch.no_grad():
                logits = ours.model(input_ids=torch.tensor([tokens + answer])).logits[0, len(tokens) - 1 : -1]
            logprobs = torch.log_softmax(logits.float(), -1)
            place = -1
            for each in reply["completion_probabilities"]:
                # tokens that are one character only together have one entry, of the last of them
                place = answer.index(each["id"], place + 1)
                apart = max(apart, abs(each["logprob"] - float(logprobs[place, each["id"]])))
            same += ours.generate([prompt], LENGTH, 1)[0] == reply["content"].strip()
    print(
        f"{to} of {precision}: log-probabilities at most {apart:.4f} apart, {same} of {len(PROMPTS)} answers the same"
    )
    # a 4-bit base is dequantised to bf16, in which merged weights are rounded
    assert apart < (0.3 if (to, precision) == ("gguf", "nf4") else 0.05) and same == len(PROMPTS)
