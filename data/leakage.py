"""Leakage between the sides of a split: the same text, a similar one, or a paraphrase."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, hstack
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import SparseRandomProjection

from moltlm.data.coherence import ngrams, words

Embed = Callable[[list[str]], np.ndarray]
N = 8
"""Words in a row that two texts must not have in common."""
SHORT = 0.8
"""Share of common words (Jaccard) from which two texts of fewer than N words count as the same."""
SPELLING = 0.85
"""Cosine of `lexical` from which two texts count as the same. It finds .92 of light edits of 1,105 prompts (typo, a
word more or less, another opening). No shipped prompt is that similar to a held-out one, an attack or any benchmark; of
such pairs in banking77, .97 have the same intent."""
BLOCK = 2048
PLACES = 8
"""Texts with a run that are compared for each run: a template has it in all of them."""
HASH_BITS = 16
ROUNDING = 1e-5
"""Margin for sums that two block sizes round differently."""


@dataclass(frozen=True)
class Leak:
    """Text number `first` of one side is too similar to text number `second` of the other.

    `kind` is `words` or `meaning`, `score` the share of common words or the cosine.
    """

    first: int
    second: int
    kind: str
    score: float


def leaks(first: list[str], second: list[str], embed: Embed | None = None, threshold: float = 0.85) -> list[Leak]:
    """Find the texts of one side that are too similar to a text of the other.

    By words: the same text, eight words in a row in common, or a `lexical` cosine of SPELLING; for two texts of fewer
    than eight words, also four fifths of their words.

    Args:
        embed: embeddings (n, d) of n texts. Without it, meaning is not compared.
        threshold: the cosine of embeddings from which two texts are too similar.

    Returns:
        For each text of `first`, at most one leak by words and one by meaning, each to the most similar text.
    """
    if not first or not second:
        return []
    first_words, second_words = [words(text) for text in first], [words(text) for text in second]
    candidates = [
        _as_leaks(_shared(_runs(first, first_words), _runs(second, second_words)), "words"),
        _as_leaks(_short(first_words, second_words), "words"),
        _as_leaks(_near(lexical(first), lexical(second), SPELLING), "words"),
    ]
    if embed is not None:
        candidates.append(_as_leaks(_near(_unit(embed(first)), _unit(embed(second)), threshold), "meaning"))
    best: dict[tuple[int, str], Leak] = {}
    for leak in chain.from_iterable(candidates):
        if leak.score > best.setdefault((leak.first, leak.kind), leak).score:
            best[leak.first, leak.kind] = leak
    return [best[key] for key in sorted(best)]


def split(
    texts: list[str],
    topics: list[str],
    share: float,
    seed: int,
    embed: Embed | None = None,
    threshold: float = 0.85,
    inside: Collection[int] = (),
) -> tuple[list[int], list[int]]:
    """Split texts so that similar ones are on one side.

    Whole topics are on one side, too, if there are at least two topics and none has most of the texts. At least one
    text is held out and one is not, if there are two groups. Deterministic for a seed.

    Args:
        share: about this share of the texts is held out.
        embed, threshold: as for `leaks`.
        inside: indices to train on with whatever is similar to them, unless nothing else could be held out.

    Returns:
        The indices to train on, and those to hold out.
    """
    if not texts:
        return [], []
    groups = _groups(texts, topics, embed, threshold)
    count = int(groups.max()) + 1
    pinned = {int(groups[place]) for place in inside}
    free = [int(group) for group in np.random.default_rng(seed).permutation(count) if group not in pinned]
    if not free:
        free = [int(group) for group in np.random.default_rng(seed).permutation(count)]
    target, heldout = share * len(texts), set()
    for group in free:
        members = np.flatnonzero(groups == group)
        size = len(heldout) + len(members)
        if size - target <= target - len(heldout) and size < len(texts):
            heldout.update(members.tolist())
    if not heldout and count > 1:
        smallest = min(sorted(free), key=lambda group: np.count_nonzero(groups == group))
        heldout.update(np.flatnonzero(groups == smallest).tolist())
    return [i for i in range(len(texts)) if i not in heldout], sorted(heldout)


def lexical(texts: list[str], dims: int = 256, seed: int = 0) -> np.ndarray:
    """Vectors (n, dims) float32 of unit length, close for texts that are spelled alike; blind to synonyms.

    Hashed words, pairs of words and runs of three to five characters, projected at random (Achlioptas 2003; Li et al.
    2006). It needs no model and no corpus: a text has the same vector whatever the other texts are.
    """
    if not texts:
        return np.zeros((0, dims), dtype=np.float32)
    settings: Any = {"n_features": 2**HASH_BITS, "norm": "l2", "alternate_sign": False, "dtype": np.float32}
    by_word = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **settings).transform(texts)
    by_char = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **settings).transform(texts)
    # words count half: otherwise one typo in a prompt of five words changes most of its vector
    rows = _projection(dims, seed).transform(csr_matrix(hstack([csr_matrix(by_word) * 0.5, by_char])))
    return _unit(np.asarray(rows, dtype=np.float32))


@cache
def _projection(dims: int, seed: int) -> SparseRandomProjection:
    settings: Any = {"n_components": dims, "density": 1 / 32, "dense_output": True, "random_state": seed}
    return SparseRandomProjection(**settings).fit(csr_matrix((1, 2 ** (HASH_BITS + 1)), dtype=np.float32))


def _runs(texts: list[str], tokenized: list[list[str]]) -> list[tuple[set[object], set[str]]]:
    """For each text, what it must not share (its runs of eight words, and the whole text), and its words."""
    return [
        ({*ngrams(tokens, N), tuple(tokens) or text.strip()}, set(tokens))
        for text, tokens in zip(texts, tokenized, strict=True)
    ]


def _shared(
    first: list[tuple[set[object], set[str]]], second: list[tuple[set[object], set[str]]]
) -> Iterator[tuple[int, int, float]]:
    """(i, j, Jaccard of the words) of texts with a run in common, for at most PLACES texts with each run."""
    index: dict[object, list[int]] = defaultdict(list)
    for place, (runs, _) in enumerate(second):
        for run in runs:
            if len(index[run]) < PLACES:
                index[run].append(place)
    for place, (runs, tokens) in enumerate(first):
        for other in sorted({other for run in runs for other in index.get(run, ())}):
            yield place, other, _jaccard(tokens, second[other][1]) if tokens else 1.0


def _short(first: list[list[str]], second: list[list[str]]) -> Iterator[tuple[int, int, float]]:
    """(i, j, Jaccard of the words) of texts that are both shorter than a run.

    Texts of the same words are compared once: the last of them stands for all. Two sets with a Jaccard of SHORT or more
    share at least one of the rarest words of either (prefix filter; Chaudhuri et al. 2006).
    """
    places = {frozenset(tokens): place for place, tokens in enumerate(second) if 0 < len(tokens) < N}
    index: dict[str, list[frozenset[str]]] = defaultdict(list)
    for word_set in places:
        for word in word_set:
            index[word].append(word_set)
    for place, tokens in enumerate(first):
        if not 0 < len(tokens) < N:
            continue
        distinct = set(tokens)
        rarest = sorted(distinct, key=lambda word: (len(index.get(word, ())), word))
        prefix = rarest[: len(distinct) - math.ceil(SHORT * len(distinct)) + 1]
        for other in {word_set for word in prefix for word_set in index.get(word, ())}:
            if (score := _jaccard(distinct, other)) >= SHORT:
                yield place, places[other], score


def _jaccard(a: set[str], b: set[str] | frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)


def _near(first: np.ndarray, second: np.ndarray, threshold: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, cosine) of the most similar row in each block, for each row that has one above the threshold."""
    for start in range(0, len(first), BLOCK):
        for other in range(0, len(second), BLOCK):
            cosines = first[start : start + BLOCK] @ second[other : other + BLOCK].T
            nearest = cosines.argmax(1)
            score = cosines[np.arange(len(cosines)), nearest]
            for i in np.flatnonzero(score >= threshold):
                yield start + int(i), other + int(nearest[i]), float(score[i])


