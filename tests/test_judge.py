"""Judges of known character: one that knows, one that only looks at the order, one that says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data.errors import BadInput
from moltlm.data.types import Message
from moltlm.evals import judge, stats

PAIRS = [judge.Duel(f"d{n}", f"q{n}", f"ours {n}", f"theirs {n}", 1.0 if n else 0.0) for n in range(4)]


def knows(prompts: list[list[Message]]) -> list[str | None]:
    """Prefers "ours", and thinks aloud of 1 and 2 first."""
    texts = [prompt[0]["content"] for prompt in prompts]
    return [f"1 or 2? It is {1 if text.index('ours') < text.index('theirs') else 2}." for text in texts]


def test_who_knows_is_believed_and_held_against_the_classifier() -> None:
    found = judge.summarise(judge.evaluate(PAIRS, "He is short.", knows))
    assert found.win_rate and found.disagreement
    assert found.win_rate.mean == 1.0 and found.disagreement.mean == 0.0
    assert found.kappa == 0.0  # three of four alike, which is what chance gives to one who never varies
    turned = [judge.Duel(d.id, d.question, d.other_answer, d.answer) for d in PAIRS]
    assert judge.summarise(judge.evaluate(turned, "", knows)).win_rate == stats.score([0.0] * 4)


def test_who_only_looks_at_the_order_decides_nothing() -> None:
    found = judge.summarise(judge.evaluate(PAIRS, "", lambda prompts: ["1"] * len(prompts)))
    assert found.win_rate and found.disagreement
    assert found.win_rate.mean == 0.5 and found.disagreement.mean == 1.0


def test_what_cannot_be_read_is_counted_and_left_out() -> None:
    replies = iter(["1", "2", "hm", "2", None, None, "0", "0"])
    found = judge.summarise(judge.evaluate(PAIRS, "", lambda prompts: [next(replies) for _ in prompts]))
    assert found.win_rate
    assert (found.n, found.unread, found.win_rate.mean) == (2, 2, 0.75)
    assert judge.summarise(judge.evaluate(PAIRS, "", lambda prompts: [None] * len(prompts))).unread == 4


def test_the_judge_sees_no_names_and_both_orders() -> None:
    seen: list[str] = []

    def listens(prompts: list[list[Message]]) -> list[str | None]:
        seen.extend(prompt[0]["content"] for prompt in prompts)
        return ["0"] * len(prompts)

    judge.evaluate(PAIRS[:1], "He is short.", listens)
    assert len(seen) == 2 and all("He is short." in text and "personality" not in text for text in seen)
    assert [text.index("ours 0") < text.index("theirs 0") for text in seen] == [True, False]


def test_agreement_with_people_by_hand(tmp_path: Path) -> None:
    rows = [{"question": "q", "first": "ours", "second": "theirs", "preferred": n} for n in (1, 1, 2, 1)]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs, labels = judge.labelled(tmp_path / "l.jsonl")
    replies = iter(["1", "2", "1", "2", "2", "1", "2", "1"])  # ours, ours, theirs, theirs
    found = judge.agreement(judge.evaluate(pairs, "", lambda prompts: [next(replies) for _ in prompts]), labels)
    # observed .75; by chance .75 x .5 + .25 x .5 = .5
    assert found.same
    assert found.same.mean == 0.75 and found.kappa == pytest.approx((0.75 - 0.5) / (1 - 0.5))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30))
def test_who_agrees_always_has_kappa_one_or_none(verdicts: list[float]) -> None:
    assert judge.kappa(verdicts, verdicts) == (None if len(set(verdicts)) == 1 else pytest.approx(1.0))


def test_a_label_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"question": "q", "first": "a", "second": "b", "preferred": 3}\n')
    with pytest.raises(BadInput, match="record 1"):
        judge.labelled(tmp_path / "l.jsonl")
