"""The table of formats. A format is detected from the keys of a file's first record, never from its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from moltlm.data.conversations import (
    characters,
    cursor,
    gemini,
    local_apps,
    messengers,
    table_rows,
    templates,
    terminal,
    whatsapp,
)
from moltlm.data.conversations.chatgpt import CHATGPT
from moltlm.data.conversations.claude import CLAUDE
from moltlm.data.conversations.format import Format, TextFormat
from moltlm.data.conversations.messages import MESSAGES, PROMPTS, SHAREGPT
from moltlm.data.conversations.preferences import PREFERENCES
from moltlm.data.conversations.sessions import SESSION
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.turns import Conversation, Fail, FileReport, Record, Turn, type_name

FORMATS = (
    CHATGPT,
    CLAUDE,
    *local_apps.FORMATS,
    *characters.FORMATS,
    *messengers.FORMATS,
    *messengers.UNREAD,
    *gemini.FORMATS,
    *cursor.FORMATS,
    table_rows.TABLE,
    SHAREGPT,
    PREFERENCES,
    MESSAGES,
    PROMPTS,
    templates.ROWS,
    SESSION,
)
"""A record has the first format whose `detect` is true. SESSION is last, since its keys are the least specific."""

TEXTS: tuple[TextFormat, ...] = (whatsapp.WHATSAPP, templates.TEMPLATE, terminal.CLAUDE_CODE, cursor.MARKDOWN)
"""Formats that are no JSON. A text that is none of them may be a transcript."""

SUPPORTED = "; ".join(
    [
        *(each.description for each in (*FORMATS, *TEXTS) if each.description),
        "Markdown or text with a speaker before each turn (**User:**, ## Assistant, Human:)",
        "a folder or zip of these",
    ]
)


def detect(record: Any) -> Format | None:
    """The format of a JSON value, or None."""
    if not isinstance(record, dict):
        return None
    return next((each for each in FORMATS if each.detect(record)), None)


def conversations(
    records: Iterator[tuple[str, Any]], source: Source, report: FileReport
) -> Iterator[Conversation] | None:
    """Read every conversation in the records of a file, lazily.

    Returns:
        None if the first record is of no known format.

    Raises:
        BadInput: naming the place, for a record that is not like the first one or lacks what its format has.
    """
    first = next(records, None)
    format = detect(first[1]) if first else None
    if first is None or format is None:
        return None
    report.format = format.name
    records = chain([first], records)
    if format.gather:
        return _gathered(format, format.gather(records), source, report)
    if format.whole_file:
        turns = _events(format, records, source, report)
        return iter([Conversation("the session", turns, source.stem)])
    return _one_by_one(format, records, source, report)


def _events(format: Format, records: Iterator[tuple[str, Any]], source: Source, report: FileReport) -> Iterator[Turn]:
    for place, event in records:
        fail = _fail(source, place)
        if not isinstance(event, dict):
            raise fail(f"expected an event, found {type_name(event)}.")
        yield from format.read(event, report, fail)


def _one_by_one(
    format: Format, records: Iterator[tuple[str, Any]], source: Source, report: FileReport
) -> Iterator[Conversation]:
    keys: Any = None
    for place, record in records:
        is_like_last = isinstance(record, dict) and record.keys() == keys and format.detect(record)
        if not is_like_last and detect(record) != format:
            names = ", ".join(list(record)[:6]) if isinstance(record, dict) else type(record).__name__
            raise _fail(source, place)(f"expected {format.name} as before it, found {names or 'an empty object'}.")
        keys = record.keys()
        yield from _parts(format, place, record, source, report)


def _gathered(
    format: Format, records: Iterable[tuple[str, Record]], source: Source, report: FileReport
) -> Iterator[Conversation]:
    for place, record in records:
        yield from _parts(format, place, record, source, report)


def _parts(format: Format, place: str, record: Record, source: Source, report: FileReport) -> Iterator[Conversation]:
    """The conversations in a record."""
    fail, labels = _fail(source, place), (source.stem, "", "")
    if format.labelled:
        labels = (_label(record, "source") or source.stem, _label(record, "topic"), _label(record, "trait"))
    for part in format.split(record) if format.split else (record,):
        report.conversations += 1
        yield Conversation(place, format.read(part, report, fail), *labels)


def _label(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _fail(source: Source, place: str) -> Fail:
    return lambda what: source.bad(f", {place}: {what}", source.look(place))
