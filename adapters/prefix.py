"""Answers to prompts that begin alike, as those with the same spec before them: the beginning is computed once."""

from __future__ import annotations

import copy
from typing import Any

import torch

from moltlm.adapters import cpu
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.serve import TextModel, sampling, seeded
from moltlm.data import packing
from moltlm.data.io import batches
from moltlm.data.types import Message


@torch.no_grad()
def generate(
    text: TextModel, prompts: list[list[Message]], max_new_tokens: int, batch_size: int, temperature: float, seed: int
) -> list[str]:
    """As `TextModel.generate`, which elsewhere than on a CPU computes the common beginning of the prompts for each."""
    if packing.possible(text.model):
        return text.generate(prompts, max_new_tokens, batch_size, temperature=temperature, seed=seed)
    ids = [encode_prompt(text.tokenizer, prompt) for prompt in prompts]
    shared = _shared(ids)
    answers: dict[int, str] = {}
    with seeded(seed), cpu.answering(text.model):
        beginning = torch.tensor([ids[0][:shared]], device=text.model.device)
        cache = text.model(input_ids=beginning, use_cache=True, logits_to_keep=1).past_key_values if shared else None
        for group in batches(sorted(range(len(ids)), key=lambda i: len(ids[i])), batch_size):
            tokens, mask = text.left_padded([ids[i][shared:] for i in group])
            start = beginning.expand(len(group), -1)
            out = text.model.generate(
                input_ids=torch.cat([start, tokens], 1),
                attention_mask=torch.cat([torch.ones_like(start), mask], 1),
                past_key_values=_repeated(cache, len(group)),
                max_new_tokens=max_new_tokens,
                **sampling(temperature),
                pad_token_id=text.tokenizer.pad_token_id,
            )
            answers.update(zip(group, text.decoded(out[:, shared + tokens.shape[1] :]), strict=True))
    return [answers[i] for i in range(len(prompts))]


def _shared(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with alike; at least one of each row is left."""
    shortest = min(map(len, rows)) - 1
    first, last = min(rows), max(rows)  # in lexical order: what these two share, all share
    return next((place for place in range(shortest) if first[place] != last[place]), shortest)


def _repeated(cache: Any, count: int) -> Any:
    """A copy of a cache of one sequence, for `count` sequences."""
    if cache is None:
        return None
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(count)
    return copied
