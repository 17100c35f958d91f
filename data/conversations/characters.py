"""Chats with characters: SillyTavern, Character.AI, PIPPA and text-generation-webui."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, objects_of, turn_of, type_name

NOTE = re.compile(
    r"\(\(?\s*OOC\b(?:[^()]|\([^()]*\))*\)\)?|\(\([^()]*\s[^()]*\)\)|\[\[?\s*OOC\b[^\[\]]*\]\]?|\{\{?\s*OOC\b[^{}]*\}\}?"
    r"|^[ \t]*(?://|\(|\*)?\s*OOC\s*:.*$",
    re.IGNORECASE | re.MULTILINE,
)
"""What is said out of character: `(OOC: ...)`, `((...))`, `[OOC ...]`, and a line that begins with `OOC:`."""

YOURS = re.compile(r"(?:\{\{user\}\}|<USER>)['’]s\b", re.IGNORECASE)
ADDRESSED = re.compile(r",\s*(?:\{\{user\}\}|<USER>)(?=\s*[.!?,;:…]|\s*$)", re.IGNORECASE | re.MULTILINE)
SENT = re.compile(r"\[[^\[\]\n]{1,60} sends a picture that contains: [^\[\]]{0,2000}\]\s*")
"""What SillyTavern writes for a picture that was generated."""
USER = re.compile(r"\{\{user\}\}|<USER>", re.IGNORECASE)
CHARACTER = re.compile(r"\{\{char\}\}|<BOT>", re.IGNORECASE)


def without_macros(text: str, character: str) -> str:
    """A text in which `{{char}}` is the character's name, and `{{user}}` whoever reads it."""
    if "{{" not in text and "<" not in text:
        return text
    text = ADDRESSED.sub("", YOURS.sub("your", text))
    return CHARACTER.sub(lambda _: character or "I", USER.sub("you", text))


