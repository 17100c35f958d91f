"""Conversations that are trees: each message names the one before it, and a retry or an edit is another branch.

What is learned is the path that was shown: to the leaf that the export names, else to the last message written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moltlm.data.conversations.turns import FileReport, Record, Turn

IDS = ("uuid", "messageId", "message_id", "id", "_id")
PARENTS = (
    *("parentUuid", "parent_message_uuid", "parentMessageUuid", "parentMessageId", "parent_message_id", "parentId"),
    *("parent_id", "parentID", "parent"),
)
LEAVES = (
    *("currNode", "current_leaf_message_uuid", "currentLeafMessageUuid", "current_node", "currentNode", "currentId"),
    *("current_id", "current_message_id", "currentMessageId", "leafId", "headMessageId", "leaf_response_id"),
)
BRANCH = "alternative branch"


@dataclass(frozen=True)
class Node:
    """A message in a tree.

    Args:
        id: its name, or "".
        parent: the name of the message before it; "" for the first; None where the message says nothing about it.
        is_turn: whether somebody speaks. The last message written is sought among those.
    """

    id: str
    parent: str | None
    is_turn: bool = True


def node_of(message: Mapping[str, Any], is_turn: bool = True) -> Node:
    """The node of a message, by the usual names of its fields."""
    key = next((key for key in PARENTS if key in message), None)
    parent = None if key is None else _name(message[key])
    ancestors = message.get("ancestors")
    if key is None and isinstance(ancestors, list):  # from the first message to the one before
        parent = _name(ancestors[-1]) if ancestors else ""
    return Node(next((name for key in IDS if (name := _name(message.get(key)))), ""), parent, is_turn)


def leaf_of(record: Mapping[str, Any]) -> str:
    """The leaf that a record names as shown, or ""."""
    return next((name for key in LEAVES if (name := _name(record.get(key)))), "")


def _name(value: Any) -> str:
    """A name of a message as a text; "" for none, and for the placeholder of zeros that stands for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and not value.startswith("00000000-0000-") else ""


def shown_path(nodes: Sequence[Node], leaf: str = "") -> list[int] | None:
    """Places of the messages on the shown path, first to last.

    A parent that is not among the messages is taken for the message written before: the file holds only a part.

    Args:
        leaf: the last message shown. If it is "" or not there, the last one written.

    Returns:
        None if the messages are no tree: none names a parent, or most share their names.
    """
    places: dict[str, int] = {}
    for place, node in enumerate(nodes):
        if node.id:
            places.setdefault(node.id, place)
    named = sum(bool(node.id) for node in nodes)
    if not any(node.parent for node in nodes) or 2 * len(places) <= named:
        return None
    parents = _parents(nodes, places)
    start = places.get(leaf)
    if start is None:
        start = max((place for place, node in enumerate(nodes) if node.is_turn), default=len(nodes) - 1)
    path, visited = list[int](), set[int]()
    at: int | None = start
    while at is not None and at not in visited:
        visited.add(at)
        path.append(at)
        at = parents[at]
    return path[::-1]


def _parents(nodes: Sequence[Node], places: dict[str, int]) -> list[int | None]:
    parents: list[int | None] = []
    outside: dict[str, int | None] = {}
    before: int | None = None
    for place, node in enumerate(nodes):
        if node.parent is None:
            parents.append(before)
        elif not node.parent:
            parents.append(None)
        elif node.parent in places:
            parents.append(places[node.parent])
        else:
            parents.append(outside.setdefault(node.parent, before))
        before = place if node.is_turn else before
    return parents


def walk(
    messages: Sequence[Record],
    path: Iterable[int] | None,
    read: Callable[[Record, FileReport], Iterable[Turn]],
    report: FileReport,
) -> Iterator[Turn]:
    """The turns of the messages on a path; all messages without one. Answers on other branches are counted."""
    order = range(len(messages)) if path is None else list(path)
    on_path, aside = set(order), FileReport("")
    for place, message in enumerate(messages):
        if place not in on_path:
            for turn in read(message, aside):
                report.drop_answer(turn, BRANCH)
    for place in order:
        yield from read(messages[place], report)
