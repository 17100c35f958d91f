"""Checkpoint records with everything that a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moltlm.evals.records import CheckpointRecord, ItemRecord

NATS = 10.0
"""So that 3 points of accuracy are 0.3 nats."""


def checkpoint(*, correct: Sequence[Any], base_correct: Sequence[Any], **fields: Any) -> CheckpointRecord:
    """A checkpoint with items of these scores, for the model and for its base; a right answer is `NATS` likelier than a
    wrong one."""
    items, base_items = (
        [ItemRecord(item=place, correct=int(value), logprob=NATS * float(value)) for place, value in enumerate(side)]
        for side in (correct, base_correct)
    )
    defaults: dict[str, Any] = {
        **{"step": 5, "gain": 0.0, "learning_rate": 1e-4, "feasible": True},
        **{"likelihood": -3.0, "likelihoods": [-3.0], "persona": 0.2, "coherent": 1.0, "answers": []},
        **{"kl": 0.1, "cross_entropy": 1.2},
    }
    return CheckpointRecord(**{**defaults, **fields}, items=items, base_items=base_items)
