"""Pairs as the trainer gets them: which tokens it reads, and which it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.training_data import preferences
from moltlm.data.types import Pair


@dataclass(frozen=True)
class Token:
    text: str
    learned: bool


@dataclass(frozen=True)
class TokenizedPair:
    """Both sides of a pair with prompt and template, after truncation to `model.max_length`."""

    pair: Pair
    chosen: list[Token]
    rejected: list[Token]


def tokenized(config: AdaptersConfig, tokenizer: Any, pair: Pair) -> TokenizedPair:
    """Both sides of a pair as the trainer reads them."""
    (row,) = preferences([pair], tokenizer)

    def side(answer: list[int]) -> list[Token]:
        tokens = [(token, False) for token in row["prompt_ids"]] + [(token, True) for token in answer]
        return [Token(tokenizer.decode([token]), learned) for token, learned in tokens[: config.model.max_length]]

    return TokenizedPair(pair, side(row["chosen_ids"]), side(row["rejected_ids"]))
