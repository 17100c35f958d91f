"""What must not be on both sides of a split: the same text, a near one, a paraphrase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data.coherence import ngrams, words

Embed = Callable[[list[str]], np.ndarray]
N = 8
SHORT = 0.8
BLOCK = 2048


@dataclass(frozen=True)
class Leak:
    """Text `first` of one side is too near to text `second` of the other: `kind` is `words` or `meaning`, `score` the
    share of common words or the cosine."""

    first: int
    second: int
    kind: str
    score: float


def leaks(first: list[str], second: list[str], embed: Embed | None = None, threshold: float = 0.85) -> list[Leak]:
    """Pairs of near texts, by words and, with `embed` ((n, d) from n texts), by meaning. Never compares all with all by
    words, and by meaning in blocks."""
    found = _by_words(first, second)
    if embed is not None and first and second:
        found += _by_meaning(embed(first), embed(second), threshold)
    return sorted(found, key=lambda leak: (leak.first, leak.second, leak.kind))


def _by_words(first: list[str], second: list[str]) -> list[Leak]:
    """A common run of eight words; or, of texts shorter than that, four fifths of their words (Jaccard)."""
    ours, theirs = [words(text) for text in first], [words(text) for text in second]
    index: dict[object, list[int]] = defaultdict(list)
    for place, tokens in enumerate(theirs):
        for gram in set(ngrams(tokens, N)) if len(tokens) >= N else set(tokens):
            index[gram].append(place)
    found = []
    for place, tokens in enumerate(ours):
        if len(tokens) >= N:
            near = {other for gram in set(ngrams(tokens, N)) for other in index.get(gram, ())}
            found += [Leak(place, other, "words", _jaccard(tokens, theirs[other])) for other in near]
            continue
        rarest = sorted(set(tokens), key=lambda word: len(index.get(word, ())))
        near = {other for word in rarest[: max(1, len(rarest) // 3)] for other in index.get(word, ())}
        for other in near:
            score = _jaccard(tokens, theirs[other])
            if len(theirs[other]) < N and score >= SHORT:
                found.append(Leak(place, other, "words", score))
    return found


def _jaccard(a: list[str], b: list[str]) -> float:
    return len(set(a) & set(b)) / max(len(set(a) | set(b)), 1)


def _by_meaning(ours: np.ndarray, theirs: np.ndarray, threshold: float) -> list[Leak]:
    ours, theirs = _unit(ours), _unit(theirs)
    found = []
    for start in range(0, len(ours), BLOCK):
        near = ours[start : start + BLOCK] @ theirs.T
        for i, j in zip(*np.nonzero(near >= threshold), strict=True):
            found.append(Leak(start + int(i), int(j), "meaning", float(near[i, j])))
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def split(
    texts: list[str], topics: list[str], share: float, seed: int, embed: Embed | None = None, threshold: float = 0.85
) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold out, about `share` of the texts: near texts are always on one side, and whole
    topics are where that is possible (two topics at least, none of them most of the whole). At least one text is held
    out and one kept, if there are two groups. Deterministic for a seed."""
    groups = _groups(texts, topics, embed, threshold)
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1) if len(texts) else []
    wanted, heldout = share * len(texts), set()
    for group in order:
        inside = np.flatnonzero(groups == group)
        whole = len(heldout) + len(inside)
        if whole - wanted <= wanted - len(heldout) and whole < len(texts):
            heldout.update(inside.tolist())
    if not heldout and len(texts) and groups.max() > 0:
        heldout.update(np.flatnonzero(groups == np.bincount(groups).argmin()).tolist())
    return [i for i in range(len(texts)) if i not in heldout], sorted(heldout)


def _groups(texts: list[str], topics: list[str], embed: Embed | None, threshold: float) -> np.ndarray:
    """(n,) group numbers: near texts together, transitively, and texts of one topic if that leaves groups to choose
    from."""
    near = [(leak.first, leak.second) for leak in leaks(texts, texts, embed, threshold)]
    groups = _components(len(texts), near)
    first: dict[str, int] = {}
    same = [(first.setdefault(topic, place), place) for place, topic in enumerate(topics) if topic]
    by_topic = _components(len(texts), [*near, *same])
    if len(texts) and np.bincount(by_topic).max() <= len(texts) / 2:
        return by_topic
    return groups


def _components(n: int, edges: list[tuple[int, int]]) -> np.ndarray:
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(n, n))
    return connected_components(graph, directed=False)[1] if n else np.zeros(0, int)
