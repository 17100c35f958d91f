"""Cheap tests on the bytes of a text, which decide what is looked for in it: most texts hold nothing private.

One `bytes.translate` costs about a nanosecond a character, a regular expression twenty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass

_DIGITS = b"0123456789"
_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
# what may stand between the digits of a number, in ASCII or as part of another dash or space in UTF-8
BETWEEN = b" \n\r\t-./(),:'" + bytes(range(0x80, 0xC0)) + b"\xc2\xe2\xe3\xef"


def _table(**classes: bytes) -> bytes:
    """Map each byte of a class to the class's name, all others to a space."""
    table = bytearray(b" " * 256)
    for name, members in classes.items():
        for member in members:
            table[member] = ord(name)
    return bytes(table)


_NUMBERS = _table(d=_DIGITS)
_TOKENS = _table(a=_LETTERS + _DIGITS + b"_-")
# first bytes of scripts that have digits of their own: Arabic, N'Ko, those of India and South East Asia, fullwidth
_OTHER_DIGITS = re.compile(rb"[\xd9\xdb\xdf\xe0\xe1]|\xef\xbc[\x90-\x99]|\xf0\x9d\x9f|\xea[\x98-\xaf]")
_BLANKS = bytes(code if code >= 0x80 or chr(code).isalnum() else 32 for code in range(256))
# of two or three: Cyrillic to Arabic, India, South East Asia, East Asia; fullwidth and mathematical digits
_SCRIPTS = bytes([*range(0xD0, 0xE2), *range(0xE3, 0xEE)])
_NO_SCRIPTS = bytes(sorted(set(range(256)) - set(_SCRIPTS)))


@dataclass  # not frozen: one is made for each text, and freezing doubles what that costs
class Triggers:
    """What a text may hold."""

    lower: bytes
    """The text in UTF-8, with lower-case ASCII letters."""
    digit: bool
    number: bool
    """Four digits, with any separators between them."""
    long_number: bool
    """Six digits, with any separators between them."""
    scripts: bool
    """Letters of other scripts than the Latin and the Greek one."""
    token: bool
    """A word of 16 letters, digits, hyphens and underscores."""

    hints: Set[bytes] | None = None
    """The words of `HINTS` in the text, once they were asked for."""

    def any_of(self, parts: Iterable[bytes]) -> bool:
        return any(map(self.lower.__contains__, parts))

    def words(self) -> Set[bytes]:
        """The words of `HINTS` in the text. All that is not ASCII counts as letters."""
        if self.hints is None:
            self.hints = HINTS.intersection(self.lower.translate(_BLANKS).split())
        return self.hints


HINTS: set[bytes] = set()
"""The words that any detector goes by, in lower case; `hint_words` adds to them."""


def hint_words(words: str) -> frozenset[bytes]:
    """Words by which a detector knows whether a text is for it."""
    hints = frozenset(word.encode() for word in words.split())
    HINTS.update(hints)
    return hints


def triggers(text: str) -> Triggers:
    data = text.encode("utf-8", "surrogatepass")
    ascii_only = text.isascii()
    scripts = not ascii_only and bool(data.translate(None, _NO_SCRIPTS))
    # digits of other scripts are rare: then everything is looked for
    other = (
        not ascii_only and (scripts or b"\xef\xbc" in data or b"\xf0\x9d" in data) and bool(_OTHER_DIGITS.search(data))
    )
    digit = other or b"d" in data.translate(_NUMBERS)
    digits = data.translate(_NUMBERS, BETWEEN) if digit else b""
    number = other or b"dddd" in digits
    return Triggers(
        lower=data.lower(),
        digit=digit,
        number=number,
        long_number=other or (number and b"dddddd" in digits),
        scripts=scripts,
        token=b"aaaaaaaaaaaaaaaa" in data.translate(_TOKENS),
    )
