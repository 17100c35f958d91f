"""How llama.cpp names and stores the weights of an architecture of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map

from moltlm.data.errors import BadInput

CONVERT = "convert_hf_to_gguf.py of llama.cpp writes it from merged weights: molt export CONFIG --to merged"


@dataclass(frozen=True)
class Family:
    """One architecture in llama.cpp.

    Attributes:
        architecture: its number in the gguf package.
        permuted: whether the rows of Q and K are interleaved, since rotary positions turn neighbours there, and halves
            of a head in transformers.
        whole: whether whole models are written here, else adapters alone.
    """

    architecture: MODEL_ARCH
    permuted: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        return MODEL_ARCH_NAMES[self.architecture]


FAMILIES = {
    "llama": Family(MODEL_ARCH.LLAMA, permuted=True, whole=True),
    "mistral": Family(MODEL_ARCH.LLAMA, permuted=True, whole=True),
    "qwen2": Family(MODEL_ARCH.QWEN2, whole=True),
    "qwen3": Family(MODEL_ARCH.QWEN3, whole=True),
    "smollm3": Family(MODEL_ARCH.SMOLLM3, permuted=True),
    "granite": Family(MODEL_ARCH.GRANITE, permuted=True),
    "gemma": Family(MODEL_ARCH.GEMMA),
    "gemma2": Family(MODEL_ARCH.GEMMA2),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3),
    "phi3": Family(MODEL_ARCH.PHI3),
    "olmo2": Family(MODEL_ARCH.OLMO2),
}
"""By `model_type` of the configuration."""


def family_of(config: Any, whole: bool) -> Family:
    """The family of a model.

    Args:
        config: of transformers.
        whole: whether the whole model is to be written.

    Raises:
        BadInput: it is not written here.
    """
    family = FAMILIES.get(config.model_type)
    if family is None or (whole and not family.whole):
        able = ", ".join(name for name, each in FAMILIES.items() if each.whole or not whole)
        what = "model" if whole else "adapter"
        raise BadInput(
            f"A GGUF {what} of the architecture {config.model_type} is not written here, but of: {able}.", CONVERT
        )
    return family


class Names:
    """The names and the layout of a model's tensors in GGUF."""

    def __init__(self, family: Family, config: Any) -> None:
        self._family, self._config = family, config
        self._map: TensorNameMap = get_tensor_name_map(family.architecture, config.num_hidden_layers)

    def gguf(self, name: str) -> str:
        """The name of a tensor of transformers.

        Raises:
            BadInput: llama.cpp has no such tensor in this architecture.
        """
        mapped = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise BadInput(f"llama.cpp has no place for {name} in the architecture {self._family.name}.", CONVERT)
        return mapped

    def rows(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A weight, a bias or LoRA's B, whose rows are in llama.cpp's order."""
        layer = name.split(".")[-2]
        if not self._family.permuted or layer not in ("q_proj", "k_proj"):
            return tensor
        config = self._config
        heads = config.num_attention_heads if layer == "q_proj" else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)
