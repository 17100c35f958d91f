"""Pairs and exchanges as the data sets that TRL trains on."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from moltlm.adapters.serve import encode_prompt
from moltlm.data.types import RAW, Exchange, Message, Pair


def preferences(pairs: list[Pair]) -> Dataset:
    """For DPO and ORPO."""
    return Dataset.from_list(
        [
            {
                "prompt": pair.prompt,
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def completions(exchanges: list[Exchange], tokenizer: Any, max_length: int) -> Dataset:
    """For SFT; with plain texts among them, as the tokens and labels that TRL would make of a conversation."""
    if not any(item.prompt[0]["role"] == RAW for item in exchanges):
        return Dataset.from_list([{"prompt": item.prompt, "completion": [_answer(item)]} for item in exchanges])
    rows = []
    for item in exchanges:
        prompt = encode_prompt(tokenizer, item.prompt)
        if item.prompt[0]["role"] == RAW:
            tokens = prompt + tokenizer(item.answer, add_special_tokens=False)["input_ids"]
        else:
            tokens = tokenizer.apply_chat_template([*item.prompt, _answer(item)], tokenize=True, return_dict=True)[
                "input_ids"
            ]
        labels = [-100] * len(prompt) + tokens[len(prompt) :]
        rows.append({"input_ids": tokens[:max_length], "labels": labels[:max_length]})
    return Dataset.from_list(rows)


def _answer(item: Exchange) -> Message:
    return {"role": "assistant", "content": item.answer}
