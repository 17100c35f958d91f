"""Loading a base model: from the embedded assets, a local folder or a hub, at the configured precision."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from moltlm.adapters import architecture, chat_template, cpu
from moltlm.adapters.config import ModelConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, read_text

TEMPLATE_S = 20.0
TEMPORARY = "moltlm-data-"


@dataclass(frozen=True)
class Base:
    """A frozen base model on its device, and its tokenizer.

    Attributes:
        digest: identifies its architecture and embeddings.
        template: what is known of its chat template.
        layers: identifies its other weights, by a sample of each; empty where they are not stored as safetensors.
    """

    model: Any
    tokenizer: Any
    digest: str
    template: chat_template.TemplateFacts
    layers: str = ""


@dataclass(frozen=True)
class Text:
    """A tokenizer whose chat template is settled, what was settled, and the ids of the tokens that end an answer."""

    tokenizer: Any
    facts: chat_template.TemplateFacts
    stops: list[int]


def load(config: ModelConfig, precision: str | None = None) -> Base:
    """Load a base with frozen weights.

    Args:
        precision: in place of the config's: `nf4`, `bf16` or `fp32`.

    Raises:
        BadInput: the model does not exist or has no chat template.
    """
    quiet_libraries()
    cpu.limit_threads()
    precision = precision or config.precision
    source, kwargs = architecture.locate(config)
    settings: dict[str, Any] = {
        **kwargs,
        **architecture.NO_CODE,
        "attn_implementation": config.attention,
        "dtype": _dtype(precision),
    }
    if precision == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=config.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, config.compute_dtype),
        )
        settings["dtype"] = getattr(torch, config.compute_dtype)
    if torch.cuda.is_available():
        settings["device_map"] = {"": 0}
    settings["config"] = architecture.load(config)
    text = load_text(config)
    # nothing of the model's own file counts: greedy is greedy, without its penalties and forced tokens
    answers = GenerationConfig(eos_token_id=text.stops, pad_token_id=text.tokenizer.pad_token_id)
    settings["generation_config"] = answers
    model = _read(architecture.kind(settings["config"]), source, settings, config.id)
    _check_vocabulary(text.tokenizer, model, config.id)
    if precision == "nf4" and not any(isinstance(module, Linear4bit) for module in model.modules()):
        raise BadInput(
            f"bitsandbytes quantises no layer of {type(model).__name__}.", "Load it in 16 bits: model.precision=bf16"
        )
    model.requires_grad_(False).eval()
    _without_dropout(model)
    _keep_trainable(model)
    if not torch.cuda.is_available() and (config.compute_dtype == "float32" or cpu.speed_bf16()):
        cpu.keep_dequantised(model)
    head: Any = model.get_output_embeddings()
    head.register_forward_pre_hook(_contiguous)
    model.generation_config = answers
    layers = layers_digest(weight_files(source, config.revision))
    return Base(model, text.tokenizer, digest(model), text.facts, layers)


def _read(kind: Any, source: str, settings: dict[str, Any], name: str) -> Any:
    """The model in a folder or on a hub, of which every weight is there. Raises BadInput."""
    try:
        model, info = kind.from_pretrained(source, output_loading_info=True, **settings)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise architecture.not_loadable(name, error) from error
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "ignore_mismatched_sizes" not in str(error):
            raise
        raise BadInput(
            f"The weights of {name} do not have the shapes that its config.json says.", architecture.WHOLE_COPY
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise BadInput(
            f"{name} lacks {len(missing)} of its weights, such as {missing[0]}, which would be random.",
            architecture.WHOLE_COPY,
        )
    return model


def _check_vocabulary(tokenizer: Any, model: Any, name: str) -> None:
    """Raises BadInput if the model has no embedding for tokens that text is made of. Added tokens may have none, as
    those of images in the text models of Gemma 3."""
    rows = model.get_input_embeddings().weight.shape[0]
    added = tokenizer.get_added_vocab()
    if beyond := sum(number >= rows for token, number in tokenizer.get_vocab().items() if token not in added):
        raise BadInput(
            f"The tokenizer of {name} has {beyond} tokens that the model, with {rows}, does not have.",
            architecture.WHOLE_COPY,
        )


def load_text(config: ModelConfig) -> Text:
    """Load the tokenizer of a base, and settle its chat template.

    Raises:
        BadInput: the model does not exist, or its chat template is missing or cannot be used.
    """
    quiet_libraries()
    source, kwargs = architecture.locate(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **kwargs, **architecture.NO_CODE)
    except (OSError, ValueError, ImportError) as error:
        raise architecture.not_loadable(config.id, error) from error
    if config.chat_template:
        tokenizer.chat_template = read_text(Path(config.chat_template), "chat template")
    else:
        tokenizer.chat_template = _own_template(tokenizer, source, kwargs, config.id)
    _check_ends(tokenizer, config.id)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    stops = _stops(source, kwargs, tokenizer)
    facts = chat_template.settle(tokenizer, config.thinking, stops, config.id)
    return Text(tokenizer, facts, sorted({*stops, *tokenizer.convert_tokens_to_ids([facts.end])}))


def _own_template(tokenizer: Any, source: str, kwargs: dict[str, Any], name: str) -> str:
    """The chat template of a tokenizer, or of the processor beside it. Raises BadInput if there is none."""
    template = tokenizer.chat_template
    if not template:
        file = cached_file(source, "chat_template.json", _raise_exceptions_for_missing_entries=False, **kwargs)
        template = read_json(Path(file)).get("chat_template") if file else None
    named = f", but those named {', '.join(template)}" if isinstance(template, dict) else ""
    template = template.get("default") if isinstance(template, dict) else template
    if isinstance(template, str) and template:
        return template
    raise BadInput(
        f"{name} has no chat template{named}, so it cannot hold a conversation.",
        "Name an instruct model, or a template: model.chat_template=FILE.jinja",
    )


def _stops(source: str, kwargs: dict[str, Any], tokenizer: Any) -> list[int]:
    """The tokens that end generation by the model's own files."""
    try:
        stops = GenerationConfig.from_pretrained(source, **kwargs).eos_token_id
    except (OSError, ValueError):  # there is none, or it contradicts itself
        stops = None
    every = [*(stops if isinstance(stops, list) else [stops]), tokenizer.eos_token_id]
    tokens = [tokenizer.convert_tokens_to_ids(stop) if isinstance(stop, str) else stop for stop in every]
    return [token for token in dict.fromkeys(tokens) if isinstance(token, int)]


