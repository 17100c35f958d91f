"""Answers that somebody did not want: preference data, marks and ratings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data.conversations import importers
from moltlm.data.errors import BadInput
from tests.conversation_files import FUZZ, asked, read, said, turn, write

PREFERENCE_ROWS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "and tea?", "chosen": "always tea", "rejected": "NEVER"},
    "a list as the prompt": {
        "prompt": [turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")],
        "chosen": [turn("assistant", "always tea")],
        "rejected": [turn("assistant", "NEVER")],
    },
    "a list as the prompt, texts as the sides": {
        "prompt": [turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")],
        "chosen": "always tea",
        "rejected": "NEVER",
    },
    "an implicit prompt": {
        "chosen": [turn("user", "and tea?"), turn("assistant", "always tea")],
        "rejected": [turn("user", "and tea?"), turn("assistant", "NEVER")],
    },
    "an implicit prompt of several turns": {
        "chosen": [
            *[turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")],
            turn("assistant", "always tea"),
        ],
        "rejected": [
            *[turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")],
            turn("assistant", "NEVER"),
        ],
    },
    "a prompt that the sides repeat, and the messages again": {
        "prompt": "and tea?",
        "chosen": [turn("user", "and tea?"), turn("assistant", "always tea")],
        "rejected": [turn("user", "and tea?"), turn("assistant", "NEVER")],
        "messages": [turn("user", "and tea?"), turn("assistant", "NEVER")],
    },
    "a prompt before a common beginning": {
        "prompt": "hi",
        "chosen": [turn("assistant", "hello"), turn("user", "and tea?"), turn("assistant", "always tea")],
        "rejected": [turn("assistant", "hello"), turn("user", "and tea?"), turn("assistant", "NEVER")],
    },
    "a completion besides": {"prompt": "and tea?", "chosen": "always tea", "rejected": "NEVER", "completion": "NEVER"},
}


@pytest.mark.parametrize("name", PREFERENCE_ROWS)
def test_only_the_chosen_side_of_a_preference_is_an_answer(tmp_path: Path, name: str) -> None:
    row = PREFERENCE_ROWS[name] | {"topic": "tea"}
    exchanges, report = read(write(tmp_path / "rows.jsonl", row))
    (texts,) = said(exchanges)
    assert texts in (["and tea?", "always tea"], ["hi", "hello", "and tea?", "always tea"])
    assert exchanges[0].topic == "tea"
    assert report.rejected == {"given": 1} and not report.dropped and report.formats == {"preferences": 1}


@FUZZ
@given(st.data())
def test_a_rejected_text_is_never_an_answer(tmp_path: Path, data: st.DataObject) -> None:
    texts = st.text("ab", min_size=1, max_size=2)
    messages = st.lists(st.builds(turn, st.sampled_from(["user", "assistant", "system"]), texts), max_size=4)
    common = data.draw(messages)
    sides = {
        "chosen": data.draw(texts | messages.map(lambda rows: [*common, *rows])),
        "rejected": data.draw(st.just("NEVER") | st.just([*common, turn("assistant", "NEVER")])),
    }
    prompt = data.draw(st.just({}) | st.fixed_dictionaries({"prompt": texts | messages}))
    path = write(tmp_path / "rows.jsonl", {**prompt, **sides})
    try:
        exchanges, report = read(path)
    except BadInput as error:
        assert "prompt" not in prompt and "both sides must be lists" in error.what
        return
    assert not any("NEVER" in text for row in said(exchanges) for text in row)
    assert report.dropped["rejected answer"] + report.rejected["given"] >= 1
    learned = sides["chosen"] if isinstance(sides["chosen"], list) else [turn("assistant", sides["chosen"])]
    given_rows = prompt["prompt"] if isinstance(prompt.get("prompt"), list) else []  # one that ends in a beginning
    answers = {each["content"] for each in [*given_rows, *learned] if each["role"] == "assistant"}
    assert {text for item in exchanges for text in item.answer.split("\n\n")} <= answers


def test_a_preference_of_texts_needs_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="line 1: without a `prompt`, both sides must be lists of messages"):
        read(write(tmp_path / "rows.jsonl", {"chosen": "always tea", "rejected": "NEVER"}))


UNWANTED: dict[str, dict[str, Any]] = {
    "a rating below zero": {"rating": -1},
    "thumbs down": {"feedback": {"rating": "thumbsDown"}},
    "thumbs down as a sign": {"reaction": "👎"},
    "thumbs down as a word": {"feedback": "thumbs_down"},
    "negative feedback": {"feedback": {"type": "negative"}},
    "one of several": {"feedback": [{"value": -1, "by": "Ana"}]},
    "an annotation": {"annotation": {"rating": -1, "reason": "rude"}},
    "deleted": {"deleted": True},
    "deleted at": {"deleted_at": "2026-01-01"},
    "bad": {"is_bad": True},
    "rejected": {"rejected": True},
    "a label": {"label": False},
    "a word as a label": {"label": "undesirable"},
    "zero as a label": {"label": 0},
    "kto": {"kto_tag": "false"},
    "not liked": {"liked": False},
    "not desirable": {"desirable": False},
    "not chosen": {"chosen": False},
    "an error": {"error": {"content": "no connection"}},
    "a status": {"status": "failed"},
}


HARMLESS: dict[str, dict[str, Any]] = {
    "liked": {"liked": True, "label": True, "rating": 1, "is_bad": False, "deleted": False, "error": None},
    "praise": {"feedback": {"rating": "thumbsUp"}, "annotation": {"rating": 1}, "reaction": "👍"},
    "nothing": {"feedback": None, "rating": None, "annotation": {}, "status": "done", "deleted_at": None, "loss": True},
    "no vote": {"vote": 0, "thumbs": None, "score": None},
    "a weight": {"weight": 1, "train": True},
}


@pytest.mark.parametrize("name", UNWANTED)
def test_an_unwanted_answer_is_never_learned(tmp_path: Path, name: str) -> None:
    """On a message, it ends the context too; on a row, it holds for all its answers."""
    mark = UNWANTED[name]
    chat = asked(turn("assistant", "good"), turn("assistant", "BAD", **mark), turn("assistant", "better"))
    rows = [chat, {"prompt": "q", "completion": "BAD", **mark}, {"instruction": "q", "output": "BAD", **mark}]
    if name not in ("rejected", "a status"):
        rows.append({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "BAD"}], **mark})
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(exchanges) == [["question 0", "good"], ["question 2", "better"]]
    assert report.dropped.total() == len(rows)


@pytest.mark.parametrize("name", HARMLESS)
def test_other_marks_change_nothing(tmp_path: Path, name: str) -> None:
    mark = HARMLESS[name]
    rows = [asked(turn("assistant", "good", **mark)), {"prompt": "q", "completion": "better", **mark}]
    exchanges, _ = read(write(tmp_path / "a.jsonl", *rows))
    assert [item.answer for item in exchanges] == ["good", "better"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"train": False}, {"trainable": False}])
def test_an_untrained_answer_is_context(tmp_path: Path, mark: dict[str, Any]) -> None:
    chat = asked(turn("assistant", "context", **mark), turn("assistant", "learned"))
    exchanges, report = read(write(tmp_path / "a.jsonl", chat))
    assert said(exchanges) == [["question 0", "context", "question 1", "learned"]]
    assert report.noise["answer given as context"] == 1
    two = {"messages": [turn("user", "q"), turn("assistant", "context", **mark), turn("assistant", "goes on")]}
    assert read(write(tmp_path / "b.jsonl", two))[1].dropped == {"no user turn before": 1}


@pytest.mark.parametrize(
    ("ratings", "learned"),
    [
        ([1, 2, 3, 4, 5], [3, 4, 5]),
        (list(range(1, 11)), [5, 6, 7, 8, 9, 10]),
        ([0, 0.2, 0.5, 1], [0.5, 1]),
        ([-1, 1], [1]),
        ([10, 40, 50, 100], [50, 100]),
        (["1/5", "4/5", "bad", "good"], ["4/5", "good"]),
        ([0, 0], [0, 0]),
    ],
)
def test_the_scale_of_a_rating_is_that_of_its_file(tmp_path: Path, ratings: list[Any], learned: list[Any]) -> None:
    rows = [{"prompt": f"q{i}", "answer": f"{i}", "rating": rating} for i, rating in enumerate(ratings)]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert [ratings[int(item.answer)] for item in exchanges] == learned
    assert report.dropped.get("rated low", 0) == len(ratings) - len(learned)


PREFERENCE_DATA: dict[str, Any] = {
    "HH-RLHF": {
        "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and tea?\n\nAssistant: always tea",
        "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and tea?\n\nAssistant: NEVER",
    },
    "HH-RLHF with a prompt": {
        "prompt": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and tea?\n\nAssistant:",
        "chosen": " always tea",
        "rejected": " NEVER",
    },
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "and tea?"}],
        "chosen": {"from": "gpt", "value": "always tea"},
        "rejected": {"from": "gpt", "value": "NEVER"},
    },
    "messages before": {
        "messages": [turn("user", "and tea?"), turn("assistant", "NEVER")],
        "chosen": turn("assistant", "always tea"),
        "rejected": turn("assistant", "NEVER"),
    },
    "Alpaca": {"instruction": "and tea?", "input": "", "chosen": "always tea", "rejected": "NEVER"},
    "Alpaca, of two": {"instruction": "and tea?", "input": "", "output": ["always tea", "NEVER"]},
    "Alpaca with history": {
        "instruction": "and tea?",
        "history": [["hi", "hello"]],
        "chosen": "always tea",
        "rejected": "NEVER",
    },
    "OpenAI": {
        "input": {"messages": [turn("user", "and tea?")], "tools": []},
        "preferred_output": [turn("assistant", "always tea")],
        "non_preferred_output": [turn("assistant", "NEVER")],
    },
    "UltraFeedback": {
        "instruction": "and tea?",
        "completions": [
            {"response": "NEVER", "overall_score": 2.0},
            {"response": "always tea", "overall_score": 9.0},
            {"response": "SOMETIMES", "overall_score": 5.0},
        ],
    },
    "ranks": {"prompt": "and tea?", "answers": [{"answer": "NEVER", "rank": 2}, {"answer": "always tea", "rank": 1}]},
    "Orca": {"system": "s", "question": "and tea?", "chosen": "always tea", "rejected": "NEVER"},
    "a response besides": {"prompt": "and tea?", "response": "NEVER", "chosen": "always tea", "rejected": "NEVER"},
    "an answer and a worse one": {"prompt": "and tea?", "answer": "always tea", "rejected": "NEVER"},
}


@pytest.mark.parametrize("name", PREFERENCE_DATA)
def test_preference_data_keeps_the_worse_answer(tmp_path: Path, name: str) -> None:
    exchanges, report = read(write(tmp_path / "rows.json", json.dumps([PREFERENCE_DATA[name]], indent=1)))
    (texts,) = said(exchanges)
    assert texts in (["and tea?", "always tea"], ["hi", "hello", "and tea?", "always tea"])
    assert exchanges[0].rejected == "NEVER"
    assert report.rejected == {"given": 1} and exchanges[0].provenance == "given"
    assert importers.write(exchanges, tmp_path / "clean.jsonl") == 1
    assert read(tmp_path / "clean.jsonl")[0] == [replace(exchanges[0], source="rows")]


def test_a_rejected_answer_without_a_better_one_is_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "and tea?", "rejected": "NEVER"}, {"prompt": "p", "chosen": "SAME", "rejected": "SAME"}]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert not exchanges
    assert report.dropped == {"rejected answer": 2, "equal to the rejected answer": 1}


def kto(prompt: str, completion: str, label: object) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "label": label}


def test_a_good_and_a_bad_answer_that_follow_each_other_are_a_pair(tmp_path: Path) -> None:
    rows = [
        *(kto("tea?", "Tea.", True), kto("tea?", "NEVER", False)),
        *(kto("rain?", "NEVER", False), kto("rain?", "Rain.", True)),
        *(kto("list?", "NEVER 1", False), kto("files?", "Files.", True), kto("list?", "List.", True)),
        *(kto("two?", "NEVER 2", False), kto("two?", "Two.", True), kto("two?", "NEVER 3", False)),
        *(kto("same?", "Same.", True), kto("same?", "Same.", False)),
    ]
    exchanges, report = read(write(tmp_path / "kto.jsonl", *rows))
    assert [(item.answer, item.rejected) for item in exchanges] == [
        *(("Tea.", "NEVER"), ("Rain.", "NEVER"), ("Files.", ""), ("List.", "")),
        *(("Two.", "NEVER 2"), ("Same.", "")),
    ]
    assert report.rejected == {"given": 3} and report.dropped == {"marked label: false": 3}
    importers.write(exchanges, tmp_path / "clean.jsonl")
    assert [replace(item, source="") for item in read(tmp_path / "clean.jsonl")[0]] == [
        replace(item, source="") for item in exchanges
    ]


def test_an_answer_that_was_rated_down_and_regenerated_is_a_pair_and_a_deleted_one_is_not(tmp_path: Path) -> None:
    bad = {"role": "assistant", "content": "NEVER", "rating": -1}
    gone = {"role": "assistant", "content": "GONE", "deleted": True}
    talk = [
        turn("user", "tea?"),
        bad,
        turn("assistant", "Tea."),
        turn("user", "rain?"),
        gone,
        turn("assistant", "Rain."),
    ]
    exchanges, report = read(write(tmp_path / "talk.jsonl", {"messages": talk}))
    assert [(item.answer, item.rejected) for item in exchanges] == [("Tea.", "NEVER"), ("Rain.", "")]
    assert report.rejected == {"given": 1} and report.dropped == {"deleted": 1}


def test_what_is_held_back_is_not_lost_to_an_error(tmp_path: Path) -> None:
    """A file in a folder is read up to where it is broken."""
    (tmp_path / "chats").mkdir()
    path = write(tmp_path / "chats" / "a.jsonl", kto("tea?", "Tea.", True))
    path.write_text(path.read_text() + '{"prompt": "rain?", "comp')
    exchanges, report = read(tmp_path / "chats")
    assert [item.answer for item in exchanges] == ["Tea."] and report.skipped
