"""Chats of other applications for characters: RisuAI, Agnai and KoboldAI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.characters import line, unseen
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, objects_of, turn_of


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _is_risu(record: Record) -> bool:
    return record.get("type") in ("risuChat", "risuAllChats") and isinstance(record.get("data"), dict | list)


def _risu_parts(record: Record) -> Iterator[Record]:
    chats = record["data"] if isinstance(record["data"], list) else [record["data"]]
    for chat in chats:
        yield _dict(chat)


def _risu(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for message in objects_of(record.get("message"), "message", fail):
        role = {"user": True, "char": False}.get(str(message.get("role")))
        if message.get("disabled"):
            report.noise["hidden message"] += 1
            yield from unseen(bool(role))
            continue
        if role is None:
            raise fail(f"a message needs a role (user, char); found {str(message.get('role'))[:40]}.")
        yield from line(role, None, message.get("data"), report, fail)


def _is_agnai(record: Record) -> bool:
    messages = record.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "msg" in first and ("characterId" in first or "userId" in first)


def _agnai(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Messages of users, who have a `userId`, and of characters. Other `retries` are alternative answers."""
    for message in objects_of(record["messages"], "messages", fail):
        is_user = bool(message.get("userId"))
        retries = message.get("retries")
        for retry in retries if isinstance(retries, list) and not is_user else ():
            if isinstance(retry, str) and retry.strip() and retry != message.get("msg"):
                report.drop("alternative branch")
        if message.get("ooc"):
            report.noise["note out of character"] += 1
            yield from unseen(is_user)
        else:
            yield from line(is_user, message.get("handle"), message.get("msg"), report, fail)


def _is_kobold(record: Record) -> bool:
    return isinstance(record.get("actions"), list) and "gamestarted" in record


TAG = re.compile(r"\{\{\[(INPUT|OUTPUT|SYSTEM)(?:_END)?\]\}\}")
"""How KoboldAI Lite marks the sides in its instruct mode."""
SIDES = {"INPUT": "user", "OUTPUT": "assistant", "SYSTEM": "system"}


def _instructions(story: str, report: FileReport, fail: Fail) -> Iterator[Turn]:
    before, *parts = TAG.split(story)
    report.noise["text before the first turn"] += bool(before.strip())
    for side, text in zip(parts[::2], parts[1::2], strict=True):
        if text.strip():
            yield from turn_of(SIDES[side], text.strip(), report, fail)


def _kobold(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """A story of KoboldAI in its chat mode: turns begin with the names of the two sides."""
    story = "".join(part for part in (record.get("prompt"), *record["actions"]) if isinstance(part, str))
    if TAG.search(story):
        yield from _instructions(story, report, fail)
        return
    settings = _dict(record.get("savedsettings"))
    persona, user = (str(settings.get(key) or "").strip() for key in ("chatopponent", "chatname"))
    names = [name for name in persona.split("||$||") if name]
    if str(settings.get("opmode")) != "3" or not names:
        error = fail("This is a story of KoboldAI, in which nobody is told from the narrator.")
        error.fix = "Save a chat in chat mode, or write it as text: a line `Name: what is said` for each turn."
        raise error
    speakers = {**dict.fromkeys(names, False), user or "You": True, "You": True}
    name, pending = "", list[str]()
    for text in [*story.split("\n"), None]:
        head, colon, rest = (text or "").partition(":")
        begins = bool(colon) and head.strip() in speakers
        if (begins or text is None) and name:
            yield from line(speakers[name], name, "\n".join(pending).strip(), report, fail)
        if begins:
            name, pending = head.strip(), [rest.strip()]
        elif name:
            pending.append(text or "")
        elif text and text.strip():
            report.noise["text before the first turn"] += 1


FORMATS = (
    Format("RisuAI", "RisuAI chats (`risuChat`)", _is_risu, _risu, split=_risu_parts),
    Format("Agnai", "Agnai chats (`msg`, `handle`)", _is_agnai, _agnai),
    Format("KoboldAI", "KoboldAI's saved chats (`actions`)", _is_kobold, _kobold),
)