def line(is_user: bool, name: Any, content: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turn of one line of a chat, without notes out of character. Who speaks for the character is its name."""
    name = name if isinstance(name, str) and name.strip() else ""
    role = "user" if is_user else "" if name else "assistant"
    for turn in turn_of(role, content, report, fail):
        text, count = NOTE.subn("", turn.text) if "ooc" in turn.text.lower() or "((" in turn.text else (turn.text, 0)
        report.noise["note out of character"] += count
        text = without_macros(text, name) if not is_user else CHARACTER.sub("you", USER.sub("me", text))
        if text.strip() or not count or is_user:
            yield turn._replace(text=text, speaker="" if role else name, noisy=turn.noisy or count > 0)


def unseen(is_user: bool) -> Iterator[Turn]:
    """The turn of a message that is left out: one of the user's is a question that nobody can read, so that the answer
    to it is not joined to the answer before."""
    if is_user:
        yield Turn("user", "")


def _tavern(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """One line of SillyTavern: the text that is shown. Other swipes are alternative answers."""
    if "mes" not in record:
        report.noise["meta event"] += 1
        return
    extra = extra if isinstance(extra := record.get("extra"), dict) else {}
    if record.get("is_system"):
        report.noise["hidden message"] += 1
        yield from unseen(bool(record.get("is_user")))
    elif extra.get("type") in ("narrator", "comment"):
        report.noise["system message"] += 1
    else:
        is_user = bool(record.get("is_user"))
        text, others = _swipes(record, fail)
        for _ in others if not is_user else ():
            report.drop("alternative branch")
        report.noise["thinking"] += bool(extra.get("reasoning"))
        report.noise["attachment"] += any(extra.get(key) for key in ("image", "file", "files", "media", "video"))
        if extra.get("image") or extra.get("media"):
            text = SENT.sub("", text)
        for turn in line(is_user, record.get("name"), text, report, fail):
            if turn.text.strip() or is_user or not extra.get("image"):
                yield turn


def _swipes(record: Record, fail: Fail) -> tuple[str, list[str]]:
    """The text of a line, and those of its other swipes."""
    swipes = [text for text in _list(record.get("swipes")) if isinstance(text, str)]
    number, text = record.get("swipe_id"), record["mes"]
    is_number = isinstance(number, int) and 0 <= number < len(swipes)
    if text is None:  # of an answer that was stopped before it began
        text = swipes[number] if is_number else ""  # type: ignore[index]
    if not isinstance(text, str):
        raise fail(f"`mes` is {type_name(text)}, not a text.")
    if is_number:
        del swipes[number]  # type: ignore[arg-type]
    elif text in swipes:
        swipes.remove(text)
    return text, [each for each in swipes if each.strip()]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


REMOVED = ("STATE_REMOVED", "STATE_DELETED", "STATE_ARCHIVED")


def _is_tavern(record: Record) -> bool:
    is_header = "chat_metadata" in record or ("user_name" in record and "character_name" in record)
    is_line = "mes" in record and ("is_user" in record or "name" in record)
    return (is_header and not ({"messages", "conversations", "conversation"} & set(record))) or is_line


def _histories(record: Record) -> Any:
    outer = record.get("histories")
    return outer.get("histories") if isinstance(outer, dict) else outer


def _is_dump(record: Record) -> bool:
    histories = _histories(record)
    if isinstance(histories, list):
        return all(isinstance(each, dict) and "msgs" in each for each in histories[:1])
    return any(_has_sources(record.get(key)) for key in ("msgs", "messages"))


def _has_sources(messages: Any) -> bool:
    """Whether the first message says where it is from: in an object, or in fields of its own."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and (isinstance(first.get("src"), dict) or "src__is_human" in first)


def _speaker(message: Record, fail: Fail) -> tuple[bool, Any]:
    """Whether a human wrote a message, and the name of whoever did."""
    speaker = message.get("src")
    if not isinstance(speaker, dict):
        speaker = {key: message.get(f"src__{key}") for key in ("is_human", "name")}
    is_human = speaker.get("is_human")
    if not isinstance(is_human, bool):
        raise fail("a message has no `src` with `is_human`.")
    return is_human, speaker.get("name")


def _dump_parts(record: Record) -> Iterator[Record]:
    histories = _histories(record)
    for history in histories if isinstance(histories, list) else [record]:
        yield history if isinstance(history, dict) else {"msgs": None}


def _dump(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """One history of Character.AI. A message that is an alternative, or was not chosen, is another branch."""
    messages = record.get("msgs", record.get("messages"))
    for message in objects_of(messages, "msgs", fail):
        is_human, name = _speaker(message, fail)
        turns = line(is_human, name, message.get("text"), report, fail)
        if (
            message.get("is_alternative")
            or message.get("state") in REMOVED
            or message.get("is_chosen") is False
            or message.get("deleted")
        ):
            report.dropped["alternative branch"] += _dropped(turns, report)
            yield from unseen(is_human)
        else:
            yield from turns


def _dropped(turns: Iterable[Turn], report: FileReport) -> int:
    count = sum(turn.role != "user" and bool(turn.text.strip()) for turn in turns)
    report.turns += count
    return count


def _is_turns(record: Record) -> bool:
    turns = record.get("turns")
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and "candidates" in first


def _candidates(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """A chat of the newer Character.AI: of each turn the primary candidate. The server lists the newest turn first."""
    turns = list(objects_of(record["turns"], "turns", fail))
    times = [str(turn.get("create_time") or "") for turn in turns]
    for turn in reversed(turns) if times and times[0] > times[-1] else turns:
        candidates = [each for each in _list(turn.get("candidates")) if isinstance(each, dict)]
        author = author if isinstance(author := turn.get("author"), dict) else {}
        is_user = bool(author.get("is_human"))
        primary = next(
            (each for each in candidates if each.get("candidate_id") == turn.get("primary_candidate_id")),
            candidates[0] if candidates else {},
        )
        if turn.get("state") in REMOVED:
            for _ in candidates if not is_user else ():
                report.drop("deleted")
            report.noise["deleted message"] += is_user
            yield from unseen(is_user)
            continue
        for other in candidates if not is_user else ():
            if other is not primary and other.get("raw_content"):
                report.drop("alternative branch")
        yield from line(is_user, author.get("name"), primary.get("raw_content"), report, fail)


def _is_pippa(record: Record) -> bool:
    lines = record.get("conversation")
    first = lines[0] if isinstance(lines, list) and lines else None
    return (isinstance(first, dict) and "is_human" in first) or (isinstance(lines, dict) and "is_human" in lines)


def _pippa(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    lines = record["conversation"]
    if isinstance(lines, dict):  # a column for each field
        columns = [lines.get(key) for key in ("message", "is_human")]
        if not all(isinstance(column, list) for column in columns):
            raise fail("`conversation` has no lists `message` and `is_human`.")
        lines = [{"message": text, "is_human": human} for text, human in zip(*columns, strict=False)]
    for message in objects_of(lines, "conversation", fail):
        if not isinstance(message.get("is_human"), bool):
            raise fail("a message has no `is_human`.")
        yield from line(message["is_human"], record.get("bot_name"), message.get("message"), report, fail)


WEBUI = (("internal", "visible"), ("data", "data_visible"))


def _is_webui(record: Record) -> bool:
    return any(isinstance(record.get(a), list) and isinstance(record.get(b), list) for a, b in WEBUI)


def _webui(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """A log of text-generation-webui: pairs of what the user and the character say."""
    for pair in next(
        record[a] for a, b in WEBUI if isinstance(record.get(a), list) and isinstance(record.get(b), list)
    ):
        if not isinstance(pair, list) or not all(isinstance(text, str | None) for text in pair[:2]):
            raise fail("one of `internal` is no pair of texts.")
        for is_user, text in zip((True, False), pair, strict=False):
            if text and text != "<|BEGIN-VISIBLE-CHAT|>":
                yield from line(is_user, record.get("name2"), text, report, fail)


FORMATS = (
    Format("SillyTavern", "SillyTavern chats (*.jsonl)", _is_tavern, _tavern, whole_file=True),
    Format("Character.AI", "Character.AI dumps (`histories`)", _is_dump, _dump, split=_dump_parts),
    Format("Character.AI", "Character.AI chats (`turns` of `candidates`)", _is_turns, _candidates),
    Format("PIPPA", "PIPPA (`conversation` of message, is_human)", _is_pippa, _pippa),
    Format("text-generation-webui", "text-generation-webui logs (`internal`, `visible`)", _is_webui, _webui),
)
