"""Chats of applications for local models and of OpenAI's Assistants: many of them trees of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moltlm.data.conversations import tree
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, turn_of

ReadMessage = Callable[[Record, FileReport, Fail], Iterator[Turn]]


def _records(value: Any, key: str, fail: Fail) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise fail(f"`{key}` is not a list of objects.")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _shown_turns(
    messages: list[Record], leaf: str, read: ReadMessage, report: FileReport, fail: Fail
) -> Iterator[Turn]:
    """The turns from the root to the leaf, or to the last message written. Answers elsewhere are counted."""
    path = tree.shown_path([tree.node_of(message, _speaks(message)) for message in messages], leaf)
    return tree.walk(messages, path, lambda message, report: read(message, report, fail), report)


def _speaks(message: Record) -> bool:
    return not message.get("error") and message.get("type") != "root"


# --- Open WebUI


def _chat(record: Record) -> Record:
    chat = record.get("chat")
    return chat if isinstance(chat, dict) else record


def _is_open_webui(record: Record) -> bool:
    history = _chat(record).get("history")
    return isinstance(history, dict) and isinstance(history.get("messages"), dict)


def _open_webui(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    history = _chat(record)["history"]
    messages = _records(list(history["messages"].values()), "messages", fail)
    messages = [{**message, "id": name} for name, message in zip(history["messages"], messages, strict=True)]
    leaf = tree.leaf_of(history)
    if leaf not in history["messages"]:
        leaf = max(reversed(messages), key=lambda message: _number(message.get("timestamp")))["id"] if messages else ""
    yield from _shown_turns(messages, leaf, _open_webui_message, report, fail)


def _number(value: Any) -> float:
    """A time; 0 for what is none."""
    return value if isinstance(value, int | float) and value == value else 0


def _open_webui_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    role = _role(message, fail)
    report.noise["attachment"] += len(_list(message.get("files")))
    for turn in turn_of(role, message.get("content"), report, fail):
        yield turn._replace(unwanted=mark_of(message, report.scales).unwanted or turn.unwanted)


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
    """A tree of messages: a list in which each names its parent, or messages with `children`."""
    messages = list(_nested(record.get("messages", record.get("messagesTree")), fail))
    yield from _shown_turns(messages, tree.leaf_of(record), _librechat_message, report, fail)


def _nested(messages: Any, fail: Fail) -> Iterator[Record]:
    """Messages and those in their `children`, each before what follows it."""
    pending = list(reversed(_records(messages, "messages", fail)))
    while pending:
        message = pending.pop()
        yield message
        pending += reversed([each for each in _list(message.get("children")) if isinstance(each, dict)])


def _librechat_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    content = message.get("text") or message.get("content") or ""
    role = "user" if message.get("isCreatedByUser") else "assistant"
    report.noise["attachment"] += len(_list(message.get("files")))
    for turn in turn_of(role, content, report, fail):
        yield turn._replace(unwanted=mark_of(message, report.scales).unwanted or turn.unwanted)


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
        report.noise["attachment"] += len(_list(message.get("attachments")))
        unwanted = mark_of(message, report.scales).unwanted
        for turn in turn_of(_role(message, fail), message.get("content"), report, fail):
            yield turn._replace(unwanted=unwanted if turn.role == "assistant" else "")


# --- the web interface of llama.cpp; sessions of llama.app are sessions of agents


def _is_llama(record: Record) -> bool:
    return "currNode" in _dict(record.get("conv")) and "messages" in record


def _llama(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    messages = _records(record["messages"], "messages", fail)
    yield from _shown_turns(messages, tree.leaf_of(record["conv"]), _llama_message, report, fail)


def _llama_message(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if message.get("type") == "root" or "role" not in message:
        report.noise["meta event"] += message.get("type") != "root"
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
    Format("llama.cpp", "llama.cpp's web interface (`currNode`)", _is_llama, _llama),
)