def _as_leaks(near: Iterator[tuple[int, int, float]], kind: str) -> Iterator[Leak]:
    return (Leak(i, j, kind, score) for i, j, score in near)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def _groups(texts: list[str], topics: list[str], embed: Embed | None, threshold: float) -> np.ndarray:
    """(n,) group numbers: similar texts together, transitively, and texts of one topic, unless one group would then
    have most of the texts."""
    groups = _merged_runs(texts)
    groups = _merged_near(groups, lexical(texts), SPELLING)
    if embed is not None:
        groups = _merged_near(groups, _unit(embed(texts)), threshold)
    first: dict[str, int] = {}
    same = [(first.setdefault(topic, place), place) for place, topic in enumerate(topics) if topic]
    by_topic = _merge(groups, same)
    return by_topic if np.bincount(by_topic).max() <= len(texts) / 2 else groups


def _merged_runs(texts: list[str]) -> np.ndarray:
    """Groups of texts that share a run, or are short and have nearly the same words. Each text is linked to the first
    one with the run, which is enough for a group."""
    tokenized = [words(text) for text in texts]
    first: dict[object, int] = {}
    edges = [
        (first.setdefault(run, place), place) for place, (runs, _) in enumerate(_runs(texts, tokenized)) for run in runs
    ]
    short = [(place, frozenset(tokens)) for place, tokens in enumerate(tokenized) if 0 < len(tokens) < N]
    representative = {word_set: place for place, word_set in short}
    edges += [(representative[word_set], place) for place, word_set in short]
    edges += [(i, j) for i, j, _ in _short(tokenized, tokenized)]
    return _merge(np.arange(len(texts)), edges)


def _merged_near(groups: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    """The groups with similar rows together. They are merged after every block, since the pairs of many equal texts
    would not fit into memory together. ROUNDING makes sure that `leaks` finds nothing between two groups."""
    for start in range(0, len(rows), BLOCK):
        for other in range(start, len(rows), BLOCK):
            near = rows[start : start + BLOCK] @ rows[other : other + BLOCK].T >= threshold - ROUNDING
            i, j = np.nonzero(near)
            groups = _merge(groups, np.stack([i + start, j + other], axis=1))
    return groups


def _merge(groups: np.ndarray, edges: list[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """(n,) group numbers from 0, with the groups at both ends of each edge merged."""
    n = len(groups)
    ends = groups[np.asarray(edges, dtype=int).reshape(-1, 2)]
    graph = coo_matrix((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1][groups]
    return np.unique(labels, return_inverse=True)[1]
