"""From exchanges to a replay buffer in a folder, and from a buffer and new exchanges to the next one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moltlm.data import pairs as pair_data
from moltlm.data import replay, topk
from moltlm.data.config import ReplayConfig
from moltlm.data.replay import Buffer, Candidate
from moltlm.data.state import PERSONALITY
from moltlm.data.types import Exchange, Progress, silent

if TYPE_CHECKING:
    from moltlm.adapters.serve import Served


def build(
    model: Served,
    exchanges: list[Exchange],
    config: ReplayConfig,
    seed: int,
    batch_size: int,
    folder: Path,
    progress: Progress = silent,
    start: Buffer | None = None,
) -> dict[str, Any]:
    """Measure `exchanges` with the adapter `personality`, choose (from them and `start`, without what they refute), and
    save to `folder`.

    Returns facts: how many there were and are, the mean importance of both, bytes an exchange, and what the stored
    distributions cost in KL.
    """
    if start is not None:
        start = replay.only(start, pair_data.without_refuted(start.exchanges, later=exchanges)[0])
    candidates, embeddings, too_long = offer(model, exchanges, config, batch_size, progress)
    buffer = (
        replay.build(candidates, embeddings, config, seed)
        if start is None
        else replay.update(start, candidates, embeddings)
    )
    facts: dict[str, Any] = {
        "candidates": len(candidates),
        "too_long": too_long,
        "kept": len(buffer.items),
        "new": sum(item.arrived >= buffer.offered - len(candidates) for item in buffer.items),
        "tokens": buffer.tokens,
        "importance": config.importance,
        "mean_importance": float(np.mean([item.importance for item in buffer.items])),
        "mean_importance_all": float(np.mean([item.importance for item in candidates])) if candidates else None,
    }
    vocabulary = model.model.config.vocab_size
    if config.distribution != "none":
        buffer, cost = _remember(model, buffer, vocabulary, batch_size, progress)
        facts |= cost
    facts["bytes_per_exchange"] = replay.save(buffer, folder, vocabulary)
    return facts


def offer(
    model: Served, exchanges: list[Exchange], config: ReplayConfig, batch_size: int, progress: Progress = silent
) -> tuple[list[Candidate], np.ndarray, int]:
    """Candidates with their importance, their embeddings (n, d), and how many exchanges were too long."""
    from moltlm.adapters import importance

    trimmed = [replay.trim(item, lambda row: _tokens(model, row), config.max_tokens) for item in exchanges]
    fitting = [item for item in trimmed if item is not None]
    values = importance.measure(model, config.importance, fitting, batch_size, progress) if fitting else np.zeros(0)
    embeddings = model.embed([f"{item.question}\n{item.answer}" for item in fitting])
    candidates = [
        Candidate(item, float(value), _tokens(model, item)) for item, value in zip(fitting, values, strict=True)
    ]
    return candidates, embeddings, len(exchanges) - len(fitting)


def _tokens(model: Served, exchange: Exchange) -> int:
    """Of all turns and the answer, without the chat template's own."""
    texts = [*(turn["content"] for turn in exchange.prompt), exchange.answer]
    return sum(len(ids) for ids in model.tokenizer(texts, add_special_tokens=False)["input_ids"])


def _remember(
    model: Served, buffer: Buffer, vocabulary: int, batch_size: int, progress: Progress
) -> tuple[Buffer, dict[str, float]]:
    """The buffer with the personality's distributions over what has none yet; and what storing them costs in KL, nats a
    token: `kl_error` in all, the rest of a distribution being spread evenly, `kl_rounding` by rounding alone."""
    missing = [item for item in buffer.items if item.id not in buffer.distributions]
    if not missing:
        return buffer, {}
    with model.state(PERSONALITY):
        rows = model.top_k([item.exchange for item in missing], buffer.config.top_k, batch_size, progress)
    stored = topk.unpack(topk.pack([row.top for row in rows], buffer.config.distribution, vocabulary))
    both = list(zip(rows, stored, strict=True))
    cost = {
        "kl_error": float(
            np.mean([topk.kl_error(row.top, compact, row.tail_plogp, vocabulary) for row, compact in both])
        ),
        "kl_rounding": float(np.mean([topk.rounding_error(row.top, compact) for row, compact in both])),
    }
    distributions = {item.id: row.top for item, row in zip(missing, rows, strict=True)}
    return replay.with_distributions(buffer, distributions), cost
