"""Secrets that are recognised by their own form: private keys, vendors' tokens, passwords in links, seed phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.passwords import is_placeholder
from moltlm.data.conversations.redact.spans import Span, lowered, places, windows
from moltlm.data.conversations.redact.triggers import Triggers, hint_words
from moltlm.data.conversations.redact.vendors import HINTED, OTHERS, PROVIDERS, VENDORS

PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{16,40000}-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|(?:(?:\\[nr]|\s)+[A-Za-z0-9+/=]{16,})+)"
)
# the last @ before the host ends the password; user and password end at a slash
URL_PASSWORD = re.compile(r"://[^\s/:@?#\[\]\"'<>]{0,64}:([^\s/\"'<>\[\]{}$]{1,128})@(?=[\w\[])")
WORD = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,}")
RANDOM = re.compile(r"[A-Za-z_-]{0,200}(?:\d|[a-z][A-Z])|[A-Za-z0-9]{30}|[A-Z]{20}|[a-z]{2,8}_[A-Za-z]{30}")
# the context of the expressions that want a vendor's name before the token
BEFORE, AFTER = 60, 220

SEED_NAMES = ("phrase", "mnemonic", "seed", "semilla", "recuper", "récupération", "wiederherstell", "助记词")
SEED_PARTS = ("助记词".encode(),)
SEED_WORDS = hint_words(
    "phrase phrases passphrase seedphrase mnemonic mnemonics seed seeds semilla recuperación recuperação recuperacion"
    " recuperacao recupero recuperare récupération wiederherstellungsphrase wiederherstellungswörter wiederherstellung"
)
SEED = re.compile(
    r"[^\n.:;=!?]{2,40}?(?:\s?[:=：是]|\s(?:is|are|ist|sind|lautet|es|son|est|é|è|sono|são))\s{0,3}[\"'`“]?"
    r"((?:(?:\d{1,2}[.)]\s?)?[a-z]{3,8}(?:,\s?|\s{1,2}|(?![a-z]))){12,25})"
)
SEED_WORD = re.compile(r"[a-z]{3,8}")
# three to eight letters and not in the list of BIP 39
NO_SEED_WORD = frozenset(
    re.findall(r"\S+", "the and are for was not but from has had its our their been were words which into who your")
)


def secrets(text: str, triggers: Triggers) -> Iterator[Span]:
    if triggers.token and b"-----begin" in triggers.lower:
        yield from (match.span() for match in PEM.finditer(text))
    if b"@" in triggers.lower and b"://" in triggers.lower:
        yield from _link_passwords(text)
    if len(text) > 60 and (triggers.words() & SEED_WORDS or (triggers.scripts and triggers.any_of(SEED_PARTS))):
        yield from _seed_phrases(text)
    if triggers.token:
        yield from _tokens(text, triggers)


def _link_passwords(text: str) -> Iterator[Span]:
    for place in places(text, "://"):
        match = URL_PASSWORD.match(text, place)
        if match and not is_placeholder(match[1]):
            yield match.span(1)


def _seed_phrases(text: str) -> Iterator[Span]:
    """The first 12, 15, 18, 21 or 24 words after the name of such a phrase."""
    low = lowered(text)
    for match in filter(None, (SEED.match(low, place) for name in SEED_NAMES for place in places(low, name))):
        words = list(SEED_WORD.finditer(low, *match.span(1)))
        words = words[: min(len(words), 24) // 3 * 3]
        if len(words) >= 12 and not any(word[0] in NO_SEED_WORD for word in words):
            yield match.start(1), words[-1].end()


def _tokens(text: str, triggers: Triggers) -> Iterator[Span]:
    words = [match.span() for match in WORD.finditer(text) if RANDOM.match(match[0])]
    if not words:
        return
    expressions = [VENDORS, OTHERS, PROVIDERS]
    for hints, hinted in HINTED.items():
        expressions += hinted if triggers.any_of(hints) else ()
    for window in windows(text, words, BEFORE, AFTER):
        for expression in expressions:
            yield from (match.span(match.lastindex or 0) for match in expression.finditer(text, *window))
