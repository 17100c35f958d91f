"""The conversations.json of Claude."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, turns_of


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Turns of `chat_messages`: their text blocks, or `text` in older exports. Where messages name their parents, the
    path to the last message; answers off that path are dropped."""
    messages = record["chat_messages"]
    if not all(isinstance(message, dict) for message in messages):
        raise fail("one of `chat_messages` is not an object.")
    links = [(message.get("uuid"), message.get("parent_message_uuid")) for message in messages]
    is_tree = all(isinstance(name, str) and isinstance(parent, str) for name, parent in links)
    path = _ancestors(dict(links), links[-1][0]) if is_tree and links else None
    branches = FileReport("")
    for message in messages:
        on_path = path is None or message["uuid"] in path
        plain = {"sender": message.get("sender"), "content": _blocks(message)}
        for turn in turns_of([plain], report if on_path else branches, fail):
            if on_path:
                yield turn
            else:
                report.drop_answer(turn, "alternative branch")


def _ancestors(parents: dict[str, str], name: str) -> set[str]:
    """The message and all above it."""
    path: set[str] = set()
    while name in parents and name not in path:
        path.add(name)
        name = parents[name]
    return path


def _blocks(message: Record) -> list[Any]:
    lists = {
        key: value if isinstance(value := message.get(key), list) else [] for key in ("content", "attachments", "files")
    }
    blocks = lists["content"]
    if not any(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        blocks = [message.get("text") or "", *blocks]
    return [*blocks, *({"type": "attachment"} for _ in lists["attachments"] + lists["files"])]


CLAUDE = Format(
    "Claude export",
    "the conversations.json of Claude (`chat_messages`)",
    lambda record: isinstance(record.get("chat_messages"), list),
    _read,
)
