"""Branches of a conversation, sessions in one file, and rows of several formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conversation_files import CHAT, FUZZ, asked, read, said, turn, write


def tree_of(id_key: str, parent_key: str) -> list[dict[str, Any]]:
    rows = [("1", None, "user", "hi"), ("2", "1", "assistant", "RETRY"), ("3", "1", "assistant", "hello")]
    rows += [("4", "3", "user", "and tea?"), ("5", "4", "assistant", "always tea"), ("6", "4", "assistant", "LATER")]
    return [{id_key: a, parent_key: b, **turn(c, d)} for a, b, c, d in rows]


@pytest.mark.parametrize(
    ("id_key", "parent_key", "leaf_key"),
    [
        ("id", "parent", "currNode"),
        ("uuid", "parentUuid", "current_leaf_message_uuid"),
        ("messageId", "parentMessageId", "currentId"),
        ("id", "parentId", "current_node"),
    ],
)
def test_only_the_shown_branch_is_read(tmp_path: Path, id_key: str, parent_key: str, leaf_key: str) -> None:
    messages = tree_of(id_key, parent_key)
    exchanges, report = read(write(tmp_path / "a.jsonl", {"messages": messages, leaf_key: "5"}))
    assert said(exchanges) == CHAT
    assert report.dropped == {"alternative branch": 2}
    last, _ = read(write(tmp_path / "b.jsonl", {"messages": messages}))
    assert said(last) == [CHAT[0], [*CHAT[1][:3], "LATER"]]
    events = [{"type": "session", leaf_key: "5"}, *({"type": "message", **each} for each in messages)]
    exchanges, report = read(write(tmp_path / "c.jsonl", *events))
    assert said(exchanges) == CHAT
    assert report.dropped == {"alternative branch": 2}


def test_a_rewound_question_is_gone(tmp_path: Path) -> None:
    rows = [("1", None, "user", "REWOUND"), ("2", "1", "assistant", "REWOUND"), ("3", None, "user", "hi")]
    rows += [("4", "3", "assistant", "hello")]
    events = [{"uuid": a, "parentUuid": b, "sessionId": "s", "type": c, "message": turn(c, d)} for a, b, c, d in rows]
    exchanges, report = read(write(tmp_path / "a.jsonl", *events))
    assert said(exchanges) == [["hi", "hello"]]
    assert report.dropped == {"alternative branch": 1}


def test_a_session_that_was_summed_up_goes_on(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"uuid": "1", "parentUuid": None, "type": "user", "message": turn("user", "hi")},
        {"uuid": "2", "parentUuid": "1", "type": "assistant", "message": turn("assistant", "hello")},
        {"uuid": "3", "parentUuid": None, "logicalParentUuid": "2", "type": "system", "subtype": "compact_boundary"},
        {"uuid": "4", "parentUuid": "3", "type": "user", "isCompactSummary": True, "message": turn("user", "Summary")},
        {"uuid": "5", "parentUuid": "4", "type": "assistant", "message": turn("assistant", "TO THE MACHINE")},
        {"uuid": "6", "parentUuid": "5", "type": "user", "message": turn("user", "and tea?")},
        {"uuid": "7", "parentUuid": "6", "type": "assistant", "message": turn("assistant", "always tea")},
    ]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(exchanges) == [["hi", "hello"], ["and tea?", "always tea"]]
    assert report.dropped == {"answer to a machine": 1}


edges = st.integers(-3, 12)


@FUZZ
@given(st.lists(st.tuples(edges, edges, st.sampled_from(["user", "assistant"])), max_size=12), edges)
def test_any_tree_is_read_once(tmp_path: Path, rows: list[tuple[int, int, str]], leaf: int) -> None:
    """Circles, parents that are not there, names that come twice: every answer is an exchange or counted."""
    names = [{"id": f"n{a}", "parentId": f"n{b}" if b >= 0 else None} for a, b, _ in rows]
    messages = [
        {**name, **turn(role, f"text {i}")} for i, (name, (_, _, role)) in enumerate(zip(names, rows, strict=True))
    ]
    _, report = read(write(tmp_path / "a.jsonl", {"messages": messages, "currentId": f"n{leaf}"}, asked()))
    joined = report.noise["assistant turn joined to the one before"]
    assert report.turns + joined == sum(role == "assistant" for *_, role in rows)


@pytest.mark.parametrize("key", ["session_id", "sessionId", "conversation_id", "thread_id", "chat_id", "threadId"])
def test_sessions_in_one_file_are_told_apart(tmp_path: Path, key: str) -> None:
    rows = [{key: name, **turn("user", f"{name} asks")} for name in "AB"]
    rows += [{key: name, **turn("assistant", f"to {name}")} for name in "AB"]
    rows += [{key: "A", **turn("user", "A again")}, {key: "A", **turn("assistant", "to A again")}]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(exchanges) == [
        ["A asks", "to A"],
        ["A asks", "to A", "A again", "to A again"],
        ["B asks", "to B"],
    ]
    assert report.conversations == 2


def test_each_row_has_its_own_format(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"version": 2, "exported": "today"},
        {"messages": [turn("user", "a"), turn("assistant", "b")]},
        {"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]},
        {"unknown": 1},
        {"prompt": "e", "chosen": "f", "rejected": "g"},
        turn("user", "h"),
        turn("assistant", "i"),
        {"prompt": "j", "answer": "k"},
    ]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(exchanges) == [["a", "b"], ["c", "d"], ["e", "f"], ["h", "i"], ["j", "k"]]
    assert report.noise["row of no known format"] == 2
    assert report.files[0].format == "messages, ShareGPT, preferences, agent session, prompts"


@pytest.mark.parametrize("key", ["childrenIds", "children"])
def test_a_tree_whose_messages_name_their_children(tmp_path: Path, key: str) -> None:
    rows = [("1", ["2", "3"], "user", "a"), ("2", [], "assistant", "NEVER"), ("3", [], "assistant", "b")]
    messages = [{"id": name, key: children, "role": role, "content": text} for name, children, role, text in rows]
    exchanges, report = read(write(tmp_path / "a.jsonl", {"messages": messages}))
    assert said(exchanges) == [["a", "b"]] and report.dropped == {"alternative branch": 1}
