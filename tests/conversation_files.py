"""Files of conversations, and how they are read in tests."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.voices import Voice
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
    exchanges = list(importers.read(list(paths), config, report, voice))
    assert report.exchanges == len(exchanges)
    for file in report.files:
        assert file.turns == file.exchanges + file.rejected.total() + file.dropped.total()
    return exchanges, report


def said(exchanges: list[Exchange]) -> list[list[str]]:
    return [[*(message["content"] for message in item.prompt), item.answer] for item in exchanges]


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


def archive(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


CHAT = [["hi", "hello"], ["hi", "hello", "and tea?", "always tea"]]


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


def asked(*answers: dict[str, Any]) -> dict[str, Any]:
    """A conversation whose answers are these."""
    return {"messages": [each for i, answer in enumerate(answers) for each in (turn("user", f"question {i}"), answer)]}


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


def result_or_bad_input(path: Path) -> None:
    try:
        read(path)
    except BadInput as error:
        assert error.what
        assert error.fix
