"""Chats between people: Telegram, Discord, Instagram and Messenger. Only names tell who speaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations import notices
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import THUMB_DOWN, mark_of
from moltlm.data.conversations.turns import MACHINE, OTHER, Fail, FileReport, Record, Turn, turn_of, type_name
from moltlm.data.errors import BadInput

DISCORD_COMMANDS = ("ChatInputCommand", "20", "ContextMenuCommand", "23")
"""Types of Discord's messages by which a bot answers a command, which is no message."""
DISCORD_TEXTS = ("Default", "Reply", "0", "19", *DISCORD_COMMANDS)
"""Types of Discord's messages that a person or a bot wrote. The others say that somebody joined, called, pinned."""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _messages(record: Record, fail: Fail) -> Iterator[Record]:
    for message in _list(record["messages"]):
        if not isinstance(message, dict):
            raise fail(f"one of `messages` is {type_name(message)}, not an object.")
        yield message


def message_turn(speaker: Any, text: str, media: bool, report: FileReport, reactions: Any = None) -> Iterator[Turn]:
    """The turn of one message. One without words is a picture, a poll or the like. A thumb down among the reactions
    says that it is a bad answer."""
    if not isinstance(speaker, str) or not speaker.strip():
        yield unread(speaker, "message of a deleted account", report)
    elif not text.strip():
        yield unread(speaker, "attachment", report)
    else:
        report.noise["attachment"] += media
        turns = [*turn_of("", text, report, lambda what: BadInput(what, ""))] or [Turn("", "")]
        for turn in turns:
            yield turn._replace(speaker=speaker.strip(), unwanted=THUMB_DOWN if _is_disliked(reactions) else "")


def unread(speaker: Any, kind: str, report: FileReport) -> Turn:
    """The turn of a message that is left out, which has no text: what follows does not answer what was before it. A
    message of nobody who is known by name is another speaker's."""
    report.noise[kind] += 1
    name = speaker.strip() if isinstance(speaker, str) else ""
    return Turn("", "", speaker=name) if name else Turn(OTHER, "")


def _is_disliked(reactions: Any) -> bool:
    """Whether one of the reactions is a thumb down, by its sign or its name."""
    for reaction in _list(reactions):
        if isinstance(reaction, dict):
            sign = reaction.get("emoji", reaction.get("name", reaction.get("reaction")))
            sign = sign.get("name") if isinstance(sign, dict) else sign
            if isinstance(sign, str) and mark_of({"reaction": _repaired(sign)}, {}).unwanted:
                return True
    return False


def _is_telegram(record: Record) -> bool:
    first = next((each for each in _list(record.get("messages")) if isinstance(each, dict)), {})
    return isinstance(record.get("messages"), list) and "type" in first and ("from_id" in first or "actor" in first)


def _telegram(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for message in _messages(record, fail):
        if message.get("type") != "message":
            report.noise["system message"] += 1
        elif message.get("forwarded_from") or "forwarded_from_id" in message:
            yield unread(message.get("from"), "forwarded message", report)
        else:
            media = any(key in message for key in ("media_type", "photo", "file"))
            text = _entities(message.get("text"), fail)
            yield from message_turn(message.get("from"), text, media, report, message.get("reactions"))


def _entities(text: Any, fail: Fail) -> str:
    """A text, or a list of texts and of objects with a `text`, such as links and italics."""
    if isinstance(text, list):
        return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in text)
    if text is None or isinstance(text, str):
        return text or ""
    raise fail(f"the `text` of a message is {type_name(text)}, neither a text nor a list.")


def _is_telegram_of_all(record: Record) -> bool:
    chats = record.get("chats")
    return isinstance(chats, dict) and isinstance(chats.get("list"), list)


