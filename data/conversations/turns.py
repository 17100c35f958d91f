"""What all formats of conversations share: turns, the report of a file, and messages with a role and a content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moltlm.data.conversations import machine_text
from moltlm.data.conversations.marks import UNMARKED, Verdict, mark_of
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange

Record = dict[str, Any]
Fail = Callable[[str], BadInput]
"""Makes the error for what is wrong with a record; it names the file and the place."""

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "ai", "model", "bot", "chatgpt", "claude", "bing", "bard"), "assistant"),
    **dict.fromkeys(("gemini", "chatbot", "copilot", "char", "aimessage", "aimessagechunk"), "assistant"),
    **dict.fromkeys(("humanmessage", "humanmessagechunk"), "user"),
    **dict.fromkeys(("system", "developer", "systemmessage", "error", "info", "warning"), "system"),
    **dict.fromkeys(("tool", "function", "toolresult", "ipython", "observation", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
NOISE = {"system": "system message", "tool": "tool result", "call": "tool call"}
"""Roles whose messages are no turns, and the kind of noise under which they are counted."""
OTHER, MACHINE = "other", "machine"
"""Roles of whoever is neither the user nor the persona: another speaker, and a machine that writes in a user's place.
An answer to one of them is not learned."""

SIDES = ("user", "assistant")

REJECTED_ANSWER, EQUAL = "rejected answer", "equal to the rejected answer"
"""Why an answer of preference data is dropped: no better one of the row is learned; it is not better than the other."""

SENDERS = ("role", "from", "sender", "author", "speaker", "name", "handle", "sender_name", "senderName", "displayName")
CONTENTS = (
    *("content", "value", "text", "message", "msg", "mes", "body", "say", "parts", "contentParts", "contentChunks"),
    *("fragments", "utterance", "raw_content"),
)
INNER = ("message", "info", "data", "kwargs")
"""Fields in which a message may hold its role or its content."""
USER_FLAGS = ("is_human", "isHuman", "is_user", "isUser", "isCreatedByUser", "fromUser", "from_user")
ATTACHMENTS = ("image", "file", "audio", "video", "document", "attachment", "media", "picture")
UNKNOWN = "block of an unknown type"
TEXT_BLOCKS = ("text", "input_text", "output_text")
WRAPPED = ("text", "value", "content", "body")
"""Fields in which a block holds its text."""


class Turn(NamedTuple):
    """What one side says.

    Args:
        role: user, assistant, system, OTHER, or "" where only the name of the speaker is known.
        text: without what a machine wrote.
        noisy: something was removed from it.
        context_only: it may precede an answer, but is never learned as one.
        speaker: the name of who speaks. `voices.assign` turns names into roles.
        unwanted: why it is neither learned nor context (`rated down`), or "".
        rejected: the answer that the data gives as the worse one to the same question, or "".
        edited: the user wrote the text in place of the rejected answer.
    """

    role: str
    text: str
    noisy: bool = False
    context_only: bool = False
    speaker: str = ""
    unwanted: str = ""
    rejected: str = ""
    edited: bool = False


@dataclass(frozen=True)
class Conversation:
    """Turns in order, where they are in the file, and the labels of their exchanges.

    Args:
        by_name: the speakers are people, and none of their names is a role.
    """

    place: str
    turns: Iterable[Turn]
    source: str
    topic: str = ""
    trait: str = ""
    by_name: bool = False


@dataclass
class FileReport:
    """What one file contained. `turns` counts assistant turns: each is an exchange, the rejected side of one, or
    dropped."""

    name: str
    format: str = ""
    conversations: int = 0
    turns: int = 0
    exchanges: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of exchanges with a rejected answer of their own, by its provenance (`types.GIVEN`, `types.EDITED`)."""
    dropped: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)
    """What was removed and is no assistant turn: tool calls and results, thinking, system messages, ..."""
    scales: dict[str, float] = field(default_factory=dict)
    """The highest rating by the name of its field, which tells the scale (`marks.scales`)."""
    disliked: frozenset[str] = frozenset()
    """Ids of messages that got a thumb down (`feedback`)."""
    speakers: dict[str, str] = field(default_factory=dict)
    """The role of each speaker whom the file knows only by name."""

    def keep(self, exchange: Exchange) -> None:
        """Count an assistant turn that becomes an exchange, and its rejected answer."""
        self.turns += 1 + bool(exchange.rejected)
        self.exchanges += 1
        if exchange.rejected:
            self.rejected[exchange.provenance] += 1

    def drop(self, reason: str) -> None:
        """Count an assistant turn that becomes no exchange."""
        self.turns += 1
        self.dropped[reason] += 1

    def drop_answer(self, turn: Turn, reason: str) -> None:
        """As `drop`, if the turn is an assistant's and has a text. One of an unknown side is counted as noise."""
        if turn.role == "assistant" and turn.text.strip():
            self.drop(reason)
        elif not turn.role:
            self.noise[reason] += 1


