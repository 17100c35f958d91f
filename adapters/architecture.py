"""What a base model is, read from its configuration before its weights are loaded: whether it can be used, which class
loads it, its shape, and which of its layers get a LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from moltlm.adapters import targets
from moltlm.adapters.config import LoraSettings, ModelConfig, ShapeConfig
from moltlm.data import assets
from moltlm.data.errors import BadInput

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""A model's own Python code is never run; left open, transformers would ask on the terminal, or a pipe."""
UNUSABLE = {
    "rwkv": "reads padding as text: answers would depend on what they are computed beside",
    **dict.fromkeys(
        ("mamba", "mamba2", "falcon_mamba"), "has state-space mixers alone, whose kernels pass adapters by"
    ),
}
"""Model types that cannot be trained or served here, and why."""
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Weights in files that can run code when they are read."""
WHOLE_COPY = "Fetch its files again, or name another model: model.id=MODEL"


@dataclass(frozen=True)
class Facts:
    """What is known of an architecture.

    Attributes:
        kind: its class in transformers.
        adapted: endings of the names of the layers that get a LoRA.
        left_out: the same of linear layers and stacked experts that get none.
        in_16_bits: share of the weights that NF4 leaves in 16 bits.
        shape: None where its configuration does not say it in the usual names.
    """

    kind: str
    adapted: list[str]
    left_out: list[str]
    in_16_bits: float
    shape: ShapeConfig | None

    def sentences(self) -> list[str]:
        """Lines for a reader."""
        lines = [f"{self.kind}: LoRA on {', '.join(self.adapted)}"]
        lines += [f"no LoRA on {', '.join(self.left_out)}"] if self.left_out else []
        return [*lines, f"NF4 leaves {self.in_16_bits:.0%} of its weights in 16 bits"]


def facts(config: ModelConfig, lora: LoraSettings) -> Facts:
    """Of a base, whose weights are neither read nor fetched.

    Raises:
        BadInput: the model does not exist, or cannot be used.
    """
    architecture = load(config)
    with torch.device("meta"):
        model = kind(architecture).from_config(architecture, dtype=torch.bfloat16)
    chosen = targets.targets(model, lora.target_modules)
    linear = sum(module.weight.numel() for module in targets.quantisable(model))
    total = sum(parameter.numel() for parameter in model.parameters())
    endings = sorted({name.rpartition(".")[2] for name in chosen})
    return Facts(type(model).__name__, endings, targets.left_out(model), 1 - linear / total, _shape(architecture))


def _shape(architecture: Any) -> ShapeConfig | None:
    text = architecture.get_text_config()
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
    names |= {name: name for name in ("hidden_size", "intermediate_size", "vocab_size")}
    values = {name: getattr(text, key, None) for name, key in names.items()}
    values["kv_heads"] = values["kv_heads"] or values["heads"]
    if not all(isinstance(value, int) and value > 0 for value in values.values()):
        return None
    return ShapeConfig(**values, tied_embeddings=bool(architecture.tie_word_embeddings))


def kind(architecture: Any) -> Any:
    """The class that loads a model: where transformers has a text model around vision or audio towers only as a whole,
    the whole, of which the text model alone is used and trained."""
    text = type(architecture) in AutoModelForCausalLM._model_mapping.keys()  # noqa: SIM118, not a dict
    return AutoModelForCausalLM if text else AutoModelForImageTextToText


def load(config: ModelConfig) -> Any:
    """The configuration of a base, as transformers has it.

    Raises:
        BadInput: the model does not exist, or cannot be used.
    """
    source, kwargs = locate(config)
    try:
        architecture = AutoConfig.from_pretrained(source, **kwargs, **NO_CODE)
    except Exception as error:  # what a model's files say can be wrong in any way
        raise not_loadable(config.id, error) from error
    if why := _why_unusable(architecture):
        raise BadInput(
            f"{config.id} is a {architecture.model_type} model, which {why}.",
            "Use another model: model.id=MODEL",
        )
    _check_quantisation(config, architecture)
    return architecture


def _why_unusable(architecture: Any) -> str:
    """Why a model cannot be trained or served here; empty if it can be."""
    is_encoder = not getattr(architecture, "is_decoder", True) and not architecture.model_type.startswith("gpt_neox")
    if architecture.is_encoder_decoder or is_encoder or not any(type(architecture) in each for each in _loaded()):
        return "does not write on from a prompt, as a language model with a decoder alone does"
    return UNUSABLE.get(architecture.model_type, "")


def _loaded() -> list[Any]:
    """The configurations of the models that `kind` loads."""
    return [each._model_mapping.keys() for each in (AutoModelForCausalLM, AutoModelForImageTextToText)]


def _check_files(folder: Path) -> None:
    """Raises BadInput for a folder that is no model in safetensors."""
    has_config = (folder / "config.json").is_file()
    if (folder / "adapter_config.json").is_file() and not has_config:
        raise BadInput(f"{folder} is an adapter, not a model.", "Name the model that it was trained on: model.id=MODEL")
    if has_config and list(folder.glob("*.safetensors")):
        return
    if list(folder.glob("*.gguf")):
        raise BadInput(
            f"{folder} has its weights as GGUF, which cannot be trained on.",
            "Name the model that it was made from, in safetensors: model.id=MODEL",
        )
    if unsafe := [file.name for pattern in UNSAFE for file in folder.glob(pattern)]:
        raise BadInput(
            f"{folder} has its weights in {unsafe[0]}, which can run code when it is read.",
            "Name a model with safetensors: model.id=MODEL",
        )
    missing = "weights: no *.safetensors" if has_config else "model: no config.json"
    raise BadInput(f"{folder} has no {missing}.", "Name the folder of a model, or one on a hub: model.id=MODEL")


def _check_quantisation(config: ModelConfig, architecture: Any) -> None:
    """Raises BadInput for weights that are stored in a quantised form, other than bitsandbytes' NF4 for `nf4`."""
    stored = getattr(architecture, "quantization_config", None)
    if not stored:
        return
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    method = str(stored.get("quant_method", "an unknown method"))
    if "bitsandbytes" not in method:
        raise BadInput(
            f"{config.id} is quantised by {method}, above which nothing can be trained here.",
            "Name the model that it was made from; it is quantised as it is loaded: model.precision=nf4 model.id=MODEL",
        )
    form = stored.get("bnb_4bit_quant_type") if stored.get("load_in_4bit") else "8 bits"
    if form != "nf4" or config.precision != "nf4":
        raise BadInput(
            f"{config.id} is stored in {form or '4 bits'} of bitsandbytes, and model.precision is {config.precision}.",
            "Set model.precision=nf4" if form == "nf4" else "Name the model that it was made from: model.id=MODEL",
        )


def locate(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """The folder or hub id of a base, and the arguments with which transformers finds it. Raises BadInput for a folder
    that is not there, or is no model in safetensors."""
    embedded = assets.model_path(config.id)
    if embedded is not None:
        return str(embedded), {}
    folder = Path(config.id).expanduser()
    if folder.is_dir():
        _check_files(folder)
        return str(folder), {}
    if config.id.startswith((".", "/", "~")):
        raise BadInput(f"No model folder {config.id}.", "Correct model.id, or use model.id=smollm2-135m-instruct")
    return config.id, {"revision": config.revision} if config.revision else {}


def is_here(config: ModelConfig) -> bool:
    """Whether a base is on this machine, so that nothing is fetched to load it."""
    source, _ = locate(config)
    return Path(source).is_dir() or isinstance(
        try_to_load_from_cache(source, "config.json", revision=config.revision), str
    )


def not_loadable(name: str, error: Exception) -> BadInput:
    """The error for a model that transformers refuses."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BadInput(
        f"The model {name} cannot be loaded: {first}",
        "Check model.id (a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct, or a folder), log in with `hf auth "
        "login` if it is gated, or use the embedded one: model.id=smollm2-135m-instruct",
    )
