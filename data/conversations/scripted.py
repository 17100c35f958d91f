"""Rows as people's own scripts write them: a transcript in one text, a list of exchanges or of utterances, field names
with capitals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.messages import PROMPTS, message_turns
from moltlm.data.conversations.speakers import turns_of_roles
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, content_of, sender_of, turn_of

TEXTS = ("text", "conversation", "dialogue", "dialog", "chat", "transcript")
LISTS = ("dialogue", "dialog", "turns", "utterances", "chat", "exchanges", "lines", "transcript")
SIDES = (("user", "assistant"), ("human", "assistant"), ("input", "output"), ("question", "answer"), ("q", "a"))
SIDES += (("prompt", "response"), ("prompt", "completion"), ("user", "bot"), ("human", "bot"))
"""Fields of an object that is a question with its answer."""


def _turns(record: Record) -> list[tuple[str, str]]:
    """The turns of a row whose text is a transcript, each with its role; none of another row."""
    if "role" in record:
        return []
    return turns_of_roles(next((record[key] for key in TEXTS if isinstance(record.get(key), str)), ""))


def _transcript(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for role, text in _turns(record):
        yield from turn_of(role, text, report, fail)


def _list_of(record: Record) -> list[Record]:
    """The exchanges or utterances of a row; none where one of them is neither."""
    values = next((record[key] for key in LISTS if isinstance(record.get(key), list)), [])
    if not values or not all(isinstance(each, dict) for each in values):
        return []
    are_exchanges = all(_sides_of(each) for each in values)
    return values if are_exchanges or all(sender_of(each) and content_of(each) for each in values) else []


def _sides_of(exchange: Record) -> tuple[str, str] | None:
    return next((sides for sides in SIDES if all(isinstance(exchange.get(side), str) for side in sides)), None)


def _listed(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    values = _list_of(record)
    if not _sides_of(values[0]):
        yield from message_turns(values, record, report, fail)
        return
    for each in values:
        question, answer = _sides_of(each) or ("", "")
        yield from turn_of("user", each[question], report, fail)
        yield from turn_of("assistant", each[answer], report, fail)


def _lowered(record: Record) -> Record:
    """The record with its names in lower case, and `q` and `a` in full."""
    names = {"q": "question", "a": "answer"} if {"q", "a"} <= {key.lower() for key in record} else {}
    return {names.get(key.lower(), key.lower()): value for key, value in record.items()}


def _is_capital(record: Record) -> bool:
    lowered: dict[str, Any] = _lowered(record)
    return lowered.keys() != record.keys() and PROMPTS.detect(lowered)


FORMATS = (
    Format("lists of exchanges", "rows with a list of `user` and `assistant`", lambda r: bool(_list_of(r)), _listed),
    Format("prompts", "", _is_capital, lambda record, *more: PROMPTS.read(_lowered(record), *more)),
    Format("transcripts in rows", "rows with a transcript", lambda record: bool(_turns(record)), _transcript),
)
