"""The conversations.json of Claude."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations import tree
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, turns_of

PASTED = re.compile(r"|paste.*|untitled.*", re.IGNORECASE)
"""Names of attachments that are no files: text that was pasted into the question."""


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Turns of `chat_messages`, along the shown path where they name their parents."""
    messages = record["chat_messages"]
    if not all(isinstance(message, dict) for message in messages):
        raise fail("one of `chat_messages` is not an object.")
    path = tree.shown_path([tree.node_of(message) for message in messages], tree.leaf_of(record))

    def read(message: Record, report: FileReport) -> Iterator[Turn]:
        return turns_of([{**message, "content": _blocks(message)}], report, fail)

    if path is None:
        path = _last_tries(messages)
    return tree.walk(messages, path, read, report)


def _last_tries(messages: list[Record]) -> tree.Path:
    """Without parents, as older exports are: of several answers in a row, each was tried again but the last."""
    senders = [message.get("sender") for message in messages]
    following = [*senders[1:], None]
    places = [n for n, sender in enumerate(senders) if sender != "assistant" or following[n] != sender]
    return tree.Path(places, [n - 1 if n else None for n in range(len(messages))])


def _blocks(message: Record) -> list[Any]:
    """The text blocks, or `text` in older exports; pasted text; and a block for each other attachment."""
    lists = {
        key: value if isinstance(value := message.get(key), list) else [] for key in ("content", "attachments", "files")
    }
    blocks = lists["content"]
    if not any(isinstance(block, dict) and block.get("type") in ("text", "voice_note") for block in blocks):
        blocks = [message.get("text") or "", *blocks]
    has_text = any(isinstance(block, str | dict) and _text(block).strip() for block in blocks)
    attachments = [_attachment(item, has_text) for item in lists["attachments"]]
    return [*blocks, *attachments, *({"type": "file"} for _ in lists["files"])]


def _text(block: str | Record) -> str:
    text = block if isinstance(block, str) else block.get("text")
    return text if isinstance(text, str) else ""


def _attachment(item: Any, has_text: bool) -> Record:
    """Pasted text is what the user says; an attached file is, if the message says nothing else."""
    content = item.get("extracted_content") if isinstance(item, dict) else None
    if isinstance(content, str) and (not has_text or PASTED.fullmatch(str(item.get("file_name") or ""))):
        return {"type": "text", "text": content}
    return {"type": "file"}


CLAUDE = Format(
    "Claude export",
    "the conversations.json of Claude (`chat_messages`)",
    lambda record: isinstance(record.get("chat_messages"), list),
    _read,
)
