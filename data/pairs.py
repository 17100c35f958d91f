"""Preference pairs: the personality's answer over an answer that the base model gave to the same prompt."""

from __future__ import annotations

from typing import Any

from moltlm.data.config import PairsConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint
from moltlm.data.state import BASE
from moltlm.data.types import ChatModel, Exchange, Pair, Progress, silent


def build(
    exchanges: list[Exchange],
    model: ChatModel,
    config: PairsConfig,
    batch_size: int,
    progress: Progress = silent,
    seed: int = 0,
) -> list[Pair]:
    """Build one pair for each exchange. The rejected side is sampled from the model in its base state.

    Raises:
        BadInput: for a prompt of more than `max_prompt_tokens`, before anything is generated.
    """
    for item in exchanges:
        tokens = prompt_tokens(item, model.tokenizer)
        if tokens > config.max_prompt_tokens:
            raise BadInput(
                f"The prompt {item.question[:40]!r}... has {tokens} tokens, more than {config.max_prompt_tokens}.",
                f"Shorten it, or set pairs.max_prompt_tokens={tokens}",
            )
    with model.state(BASE):
        prompts = [item.prompt for item in exchanges]
        rejected = model.generate(
            prompts, config.max_new_tokens, batch_size, progress, temperature=config.temperature, seed=seed
        )
    return [
        Pair(fingerprint([item.prompt, item.answer]), item.prompt, item.answer, answer, item.topic, item.trait)
        for item, answer in zip(exchanges, rejected, strict=True)
    ]


def prompt_tokens(item: Exchange, tokenizer: Any) -> int:
    """Number of tokens of the last user turn."""
    return len(tokenizer(item.question)["input_ids"])
