"""A batch of token rows as one sequence without padding, in which a beginning that rows share is computed once.

Both sides of a preference pair begin with the same prompt, and all prompts of a chat model with the same template: a
third or more of a batch. Everything but attention works token by token, so it is computed on the packed tokens. In
attention each token sees its own row (tree attention, SpecInfer, arXiv:2305.09781).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from moltlm.data.parallel import in_parts

ARCHITECTURES = ("llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3")
"""Model types whose tokens meet in attention alone, and whose attention has no form of its own."""
NAME = "packed"
"""Of the implementation of attention."""
LEAST = 2
"""Fewest rows that are scored on a thread of their own."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of rows lie in one sequence.

    Attributes:
        tokens: (t,) distinct tokens.
        positions: (t,) each token's place in its row.
        places: (rows, longest row) where each token of a row lies in `tokens`; 0 where a row has ended.
        starts: for each row, how many of its first tokens an earlier row has already.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    starts: list[int]
    lengths: list[int]

    @cached_property
    def blocks(self) -> Blocks:
        return _blocks(self)


@dataclass(frozen=True)
class Blocks:
    """The queries of attention, cut into blocks of one length: a row has as many as its own tokens need.

    Attributes:
        queries: (blocks, length) places of the queries, padded with the last one.
        keys: (blocks, longest row) places of the keys of the block's row.
        hidden: (blocks, length, longest row) whether a query must not see a key.
        outputs: (t,) for each token, the index of its query among all.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    hidden: torch.Tensor
    outputs: torch.Tensor

    def bias(self, groups: int, kv_heads: int, dtype: torch.dtype) -> torch.Tensor:
        """(blocks * kv_heads, groups * length, longest row): what is added to the scores. The same for all layers."""
        key = (groups, kv_heads, dtype)
        if key not in self._biases:
            count, length, width = self.hidden.shape
            one = torch.zeros(self.hidden.shape, dtype=dtype).masked_fill(self.hidden, torch.finfo(dtype).min)
            shape = (count, kv_heads, groups, length, width)
            self._biases[key] = one[:, None, None].expand(shape).reshape(count * kv_heads, groups * length, width)
        return self._biases[key]

    @cached_property
    def _biases(self) -> dict[Any, torch.Tensor]:
        return {}


def pack(rows: list[list[int]]) -> Packing:
    """Pack rows of at least one token each."""
    numbers: dict[tuple[int, int], int] = {}  # of each token after the token with another number
    tokens: list[int] = []
    positions: list[int] = []
    places, starts = [], []
    for row in rows:
        before, place, start = -1, [], len(row)
        for position, token in enumerate(row):
            number = numbers.setdefault((before, token), len(tokens))
            if number == len(tokens):
                tokens.append(token)
                positions.append(position)
                start = min(start, position)
            place.append(number)
            before = number
        places.append(place)
        starts.append(start)
    width = max(map(len, places))
    padded = torch.tensor([place + [0] * (width - len(place)) for place in places])
    return Packing(torch.tensor(tokens), torch.tensor(positions), padded, starts, [len(row) for row in rows])


def _blocks(packing: Packing) -> Blocks:
    spans = list(zip(packing.starts, packing.lengths, strict=True))
    length = _block_length([end - start for start, end in spans])
    rows, firsts, lasts = [], [], []
    for row, (start, end) in enumerate(spans):
        for first in range(start, end, length):
            rows.append(row)
            firsts.append(first)
            lasts.append(end - 1)
    columns = torch.tensor(firsts)[:, None] + torch.arange(length)
    real = columns <= torch.tensor(lasts)[:, None]
    columns = columns.minimum(torch.tensor(lasts)[:, None])
    keys = packing.places[torch.tensor(rows)]
    queries = keys.gather(1, columns)
    outputs = torch.empty(len(packing.tokens), dtype=torch.long)
    outputs[queries[real]] = torch.arange(queries.numel()).view_as(queries)[real]
    hidden = torch.arange(keys.shape[1]) > columns[..., None]
    return Blocks(queries, keys, hidden, outputs)


def _block_length(counts: list[int]) -> int:
    """The length that needs the fewest queries, padding included. A block costs as much as a few queries more."""
    longest, overhead = max(*counts, 1), 4

    def cost(length: int) -> int:
        return sum(-(-count // length) for count in counts) * (length + overhead)

    return min(range(min(16, longest), longest + 1), key=cost)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed tokens, (1, heads, t, width) to (1, t, heads, width), in the form that transformers asks
    for."""
    blocks = packing.blocks
    heads, kv_heads = query.shape[1], key.shape[1]
    count, length = blocks.queries.shape
    stacked = count * kv_heads
    queries = _gather(query, blocks.queries, kv_heads).reshape(stacked, -1, query.shape[-1])
    keys, values = (_gather(each, blocks.keys, kv_heads).reshape(stacked, -1, each.shape[-1]) for each in (key, value))
    bias = blocks.bias(heads // kv_heads, kv_heads, queries.dtype)
    scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=scaling)
    shares = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    mixed = torch.bmm(shares, values).view(count, heads, length, -1).transpose(1, 2).reshape(count * length, -1)
    return mixed.index_select(0, blocks.outputs).view(1, len(packing.tokens), heads, -1), None


