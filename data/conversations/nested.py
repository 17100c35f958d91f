"""Conversations inside other objects: backups of applications, requests to an API, lists of lists of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from moltlm.data.conversations.turns import ROLES, Record, content_of, inner_of, sender_of

DEPTH, NODES = 6, 20_000
"""Conversations are sought so deep, and in so many values."""


def conversations_in(value: Any, is_known: Callable[[Record], bool]) -> Iterator[Record]:
    """The conversations in a value of no known format: objects of a known one, and lists of messages, in order.

    Args:
        is_known: whether an object is a conversation of a format that has keys of its own.
    """
    pending, count = [(value, 0)], 0
    while pending and count < NODES:
        each, depth = pending.pop()
        count += 1
        if isinstance(each, list) and is_messages(each):
            yield {"messages": each}
        elif depth and isinstance(each, dict) and is_known(each):
            yield each
        elif depth < DEPTH and isinstance(each, dict | list):
            inner = each.values() if isinstance(each, dict) else each
            pending += reversed([(item, depth + 1) for item in inner if isinstance(item, dict | list)])


def is_messages(values: list[Any]) -> bool:
    """Whether the values are messages of both sides, or of a user and whoever else is named."""
    if len(values) < 2 or not all(isinstance(each, dict) for each in values):
        return False
    messages = [{**inner_of(each), **each} for each in values]
    names = [sender_of(each) for each in messages]
    roles = {ROLES.get((name or "").lower(), "") for name in names if name}
    return "user" in roles and len(roles) > 1 and all(names) and any(content_of(each) for each in messages)
