"""Redaction: what is private in a text becomes a mark such as [EMAIL].

`suspects` tells from the bytes of many texts which of them may hold something private, since most do not. `triggers`
decides what is looked for in one of those. `folding` gives a view in which digits, dashes and spaces of all scripts are
ASCII. One module then finds each kind: `secrets` (with `vendors`), `passwords` (with `nouns`), `emails`, `phones`,
`payment`, `identity`, `machines` and `addresses`. `context` knows the words that make a number public: `order no.`.
Everything is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from moltlm.data.conversations.redact.addresses import (
    address_windows,
    addresses,
    east_asian_addresses,
    may_hold_address,
    may_hold_east_asian_address,
)
from moltlm.data.conversations.redact.emails import emails, may_hold_email
from moltlm.data.conversations.redact.folding import fold
from moltlm.data.conversations.redact.identity import (
    coordinates,
    documents,
    may_hold_document,
    may_hold_plate,
    named_documents,
    plates,
)
from moltlm.data.conversations.redact.machines import ipv4, ipv6, macs, may_hold_address_of_machine
from moltlm.data.conversations.redact.passwords import passwords
from moltlm.data.conversations.redact.payment import cards, ibans
from moltlm.data.conversations.redact.phones import phones
from moltlm.data.conversations.redact.secrets import secrets
from moltlm.data.conversations.redact.spans import MARKS, Span, blank, put, windows
from moltlm.data.conversations.redact.suspects import suspects
from moltlm.data.conversations.redact.triggers import Triggers, triggers
from moltlm.data.conversations.words import Bytes

__all__ = ["MARKS", "redact", "redact_all"]

PASSES = 8
"""Marks change what is beside them. Real texts need two passes; the bound keeps the time linear for all others."""

Detector = Callable[[str, Span], Iterator[Span]]
Job = tuple[str, Detector, list[Span]]
"""A mark, what finds such places, and where it looks."""

# six digits with spaces, dashes and the like between them; commas separate numbers
_LONG_NUMBER = re.compile(r"\d(?:[ .:/()'\n-]{0,4}\d){5,}")
_YEARS = re.compile(r"1\d\d\d ?[-/] ?(?:1\d|20)\d\d|(?:19|20)\d\d(?: ?[-/] ?20\d\d|([-./])\d\d?\1\d\d?)")
"""Ranges of years and dates, which most of the others are."""
_LONG_NUMBERS: tuple[tuple[str, Detector], ...] = (
    ("IBAN", ibans),
    ("CARD", cards),
    ("ID", documents),
    ("LOCATION", coordinates),
    ("IP", ipv4),
    ("PHONE", phones),
)
_BEFORE, _AFTER = 30, 34
"""Characters around a number that are searched for what it is a part of."""


def redact(text: str) -> tuple[str, Counter[str]]:
    """Replace secrets and personal numbers by marks. Redacting the result changes nothing.

    Returns:
        The text, and how many marks of each kind it got.
    """
    counts: Counter[str] = Counter()
    for _ in range(PASSES):
        cleaned = _once(text, counts)
        if cleaned == text:
            break
        text = cleaned  # the text next to a mark may match now
    return text, counts


def redact_all(texts: Sequence[str], in_bytes: Bytes) -> tuple[list[str], Counter[str]]:
    """As `redact`, of many texts, most of which need not be looked at by themselves.

    Args:
        texts: of which `in_bytes` is made.
    """
    redacted, counts = list(texts), Counter[str]()
    for place in suspects(in_bytes):
        redacted[place], of_text = redact(texts[place])
        counts += of_text
    return redacted, counts


def _once(text: str, counts: Counter[str]) -> str:
    present = triggers(text)
    hidden = [*secrets(text, present), *passwords(text, present)]
    spans = [(span, "SECRET") for span in hidden]
    if may_hold_email(present):
        spans += [(span, "EMAIL") for span in emails(blank(text, hidden) if hidden else text)]
    if spans:
        text = put(text, spans, counts)
    numbers = _numbers(text, present) if present.digit else ()
    return put(text, numbers, counts) if numbers else text


def _numbers(text: str, present: Triggers) -> list[tuple[Span, str]]:
    """Everything that has digits. What one detector finds the next ones do not see."""
    spans: list[tuple[Span, str]] = []
    if not (
        present.number
        or may_hold_address(present)
        or may_hold_east_asian_address(present)
        or may_hold_document(present)
        or may_hold_plate(present)
        or may_hold_address_of_machine(present)
    ):
        return spans
    view = fold(text)
    for mark, detector, where in _jobs(view, present):
        detected = [span for window in where for span in detector(view, window)]
        if detected:
            view = blank(view, detected)
            spans += [(span, mark) for span in detected]
    return spans


def _jobs(view: str, present: Triggers) -> Iterator[Job]:
    whole = [(0, len(view))]
    if may_hold_address_of_machine(present):
        yield "IP", ipv6, whole
        yield "MAC", macs, whole
    if may_hold_address(present):
        yield "LOCATION", addresses, address_windows(view, present)
    if may_hold_east_asian_address(present):
        yield "LOCATION", east_asian_addresses, whole
    if present.long_number:
        near = _near_long_numbers(view)
        yield from ((mark, detector, near) for mark, detector in _LONG_NUMBERS)
    if may_hold_document(present):
        yield "ID", named_documents, whole
    if may_hold_plate(present):
        yield "ID", plates, whole


def _near_long_numbers(view: str) -> list[Span]:
    runs = (match for match in _LONG_NUMBER.finditer(view) if not _YEARS.fullmatch(match[0]))
    return windows(view, (match.span() for match in runs), _BEFORE, _AFTER)
