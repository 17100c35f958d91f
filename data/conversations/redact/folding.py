"""A view of a text in which digits, dashes and spaces of every script are ASCII, character for character."""

from __future__ import annotations

import re
import unicodedata
from functools import cache


@cache
def _folded(sign: str) -> str:
    if sign.isdecimal():
        return str(unicodedata.decimal(sign))
    if "\uff01" <= sign <= "\uff5e":
        return chr(ord(sign) - 0xFEE0)
    category = unicodedata.category(sign)
    if category == "Pd" or sign in "\u2212\u30fc\u2043\u00ad":
        return "-"
    # joiners and marks of writing direction take no room, but numbers are copied with them
    return " " if category in ("Zs", "Cf") or sign in _BLANKS else sign


_BLANKS = "\t\r\v\f"
_OTHERS = re.compile(r"[^\x20-\x7e\n]")


def fold(text: str) -> str:
    """The view. It is as long as the text, so that a place in the one is the same place in the other."""
    if text.isascii():  # replacing four signs is much faster than an expression
        for sign in _BLANKS:
            text = text.replace(sign, " ")
        return text
    return _OTHERS.sub(lambda match: _folded(match[0]), text)
