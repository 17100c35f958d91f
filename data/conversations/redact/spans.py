"""Places in a text: replacing them by marks, and what stands before and after them in their line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

Span = tuple[int, int]

MARKS = ("SECRET", "IBAN", "CARD", "EMAIL", "PHONE", "ID", "IP", "MAC", "LOCATION")
MARK = re.compile(rf"\[(?:{'|'.join(MARKS)})\]")


def put(text: str, spans: Iterable[tuple[Span, str]], counts: Counter[str]) -> str:
    """Replace spans by marks; of two that overlap, the one that starts first, then the longer one."""
    parts, position = [], 0
    for (start, end), mark in sorted(set(spans), key=lambda item: (item[0][0], -item[0][1])):
        if start >= position and not MARK.fullmatch(text, start, end):
            parts += [text[position:start], f"[{mark}]"]
            counts[mark] += 1
            position = end
    return "".join([*parts, text[position:]]) if parts else text


def blank(text: str, spans: Iterable[Span]) -> str:
    """The text, as long as before, with nothing in spans that can be found again."""
    parts, position = [], 0
    for start, end in sorted(spans):
        start = max(start, position)
        if end > start:
            parts += [text[position:start], "\0" * (end - start)]
            position = end
    return "".join([*parts, text[position:]])


def places(text: str, word: str) -> Iterator[int]:
    """Every position of a word."""
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


def lowered(text: str) -> str:
    """The text in lower case, character for character."""
    low = text.lower()
    return low if len(low) == len(text) else text.replace("İ", "I").lower()


def windows(text: str, spans: Iterable[Span], before: int, after: int) -> list[Span]:
    """The surroundings of each span, merged where they overlap; spans are in order."""
    merged: list[Span] = []
    for start, end in spans:
        low, high = max(start - before, 0), min(end + after, len(text))
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def line_before(text: str, place: int, size: int) -> str:
    """At most `size` characters of the line before a place."""
    start = max(place - size, 0)
    return text[max(text.rfind("\n", start, place) + 1, start) : place]


def line_after(text: str, place: int, size: int) -> str:
    """At most `size` characters of the line after a place."""
    end = text.find("\n", place, place + size)
    return text[place : place + size if end < 0 else end]
