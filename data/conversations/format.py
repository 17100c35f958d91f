"""What a format of conversations consists of: a name, how to detect it, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moltlm.data.conversations.source import Source
from moltlm.data.conversations.turns import Conversation, Fail, FileReport, Record, Turn

ReadRecord = Callable[[Record, FileReport, Fail], Iterator[Turn]]
"""Yields the turns of one conversation, with the role "" and a `speaker` where only names are known. Counts in the
report what it removes, and raises `fail(what)` for a record that lacks what the format has."""


@dataclass(frozen=True)
class Format:
    """A JSON shape in which conversations are exported.

    Args:
        name: what reports call it.
        description: what an error says is supported.
        detect: whether a JSON object has this shape. Each record of a file is read by its own format.
        read: the turns of one record.
        labelled: a record may have texts `source`, `topic` and `trait`, which its exchanges keep.
        split: the conversations in a record that holds several, each of which `read` gets by itself.
        whole_file: consecutive records are events of a conversation, or of several that ids tell apart; `read` gets
            them one by one, and branches are followed afterwards (`sessions.conversations`).
        gather: makes whole conversations, each with its place, of consecutive records that are parts of them, and holds
            them in memory; `read` gets those.
        by_name: the speakers are people: a name such as Ben or Claude is no role, whatever it means in some language.
    """

    name: str
    description: str
    detect: Callable[[Record], bool]
    read: ReadRecord
    labelled: bool = False
    split: Callable[[Record], Iterable[Record]] | None = None
    whole_file: bool = False
    gather: Callable[[Iterable[tuple[str, Any]]], Iterable[tuple[str, Record]]] | None = None
    by_name: bool = False


@dataclass(frozen=True)
class TextFormat:
    """A format that is no JSON.

    Args:
        name: what reports call it.
        description: what an error says is supported.
        detect: whether the beginning of a file, up to 256 KiB of text, has this format.
        read: the conversations of a file. It counts each in `report.conversations`. Turns whose speaker is only named
            have the role "" and the name as `speaker`.
    """

    name: str
    description: str
    detect: Callable[[str], bool]
    read: Callable[[Source, FileReport], Iterator[Conversation]]
