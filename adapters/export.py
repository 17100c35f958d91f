"""Export trained adapters: merged weights, one adapter folder, and both as GGUF. Each export is loaded again and
compared with what was trained: the adapters on the base's weights, dequantised if they have 4 bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from moltlm.adapters import architecture, card, compose, ollama, training
from moltlm.adapters import base as bases
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.llama_cpp import families, lora, vocabulary, whole
from moltlm.adapters.serve import Served, TextModel
from moltlm.data import assets
from moltlm.data import state as states
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import read_json, write_json, write_text
from moltlm.data.types import Message

WHOLE = "exported"
EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where others find the embedded model, whose weights are a 4-bit copy of these."""
MODEL_FILE, ADAPTER_FILE = "model.gguf", "adapter.gguf"
TEMPLATE_FILE = "chat_template.jinja"
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
        for parameter in base.model.parameters():  # not the buffers: rotary frequencies of 16 bits are other positions
            parameter.data = parameter.data.to(torch.bfloat16)
    return base


def merge(config: ModelConfig, folders: list[Path]) -> bases.Base:
    """The base with the adapters merged in: in 16 bits, or 32 for an fp32 base. For a 4-bit base they are merged into
    the dequantised weights, on which they were trained."""
    base = dequantised(config)
    served = _stacked(base, folders)
    model: Any = served.model
    if not folders:
        return base
    model.base_model.set_adapter(served.adapters)
    merged_model = model.merge_and_unload(adapter_names=served.adapters)
    # the weights are not quantised any more, and the model must not say that they are
    for owner in (merged_model.config, merged_model):
        for name in ("quantization_config", "hf_quantizer", "quantization_method"):
            if getattr(owner, name, None) is not None:
                delattr(owner, name)
    merged_model.is_quantized = False
    return replace(base, model=merged_model)


def merged(config: ModelConfig, folders: list[Path], out: Path) -> None:
    """Write the base with the adapters merged in, as safetensors with the tokenizer."""
    whole_model = merge(config, folders)
    whole_model.model.save_pretrained(out)
    whole_model.tokenizer.save_pretrained(out)


def gguf(config: ModelConfig, folders: list[Path], out: Path, quant: str, name: str) -> None:
    """Write the base with the adapters merged in as GGUF, with tokenizer and chat template.

    Args:
        quant: one of `whole.Quant`.
        name: what readers call the model.

    Raises:
        BadInput: The architecture or the tokenizer has no place in GGUF here.
    """
    whole_model = merge(config, folders)
    turns = vocabulary.turns_of(whole_model.tokenizer, whole_model.template.end)
    out.mkdir(parents=True, exist_ok=True)
    whole.write(whole_model.model, whole_model.tokenizer, turns, out / MODEL_FILE, quant, name)


def adapter(
    config: ModelConfig, folders: list[Path], out: Path, method: compose.Method = "cat", rank: int | None = None
) -> compose.Composition:
    """Write these adapters as one: with cat exactly their stack, with another method near it, by the error returned."""
    served = _stacked(bases.load(config), folders)
    model, names = served.model, served.adapters
    if len(names) == 1 and isinstance(model, PeftModel):
        training.save_adapter(model, out, names[0])
        composition = compose.Composition("cat", names, [1.0], compose.rank_of(model, names[0]), 0.0)
        manifest = served.manifests[names[0]]
    else:
        composition = compose.compose(served, names, WHOLE, method, rank=rank)
        compose.save(served, WHOLE, composition, out)
        manifest = card.read(out)
    _make_portable(out, config, manifest, served.tokenizer.chat_template)
    return composition


def gguf_adapter(config: ModelConfig, out: Path, name: str) -> None:
    """Write the adapter in `out` as GGUF too, for llama.cpp's `--lora`."""
    lora.write(out, architecture.load(config), out / ADAPTER_FILE, name)


def check_gguf(config: ModelConfig, quant: str | None) -> None:
    """Raises BadInput if GGUF of this base is not written here, before anything is loaded.

    Args:
        quant: form of the weights of a whole model; None for an adapter.
    """
    families.family_of(architecture.load(config), quant is not None)
    if quant is not None:
        whole.check_quant(quant)
        vocabulary.pre_tokenizer(vocabulary.parts(bases.load_text(config).tokenizer))


def modelfile(config: ModelConfig, source: str, adapter_file: str = "") -> str:
    """The text of Ollama's Modelfile.

    Args:
        source: the GGUF file beside it, or the name of the base in Ollama.
        adapter_file: a GGUF adapter beside it; empty for none.

    Raises:
        BadInput: Ollama's template language cannot express the chat template.
    """
    text = bases.load_text(config)
    template = ollama.go_template(text.tokenizer, vocabulary.turns_of(text.tokenizer, text.facts.end).adds_bos)
    return ollama.modelfile(source, template, text.facts, adapter_file)


def base_name(config: ModelConfig) -> str:
    """How others name the base: its id on the hub, or the name of a folder."""
    if assets.model_path(config.id):
        return EMBEDDED
    return Path(config.id).name if is_local(config) else config.id


def is_local(config: ModelConfig) -> bool:
    """Whether the base is a folder of this machine, which is nowhere else."""
    return Path(config.id).expanduser().is_dir()


def needs_folder(config: ModelConfig) -> bool:
    """Whether the weights that adapters are trained on are on no hub: those of a folder, those that are quantised as
    they are loaded, and the embedded ones."""
    return is_local(config) or config.precision == "nf4" or assets.model_path(config.id) is not None


def _make_portable(out: Path, config: ModelConfig, manifest: card.Manifest, template: str) -> None:
    """Leave out what other programs do not understand or what is of this machine: its paths, and a fraction as alpha,
    which the readers of Ollama and MLX refuse. Add the chat template."""
    settings = read_json(out / "adapter_config.json")
    alpha = settings["lora_alpha"]
    settings["lora_alpha"] = int(alpha) if alpha == int(alpha) else alpha
    settings["base_model_name_or_path"] = base_name(config)
    write_json(out / "adapter_config.json", settings)
    write_text(out / TEMPLATE_FILE, template)
    card.write(out, replace(manifest, base=base_name(config), training=_without_paths(manifest.training)))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and os.sep in value else value


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
    exported = _logprobs(_read(config, out), prompts, answers)
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


def _read(config: ModelConfig, out: Path) -> TextModel:
    """What an export is, by its files alone; GGUF is read by transformers."""
    if (out / MODEL_FILE).is_file():
        with assets.quiet():
            model = AutoModelForCausalLM.from_pretrained(out, gguf_file=MODEL_FILE, dtype=torch.float32)
        return TextModel(model.eval(), bases.load_text(config).tokenizer)
    if (out / "adapter_config.json").is_file():
        return _stacked(dequantised(config), [out])
    precision = "fp32" if config.precision == "fp32" else "bf16"
    try:
        plain = bases.load(config.model_copy(update={"id": str(out.absolute()), "revision": None}), precision)
    except (BadInput, RuntimeError) as error:
        raise MoltError(
            f"{config.id} cannot be merged under {config.precision}: its export cannot be loaded. Export an adapter."
        ) from error
    return TextModel(plain.model, plain.tokenizer)


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
