"""Duplicates and near-duplicates among exchanges.

Two exchanges are near-duplicates when the Jaccard similarity of their sets of pairs of neighbouring words reaches a
threshold. The set holds the pairs of the question and, hashed differently, those of the answer. The start and the end
of each count as words, so that a single word has pairs too. Words are those of `words`. Punctuation, spacing, case and
the context before the question do not count.

Candidates come from MinHash with bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3): a pair of exchanges exactly at the threshold becomes a candidate with probability 0.9 or more, one above it
with more. The minima are those of one permutation in BINS parts; an empty part takes the minimum of the first other
part, in an order of its own, that is not (Shrivastava 2017, Optimal densification for fast and accurate minwise
hashing). Each candidate's sets are then compared: exactly up to 512 pairs of words, by the 512 smallest hashes of the
union beyond that. The sets are in a temporary file; about a hundred bytes an exchange are in memory.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from moltlm.data.conversations.runs import SortedRuns
from moltlm.data.conversations.words import word_hashes

BINS = 64
RECALL = 0.9
SKETCH = 512
CANDIDATES = 64
"""At most this many are compared with one exchange: otherwise a thousand similar answers take a million comparisons."""

HASH = np.uint64(32)
"""Bits of the hash of a pair of words, beneath the number of its exchange."""
BIN = np.uint64(26)
"""Bits of a hash beneath those that choose its part."""
ENDS = np.array([0x165667B19E3779F9, 0x9E3779B97F4A7C15, 0x27D4EB2F165667C5], np.uint64)
MIX = np.array([0x9E3779B97F4A7C15, 0x100000001B3, 0xC2B2AE3D27D4EB4F, 33, 0xFF51AFD7ED558CCD, 32], np.uint64)
PROBES = np.random.default_rng(0).permuted(np.tile(np.arange(BINS), (BINS, 1)), axis=1).T
"""In column i, the order in which an empty part i asks the others."""


class Compared(NamedTuple):
    """An exchange that is compared with all earlier ones.

    Args:
        question, answer: their texts.
        of_question, of_answer: the hashes of their words.
        near: near-duplicates are sought, not only equal ones.
    """

    question: str
    answer: str
    of_question: np.ndarray
    of_answer: np.ndarray
    near: bool = True


class Pairs(NamedTuple):
    """The pairs of words of many exchanges: keys[bounds[i]:bounds[i + 1]] are those of exchange i, sorted, each once,
    with i in the upper half of each key."""

    keys: np.ndarray
    bounds: np.ndarray

    def sketch(self, place: int) -> np.ndarray:
        start, end = self.bounds[place], self.bounds[place + 1]
        return self.keys[start : min(end, start + SKETCH)].astype(np.uint32)


class DuplicateIndex:
    """The exchanges that were new so far. It holds an open file: use it in a `with`.

    Args:
        threshold: the Jaccard similarity in (0, 1] from which two exchanges are near-duplicates; with 1, only equal
            exchanges are duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rows = rows_per_band(threshold)
        self.equal, self.bands = SortedRuns(), SortedRuns()
        self.offsets = array("Q", [0])
        self.sketches = tempfile.TemporaryFile()  # noqa: SIM115 closed by __exit__

    def __enter__(self) -> DuplicateIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.sketches.close()

    def classify(self, question: str, answer: str) -> str:
        """As `classify_all`, of one exchange."""
        of_question, of_answer = word_hashes([question, answer])
        return self.classify_all([Compared(question, answer, of_question, of_answer)])[0]

    def classify_all(self, items: Sequence[Compared]) -> list[str]:
        """Compare exchanges with the index and with those before them, and add each that is new.

        Returns:
            For each, `duplicate` or `near-duplicate` of an earlier exchange; "" for a new one.
        """
        reasons = ["duplicate" if equal else "" for equal in self._equal(items)]
        if self.threshold == 1:
            return reasons
        places = [place for place, item in enumerate(items) if not reasons[place] and item.near and len(item.of_answer)]
        if places:
            pairs = pairs_of([(items[place].of_question, items[place].of_answer) for place in places])
            for place, is_new in zip(places, self._new(pairs, len(places)), strict=True):
                reasons[place] = "" if is_new else "near-duplicate"
        return reasons

    def _equal(self, items: Sequence[Compared]) -> np.ndarray:
        """Whether each exchange is equal to an earlier one, of those by their 64-bit hash."""
        keys = np.array([hash((item.question, item.answer)) for item in items], np.int64).view(np.uint64)
        unique, first = np.unique(keys, return_index=True)
        present = self.equal.contains(unique)
        equal = np.ones(len(keys), bool)
        equal[first[~present]] = False
        self.equal.add(unique[~present])
        return equal

    def _new(self, pairs: Pairs, count: int) -> np.ndarray:
        """Whether each exchange is near to no earlier one; those are added."""
        bands = _bands(signatures(pairs.keys, count), self.rows)
        stored, within = self._stored_candidates(bands), _candidates_within(bands)
        is_new = np.ones(count, bool)
        for place in sorted({*stored, *within}):
            sketches = chain(
                (self._sketch(number) for number in stored.get(place, ())),
                (pairs.sketch(other) for other in within.get(place, ()) if is_new[other]),
            )
            sketch = pairs.sketch(place)
            is_new[place] = all(jaccard(sketch, each) < self.threshold for each in islice(sketches, CANDIDATES))
        self._add(bands[is_new], pairs, is_new)
        return is_new

    def _stored_candidates(self, bands: np.ndarray) -> dict[int, list[int]]:
        """The numbers of exchanges in the index that share a band, by the places of those that are compared."""
        keys = bands.ravel() << HASH
        order = np.argsort(keys)
        keys = keys[order]
        candidates: dict[int, list[int]] = {}
        for run, places in self.bands.at_or_after(keys):
            hits = np.flatnonzero((places < len(run)) & (run.take(places, mode="clip") >> HASH == keys >> HASH))
            for hit in hits.tolist():
                others = candidates.setdefault(int(order[hit]) // bands.shape[1], [])
                others.extend(_numbers(run, int(places[hit]), CANDIDATES))
        return {place: sorted(set(others)) for place, others in candidates.items()}

    def _add(self, bands: np.ndarray, pairs: Pairs, is_new: np.ndarray) -> None:
        numbers = np.arange(len(bands), dtype=np.uint64) + np.uint64(len(self.offsets) - 1)
        keys = (bands << HASH | numbers[:, None]).ravel()
        keys.sort()
        self.bands.add(keys)
        sizes, stored = np.diff(pairs.bounds), pairs.keys
        if not is_new.all() or sizes.max() > SKETCH:
            rank = np.arange(len(pairs.keys)) - np.repeat(pairs.bounds[:-1], sizes)
            stored = stored[(rank < SKETCH) & np.repeat(is_new, sizes)]
        stored = stored.astype(np.uint32)
        self.sketches.write(stored.tobytes())
        ends = self.offsets[-1] + np.cumsum(np.minimum(sizes, SKETCH)[is_new]) * stored.itemsize
        self.offsets.frombytes(ends.astype(np.uint64).tobytes())

    def _sketch(self, number: int) -> np.ndarray:
        start, end = self.offsets[number], self.offsets[number + 1]
        self.sketches.seek(start)
        stored = np.frombuffer(self.sketches.read(end - start), np.uint32)
        self.sketches.seek(0, 2)
        return stored


def _numbers(run: np.ndarray, place: int, limit: int) -> Iterator[int]:
    """The numbers of the exchanges in a run of bands, from `place` on, as long as the band is the same."""
    same = run[place : place + limit]
    for key in same[same >> HASH == same[0] >> HASH].tolist():
        yield key & 0xFFFFFFFF


def _candidates_within(bands: np.ndarray) -> dict[int, list[int]]:
    """The places of earlier exchanges that share a band, by the places of later ones."""
    flat = bands.ravel()
    order = np.argsort(flat, kind="stable")
    same = flat[order[1:]] == flat[order[:-1]]
    candidates: dict[int, list[int]] = {}
    begin, last = 0, -2
    for at in np.flatnonzero(same).tolist():
        begin, last = begin if at == last + 1 else at, at
        earlier = order[max(begin, at + 1 - CANDIDATES) : at + 1] // bands.shape[1]
        candidates.setdefault(int(order[at + 1]) // bands.shape[1], []).extend(earlier.tolist())
    return {place: sorted(set(others) - {place}) for place, others in candidates.items()}


def rows_per_band(threshold: float) -> int:
    """The largest number of rows with which a pair at the threshold shares a band with probability RECALL or more."""
    fitting = (rows for rows in range(BINS, 1, -1) if 1 - (1 - threshold**rows) ** (BINS // rows) >= RECALL)
    return next(fitting, 1)


def pairs_of(sides: Sequence[Sequence[np.ndarray]]) -> Pairs:
    """The pairs of neighbouring words of exchanges, of which each is the hashes of its question and of its answer."""
    parts: list[np.ndarray] = []
    for question, answer in sides:
        parts += (ENDS[:1], question, ENDS[1:2], answer, ENDS[2:])
    whole = np.concatenate(parts)
    sizes = np.array([(len(question) + 1, len(answer) + 2) for question, answer in sides])
    mixed = whole[:-1] * MIX[0]
    whole *= MIX[1]
    mixed += whole[1:]
    mixed *= np.repeat(np.tile(np.array([MIX[2], 1], np.uint64), len(sides)), sizes.ravel())[:-1]
    # the finalizer of MurmurHash3, so that the smallest hashes are a fair sample
    mixed ^= mixed >> MIX[3]
    mixed *= MIX[4]
    mixed >>= MIX[5]
    mixed |= np.repeat(np.arange(len(sides), dtype=np.uint64) << HASH, sizes.sum(axis=1))[:-1]
    between = np.cumsum(sizes.sum(axis=1))[:-1] - 1  # pairs of the end of one exchange and the start of the next
    mixed[between] = mixed[between - 1]
    mixed.sort()
    keys = mixed[np.append(True, mixed[1:] != mixed[:-1])]
    return Pairs(keys, np.searchsorted(keys, np.arange(len(sides) + 1, dtype=np.uint64) << HASH))


def signatures(keys: np.ndarray, count: int) -> np.ndarray:
    """The BINS minima of each exchange."""
    parts = keys >> BIN
    # numbers of places are several times as fast as a mask of which few are true
    first = np.flatnonzero(np.append(True, parts[1:] != parts[:-1]))
    minima, filled = np.zeros(count * BINS, np.uint64), np.zeros(count * BINS, bool)
    places = parts.take(first).astype(np.int64)
    minima[places], filled[places] = keys.take(first) & np.uint64(0xFFFFFFFF), True
    minima, filled = minima.reshape(count, BINS), filled.reshape(count, BINS)
    rows, empty = np.nonzero(~filled)
    for probes in PROBES:
        if not len(rows):
            break
        source = probes[empty]
        hit = filled[rows, source]
        minima[rows[hit], empty[hit]] = minima[rows[hit], source[hit]]
        rows, empty = rows[~hit], empty[~hit]
    return minima


def _bands(minima: np.ndarray, rows: int) -> np.ndarray:
    """A 32-bit key for each band of each signature."""
    count = BINS // rows
    bands = minima[:, : count * rows].reshape(len(minima), count, rows)
    keys = np.tile(np.arange(1, count + 1, dtype=np.uint64), (len(minima), 1))
    for row in range(rows):
        keys = (keys ^ bands[:, :, row]) * MIX[0]
        keys ^= keys >> MIX[3]
    return keys >> HASH


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Similarity of two sorted sets of at most SKETCH hashes: the whole set, or its smallest where there are more."""
    common = np.intersect1d(one, other, assume_unique=True)
    union = np.union1d(one, other)
    if SKETCH in (len(one), len(other)):
        union = union[:SKETCH]
        common = common[common <= union[-1]]
    return len(common) / len(union)
