"""What leaves the house: merged weights, one adapter folder, files for Ollama and vLLM. Each is loaded again and
compared with what was trained: the adapters on the base's own weights, those of a 4-bit base dequantised."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from moltlm.adapters import base as bases
from moltlm.adapters import card, compose, training
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.serve import Served, TextModel
from moltlm.data import state as states
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import write_text
from moltlm.data.types import Message

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
WHOLE = "exported"
AGREES = 0.02
"""Mean KL in nats a token that an export may be away from what was trained: 16-bit rounding of merged weights costs a
hundredth at most here; an adapter that is missing or scaled wrongly costs tenths."""


@dataclass(frozen=True)
class Check:
    """`kl`: mean KL(trained || exported), nats a token; `largest`: the largest difference of a log-probability.
    `shift`: mean KL from the adapters on a 4-bit base to the same on the original weights; None for another base."""

    kl: float
    largest: float
    shift: float | None


def dequantised(config: ModelConfig) -> bases.Base:
    """The base in 16 bits, with the values that its 4-bit weights have; as it is, if it is not quantised."""
    found = bases.load(config)
    if config.precision == "nf4":
        found.model.dequantize()
        found.model.to(torch.bfloat16)
    return bases.Base(found.model, found.tokenizer, found.digest)


def merged(config: ModelConfig, folders: list[Path], out: Path) -> None:
    """The base with the adapters merged in, as safetensors with the tokenizer: 16 bits, or 32 of an fp32 base. Of a
    4-bit base the dequantised weights are taken, which the adapters were trained on; never merged into 4 bits."""
    served = _stacked(dequantised(config), folders)
    model: Any = served.model
    model.base_model.set_adapter(served.adapters)
    whole = model.merge_and_unload(adapter_names=served.adapters)
    # what was quantised once is plain now
    for thing in (whole.config, whole):
        for name in ("quantization_config", "hf_quantizer", "quantization_method"):
            if getattr(thing, name, None) is not None:
                delattr(thing, name)
    whole.is_quantized = False
    whole.save_pretrained(out)
    served.tokenizer.save_pretrained(out)


def adapter(
    config: ModelConfig, folders: list[Path], out: Path, method: compose.Method = "cat", rank: int | None = None
) -> compose.Composition:
    """One adapter made of these: by cat exactly their stack, by another method near it, with the error that it has."""
    served = _stacked(bases.load(config), folders)
    model, names = served.model, served.adapters
    if len(names) == 1 and isinstance(model, PeftModel):
        training.save_adapter(model, out, names[0])
        card.write(out, served.manifests[names[0]])
        return compose.Composition("cat", names, [1.0], compose.rank_of(model, names[0]), 0.0)
    made = compose.compose(served, names, WHOLE, method, rank=rank)
    compose.save(served, WHOLE, made, out)
    return made


def ollama(base: str, out: Path) -> None:
    """A Modelfile beside the adapter in `out`: ollama create NAME -f Modelfile."""
    lines = ["# FROM: the same base, as a name that Ollama knows or a folder with its safetensors"]
    lines += [f"FROM {base}", "ADAPTER .", "PARAMETER temperature 0.7"]
    write_text(out / "Modelfile", "\n".join(lines) + "\n")


def vllm(base: str, name: str, rank: int, out: Path) -> None:
    """serve.sh beside the adapter in `out`. Raises BadInput for a rank that vLLM does not take."""
    allowed = next((most for most in VLLM_RANKS if most >= rank), None)
    if allowed is None:
        raise BadInput(f"vLLM takes adapters up to rank {VLLM_RANKS[-1]}, and this has {rank}.", "Use --to merged.")
    line = f'vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {allowed} --lora-modules {name}="$here"'
    write_text(out / "serve.sh", f'#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\nexec {line}\n')


def check(
    config: ModelConfig,
    folders: list[Path],
    out: Path,
    prompts: list[list[Message]],
    answers: list[str],
    limit: float = AGREES,
) -> Check:
    """Load the export in `out` and compare it with the stack. Raises MoltError when the KL is above `limit`."""
    wanted = _logprobs(_stacked(dequantised(config), folders), prompts, answers)
    if (out / "adapter_config.json").is_file():
        found = _logprobs(_stacked(dequantised(config), [out]), prompts, answers)
    else:
        precision = "fp32" if config.precision == "fp32" else "bf16"
        plain = bases.load(config.model_copy(update={"id": str(out.absolute()), "revision": None}), precision)
        found = _logprobs(TextModel(plain.model, plain.tokenizer), prompts, answers)
    kl, largest = _difference(wanted, found)
    if not kl <= limit:
        raise MoltError(
            f"The export in {out} does not give what was trained (KL {kl:.3f} nats a token). Do not use it."
        )
    shift = None
    if config.precision == "nf4":
        original = _stacked(bases.load(config, "bf16"), folders)
        shift = _difference(wanted, _logprobs(original, prompts, answers))[0]
    return Check(kl, largest, shift)


def _stacked(base: bases.Base, folders: list[Path]) -> Served:
    """Served with all of these active, lowest first."""
    served = Served(base)
    for folder in folders:
        if (folder / card.MIXTURE).is_file():
            raise BadInput("A mixture of experts is no plain LoRA, and cannot be exported.", "Export another layout.")
        served.load(card.read(folder).name, folder)
    if isinstance(served.model, PeftModel):
        served.activate(states.of(*served.adapters))
    return served


@torch.no_grad()
def _logprobs(text: TextModel, prompts: list[list[Message]], answers: list[str]) -> torch.Tensor:
    """(tokens, vocabulary) over all answers, one by one."""
    rows = text.encode(prompts, answers)
    return torch.cat([torch.log_softmax(text.completion_logits([row])[0].float(), -1) for row in rows])


def _difference(wanted: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """Mean KL, and the largest difference of a log-probability among tokens of at least one in a thousand."""
    kl = (wanted.exp() * (wanted - found)).sum(-1).mean()
    likely = wanted > -6.9
    return float(kl), float((wanted - found).abs()[likely].max())
