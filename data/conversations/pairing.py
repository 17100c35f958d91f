"""A good and a bad answer to the same prompt, which follow each other in a file, are one preference.

KTO's rows are such answers, and so is one that was rated down and regenerated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from moltlm.data.conversations.marks import is_judgement
from moltlm.data.conversations.turns import FileReport
from moltlm.data.errors import BadInput
from moltlm.data.types import GIVEN, Exchange, Message


@dataclass(frozen=True)
class Unwanted:
    """An answer that is not learned, and why. It is counted as dropped."""

    prompt: list[Message]
    answer: str
    reason: str


def paired(items: Iterable[Exchange | Unwanted], file: FileReport) -> Iterator[Exchange]:
    """The exchanges of a file. One that has no rejected side takes the neighbouring answer to the same prompt that was
    judged to be bad, which is then no longer counted as dropped. One exchange is held back at a time."""
    held: Exchange | Unwanted | None = None
    try:
        for item in items:
            if pair := _pair(held, item, file):
                held = pair
                continue
            if isinstance(held, Exchange):
                yield held
            held = item
    except BadInput:
        if isinstance(held, Exchange):
            yield held
        raise
    if isinstance(held, Exchange):
        yield held


def _pair(first: Exchange | Unwanted | None, second: Exchange | Unwanted, file: FileReport) -> Exchange | None:
    """The exchange that two neighbours are together; None if they are two."""
    good, bad = (first, second) if isinstance(first, Exchange) else (second, first)
    if not isinstance(good, Exchange) or not isinstance(bad, Unwanted):
        return None
    if good.rejected or good.prompt != bad.prompt or not bad.answer or bad.answer == good.answer:
        return None
    if not is_judgement(bad.reason):
        return None
    file.dropped[bad.reason] -= 1
    if not file.dropped[bad.reason]:
        del file.dropped[bad.reason]
    file.rejected[GIVEN] += 1
    return replace(good, rejected=bad.answer, provenance=GIVEN)
