"""Conversations as people have them: every format, every way in which a file can be broken, and nothing lost silently."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers, near, sources
from moltlm.data.conversations.report import ImportReport, lines
from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.conversations.words import word_hashes
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange

EVERYTHING = ImportConfig(near_duplicate=1, redact=False, max_answer_chars=10**6, max_context_turns=100)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def write(path: Path, *rows: object) -> Path:
    """JSON lines; a text is written as it is."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def conversations(path: Path, config: ImportConfig = ImportConfig()) -> SimpleNamespace:  # noqa: B008 frozen
    """As a user would read it."""
    report = ImportReport()
    exchanges = list(importers.read([path], config, report))
    return SimpleNamespace(exchanges=exchanges, dropped=dict(report.dropped), redacted=dict(report.redacted))


def read(
    *paths: Path, config: ImportConfig = EVERYTHING, voice: Voice = importers.ANYBODY
) -> tuple[list[Exchange], ImportReport]:
    report = ImportReport()
    found = list(importers.read(list(paths), config, report, voice))
    assert report.exchanges == len(found)
    for file in report.files:
        assert file.turns == file.exchanges + file.rejected.total() + file.dropped.total()
    return found, report


def said(exchanges: list[Exchange]) -> list[list[str]]:
    return [[*(message["content"] for message in item.prompt), item.answer] for item in exchanges]


# --- formats

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


CHAT = [["hi", "hello"], ["hi", "hello", "and tea?", "always tea"]]


def node(name: str, parent: str | None, role: str, *parts: Any, kind: str = "text", **more: Any) -> dict[str, Any]:
    message = {"author": {"role": role}, "content": {"content_type": kind, "parts": list(parts)}, "recipient": "all"}
    return {"id": name, "parent": parent, "children": [], "message": {**message, **more}}


def chatgpt(**more: Any) -> dict[str, Any]:
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    nodes = [
        {"id": "root", "parent": None, "children": ["s"], "message": None},
        node("s", "root", "system", ""),
        node("h", "s", "user", "about me", kind="user_editable_context", **hidden),
        node("u1", "h", "user", "hi"),
        node("a0", "u1", "assistant", "an answer that was regenerated"),
        node("a1", "u1", "assistant", "hello"),
        node("u2", "a1", "user", {"content_type": "image_asset_pointer", "asset_pointer": "x"}, "and tea?"),
        node("t1", "u2", "assistant", kind="thoughts"),
        node("c1", "t1", "assistant", "search()", kind="code", recipient="browser"),
        node("r1", "c1", "tool", "found"),
        node("a2", "r1", "assistant", "always tea \ue200cite\ue202turn0search0\ue201"),
    ]
    return {"title": "Tea", "create_time": 1.5, "mapping": {each["id"]: each for each in nodes}, **more}


def test_chatgpt_export(tmp_path: Path) -> None:
    (tmp_path / "conversations.json").write_text(json.dumps([chatgpt(current_node="a2"), chatgpt(current_node="a0")]))
    found, report = read(tmp_path / "conversations.json")
    assert said(found) == [*CHAT, ["hi", "an answer that was regenerated"]]
    assert {item.source for item in found} == {"conversations"}
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
    found, report = read(write(tmp_path / "a.json", [{"uuid": "1", "name": "Tea", "chat_messages": messages}]))
    assert said(found) == CHAT
    assert report.noise["thinking"] == report.noise["tool call"] == report.noise["attachment"] == 1


def test_claude_export_with_branches(tmp_path: Path) -> None:
    rows = [("1", "0", "human", "hi"), ("2", "1", "assistant", "old"), ("3", "1", "assistant", "hello")]
    messages = [{"uuid": a, "parent_message_uuid": b, "sender": c, "text": d} for a, b, c, d in rows]
    found, report = read(write(tmp_path / "a.json", [{"chat_messages": messages}]))
    assert said(found) == [["hi", "hello"]]
    assert report.dropped == {"alternative branch": 1}


@pytest.mark.parametrize("as_lines", [True, False])
def test_sharegpt(tmp_path: Path, as_lines: bool) -> None:
    names = ("system", "human", "gpt", "human", "function_call", "observation", "gpt")
    values = ("be kind", "hi", "hello", "and tea?", "f()", "1", "always tea")
    row = {"id": "x", "conversations": [{"from": a, "value": b} for a, b in zip(names, values, strict=True)]}
    found, report = read(write(tmp_path / "a.json", *([row] if as_lines else [json.dumps([row], indent=1)])))
    assert said(found) == CHAT
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
    found, report = read(write(tmp_path / "a.jsonl", {"messages": rows}))
    assert said(found) == [["hi", "hello"], ["hi", "hello", "and tea?", "always\n\ntea"]]
    assert report.dropped == {"only tools, thinking or attachments": 1}
    assert report.noise["tool call"] == 3


def test_prompts_and_answers(tmp_path: Path) -> None:
    context = [turn("user", "hi"), turn("assistant", "hello"), turn("user", "and tea?")]
    rows = [
        {"prompt": "hi", "answer": "hello", "topic": "food", "trait": "calm"},
        {"prompt": context, "completion": [turn("assistant", "always tea")]},
        {"prompt": "x", "response": ""},
    ]
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == CHAT
    assert (found[0].topic, found[0].trait) == ("food", "calm")
    assert report.dropped == {"empty": 1}


