"""The JSON shapes in which conversations are exported, each into turns. A format is told by its keys, not its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from moltlm.data.conversations.sources import Source
from moltlm.data.errors import BadInput

Record = dict[str, Any]
Fail = Callable[[str], BadInput]

MESSAGES, PROMPTS, SHAREGPT = "messages", "prompts", "ShareGPT"
CHATGPT, CLAUDE, SESSION, TRANSCRIPT = "ChatGPT export", "Claude export", "agent session", "transcript"
SUPPORTED = (
    "JSONL with `messages` (role, content) or with `prompt` and `answer`; ShareGPT (`conversations` of from, value); "
    "the conversations.json of ChatGPT (`mapping`) or Claude (`chat_messages`); agent sessions (JSONL of events); "
    "Markdown or text with a speaker before each turn (**User:**, ## Assistant, Human:); a folder or zip of these"
)

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "ai", "model", "bot", "chatgpt", "claude", "bing", "bard"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "toolresult", "ipython", "observation", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
NOISE = {"system": "system message", "tool": "tool result", "call": "tool call"}
ANSWERS = ("answer", "response", "completion")
TEXT_BLOCKS = ("text", "input_text", "output_text")
THINK = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
HARNESS = re.compile(
    r"<(system-reminder|environment_context|user_instructions|command-name|command-message|command-args|bash-input"
    r"|bash-stdout|bash-stderr|local-command-stdout|local-command-stderr|local-command-caveat|INSTRUCTIONS)>.*?</\1>"
    r"|\[Request interrupted by user[^\]]*\]",
    re.DOTALL,
)
CITATION = re.compile("\ue200[^\ue201]*\ue201|【\\d+[^】]{0,80}†[^】]{0,80}】|[\ue200-\ue206]")


class Turn(NamedTuple):
    """What one side says. `noisy`: something was taken out of it. `context_only`: it is never learned as an answer."""

    role: str
    text: str
    noisy: bool = False
    context_only: bool = False


@dataclass(frozen=True)
class Conversation:
    place: str
    turns: Iterable[Turn]
    source: str
    topic: str = ""
    trait: str = ""


@dataclass
class FileReport:
    """What was found in one file. `turns` counts assistant turns: exchanges and dropped ones make up all of them."""

    name: str
    format: str = ""
    conversations: int = 0
    turns: int = 0
    exchanges: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)
    """What was taken out and is no assistant turn: tool calls and results, thinking, system messages, ..."""

    def drop(self, reason: str) -> None:
        self.turns += 1
        self.dropped[reason] += 1


def detect(record: Any) -> str:
    """The format that a JSON object belongs to, or "" for none."""
    if not isinstance(record, dict):
        return ""
    if isinstance(record.get("mapping"), dict):
        return CHATGPT
    if isinstance(record.get("chat_messages"), list):
        return CLAUDE
    if isinstance(record.get("conversations", record.get("conversation")), list):
        return SHAREGPT
    if "messages" in record:
        return MESSAGES
    if "prompt" in record and any(key in record for key in ANSWERS):
        return PROMPTS
    is_event = isinstance(record.get("type"), str) or (isinstance(record.get("role"), str) and "content" in record)
    return SESSION if is_event else ""


def conversations(
    records: Iterator[tuple[str, Any]], source: Source, report: FileReport
) -> Iterator[Conversation] | None:
    """Every conversation in the records of a file, lazily; None if the first record is of no known format.

    Raises BadInput, naming the place, for a record that is not like the first one or lacks what its format has.
    """
    first = next(records, None)
    if first is None or not detect(first[1]):
        return None
    report.format = detect(first[1])
    records = chain([first], records)
    return _session(records, source, report) if report.format == SESSION else _each(records, source, report)


def _fail(source: Source, place: str) -> Fail:
    line = place.removeprefix("line ")
    fix = f"Look at it: sed -n {line}p '{source.name}'" if line != place else f"Look at it: less '{source.name}'"
    return lambda what: source.bad(f", {place}: {what}", fix)


def _each(records: Iterator[tuple[str, Any]], source: Source, report: FileReport) -> Iterator[Conversation]:
    for place, record in records:
        fail = _fail(source, place)
        if detect(record) != report.format:
            found = ", ".join(list(record)[:6]) if isinstance(record, dict) else type(record).__name__
            raise fail(f"expected {report.format} as before it, found {found or 'an empty object'}.")
        report.conversations += 1
        turns = READERS[report.format](record, report, fail)
        told = [""] * 3
        if report.format in (MESSAGES, PROMPTS):
            told = [value if isinstance(value, str) else "" for value in map(record.get, ("source", "topic", "trait"))]
        yield Conversation(place, turns, told[0] or source.stem, told[1], told[2])


def _messages(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return _turns(record["messages"], report, fail)


def _sharegpt(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return _turns(record.get("conversations", record.get("conversation")), report, fail)


def _turns(messages: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Turns of a list of role and content, under any of the names that these two go by."""
    if not isinstance(messages, list):
        raise fail(f"`messages` is {_what(messages)}, not a list.")
    for message in messages:
        if not isinstance(message, dict):
            raise fail(f"a message is {_what(message)}, not an object with a role and a content.")
        name = next((message[key] for key in ("role", "from", "sender") if isinstance(message.get(key), str)), None)
        content = next((message[key] for key in ("content", "value", "text") if key in message), "")
        calls = message.get("tool_calls") or message.get("function_call")
        role = ROLES.get((name or "").lower())
        if role is None or (content == "" and not calls and not {"content", "value", "text"} & set(message)):
            raise fail(f"a message needs a role ({', '.join(ROLES)}) and a content; found {name or 'no role'}.")
        yield from _turn(role, content, report, fail, calls=calls, context_only=message.get("weight") == 0)


