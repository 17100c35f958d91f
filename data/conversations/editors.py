"""Chats in editors and terminals: GitHub Copilot in VS Code, and Aider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format, TextFormat
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.turns import Conversation, Fail, FileReport, Record, Turn, noise_kind, turn_of, type_name

STARTED = re.compile(r"# aider chat started at \d")
ASKED = re.compile(r"#### ?(?P<text>.*)$")


def _is_copilot(record: Record) -> bool:
    requests = record.get("requests")
    first = requests[0] if isinstance(requests, list) and requests else None
    return isinstance(first, dict) and "message" in first and "response" in first


def _copilot(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Requests, each with the parts of its response. A canceled one, or one that was voted down, is not learned."""
    for request in record["requests"]:
        if not isinstance(request, dict):
            raise fail(f"one of `requests` is {type_name(request)}, not an object.")
        message = request.get("message")
        text = message.get("text") if isinstance(message, dict) else message
        yield from turn_of("user", text if isinstance(text, str) else "", report, fail)
        unwanted = "unfinished answer" if request.get("isCanceled") else ""
        unwanted = "rated low" if request.get("vote") == 0 else unwanted
        for turn in turn_of("assistant", _response(request.get("response"), report), report, fail):
            yield turn._replace(unwanted=unwanted if turn.text.strip() else "")


def _response(parts: Any, report: FileReport) -> str:
    """The text of a response, whose parts are pieces of Markdown and events of another `kind`."""
    texts = []
    for part in parts if isinstance(parts, list) else []:
        kind = part.get("kind") if isinstance(part, dict) else None
        text = part.get("value") if isinstance(part, dict) else part
        text = text.get("value") if isinstance(text, dict) else text
        if isinstance(text, str) and kind in (None, "markdownContent"):
            texts.append(text)
        else:
            report.noise[noise_kind(str(kind))] += 1
    return "".join(texts)


def _aider(source: Source, report: FileReport) -> Iterator[Conversation]:
    """The sessions of a history of Aider."""
    pending = list[tuple[int, str]]()
    for number, line in lines(source):
        if STARTED.match(line) and any(text.strip() for _, text in pending):
            yield _session(source, pending, report)
            pending = []
        pending.append((number, line))
    if pending:
        yield _session(source, pending, report)


def _session(source: Source, pending: list[tuple[int, str]], report: FileReport) -> Conversation:
    report.conversations += 1
    return Conversation("the session", _turns(source, pending, report), source.stem)


def _turns(source: Source, numbered: list[tuple[int, str]], report: FileReport) -> Iterator[Turn]:
    """Questions stand after `####`, what Aider itself says after `>`, and all else is the answer."""
    role, pending, size = "", list[str](), 0
    for number, line in numbered:
        question = ASKED.match(line)
        if question and role != "user":
            yield from _turn(role, pending)
            role, pending, size = "user", [], 0
        elif not question and role == "user" and line.strip():
            yield from _turn(role, pending)
            role, pending, size = "assistant", [], 0
        if line.startswith("> ") or STARTED.match(line):
            report.noise["notice of an agent"] += 1
            continue
        pending.append(question["text"] if question else line)
        size += len(line)
        if size > LIMIT:
            raise source.bad(f", line {number}: one turn is larger than {LIMIT >> 20} MiB.")
    yield from _turn(role, pending)


def _turn(role: str, pending: list[str]) -> Iterator[Turn]:
    text = "\n".join(line.rstrip() for line in pending).strip()
    if role and text and not (role == "user" and text.startswith("/")):
        yield Turn(role, text)


AIDER = TextFormat("Aider", "Aider's history of chats", lambda text: bool(STARTED.match(text)), _aider)
FORMATS = (Format("Copilot in VS Code", "GitHub Copilot's chats (`requests`)", _is_copilot, _copilot),)