def turns_of(messages: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of a list of messages, each with a role and a content under any of their usual names.

    An unknown role is the name of a speaker.
    """
    if not isinstance(messages, list):
        raise fail(f"`messages` is {type_name(messages)}, not a list.")
    for message in messages:
        if not isinstance(message, dict):
            raise fail(f"a message is {type_name(message)}, not an object with a role and a content.")
        name, content = message.get("role"), message.get("content")  # by far the commonest, and read fast
        plain = len(message) == 2 and name in SIDES and content and isinstance(content, str)
        if plain and not machine_text.is_likely(content, name):
            yield Turn(name, content)
            continue
        if not isinstance(name, str) or not content:
            message = {**inner_of(message), **message}
            name, content = sender_of(message), content_of(message)
        calls = message.get("tool_calls") or message.get("function_call")
        role = ROLES.get(name) if name else None
        if role is None:
            role = ROLES.get((name or "").lower(), "" if name and name.strip() else None)
        if role is None and (kind := noise_kind(str(message.get("type", "")))) != UNKNOWN:
            report.noise[kind] += 1  # an item of a response, such as its reasoning
            continue
        if role is None or (content == "" and not calls and not set(CONTENTS) & set(message)):
            raise fail(f"a message needs a role ({', '.join(ROLES)}) and a content; found {name or 'no role'}.")
        mark = mark_of(message, report.scales)
        speaker = name or ""
        if (
            role == "assistant"
            and isinstance(author := message.get("name"), str)
            and author.strip()
            and "role" in message
        ):
            role, speaker = "", author  # one of several characters
        for turn in turn_of(role, content, report, fail, calls):
            turn = turn if role else turn._replace(speaker=speaker)
            if mark is not UNMARKED:
                turn = turn._replace(context_only=mark.context_only, unwanted=mark.unwanted or turn.unwanted)
            yield turn


def marked(turn: Turn, mark: Verdict) -> Turn:
    """The turn with what its record says against its answer."""
    if turn.role == "user" or turn.context_only:
        return turn
    return turn._replace(context_only=mark.context_only, unwanted=turn.unwanted or mark.unwanted)


def inner_of(message: Record) -> Record:
    """The object in a message that holds its role or its content, or nothing."""
    return next((inner for key in INNER if isinstance(inner := message.get(key), dict)), {})


def sender_of(message: Record) -> str | None:
    """Who wrote a message, by the usual names of its fields; None if nothing says so."""
    for key in SENDERS:
        value = message.get(key)
        if isinstance(value, dict):
            value = next((value[part] for part in ("role", "name") if isinstance(value.get(part), str)), None)
        if isinstance(value, str):
            flag = None if value.lower() in ROLES else _user_flag(message)
            return "user" if flag else value
    flag = _user_flag(message)
    if flag is not None:
        return "user" if flag else "assistant"
    kind = message.get("type")
    if isinstance(identity := message.get("id"), list) and identity:  # LangChain's serialized messages
        kind = identity[-1]
    return kind if isinstance(kind, str) and kind.lower() in ROLES else None


def _user_flag(message: Record) -> bool | None:
    return next((message[key] for key in USER_FLAGS if isinstance(message.get(key), bool)), None)


def content_of(message: Record) -> Any:
    """The content of a message, by the usual names of its field: the first that is not empty; "" if there is none."""
    return next((message[key] for key in CONTENTS if message.get(key)), message.get("content", ""))


def turn_of(role: str, content: Any, report: FileReport, fail: Fail, calls: Any = None) -> Iterator[Turn]:
    """The turn of one message, or nothing: system and tool messages, and user messages of tool results, are noise.

    Args:
        role: one of the values of ROLES, or "" for a speaker who is only named.
        content: a text, or a list of blocks.
        calls: the tool calls of the message, which are counted as noise.
    """
    if role in NOISE:
        report.noise[NOISE[role]] += 1
        return
    if isinstance(content, str) and not calls and not machine_text.is_likely(content, role):
        yield Turn(role, content)
        return
    attachments, removed = report.noise["attachment"], Counter[str]()
    text = content if isinstance(content, str) else text_of(content, removed, fail)
    if calls:
        removed["tool call"] += len(calls) if isinstance(calls, list) else 1
    text, action, mark = machine_text.clean(text, role, removed)
    noisy = bool(removed) and removed.total() > 0
    if noisy:
        report.noise.update(removed)
    if action and role == "assistant":
        yield Turn(role, "", noisy, unwanted=mark)
    elif action:
        report.noise[mark] += 1
        if action == "interrupt":
            yield Turn(MACHINE, "")
    elif role in ("assistant", "") or text.strip() or not noisy or report.noise["attachment"] > attachments:
        yield Turn(role, text, noisy)


def text_of(content: Any, noise: Counter[str], fail: Fail) -> str:
    """The text of a content: a string, or a list of blocks, of which those without text are counted as noise."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict) and any(key in content for key in ("parts", *WRAPPED)):
        content = content["parts"] if isinstance(content.get("parts"), list) else [content]
    if not isinstance(content, list):
        raise fail(f"the content of a message needs a role and a text; its text is {type_name(content)}.")
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif not isinstance(block, dict):
            raise fail(f"a block of a message's content is {type_name(block)}, neither text nor an object.")
        elif isinstance(text := _block_text(block), str):
            texts.append(text)
        elif text:
            noise[text.kind] += 1
    return "\n\n".join(texts)


class _Noise(NamedTuple):
    kind: str


def _block_text(block: Record) -> str | _Noise | None:
    """The text of a block, or the kind of noise that it is; None for an empty one that only separates others."""
    block_type = block.get("type") or block.get("content_type") or block.get("ft")
    inner = block.get("part")
    block = inner if isinstance(inner, dict) else block
    kind = noise_kind(str(block_type or "text"))
    if block.get("thought") is True:
        return _Noise("thinking")
    if block.get("synthetic") is True:
        return _Noise("text of the harness")
    text = next((block[key] for key in WRAPPED if isinstance(block.get(key), str | dict)), None)
    text = next((text[key] for key in WRAPPED if key in text), None) if isinstance(text, dict) else text
    if isinstance(text, str) and (kind == UNKNOWN or block_type in TEXT_BLOCKS):
        return text
    if block_type is None and block:
        kind = noise_kind(next(iter(block)))
    return None if str(block_type).startswith("step-") else _Noise(kind)


def noise_kind(block_type: str) -> str:
    """The kind of noise that a block or event of this type is."""
    block_type = block_type.lower()
    if any(word in block_type for word in ATTACHMENTS):
        return "attachment"
    if "result" in block_type or "output" in block_type:
        return "tool result"
    if "tool" in block_type or "call" in block_type:
        return "tool call"
    if "think" in block_type or "reason" in block_type or "thought" in block_type:
        return "thinking"
    return UNKNOWN


def objects_of(values: Any, key: str, fail: Fail) -> Iterator[Record]:
    """The objects in a list, which stands at `key`. Fails for anything else."""
    if not isinstance(values, list):
        raise fail(f"`{key}` is {type_name(values)}, not a list.")
    for value in values:
        if not isinstance(value, dict):
            raise fail(f"one of `{key}` is {type_name(value)}, not an object.")
        yield value


def type_name(value: Any) -> str:
    """What a JSON value is, for an error message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