def _turn(
    role: str,
    content: Any,
    report: FileReport,
    fail: Fail,
    calls: Any = None,
    context_only: bool = False,
    clean: bool = False,
) -> Iterator[Turn]:
    """The turn, if it is one: system and tool messages, and user turns of tool results only, are noise."""
    if role in NOISE:
        report.noise[NOISE[role]] += 1
        return
    before, attached = report.noise.total(), report.noise["attachment"]
    text = _text(content, report.noise, fail)
    if calls:
        report.noise["tool call"] += len(calls) if isinstance(calls, list) else 1
    if role == "assistant" and "<think" in text:
        text, count = THINK.subn("", text)
        report.noise["thinking"] += count
    if clean and ("<" in text or "[Req" in text):
        text, count = HARNESS.subn("", text)
        report.noise["text of the harness"] += count
    noisy = report.noise.total() > before
    asked = text.strip() or not noisy or report.noise["attachment"] > attached
    if role == "assistant" or asked:
        yield Turn(role, text, noisy, context_only)


def _text(content: Any, noise: Counter[str], fail: Fail) -> str:
    """The text of a content: a string, or a list of blocks, of which those without text are counted as noise."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise fail(f"the content of a message needs a role and a text; its text is {_what(content)}.")
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif not isinstance(block, dict):
            raise fail(f"a block of a message's content is {_what(block)}, neither text nor an object.")
        elif block.get("type", "text") in TEXT_BLOCKS and isinstance(block.get("text"), str):
            texts.append(block["text"])
        else:
            noise[_noise(str(block.get("type")))] += 1
    return "\n\n".join(texts)


def _noise(kind: str) -> str:
    """What a block or event of this type is, if not text."""
    kind = kind.lower()
    if "result" in kind or "output" in kind:
        return "tool result"
    if "tool" in kind or "call" in kind:
        return "tool call"
    if "think" in kind or "reason" in kind or "thought" in kind:
        return "thinking"
    return "attachment"


def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _prompts(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if record.get("system"):
        report.noise["system message"] += 1
    prompt = record["prompt"]
    if isinstance(prompt, list):
        yield from (turn._replace(context_only=True) for turn in _turns(prompt, report, fail))
    else:
        yield from _turn("user", prompt, report, fail)
    answer = next(record[key] for key in ANSWERS if key in record)
    if isinstance(answer, list):
        yield from _turns(answer, report, fail)
    else:
        yield from _turn("assistant", answer, report, fail)


def _chatgpt(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The path from the root to `current_node`. What was regenerated lies on other branches of the tree."""
    nodes = record["mapping"]
    if not all(isinstance(node, dict) for node in nodes.values()):
        raise fail("a node of `mapping` is not an object.")
    at = record.get("current_node")
    path: dict[str, Record] = {}
    at = at if isinstance(at, str) and at in nodes else _last(nodes)
    while isinstance(at, str) and at in nodes:
        if at in path:
            raise fail("the parents in `mapping` go round in a circle.")
        path[at] = nodes[at]
        at = nodes[at].get("parent")
    aside = FileReport("")
    for name, node in nodes.items():
        if name not in path:
            for turn in _chatgpt_turn(node.get("message"), aside, fail):
                _alternative(turn, report)
    for node in reversed(path.values()):
        yield from _chatgpt_turn(node.get("message"), report, fail)


