"""Sessions of coding agents: JSONL with one event a line."""

from __future__ import annotations

from collections.abc import Iterator

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, noise_kind, turn_of

SIDE_EVENTS = ("isSidechain", "isMeta", "isCompactSummary", "isApiErrorMessage")


def _detect(record: Record) -> bool:
    return isinstance(record.get("type"), str) or (isinstance(record.get("role"), str) and "content" in record)


def _read(event: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turn of one event: the message itself, or an object with it as `message` or `payload`."""
    kind = str(event.get("type", ""))
    if kind == "response_item" and isinstance(event.get("payload"), dict):
        event, kind = event["payload"], str(event["payload"].get("type", ""))
    inner = event.get("message")
    message = inner if isinstance(inner, dict) else {**event, "content": inner} if isinstance(inner, str) else event
    role = ROLES.get(str(message.get("role", kind)).lower())
    content = message.get("content", message.get("text"))
    is_side_event = any(event.get(key) for key in SIDE_EVENTS)
    if role is None or is_side_event or content is None or message.get("model") == "<synthetic>":
        noise = noise_kind(kind)
        report.noise["meta event" if noise == "attachment" or is_side_event else noise] += 1
        return
    report.conversations = 1  # a file of events without any message is no conversation
    yield from turn_of(role, content, report, fail, message.get("tool_calls"), clean=role == "user")


SESSION = Format("agent session", "agent sessions (JSONL of events)", _detect, _read, whole_file=True)
