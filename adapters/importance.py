"""How important an exchange is for the personality: how far the personality departs from the base there, or how well
learning the exchange serves the personality as a whole."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from moltlm.adapters.serve import Served
from moltlm.data.state import BASE, PERSONALITY
from moltlm.data.types import Exchange, Progress, silent

SKETCH = 8192
LAYERS = 0.25


def measure(
    model: Served, kind: str, exchanges: list[Exchange], batch_size: int, progress: Progress = silent
) -> np.ndarray:
    """The importance (n,) of each exchange for the adapter `personality`. `kind` is one of

    - `kl`: KL(personality || base) over the answer, in nats a token;
    - `margin`: log-likelihood of the answer under the personality less that under the base, in nats a token;
    - `gradient`: cosine of the answer's gradient with the mean one of all others (see `gradient_alignment`).
    """
    prompts, answers = [item.prompt for item in exchanges], [item.answer for item in exchanges]
    if kind == "gradient":
        return gradient_alignment(model, exchanges, progress)
    if kind == "kl":
        with model.state(BASE):
            return np.array(model.kl_from(PERSONALITY, prompts, answers, batch_size, progress))
    with model.state(PERSONALITY):
        adapted = model.score(prompts, answers, batch_size, progress)
    with model.state(BASE):
        bare = model.score(prompts, answers, batch_size, progress)
    return np.array([a.per_token - b.per_token for a, b in zip(adapted, bare, strict=True)])


def gradient_alignment(model: Served, exchanges: list[Exchange], progress: Progress = silent) -> np.ndarray:
    """(n,) cosines of gradients, each with the mean of the others: an exchange that pulls where the personality's loss
    pulls (the mean negative log-likelihood of the answers) protects more than itself."""
    return leave_one_out_cosine(gradient_sketches(model, exchanges, progress))


def gradient_sketches(model: Served, exchanges: list[Exchange], progress: Progress = silent) -> np.ndarray:
    """(n, SKETCH) float32: for each exchange the gradient of its answer's negative log-likelihood a token, by the
    weights of the adapter `personality` in the last quarter of the layers.

    They are count sketches, which preserve inner products in expectation (Charikar et al. 2002).
    """
    with model.state(PERSONALITY):
        weights = _top_weights(model.model)
        size = sum(weight.numel() for weight in weights)
        rng = torch.Generator().manual_seed(0)
        bucket = torch.randint(SKETCH, (size,), generator=rng)
        sign = torch.randint(2, (size,), generator=rng).float() * 2 - 1
        rows = model.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        sketches = np.zeros((len(rows), SKETCH), dtype=np.float32)
        try:
            for weight in weights:
                weight.requires_grad_(True)
            for index, (_, answer) in enumerate(rows):
                logits = model.completion_logits([rows[index]])[0].float()
                loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer, device=logits.device))
                flat = torch.cat([g.flatten().float().cpu() for g in torch.autograd.grad(loss, weights)])
                sketches[index] = torch.zeros(SKETCH).index_add_(0, bucket, flat * sign).numpy()
                progress(index + 1, len(rows), "gradients")
        finally:
            for weight in weights:
                weight.requires_grad_(False)
    return sketches


def leave_one_out_cosine(rows: np.ndarray) -> np.ndarray:
    """(n,) from (n, d): each row's cosine with the sum of all others; 0 where either is zero."""
    others = rows.sum(0) - rows
    length = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return (rows * others).sum(1) / np.where(length > 0, length, 1)


def _top_weights(model: Any) -> list[Any]:
    """The personality's LoRA weights in the last quarter of the layers, one at least."""
    named = [(name, weight) for name, weight in model.named_parameters() if ".personality." in name]
    depth = {name: int(match.group(1)) for name, _ in named if (match := re.search(r"\.layers\.(\d+)\.", name))}
    first = max(depth.values()) + 1 - max(1, round(LAYERS * (max(depth.values()) + 1)))
    return [weight for name, weight in named if depth.get(name, -1) >= first]
