"""Chats of applications for local models and of OpenAI's Assistants: many of them trees of messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, noise_kind, turn_of

DETAILS = re.compile(r"<details\b[^>]{0,2000}\btype=\"(\w+)\"[^>]{0,2000}>.*?(?:</details>|\Z)\s*", re.DOTALL)
"""How Open WebUI keeps thinking and tool calls in the text of an answer."""

ReadMessage = Callable[[Record, FileReport, Fail], Iterator[Turn]]


def _records(value: Any, key: str, fail: Fail) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise fail(f"`{key}` is not a list of objects.")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _branch(
    nodes: dict[str, Record], leaf: Any, parent: str, read: ReadMessage, report: FileReport, fail: Fail
) -> Iterator[Turn]:
    """The turns from the root to the leaf, or to the last message written. Answers elsewhere are counted."""
    name = leaf if isinstance(leaf, str) and leaf in nodes else next(reversed(nodes), None)
    path: dict[str, Record] = {}
    while isinstance(name, str) and name in nodes:
        if name in path:
            raise fail("the parents of the messages go round in a circle.")
        path[name] = nodes[name]
        name = nodes[name].get(parent)
    aside = FileReport("")
    for name, node in nodes.items():
        if name not in path:
            for turn in read(node, aside, fail):
                report.drop_answer(turn, "alternative branch")
    for node in reversed(path.values()):
        yield from read(node, report, fail)


def _by_id(messages: Iterable[Record], key: str) -> dict[str, Record]:
    return {message[key]: message for message in messages if isinstance(message.get(key), str)}


def _is_rated_down(message: Record) -> bool:
    """Whether the user disliked an answer (Open WebUI's annotation, LibreChat's feedback)."""
    ratings = [_dict(message.get(key)).get("rating") for key in ("annotation", "feedback")]
    return any(str(rating).lower() in ("-1", "thumbsdown", "bad", "dislike") for rating in ratings)


# --- Open WebUI


def _chat(record: Record) -> Record:
    chat = record.get("chat")
    return chat if isinstance(chat, dict) else record


def _is_open_webui(record: Record) -> bool:
    history = _chat(record).get("history")
    return isinstance(history, dict) and isinstance(history.get("messages"), dict)


def _open_webui(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    history = _chat(record)["history"]
    nodes = {name: node for name, node in history["messages"].items() if isinstance(node, dict)}
    if len(nodes) < len(history["messages"]):
        raise fail("a message of `history` is not an object.")
    leaf = history.get("currentId")
    leaf = leaf if isinstance(leaf, str) and leaf in nodes else _newest(nodes, "timestamp")
    yield from _branch(nodes, leaf, "parentId", _open_webui_message, report, fail)


def _newest(nodes: dict[str, Record], key: str) -> str | None:
    times = {name: _number(node.get(key)) for name, node in nodes.items()}
    return max(times, key=times.__getitem__) if any(times.values()) else None


def _number(value: Any) -> float:
    """A time; 0 for what is none."""
    return value if isinstance(value, int | float) and value == value else 0


def _open_webui_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    role = _role(message, fail)
    report.noise["attachment"] += len(_list(message.get("files")))
    for turn in turn_of(role, message.get("content"), report, fail):
        kinds = Counter[str]()

        def removed(match: re.Match[str], kinds: Counter[str] = kinds) -> str:
            kinds[noise_kind(match[1])] += 1
            return ""

        text = DETAILS.sub(removed, turn.text) if "<details" in turn.text and role == "assistant" else turn.text
        report.noise += kinds
        unwanted = "rated down" if _is_rated_down(message) else ""
        yield turn._replace(text=text, noisy=turn.noisy or bool(kinds), unwanted=unwanted)


def _role(message: Record, fail: Fail) -> str:
    role = ROLES.get(str(message.get("role")).lower())
    if role is None:
        raise fail(f"a message needs a role ({', '.join(ROLES)}); found {str(message.get('role'))[:40]}.")
    return role


# --- LibreChat


def _is_librechat(record: Record) -> bool:
    messages = record.get("messages", record.get("messagesTree"))
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "isCreatedByUser" in first


def _librechat(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """A tree of messages: a list in which each names its parent, or messages with `children`. A list that was exported
    without its branches may name parents that are not in it: then it is read in its order."""
    messages = list(_nested(record.get("messages", record.get("messagesTree")), fail))
    nodes = _by_id(messages, "messageId")
    parents = sum(str(message.get("parentMessageId")) in nodes for message in messages)
    if len(nodes) < len(messages) or (parents < len(messages) - 1 and record.get("branches") is False):
        for message in messages:
            yield from _librechat_message(message, report, fail)
    else:
        yield from _branch(nodes, None, "parentMessageId", _librechat_message, report, fail)


def _nested(messages: Any, fail: Fail) -> Iterator[Record]:
    """Messages and those in their `children`, each before what follows it."""
    pending = list(reversed(_records(messages, "messages", fail)))
    while pending:
        message = pending.pop()
        yield message
        pending += reversed([each for each in _list(message.get("children")) if isinstance(each, dict)])


def _librechat_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if message.get("error") is True:
        report.noise["error message"] += 1
        return
    parts = [_part(part) for part in _list(message.get("content")) if isinstance(part, dict)]
    content = message.get("text") or parts or ""
    role = "user" if message.get("isCreatedByUser") else "assistant"
    report.noise["attachment"] += len(_list(message.get("files")))
    for turn in turn_of(role, content, report, fail):
        yield turn._replace(unwanted="rated down" if _is_rated_down(message) else "")


def _part(part: Record) -> Record:
    """A block of a content whose text may be an object with a `value`."""
    text = part.get("text")
    return {**part, "text": text.get("value")} if isinstance(text, dict) else part


# --- LM Studio


def _is_lm_studio(record: Record) -> bool:
    messages = record.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and isinstance(first.get("versions"), list)


def _lm_studio(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Of each message the version that is selected."""
    report.noise["system message"] += bool(record.get("systemPrompt"))
    aside = FileReport("")
    for message in _records(record["messages"], "messages", fail):
        versions, number = _records(message.get("versions"), "versions", fail), message.get("currentlySelected", 0)
        if not isinstance(number, int) or not versions:
            raise fail("a message has no `versions` or no `currentlySelected`.")
        selected = versions[number] if 0 <= number < len(versions) else versions[-1]
        for version in versions:
            for turn in _version(version, report if version is selected else aside, fail):
                if version is selected:
                    yield turn
                else:
                    report.drop_answer(turn, "alternative branch")


