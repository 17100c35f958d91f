"""Answers to a batch of prompts on a CPU: what prompts begin with alike is read once, and rows that have ended are no
longer computed. The tokens are those of transformers' `generate`, which computes every row until the last one ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from moltlm.data import packing

NAME = "rows"
"""Of the implementation of attention."""


@dataclass
class Rows:
    """The keys and values of the rows that are still being written, in the first places of `states`.

    Attributes:
        states: (layers, 2, rows, kv heads, columns, width), fp32. All prompts end in the same column.
        hidden: (rows, columns), what is added to the scores: the lowest number where a row has no token, else 0.
        order: the numbers of the rows, by place.
        column: where the next token's states go.
        lengths: (rows,) tokens of each row so far.
    """

    states: Tensor
    hidden: Tensor
    order: list[int]
    column: int
    lengths: Tensor

    def keep(self, places: list[int]) -> None:
        """Keep the rows at these places alone. Those at the end move to where others ended, so that few are copied."""
        count = len(places)
        ended = sorted(set(range(count)) - set(places))
        beyond = [place for place in places if place >= count]
        for hole, place in zip(ended, beyond, strict=True):
            self.states[:, :, hole] = self.states[:, :, place]
            self.hidden[hole], self.lengths[hole] = self.hidden[place], self.lengths[place]
            self.order[hole] = self.order[place]
        self.order, self.lengths = self.order[:count], self.lengths[:count]

    def extended(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the states of one token a row, (rows, kv heads, 1, width), and return all of the layer so far, (rows *
        kv heads, columns, width)."""
        count, end = len(self.order), self.column + 1
        states = self.states[layer, :, :count]
        states[0, :, :, self.column], states[1, :, :, self.column] = key[:, :, 0], value[:, :, 0]
        both = states[..., :end, :].flatten(1, 2)
        return both[0], both[1]

    def bias(self, kv_heads: int) -> Tensor:
        """(rows * kv heads, 1, columns)."""
        hidden = self.hidden[: len(self.order), None, : self.column + 1]
        return hidden.expand(-1, kv_heads, -1).reshape(-1, 1, self.column + 1)


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, rows: Rows,
    scaling: float, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one new token a row, (rows, heads, 1, width) to (rows, 1, heads, width)."""
    count, heads, _, width = query.shape
    kv_heads = key.shape[1]
    keys, values = rows.extended(module.layer_idx, key, value)
    queries = query.view(count * kv_heads, heads // kv_heads, width).to(keys.dtype)
    scores = torch.baddbmm(rows.bias(kv_heads), queries, keys.transpose(1, 2), alpha=scaling)
    mixed = torch.bmm(scores.softmax(-1), values)
    return mixed.view(count, 1, heads, width).to(query.dtype), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)


@torch.no_grad()
def generate(
    model: Any, prompts: list[list[int]], max_new_tokens: int, stops: Collection[int], temperature: float = 0.0
) -> list[list[int]]:
    """The tokens that follow each prompt, with the one that ends it.

    Args:
        model: one for which `packing.possible`.
        stops: tokens that end a row.
        temperature: 0 takes the likeliest token; above it, tokens are drawn from all as `generate` draws them.
    """
    head = model.get_output_embeddings()
    hidden, rows = _read(model, prompts, max_new_tokens)
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_new_tokens):
        picked = _pick(head(hidden).float(), rows.order, len(prompts), temperature)
        for row, token in zip(rows.order, picked.tolist(), strict=True):
            written[row].append(token)
        rows.keep([place for place, row in enumerate(rows.order) if written[row][-1] not in stops])
        if not rows.order or len(written[rows.order[0]]) == max_new_tokens:
            break
        hidden = _advance(model, rows, torch.tensor([written[row][-1] for row in rows.order]))
    return written


def _read(model: Any, prompts: list[list[int]], room: int) -> tuple[Tensor, Rows]:
    """The last hidden state of each prompt (prompts, width), and the rows, with columns for `room` more tokens."""
    packed, cache = packing.pack(prompts), DynamicCache()
    hidden = packing.hidden_states(model, packed, cache)
    lengths = torch.tensor(packed.lengths)
    longest = int(lengths.max())
    columns = torch.arange(longest) - (longest - lengths)[:, None]  # of each column, the row's token; below 0 for none
    places = packed.places.gather(1, columns.clamp(min=0))
    states = torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])  # (layers, 2, kv, t, width)
    layers, _, kv_heads, _, width = states.shape
    filled = torch.empty(layers, 2, len(prompts), kv_heads, longest + room, width)
    filled[..., :longest, :] = states[:, :, :, places].transpose(2, 3)
    mask = torch.zeros(len(prompts), longest + room)
    mask[:, :longest].masked_fill_(columns < 0, torch.finfo(mask.dtype).min)
    last = packed.places.gather(1, lengths[:, None] - 1)[:, 0]
    return hidden.index_select(0, last), Rows(filled, mask, list(range(len(prompts))), longest, lengths)


def _advance(model: Any, rows: Rows, tokens: Tensor) -> Tensor:
    """Read one more token of each row; returns their hidden states (rows, width)."""
    inner = packing.inner(model)
    with packing.attention_of(inner.config.get_text_config(), NAME):
        out = inner.base_model(
            input_ids=tokens[:, None], position_ids=rows.lengths[:, None], use_cache=False, rows=rows
        )
    rows.column += 1
    rows.lengths += 1
    return out.last_hidden_state[:, 0]


def _pick(logits: Tensor, order: list[int], count: int, temperature: float) -> Tensor:
    """A token for each row. Random numbers are drawn for all `count` rows of the batch, ended or not, in the way of
    `torch.multinomial`: a sample does not depend on when other rows end."""
    if not temperature:
        return logits.argmax(-1)
    shares = (logits / temperature).softmax(-1)
    noise = torch.empty(count, logits.shape[1]).exponential_()
    return (shares / noise[order]).argmax(-1)
