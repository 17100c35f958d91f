"""Which of many texts may hold something private, by tests on all their bytes at once. `redact` leaves all others as
they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from moltlm.data.conversations.redact.addresses import STREET_PARTS
from moltlm.data.conversations.redact.emails import AT_BYTES
from moltlm.data.conversations.redact.nouns import LATIN_PARTS, NOUN_WORDS, WITHOUT_DIGITS
from moltlm.data.conversations.redact.secrets import SEED_PARTS, SEED_WORDS
from moltlm.data.conversations.redact.triggers import BETWEEN, HINTS
from moltlm.data.conversations.words import Bytes

TOKEN = 16
"""The length of a word that may be a token, as in `triggers`."""
_NO_BETWEEN = re.compile(rb"[^%b]" % re.escape(BETWEEN))
_BETWEEN = np.zeros(256, bool)
_BETWEEN[list(BETWEEN)] = True
_WITH_DIGITS = 2
# 1: bytes of other scripts than the Latin and the Greek one; 2: of those that have digits of their own
_SCRIPTS = np.zeros(256, np.uint8)
_SCRIPTS[[*range(0xD0, 0xE2), *range(0xE3, 0xEE)]] = 1
_SCRIPTS[[0xD9, 0xDB, 0xDF, 0xE0, 0xE1, 0xEA]] = _WITH_DIGITS
_FULLWIDTH, _MATHEMATICAL = 0xEFBC, 0xF09D
"""How the digits of these kinds begin, and the fullwidth @."""
_ASCII_PARTS = tuple(part for part in LATIN_PARTS if part.isascii())
_OTHER_PARTS = (*(part for part in LATIN_PARTS if not part.isascii()), *SEED_PARTS)
_HEXADECIMAL = np.zeros(256, bool)
_HEXADECIMAL[list(b"0123456789abcdefABCDEF")] = True
_GROUP = 5
"""From one colon to the next in an address of a machine, at most."""
_HASH_BITS = np.uint64(48)


def suspects(texts: Bytes) -> set[int]:
    """The numbers of the texts that hold what a detector goes by."""
    signs = np.frombuffer(texts.data, np.uint8)
    lower = texts.data.lower()
    digits = np.flatnonzero((signs - np.uint8(48)) < 10)
    numbers, sizes = _numbers(texts.data, signs, digits)
    result, beside_digits = _hinted(texts, lower)
    result |= texts.texts_at(numbers[sizes >= 6])
    result |= texts.texts_at(np.flatnonzero(signs == ord("@")))
    result |= texts.texts_at(np.flatnonzero(_long_words(texts, signs)))
    result |= texts.texts_at(_colons(signs))
    result |= texts.texts_at(np.array(list(_spelled_at(lower, signs)), np.int64))
    bigrams = _bigrams(lower)
    result |= _holding(texts, lower, bigrams, _ASCII_PARTS)
    result |= texts.texts_at(numbers[sizes >= 4]) & _holding(texts, lower, bigrams, STREET_PARTS)
    if not texts.data.isascii():
        kinds = _SCRIPTS[signs]
        result |= texts.texts_at(np.flatnonzero(kinds == _WITH_DIGITS))
        result |= texts.texts_at(np.flatnonzero((bigrams == _FULLWIDTH) | (bigrams == _MATHEMATICAL)))
        result |= _holding(texts, lower, bigrams, _OTHER_PARTS)
        beside_digits |= texts.texts_at(np.flatnonzero(kinds))
    return result | (beside_digits & texts.texts_at(digits))


def _numbers(data: bytes, signs: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of digits begins, with any separators between them, and how many digits it has."""
    if not len(digits):
        return digits, digits
    after, following = digits[:-1] + 1, digits[1:]
    separated = following > after
    may_be_one = separated & _BETWEEN[signs[after]] & _BETWEEN[signs[following - 1]]
    may_be_one &= _BETWEEN[signs[np.minimum(after + 1, following - 1)]]
    for gap in np.flatnonzero(may_be_one).tolist():
        separated[gap] = _NO_BETWEEN.search(data, after[gap], following[gap]) is not None
    first = np.append(0, np.flatnonzero(separated) + 1)
    return digits[first], np.diff(np.append(first, len(digits)))


