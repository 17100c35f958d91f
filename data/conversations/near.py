"""Duplicates and near-duplicates among exchanges. The index is a temporary database, so memory does not grow with it.

Two exchanges are near-duplicates when the Jaccard similarity of their sets of pairs of neighbouring words reaches a
threshold. The set holds the pairs of the question and, hashed differently, those of the answer. The start and the end
of each count as words, so that a single word has pairs too. Words are runs of letters and digits, lower-cased; a CJK
character is a word. Punctuation, spacing, case and the context before the question do not count.

Candidates come from MinHash with bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3): a pair of exchanges exactly at the threshold becomes a candidate with probability 0.9 or more, one above it
with more. Each candidate's sets are then compared: exactly up to 512 pairs of words, by the 512 smallest hashes of the
union beyond that.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

import numpy as np

PERMUTATIONS = 64
RECALL = 0.9
SKETCH = 512
CANDIDATES = 64
"""At most this many are compared with one exchange: otherwise a thousand similar answers take a million comparisons."""

BATCH = 8192
SPAN = 1 << 16
PRIME = 0x100000001B3
ENDS = np.array([0x165667B19E3779F9, 0x9E3779B97F4A7C15, 0x27D4EB2F165667C5], np.uint64)
MIX = np.array([0x9E3779B97F4A7C15, PRIME, 0xC2B2AE3D27D4EB4F, 33, 0xFF51AFD7ED558CCD, 32], np.uint64)
POWERS = np.cumprod(np.full(SPAN, PRIME, np.uint64))
INVERSES = np.cumprod(np.full(SPAN, pow(PRIME, -1, 1 << 64), np.uint64))
TABLE = """
CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE bands (key INTEGER, id INTEGER, PRIMARY KEY (key, id)) WITHOUT ROWID;
CREATE TABLE sketches (id INTEGER PRIMARY KEY, pairs BLOB);
"""
PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -131072;"


def _kinds() -> np.ndarray:
    """For each code point below 0x30000: 0 not in a word, 1 in a word, 2 a word by itself."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x30000)), np.uint8, 0x30000)
    for low, high in ((0x3040, 0x3100), (0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x30000)):
        kinds[low:high] *= 2
    return kinds


KINDS = _kinds()


class DuplicateIndex:
    """The exchanges that were new so far. It holds an open database: use it in a `with`.

    Args:
        threshold: the Jaccard similarity in (0, 1] from which two exchanges are near-duplicates; with 1, only equal
            exchanges are duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rows = rows_per_band(threshold)
        self.count = 0
        draw = np.random.default_rng(0)
        self.factors = draw.integers(0, 1 << 31, (PERMUTATIONS, 1), np.uint32) * np.uint32(2) + np.uint32(1)
        self.offsets = draw.integers(0, 1 << 32, (PERMUTATIONS, 1), np.uint32)
        # an empty name is a database on disk that SQLite removes by itself, and touches only when its cache is full
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript(PRAGMAS + TABLE + "BEGIN;")

    def __enter__(self) -> DuplicateIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def classify(self, question: str, answer: str, near: bool = True) -> str:
        """Compare an exchange with the index, and add it if it is new.

        Args:
            near: also look for near-duplicates.

        Returns:
            `duplicate` or `near-duplicate` of an exchange in the index; "" for a new one.
        """
        key = blake2b(f"{len(question)}:{question}{answer}".encode(errors="surrogatepass"), digest_size=16).digest()
        if not self.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
            return "duplicate"
        if self.threshold == 1 or not near:
            return ""
        pairs = pairs_of(question, answer)
        if pairs is None:
            return ""
        bands = self._bands(pairs)
        sketch = pairs[:SKETCH]
        marks = ",".join("?" * len(bands))
        query = (
            f"SELECT pairs FROM sketches WHERE id IN (SELECT id FROM bands WHERE key IN ({marks}) LIMIT {CANDIDATES})"
        )
        for (other,) in self.db.execute(query, bands):
            if jaccard(sketch, np.frombuffer(other, np.uint32)) >= self.threshold:
                return "near-duplicate"
        self.count += 1
        self.db.execute("INSERT INTO sketches VALUES (?, ?)", (self.count, sketch.tobytes()))
        self.db.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, self.count) for band in bands])
        return ""

    def _bands(self, pairs: np.ndarray) -> list[int]:
        """One 64-bit key for each band of the MinHash signature.

        Permutations are a * h + b mod 2^32 with an odd a, as in datasketch 2, whose class takes five times as long.
        """
        minima = [
            (self.factors * pairs[start : start + BATCH] + self.offsets).min(axis=1)
            for start in range(0, len(pairs), BATCH)
        ]
        whole, width = np.min(minima, axis=0).tobytes(), self.rows * 4
        keys = (
            blake2b(whole[start : start + width], digest_size=8, salt=start.to_bytes(2, "big")).digest()
            for start in range(0, len(whole) - width + 1, width)
        )
        return [int.from_bytes(key, "big", signed=True) for key in keys]


def rows_per_band(threshold: float) -> int:
    """The largest number of rows with which a pair at the threshold shares a band with probability RECALL or more."""
    fitting = (
        rows for rows in range(PERMUTATIONS, 1, -1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL
    )
    return next(fitting, 1)


def pairs_of(question: str, answer: str) -> np.ndarray | None:
    """Sorted 32-bit hashes, each once, of the pairs of neighbouring words; None for an answer without any word."""
    question = question.lower()
    words, places = _words(f"{question}\n{answer.lower()}")
    of_question = int(np.searchsorted(places, len(question)))
    if of_question == len(words):
        return None
    whole = np.concatenate([ENDS[:1], words[:of_question], ENDS[1:2], words[of_question:], ENDS[2:]])
    mixed = whole[:-1] * MIX[0] + whole[1:] * MIX[1]
    mixed[: of_question + 1] *= MIX[2]
    # the finalizer of MurmurHash3, so that the smallest hashes are a fair sample
    mixed ^= mixed >> MIX[3]
    mixed *= MIX[4]
    pairs = (mixed >> MIX[5]).astype(np.uint32)
    pairs.sort()
    return pairs[np.append(True, pairs[1:] != pairs[:-1])]


def _words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """A 64-bit polynomial hash of each word, and where it begins; vectorized, since Python takes a microsecond a word.

    Letters are weighted by powers that run through the text, and each word's sum is divided by the power it begins
    with. The powers start again every 65,536 letters; only a word across such a border gets another hash.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    kinds = KINDS.take(codes, mode="clip")
    inside = kinds > 0
    first = inside.copy()
    first[1:] &= (kinds[:-1] != 1) | (kinds[1:] == 2)
    starts = np.flatnonzero(first)
    if not len(starts):
        return np.empty(0, np.uint64), starts
    powers = POWERS[: len(codes)] if len(codes) <= SPAN else np.resize(POWERS, len(codes))
    return np.add.reduceat(powers * (codes * inside), starts) * INVERSES[starts % SPAN], starts


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Similarity of two sorted sets of at most SKETCH hashes: the whole set, or its smallest where there are more."""
    common = np.intersect1d(one, other, assume_unique=True)
    union = np.union1d(one, other)
    if SKETCH in (len(one), len(other)):
        union = union[:SKETCH]
        common = common[common <= union[-1]]
    return len(common) / len(union)