def _telegram_of_all(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    error = fail("This is a Telegram export of all chats, with whoever is in them.")
    error.fix = (
        "Export one chat as JSON: open it in Telegram Desktop, ... > Export chat history > Machine-readable JSON."
    )
    raise error


def _is_discord(record: Record) -> bool:
    return isinstance(record.get("messages"), list) and isinstance(record.get("channel"), dict)


def _discord(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for message in _messages(record, fail):
        if str(message.get("type", "Default")) not in DISCORD_TEXTS:
            report.noise["system message"] += 1
            continue
        if str(message.get("type")) in DISCORD_COMMANDS or message.get("interaction"):
            report.noise["command to a bot"] += 1
            yield Turn(MACHINE, "")
        author = author if isinstance(author := message.get("author"), dict) else {}
        name = author.get("nickname") or author.get("name")
        if message.get("forwardedMessage"):
            yield unread(name, "forwarded message", report)
            continue
        media = any(_list(message.get(key)) for key in ("attachments", "stickers"))
        content = message.get("content")
        text = content if isinstance(content, str) else ""
        yield from message_turn(name, text, media, report, message.get("reactions"))


def _is_package(record: Record) -> bool:
    return {"ID", "Timestamp", "Contents"} <= set(record)


def _package(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    error = fail("This is Discord's data package, which has only what you wrote, and no answers.")
    error.fix = "Export the channel as JSON: DiscordChatExporter.Cli export -f Json -t TOKEN -c CHANNEL"
    raise error


def _is_meta(record: Record) -> bool:
    first = next((each for each in _list(record.get("messages")) if isinstance(each, dict)), {})
    return "participants" in record and "sender_name" in first


def _meta(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Instagram and Messenger: the newest message first, and UTF-8 that was written as if it were Latin-1."""
    messages = list(_messages(record, fail))
    times = [time if isinstance(time := message.get("timestamp_ms"), int) else 0 for message in messages]
    for message in reversed(messages) if times and times[0] > times[-1] else messages:
        media = any(key in message for key in ("photos", "videos", "audio_files", "gifs", "sticker", "files", "share"))
        content = message.get("content")
        text = _repaired(content) if isinstance(content, str) else ""
        name = message.get("sender_name")
        name = _repaired(name) if isinstance(name, str) else name
        yield from _meta_turn(name, text, media, message, report)


def _meta_turn(name: Any, text: str, media: bool, message: Record, report: FileReport) -> Iterator[Turn]:
    """The turn of a message of Instagram or Messenger. A notice is nobody's, but for one that says that there is a
    message which the export does not have."""
    if message.get("is_unsent") or message.get("isUnsent"):
        yield unread(name, "deleted message", report)
    elif message.get("type") in NOTICES or "call_duration" in message or notices.is_meta(str(name or ""), text):
        if notices.stands_for_message(text):
            yield unread(name, "system message", report)
        else:
            report.noise["system message"] += 1
    else:
        yield from message_turn(name, text, media, report, message.get("reactions"))


NOTICES = ("Call", "Subscribe", "Unsubscribe", "Plan")
"""Types of messages in Messenger that nobody wrote."""


def _is_encrypted_meta(record: Record) -> bool:
    first = next((each for each in _list(record.get("messages")) if isinstance(each, dict)), {})
    return "participants" in record and "senderName" in first


def _encrypted_meta(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """Messenger's encrypted chats, which it exports in UTF-8."""
    for message in sorted(_messages(record, fail), key=_time_of):
        text = text if isinstance(text := message.get("text"), str) else ""
        yield from _meta_turn(message.get("senderName"), text, bool(_list(message.get("media"))), message, report)


def _time_of(message: Record) -> float:
    time = message.get("timestamp")
    return time if isinstance(time, int | float) and time == time else 0


def _repaired(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _is_judged_steps(record: Record) -> bool:
    labels, label = record.get("labels"), record.get("label")
    return (isinstance(record.get("completions"), list) and isinstance(labels, list)) or (
        isinstance(label, dict) and isinstance(label.get("steps"), list)
    )


def _judged_steps(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    error = fail("This is data for a process reward model, which judges steps, and has no answer to learn.")
    error.fix = "Name rows with whole answers: prompt and completion, or prompt, chosen and rejected."
    raise error


def _is_skype(record: Record) -> bool:
    first = next((each for each in _list(record.get("conversations")) if isinstance(each, dict)), {})
    return "MessageList" in first


def _skype(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    error = fail("This is a Skype or Teams export, with whoever is in it.")
    error.fix = (
        "Write one chat as text: a line `Name: what is said` for each turn, and import that with --assistant NAME."
    )
    raise error


def _is_perplexity(record: Record) -> bool:
    return "query_str" in record


def _perplexity(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    error = fail("This is a thread of Perplexity, whose answers lie among its searches.")
    error.fix = 'Write its answers as JSONL: {"prompt": "...", "completion": "..."}'
    raise error


FORMATS = (
    Format("Telegram", "Telegram, one chat as JSON", _is_telegram, _telegram, by_name=True),
    Format("Discord", "Discord as JSON of DiscordChatExporter", _is_discord, _discord, by_name=True),
    Format(
        "Messenger, encrypted chats",
        "Messenger's encrypted chats as JSON",
        _is_encrypted_meta,
        _encrypted_meta,
        by_name=True,
    ),
    Format("Instagram or Messenger", "Instagram and Messenger as JSON", _is_meta, _meta, by_name=True),
)
UNREAD = (
    Format("Skype or Teams export", "", _is_skype, _skype),
    Format("Perplexity", "", _is_perplexity, _perplexity),
    Format("judged steps", "", _is_judged_steps, _judged_steps),
    Format("Telegram export of all chats", "", _is_telegram_of_all, _telegram_of_all),
    Format("Discord data package", "", _is_package, _package),
)
"""Formats that are recognised, so that an error can say what to do."""
