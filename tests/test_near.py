"""Near-duplicates and redaction."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import near
from moltlm.data.conversations.words import word_hashes
from tests.conversation_files import conversations, said, write


def pairs(question: str, answer: str) -> set[tuple[str, ...]]:
    """The definition in data.conversations.near, spelled out."""
    sides = (("question", question), ("answer", answer))
    words = {
        side: ["<", *"".join(c if c.isalnum() else " " for c in text.lower()).split(), ">"] for side, text in sides
    }
    return {(side, *pair) for side, each in words.items() for pair in pairwise(each)}


words = st.lists(
    st.sampled_from(["rain", "tea", "drawer", "Window", "please", "9", "10", "olá"]), min_size=1, max_size=12
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(words, words, words, words)
def test_similarity_is_the_jaccard_index_of_word_pairs(q1: str, a1: str, q2: str, a2: str) -> None:
    one, other = (near.pairs_of([word_hashes(texts)]).sketch(0) for texts in ([q1, a1], [q2, a2]))
    x, y = pairs(q1, a1), pairs(q2, a2)
    assert near.jaccard(one, other) == pytest.approx(len(x & y) / len(x | y))


def answer_of(number: int, changed: int = 0) -> str:
    """Two hundred words, all but the first of which are told apart by number."""
    return " ".join(f"word{number}x{i}" if i >= changed else f"other{number}x{i}" for i in range(200))


def test_near_duplicates_are_found_and_others_are_not() -> None:
    classes: Counter[str] = Counter()
    with near.DuplicateIndex(0.85) as seen:
        for number in range(200):
            assert seen.classify("what now", answer_of(number)) == ""
        assert seen.classify("what now", answer_of(7)) == "duplicate"
        assert seen.classify("What, now?", answer_of(7).upper()) == "near-duplicate"
        for number in range(200):
            classes[seen.classify("what now", answer_of(number, changed=12))] += 1  # Jaccard 0.89
            assert seen.classify("what now", answer_of(number, changed=40)) == ""  # Jaccard 0.67
    assert classes["near-duplicate"] >= 184


def test_answers_longer_than_a_sketch_are_compared_by_a_sample() -> None:
    text = " ".join(f"w{i}" for i in range(5000))
    with near.DuplicateIndex(0.85) as seen:
        assert seen.classify("q", text) == ""
        assert seen.classify("q", text.replace("w7 ", "x ")) == "near-duplicate"
        assert seen.classify("q", " ".join(f"w{i if i % 3 else -i}" for i in range(5000))) == ""


def test_other_scripts_have_words() -> None:
    with near.DuplicateIndex(0.5) as seen:
        assert seen.classify("お茶は好きですか", "はい、毎日飲みます。雨の日は特に。") == ""
        assert seen.classify("お茶は好きですか", "はい、毎日飲みます。雨の日は特に!") == "near-duplicate"
        assert seen.classify("お茶は好きですか", "いいえ、コーヒーだけです。") == ""
        assert seen.classify("ok?", "👍") == seen.classify("ok?", "🎉") == ""


def test_near_duplicates_are_a_setting(tmp_path: Path) -> None:
    text = answer_of(1)
    path = write(tmp_path / "a.jsonl", *({"prompt": "q", "answer": text + end} for end in ("", " more", " and more")))
    assert conversations(path).dropped == {"near-duplicate": 2}
    assert conversations(path, ImportConfig(near_duplicate=1)).dropped == {}
    assert conversations(path, ImportConfig(max_answer_chars=20)).dropped == {"too long": 3}


def test_redaction_is_a_setting_and_reaches_both_sides(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"prompt": "I am ana@example.org", "answer": "Call +351 912 345 678, ana@example.org"}
    )
    result = conversations(path)
    assert said(result.exchanges) == [["I am [EMAIL]", "Call [PHONE], [EMAIL]"]]
    assert result.redacted == {"EMAIL": 2, "PHONE": 1}
    assert "ana@" in conversations(path, ImportConfig(redact=False)).exchanges[0].answer
