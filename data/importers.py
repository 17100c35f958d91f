"""The user's own conversations, as JSONL with `messages`, into exchanges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import BadInput
from data.io import read_jsonl
from data.types import Exchange, Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Imported:
    """Exchanges, and how many turns were left out for which reason."""

    exchanges: list[Exchange]
    dropped: dict[str, int]


def conversations(path: Path) -> Imported:
    """Every assistant turn after a user turn, from a JSONL file or all `*.jsonl` in a folder, in name order.

    A line is `{"messages": [{"role", "content"}, ...]}`. Raises BadInput naming file and line for anything else.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise BadInput(f"No conversations in {path}.", "Put *.jsonl files with a `messages` list on each line there.")
    found: list[Exchange] = []
    dropped = {"empty": 0, "no user turn before": 0, "duplicate": 0}
    seen: set[tuple[str, str]] = set()
    for file in files:
        for number, row in enumerate(read_jsonl(file, "conversations"), start=1):
            for exchange in _turns(_messages(row, file, number), file.stem):
                key = (exchange.question if exchange.prompt else "", exchange.answer)
                if not exchange.answer.strip():
                    dropped["empty"] += 1
                elif not exchange.prompt or exchange.prompt[-1]["role"] != "user":
                    dropped["no user turn before"] += 1
                elif key in seen:
                    dropped["duplicate"] += 1
                else:
                    seen.add(key)
                    found.append(exchange)
    return Imported(found, dropped)


def _messages(row: dict[str, Any], file: Path, number: int) -> list[Message]:
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise BadInput(f"{file}, record {number}: no `messages` list.", f"Look at it: sed -n {number}p {file}")
    for turn in messages:
        good = isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
        if not good:
            raise BadInput(
                f"{file}, record {number}: a message needs a role ({', '.join(ROLES)}) and a text as content.",
                f"Look at it: sed -n {number}p {file}",
            )
    return [{"role": turn["role"], "content": turn["content"].strip()} for turn in messages]


def _turns(messages: list[Message], source: str) -> list[Exchange]:
    return [
        Exchange(messages[:index], turn["content"], source=source)
        for index, turn in enumerate(messages)
        if turn["role"] == "assistant"
    ]