EVENTS = [
    {"type": "summary", "summary": "Tea"},
    {"type": "user", "isMeta": True, "message": turn("user", "Caveat: ...")},
    {"type": "user", "message": turn("user", "hi<system-reminder>be brief</system-reminder>")},
    {"type": "assistant", "message": turn("assistant", [{"type": "thinking", "thinking": "x"}])},
    {"type": "assistant", "message": turn("assistant", [{"type": "text", "text": "hello"}])},
    {"type": "user", "message": turn("user", "and tea?")},
    {"type": "assistant", "message": turn("assistant", [{"type": "tool_use", "name": "kettle", "input": {}}])},
    {"type": "user", "message": turn("user", [{"type": "tool_result", "content": [{"type": "text", "text": "on"}]}])},
    {"type": "assistant", "isSidechain": True, "message": turn("assistant", "of a helper")},
    {"type": "assistant", "message": turn("assistant", [{"type": "text", "text": "always tea"}])},
]
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
    found, report = read(write(tmp_path / "s.jsonl", *events))
    assert said(found) == CHAT
    assert report.conversations == 1
    assert report.noise["tool call"] == 1
    assert report.noise["tool result"] >= 1
    assert report.noise["thinking"] == 1
    assert said(read(write(tmp_path / "array.json", json.dumps(events, indent=2)))[0]) == CHAT


TRANSCRIPTS = [
    "# Tea\n\n**User:** hi\n\n**Assistant:** hello\n\n---\n\n**User:** and tea?\n\n**Assistant:** always tea\n",
    "**Human**: hi\n\n**Claude**: hello\n\n**Human**: and tea?\n\n**Claude**: always tea",
    "## User\n\nhi\n\n## Assistant\n\nhello\n\n## User\nand tea?\n## Assistant:\nalways tea",
    "User: hi\nAI: hello\nUser: and tea?\nAI: always tea",
    "Me: hi\nYou: hello\nMe: and tea?\nYou: always tea",
    "You said:\nhi\n\nChatGPT said:\nhello\n\nYou said:\nand tea?\n\nChatGPT said:\nalways tea",
    "Human: hi\nCláudio: hello\nHuman: and tea?\nCláudio: always tea",
    "System: be kind\r\nUser: hi\r\nAssistant: hello\r\nUser: and tea?\r\nAssistant: always tea\r\n",
]


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


# --- who is the persona


VEX = Voice(("Vex Marlow",))
VEX_CHAT = [
    ["My clock stopped. Dead?", "Sulks, dear."],
    ["My clock stopped. Dead?", "Sulks, dear.", "And now?", "Hum."],
]
NAMED = {
    "the persona first": "Vex: Mind the springs.\nAna: {0}\nVex: {1}\nAna: {2}\nVex: {3}",
    "the whole name": "Vex Marlow: Mind the springs.\nAna: {0}\nVex Marlow: {1}\nAna: {2}\nVex Marlow: {3}",
    "other case and accents": "Ana: {0}\nVÉX: {1}\nAna: {2}\nvéx: {3}",
    "emoji": "🧑 Ana: {0}\n🕰️ Vex: {1}\n🧑 Ana: {2}\n🕰️ Vex: {3}",
    "emoji after": "Ana 🧑: {0}\nVex 🕰️: {1}\nAna 🧑: {2}\nVex 🕰️: {3}",
    "bold": "**Vex:** Mind.\n\n**Ana:** {0}\n\n**Vex:** {1}\n\n**Ana:** {2}\n\n**Vex:** {3}",
    "bold in lists": "- **Ana**: {0}\n- **Vex**: {1}\n- **Ana**: {2}\n- **Vex**: {3}",
    "headings": "### Ana\n{0}\n### Vex\n{1}\n### Ana\n{2}\n### Vex\n{3}",
    "times": "[10:31] Ana: {0}\n[10:32] Vex: {1}\n[10:33] Ana: {2}\n[10:34] Vex: {3}",
    "dates": "2026-01-04 10:31 - Ana: {0}\n2026-01-04 10:32 - Vex: {1}\n2026-01-04 10:33 - Ana: {2}\n"
    "2026-01-04 10:34 - Vex: {3}",
    "times after": "Ana (10:31): {0}\nVex (10:32): {1}\nAna (10:33): {2}\nVex (10:34): {3}",
    "a channel": "<Ana> {0}\n<Vex> {1}\n<Ana> {2}\n<Vex> {3}",
    "another user": "User: {0}\nVex: {1}\nUser: {2}\nVex: {3}",
    "wide colons": "安娜：{0}\nVex：{1}\n安娜：{2}\nVex：{3}",
}


@pytest.mark.parametrize("name", NAMED)
def test_the_persona_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(NAMED[name].format(*VEX_CHAT[1]), encoding="utf-8")
    found, _ = read(path, voice=VEX)
    assert said(found) == VEX_CHAT
    turned, _ = read(path, config=EVERYTHING.model_copy(update={"assistant": "vex"}), voice=Voice(("Ana",)))
    assert said(turned) == VEX_CHAT


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"another user"}))
def test_of_two_names_nobody_is_guessed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(NAMED[name].format(*VEX_CHAT[1]), encoding="utf-8")
    with pytest.raises(UnknownPersona, match="Who is the persona: ") as error:
        read(path)
    assert error.value.fix.startswith("Add --assistant ")
    with pytest.raises(UnknownPersona, match="None of them is Hob"):
        read(path, voice=Voice(("Hob",), "conversations.assistant={}"))
    found, _ = read(path, config=EVERYTHING.model_copy(update={"assistant": error.value.candidates[-1]}))
    assert found


