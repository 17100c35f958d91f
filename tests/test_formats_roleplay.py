"""Chats with characters in other applications than SillyTavern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, write

Q1, A1, Q2, A2 = TEXTS = ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]
CHAT = [TEXTS[:2], TEXTS]
SIDES = [("Vex", "Mind the springs."), ("Ana", Q1), ("Vex", A1), ("Ana", Q2), ("Vex", A2)]
IS_USER = [(name == "Ana", text) for name, text in SIDES]


def said_by(is_human: bool, name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "src": {"is_human": is_human, "name": name}, "is_alternative": False, **more}


def candidate(is_human: bool, text: str, **more: Any) -> dict[str, Any]:
    return {"author": {"name": "Vex", "is_human": is_human}, "candidates": [{"raw_content": text}], **more}


DUMP = [said_by(name == "Ana", name, text) for name, text in SIDES]
CHATS: dict[str, Any] = {
    "RisuAI": {
        "type": "risuChat",
        "data": {"message": [{"role": "user" if user else "char", "data": text} for user, text in IS_USER]},
    },
    "RisuAI, all chats": {
        "type": "risuAllChats",
        "data": [{"message": [{"role": "user" if user else "char", "data": text} for user, text in IS_USER]}],
    },
    "Agnai": {
        "greeting": "",
        "messages": [
            {"handle": name, "msg": text, **({"userId": "u"} if name == "Ana" else {"characterId": "c"})}
            for name, text in SIDES
        ],
    },
    "KoboldAI": {
        "gamestarted": True,
        "prompt": "\nVex: Mind the springs.",
        "actions": [f"\n{name}: {text}" for name, text in SIDES[1:]],
        "savedsettings": {"opmode": "3", "chatname": "Ana", "chatopponent": "Vex"},
    },
    "text-generation-webui, older": {"data": [["<|BEGIN-VISIBLE-CHAT|>", ""], [Q1, A1], [Q2, A2]], "data_visible": []},
    "Character.AI, one history": {"msgs": DUMP},
    "Character.AI, a page": {"messages": DUMP, "has_more": False},
    "Character.AI, flat": {
        "messages": [{"text": text, "src__is_human": name == "Ana", "src__name": name} for name, text in SIDES]
    },
    "Character.AI, removed": {
        "turns": [
            *[candidate(user, text) for user, text in IS_USER[:2]],
            candidate(False, "NEVER", state="STATE_REMOVED"),
            *[candidate(user, text) for user, text in IS_USER[2:]],
        ]
    },
    "PIPPA, columns": {
        "bot_name": "Vex",
        "conversation": {"message": [text for _, text in SIDES], "is_human": [user for user, _ in IS_USER]},
    },
}


@pytest.mark.parametrize("name", CHATS)
def test_chats_of_characters(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.json", json.dumps(CHATS[name], indent=1))
    found, report = read(path)
    assert said(found) == CHAT
    assert read(path, voice=Voice(("Vex",)))[0] == found
    assert report.dropped.total() == report.turns - 2


def test_a_story_without_speakers_is_named(tmp_path: Path) -> None:
    story = {"gamestarted": True, "prompt": "Once upon a time", "actions": ["there was", "a clock"]}
    with pytest.raises(BadInput, match="a story of KoboldAI"):
        read(write(tmp_path / "a.json", json.dumps(story)))


def test_other_retries_and_pictures_are_no_answers(tmp_path: Path) -> None:
    agnai = CHATS["Agnai"]["messages"]
    retried = [*agnai[:2], {**agnai[2], "retries": ["NEVER", A1]}, *agnai[3:]]
    found, report = read(write(tmp_path / "a.json", json.dumps({"messages": retried})))
    assert said(found) == CHAT and report.dropped["alternative branch"] == 1
    rows = [{"name": name, "is_user": name == "Ana", "mes": text} for name, text in SIDES]
    picture = {
        **{"name": "Vex", "is_user": False, "extra": {"image": "a.png"}},
        "mes": "[Vex sends a picture that contains: NEVER]",
    }
    found, report = read(write(tmp_path / "b.jsonl", *rows[:3], picture, *rows[3:]))
    assert said(found) == CHAT and report.noise["attachment"] == 1


def test_macros_in_a_question_name_nobody_wrong(tmp_path: Path) -> None:
    rows = [("Ana", "Dear {{char}}, is it {{user}}?"), ("Vex", "{{char}} waits, {{user}}.")]
    found, _ = read(write(tmp_path / "a.jsonl", *({"name": a, "is_user": a == "Ana", "mes": b} for a, b in rows)))
    assert said(found) == [["Dear you, is it me?", "Vex waits."]]


def test_kobold_in_instruct_mode(tmp_path: Path) -> None:
    """The sides are marked, so that no name is needed."""
    story = {
        "gamestarted": True,
        "prompt": f"\n{{{{[SYSTEM]}}}}NEVER{{{{[SYSTEM_END]}}}}\n{{{{[INPUT]}}}}\n{Q1}\n{{{{[OUTPUT]}}}}\n{A1}",
        "actions": [f"\n{{{{[INPUT]}}}}\n{Q2}\n{{{{[OUTPUT]}}}}\n", A2],
        "savedsettings": {"opmode": 4},
    }
    found, report = read(write(tmp_path / "saved_story.json", story))
    assert said(found) == CHAT
    assert report.noise["system message"] == 1


def test_what_is_disabled_in_risu_is_hidden(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "data": Q1},
        {"role": "char", "data": A1},
        {"role": "char", "data": "NEVER", "disabled": True},
    ]
    found, report = read(write(tmp_path / "a.json", {"type": "risuChat", "ver": 1, "data": {"message": messages}}))
    assert said(found) == CHAT[:1]
    assert report.noise == {"hidden message": 1}


def unseen(name: str) -> dict[str, Any]:
    """A chat in which the user's question is hidden, and Vex answers it."""
    rows = [(True, Q1), (False, A1), (True, "NEVER"), (False, "NEVER"), (True, Q2), (False, A2)]
    hidden = [number == 2 for number in range(len(rows))]
    sides = ["user" if is_user else "char" for is_user, _ in rows]
    if name == "RisuAI":
        messages = [
            {"role": side, "data": text, "disabled": is_hidden}
            for side, (_, text), is_hidden in zip(sides, rows, hidden, strict=True)
        ]
        return {"type": "risuChat", "data": {"message": messages}}
    if name == "Agnai":
        messages = [
            {"handle": "x", "msg": text, "ooc": is_hidden, **({"userId": "u"} if is_user else {"characterId": "c"})}
            for (is_user, text), is_hidden in zip(rows, hidden, strict=True)
        ]
        return {"messages": messages}
    if name == "Character.AI":
        states = [{"state": "STATE_REMOVED"} if is_hidden else {} for is_hidden in hidden]
        return {"msgs": [said_by(user, "Vex", text, **more) for (user, text), more in zip(rows, states, strict=True)]}
    turns = [
        candidate(*row, **({"state": "STATE_REMOVED"} if is_hidden else {}))
        for row, is_hidden in zip(rows, hidden, strict=True)
    ]
    return {"turns": turns}


@pytest.mark.parametrize("name", ["RisuAI", "Agnai", "Character.AI", "Character.AI, turns"])
def test_the_answer_to_a_hidden_question_is_not_learned(tmp_path: Path, name: str) -> None:
    found, report = read(write(tmp_path / "a.json", json.dumps(unseen(name), indent=1)))
    assert said(found) == [[Q1, A1], [Q2, A2]]
    assert report.dropped["empty question"] == 1


@pytest.mark.parametrize("text", ["NEVER", "((NEVER mind that))"])
def test_the_answer_to_a_hidden_line_of_sillytavern_is_not_learned(tmp_path: Path, text: str) -> None:
    rows = [(True, Q1), (False, A1), (True, text), (False, "NEVER"), (True, Q2), (False, A2)]
    lines = [
        {
            "name": "Ana" if is_user else "Vex",
            "is_user": is_user,
            "is_system": content == "NEVER" and is_user,
            "mes": content,
        }
        for is_user, content in rows
    ]
    found, report = read(write(tmp_path / "a.jsonl", *lines))
    assert said(found) == [[Q1, A1], [Q2, A2]]
    assert report.dropped == {"empty question": 1}
