"""Answers that were tried again: what was shown is learned, and what somebody disliked is its rejected side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conversation_files import read, said, write

Q1, A1, Q2, A2, BAD = "My clock stopped.", "It sulks.", "And if not?", "Bring cake.", "NEVER, as an AI."
WHOLE = [[Q1, A1], [Q1, A1, Q2, A2]]
NODES = [
    ("1", None, "user", Q1),
    ("2", "1", "assistant", BAD),
    ("3", "1", "assistant", A1),
    ("4", "3", "user", Q2),
    ("5", "4", "assistant", A2),
]
DISLIKED = "2"


def chatgpt(folder: Path) -> Path:
    nodes = {
        name: {
            "id": name,
            "parent": parent,
            "message": {
                "id": name,
                "author": {"role": role},
                "content": {"content_type": "text", "parts": [text]},
            },
        }
        for name, parent, role, text in NODES
    }
    hidden = {"id": "t", "parent": "1", "message": {"author": {"role": "tool"}, "content": {"parts": ["x"]}}}
    nodes["2"]["parent"], nodes["t"] = "t", hidden  # the disliked answer came after a search
    write(folder / "conversations.json", json.dumps([{"mapping": nodes, "current_node": "5"}]))
    write(folder / "message_feedback.json", json.dumps([{"id": DISLIKED, "rating": "thumbs_down"}]))
    return folder


def claude(folder: Path) -> Path:
    messages = [
        {
            "uuid": name,
            "parent_message_uuid": parent or "00000000-0000-4000-8000-000000000000",
            "sender": "human" if role == "user" else role,
            "text": text,
            **({"chat_feedback": {"type": "downvote"}} if name == DISLIKED else {}),
        }
        for name, parent, role, text in NODES
    ]
    return write(folder / "a.json", [{"chat_messages": messages, "current_leaf_message_uuid": "5"}])


def open_webui(folder: Path) -> Path:
    nodes = {
        name: {"id": name, "parentId": parent, "role": role, "content": text} for name, parent, role, text in NODES
    }
    nodes[DISLIKED]["annotation"] = {"rating": -1}  # type: ignore[assignment]
    return write(folder / "a.json", [{"chat": {"history": {"messages": nodes, "currentId": "5"}}}])


def librechat(folder: Path) -> Path:
    messages = [
        {
            "messageId": name,
            "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
            "isCreatedByUser": role == "user",
            "text": text,
            **({"feedback": {"rating": "thumbsDown"}} if name == DISLIKED else {}),
        }
        for name, parent, role, text in NODES
    ]
    return write(folder / "a.json", {"conversationId": "c", "messages": messages})


def session(folder: Path) -> Path:
    events = [
        {
            "type": role,
            "uuid": name,
            "parentUuid": parent,
            "message": {"role": role, "content": text},
            **({"rating": "bad"} if name == DISLIKED else {}),
        }
        for name, parent, role, text in NODES
    ]
    return write(folder / "a.jsonl", *events)


@pytest.mark.parametrize("make", [chatgpt, claude, open_webui, librechat, session])
def test_a_disliked_branch_is_the_rejected_side_of_what_is_shown(tmp_path: Path, make: Any) -> None:
    found, report = read(make(tmp_path))
    assert said(found) == WHOLE
    assert [item.rejected for item in found] == [BAD, ""]
    assert report.rejected == {"given": 1} and not report.dropped


def test_a_branch_that_nobody_disliked_is_only_counted(tmp_path: Path) -> None:
    path = open_webui(tmp_path)
    write(path, path.read_text().replace('"rating": -1', '"rating": 1'))
    found, report = read(path)
    assert said(found) == WHOLE and not any(item.rejected for item in found)
    assert report.dropped == {"alternative branch": 1}


def test_a_disliked_answer_to_another_question_is_only_counted(tmp_path: Path) -> None:
    nodes = {
        "1": {"id": "1", "parentId": None, "role": "user", "content": Q1},
        "2": {"id": "2", "parentId": None, "role": "user", "content": "My clock?"},
        "3": {"id": "3", "parentId": "2", "role": "assistant", "content": BAD, "annotation": {"rating": -1}},
        "4": {"id": "4", "parentId": "1", "role": "assistant", "content": A1},
    }
    found, report = read(write(tmp_path / "a.json", [{"chat": {"history": {"messages": nodes, "currentId": "4"}}}]))
    assert said(found) == [[Q1, A1]] and not found[0].rejected
    assert report.dropped == {"alternative branch": 1}


def test_answers_of_older_claude_exports_are_not_joined_across_a_retry(tmp_path: Path) -> None:
    rows = [("human", Q1), ("assistant", BAD), ("assistant", A1), ("human", Q2), ("assistant", A2)]
    messages = [{"uuid": str(n), "sender": side, "text": text} for n, (side, text) in enumerate(rows)]
    found, report = read(write(tmp_path / "a.json", [{"chat_messages": messages}]))
    assert said(found) == WHOLE
    assert report.dropped == {"alternative branch": 1}


def test_rows_of_openassistant_by_their_ranks(tmp_path: Path) -> None:
    rows = [
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": Q1, "rank": None},
        {"message_id": "2", "parent_id": "1", "role": "assistant", "text": A1, "rank": 0},
        {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "middling", "rank": 1},
        {"message_id": "4", "parent_id": "1", "role": "assistant", "text": BAD, "rank": 2},
        {"message_id": "5", "parent_id": "2", "role": "prompter", "text": Q2, "rank": 0},
        {"message_id": "6", "parent_id": "5", "role": "assistant", "text": A2, "rank": None},
    ]
    found, report = read(write(tmp_path / "a.jsonl", *({**row, "message_tree_id": "1"} for row in rows)))
    assert said(found) == WHOLE
    assert [item.rejected for item in found] == [BAD, ""]
    assert report.dropped == {"alternative branch": 1}