LANGUAGES = [
    *[("User", "Assistant"), ("Human", "Bot"), ("Usuario", "Asistente"), ("Benutzer", "Assistent"), ("用户", "助手")],
    *[("Utilisateur", "Assistant"), ("Usuário", "Assistente"), ("Utente", "IA"), ("ユーザー", "アシスタント")],
    *[("사용자", "어시스턴트"), ("Пользователь", "Ассистент"), ("المستخدم", "مساعد"), ("Me", "GPT-4o"), ("Ich", "KI")],
    *[("You", "ChatGPT"), ("Me", "You"), ("Q", "A"), ("User 1", "Claude 3.5 Sonnet"), ("Frage", "Antwort")],
]


@pytest.mark.parametrize(("user", "assistant"), LANGUAGES)
def test_names_that_are_roles(tmp_path: Path, user: str, assistant: str) -> None:
    path = tmp_path / "a.txt"
    for line in ("{}: {}", "**{}:** {}", "{}：{}"):
        sides = [user, assistant] * 2
        path.write_text("\n".join(map(line.format, sides, VEX_CHAT[1])), encoding="utf-8")
        assert said(read(path)[0]) == VEX_CHAT
    rows = [{"from": side, "value": text} for side, text in zip(sides, VEX_CHAT[1], strict=True)]
    assert said(read(write(tmp_path / "b.json", {"conversations": rows}))[0]) == VEX_CHAT


def test_a_third_speaker_is_nobodys_turn(tmp_path: Path) -> None:
    lines = [
        "Human: one?",
        "Vex: One.",
        "Hob: I sell sundials.",
        "Vex: To Hob.",
        "Human: two?",
        "Hob: Two!",
        "Human: well?",
    ]
    lines += ["Vex: Two.", "Hob: Three.", "Vex: Four."]
    path = write(tmp_path / "a.txt", *lines)
    found, report = read(path, voice=VEX)
    assert said(found) == [["one?", "One."], ["two?\n\nwell?", "Two."]]
    assert report.dropped == {"answer to another speaker": 2}
    assert report.noise["turn of another speaker"] == 3
    assert report.files[0].speakers == {"Human": "user", "Vex": "assistant", "Hob": "other"}


NAMES = st.sampled_from(["Vex", "Ana", "Hob", "User"])


@FUZZ
@given(st.lists(st.tuples(NAMES, st.text("ab", min_size=1, max_size=2)), min_size=1, max_size=12))
def test_only_the_persona_is_learned(tmp_path: Path, turns: list[tuple[str, str]]) -> None:
    """Each text begins with the name of who says it, so that every answer shows its speaker."""
    rows = [{"from": name, "value": f"{name} {text}"} for name, text in turns]
    names = {name for name, _ in turns}
    users = names - {"Vex"}
    try:
        found, _ = read(write(tmp_path / "a.json", {"conversations": rows}), voice=VEX)
    except BadInput:
        assert "Vex" not in names
        return
    for texts in said(found):
        asked_by = {part.split()[0] for text in texts[::2] for part in text.split("\n\n")}
        assert asked_by == {"User"} if "User" in users else len(asked_by) == 1 and asked_by <= set(users)
        assert all(part.startswith("Vex") for text in texts[1::2] for part in text.split("\n\n")) or "Vex" not in names


# --- marks that say "not this"


def asked(*answers: dict[str, Any]) -> dict[str, Any]:
    """A conversation whose answers are these."""
    return {"messages": [each for i, answer in enumerate(answers) for each in (turn("user", f"question {i}"), answer)]}


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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == [["question 0", "good"], ["question 2", "better"]]
    assert report.dropped.total() == len(rows)


@pytest.mark.parametrize("name", HARMLESS)
def test_other_marks_change_nothing(tmp_path: Path, name: str) -> None:
    mark = HARMLESS[name]
    rows = [asked(turn("assistant", "good", **mark)), {"prompt": "q", "completion": "better", **mark}]
    found, _ = read(write(tmp_path / "a.jsonl", *rows))
    assert [item.answer for item in found] == ["good", "better"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"train": False}, {"trainable": False}])
def test_an_untrained_answer_is_context(tmp_path: Path, mark: dict[str, Any]) -> None:
    chat = asked(turn("assistant", "context", **mark), turn("assistant", "learned"))
    found, report = read(write(tmp_path / "a.jsonl", chat))
    assert said(found) == [["question 0", "context", "question 1", "learned"]]
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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert [ratings[int(item.answer)] for item in found] == learned
    assert report.dropped.get("rated low", 0) == len(ratings) - len(learned)


# --- preference data of other trainers

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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert not found
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