def _version(version: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    content: Any = version.get("content")
    if "steps" in version:
        content = []
        for step in _records(version["steps"], "steps", fail):
            is_thinking = _dict(step.get("style")).get("type") == "thinking"
            blocks = _list(step.get("content"))
            content += [{"type": "thinking"}] if is_thinking else blocks if step.get("type") == "contentBlock" else []
    yield from turn_of(_role(version, fail), content, report, fail)


# --- Jan, and threads of OpenAI's Assistants


def _is_thread(record: Record) -> bool:
    return record.get("object") in ("thread.message", "thread") or _is_thread_list(record)


def _is_thread_list(record: Record) -> bool:
    data = record.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and first.get("object") == "thread.message"


def _threads(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """Messages by thread, oldest first: OpenAI lists the newest first."""
    threads: dict[str, tuple[str, list[Any]]] = {}
    for place, record in records:
        is_list = isinstance(record, dict) and _is_thread_list(record)
        for message in record["data"] if is_list else [record]:
            thread = str(message.get("thread_id", "")) if isinstance(message, dict) else ""
            threads.setdefault(thread, (place, []))[1].append(message)
    for place, messages in threads.values():
        times = [_time(message) for message in messages]
        ordered = messages[::-1] if times[0] > times[-1] else messages
        yield place, {"thread": sorted(ordered, key=_time)}


def _time(message: Any) -> float:
    return _number(message.get("created_at")) if isinstance(message, dict) else 0


def _thread(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for message in _records(record["thread"], "messages", fail):
        if message.get("object") != "thread.message":
            report.noise["meta event"] += 1
            continue
        parts: Any = message.get("content")
        if isinstance(parts, list):
            parts = [_part(part) if isinstance(part, dict) else part for part in parts]
        report.noise["attachment"] += len(_list(message.get("attachments")))
        yield from turn_of(_role(message, fail), parts, report, fail)


# --- llama.app, and the web interface of llama.cpp


def _is_llama(record: Record) -> bool:
    return "currNode" in record or "currNode" in _dict(record.get("conv"))


def _llama_sessions(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """A line for a session, then one for each of its messages; or objects with `conv` and `messages`."""
    session: tuple[str, Record] | None = None
    for place, record in records:
        record = record if isinstance(record, dict) else {"unread": record}
        if _is_llama(record):
            if session:
                yield session
            conv = _dict(record.get("conv")) or record
            session = place, {"leaf": conv.get("currNode"), "messages": list(_list(record.get("messages")))}
        elif session:
            session[1]["messages"].append(record.get("message", record))
    if session:
        yield session


def _llama(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    messages = _records(record["messages"], "messages", fail)
    nodes = {str(message["id"]): message for message in messages if isinstance(message.get("id"), str | int)}
    report.noise["meta event"] += len(messages) - len(nodes)
    linked = {name: {**node, "parent": _name(node.get("parent"))} for name, node in nodes.items()}
    yield from _branch(linked, _name(record["leaf"]), "parent", _llama_message, report, fail)


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _llama_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if message.get("type") == "root":
        return
    report.noise["thinking"] += bool(message.get("reasoningContent") or message.get("thinking"))
    report.noise["attachment"] += len(_list(message.get("extra")))
    calls = message.get("toolCalls")
    yield from turn_of(_role(message, fail), message.get("content"), report, fail, calls=calls)


FORMATS = (
    Format("Open WebUI", "Open WebUI exports (`history`)", _is_open_webui, _open_webui),
    Format("LibreChat", "LibreChat exports (`parentMessageId`)", _is_librechat, _librechat),
    Format("LM Studio", "LM Studio conversations (`versions`)", _is_lm_studio, _lm_studio),
    Format("threads", "Jan and OpenAI Assistants threads (`thread.message`)", _is_thread, _thread, gather=_threads),
    Format("llama.cpp", "llama.app and llama.cpp (`currNode`)", _is_llama, _llama, gather=_llama_sessions),
)
