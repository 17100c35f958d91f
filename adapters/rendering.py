"""Conversations as tokens: the prompt as it is served, and the answer after it. Everything that trains, scores or
generates encodes its texts here, so a prompt in training is the served prompt, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from moltlm.adapters import chat_template
from moltlm.data import turns
from moltlm.data.types import RAW, Message


def encode_prompt(tokenizer: Any, prompt: list[Message]) -> list[int]:
    """Tokens of a prompt by the tokenizer's chat template, up to where the assistant begins to answer, or goes on
    if its turn has begun. For the beginning of a plain text, its tokens."""
    if prompt[0]["role"] == RAW:
        return tokenizer(prompt[0]["content"])["input_ids"]
    return tokenizer(_prompt_text(tokenizer, prompt), add_special_tokens=False)["input_ids"]


def encode_answers(
    tokenizer: Any, prompt: list[Message], answers: Sequence[str], closed: bool = True
) -> tuple[list[int], list[list[int]]]:
    """Tokens of a prompt, and of each answer after it.

    Args:
        closed: with what ends the turn, which is learned, but is no part of a score. A plain text has no such end.
    """

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    if prompt[0]["role"] == RAW:
        return encode_prompt(tokenizer, prompt), [tokens(answer) for answer in answers]
    before, after = _around_answer(tokenizer, tokenizer.chat_template)
    text = _prompt_text(tokenizer, prompt)
    start, encoded = tokens(text), []
    for answer in answers:
        written = ("" if prompt[-1]["role"] == "assistant" else before) + answer + (after if closed else "")
        whole = tokens(text + written)
        # where the last token of the prompt merges with the first of the answer, they are encoded apart
        encoded.append(whole[len(start) :] if whole[: len(start)] == start else tokens(written))
    return start, encoded


def fitted(tokenizer: Any, prompt: list[Message], room: int) -> list[Message]:
    """A prompt without its oldest turns, where it has more than `room` tokens. See `turns.fitted`."""
    return turns.fitted(prompt, lambda shorter: len(encode_prompt(tokenizer, shorter)), room)


def _prompt_text(tokenizer: Any, prompt: list[Message]) -> str:
    begun = prompt[-1]["role"] == "assistant"
    options = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
    return tokenizer.apply_chat_template(prompt, tokenize=False, **options)


@cache
def _around_answer(tokenizer: Any, template: str) -> tuple[str, str]:
    """What the template writes between the prompt and an answer, and after it."""
    return chat_template.opening(tokenizer), chat_template.closing(tokenizer)