def test_alpaca(tmp_path: Path) -> None:
    rows = [
        {"instruction": "and tea?", "input": "Earl Grey", "output": "always tea", "history": [["hi", "hello"]]},
        {"question": "hi", "answer": "hello"},
        {"input": "hi there", "output": "hello"},
    ]
    found, report = read(write(tmp_path / "a.json", json.dumps(rows)))
    assert said(found) == [
        ["hi", "hello", "and tea?\n\nEarl Grey", "always tea"],
        ["hi", "hello"],
        ["hi there", "hello"],
    ]
    assert report.noise["answer given as context"] == 1


# --- branches, sessions and mixed rows


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
    found, report = read(write(tmp_path / "a.jsonl", {"messages": messages, leaf_key: "5"}))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2}
    last, _ = read(write(tmp_path / "b.jsonl", {"messages": messages}))
    assert said(last) == [CHAT[0], [*CHAT[1][:3], "LATER"]]
    events = [{"type": "session", leaf_key: "5"}, *({"type": "message", **each} for each in messages)]
    found, report = read(write(tmp_path / "c.jsonl", *events))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2}


def test_a_rewound_question_is_gone(tmp_path: Path) -> None:
    rows = [("1", None, "user", "REWOUND"), ("2", "1", "assistant", "REWOUND"), ("3", None, "user", "hi")]
    rows += [("4", "3", "assistant", "hello")]
    events = [{"uuid": a, "parentUuid": b, "sessionId": "s", "type": c, "message": turn(c, d)} for a, b, c, d in rows]
    found, report = read(write(tmp_path / "a.jsonl", *events))
    assert said(found) == [["hi", "hello"]]
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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == [["hi", "hello"], ["and tea?", "always tea"]]
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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == [
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
    found, report = read(write(tmp_path / "a.jsonl", *rows))
    assert said(found) == [["a", "b"], ["c", "d"], ["e", "f"], ["h", "i"], ["j", "k"]]
    assert report.noise["row of no known format"] == 2
    assert report.files[0].format == "messages, ShareGPT, preferences, agent session, prompts"


# --- exports and what was uploaded to them


def test_uploads_in_an_export_are_no_conversations(tmp_path: Path) -> None:
    upload = json.dumps({"prompt": "What is the capital?", "completion": "Paris."})
    members: dict[str, str | bytes] = {
        "export/conversations-000.json": json.dumps([chatgpt(current_node="a2")]),
        "export/file-1-train.jsonl": upload,
        "export/sub/file-2.txt": TRANSCRIPTS[0],
        "export/file-3.json": '{"type": "FeatureCollection", "features": [{',
        "mine.jsonl": json.dumps({"prompt": "x", "answer": "y"}),
    }
    found, report = read(archive(tmp_path / "a.zip", members))
    assert said(found) == [*CHAT, ["x", "y"]]
    assert len(report.skipped) == 3
    (tmp_path / "named.jsonl").write_text(upload)
    assert len(read(tmp_path / "named.jsonl")[0]) == 1


def thumbs_export() -> dict[str, str | bytes]:
    """An export with a thumb down on the first answer that is shown, and a thumb up on the second."""
    one = chatgpt(current_node="a2")
    for name, each in one["mapping"].items():
        each["message"] = each["message"] and {**each["message"], "id": name}
    thumbs = [
        {"message_id": "a1", "conversation_id": "c", "user_id": "u", "rating": "thumbsDown", "content": "{}"},
        {"id": "a2", "conversation_id": "c", "rating": "thumbs_up", "create_time": "2026-01-01"},
    ]
    return {"conversations.json": json.dumps([one]), "message_feedback.json": json.dumps(thumbs)}


@pytest.mark.parametrize("container", ["zip", "tar.gz", "folder", "file"])
def test_an_answer_with_a_thumb_down_in_the_export_is_not_learned(tmp_path: Path, container: str) -> None:
    (tmp_path / "export").mkdir()
    members = {f"export/{name}": text for name, text in thumbs_export().items()}
    for name, text in members.items():
        (tmp_path / name).write_text(str(text))
    path = tmp_path / "export"
    if container == "zip":
        path = archive(tmp_path / "a.zip", members)
    elif container == "tar.gz":
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz") as packed:
            packed.add(tmp_path / "export", "export")
    elif container == "file":
        path = tmp_path / "export" / "conversations.json"
    found, report = read(path)
    assert said(found) == [["and tea?", "always tea"]]
    assert report.dropped == {"alternative branch": 1, "marked thumbs down": 1}
    assert report.skipped == {}


def test_thumbs_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", thumbs_export() | {"message_feedback.json": "[{"})
    found, report = read(source)
    assert said(found) == CHAT
    (reason,) = report.skipped.values()
    assert reason == "the thumbs of the export, which cannot be read (not valid JSON)"


def test_a_broken_file_that_nobody_named_ends_nothing(tmp_path: Path) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    write(tmp_path / "a.jsonl", {"messages": [turn("user", "x"), turn("assistant", "y")]}, "{oops")
    (tmp_path / "b.txt").write_bytes("Vex: hi\nAna: ho\n".encode("utf-16"))
    write(tmp_path / "c.txt", "Vex: hi", "Ana: ho", "Vex: hi", "Ana: ho")
    write(tmp_path / "d.jsonl", good)
    found, report = read(tmp_path)
    assert said(found) == [["x", "y"], ["a", "b"]]
    reasons = {Path(name).name: why for name, why in report.skipped.items()}
    assert "line 2: not valid JSON" in reasons["a.jsonl"]
    assert reasons["c.txt"] == "Who is the persona: Vex or Ana?"
    assert set(reasons) == {"a.jsonl", "b.txt", "c.txt"}


def test_the_command_in_an_error_runs(tmp_path: Path) -> None:
    row = {"messages": [turn("user", 3)]}
    source = archive(tmp_path / "an export.zip", {"sub/a b.jsonl": "\n\n" + json.dumps(row)})
    report = ImportReport()
    with pytest.raises(BadInput, match=r"Passed over: .*a b\.jsonl: line 3: .*its text is a number") as error:
        list(importers.require_any(importers.read([source], EVERYTHING, report), report, [source]))
    command = error.value.fix.removeprefix("Look at it: ")
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == row


# --- what the command says


def run_import(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "moltlm.pipeline.cli", "data", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_that_names_the_persona_runs(tmp_path: Path) -> None:
    path, out = (
        write(tmp_path / "a {b}.txt", "Vex O'Hara: Mind.", "Ana: Dead?", "Vex O'Hara: Sulks.", "Ana: And?"),
        tmp_path / "o",
    )
    refused = run_import(path, "--out", out)
    assert refused.returncode == 2
    assert not out.exists()
    assert "Who is the persona: Vex O'Hara or Ana?" in refused.stderr
    command = refused.stderr.replace("\n", " ").partition(": molt ")[2]
    found = run_import(*shlex.split(command)[2:])
    assert found.returncode == 0
    assert [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()] == ["Sulks."]
    assert "persona: Vex O'Hara; user: Ana" in found.stdout


@pytest.mark.parametrize("key", ["childrenIds", "children"])
def test_a_tree_whose_messages_name_their_children(tmp_path: Path, key: str) -> None:
    rows = [("1", ["2", "3"], "user", "a"), ("2", [], "assistant", "NEVER"), ("3", [], "assistant", "b")]
    messages = [{"id": name, key: children, "role": role, "content": text} for name, children, role, text in rows]
    found, report = read(write(tmp_path / "a.jsonl", {"messages": messages}))
    assert said(found) == [["a", "b"]] and report.dropped == {"alternative branch": 1}


def test_what_no_reader_sees_is_not_learned(tmp_path: Path) -> None:
    chat = [turn("user", "\ufeffa\r\nb\rc"), turn("assistant", "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 tea\0\r\n")]
    assert said(read(write(tmp_path / "a.jsonl", {"messages": chat}))[0]) == [["a\nb\nc", "red tea"]]


def test_nothing_learned_is_an_error_with_reasons(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "BAD", "label": False}), tmp_path / "o.jsonl"
    found = run_import(path, "--out", out)
    assert found.returncode == 2
    assert not out.exists()
    assert "of 1 answers none is left (1 marked label: false)" in " ".join(found.stderr.split())
    assert "next:" not in found.stdout + found.stderr


def test_everything_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    chat = [
        turn("user", "a"),
        turn("assistant", "<think>x</think>b"),
        turn("user", "c"),
        turn("assistant", "no", label=0),
    ]
    write(tmp_path / "a" / "one.jsonl", {"messages": chat}, {"unknown": 1})
    write(tmp_path / "a" / "two.txt", "User: mail ana@example.org?", "Vex: Done.", "Hob: hm", "User: and?", "Vex: Yes.")
    write(tmp_path / "a" / "three.jsonl", "{oops")
    _, report = read(tmp_path / "a", config=ImportConfig())
    text = "\n".join(lines(report.facts()))
    for part in (
        "one.jsonl: messages, 1 conversations, 1 exchanges",
        "1 marked label: 0",
        "1 row of no known format",
        "1 thinking",
        "persona: Vex; user: User; neither: Hob",
        "three.jsonl: passed over, line 1",
        "redacted: 1 EMAIL",
    ):
        assert part in text, part


# --- folders and archives


def test_a_folder_is_read_in_order_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name in ("b/z.jsonl", "b/a.ndjson", "a/1.jsonl", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, {"messages": [turn("user", name), turn("assistant", name)]})
    for name in ("photo.png", "readme.md", "empty.txt", "user.json", ".hidden.jsonl", "zip.zip"):
        (tmp_path / name).write_text('{"id": 1}' if name == "user.json" else "" if name == "empty.txt" else "# Words\n")
    found, report = read(tmp_path)
    assert [item.answer for item in found] == ["c.jsonl", "a/1.jsonl", "b/a.ndjson", "b/z.jsonl"]
    assert [item.source for item in found] == ["c", "1", "a", "z"]
    assert {Path(name).name for name in report.skipped} == {
        "photo.png", "readme.md", "empty.txt", "user.json", ".hidden.jsonl", "zip.zip",
    }  # fmt: skip
    assert [row["exchanges"] for row in report.rows()] == [1, 1, 1, 1]


def archive(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


def test_an_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    members: dict[str, str | bytes] = {
        "../../chats.json": json.dumps([chatgpt(current_node="a2")]),
        "/etc/chat.md": TRANSCRIPTS[0].replace("tea", "rain"),
        "chat.html": "<html>",
        "__MACOSX/._a.json": b"\0\1\2",
        "user.json": '{"id": "x"}',
    }
    before = set(tmp_path.rglob("*"))
    found, report = read(archive(inside / "export.zip", members))
    assert sorted(said(found)) == sorted([*CHAT, ["hi", "hello", "and rain?", "always rain"]])
    assert {item.source for item in found} == {"chats", "chat"}
    assert len(report.skipped) == 3
    assert report.dropped == {"alternative branch": 1, "duplicate": 1}
    assert set(tmp_path.rglob("*")) - before == {inside / "export.zip"}


def test_archives_that_cannot_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"would unpack from .* no text does that"):
        read(archive(tmp_path / "bomb.zip", {"a.json": b"[" + b" " * (12 << 20)}))
    whole = archive(tmp_path / "a.zip", {"a.md": TRANSCRIPTS[0] * 50}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="no whole zip archive"):
        read(tmp_path / "cut.zip")
    at = whole.index(b"a.md") + 20
    (tmp_path / "bad.zip").write_bytes(whole[:at] + bytes(255 - byte for byte in whole[at : at + 9]) + whole[at + 9 :])
    with pytest.raises(BadInput, match="damaged"):
        read(tmp_path / "bad.zip")
    marked = bytearray(whole)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        marked[whole.index(magic) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(marked)
    with pytest.raises(BadInput, match="encrypted"):
        read(tmp_path / "locked.zip")
    (tmp_path / "nameless.zip").write_bytes(whole.replace(b"a.md", b"\0.md"))
    with pytest.raises(BadInput, match="No conversations in"):
        read(tmp_path / "nameless.zip")
    with pytest.raises(BadInput, match=r"No conversations in .* Passed over: .*not \*.json"):
        read(archive(tmp_path / "none.zip", {"a.exe": "x"}))


@FUZZ
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_archive_is_an_error_or_a_result(tmp_path: Path, place: int, byte: int) -> None:
    whole = bytearray(
        archive(tmp_path / "a.zip", {"a.md": TRANSCRIPTS[0], "b.json": json.dumps([chatgpt()])}).read_bytes()
    )
    whole[place % len(whole)] = byte
    (tmp_path / "b.zip").write_bytes(whole)
    result_or_bad_input(tmp_path / "b.zip")


# --- what becomes of turns


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
    found = conversations(write(tmp_path / "a.jsonl", {"messages": turns}, {"messages": turns}))
    assert [item.answer for item in found.exchanges] == ["hello"]
    assert found.dropped == {"empty": 2, "no user turn before": 2, "duplicate": 1, "empty question": 2, "too long": 2}


def test_turns_in_a_row_are_one_and_an_empty_one_breaks(tmp_path: Path) -> None:
    rows = [turn("user", "a"), turn("user", "b"), turn("assistant", "c"), turn("assistant", "d"), turn("user", "e")]
    rows += [turn("assistant", ""), turn("user", "f"), turn("assistant", "g")]
    found, report = read(write(tmp_path / "a.jsonl", {"messages": rows}))
    assert said(found) == [["a\n\nb", "c\n\nd"], ["f", "g"]]
    assert report.noise["assistant turn joined to the one before"] == 1


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (3, [1, 3, 3]), (4, [1, 3, 3]), (5, [1, 3, 5])]
)
def test_context_is_cut_to_the_last_turns_and_begins_with_the_user(
    tmp_path: Path, limit: int, sizes: list[int]
) -> None:
    rows = [turn("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(6)]
    config = EVERYTHING.model_copy(update={"max_context_turns": limit})
    found, _ = read(write(tmp_path / "a.jsonl", {"messages": rows}), config=config)
    assert [len(item.prompt) for item in found] == sizes
    assert all(item.prompt[0]["role"] == item.prompt[-1]["role"] == "user" for item in found)


texts = st.text(max_size=30)
messages = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), texts), max_size=12)


@FUZZ
@given(st.lists(messages, min_size=1, max_size=4))
def test_every_assistant_message_is_accounted_for(tmp_path: Path, chats: list[list[tuple[str, str]]]) -> None:
    rows = [{"messages": [turn(role, text) for role, text in chat]} for chat in chats]
    path = write(tmp_path / "a.jsonl", *rows)
    for config in (ImportConfig(), EVERYTHING):
        found, report = read(path, config=config)
        joined = report.noise["assistant turn joined to the one before"]
        assert len(found) + report.dropped.total() + joined == sum(
            role == "assistant" for chat in chats for role, _ in chat
        )
        assert read(path, config=config)[0] == found


@FUZZ
@given(st.lists(messages, min_size=1, max_size=4))
def test_what_is_written_reads_the_same(tmp_path: Path, chats: list[list[tuple[str, str]]]) -> None:
    path = write(tmp_path / "a.jsonl", *({"messages": [turn(*row) for row in chat]} for chat in chats))
    config = ImportConfig(max_context_turns=4)
    found, _ = read(path, config=config)
    assert importers.write(found, tmp_path / "out" / "clean.jsonl") == len(found)
    if found:
        again, report = read(tmp_path / "out" / "clean.jsonl", config=config)
        assert again == found
        assert not report.dropped
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "clean.jsonl"]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [turn("user", "a"), turn("assistant", "b")]}, "{oops")
    out = write(tmp_path / "out.jsonl", "as it was")
    with pytest.raises(BadInput, match="line 2"):
        importers.write(importers.read([path], EVERYTHING, ImportReport()), out)
    assert out.read_text() == "as it was\n"
    assert len(list(tmp_path.iterdir())) == 2


