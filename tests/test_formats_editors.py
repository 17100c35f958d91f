"""Chats in editors and terminals, and chats that are recognised and not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, turn, write

Q1, A1, Q2, A2 = TEXTS = ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]
CHAT = [TEXTS[:2], TEXTS]


def test_copilot_in_an_editor(tmp_path: Path) -> None:
    rows = [
        {"message": {"text": Q1, "parts": []}, "response": [{"kind": "thinking", "value": "NEVER"}, {"value": A1}]},
        {"message": {"text": "x"}, "response": [{"value": "NEVER"}], "isCanceled": True},
        {"message": {"text": "y"}, "response": [{"value": "NEVER"}], "vote": 0},
        {"message": {"text": Q2}, "response": [{"value": "Bring "}, {"kind": "inlineReference"}, {"value": "cake."}]},
    ]
    found, report = read(write(tmp_path / "a.json", json.dumps({"requesterUsername": "ana", "requests": rows})))
    assert [item.answer for item in found] == [A1, A2]
    assert report.dropped == {"unfinished answer": 1, "rated low": 1} and report.noise["thinking"] == 1


def test_aider(tmp_path: Path) -> None:
    path = tmp_path / "aider.md"
    start = "\n# aider chat started at 2026-01-01 10:00:00\n\n> /usr/bin/aider NEVER  \n\n"
    one = f"{start}#### /add NEVER.py  \n\n> Added NEVER.py  \n\n#### {Q1}  \n\n{A1}\n\n> Tokens: 2k NEVER  \n\n"
    path.write_text(f"{one}#### {Q2}  \n\n{A2}\n\n> Applied edit to NEVER.py  \n{one}")
    found, report = read(path)
    assert said(found) == CHAT
    assert report.conversations == 2 and report.dropped == {"duplicate": 1}


def test_a_response_of_an_api(tmp_path: Path) -> None:
    output = [{"type": "reasoning", "summary": []}, {"type": "message", **turn("assistant", A1)}]
    found, report = read(
        write(tmp_path / "a.jsonl", {"object": "response", "input": [turn("user", Q1)], "output": output})
    )
    assert said(found) == CHAT[:1] and report.noise["thinking"] == 1


def test_dialogues(tmp_path: Path) -> None:
    assert said(read(write(tmp_path / "a.jsonl", {"id": "1", "data": TEXTS}))[0]) == CHAT
    soda = {"speakers": ["Ana", "Vex"] * 2, "dialogue": TEXTS, "narrative": "NEVER"}
    assert said(read(write(tmp_path / "b.jsonl", soda), voice=Voice(("Vex",)))[0]) == CHAT


UNREAD = {
    "LINE": "[LINE] Chat history with Vex\nSaved on: 2026/01/01\n\n10:00\tAna\thi\n",
    "KakaoTalk": "Vex 님과 카카오톡 대화\n저장한 날짜 : 2026-01-01\n\n[Ana] [오전 10:00] hi\n",
    "WebVTT": "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ana>hi\n",
    "SRT": "1\n00:00:01,000 --> 00:00:02,000\nVex: hi\n",
    "imessage-exporter": "Jan 01, 2026 10:00:00 AM (Read by them)\nAna\nhi\n",
    "Skype": json.dumps({"userId": "a", "conversations": [{"id": "b", "MessageList": []}]}),
    "Perplexity": json.dumps([{"query_str": "hi", "text": "[]"}]),
    "KoboldAI": json.dumps({"gamestarted": True, "prompt": "Once", "actions": ["upon", "a time"]}),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "chat.txt"
    path.write_text(UNREAD[name], encoding="utf-8")
    with pytest.raises(BadInput, match=name) as error:
        read(path)
    assert "Write" in error.value.fix or "Save" in error.value.fix
