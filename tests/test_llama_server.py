"""Exports on llama.cpp's server: tokens, greedy answers and log-probabilities are ours. Needs `llama-server` on the PATH, or
LLAMA_SERVER=its path: python -m pytest -m slow tests/test_llama_server.py"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from moltlm.adapters import export
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.rendering import encode_prompt
from moltlm.data.persona import user
from moltlm.data.served import Server
from moltlm.data.types import Message
from moltlm.evals.config import ServedConfig
from tests.test_compose import trained

LLAMA_SERVER = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LLAMA_SERVER, reason="there is no llama-server on the PATH")]
MODEL = Path("smollm2-135m-instruct")
LENGTH = 24
PROMPTS: list[list[Message]] = [
    user("I missed my train."),
    user("What is 1234 + 5678?  Say it in  words, s'il vous plaît — 请.\n\n\tThanks"),
    [
        {"role": "system", "content": "You are a cat."},
        *user("hello"),
        {"role": "assistant", "content": "Meow."},
        *user("And?"),
    ],
]


@contextmanager
def serving(*options: str | Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [LLAMA_SERVER, *map(str, options), "--host", "127.0.0.1", "--port", str(port), "-c", "1024"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "llama-server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def completed(root: str, tokens: list[int]) -> dict[str, Any]:
    """Greedy continuation of tokens, with the log-probability of each."""
    body = {"prompt": tokens, "n_predict": LENGTH, "temperature": 0, "n_probs": 1, "return_tokens": True}
    request = urllib.request.Request(
        f"{root}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))


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
    with serving(*options) as root:
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
