"""Exports of applications: what is shown there is what is learned, and everything else is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moltlm.data.conversations import formats
from moltlm.data.conversations.gemini import as_text
from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, write

VEX = Voice(("Vex",))
CHAT = [["My clock stopped.", "It sulks."], ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]]
TEXTS = CHAT[1]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tavern(name: str, text: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "is_user": name == "Ana", "is_system": False, "mes": text, "extra": {}, **more}


TAVERN = [
    {"user_name": "Ana", "character_name": "Vex", "chat_metadata": {}},
    tavern("Vex", "*looks up* What ails it?", swipes=["*looks up* What ails it?", "Closed!"], swipe_id=0),
    tavern("Ana", "My clock stopped."),
    tavern("Vex", "It sulks.", swipes=["NEVER", "It sulks."], swipe_id=1, extra={"reasoning": "hm"}),
    tavern("Note", "NEVER", is_system=True),
    tavern("System", "NEVER", extra={"type": "narrator"}),
    tavern("Ana", "(OOC: NEVER mind the (small) typos)\nAnd if not?"),
    tavern("Vex", "((NEVER out of character))"),
    tavern("Vex", "Bring cake. [OOC: NEVER too long]"),
]


def test_sillytavern_learns_what_is_shown(tmp_path: Path) -> None:
    found, report = read(write(tmp_path / "a.jsonl", *TAVERN))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2, "no user turn before": 1}
    assert report.noise["note out of character"] == 3
    assert report.noise["hidden message"] == report.noise["system message"] == report.noise["thinking"] == 1
    assert said(read(write(tmp_path / "b.jsonl", *TAVERN[1:]))[0]) == CHAT
    newer = [{"chat_metadata": {}, "user_name": "unused", "character_name": "unused"}, *TAVERN[1:]]
    assert said(read(write(tmp_path / "c.json", json.dumps(newer, indent=1)))[0]) == CHAT


def test_an_answer_that_never_began_ends_no_import(tmp_path: Path) -> None:
    found, _ = read(write(tmp_path / "a.jsonl", *TAVERN[:3], tavern("Vex", None), *TAVERN[3:]))
    assert said(found) == CHAT


def test_a_group_chat_learns_one_character(tmp_path: Path) -> None:
    rows = [*TAVERN[:4], tavern("Hob", "I sell sundials."), tavern("Vex", "To Hob."), *TAVERN[6:]]
    path = write(tmp_path / "a.jsonl", *rows)
    found, report = read(path, voice=VEX)
    assert said(found)[-1][-1] == "Bring cake."
    assert not any("sundials" in item.answer or "To Hob" in item.answer for item in found)
    assert report.dropped["answer to another speaker"] == 1
    with pytest.raises(UnknownPersona, match="Who is the persona: Vex or Hob"):
        read(path)


def character_ai(**more: Any) -> dict[str, Any]:
    sides = [("Vex", "Mind the springs."), *zip(["[NAME]", "Vex"] * 2, TEXTS, strict=True)]
    messages = [{"text": text, "src": {"name": name, "is_human": name != "Vex"}} for name, text in sides]
    messages.insert(3, {**messages[2], "text": "NEVER", "is_alternative": True})
    messages.insert(3, {**messages[2], "text": "NEVER", "is_chosen": False})
    return {"info": {}, "histories": {"histories": [{"msgs": messages}, {"msgs": []}]}, **more}


def test_character_ai(tmp_path: Path) -> None:
    found, report = read(write(tmp_path / "a.json", character_ai()))
    assert said(found) == CHAT
    assert report.dropped == {"no user turn before": 1, "alternative branch": 2}
    assert report.conversations == 2
    turns = [
        {
            "create_time": f"2026-01-0{4 - number}",
            "author": {"name": "Ana" if number % 2 else "Vex", **({"is_human": True} if number % 2 else {})},
            "candidates": [{"candidate_id": "0", "raw_content": "NEVER"}, {"candidate_id": "1", "raw_content": text}],
            "primary_candidate_id": "1",
        }
        for number, text in enumerate(reversed(TEXTS))
    ]
    found, report = read(write(tmp_path / "b.json", {"turns": turns}))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2}


def test_pippa(tmp_path: Path) -> None:
    lines = [{"message": text, "is_human": not number % 2} for number, text in enumerate(TEXTS)]
    lines[3]["message"] += " {{char}} waits for {{user}}'s cake, {{user}}."
    found, _ = read(write(tmp_path / "a.jsonl", {"bot_name": "Vex", "conversation": lines}))
    assert said(found)[-1][-1] == "Bring cake. Vex waits for your cake."
    assert said(found)[0] == CHAT[0]


def test_text_generation_webui(tmp_path: Path) -> None:
    internal = [["<|BEGIN-VISIBLE-CHAT|>", "Mind the springs."], TEXTS[:2], TEXTS[2:]]
    found, report = read(write(tmp_path / "a.json", {"internal": internal, "visible": internal, "metadata": {}}))
    assert said(found) == CHAT
    assert report.dropped == {"no user turn before": 1}


NODES = [
    ("1", None, "user", TEXTS[0]),
    ("2", "1", "assistant", "NEVER"),
    ("3", "1", "assistant", TEXTS[1]),
    ("4", "3", "user", TEXTS[2]),
    ("5", "4", "assistant", TEXTS[3]),
    ("6", "4", "assistant", "NEVER either"),
]


def open_webui(leaf: str | None = "5") -> dict[str, Any]:
    nodes = {
        name: {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": text, "timestamp": 9}
        for name, parent, role, text in NODES
    }
    nodes["5"]["timestamp"] = 10
    nodes["5"]["content"] = f'<details type="reasoning" done="true">\n<summary>Hm</summary>\nhm\n</details>\n{TEXTS[3]}'
    return {"id": "c", "title": "Clock", "chat": {"history": {"messages": nodes, "currentId": leaf}, "messages": []}}


@pytest.mark.parametrize("leaf", ["5", None, "gone"])
def test_open_webui(tmp_path: Path, leaf: str | None) -> None:
    found, report = read(write(tmp_path / "a.json", json.dumps([open_webui(leaf)])))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2}
    assert report.noise["thinking"] == 1
    assert said(read(write(tmp_path / "b.json", open_webui(leaf)["chat"]))[0]) == CHAT


def test_an_answer_that_was_rated_down(tmp_path: Path) -> None:
    row = open_webui()
    row["chat"]["history"]["messages"]["5"]["annotation"] = {"rating": -1}
    found, report = read(write(tmp_path / "a.json", [row]))
    assert said(found) == CHAT[:1]
    assert report.dropped == {"alternative branch": 2, "rated low": 1}


def librechat() -> list[dict[str, Any]]:
    return [
        {
            "messageId": name,
            "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
            "isCreatedByUser": role == "user",
            "sender": "User",
            "text": text,
        }
        for name, parent, role, text in NODES[:5]
    ]


def test_librechat(tmp_path: Path) -> None:
    def shown(messages: list[dict[str, Any]], **more: Any) -> tuple[list[list[str]], dict[str, int]]:
        found, report = read(write(tmp_path / "a.json", {"conversationId": "c", "messages": messages, **more}))
        return said(found), dict(report.dropped)

    assert shown(librechat()) == (CHAT, {"alternative branch": 1})
    parts = librechat()
    parts[4] |= {
        "text": "",
        "content": [{"type": "think", "think": "x"}, {"type": "text", "text": {"value": TEXTS[3]}}],
    }
    assert shown(parts) == (CHAT, {"alternative branch": 1})
    flat = [message for message in librechat() if message["text"] != "NEVER"]
    assert shown([*flat, {**flat[-1], "error": True, "text": "NEVER", "messageId": "9", "parentMessageId": "5"}]) == (
        CHAT,
        {"alternative branch": 1},
    )
    nested = librechat()
    nested[0]["children"] = [nested[1], nested[2]]
    nested[2]["children"], nested[3]["children"] = [nested[3]], [nested[4]]
    assert shown(nested[:1], recursive=True) == (CHAT, {"alternative branch": 1})


def version(role: str, text: str) -> dict[str, Any]:
    block = [{"type": "text", "text": text}]
    if role == "user":
        return {"type": "singleStep", "role": role, "content": block}
    thought = {"type": "contentBlock", "style": {"type": "thinking"}, "content": [{"type": "text", "text": "NEVER"}]}
    steps = [thought, {"type": "debugInfoBlock"}, {"type": "contentBlock", "content": block}]
    return {"type": "multiStep", "role": role, "steps": steps}


def lm_studio() -> dict[str, Any]:
    messages = [
        {"versions": [version(role, text)], "currentlySelected": 0} for name, _, role, text in NODES if name in "1345"
    ]
    messages[1] = {"versions": [version("assistant", "NEVER"), version("assistant", TEXTS[1])], "currentlySelected": 1}
    return {"name": "Clock", "systemPrompt": "You are Vex", "messages": messages}


def test_lm_studio(tmp_path: Path) -> None:
    found, report = read(write(tmp_path / "a.conversation.json", json.dumps(lm_studio(), indent=1)))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 1}
    assert report.noise["thinking"] == 2


def thread(texts: list[str], name: str = "t") -> list[dict[str, Any]]:
    return [
        {
            "object": "thread.message",
            "thread_id": name,
            "role": "assistant" if number % 2 else "user",
            "created_at": number,
            "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
        }
        for number, text in enumerate(texts)
    ]


def test_threads_of_jan_and_of_openai(tmp_path: Path) -> None:
    assert said(read(write(tmp_path / "a.jsonl", *thread(TEXTS)))[0]) == CHAT
    other = thread(["May I pay by card?", "Cake only.【4:0†source】"], "u")
    first, *rest = thread(TEXTS)
    found, report = read(write(tmp_path / "b.jsonl", first, other[0], rest[0], other[1], *rest[1:]))
    assert said(found) == [*CHAT, ["May I pay by card?", "Cake only."]]
    assert report.conversations == 2
    listed = {"object": "list", "data": thread(TEXTS)[::-1], "has_more": False}
    assert said(read(write(tmp_path / "c.json", json.dumps(listed, indent=2)))[0]) == CHAT


def llama(leaf: str | None, session: str = "") -> list[dict[str, Any]]:
    root = {"id": f"{session}0", "type": "root", "role": "system", "content": "", "parent": None}
    messages = [
        {"id": session + name, "type": "text", "role": role, "content": text, "parent": session + (parent or "0")}
        for name, parent, role, text in NODES[: 6 if leaf else 5]
    ]
    return [root, *messages]


@pytest.mark.parametrize("leaf", ["5", None])
def test_llama_cpp(tmp_path: Path, leaf: str | None) -> None:
    lines = [
        line
        for session in "ab"
        for line in (
            {"type": "session", "harness": "llama.app", "currNode": leaf and session + leaf},
            *({"type": "message", "message": {**each, "convId": session}} for each in llama(leaf, session)),
        )
    ]
    found, report = read(write(tmp_path / "a.jsonl", *lines[: len(lines) // 2]))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 2 if leaf else 1}
    older = {"conv": {"id": "c", "currNode": leaf}, "messages": llama(leaf)}
    assert said(read(write(tmp_path / "b.json", json.dumps(older, indent=1)))[0]) == CHAT
    found, report = read(write(tmp_path / "c.json", json.dumps([older, older])))
    assert said(found) == CHAT
    assert report.conversations == 2


def activity(title: str, page: str | None, **more: Any) -> dict[str, Any]:
    items = {} if page is None else {"safeHtmlItem": [{"html": page}]}
    return {"header": "Gemini Apps", "title": title, "time": "2026-01-01T00:00:00Z", **items, **more}


def test_gemini_of_takeout(tmp_path: Path) -> None:
    rows = [
        activity(
            "Prompted My clock stopped.", "<p>It <b>sulks</b>.</p><ul><li>wind it</li><li>hum &amp; wait</li></ul>"
        ),
        activity("Eingegebener Prompt: Und jetzt?", "<p>Kuchen.</p>"),
        activity("Used Gemini Apps", None),
        activity("Gave feedback: Good response", None),
        {**activity("Watched a film", None), "header": "YouTube"},
        activity("Sanoit jotain NEVER", "<p>NEVER</p>"),
    ]
    found, report = read(write(tmp_path / "MyActivity.json", json.dumps(rows, indent=1)))
    assert said(found) == [["My clock stopped.", "It **sulks**.\n\n- wind it\n- hum & wait"], ["Und jetzt?", "Kuchen."]]
    assert report.noise["activity without an answer"] == 2
    assert report.noise["activity in another product"] == 1
    assert report.dropped == {"title in an unknown language: export it in English": 1}


def test_html_as_text() -> None:
    page = "<h3>Title</h3><p>One<br>two</p><pre><code>a &lt; b</code></pre><p>x &lt; y</p>"
    assert as_text(page) == "### Title\n\nOne\ntwo\n\n```\na < b\n```\n\nx < y"
    assert as_text("<" * 50_000) == "<" * 50_000


def test_gemini_of_ai_studio(tmp_path: Path) -> None:
    chunks: list[dict[str, Any]] = [
        {"role": "user" if number % 2 == 0 else "model", "text": text} for number, text in enumerate(TEXTS)
    ]
    chunks.insert(1, {"role": "model", "text": "NEVER", "isThought": True})
    chunks[-1] = {"role": "model", "parts": [{"text": "NEVER", "thought": True}, {"text": "Bring "}, {"text": "cake."}]}
    row = {"runSettings": {}, "systemInstruction": {"parts": [{"text": "x"}]}, "chunkedPrompt": {"chunks": chunks}}
    found, report = read(write(tmp_path / "Clock", json.dumps(row, indent=1)))
    assert said(found) == CHAT
    assert report.noise["thinking"] == 2
    assert report.noise["system message"] == 1


def test_cursors_json(tmp_path: Path) -> None:
    bubbles = [{"type": "ai" if number % 2 else "user", "text": text} for number, text in enumerate(TEXTS)]
    found, report = read(write(tmp_path / "a.json", {"tabs": [{"bubbles": bubbles}, {"bubbles": bubbles}]}))
    assert said(found) == CHAT
    assert report.conversations == 2
    composer = [{"type": 1 + number % 2, "bubbleId": str(number), "text": text} for number, text in enumerate(TEXTS)]
    assert said(read(write(tmp_path / "b.json", {"composerId": "x", "conversation": composer}))[0]) == CHAT


def deepseek() -> dict[str, Any]:
    nodes: dict[str, Any] = {"root": {"parent": None, "message": None}}
    for name, parent, role, text in NODES[:5]:
        kind = "REQUEST" if role == "user" else "RESPONSE"
        fragments = [{"type": "THINK", "content": "NEVER"}] * (role == "assistant") + [{"type": kind, "content": text}]
        nodes[name] = {"parent": parent or "root", "message": {"fragments": fragments, "files": []}}
    return {"id": "c", "title": "Clock", "mapping": nodes}


def grok() -> dict[str, Any]:
    responses = [
        {
            "response": {
                "_id": name,
                "parent_response_id": parent,
                "sender": {"user": "human"}.get(role, "ASSISTANT"),
                "message": text,
            }
        }
        for name, parent, role, text in NODES[:5]
    ]
    return {"conversations": [{"conversation": {"id": "c"}, "responses": responses}], "projects": []}


@pytest.mark.parametrize("row", [[deepseek()], grok()])
def test_deepseek_and_grok(tmp_path: Path, row: Any) -> None:
    found, report = read(write(tmp_path / "conversations.json", json.dumps(row, indent=1)))
    assert said(found) == CHAT
    assert report.dropped == {"alternative branch": 1}


WHOLE: list[list[dict[str, Any]]] = [
    *([*TAVERN], [character_ai()], [open_webui()], [{"messages": librechat()}], [lm_studio()], thread(TEXTS)),
    [{"conv": {"currNode": "5"}, "messages": llama("5")}],
    [activity("Prompted a", "<p>b</p>")],
    [{"chunkedPrompt": {"chunks": [{"role": "user", "text": "a"}, {"role": "model", "text": "b"}]}}],
    *([deepseek()], [grok()]),
    [{"tabs": [{"bubbles": [{"type": "user", "text": "a"}]}]}],
]
JUNK = st.sampled_from(
    ["null", "true", "-1", "1" * 400, "NaN", '"a"', '"user"', '"5"', "[]", "{}", "[{}]", "[null]", '{"a": []}', "[[]]"]
).map(json.loads)


@FUZZ
@given(st.data())
def test_an_export_with_a_broken_value_is_an_error_or_a_result(tmp_path: Path, data: st.DataObject) -> None:
    """One value anywhere becomes something else, or a key is gone."""
    rows = json.loads(json.dumps(data.draw(st.sampled_from(WHOLE))))
    for _ in range(data.draw(st.integers(1, 3))):
        node: Any = rows
        while True:
            key = (
                data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node)))) if node else None
            )
            if key is None:
                break
            if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 4)) == 0:
                if isinstance(node, dict) and data.draw(st.booleans()):
                    del node[key]
                else:
                    node[key] = data.draw(JUNK)
                break
            node = node[key]
    try:
        read(write(tmp_path / "a.json", json.dumps(rows, indent=1)), voice=VEX)
    except BadInput as error:
        assert error.what
        assert error.fix


@FUZZ
@given(st.sampled_from(formats.FORMATS), st.dictionaries(st.text(max_size=3), JUNK, max_size=4))
def test_what_a_format_detects_is_an_error_or_a_result(tmp_path: Path, format: Any, junk: dict[str, Any]) -> None:
    """Keys that the formats know with values that they do not expect."""
    keys = ("messages", "history", "histories", "turns", "conversation", "tabs", "conv", "chat", "data", "mes", "title")
    record = dict(zip(keys, junk.values(), strict=False)) | junk
    assert format.detect(record) in (True, False)
    try:
        read(write(tmp_path / "a.json", json.dumps([record])), voice=VEX)
    except BadInput as error:
        assert error.fix


BLOCKS = [("b1", "main_text", TEXTS[0]), ("b2", "thinking", "NEVER"), ("b3", "main_text", TEXTS[1])]
CHERRY = {
    "version": 5,
    "indexedDB": {
        "topics": [
            {
                "id": "t",
                "messages": [
                    {"id": "m1", "role": "user", "blocks": ["b1"], "status": "success"},
                    {"id": "m2", "role": "assistant", "blocks": ["b2", "b3"], "status": "success"},
                    {"id": "m3", "role": "user", "blocks": ["b1"], "status": "success"},
                    {"id": "m4", "role": "assistant", "blocks": ["b2"], "status": "error"},
                ],
            }
        ],
        "message_blocks": [{"id": name, "type": kind, "content": text} for name, kind, text in BLOCKS],
    },
}


def test_cherry_studio_by_the_blocks_of_messages(tmp_path: Path) -> None:
    found, report = read(write(tmp_path / "data.json", CHERRY))
    assert said(found) == CHAT[:1]
    assert report.dropped == {"unfinished answer": 1}
    assert report.noise["thinking"] == 2


def test_of_several_responses_the_shown_one_is_learned(tmp_path: Path) -> None:
    responses = [{"messages": [{"role": "assistant", "content": text}]} for text in ("NEVER", TEXTS[1])]
    question = {"role": "user", "content": TEXTS[0]}
    chat = {"messages": [question, {"type": "tm_multi_responses", "responses": responses, "mainResponse": 1}]}
    found, report = read(write(tmp_path / "a.json", {"chats": [chat]}))
    assert said(found) == CHAT[:1]
    assert report.dropped == {"alternative branch": 1}


def test_an_answer_that_an_application_calls_unfinished_is_not_learned(tmp_path: Path) -> None:
    rows = [
        {"messageId": "1", "parentMessageId": None, "text": TEXTS[0], "isCreatedByUser": True},
        {"messageId": "2", "parentMessageId": "1", "text": "It su", "isCreatedByUser": False, "unfinished": True},
    ]
    found, report = read(write(tmp_path / "a.json", {"conversationId": "c", "messages": rows}))
    assert (found, report.dropped) == ([], {"unfinished answer": 1})