def _gather(states: torch.Tensor, places: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(1, heads, t, width) to (blocks, kv_heads, heads of each, places, width)."""
    _, heads, count, width = states.shape
    flat = states[0].transpose(0, 1).reshape(count, heads * width).index_select(0, places.flatten())
    return flat.view(*places.shape, kv_heads, heads // kv_heads, width).permute(0, 2, 3, 1, 4)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)


def possible(model: Any) -> bool:
    """Whether packed tokens give the results of a causal model, with or without adapters.

    So it is with full causal attention on a CPU, if nothing is random and no adapter is routed by the prompt. Gradient
    checkpointing would recompute layers with the attention of padded rows.
    """
    model = inner(model)
    config = model.config.get_text_config()
    return (
        config.model_type in ARCHITECTURES
        and config._attn_implementation in ("eager", "sdpa")
        and model.device.type == "cpu"
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not hasattr(model, "prompt_mask")
        and not (model.training and (model.is_gradient_checkpointing or _random(model, config)))
    )


def inner(model: Any) -> Any:
    """The causal model itself, whose layers hold the adapters, if there are any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _random(model: Any, config: Any) -> bool:
    dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return dropout or getattr(config, "attention_dropout", 0.0) > 0


def hidden_states(model: Any, packing: Packing, cache: Any = None) -> torch.Tensor:
    """The last hidden states (t, width) of a causal model's backbone.

    Args:
        cache: of transformers; it gets the keys and values of the packed tokens.
    """
    model = inner(model)
    with attention_of(model.config.get_text_config(), NAME):
        out = model.base_model(
            input_ids=packing.tokens[None],
            position_ids=packing.positions[None],
            use_cache=cache is not None,
            past_key_values=cache,
            packing=packing,
        )
    return out.last_hidden_state[0]


@contextmanager
def attention_of(config: Any, name: str) -> Iterator[None]:
    """Use this implementation of attention inside the `with`."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def completion_states(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """For each prompt and completion the hidden states (completion tokens, width) that predict the completion."""
    with attention_of(
        inner(model).config.get_text_config(), NAME
    ):  # around all threads, so that they only set it again
        return in_parts(lambda part: _completion_states(model, part), rows, LEAST)


def _completion_states(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    packed = pack([prompt + completion[:-1] for prompt, completion in rows])
    places = [
        place[len(prompt) - 1 : len(prompt) + len(completion) - 1]
        for place, (prompt, completion) in zip(packed.places, rows, strict=True)
    ]
    hidden = hidden_states(model, packed).index_select(0, torch.cat(places))
    return list(hidden.split([len(completion) for _, completion in rows]))


def completion_logits(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """For each prompt and completion the logits (completion tokens, vocabulary) that predict the completion."""
    states = completion_states(model, rows)
    return list(model.get_output_embeddings()(torch.cat(states)).split([len(each) for each in states]))
