"""Export trained adapters: merged weights, one adapter folder, files for Ollama and vLLM. Each export is loaded again
and compared with what was trained: the adapters on the base's weights, dequantised if they have 4 bits."""

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
"""Largest mean KL, in nats a token, of an export from what was trained. Rounding merged weights to 16 bits costs at
most a hundredth; a missing or wrongly scaled adapter costs tenths."""


@dataclass(frozen=True)
class Check:
    """How near an export is to what was trained.

    Attributes:
        kl: mean KL(trained || exported), nats a token.
        largest: the largest difference of a log-probability.
        shift: mean KL from the adapters on a 4-bit base to the same on the original weights; None for another base.
    """

    kl: float
    largest: float
    shift: float | None


def dequantised(config: ModelConfig) -> bases.Base:
    """The base in 16 bits with the values of its 4-bit weights; unchanged if it is not quantised."""
    base = bases.load(config)
    if config.precision == "nf4":
        base.model.dequantize()
        base.model.to(torch.bfloat16)
    return base


def merged(config: ModelConfig, folders: list[Path], out: Path) -> None:
    """Write the base with the adapters merged in, as safetensors with the tokenizer: in 16 bits, or 32 for an fp32
    base. For a 4-bit base they are merged into the dequantised weights, on which they were trained."""
    served = _stacked(dequantised(config), folders)
    model: Any = served.model
    model.base_model.set_adapter(served.adapters)
    merged_model = model.merge_and_unload(adapter_names=served.adapters)
    # the weights are not quantised any more, and the model must not say that they are
    for owner in (merged_model.config, merged_model):
        for name in ("quantization_config", "hf_quantizer", "quantization_method"):
            if getattr(owner, name, None) is not None:
                delattr(owner, name)
    merged_model.is_quantized = False
    merged_model.save_pretrained(out)
    served.tokenizer.save_pretrained(out)


def adapter(
    config: ModelConfig, folders: list[Path], out: Path, method: compose.Method = "cat", rank: int | None = None
) -> compose.Composition:
    """Write these adapters as one: with cat exactly their stack, with another method near it, by the error returned."""
    served = _stacked(bases.load(config), folders)
    model, names = served.model, served.adapters
    if len(names) == 1 and isinstance(model, PeftModel):
        training.save_adapter(model, out, names[0])
        card.write(out, served.manifests[names[0]])
        return compose.Composition("cat", names, [1.0], compose.rank_of(model, names[0]), 0.0)
    composition = compose.compose(served, names, WHOLE, method, rank=rank)
    compose.save(served, WHOLE, composition, out)
    return composition


def ollama(base: str, out: Path) -> None:
    """Write a Modelfile beside the adapter in `out`, for `ollama create NAME -f Modelfile`."""
    lines = ["# FROM: the same base, by its name in Ollama or as a folder with its safetensors"]
    lines += [f"FROM {base}", "ADAPTER .", "PARAMETER temperature 0.7"]
    write_text(out / "Modelfile", "\n".join(lines) + "\n")


def vllm(base: str, name: str, rank: int, out: Path) -> None:
    """Write serve.sh beside the adapter in `out`.

    Raises:
        BadInput: vLLM does not serve adapters of this rank.
    """
    allowed = next((limit for limit in VLLM_RANKS if limit >= rank), None)
    if allowed is None:
        raise BadInput(f"vLLM serves adapters up to rank {VLLM_RANKS[-1]}, and this has {rank}.", "Use --to merged.")
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
    """Load the export in `out` and compare it with the stack of adapters.

    Raises:
        MoltError: The mean KL is above `limit`.
    """
    trained = _logprobs(_stacked(dequantised(config), folders), prompts, answers)
    if (out / "adapter_config.json").is_file():
        exported = _logprobs(_stacked(dequantised(config), [out]), prompts, answers)
    else:
        precision = "fp32" if config.precision == "fp32" else "bf16"
        plain = bases.load(config.model_copy(update={"id": str(out.absolute()), "revision": None}), precision)
        exported = _logprobs(TextModel(plain.model, plain.tokenizer), prompts, answers)
    kl, largest = _difference(trained, exported)
    if not kl <= limit:
        raise MoltError(
            f"The export in {out} does not answer as the trained model does (KL {kl:.3f} nats a token). Do not use it."
        )
    shift = None
    if config.precision == "nf4":
        original = _stacked(bases.load(config, "bf16"), folders)
        shift = _difference(trained, _logprobs(original, prompts, answers))[0]
    return Check(kl, largest, shift)


def _stacked(base: bases.Base, folders: list[Path]) -> Served:
    """The base served with all of these adapters active, lowest first."""
    served = Served(base)
    for folder in folders:
        if (folder / card.MIXTURE).is_file():
            raise BadInput("A mixture of experts is not a plain LoRA and cannot be exported.", "Export another layout.")
        served.load(card.read(folder).name, folder)
    if isinstance(served.model, PeftModel):
        served.activate(states.of(*served.adapters))
    return served


@torch.no_grad()
def _logprobs(text: TextModel, prompts: list[list[Message]], answers: list[str]) -> torch.Tensor:
    """(tokens, vocabulary) over all answers, one by one."""
    rows = text.encode(prompts, answers)
    return torch.cat([torch.log_softmax(text.completion_logits([row])[0].float(), -1) for row in rows])


def _difference(trained: torch.Tensor, exported: torch.Tensor) -> tuple[float, float]:
    """Mean KL, and the largest difference of a log-probability among tokens with a probability above 0.001."""
    kl = (trained.exp() * (trained - exported)).sum(-1).mean()
    likely = trained > -6.9
    return float(kl), float((trained - exported).abs()[likely].max())