def _long_words(texts: Bytes, signs: np.ndarray) -> np.ndarray:
    """Whether TOKEN letters, digits, hyphens and underscores begin at each place."""
    word = np.frombuffer(texts.letters, np.uint8)[: len(signs)] != 0
    word &= signs < 0x80
    word |= signs == ord("_")
    word |= signs == ord("-")
    size = 1
    while size < min(TOKEN, len(word)):
        word = word[:-size] & word[size:]
        size *= 2
    return word if size >= TOKEN else word[:0]


def _colons(signs: np.ndarray) -> np.ndarray:
    """Where the colons of an IPv6 or a MAC address may begin: two beside each other after a hexadecimal digit, or five
    with such digits between them."""
    colons = np.flatnonzero(signs == ord(":"))
    if len(colons) < 2:
        return colons[:0]
    gaps = np.diff(colons)
    near = gaps <= _GROUP
    for step in range(1, _GROUP):
        near &= (gaps <= step) | _HEXADECIMAL[signs[np.minimum(colons[:-1] + step, len(signs) - 1)]]
    chains = near[:-3] & near[1:-2] & near[2:-1] & near[3:] if len(near) > 3 else near[:0]
    double = near & (gaps == 1) & _HEXADECIMAL[signs[colons[:-1] - 1]]
    return np.union1d(colons[:-1][double], colons[: len(chains)][chains])


def _spelled_at(lower: bytes, signs: np.ndarray) -> Iterator[int]:
    """Where an @ is written as `(at)`."""
    if any(bracket in lower for bracket in (b"(", b"[", b"{")):
        for place in np.flatnonzero((signs == ord("(")) | (signs == ord("[")) | (signs == ord("{"))).tolist():
            if AT_BYTES.match(lower, place):
                yield place


def _bigrams(lower: bytes) -> np.ndarray:
    """Each byte with the one after it."""
    signs = np.frombuffer(lower, np.uint8)
    bigrams = signs[:-1].astype(np.uint16)
    bigrams <<= 8
    bigrams |= signs[1:]
    return bigrams


def _holding(texts: Bytes, lower: bytes, bigrams: np.ndarray, parts: Iterable[bytes]) -> set[int]:
    """The numbers of the texts that hold one of the parts, of four bytes or more."""
    places: list[int] = []
    for part in parts:
        first, second = (bigrams == int.from_bytes(part[at : at + 2], "big") for at in (0, 2))
        likely = np.flatnonzero(first[:-2] & second[2:]).tolist()
        places += [place for place in likely if lower.startswith(part, place)]
    return texts.texts_at(np.array(sorted(places), np.int64))


@cache
def _hint_table() -> np.ndarray:
    """Whether a hint has the hash with these upper bits."""
    table = np.zeros(1 << 16, bool)
    table[Bytes.of([hint.decode() for hint in sorted(HINTS)]).hashes >> _HASH_BITS] = True
    return table


def _hinted(texts: Bytes, lower: bytes) -> tuple[set[int], set[int]]:
    """The numbers of the texts with a word of HINTS: one that needs no digit in the text, and any."""
    starts, ends = texts.places
    likely = np.flatnonzero(_hint_table()[texts.hashes >> _HASH_BITS])
    letters = texts.letters
    words = {int(starts[place]): letters[starts[place] : ends[place]] for place in likely}
    of_kinds = (
        texts.texts_at(np.array([place for place, word in words.items() if word in kind], np.int64))
        for kind in (SEED_WORDS, NOUN_WORDS, HINTS)
    )
    seeds, nouns, hints = of_kinds
    offsets = texts.offsets.tolist()
    passwords = {
        number
        for number in nouns
        if any(lower.find(part, offsets[number], offsets[number + 1]) >= 0 for part in WITHOUT_DIGITS)
    }
    return seeds | passwords, hints