# --- broken input


BAD_LINES = [
    ("{not json", "line 1, conversation 1: not valid JSON"),
    ("[1, 2]", "no conversation of a known format. It begins with: '\\[1, 2\\]'"),
    ({"text": "x"}, "no conversation of a known format"),
    ({"type": "ping"}, "No conversations in"),
    ({"messages": "x"}, "line 1: `messages` is a text, not a list"),
    ({"messages": [turn("robot", "x")]}, "needs a role .* found robot"),
    ({"messages": [{"role": "user"}]}, "needs a role"),
    ({"messages": [turn("user", 3)]}, "needs a role and a text; its text is a number"),
    ({"messages": [turn("user", [3])]}, "a block .* is a number"),
    ({"messages": ["x"]}, "a message is a text"),
    ({"mapping": {"a": 1}}, "a node of `mapping`"),
    ({"mapping": {"a": {"message": {"x": 1}}}}, "has no author"),
    ({"chat_messages": [1]}, "one of `chat_messages`"),
    ("[]", "no conversation of a known format"),
    ("  ", "It is empty"),
    ('[{"messages": []}', "conversation 1: .*cut off: the array does not end"),
    ('[{"messages": []}, ', "conversation 2: .*cut off: Expecting value"),
    ('[{"messages": []} {"messages": []}]', "a comma is missing"),
    ('[{"messages": []},]', "a comma before the end"),
    ('[{"messages": []}] x', "something after the end"),
    ('[{"messages": []},\n{"messages": [}]', "line 2, conversation 2: not valid JSON"),
    ('[{"messages": "', "not valid JSON \\(cut off: "),
    ('[{"a": ' + "9" * 5000 + "}]", "conversation 1: not valid JSON"),
    ('[{"a":' * 10**5, "nested too deep"),
    ('{"a":' * 10**5, "nested too deep"),
    ("[" * 10**5 + "]" * 10**5, "no conversation of a known format"),
    ('{"messages": []}\n' + "[" * 10**5, "line 2: not valid JSON \\(nested too deep"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_conversation_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        conversations(write(tmp_path / "a.jsonl", line))
    assert str(tmp_path / "a.jsonl") in error.value.what
    assert error.value.fix


def test_a_broken_line_amid_good_ones_is_an_error(tmp_path: Path) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    with pytest.raises(BadInput, match="line 3: not valid JSON") as error:
        read(write(tmp_path / "a.jsonl", good, "", '{"messages": [', good))
    assert error.value.fix == f"Look at it: sed -n 3p '{tmp_path / 'a.jsonl'}'"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        conversations(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="No conversations in"):
        conversations(tmp_path)
    with pytest.raises(BadInput, match="is no file"):
        conversations(Path("/dev/null"))
    with pytest.raises(BadInput, match="No conversations to read"):
        read()


def test_encodings(tmp_path: Path) -> None:
    text = json.dumps({"messages": [turn("user", "olá"), turn("assistant", "maré")]}, ensure_ascii=False)
    path = tmp_path / "a.jsonl"
    for lead in ("", "["):
        body = lead + text + ("]" if lead else "")
        path.write_text(body, encoding="utf-8-sig")
        assert said(read(path)[0]) == [["olá", "maré"]]
        path.write_text(body, encoding="latin-1")
        with pytest.raises(BadInput, match=r"not UTF-8: byte 4[0-9] ") as error:
            read(path)
        assert "iconv" in error.value.fix
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            path.write_text(body, encoding=encoding)
            assert said(read(path)[0]) == [["olá", "maré"]]


def test_half_characters_become_whole_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "\\ud83d\\ude00 \\ud83d", "answer": "a\\ude00"}')
    found, _ = read(path)
    assert said(found) == [["\U0001f600 \ufffd", "a\ufffd"]]
    assert importers.write(found, tmp_path / "b.jsonl") == 1


def test_what_is_too_large_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LIMIT", 1 << 20)
    row = {"messages": [turn("user", "a"), turn("assistant", "b" * (5 << 20))]}
    with pytest.raises(BadInput, match="line 1: longer than 1 MiB"):
        read(write(tmp_path / "a.jsonl", row))
    with pytest.raises(BadInput, match=r"conversation 2: .*larger than 1 MiB"):
        read(write(tmp_path / "a.json", [{"messages": []}, row]))


def test_one_turn_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importers, "LIMIT", 1000)
    events = [turn("user", "a"), *[turn("assistant", "b" * 300)] * 4]
    with pytest.raises(BadInput, match="the session: one turn is larger"):
        read(write(tmp_path / "a.jsonl", *events))


