"""Whole models as GGUF, quantised."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from moltlm.adapters.llama_cpp import vocabulary
from moltlm.adapters.llama_cpp.families import CONVERT, Family, Names, family_of
from moltlm.data.errors import BadInput, MoltError

Quant = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
NEAR = ("F16", "Q8_0")
"""Forms that answer as the original does; others lose something, which is measured and said."""
TYPES = {
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
PLAIN = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
QUANTIZE = "llama-quantize"
ROPES = ("default", "llama3", "linear")


def check_quant(quant: str) -> None:
    """Raises BadInput if weights cannot be written in this form on this machine."""
    if quant not in get_args(Quant):
        raise BadInput(f"There is no form {quant}.", f"Use --quant {' or --quant '.join(get_args(Quant))}")
    if quant not in TYPES and not shutil.which(QUANTIZE):
        raise BadInput(
            f"{quant} is written by {QUANTIZE} of llama.cpp, which is not on the PATH.",
            "Install llama.cpp (brew install llama.cpp, or build it from its source), or use --quant Q8_0",
        )


def write(model: Any, tokenizer: Any, turns: vocabulary.Turns, file: Path, quant: str, name: str) -> None:
    """Write a model with its tokenizer and chat template.

    Raises:
        BadInput: the architecture or the tokenizer cannot be expressed.
        MoltError: llama-quantize failed.
    """
    if quant in TYPES:
        _write(model, tokenizer, turns, file, quant, name)
        return
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        plain = Path(folder, "plain.gguf")
        _write(model, tokenizer, turns, plain, "F16", name)
        command = [QUANTIZE, str(plain), str(file), quant]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if process.returncode:
            last = (process.stderr or process.stdout).strip().splitlines()[-1:]
            raise MoltError(f"{QUANTIZE} failed: {' '.join(last)}", "Use --quant Q8_0, which does not need it.")


def _write(model: Any, tokenizer: Any, turns: vocabulary.Turns, file: Path, quant: str, name: str) -> None:
    family = family_of(model.config, whole=True)
    target, file_type = TYPES[quant]
    writer = GGUFWriter(file, family.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, model.config)
    vocabulary.add(writer, tokenizer, model.config.vocab_size, turns)
    for key, tensor in tensors(model, family):
        form = _form(tensor, target)
        in_bytes = gguf.quant_shape_to_byte_shape(tensor.shape, form)
        stored = np.dtype(PLAIN.get(form, np.uint8))
        shape = tensor.shape if form in PLAIN else in_bytes
        writer.add_tensor_info(key, shape, stored, math.prod(in_bytes), form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor in tensors(model, family):
        writer.write_tensor_data(_stored(tensor, target))
    writer.close()


def tensors(model: Any, family: Family) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights in llama.cpp's layout, one at a time."""
    names = Names(family, model.config)
    for key, tensor in model.state_dict().items():
        if key != "lm_head.weight" or not model.config.tie_word_embeddings:
            yield names.gguf(key), names.rows(key, tensor.detach().cpu())
    rope = model.config.rope_parameters
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(rope, _head_width(model.config))


def _form(tensor: torch.Tensor, target: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors stay in 32 bits; rows that do not divide into blocks in 16."""
    if tensor.dim() == 1:
        return GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[target]
    return target if tensor.shape[-1] % block == 0 else GGMLQuantizationType.F16


def _stored(tensor: torch.Tensor, target: GGMLQuantizationType) -> np.ndarray:
    return gguf.quantize(tensor.to(torch.float32).contiguous().numpy(), _form(tensor, target))


def _add_shape(writer: GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    kind = rope.get("rope_type") or "default"
    if kind not in ROPES:
        raise BadInput(f"Rotary positions of the kind {kind} are not written here.", CONVERT)
    width = _head_width(config)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    writer.add_block_count(config.num_hidden_layers)
    # llama.cpp has no sliding window in these architectures: the context ends where it would begin to slide
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _llama3_factors(rope: dict[str, Any], width: int) -> torch.Tensor:
    """Llama 3.1's scaling of rotary frequencies, as factors that they are divided by: 1 for short waves, `factor` for
    long ones, and between them in proportion (transformers, `_compute_llama3_parameters`)."""
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    before = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = ((before / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)
