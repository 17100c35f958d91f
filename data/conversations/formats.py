"""The table of formats. A format is detected from the keys of a file's first record, never from its name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby, islice
from typing import Any

from moltlm.data.conversations import (
    characters,
    consoles,
    cursor,
    editors,
    gemini,
    local_apps,
    messengers,
    nested,
    roleplay,
    scripted,
    sessions,
    table_rows,
    tables,
    templates,
    terminal,
    web_apps,
    whatsapp,
)
from moltlm.data.conversations.annotated import ANNOTATED
from moltlm.data.conversations.chatgpt import CHATGPT
from moltlm.data.conversations.cherry import CHERRY
from moltlm.data.conversations.claude import CLAUDE
from moltlm.data.conversations.format import Format, TextFormat
from moltlm.data.conversations.logged import LOGGED
from moltlm.data.conversations.marks import UNMARKED, mark_of
from moltlm.data.conversations.messages import DIALOGUES, MESSAGES, PROMPTS, SHAREGPT
from moltlm.data.conversations.preferences import PREFERENCES, TREES
from moltlm.data.conversations.sessions import SESSION
from moltlm.data.conversations.slack import SLACK
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.turns import Conversation, Fail, FileReport, Record, marked
from moltlm.data.io import without_surrogates

FORMATS = (
    *web_apps.FORMATS,
    CHATGPT,
    CLAUDE,
    *local_apps.FORMATS,
    *characters.FORMATS,
    *roleplay.FORMATS,
    *messengers.FORMATS,
    SLACK,
    *messengers.UNREAD,
    CHERRY,
    *gemini.FORMATS,
    *cursor.FORMATS,
    *editors.FORMATS,
    table_rows.TABLE,
    TREES,
    ANNOTATED,
    PREFERENCES,
    LOGGED,
    DIALOGUES,
    SHAREGPT,
    MESSAGES,
    PROMPTS,
    templates.ROWS,
    *scripted.FORMATS,
    SESSION,
)
"""A record has the first format whose `detect` is true. SESSION is last, since its keys are the least specific."""

WEAK = (table_rows.TABLE, PROMPTS, templates.ROWS, *scripted.FORMATS, SESSION)
"""Formats that an object inside another one may have by chance."""

LOOKAHEAD = 1000
"""So many records may precede the first one of a known format."""

TEXTS: tuple[TextFormat, ...] = (
    whatsapp.WHATSAPP,
    templates.TEMPLATE,
    terminal.CLAUDE_CODE,
    consoles.OLLAMA,
    consoles.LLAMA_CPP,
    cursor.MARKDOWN,
    editors.AIDER,
)
"""Formats that are no JSON. A text that is none of them may be a transcript."""

SUPPORTED = "; ".join(
    [
        *(each.description for each in (*FORMATS, *TEXTS) if each.description),
        "Markdown or text with a speaker before each turn (**User:**, ## Assistant, Human:)",
        "a folder or zip of these",
    ]
)


UNPARSED = ("messages", "conversations", "conversation", "prompt", "chosen", "rejected", "history")
"""Fields whose lists some rows hold as a text."""


def _parsed(record: Any) -> Any:
    """A record whose lists of messages are lists, where a table or a script wrote them as texts."""
    if not isinstance(record, dict):
        return record
    for key in UNPARSED:
        text = record.get(key)
        if type(text) is str and text[:2] == "[{" and _are_messages(value := tables.parsed(text), key):
            record = {**record, key: value}
    return record


def _are_messages(value: Any, key: str) -> bool:
    if key in tables.SAID:
        return tables.holds_messages(value)
    return isinstance(value, list) and all(isinstance(each, dict) and {"role", "from"} & set(each) for each in value)


def detect(record: Any) -> Format | None:
    """The format of a JSON value, or None."""
    if not isinstance(record, dict):
        return None
    return next((each for each in FORMATS if each.detect(record)), None)


def _has_keys_of_its_own(record: Record) -> bool:
    format = detect(record)
    return format is not None and format not in WEAK and format not in messengers.UNREAD


def _inside(record: Any) -> list[tuple[Format, Record]]:
    """The conversations in a value of no known format, each with its format."""
    if not isinstance(record, dict | list):
        return []
    inner = nested.conversations_in(record, _has_keys_of_its_own)
    return [(format, each) for each in inner if (format := detect(each))]


def conversations(
    records: Iterator[tuple[str, Any]], source: Source, report: FileReport
) -> Iterator[Conversation] | None:
    """Read every conversation in the records of a file, lazily, each record by its own format.

    Records of no known format, such as a header, are counted and passed over.

    Returns:
        None if none of the first LOOKAHEAD records has a known format.

    Raises:
        BadInput: naming the place, for a record that lacks what its format has.
    """
    records, ahead = ((place, _parsed(record)) for place, record in records), list[tuple[str, Any]]()
    for record in islice(records, LOOKAHEAD):
        ahead.append(record)
        if detect(record[1]) or _inside(record[1]):
            return _each(chain(ahead, records), source, report)
    return None


def _each(records: Iterator[tuple[str, Any]], source: Source, report: FileReport) -> Iterator[Conversation]:
    for format, run in groupby(_recognised(records, report), key=lambda item: item[0]):
        report.format = (
            report.format if format.name in report.format.split(", ") else _added(report.format, format.name)
        )
        if format.whole_file:
            events = ((record, _fail(source, place)) for _, place, record in run)
            yield from sessions.conversations(format.read, events, report, source.stem)
        elif format.gather:
            for place, record in format.gather((place, record) for _, place, record in run):
                yield from _of_record(format, place, record, source, report)
        else:
            for _, place, record in run:
                yield from _of_record(format, place, record, source, report)


def _recognised(records: Iterator[tuple[str, Any]], report: FileReport) -> Iterator[tuple[Format, str, Record]]:
    """Each record with its format; those without one are counted."""
    format, keys = None, None
    for place, record in records:
        is_like_last = isinstance(record, dict) and record.keys() == keys
        if not (is_like_last and format and format.detect(record)):
            format = detect(record)
        keys = record.keys() if isinstance(record, dict) else None
        if format is not None:
            yield format, place, record
            continue
        inside = _inside(record)
        report.noise["row of no known format"] += not inside
        yield from ((each, place, inner) for each, inner in inside)


def _added(names: str, name: str) -> str:
    return f"{names}, {name}" if names else name


def _of_record(
    format: Format, place: str, record: Record, source: Source, report: FileReport
) -> Iterator[Conversation]:
    """The conversations of a record. What the record says against its answer holds for all its answers."""
    labels = (source.stem, "", "")
    if format.labelled:
        labels = (_label(record, "source") or source.stem, _label(record, "topic"), _label(record, "trait"))
    mark = mark_of(record, report.scales)
    for part in format.split(record) if format.split else (record,):
        report.conversations += 1
        turns = format.read(part, report, _fail(source, place))
        if mark != UNMARKED:
            turns = (marked(turn, mark) for turn in turns)
        yield Conversation(place, turns, *labels, by_name=format.by_name)


def _label(record: Record, key: str) -> str:
    value = record.get(key)
    return without_surrogates(value) if isinstance(value, str) else ""


def _fail(source: Source, place: str) -> Fail:
    return lambda what: source.bad(f", {place}: {what}", source.look(place))
