"""Pairs and exchanges as the data sets that TRL trains on."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from moltlm.adapters.rendering import encode_answers
from moltlm.data.types import Exchange, Pair


def preferences(pairs: list[Pair], tokenizer: Any) -> Dataset:
    """For DPO and ORPO."""
    rows = []
    for pair in pairs:
        prompt, (chosen, rejected) = encode_answers(tokenizer, pair.prompt, [pair.chosen, pair.rejected])
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return Dataset.from_list(rows)


def completions(exchanges: list[Exchange], tokenizer: Any, max_length: int) -> Dataset:
    """For SFT: tokens, and labels on those of the answers. What is too long loses the beginning of its prompt, and the
    end of an answer that is too long by itself."""
    rows = []
    for item in exchanges:
        prompt, (answer,) = encode_answers(tokenizer, item.prompt, [item.answer])
        prompt = prompt[-max(1, max_length - len(answer)) :]
        tokens, labels = [*prompt, *answer], [*([-100] * len(prompt)), *answer]
        rows.append({"input_ids": tokens[:max_length], "labels": labels[:max_length]})
    return Dataset.from_list(rows)
