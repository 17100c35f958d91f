"""Backups of Cherry Studio: topics whose messages hold their texts as blocks, in a list of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, noise_kind, objects_of, turn_of

TEXT = "main_text"
BROKEN = ("error", "paused")


def _detect(record: Record) -> bool:
    database = record.get("indexedDB")
    return isinstance(database, dict) and isinstance(database.get("topics"), list) and "message_blocks" in database


def _topics(record: Record) -> Iterator[Record]:
    """Each topic, with the blocks of all."""
    database = record["indexedDB"]
    listed = database["message_blocks"] if isinstance(database["message_blocks"], list) else []
    blocks = {str(block.get("id")): block for block in listed if isinstance(block, dict)}
    for topic in database["topics"]:
        if isinstance(topic, dict):
            yield {"messages": topic.get("messages", []), "blocks": blocks}


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for message in objects_of(record["messages"], "messages", fail):
        role = ROLES.get(str(message.get("role")).lower())
        if role is None:
            raise fail(
                f"a message has the role {str(message.get('role'))[:40]}, and is neither a user's nor an assistant's."
            )
        unwanted = "unfinished answer" if message.get("status") in BROKEN and role == "assistant" else ""
        for turn in turn_of(role, _text(message, record["blocks"], report), report, fail):
            yield turn._replace(unwanted=unwanted or turn.unwanted)


def _text(message: Record, blocks: dict[str, Any], report: FileReport) -> str:
    """The texts of a message; its other blocks are counted."""
    if isinstance(message.get("content"), str):  # as in backups before version 4
        return message["content"]
    names = message.get("blocks")
    texts = []
    for block in (blocks.get(str(name)) for name in (names if isinstance(names, list) else [])):
        if block is None:
            report.noise["block that is missing"] += 1
        elif block.get("type") == TEXT and isinstance(block.get("content"), str):
            texts.append(block["content"])
        else:
            report.noise[noise_kind(str(block.get("type")))] += 1
    return "\n\n".join(texts)


CHERRY = Format("Cherry Studio", "backups of Cherry Studio (`indexedDB`)", _detect, _read, split=_topics)
