"""Exports on vLLM: tokens, greedy answers and log-probabilities are those that were trained. Needs `vllm` on the PATH, or VLLM=its path; a CPU
build does: python -m pytest -m slow tests/test_vllm.py"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from moltlm.adapters import export, vllm
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.serve import TextModel
from moltlm.data.served import Server
from moltlm.evals.config import ServedConfig
from tests.servers import LENGTH, MODEL, PROMPTS, posted, serving
from tests.test_compose import trained

VLLM = os.environ.get("VLLM") or shutil.which("vllm") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not VLLM, reason="there is no vllm on the PATH")]
OPTIONS = ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
NEAR = 0.05
"""Nats between log-probabilities in fp32, which vLLM computes by kernels of its own."""


def environment() -> dict[str, str]:
    path = f"{Path(VLLM).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


def logprobs(model: TextModel, tokens: list[int]) -> torch.Tensor:
    """(tokens - 1, vocabulary)"""
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([tokens])).logits[0, :-1]
    return torch.log_softmax(logits.float(), -1)


@pytest.mark.parametrize(("to", "precision"), [("merged", "fp32"), ("vllm", "fp32"), ("vllm", "nf4")])
def test_vllm_answers_as_trained(tmp_path: Path, to: str, precision: str) -> None:
    config = ModelConfig.model_validate({"id": str(MODEL), "precision": precision, "compute_dtype": "float32"})
    folder, base, out = (tmp_path / name for name in ("personality", "base", "out"))
    stack = [trained(MODEL, folder, "personality", 0, std=0.02)]
    if to == "merged":
        export.merged(config, stack, base)
        command, name = [VLLM, "serve", base], str(base)
    else:
        export.merged(config, [], base)
        composition = export.adapter(config, stack, out)
        vllm.write(out, export.base_name(config), export.needs_folder(config), "it", composition.rank)
        command, name = ["sh", out / "serve.sh", base], "it"
    trained_on = export.dequantised(config)
    trained_on.model.float()  # before the adapters are loaded, which would be rounded to its 16 bits
    in_process = export._stacked(trained_on, stack)
    apart, same = 0.0, 0
    with serving([*command, *OPTIONS], environment()) as root:
        server = Server(ServedConfig(url=f"{root}/v1", model=name))
        for prompt in PROMPTS:
            tokens = encode_prompt(in_process.tokenizer, prompt)
            assert server.prompt_tokens(prompt) == tokens
            body = {"model": name, "messages": prompt, "max_tokens": LENGTH, "return_token_ids": True}
            # at vLLM's own defaults, greedy by serve.sh; the base's are those of its generation_config.json
            choice = posted(f"{root}/v1/chat/completions", body if to == "vllm" else {**body, "temperature": 0})
            (choice,) = choice["choices"]
            same += in_process.generate([prompt], LENGTH, 1)[0] == choice["message"]["content"].strip()
            whole = tokens + choice["token_ids"]
            wanted = logprobs(in_process, whole).gather(1, torch.tensor(whole[1:])[:, None])[:, 0]
            (scores,) = server.logprobs([whole])
            apart = max(apart, *(abs(each.logprob - float(value)) for each, value in zip(scores, wanted, strict=True)))
    print(
        f"{to} of {precision}: log-probabilities at most {apart:.4f} apart, {same} of {len(PROMPTS)} answers the same"
    )
    assert apart < NEAR and same == len(PROMPTS)
