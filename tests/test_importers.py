"""Conversations as people have them: the formats, and what becomes of their turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.errors import BadInput
from tests.conversation_files import (
    CHAT,
    EVENTS,
    EVERYTHING,
    FUZZ,
    TRANSCRIPTS,
    chatgpt,
    conversations,
    read,
    said,
    turn,
    write,
)


def test_chatgpt_export(tmp_path: Path) -> None:
    (tmp_path / "conversations.json").write_text(json.dumps([chatgpt(current_node="a2"), chatgpt(current_node="a0")]))
    exchanges, report = read(tmp_path / "conversations.json")
    assert said(exchanges) == [*CHAT, ["hi", "an answer that was regenerated"]]
    assert {item.source for item in exchanges} == {"conversations"}
    assert report.dropped == {"alternative branch": 3}
    removed = {
        "system message",
        "hidden message",
        "attachment",
        "thinking",
        "tool call",
        "tool result",
        "citation mark",
    }
    assert removed <= set(report.noise)
    assert report.formats == {"ChatGPT export": 3}


def test_chatgpt_without_a_current_node_and_with_speech(tmp_path: Path) -> None:
    one = chatgpt()
    one["mapping"]["a2"]["message"]["create_time"] = 9.0
    one["mapping"]["u1"]["message"]["content"]["parts"] = [{"content_type": "audio_transcription", "text": "hi"}]
    assert said(read(write(tmp_path / "a.json", one))[0]) == CHAT


def test_chatgpt_parents_in_a_circle(tmp_path: Path) -> None:
    one = chatgpt(current_node="a2")
    one["mapping"]["root"]["parent"] = "a2"
    with pytest.raises(BadInput, match=r"conversation 1: the parents .* circle"):
        read(write(tmp_path / "a.json", [one]))


def test_claude_export(tmp_path: Path) -> None:
    messages = [
        {"sender": "human", "text": "hi", "content": [{"type": "text", "text": "hi"}], "attachments": []},
        {"sender": "assistant", "text": "hello", "content": []},
        {"sender": "human", "text": "and tea?", "files": [{"file_name": "a.png"}]},
        {
            "sender": "assistant",
            "text": "This block is not supported",
            "content": [
                {"type": "thinking", "thinking": "..."},
                {"type": "tool_use"},
                {"type": "text", "text": "always tea"},
            ],
        },
    ]
    exchanges, report = read(write(tmp_path / "a.json", [{"uuid": "1", "name": "Tea", "chat_messages": messages}]))
    assert said(exchanges) == CHAT
    assert report.noise["thinking"] == report.noise["tool call"] == report.noise["attachment"] == 1


def test_claude_export_with_branches(tmp_path: Path) -> None:
    rows = [("1", "0", "human", "hi"), ("2", "1", "assistant", "old"), ("3", "1", "assistant", "hello")]
    messages = [{"uuid": a, "parent_message_uuid": b, "sender": c, "text": d} for a, b, c, d in rows]
    exchanges, report = read(write(tmp_path / "a.json", [{"chat_messages": messages}]))
    assert said(exchanges) == [["hi", "hello"]]
    assert report.dropped == {"alternative branch": 1}


@pytest.mark.parametrize("as_lines", [True, False])
def test_sharegpt(tmp_path: Path, as_lines: bool) -> None:
    names = ("system", "human", "gpt", "human", "function_call", "observation", "gpt")
    values = ("be kind", "hi", "hello", "and tea?", "f()", "1", "always tea")
    row = {"id": "x", "conversations": [{"from": a, "value": b} for a, b in zip(names, values, strict=True)]}
    exchanges, report = read(write(tmp_path / "a.json", *([row] if as_lines else [json.dumps([row], indent=1)])))
    assert said(exchanges) == CHAT
    assert +report.noise == {"system message": 1, "tool call": 1, "tool result": 1}


def test_messages_with_blocks_and_tools(tmp_path: Path) -> None:
    blocks = [
        {"type": "text", "text": "always"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "tea"},
    ]
    rows = [
        turn("developer", "be kind"),
        turn("user", "hi"),
        turn("assistant", "<think>who is it</think>hello"),
        turn("user", "and tea?"),
        turn("assistant", None, tool_calls=[{"id": 1}, {"id": 2}]),
        turn("tool", "1"),
        turn("assistant", blocks),
        turn("user", "nothing?"),
        turn("assistant", None, tool_calls=[{"id": 3}]),
    ]
    exchanges, report = read(write(tmp_path / "a.jsonl", {"messages": rows}))
    assert said(exchanges) == [["hi", "hello"], ["hi", "hello", "and tea?", "always\n\ntea"]]
    assert report.dropped == {"only tools, thinking or attachments": 1}
    assert report.noise["tool call"] == 3


def test_prompts_and_answers(tmp_path: Path) -> None:
    context = [turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")]
    rows = [
        {"prompt": "hi", "answer": "hello", "topic": "food", "trait": "calm"},
        {"prompt": context, "completion": [turn("assistant", "always tea")]},
        {"prompt": "x", "response": ""},
    ]
    exchanges, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(exchanges) == CHAT
    assert (exchanges[0].topic, exchanges[0].trait) == ("food", "calm")
    assert report.dropped == {"empty": 1}


OTHER_EVENTS = [
    {"type": "session_meta", "payload": {"id": 1}},
    {"type": "message", "message": turn("user", [{"type": "text", "text": "hi"}])},
    {"type": "response_item", "payload": {"type": "reasoning", "summary": []}},
    {
        "type": "response_item",
        "payload": {"type": "message", **turn("assistant", [{"type": "output_text", "text": "hello"}])},
    },
    turn("user", "and tea?"),
    {"type": "function_call", "name": "kettle"},
    {"type": "function_call_output", "output": "on"},
    {"type": "message", "message": turn("toolResult", "on")},
    {"type": "assistant", "message": "always tea"},
]


@pytest.mark.parametrize("events", [EVENTS, OTHER_EVENTS])
def test_agent_sessions(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    exchanges, report = read(write(tmp_path / "s.jsonl", *events))
    assert said(exchanges) == CHAT
    assert report.conversations == 1
    assert report.noise["tool call"] == 1
    assert report.noise["tool result"] >= 1
    assert report.noise["thinking"] == 1
    assert said(read(write(tmp_path / "array.json", json.dumps(events, indent=2)))[0]) == CHAT


@pytest.mark.parametrize("text", TRANSCRIPTS)
def test_transcripts(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    assert said(read(tmp_path / "a.md")[0]) == CHAT


def test_code_and_headings_in_an_answer_are_part_of_it(tmp_path: Path) -> None:
    answer = "## Recipe\n\n**Note:** hot\n\n````md\n## User\n```\n**User:** no\n````\nUser: in another style"
    (tmp_path / "a.md").write_text(f"## User\nhow?\n## Assistant\n{answer}\n")
    assert said(read(tmp_path / "a.md")[0]) == [["how?", answer]]


def test_a_code_fence_that_swallows_speakers(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("**User:** a\n**Assistant:** b\n```py\n**User:** c\n**Assistant:** d\n")
    with pytest.raises(BadInput, match="line 3: a code fence is opened and never closed"):
        read(tmp_path / "a.md")
    (tmp_path / "a.md").write_text("**User:** a\n**Assistant:** b\n```py\ncut off")
    assert len(read(tmp_path / "a.md")[0]) == 1


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(json.dumps([chatgpt(current_node="a2")]))
    (tmp_path / "b.json").write_text(TRANSCRIPTS[0])
    assert said(read(tmp_path / "a.txt")[0]) == said(read(tmp_path / "b.json")[0]) == CHAT


def test_alpaca(tmp_path: Path) -> None:
    rows = [
        {"instruction": "and tea?", "input": "Earl Grey", "output": "always tea", "history": [["hi", "hello"]]},
        {"question": "hi", "answer": "hello"},
        {"input": "hi there", "output": "hello"},
    ]
    exchanges, report = read(write(tmp_path / "a.json", json.dumps(rows)))
    assert said(exchanges) == [
        ["hi", "hello", "and tea?\n\nEarl Grey", "always tea"],
        ["hi", "hello"],
        ["hi there", "hello"],
    ]
    assert report.noise["answer given as context"] == 1


def test_what_no_reader_sees_is_not_learned(tmp_path: Path) -> None:
    chat = [turn("user", "\ufeffa\r\nb\rc"), turn("assistant", "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 tea\0\r\n")]
    assert said(read(write(tmp_path / "a.jsonl", {"messages": chat}))[0]) == [["a\nb\nc", "red tea"]]


def test_conversations_lose_no_turn_silently(tmp_path: Path) -> None:
    turns = [
        turn("assistant", "unasked"),
        turn("user", "hi"),
        turn("assistant", "hello"),
        turn("user", "and?"),
        turn("assistant", " "),
        turn("user", ""),
        turn("assistant", "to nothing"),
        turn("user", "long?"),
        turn("assistant", "l" * 9000),
    ]
    result = conversations(write(tmp_path / "a.jsonl", {"messages": turns}, {"messages": turns}))
    assert [item.answer for item in result.exchanges] == ["hello"]
    assert result.dropped == {"empty": 2, "no user turn before": 2, "duplicate": 1, "empty question": 2, "too long": 2}


def test_turns_in_a_row_are_one_and_an_empty_one_breaks(tmp_path: Path) -> None:
    rows = [turn("user", "a"), turn("user", "b"), turn("assistant", "c"), turn("assistant", "d"), turn("user", "e")]
    rows += [turn("assistant", ""), turn("user", "f"), turn("assistant", "g")]
    exchanges, report = read(write(tmp_path / "a.jsonl", {"messages": rows}))
    assert said(exchanges) == [["a\n\nb", "c\n\nd"], ["f", "g"]]
    assert report.noise["assistant turn joined to the one before"] == 1


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (3, [1, 3, 3]), (4, [1, 3, 3]), (5, [1, 3, 5])]
)
def test_context_is_cut_to_the_last_turns_and_begins_with_the_user(
    tmp_path: Path, limit: int, sizes: list[int]
) -> None:
    rows = [turn("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(6)]
    config = EVERYTHING.model_copy(update={"max_context_turns": limit})
    exchanges, _ = read(write(tmp_path / "a.jsonl", {"messages": rows}), config=config)
    assert [len(item.prompt) for item in exchanges] == sizes
    assert all(item.prompt[0]["role"] == item.prompt[-1]["role"] == "user" for item in exchanges)


texts = st.text(max_size=30)


messages = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), texts), max_size=12)


@FUZZ
@given(st.lists(messages, min_size=1, max_size=4))
def test_every_assistant_message_is_accounted_for(tmp_path: Path, chats: list[list[tuple[str, str]]]) -> None:
    rows = [{"messages": [turn(role, text) for role, text in chat]} for chat in chats]
    path = write(tmp_path / "a.jsonl", *rows)
    for config in (ImportConfig(), EVERYTHING):
        exchanges, report = read(path, config=config)
        joined = report.noise["assistant turn joined to the one before"]
        assert len(exchanges) + report.dropped.total() + joined == sum(
            role == "assistant" for chat in chats for role, _ in chat
        )
        assert read(path, config=config)[0] == exchanges


@FUZZ
@given(st.lists(messages, min_size=1, max_size=4))
@example([[("user", "\ufeff hi"), ("assistant", "tea \x1b")], [("user", "again"), ("assistant", " \x1b ")]])
def test_what_is_written_reads_the_same(tmp_path: Path, chats: list[list[tuple[str, str]]]) -> None:
    path = write(tmp_path / "a.jsonl", *({"messages": [turn(*row) for row in chat]} for chat in chats))
    config = ImportConfig(max_context_turns=4)
    exchanges, _ = read(path, config=config)
    assert importers.write(exchanges, tmp_path / "out" / "clean.jsonl") == len(exchanges)
    if exchanges:
        again, report = read(tmp_path / "out" / "clean.jsonl", config=config)
        assert again == exchanges
        assert not report.dropped
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "clean.jsonl"]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [turn("user", "a"), turn("assistant", "b")]}, "{oops")
    out = write(tmp_path / "out.jsonl", "as it was")
    with pytest.raises(BadInput, match="line 2"):
        importers.write(importers.read([path], EVERYTHING, ImportReport()), out)
    assert out.read_text() == "as it was\n"
    assert len(list(tmp_path.iterdir())) == 2
