"""The conversations.json of ChatGPT: a tree of messages for each conversation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations import tree
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import THUMB_DOWN, UNFINISHED
from moltlm.data.conversations.turns import NOISE, ROLES, Fail, FileReport, Record, Turn, noise_kind, turn_of


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The path from the root to `current_node`. Answers on other branches were regenerated, and are dropped."""
    mapping = record["mapping"]
    if not all(isinstance(node, dict) for node in mapping.values()):
        raise fail("a node of `mapping` is not an object.")
    names, nodes = list(mapping), list(mapping.values())
    leaf = record.get("current_node")
    leaf = leaf if isinstance(leaf, str) and leaf in mapping else _latest_leaf(mapping)
    path, place = list[int](), dict(zip(names, range(len(names)), strict=True))
    on_path = set[str]()
    while isinstance(leaf, str) and leaf in mapping:
        if leaf in on_path:
            raise fail("the parents in `mapping` go round in a circle.")
        on_path.add(leaf)
        path.append(place[leaf])
        leaf = mapping[leaf].get("parent")

    def read(node: Record, report: FileReport) -> Iterator[Turn]:
        return _turns(node.get("message"), report, fail)

    parents = [place.get(str(node.get("parent"))) for node in nodes]
    return tree.walk(nodes, tree.Path(path[::-1], parents), read, report)


def _latest_leaf(nodes: dict[str, Record]) -> str | None:
    """The leaf with the latest time, for an export without `current_node`; of those without a time, the last."""
    parents = {parent for node in nodes.values() if isinstance(parent := node.get("parent"), str)}
    leaves = [
        (time if isinstance(time := node["message"].get("create_time"), int | float) else 0, place, name)
        for place, (name, node) in enumerate(nodes.items())
        if name not in parents and isinstance(node.get("message"), dict)
    ]
    return max(leaves)[2] if leaves else None


def _turns(message: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if message is None:
        return
    author, content = (message.get("author"), message.get("content")) if isinstance(message, dict) else (None, None)
    if not isinstance(author, dict) or not isinstance(content, dict | None):
        raise fail("a message in `mapping` has no author or no content.")
    role, metadata = ROLES.get(str(author.get("role")).lower(), "system"), message.get("metadata")
    content, metadata = content or {}, metadata if isinstance(metadata, dict) else {}
    kind, parts = str(content.get("content_type", "text")), content.get("parts")
    if role in NOISE:
        report.noise[NOISE[role]] += 1
    elif metadata.get("is_visually_hidden_from_conversation") or "editable_context" in kind:
        report.noise["hidden message"] += 1
    elif message.get("recipient") not in (None, "all"):
        report.noise["tool call"] += 1
    elif role == "assistant" and message.get("channel") in ("analysis", "commentary"):
        report.noise["thinking" if message["channel"] == "analysis" else "commentary of an agent"] += 1
    elif kind not in ("text", "multimodal_text"):
        report.noise["tool call" if kind == "code" else noise_kind(kind)] += 1
    else:
        unwanted = _unwanted(message, metadata, report) if role == "assistant" else ""
        for turn in turn_of(role, _blocks(parts), report, fail):
            yield turn._replace(unwanted=unwanted or turn.unwanted) if turn.text.strip() else turn


def _unwanted(message: Record, metadata: Record, report: FileReport) -> str:
    """Why an answer is not learned: it got a thumb down, was hidden from the model, broken off, or an error."""
    if message.get("id") in report.disliked:
        return THUMB_DOWN
    if message.get("weight") == 0:
        return "hidden answer"
    if metadata.get("is_error"):
        return "error instead of an answer"
    details = metadata.get("finish_details")
    ending = details.get("type") if isinstance(details, dict) else None
    broken = message.get("status") in UNFINISHED or ending in UNFINISHED
    return "unfinished answer" if broken else ""


def _blocks(parts: Any) -> list[Any]:
    """The parts as blocks. A part that was dictated has its words as `text`, but another type than "text"."""
    return [
        {"type": "text", "text": part["text"]} if isinstance(part, dict) and part.get("text") else part
        for part in (parts if isinstance(parts, list) else [parts])
        if part is not None
    ]


CHATGPT = Format(
    "ChatGPT export",
    "the conversations.json of ChatGPT (`mapping`)",
    lambda record: isinstance(record.get("mapping"), dict),
    _read,
)