def _check_ends(tokenizer: Any, name: str) -> None:
    """Raises BadInput if the chat template, which is a program of the model's author, does not end on a greeting."""

    def render() -> None:
        with suppress(Exception):  # what it refuses is said where a conversation needs it
            tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    thread.join(TEMPLATE_S)
    if thread.is_alive():
        raise BadInput(
            f"The chat template of {name} does not end: one greeting took more than {TEMPLATE_S:.0f} s.",
            "Repair chat_template in the model's folder, or name another model: model.id=MODEL",
        )


def digest(model: Any) -> str:
    """A digest of the architecture and the input embeddings. No precision quantises those, so a base has the same
    digest as NF4 and as bf16."""
    config = model.config
    text = config.get_text_config()
    shape = (config.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size)
    weight = model.get_input_embeddings().weight.detach().to("cpu", torch.bfloat16)
    return hashlib.sha256(repr(shape).encode() + weight.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def weight_files(source: str, revision: str | None) -> list[Path]:
    """The safetensors of a model in a folder, or in the hub's cache."""
    folder = Path(source)
    if not folder.is_dir():
        name = "config.json"
        cached = cached_file(source, name, revision=revision, local_files_only=True)
        folder = Path(cached).parent if cached else folder
    return sorted(folder.glob("*.safetensors"))


def layers_digest(files: list[Path]) -> str:
    """A digest of three stretches of 64 values, as bf16, of every tensor but the embeddings. It is the same however the
    tensors are spread over files, and takes milliseconds; whatever trains a layer changes it."""
    samples = {}
    for file in files:
        with safe_open(str(file), "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, not a dict
                if "embed" not in name and "lm_head" not in name:
                    samples[name] = _sample(tensors.get_slice(name))
    parts = [f"{name} {value}" for name, value in sorted(samples.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16] if parts else ""


def _sample(tensor: Any) -> str:
    shape = tensor.get_shape()
    if not shape:
        return ""
    last = shape[0] - 1
    rows = [tensor[:64]] if len(shape) == 1 else [tensor[row : row + 1, :64] for row in (0, last // 2, last)]
    flat = torch.cat([row.reshape(-1)[:64] for row in rows])
    flat = flat.to(torch.bfloat16) if flat.is_floating_point() else flat
    return hashlib.blake2b(repr(shape).encode() + flat.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest()


def _without_dropout(model: Any) -> None:
    """Switch off the dropout of the base. It is frozen, so dropout would only add noise to what is compared with it.
    Adapters have their own, `lora.dropout`."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if name.endswith("dropout") and isinstance(value, float):
                setattr(module, name, 0.0)


def _keep_trainable(model: Any) -> None:
    """Stop bitsandbytes (0.50) from repacking 4-bit weights for inference at the first forward in eval mode on CPUs
    with AVX512-BF16. No gradient passes through repacked weights, so all but the top layers would hardly learn, without
    a warning."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _contiguous(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Copy the hidden states into one block. With `logits_to_keep` they are a slice, and torch multiplies each sequence
    of one that is not contiguous by a copy of the vocabulary matrix: a second and gigabytes for a batch of 32."""
    return (inputs[0].contiguous(),)


def quiet_libraries() -> None:
    """Silence progress bars and warnings of the libraries; their errors still show."""
    import warnings

    import datasets

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    _own_temporary_cache(datasets)
    datasets.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module=r"(trl|peft|transformers|torch|bitsandbytes|accelerate)(\..*)?")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _own_temporary_cache(datasets: Any) -> None:
    """Give the temporary folder of `datasets`, which holds what is trained on, the process's number, and remove those
    of processes that were killed before they could."""
    datasets.config.TEMP_CACHE_DIR_PREFIX = f"{TEMPORARY}{os.getpid()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}[0-9]*-*"):
        number = int(folder.name.removeprefix(TEMPORARY).split("-")[0])
        if not _is_running(number) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _dtype(precision: str) -> torch.dtype:
    return torch.float32 if precision == "fp32" else torch.bfloat16