def result_or_bad_input(path: Path) -> None:
    try:
        read(path)
    except BadInput as error:
        assert error.what
        assert error.fix


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.from_regex(
    "messages|conversations|chat_messages|mapping|current_node|parent|children|message|author|role|content|parts|text|type"
    "|sender|from|value|prompt|answer|weight|uuid|parent_message_uuid|payload|content_type|metadata|create_time|files"
    "|chosen|rejected|label|rating|feedback|deleted|loss|id|parentId|session_id|history|instruction|output|completions"
    "|rank|score|input|preferred_output|currNode|requests|response|actions|gamestarted|msgs|src|is_human|data|msg|handle"
    "|speakers|dialogue|replies|ancestors|fragments|part|contents|responses|winner|response_a|response_b|preference|status"
    "|generations|ratings|finish_reason|channel|recipient|candidates|turns|state|item|say",
    fullmatch=True,
)
anything = st.recursive(
    scalars | st.sampled_from(["user", "assistant", "a", "message", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.just("a"), inner, max_size=5),
    max_leaves=25,
)


@settings(FUZZ, max_examples=150)
@given(st.lists(st.dictionaries(KEYS, anything, max_size=6), min_size=1, max_size=3), st.booleans())
@example([{"messages": [{"responses": 1}]}], False)
def test_any_json_is_an_error_or_a_result(tmp_path: Path, rows: list[Any], as_lines: bool) -> None:
    path = tmp_path / "a.json"
    result_or_bad_input(write(path, *rows) if as_lines else write(path, json.dumps(rows, indent=1)))


@settings(FUZZ, max_examples=150)
@given(
    st.binary(max_size=300) | st.text(max_size=200).map(str.encode),
    st.sampled_from([b"", b"[", b"{", b"[{", b"PK\3\4", b"User: "]),
)
def test_any_bytes_are_an_error_or_a_result(tmp_path: Path, blob: bytes, lead: bytes) -> None:
    (tmp_path / "a.json").write_bytes(lead + blob)
    result_or_bad_input(tmp_path / "a.json")


WHOLE = [
    json.dumps([chatgpt(current_node="a2")] * 2),
    json.dumps([chatgpt(current_node="a2")], indent=1),
    "\n".join(map(json.dumps, EVENTS)),
    TRANSCRIPTS[0],
]


@settings(FUZZ, max_examples=150)
@given(st.sampled_from(WHOLE), st.integers(0, 10**6))
def test_a_truncated_file_is_an_error_or_a_result(tmp_path: Path, whole: str, cut: int) -> None:
    (tmp_path / "a.json").write_text(whole[: cut % len(whole)])
    result_or_bad_input(tmp_path / "a.json")
    if whole[0] == "[":
        with pytest.raises(BadInput):
            read(tmp_path / "a.json")


# --- near-duplicates


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
    found: Counter[str] = Counter()
    with near.DuplicateIndex(0.85) as seen:
        for number in range(200):
            assert seen.classify("what now", answer_of(number)) == ""
        assert seen.classify("what now", answer_of(7)) == "duplicate"
        assert seen.classify("What, now?", answer_of(7).upper()) == "near-duplicate"
        for number in range(200):
            found[seen.classify("what now", answer_of(number, changed=12))] += 1  # Jaccard 0.89
            assert seen.classify("what now", answer_of(number, changed=40)) == ""  # Jaccard 0.67
    assert found["near-duplicate"] >= 184


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


# --- redaction


def test_redaction_is_a_setting_and_reaches_both_sides(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", {"prompt": "I am ana@example.org", "answer": "Call +351 912 345 678, ana@example.org"}
    )
    found = conversations(path)
    assert said(found.exchanges) == [["I am [EMAIL]", "Call [PHONE], [EMAIL]"]]
    assert found.redacted == {"EMAIL": 2, "PHONE": 1}
    assert "ana@" in conversations(path, ImportConfig(redact=False)).exchanges[0].answer


# --- size


STREAM = """
import json, resource, sys
from pathlib import Path
from data.conversations import importers
from data.conversations.report import ImportReport
from data.config import ImportConfig
report = ImportReport()
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in importers.read([Path(sys.argv[1])], ImportConfig(near_duplicate=float(sys.argv[2])), report):
    pass
print(json.dumps([report.turns, report.exchanges, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start]))
"""


def export(path: Path, megabytes: int) -> int:
    """A ChatGPT export of about this size, and how many answers are in it: all different, in conversations of forty."""
    filler = "tea and rain and a clock in the drawer " * 90
    count = megabytes * 1_000_000 // 80_000
    with path.open("w") as out:
        for number in range(count):
            nodes = {"0": node("0", None, "user", "start")}
            for i in range(1, 41):
                role = "assistant" if i % 2 else "user"
                nodes[str(i)] = node(str(i), str(i - 1), role, f"{role} {number}x{i} {filler if i % 2 else ''}")
            out.write(("[" if not number else ",") + json.dumps({"mapping": nodes, "current_node": "40"}))
        out.write("]")
    return count * 20


def streamed(path: Path, megabytes: int, near_duplicate: float) -> tuple[int, int, float]:
    count = export(path, megabytes)
    assert path.stat().st_size > megabytes * 900_000
    run = [sys.executable, "-c", STREAM, str(path), str(near_duplicate)]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    turns, exchanges, kibibytes = json.loads(shown.stdout)
    assert turns == count
    return turns, exchanges, kibibytes / 1024


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    turns, exchanges, grown_mib = streamed(tmp_path / "conversations.json", 30, 1.0)
    assert exchanges == turns
    assert grown_mib < 25


@pytest.mark.slow
def test_memory_stays_bounded_over_a_large_file(tmp_path: Path) -> None:
    _, _, grown_mib = streamed(tmp_path / "conversations.json", 600, 0.85)
    assert grown_mib < 300
