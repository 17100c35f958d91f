"""Preference rows as in TRL: a chosen and a rejected side. Only the chosen side is learned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.messages import answer_turns, prompt_turns
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, type_name


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The prompt and the chosen side. Answers of the rejected side are counted as dropped.

    The common beginning of two sides that are lists of messages belongs to the prompt, which may be nothing else.
    """
    prompt, chosen, rejected = record.get("prompt"), record["chosen"], record["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen[:-1], rejected[:-1], strict=False))
        common = len(list(same))
        if prompt is not None and not _begins_with(chosen, prompt):
            yield from prompt_turns(prompt, report, fail)
        yield from prompt_turns(chosen[:common], report, fail)
        chosen, rejected = chosen[common:], rejected[common:]
    elif prompt is None:
        raise fail(f"without a `prompt`, both sides must be lists of messages; `chosen` is {type_name(chosen)}.")
    else:
        yield from prompt_turns(prompt, report, fail)
    yield from answer_turns(chosen, report, fail)
    for turn in answer_turns(rejected, FileReport(""), fail):
        report.drop_answer(turn, "rejected answer")


def _begins_with(messages: list[Any], prompt: Any) -> bool:
    """Whether a side repeats the prompt, a list of messages or the text of one of the first two."""
    if isinstance(prompt, list):
        return messages[: len(prompt)] == prompt
    return any(isinstance(message, dict) and message.get("content") == prompt for message in messages[:2])


PREFERENCES = Format(
    "preferences",
    "JSONL with `prompt`, `chosen` and `rejected` (TRL), of which the chosen side is learned",
    lambda record: "chosen" in record and "rejected" in record,
    _read,
    labelled=True,
)
