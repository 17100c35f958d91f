"""In every format, each thing that a persona said is an exchange, joined to the one before, or dropped with a reason."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read

Rows = list[tuple[str, str]]
WriteChat = Callable[[Path, Rows], Path]
NAMES = {"user": "Ana", "assistant": "Vex"}


def _json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def _lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def messages(path: Path, rows: Rows) -> Path:
    return _lines(path / "a.jsonl", [{"messages": [{"role": role, "content": text} for role, text in rows]}])


def sharegpt(path: Path, rows: Rows) -> Path:
    sides = {"user": "human", "assistant": "gpt"}
    return _json(path / "a.json", [{"conversations": [{"from": sides[role], "value": text} for role, text in rows]}])


def chatgpt(path: Path, rows: Rows) -> Path:
    nodes = {"r": {"id": "r", "parent": None, "message": None}}
    for place, (role, text) in enumerate(rows):
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        nodes[str(place)] = {"id": str(place), "parent": str(place - 1) if place else "r", "message": message}
    return _json(path / "a.json", [{"mapping": nodes, "current_node": str(len(rows) - 1) if rows else "r"}])


def claude(path: Path, rows: Rows) -> Path:
    sides = {"user": "human", "assistant": "assistant"}
    made = [{"uuid": str(n), "sender": sides[role], "text": text} for n, (role, text) in enumerate(rows)]
    return _json(path / "a.json", [{"chat_messages": made}])


def session(path: Path, rows: Rows) -> Path:
    events = [
        {
            "type": role,
            "uuid": str(n),
            "parentUuid": str(n - 1) if n else None,
            "message": {"role": role, "content": text},
        }
        for n, (role, text) in enumerate(rows)
    ]
    return _lines(path / "a.jsonl", [{"type": "summary", "summary": "x"}, *events])


def tavern(path: Path, rows: Rows) -> Path:
    header = {"user_name": "Ana", "character_name": "Vex", "chat_metadata": {}}
    chat = [{"name": NAMES[role], "is_user": role == "user", "mes": text} for role, text in rows]
    return _lines(path / "a.jsonl", [header, *chat])


def telegram(path: Path, rows: Rows) -> Path:
    made = [{"id": n, "type": "message", "from": NAMES[a], "from_id": a, "text": b} for n, (a, b) in enumerate(rows)]
    return _json(path / "a.json", {"name": "Vex", "type": "personal_chat", "id": 1, "messages": made})


def jan(path: Path, rows: Rows) -> Path:
    made = [
        {
            "object": "thread.message",
            "role": role,
            "content": [{"type": "text", "text": {"value": text}}],
            "created_at": n,
        }
        for n, (role, text) in enumerate(rows)
    ]
    return _lines(path / "a.jsonl", made)


def table(path: Path, rows: Rows) -> Path:
    with (path / "a.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("role", "content"), *rows])
    return path / "a.csv"


def transcript(path: Path, rows: Rows) -> Path:
    (path / "a.txt").write_text("".join(f"{NAMES[role]}: {text}\n" for role, text in rows), encoding="utf-8")
    return path / "a.txt"


def backup(path: Path, rows: Rows) -> Path:
    chat = [{"author": role, "text": text} for role, text in rows]
    return _json(path / "a.json", {"version": 1, "store": {"chats": [{"messages": chat}]}})


WRITERS = [messages, sharegpt, chatgpt, claude, session, tavern, telegram, jan, table, transcript, backup]
TEXTS = st.text("abcxyz äß你 ", min_size=1, max_size=8).map(lambda text: f"w{text.strip()}")


@pytest.mark.parametrize("writer", WRITERS, ids=lambda each: each.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), max_size=8))
def test_every_answer_is_accounted_for(tmp_path: Path, writer: WriteChat, rows: Rows) -> None:
    try:
        found, report = read(writer(tmp_path, rows), voice=Voice(("Vex",)))
    except BadInput as error:
        assert len({role for role, _ in rows}) < 2, error.what
        return
    answers = sum(role == "assistant" for role, _ in rows)
    assert report.turns + report.noise["assistant turn joined to the one before"] == answers
    spoken = {text for role, text in rows if role == "assistant"}
    asked = {text for role, text in rows if role == "user"}
    for item in found:
        assert set(item.answer.split("\n\n")) <= spoken
        assert set(item.prompt[-1]["content"].split("\n\n")) <= asked
