"""Words of many texts at once: what a word is, equal hashes by every way, and the sets that hold them."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.data.conversations.near import Compared, DuplicateIndex, signatures
from moltlm.data.conversations.runs import SortedRuns
from moltlm.data.conversations.words import Bytes, word_hashes

LONG = ["a", "seven77", "eight888", "nine99999", "x" * 16, "x" * 17, "y" * 64, "y" * 65, "z" * 5000]
CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003347f]")
texts = st.lists(
    st.sampled_from([*LONG, "Rain", "é", "ÉTÉ", "茶", "ありがとう", "👍", "a_b", "\0", "—", "'", " ", "\n"])
    | st.text(max_size=4)
).map("".join)


def split(text: str) -> list[str]:
    """The definition: runs of letters and digits in lower case, a CJK character by itself."""
    marked = "".join(c if c.isalnum() else " " for c in text.lower())
    return "".join(f" {c} " if CJK.match(c) else c for c in marked).split()


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=6))
def test_texts_have_equal_hashes_where_they_have_equal_words(many: list[str]) -> None:
    together, alone = word_hashes(many), [word_hashes([text])[0] for text in many]
    words: dict[str, int] = {}
    for text, one, other in zip(many, together, alone, strict=True):
        assert one.tolist() == other.tolist()
        assert len(one) == len(split(text))
        for word, value in zip(split(text), one.tolist(), strict=True):
            assert words.setdefault(word, value) == value
    assert len(set(words.values())) == len(words)


def test_a_word_has_one_hash_whatever_stands_beside_it() -> None:
    for word in LONG:
        of_ascii, of_others = word_hashes([f"{word}, rain", f"— {word} é"])
        assert of_ascii[0] == of_others[0] == word_hashes([word.upper()])[0][0]


def test_places_are_told_by_text() -> None:
    joined = Bytes.of(["tea at 7", "", "été 99"])
    digits = np.array([place for place, byte in enumerate(joined.data) if chr(byte).isdigit()])
    assert joined.texts_at(digits) == {0, 2}
    assert joined.texts_at(digits[:0]) == set()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 300)), max_size=12), st.lists(st.integers(0, 300)))
def test_runs_are_a_set(batches: list[set[int]], asked: list[int]) -> None:
    runs = SortedRuns()
    for batch in batches:
        runs.add(np.array(sorted(batch), np.uint64))
    known = set().union(*batches)
    assert runs.contains(np.array(asked, np.uint64)).tolist() == [key in known for key in asked]
    assert all(len(one) > 2 * len(other) for one, other in pairwise(runs.runs))


def test_no_part_of_a_signature_is_empty() -> None:
    """Parts without a hash take that of another one: with one hash alone, all 64 are the same."""
    keys = np.sort(np.array([5, (1 << 32) + 7, (1 << 32) + 8], np.uint64))
    one, two = signatures(keys, 2)
    assert set(one.tolist()) == {5}
    assert set(two.tolist()) == {7}


WORDS = [f"w{number}" for number in range(8)]
answers = st.lists(st.sampled_from(WORDS), min_size=0, max_size=14).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["when", "why"]), answers), max_size=20), st.integers(1, 20))
def test_many_at_once_are_compared_as_one_by_one(pairs: list[tuple[str, str]], size: int) -> None:
    with DuplicateIndex(0.5) as one_by_one, DuplicateIndex(0.5) as at_once:
        expected = [one_by_one.classify(question, answer) for question, answer in pairs]
        hashes = [word_hashes(pair) for pair in pairs]
        items = [Compared(*pair, *each[:2], near=True) for pair, each in zip(pairs, hashes, strict=True)]
        found = [reason for at in range(0, len(items), size) for reason in at_once.classify_all(items[at : at + size])]
    assert found == expected


@pytest.mark.parametrize(("size", "threshold"), [(8, 0.5), (20, 0.7), (60, 0.85), (400, 0.85), (3000, 0.85)])
def test_near_answers_of_any_length_are_candidates(size: int, threshold: float) -> None:
    """A pair somewhat above the threshold is missed less often than the tenth that is allowed at it."""
    draw, missed = np.random.default_rng(size), 0
    with DuplicateIndex(threshold) as index:
        for number in range(100):
            words = [f"{number}x{word}" for word in draw.integers(0, 1 << 30, size)]
            changed = max(1, int(0.04 * size))
            other = [*words[:-changed], *(f"{word}y" for word in words[-changed:])]
            pairs = [set(pairwise(["<", *each, ">"])) for each in (words, other)]
            assert len(pairs[0] & pairs[1]) + 2 >= 1.02 * threshold * (len(pairs[0] | pairs[1]) + 2)
            assert index.classify("q", " ".join(words)) == ""
            missed += index.classify("q", " ".join(other)) != "near-duplicate"
    assert missed <= 10
