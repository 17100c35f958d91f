"""E-mail addresses, also written as `ana (at) example (dot) org`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.spans import Span
from moltlm.data.conversations.redact.triggers import Triggers

# Scripts that separate words: in Chinese, Japanese or Thai the sentence would run into the address.
_SCRIPT = "A-Za-z0-9\u00c0-\u024f\u0370-\u052f"
EMAIL = re.compile(
    rf"(?<![{_SCRIPT}.+%_-])(?!git@)[{_SCRIPT}+%_](?:[{_SCRIPT}.+%'_-]{{0,62}}[{_SCRIPT}+%_-])?[@＠]"
    rf"(?!v?\d+\.\d|\dx\.)(?:[{_SCRIPT}](?:[{_SCRIPT}-]{{0,61}}[{_SCRIPT}])?\.){{1,8}}"
    r"(?:xn--[a-z0-9-]{2,40}|[A-Za-z\u00c0-\u024f]{2,24}|[\u0370-\u052f]{2,24})(?![A-Za-z0-9@])"
)
_AT = r"\s?[\[({<]\s?(?:at|ät|arroba|chez|chiocciola|@)\s?[\])}>]\s?"
_DOT = r"(?:\.|\s?[\[({<]\s?(?:dot|punkt|punto|ponto|point|\.)\s?[\])}>]\s?)"
SPELLED = re.compile(
    rf"(?<![\w.+%-])[\w+%-][\w.+%-]{{0,63}}{_AT}[^\W_][\w-]{{0,62}}(?:{_DOT}[^\W_][\w-]{{0,62}}){{1,6}}", re.IGNORECASE
)
_AT_SIGN = re.compile(_AT, re.IGNORECASE)
# the same in the bytes of a text
AT_BYTES = re.compile(r"[\[({]\s?(?:at|ät|arroba|chez|chiocciola|@)\s?[\])}]".encode())


def may_hold_email(triggers: Triggers) -> bool:
    return b"@" in triggers.lower or b"\xef\xbc\xa0" in triggers.lower or AT_BYTES.search(triggers.lower) is not None


def emails(text: str) -> Iterator[Span]:
    """Every address."""
    yield from (match.span() for match in EMAIL.finditer(text))
    for match in _AT_SIGN.finditer(text):
        written = SPELLED.search(text, max(match.start() - 65, 0), match.end() + 200)
        if written:
            yield written.span()