def _last(nodes: dict[str, Record]) -> str | None:
    """The leaf last made, for an export that does not say where the conversation stands."""
    made = [
        (time if isinstance(time := (node.get("message") or {}).get("create_time"), int | float) else 0, name)
        for name, node in nodes.items()
        if not node.get("children") and isinstance(node.get("message"), dict | None)
    ]
    return max(made)[1] if made else None


def _alternative(turn: Turn, report: FileReport) -> None:
    if turn.role == "assistant" and turn.text.strip():
        report.drop("alternative branch")


def _chatgpt_turn(message: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
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
    elif kind not in ("text", "multimodal_text"):
        report.noise["tool call" if kind == "code" else _noise(kind)] += 1
    else:
        # a spoken part is an object of another type than `text`, but with its words as `text`
        spoken = [
            {"type": "text", "text": part["text"]} if isinstance(part, dict) and part.get("text") else part
            for part in (parts if isinstance(parts, list) else [parts])
            if part is not None
        ]
        for turn in _turn(role, spoken, report, fail):
            text, count = CITATION.subn("", turn.text) if not turn.text.isascii() else (turn.text, 0)
            report.noise["citation mark"] += count
            yield turn._replace(text=text)


def _claude(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Turns of `chat_messages`: their text blocks, or `text` in older exports. Where messages name their parents, the
    path to the last one."""
    messages = record["chat_messages"]
    if not all(isinstance(message, dict) for message in messages):
        raise fail("one of `chat_messages` is not an object.")
    links = [(message.get("uuid"), message.get("parent_message_uuid")) for message in messages]
    is_tree = all(isinstance(name, str) and isinstance(parent, str) for name, parent in links)
    path = _up(dict(links), links[-1][0]) if is_tree and links else None
    aside = FileReport("")
    for message in messages:
        on_path = path is None or message["uuid"] in path
        written = {"sender": message.get("sender"), "content": _claude_content(message)}
        for turn in _turns([written], report if on_path else aside, fail):
            if on_path:
                yield turn
            else:
                _alternative(turn, report)


def _up(parents: dict[str, str], at: str) -> set[str]:
    found: set[str] = set()
    while at in parents and at not in found:
        found.add(at)
        at = parents[at]
    return found


def _claude_content(message: Record) -> list[Any]:
    lists = {
        key: value if isinstance(value := message.get(key), list) else [] for key in ("content", "attachments", "files")
    }
    blocks = lists["content"]
    if not any(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        blocks = [message.get("text") or "", *blocks]
    return [*blocks, *({"type": "attachment"} for _ in lists["attachments"] + lists["files"])]


def _session(records: Iterator[tuple[str, Any]], source: Source, report: FileReport) -> Iterator[Conversation]:
    yield Conversation("the session", _events(records, source, report), source.stem)


def _events(records: Iterator[tuple[str, Any]], source: Source, report: FileReport) -> Iterator[Turn]:
    """Turns of one session, an event each: the message itself, or an object with it as `message` or `payload`."""
    for place, event in records:
        fail = _fail(source, place)
        if not isinstance(event, dict):
            raise fail(f"expected an event, found {_what(event)}.")
        kind = str(event.get("type", ""))
        if kind == "response_item" and isinstance(event.get("payload"), dict):
            event, kind = event["payload"], str(event["payload"].get("type", ""))
        inner = event.get("message")
        message = inner if isinstance(inner, dict) else {**event, "content": inner} if isinstance(inner, str) else event
        role = ROLES.get(str(message.get("role", kind)).lower())
        content = message.get("content", message.get("text"))
        aside = any(event.get(key) for key in ("isSidechain", "isMeta", "isCompactSummary", "isApiErrorMessage"))
        if role is None or aside or content is None or message.get("model") == "<synthetic>":
            named = _noise(kind)
            report.noise["meta event" if named == "attachment" or aside else named] += 1
        else:
            report.conversations = 1  # not before: other files of events, without a message, are none
            yield from _turn(role, content, report, fail, message.get("tool_calls"), clean=role == "user")


READERS: dict[str, Callable[[Record, FileReport, Fail], Iterator[Turn]]] = {
    MESSAGES: _messages,
    PROMPTS: _prompts,
    SHAREGPT: _sharegpt,
    CHATGPT: _chatgpt,
    CLAUDE: _claude,
}
