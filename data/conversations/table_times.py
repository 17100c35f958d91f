"""Whether the times of a table's rows fall from row to row, in the ways in which people and programs write times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from moltlm.data.conversations.voices import plain

SORTABLE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z| UTC|[+-]\d\d:?\d\d)?)?")
"""Times that sort as texts."""
CLOCK = re.compile(r"(?<!\d)(\d{1,2}):(\d\d)(?::(\d\d(?:[.,]\d{1,9})?))?(?:\s*(?:UTC|GMT)?\s*[+-]\d\d:?\d\d)?")
MERIDIEM = re.compile(r"(?<![^\W\d_])(?:(a)|p)\.?\s?m\b|(上午|午前|오전)|下午|午後|오후", re.IGNORECASE)
"""What says whether a time is before or after noon."""
DOTTED = re.compile(r"\D*\d{1,2}\.\s?\d{1,2}\.")
"""A date with dots, which begins with the day."""
ORDERS = ("ymd", "dmy", "mdy")
MONTHS = [
    line.split()
    for line in """
    january januar janvier enero janeiro gennaio
    february februar fevrier febrero fevereiro febbraio
    march marz mars marzo marco mrz maerz
    april avril abril aprile
    may mai mayo maio maggio
    june juni juin junio junho giugno
    july juli juillet julio julho luglio
    august aout agosto
    september septembre septiembre setembro settembre
    october oktober octobre octubre outubro ottobre
    november novembre noviembre novembro
    december dezember decembre diciembre dezembro dicembre
    """.strip().splitlines()
]
DAY = 24 * 60 * 60


class Date(NamedTuple):
    """What a time says besides its clock.

    Args:
        numbers: the first three numbers.
        more: those after them.
        month: the number of a month that it names, or 0.
        words: what else it says, if it needs that to be a date.
        noon: -1 before noon, 1 after it, 0 where it does not say so.
    """

    numbers: tuple[str, ...]
    more: tuple[str, ...]
    month: int
    words: str
    noon: int


class Time(NamedTuple):
    """A date, and the seconds since midnight."""

    date: Date
    seconds: float


def falls(times: Sequence[Any]) -> bool | None:
    """Whether times fall from one to the next and never rise; None if nothing tells whether they fall or rise."""
    texts = [time if isinstance(time, str) else "" for time in times]
    if all(map(SORTABLE.fullmatch, texts)):
        return _verdict([(one > two) - (one < two) for one, two in pairwise(texts)])
    numbers = [_number(time) for time in times]
    seconds = [number for number in numbers if number is not None]
    if len(seconds) == len(times):
        return _verdict([(one > two) - (one < two) for one, two in pairwise(seconds)])
    read = [time_of(text) for text in texts if text.strip()]
    orders = ("dmy",) if any(map(DOTTED.match, texts)) else ORDERS
    possible = [set(steps) - {0} for order in orders if (steps := _steps(read, order)) is not None]
    if {1} in possible:
        return None if {-1} in possible else True
    return False if any(possible) else None


def _number(time: Any) -> float | None:
    if isinstance(time, bool) or not isinstance(time, str | int | float):
        return None
    try:
        return float(time)
    except (ValueError, OverflowError):
        return None


def _verdict(steps: Sequence[int]) -> bool | None:
    return min(steps) >= 0 if any(steps) else None


def time_of(text: str) -> Time:
    """What a time says, as a text."""
    clock = CLOCK.search(text)
    date = _date(text if clock is None else f"{text[: clock.start()]} {text[clock.end() :]}")
    hours, minutes, seconds = clock.groups("0") if clock else (*date.more, "0", "0", "0")[:3]
    hour = int(hours[:9]) % 12 + 12 * (date.noon > 0) if date.noon else int(hours[:9])
    return Time(date, (hour * 60 + int(minutes[:9])) * 60 + float(seconds.replace(",", ".")))


@lru_cache(maxsize=4096)
def _date(text: str) -> Date:
    numbers, noon = re.findall(r"\d+", text), MERIDIEM.search(text)
    words = re.findall(r"[^\W\d_]{3,}", plain(MERIDIEM.sub(" ", text)))
    month = next(filter(None, map(_month, reversed(words))), 0)
    needs_words = not month and len(numbers) < 3
    half = 0 if noon is None else -1 if noon[1] or noon[2] else 1
    return Date(tuple(numbers[:3]), tuple(numbers[3:6]), month, " ".join(words) if needs_words else "", half)


def _month(word: str) -> int:
    """The number of the month that a word is, or is the beginning of; 0 if it is none."""
    return next((i for i, names in enumerate(MONTHS, 1) if any(name.startswith(word) for name in names)), 0)


def _steps(times: list[Time], order: str) -> list[int] | None:
    """For each time and the one after it 1 if they fall, -1 if they rise, 0 if they do not say; None if one of the
    dates is impossible in this order of year, month and day."""
    steps = []
    for before, after in pairwise(times):
        one, two = _days(before.date, order), _days(after.date, order)
        if one is None or two is None:
            return None
        if not before.date.numbers and not after.date.numbers:  # clocks alone, which begin anew at midnight
            later = (after.seconds - before.seconds) % DAY
            step = 0 if not later else 1 if later > DAY / 2 else -1
        else:
            first, second = (one, before.seconds), (two, after.seconds)
            step = (first > second) - (first < second)
        steps.append(step if before.date.words == after.date.words else 0)
    return steps


@lru_cache(maxsize=4096)
def _days(date: Date, order: str) -> tuple[int, int, int] | None:
    """Year, month and day, of which those that are not given are 0; None for a date that is none in this order."""
    values = [int(number[:9]) for number in date.numbers]
    if date.month or date.words:
        year = next((value for value in values if value > 31), max(values[1:], default=0))
        day = next((value for value in values if value <= 31), 0)
        return year, date.month, day
    if not any(values):
        return 0, 0, 0
    if len(values) < 3:
        values = [0, *values, 0][:3] if order == "ymd" else [*values, 0, 0][:3]
        has_year = True
    else:
        lengths = [len(number) for number in date.numbers]
        has_year = lengths[order.index("y")] == 4 or max(lengths) == 2
    year, month, day = (values[order.index(part)] for part in "ymd")
    return (year, month, day) if has_year and 1 <= month <= 12 and 1 <= day <= 31 else None
