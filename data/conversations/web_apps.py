"""The exports of DeepSeek and Grok, whose conversations are trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations import tree
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, noise_kind, turn_of


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_deepseek(record: Record) -> bool:
    messages = [_dict(_dict(node).get("message")) for node in list(_dict(record.get("mapping")).values())[:3]]
    return any("fragments" in message or isinstance(message.get("role"), str) for message in messages)


def _deepseek(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """A tree of nodes whose messages are made of fragments: requests, thoughts, responses."""
    nodes = [{**_dict(node), "id": name} for name, node in record["mapping"].items()]
    path = tree.shown_path([tree.node_of(node, bool(node.get("message"))) for node in nodes], tree.leaf_of(record))

    def read(node: Record, report: FileReport) -> Iterator[Turn]:
        message = _dict(node.get("message"))
        texts: dict[str, list[str]] = {}
        role = ROLES.get(str(message.get("role")).lower())
        if role and isinstance(message.get("content"), str):  # the older export
            texts[role] = [message["content"]]
            report.noise["thinking"] += bool(message.get("reasoning_content"))
        for fragment in map(_dict, _list(message.get("fragments"))):
            kind, text = str(fragment.get("type")), fragment.get("content")
            role = {"REQUEST": "user", "RESPONSE": "assistant"}.get(kind)
            if role and isinstance(text, str):
                texts.setdefault(role, []).append(text)
            else:
                report.noise[noise_kind(kind)] += 1
        report.noise["attachment"] += len(_list(message.get("files")))
        for role, parts in texts.items():
            yield from turn_of(role, "\n\n".join(parts), report, fail)

    return tree.walk(nodes, path, read, report)


def _is_grok(record: Record) -> bool:
    first = next(iter(_list(record.get("conversations"))), None)
    return isinstance(first, dict) and isinstance(first.get("responses"), list)


def _grok_conversations(record: Record) -> Iterator[Record]:
    for conversation in record["conversations"]:
        yield _dict(conversation)


def _grok(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    messages = [_dict(_dict(each).get("response")) for each in _list(record.get("responses"))]
    nodes = [
        tree.node_of({"id": message.get("_id"), "parent": message.get("parent_response_id")}) for message in messages
    ]
    leaf = tree.leaf_of(_dict(record.get("conversation")))

    def read(message: Record, report: FileReport) -> Iterator[Turn]:
        role = ROLES.get(str(message.get("sender")).lower())
        if role is None:
            raise fail(f"a response needs a sender (human, assistant); found {str(message.get('sender'))[:40]}.")
        report.noise["attachment"] += len(_list(message.get("file_attachments")))
        yield from turn_of(role, message.get("message"), report, fail)

    return tree.walk(messages, tree.shown_path(nodes, leaf), read, report)


FORMATS = (
    Format("DeepSeek export", "the conversations.json of DeepSeek (`fragments`)", _is_deepseek, _deepseek),
    Format("Grok export", "the export of Grok (`responses`)", _is_grok, _grok, split=_grok_conversations),
)
