"""LoRA adapters as GGUF, for llama.cpp's `--lora`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFType, GGUFWriter, Keys
from peft import LoraConfig
from safetensors.torch import load_file

from moltlm.adapters.llama_cpp.families import CONVERT, Names, family_of
from moltlm.data.errors import BadInput


def write(folder: Path, config: Any, file: Path, name: str) -> None:
    """Write the LoRA adapter in `folder` as GGUF, in 32 bits. llama.cpp adds alpha / rank * B A to a weight.

    Args:
        config: of the base, as transformers has it.
        name: what readers call the adapter.

    Raises:
        BadInput: the architecture or the adapter cannot be expressed.
    """
    lora: Any = LoraConfig.from_pretrained(str(folder))
    if lora.rank_pattern or lora.alpha_pattern or lora.use_dora or lora.modules_to_save:
        raise BadInput("Only plain LoRA adapters with one rank have a GGUF form.", CONVERT)
    family = family_of(config, whole=False)
    names = Names(family, config)
    scale = lora.lora_alpha / (lora.r**0.5 if lora.use_rslora else lora.r)
    writer = GGUFWriter(file, family.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, scale * lora.r)
    writer.add_name(name)
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        module, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        target = f"{module}.weight"
        if "embed" in module or (module == "lm_head" and config.tie_word_embeddings):
            raise BadInput(f"The adapter changes {module}, which llama.cpp does not apply.", CONVERT)
        placed = tensor if part.startswith("A") else names.rows(target, tensor)
        values = placed.to(torch.float32).contiguous().numpy()
        writer.add_tensor(f"{names.gguf(target)}.lora_{part[0].lower()}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
