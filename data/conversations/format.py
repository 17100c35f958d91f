"""What a format of conversations consists of: a name, how to detect it, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn

ReadRecord = Callable[[Record, FileReport, Fail], Iterator[Turn]]
"""Yields the turns of one conversation. Counts in the report what it removes, and raises `fail(what)` for a record that
lacks what the format has."""


@dataclass(frozen=True)
class Format:
    """A JSON shape in which conversations are exported.

    Args:
        name: what reports call it.
        description: what an error says is supported.
        detect: whether a JSON object has this shape. The first record of a file decides.
        read: the turns of one record.
        labelled: a record may have texts `source`, `topic` and `trait`, which its exchanges keep.
        whole_file: the records of a file are the events of one conversation; `read` gets them one by one.
    """

    name: str
    description: str
    detect: Callable[[Record], bool]
    read: ReadRecord
    labelled: bool = False
    whole_file: bool = False
