"""Which layers of a model get a LoRA: those of its language model whose weights nothing but their own forward reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from moltlm.data.errors import BadInput

ALL = "all-linear"
EXPERT = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
"""Names by which PEFT (0.21) means the stacked experts of a mixture, also where dense layers beside them have them.
Adapters on stacked experts cannot be combined."""


def targets(model: Any, wanted: str | list[str], setting: str = "lora.target_modules") -> list[str]:
    """The full names of the layers that get a LoRA.

    The towers of a vision or audio model, the output layer, state-space mixers, and the feed-forward layers of a
    mixture of experts get none.

    Args:
        wanted: `all-linear`, endings of names, or a regular expression for whole names.
        setting: the one that says so.

    Raises:
        BadInput: if that is no layer at all, or one of the endings is of none.
    """
    available, unknown = list(_linear(model)), []
    if wanted == ALL:
        chosen = available
    elif isinstance(wanted, str):
        chosen = [name for name in available if re.fullmatch(wanted, name)]
    else:
        chosen = [name for name in available if any(_ends(name, end) for end in wanted)]
        unknown = [end for end in wanted if not any(_ends(name, end) for name in chosen)]
    if unknown or not chosen:
        endings = ", ".join(sorted({name.rpartition(".")[2] for name in available}))
        raise BadInput(
            f"No layer of {type(model).__name__} can get a LoRA by {setting}={unknown or wanted}.",
            f"Its linear layers: {endings or 'none'}. Set {setting}=all-linear",
        )
    return chosen


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def left_out(model: Any) -> list[str]:
    """Endings of the names of linear layers that all-linear leaves alone, other than the output layer; and of stacked
    experts."""
    adapted, head = set(_linear(model)), model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if _is_linear(module) and module is not head]
    return sorted({_kind(name) for name in [*linear, *_stacked(model)] if name not in adapted})


def quantisable(model: Any) -> list[Any]:
    """The layers that NF4 quantises: all linear ones but the output layer."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]


def _stacked(model: Any) -> list[str]:
    """Names of the weights of experts, which are one tensor for all of a layer."""
    return [name for name, value in model.named_parameters() if value.dim() == 3 and "experts" in name]


def _linear(model: Any) -> Iterator[str]:
    """Names of the linear layers of the language model, outside state-space mixers and mixtures of experts."""
    inside = {id(module) for module in model.get_decoder().modules()}
    inside -= {id(part) for module in model.modules() if _is_state_space(module) for part in module.modules()}
    head, experts = model.get_output_embeddings(), _stacked(model)
    for name, module in model.named_modules():
        expert = experts and name.rpartition(".")[2] in EXPERT
        if _is_linear(module) and id(module) in inside and module is not head and not expert:
            yield name


def _is_linear(module: Any) -> bool:
    """Whether it gives a product and nothing more: a router can be a Linear that gives its choice, too."""
    return isinstance(module, (nn.Linear, Conv1D)) and "Router" not in type(module).__name__


def _is_state_space(module: Any) -> bool:
    """Whether it is a mixer as in Mamba, whose fast kernels take the weights of its layers and pass an adapter by."""
    return hasattr(module, "A_log") and hasattr(module, "D")


def _kind(name: str) -> str:
    """The name without the numbers of layers and the path before them."""
    return re.split(r"\.\d+\.", name)[-1]
