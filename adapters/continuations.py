"""Log-probabilities of several continuations of one text, which is read once."""

from __future__ import annotations

from typing import Any

import torch

from moltlm.data import packing

AT_ONCE = 512
"""Tokens that are projected onto the vocabulary at a time."""


@torch.no_grad()
def score_packed(model: Any, starts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[float]]:
    """As `score`, for a model for which `packing.possible`: of starts that are not padded, and of as many continuations
    of each as there are. What continuations begin with alike is read once too."""
    rows = [(start, row) for start, each in zip(starts, continuations, strict=True) for row in each]
    states = torch.cat(packing.completion_states(model, rows))
    targets = torch.tensor([token for _, row in rows for token in row])
    picked = torch.cat(
        [
            model.get_output_embeddings()(hidden).float().log_softmax(-1).gather(1, target[:, None])[:, 0]
            for hidden, target in zip(states.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        ]
    )
    values = iter(picked.split([len(row) for _, row in rows]))
    return [[float(next(values).sum()) for _ in each] for each in continuations]


@torch.no_grad()
def score(
    model: Any, tokens: torch.Tensor, mask: torch.Tensor, continuations: list[list[list[int]]]
) -> list[list[float]]:
    """The log-probability of each continuation after its start, in nats.

    Args:
        tokens: of the texts, (texts, longest text), padded on the left; none is empty.
        mask: 0 where they are padded, else 1.
        continuations: tokens of the continuations of each text, as many of each; not empty.
    """
    device, many = model.device, len(continuations[0])
    out = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = out.past_key_values
    cache.batch_repeat_interleave(many)
    rows = [row for each in continuations for row in each]
    longest = max(map(len, rows))
    ids = torch.tensor([row + row[:1] * (longest - len(row)) for row in rows], device=device)
    before = mask.repeat_interleave(many, 0)
    logits = model(
        input_ids=ids,
        attention_mask=torch.cat([before, torch.ones_like(ids)], 1),
        position_ids=before.sum(1, keepdim=True) + torch.arange(longest, device=device),
        past_key_values=cache,
        use_cache=True,
    ).logits
    first = out.logits[:, -1:].repeat_interleave(many, 0)
    predictions = torch.cat([first, logits[:, :-1]], 1).float().log_softmax(-1)
    picked = predictions.gather(2, ids[:, :, None])[:, :, 0]
    sums = [float(values[: len(row)].sum()) for values, row in zip(picked, rows, strict=True)]
    return [sums[place : place + many] for place in range(0, len(sums), many)]
