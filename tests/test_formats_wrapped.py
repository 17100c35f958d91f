"""Conversations in other fields, objects and lists than usual: they are found, or the file is refused as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, turn, write

Q1, A1, Q2, A2 = TEXTS = ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]
CHAT = [TEXTS[:2], TEXTS]
SIDES = list(zip(("user", "assistant") * 2, TEXTS, strict=True))
MESSAGES = [turn(role, text) for role, text in SIDES]


def under(role: str, content: str, names: tuple[str, str] = ("user", "assistant")) -> list[dict[str, Any]]:
    """The chat with other names of its fields."""
    return [{role: names[side == "assistant"], content: text} for side, text in SIDES]


FIELDS: dict[str, list[dict[str, Any]]] = {
    "say": under("role", "say", ("Prompt", "Response")),
    "author and text": under("author", "text", ("human", "some model")),
    "sender and message": under("sender", "message", ("You", "Assistant")),
    "handle and msg": under("handle", "msg", ("You", "Vex")),
    "type as the role": under("type", "content", ("human", "ai")),
    "a flag": [{"is_human": role == "user", "text": text} for role, text in SIDES],
    "an author object": [{"author": {"role": role}, "content": {"parts": [text]}} for role, text in SIDES],
    "data": [{"type": role, "data": {"content": text}} for role, text in SIDES],
    "LangChain, serialized": [
        {"id": ["langchain", "HumanMessage" if role == "user" else "AIMessage"], "kwargs": {"content": text}}
        for role, text in SIDES
    ],
    "info and parts": [
        {
            "info": {"role": role},
            "parts": [
                {"type": "step-start"},
                {"type": "text", "text": "NEVER", "synthetic": True},
                {"type": "reasoning", "text": "NEVER"},
                {"type": "text", "text": text},
            ],
        }
        for role, text in SIDES
    ],
    "an inner message": [{"message": turn(role, text), "contextItems": []} for role, text in SIDES],
    "fragments": [
        {"role": role, "fragments": [{"ft": "content", "part": {"pt": "text", "text": text}}, {"ft": "void"}]}
        for role, text in SIDES
    ],
    "contentParts": [
        {"role": role, "contentParts": [{"type": "reasoning", "text": "NEVER"}, {"type": "text", "text": text}]}
        for role, text in SIDES
    ],
    "parts of Gemini": [
        {
            "role": "model" if role == "assistant" else role,
            "parts": [{"text": "NEVER", "thought": True}, {"text": text}],
        }
        for role, text in SIDES
    ],
    "blocks with a value": [turn(role, [{"type": "text", "value": text}]) for role, text in SIDES],
    "blocks with a content": [turn(role, [{"type": "text", "content": text}]) for role, text in SIDES],
}


@pytest.mark.parametrize("name", FIELDS)
def test_messages_with_other_fields(tmp_path: Path, name: str) -> None:
    messages = FIELDS[name]
    assert said(read(write(tmp_path / "a.jsonl", {"messages": messages}))[0]) == CHAT
    whole = write(
        tmp_path / "b.json", json.dumps({"version": 3, "backup": {"chats": [{"messages": messages}]}}, indent=1)
    )
    assert said(read(whole)[0]) == CHAT


ONE = {"id": "1", "title": "Clock", "messages": MESSAGES}
BACKUPS: dict[str, Any] = {
    "chats": {"chats": [ONE], "folders": {}, "version": 1},
    "data.chats": {"data": {"chats": [ONE], "userPrompts": [{"id": 1, "title": "NEVER"}]}, "checksum": "x"},
    "history": {"version": 4, "history": [ONE], "prompts": []},
    "a store": {"chat-next-web-store": {"sessions": [ONE]}, "access-control": {"openaiApiKey": "x"}},
    "keys of sessions": {"chat-sessions-list": [{"id": "1"}], "session:1": ONE, "configVersion": 12},
    "by id": {"1": ONE},
    "conversations of messages": {"conversations": [ONE]},
    "a request": {"custom_id": "1", "body": {"model": "m", "messages": MESSAGES}},
    "Gemini's API": {"contents": FIELDS["parts of Gemini"], "systemInstruction": {"parts": [{"text": "NEVER"}]}},
    "a list of lists": [MESSAGES],
    "ChatGPT's in a wrapper": {
        "conversations": [
            {
                "mapping": {
                    str(n): {
                        "id": str(n),
                        "parent": str(n - 1) if n else None,
                        "message": {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}},
                    }
                    for n, (role, text) in enumerate(SIDES)
                },
                "current_node": "3",
            }
        ]
    },
}


@pytest.mark.parametrize("name", BACKUPS)
def test_backups_hold_conversations_somewhere(tmp_path: Path, name: str) -> None:
    assert said(read(write(tmp_path / "a.json", json.dumps(BACKUPS[name], indent=1)))[0]) == CHAT
    assert said(read(write(tmp_path / "a.jsonl", BACKUPS[name], BACKUPS[name]))[0])[:2] == CHAT


@pytest.mark.parametrize(
    "value",
    [
        {"items": [{"id": "1", "title": "t"}], "total": 1},
        {"projects": [{"docs": [{"filename": "a", "content": "text"}]}]},
        {"a": {"role": "admin", "content": "x"}},
        {"users": [{"role": "user", "name": "Ana", "content": "x"}, {"role": "user", "name": "Bo", "content": "y"}]},
    ],
)
def test_other_objects_are_no_conversations(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInput, match="no conversation of a known format"):
        read(write(tmp_path / "a.json", json.dumps(value)))


ROWS: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "text_input": ({"text_input": Q1, "output": A1}, CHAT[:1]),
    "input_text": ({"input_text": Q1, "output_text": A1}, CHAT[:1]),
    "lists of messages": ({"input": MESSAGES[:3], "output": [turn("assistant", A2)]}, CHAT[1:]),
    "a list and a message": ({"input": MESSAGES[:1], "output": turn("assistant", A1)}, CHAT[:1]),
    "pairs": ({"conversation": [{"input": Q1, "output": A1}, {"input": Q2, "output": A2}]}, CHAT),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_with_other_fields(tmp_path: Path, name: str) -> None:
    row, expected = ROWS[name]
    assert said(read(write(tmp_path / "a.jsonl", row, {"header": 1}))[0]) == expected


@pytest.mark.parametrize("key", ["conversation", "dialog", "session_id", "chatId"])
def test_rows_of_several_conversations_take_turns(tmp_path: Path, key: str) -> None:
    rows = [{key: name, **message} for message in MESSAGES[:2] for name in ("a", "b")]
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == CHAT[:1] and report.dropped == {"duplicate": 1}
    rows = [{"metadata": {"session_id": row[key]}, **{k: v for k, v in row.items() if k != key}} for row in rows]
    assert said(read(write(tmp_path / "b.jsonl", *rows))[0]) == CHAT[:1]


def test_an_assistant_that_is_named_is_one_of_several_characters(tmp_path: Path) -> None:
    hob = [turn("user", "Hob?"), turn("assistant", "NEVER sundials.", name="Hob")]
    named = [{**message, "name": "Vex"} if message["role"] == "assistant" else message for message in MESSAGES]
    path = write(tmp_path / "a.jsonl", {"messages": [*named[:2], *hob, *named[2:]]})
    found, _ = read(path, voice=Voice(("Vex",)))
    assert [item.answer for item in found] == [A1, A2]
    assert not any("NEVER" in text for row in said(found) for text in row)
    with pytest.raises(UnknownPersona, match="Who is the persona: Vex or Hob"):
        read(path)
    assert said(read(write(tmp_path / "b.jsonl", {"messages": named}))[0]) == CHAT


def test_ancestors_tell_the_branch(tmp_path: Path) -> None:
    rows = [("1", "user", Q1, []), ("2", "assistant", "NEVER", ["1"]), ("3", "assistant", A1, ["1"])]
    rows += [("4", "user", Q2, ["1", "3"]), ("5", "assistant", A2, ["1", "3", "4"])]
    messages = [{"id": a, "from": b, "content": c, "ancestors": d} for a, b, c, d in rows]
    found, report = read(write(tmp_path / "a.json", json.dumps({"rootMessageId": "1", "messages": messages})))
    assert said(found) == CHAT and report.dropped == {"alternative branch": 1}


def event(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "payload": payload}


def spoken(role: str, text: str, **more: Any) -> dict[str, Any]:
    return event("response_item", type="message", role=role, content=[{"type": "output_text", "text": text}], **more)


def test_what_was_rolled_back_is_another_branch(tmp_path: Path) -> None:
    undo = event("event_msg", type="thread_rolled_back", num_turns=1)
    rows = [spoken("user", Q1), spoken("assistant", A1), spoken("user", "NEVER"), spoken("assistant", "NEVER"), undo]
    rows += [spoken("user", Q2), spoken("assistant", "NEVER: I look first", phase="commentary")]
    rows += [spoken("assistant", A2, phase="final_answer")]
    found, report = read(write(tmp_path / "a.jsonl", event("session_meta", id="s"), *rows))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 1} and report.noise["commentary of an agent"] == 1


def test_a_summary_of_a_branch_tells_where_a_session_goes_on(tmp_path: Path) -> None:
    rows = [("a", None, "user", Q1), ("b", "a", "assistant", A1), ("y", "a", "assistant", "NEVER")]
    events = [{"type": "message", "id": a, "parentId": b, "message": turn(c, d)} for a, b, c, d in rows]
    found, _ = read(write(tmp_path / "a.jsonl", *events, {"type": "branch_summary", "id": "z", "parentId": "b"}))
    assert said(found) == CHAT[:1]
