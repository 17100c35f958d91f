"""Conversations that are trees: each message names the one before it, and a retry or an edit is another branch.

What is learned is the path that was shown: to the leaf that the export names, else to the last message written. An
answer on another branch that somebody judged to be bad is the rejected side of the one that is shown in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moltlm.data.conversations.marks import is_judgement
from moltlm.data.conversations.turns import FileReport, Record, Turn

IDS = ("uuid", "messageId", "message_id", "id", "_id")
PARENTS = (
    *("parentUuid", "parent_message_uuid", "parentMessageUuid", "parentMessageId", "parent_message_id", "parentId"),
    *("parent_id", "parentID", "parent"),
)
CHILDREN = ("childrenIds", "children_ids", "childIds", "child_ids", "children")
"""Fields with the names of the messages after one, where those do not name the one before."""
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


@dataclass(frozen=True)
class Path:
    """The part of a tree that was shown.

    Args:
        places: of the messages on it, first to last.
        parents: for each message of the tree the place of the one before it; None for the first.
    """

    places: list[int]
    parents: list[int | None]


def node_of(message: Mapping[str, Any], is_turn: bool = True) -> Node:
    """The node of a message, by the usual names of its fields."""
    key = next((key for key in PARENTS if key in message), None)
    parent = None if key is None else _name(message[key])
    ancestors = message.get("ancestors")
    if key is None and isinstance(ancestors, list):  # from the first message to the one before
        parent = _name(ancestors[-1]) if ancestors else ""
    return Node(next((name for key in IDS if (name := _name(message.get(key)))), ""), parent, is_turn)


def with_parents(messages: Sequence[Record]) -> Sequence[Record]:
    """The messages, each with its parent where only their children are named."""
    if any(key in message for message in messages for key in PARENTS):
        return messages
    parents: dict[str, str] = {}
    for message in messages:
        children = next((message[key] for key in CHILDREN if isinstance(message.get(key), list)), [])
        parents |= {name: node_of(message).id for child in children if (name := _name(child))}
    if not parents:
        return messages
    return [{**message, "parentId": parents.get(node_of(message).id)} for message in messages]


def leaf_of(record: Mapping[str, Any]) -> str:
    """The leaf that a record names as shown, or ""."""
    return next((name for key in LEAVES if (name := _name(record.get(key)))), "")


def _name(value: Any) -> str:
    """A name of a message as a text; "" for none, and for the placeholder of zeros that stands for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and not value.startswith("00000000-0000-") else ""


def shown_path(nodes: Sequence[Node], leaf: str = "") -> Path | None:
    """The path that was shown.

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
    return Path(list(_up(start, parents))[::-1], parents)


def _up(start: int | None, parents: Sequence[int | None]) -> Iterator[int]:
    """The message and those before it, last to first. A circle ends where it closes."""
    visited = set[int]()
    while start is not None and start not in visited:
        visited.add(start)
        yield start
        start = parents[start]


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
    path: Path | None,
    read: Callable[[Record, FileReport], Iterable[Turn]],
    report: FileReport,
) -> Iterator[Turn]:
    """The turns of the messages on a path; all messages without one. Answers on other branches are counted."""
    if path is None:
        for message in messages:
            yield from read(message, report)
        return
    on_path, aside = set(path.places), FileReport("", disliked=report.disliked, scales=report.scales)
    turns = [list(read(each, report if place in on_path else aside)) for place, each in enumerate(messages)]
    yield from shown_turns(turns, path, report)


def shown_turns(turns: Sequence[Sequence[Turn]], path: Path, report: FileReport) -> Iterator[Turn]:
    """The turns on a path. Answers on other branches are counted, or become the rejected side of an answer.

    Args:
        turns: of each message of the tree.
    """
    on_path = set(path.places)
    disliked = _disliked(turns, path, on_path)
    visible = [(place, turn) for place in path.places for turn in turns[place]]
    rejected, question = dict[int, tuple[int, str]](), -1
    for number, (place, turn) in enumerate(visible):
        if turn.role == "user":
            question = place
        elif turn.text.strip():
            if question in disliked and _is_learned(turn):
                rejected[number] = disliked[question]
            question = -1
    used = {place for place, _ in rejected.values()}
    for place, of_message in enumerate(turns):
        for turn in of_message if place not in on_path and place not in used else ():
            report.drop_answer(turn, BRANCH)
    for number, (_, turn) in enumerate(visible):
        yield turn._replace(rejected=rejected[number][1]) if number in rejected else turn


def _is_learned(turn: Turn) -> bool:
    return turn.role == "assistant" and not turn.context_only and not turn.unwanted


def _disliked(turns: Sequence[Sequence[Turn]], path: Path, on_path: set[int]) -> dict[int, tuple[int, str]]:
    """By the place of a question on the path: an answer to it on another branch that was judged to be bad, as the place
    of its message and its text."""
    answers: dict[int, tuple[int, str]] = {}
    for place, of_message in enumerate(turns):
        texts = [turn for turn in of_message if turn.text.strip()] if place not in on_path else []
        if len(texts) != 1 or not is_judgement(texts[0].unwanted):
            continue
        before = (at for at in _up(path.parents[place], path.parents) if any(turn.text.strip() for turn in turns[at]))
        question = next(before, -1)
        if question in on_path and turns[question][-1].role == "user":
            answers[question] = place, texts[0].text.strip()
    return answers
