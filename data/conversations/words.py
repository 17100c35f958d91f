"""The words of many texts at once, as hashes: numpy takes a few nanoseconds a letter, and Python a microsecond a word.

A word is a run of letters and digits, lower-cased. Its hash is made of the bytes of its UTF-8, eight at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

BLOCK = 8
LONG = 64
"""Words of more bytes are hashed one by one."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)
KEPT = np.array([(1 << BLOCK * size) - 1 for size in range(BLOCK + 1)], np.uint64)
"""For each number of bytes, the bits of a block that they take."""
LETTERS = bytes(code if code >= 0x80 else ord(chr(code).lower()) if chr(code).isalnum() else 0 for code in range(256))
"""Lower-case letters and digits; all that is not ASCII counts as a letter. Other bytes become 0."""


LAST = 0x33480
"""The first code point after all letters and digits."""


def _kinds() -> np.ndarray:
    """For each code point up to LAST: 0 not in a word, 1 in a word, 2 a word by itself."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(LAST + 1)), np.uint8, LAST + 1)
    for low, high in ((0x3040, 0x3100), (0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, LAST)):
        kinds[low:high] *= 2
    return kinds


KINDS = _kinds()


@dataclass
class Bytes:
    """The words in the bytes of texts.

    Args:
        data: the texts in UTF-8, joined by a byte that belongs to none of them.
        offsets: where each text begins in it, and the end.
    """

    data: bytes
    offsets: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Bytes:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(each) + 1 for each in encoded], out=offsets[1:])
        return cls(b"\0".join(encoded), offsets)

    @cached_property
    def letters(self) -> bytes:
        """The words, with zeros between them and at the end."""
        return self.data.translate(LETTERS) + bytes(BLOCK)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each word begins and ends."""
        inside = np.frombuffer(b"\0" + self.letters, np.uint8) != 0
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        return edges[::2].copy(), edges[1::2].copy()

    @cached_property
    def hashes(self) -> np.ndarray:
        return hashes(self.letters, *self.places)

    @cached_property
    def bounds(self) -> np.ndarray:
        """The words of text i are those from bounds[i] to bounds[i + 1]."""
        return np.searchsorted(self.places[0], self.offsets)

    def words_of(self, place: int) -> np.ndarray:
        """The hashes of the words of a text."""
        return self.hashes[self.bounds[place] : self.bounds[place + 1]]

    def texts_at(self, places: np.ndarray) -> set[int]:
        """The numbers of the texts at places, which are in order."""
        before = np.searchsorted(places, self.offsets)
        return set(np.flatnonzero(before[1:] != before[:-1]).tolist())


def hashes(letters: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each word. At least BLOCK bytes follow the last word."""
    blocks = np.ndarray((len(letters) - BLOCK + 1,), "<u8", letters, strides=(1,))
    sizes = ends - starts
    mixed = blocks[starts]
    mixed &= KEPT.take(sizes, mode="clip")
    mixed *= FACTOR
    longer = np.flatnonzero(sizes > BLOCK)
    is_long = sizes[longer] > LONG
    rest, at = longer[~is_long], BLOCK
    while len(rest):
        block = blocks[starts[rest] + at] & KEPT.take(sizes[rest] - at, mode="clip")
        before = mixed[rest]
        mixed[rest] = ((before ^ (before >> HALF)) + block) * FACTOR
        at += BLOCK
        rest = rest[sizes[rest] > at]
    for place in longer[is_long]:
        digest = blake2b(letters[starts[place] : ends[place]], digest_size=BLOCK).digest()
        mixed[place] = int.from_bytes(digest, "little")
    mixed ^= mixed >> HALF
    return mixed


def word_hashes(texts: Sequence[str]) -> list[np.ndarray]:
    """The hashes of the words of each text. A CJK character is a word."""
    of_texts: list[np.ndarray] = [np.empty(0, np.uint64)] * len(texts)
    for is_ascii in (True, False):
        places = [place for place, text in enumerate(texts) if text.isascii() == is_ascii]
        if places:
            chosen = [texts[place] for place in places]
            whole, bounds = _ascii(chosen) if is_ascii else _unicode(chosen)
            for place, start, end in zip(places, bounds, bounds[1:], strict=False):
                of_texts[place] = whole[start:end]
    return of_texts


def _ascii(texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    lexed = Bytes.of(texts)
    return lexed.hashes, lexed.bounds.tolist()


def _unicode(texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    lowered = [text.lower() for text in texts]
    data = "\n".join(lowered).encode("utf-8", "replace")
    codes = np.frombuffer(data.decode().encode("utf-32-le"), np.uint32)
    kinds = KINDS.take(codes, mode="clip")
    first = kinds > 0
    last = first.copy()
    first[1:] &= (kinds[:-1] != 1) | (kinds[1:] == 2)
    last[:-1] &= (kinds[1:] == 0) | first[1:]
    ends_in_bytes = np.cumsum(1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF))
    places = np.flatnonzero(first)
    starts = np.where(places > 0, ends_in_bytes[places - 1], 0)
    offsets = np.cumsum([0, *(len(text) + 1 for text in lowered)])
    padded = data + bytes(BLOCK)
    return hashes(padded, starts, ends_in_bytes[np.flatnonzero(last)]), np.searchsorted(places, offsets).tolist()
