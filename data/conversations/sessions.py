"""Files of events, one a line: sessions of coding agents, and logs of messages.

A file may hold several sessions, which their ids tell apart, in any order; and a session may be a tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from moltlm.data.conversations import tree
from moltlm.data.conversations.format import Format, ReadRecord
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.tree import Node
from moltlm.data.conversations.turns import (
    MACHINE,
    ROLES,
    UNKNOWN,
    Conversation,
    Fail,
    FileReport,
    Record,
    Turn,
    noise_kind,
    turn_of,
)

SIDE_EVENTS = ("isSidechain", "isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "isApiErrorMessage")
CONTINUED = ("isCompactSummary", "logicalParentUuid")
"""Marks of an event at which a session goes on although it has no parent."""

MOVES = ("branch_summary", "leaf")
"""Types of events without words at which a session goes on."""
ROLLED_BACK = "thread_rolled_back"
"""An event that takes back the last `num_turns` questions with their answers."""

COPIES = ("<synthetic>", "delivery-mirror", "gateway-injected")
"""What agents write as the `model` of a message that no model wrote."""

NAMES = ("role", "from", "sender", "author", "speaker", "name")
TEXTS = ("content", "text", "value", "message", "body", "parts", "contentChunks", "utterance")
SESSION_IDS = (
    *("session_id", "sessionId", "conversation_id", "conversationId", "convId", "conv_id", "thread_id", "threadId"),
    *("chat_id", "chatId", "dialog_id", "dialogue_id", "session", "thread", "conversation", "dialog", "topicId"),
)


def _detect(record: Record) -> bool:
    if isinstance(record.get("type"), str):
        return True
    has_text = any(isinstance(record.get(key), str | list | dict) for key in TEXTS)
    return has_text and any(isinstance(record.get(key), str) for key in NAMES)


def _read(event: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turn of one event: the message itself, or an object with it as `message` or `payload`."""
    kind = str(event.get("type", ""))
    if kind == "response_item" and isinstance(event.get("payload"), dict):
        event, kind = event["payload"], str(event["payload"].get("type", ""))
    inner = event.get("message", event.get("data") if ROLES.get(kind.lower()) else None)
    message = inner if isinstance(inner, dict) else {**event, "content": inner} if isinstance(inner, str) else event
    contents = [message[key] for key in TEXTS if message.get(key) is not None]
    content = next(filter(None, contents), contents[0] if contents else None)
    role, speaker = _who(message, kind)
    is_side_event = any(event.get(key) for key in SIDE_EVENTS) or message.get("model") in COPIES
    if (role is None and not speaker) or is_side_event or content is None:
        noise = noise_kind(kind)
        report.noise["meta event" if noise in (UNKNOWN, "attachment") or is_side_event else noise] += 1
        if event.get("isCompactSummary"):
            yield Turn(MACHINE, "")
        return
    if role == "assistant" and (message.get("phase") == "commentary" or message.get("channel") == "commentary"):
        report.noise["commentary of an agent"] += 1
        return
    mark = mark_of({**event, **message}, report.scales)
    for turn in turn_of(role or "", content, report, fail, message.get("tool_calls")):
        turn = turn if role else turn._replace(speaker=speaker)
        yield turn._replace(context_only=mark.context_only, unwanted=mark.unwanted or turn.unwanted)


def _who(message: Record, kind: str) -> tuple[str | None, str]:
    """The role of a message, or else the name of its speaker."""
    stated = message.get("role")
    if stated is not None or ROLES.get(kind.lower()):
        return ROLES.get(str(stated if stated is not None else kind).lower()), ""
    name = next((message[key] for key in NAMES if isinstance(message.get(key), str)), "")
    return ROLES.get(name.lower()), "" if kind else name


@dataclass
class _Session:
    """The events of one session so far. Only what was said in them is held."""

    nodes: list[Node] = field(default_factory=list)
    turns: list[list[Turn]] = field(default_factory=list)

    def roll_back(self, count: int, report: FileReport) -> None:
        """Take back the last `count` questions and whatever follows them."""
        for place in reversed(range(len(self.turns))):
            if count < 1:
                return
            count -= any(turn.role == "user" for turn in self.turns[place])
            for turn in self.turns[place]:
                report.drop_answer(turn, tree.BRANCH)
            self.turns[place] = []

    def walk(self, leaves: list[str], report: FileReport) -> Iterator[Turn]:
        """The turns on the shown path. Answers on other branches are counted."""
        names = {node.id for node in self.nodes}
        path = tree.shown_path(self.nodes, next((leaf for leaf in reversed(leaves) if leaf in names), ""))
        return chain.from_iterable(self.turns) if path is None else tree.shown_turns(self.turns, path, report)


def conversations(
    read: ReadRecord, records: Iterable[tuple[Record, Fail]], report: FileReport, source: str
) -> Iterator[Conversation]:
    """The conversations of a run of events.

    Events that name neither a session nor a parent are one conversation, which is streamed. Otherwise what was said is
    held until the end, since sessions may take turns, and only the end tells which branch was shown.

    Args:
        read: yields the turns of one event.
        records: each event, and what makes errors about it.
        source: the source of the exchanges.
    """
    sessions, session_of, leaves, decided = dict[str, _Session](), dict[str, str](), list[str](), False
    records = iter(records)
    for event, fail in records:
        turns = list(read(event, report, fail))
        if turns and not decided and not _links(event):
            report.conversations += 1
            rest = (read(event, report, fail) for event, fail in records)
            yield Conversation("the session", chain(turns, chain.from_iterable(rest)), source)
            return
        decided = decided or bool(turns) or event.get("type") == "session_meta"
        leaves += filter(None, [tree.leaf_of(event)])
        node = _node(event, bool(turns) or event.get("type") in MOVES)
        key = (session_of.get(node.parent) if node.parent else None) or _session_id(event)
        if node.id:
            session_of.setdefault(node.id, key)
        session = sessions.setdefault(key, _Session())
        session.roll_back(_rolled_back(event), report)
        session.nodes.append(node)
        session.turns.append(turns)
    for session in sessions.values():
        if any(session.turns):
            report.conversations += 1
            yield Conversation("the session", session.walk(leaves, report), source)


def _rolled_back(event: Record) -> int:
    """How many questions an event takes back."""
    part = next((part for part in _parts(event) if part.get("type") == ROLLED_BACK), {})
    count = part.get("num_turns")
    return count if isinstance(count, int) else 0


def _parts(event: Record) -> list[Record]:
    """The event, and what it wraps."""
    return [event, *(part for key in ("message", "payload", "metadata") if isinstance(part := event.get(key), dict))]


def _links(event: Record) -> bool:
    """Whether an event names its session or the event before it."""
    return bool(_session_id(event)) or any(key in part for part in _parts(event) for key in tree.PARENTS)


def _session_id(event: Record) -> str:
    values = (part.get(key) for part in _parts(event) for key in SESSION_IDS)
    return next((str(value) for value in values if isinstance(value, str | int) and value), "")


def _node(event: Record, is_turn: bool) -> Node:
    """The place of an event in its tree. A session that was summed up goes on from the event before."""
    part = next((part for part in _parts(event) if any(key in part for key in tree.PARENTS)), event)
    node = tree.node_of(part, is_turn)
    if node.parent == "" and any(event.get(key) for key in CONTINUED):
        logical = event.get("logicalParentUuid")
        return replace(node, parent=logical if isinstance(logical, str) else None)
    return node


SESSION = Format(
    "agent session",
    "sessions of agents and logs of messages (JSONL of events with a type, or a role and a content)",
    _detect,
    _read,
    whole_file=True,
)
