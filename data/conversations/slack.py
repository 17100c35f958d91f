"""Slack: the messages of a channel, one file a day; those of a thread are a conversation of their own."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.messengers import message_turn, unread
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn

SAID = (None, "bot_message", "thread_broadcast", "me_message", "file_share", "reply_broadcast")
"""Subtypes of messages that somebody wrote. The others say that somebody joined, renamed, pinned."""

DELETED = ("tombstone", "message_deleted")
"""Subtypes that stand in the place of a message that somebody deleted."""
SLACKBOT = "USLACKBOT"
"""Who writes a tombstone if nobody says whose message it was."""

NAMES = ("display_name", "real_name", "name", "first_name")
REFERENCE = re.compile(r"<([@#!]?)([^<>|\n]{1,2000})(?:\|([^<>\n]{0,500}))?>")
"""A mention of a user, a channel or a group, or a link, with its label."""


OTHERS = frozenset(("role", "assistant", "answer", "response", "completion"))
"""Fields of messages and rows that are not Slack's."""


def _detect(record: Record) -> bool:
    is_message = "ts" in record and "text" in record and any(key in record for key in ("user", "bot_id", "username"))
    return is_message and OTHERS.isdisjoint(record)


def _name(message: Record) -> str:
    """Who wrote a message, by the profile in it; "" if it only has a code."""
    profiles = [profile for key in ("user_profile", "bot_profile") if isinstance(profile := message.get(key), dict)]
    names = [profile.get(key) for profile in profiles for key in NAMES] + [message.get("username")]
    return next((name.strip() for name in names if isinstance(name, str) and name.strip()), "")


def _code(message: Record) -> str:
    return next((code for key in ("user", "bot_id") if isinstance(code := message.get(key), str)), "")


def _time(message: Record) -> float:
    try:
        return float(message.get("ts", 0))
    except (TypeError, ValueError):
        return 0.0


def _conversations(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """The messages of the channel, and those of each thread, in the order in which they were written."""
    places, threads, names = dict[str, str](), dict[str, list[Record]](), dict[str, str]()
    for place, message in records:
        thread = str(message.get("thread_ts") or "")
        places.setdefault(thread, place)
        threads.setdefault(thread, []).append(message)
        if name := _name(message):
            names.setdefault(_code(message), name)
    for thread, messages in threads.items():
        yield places[thread], {"messages": sorted(messages, key=_time), "names": names}


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    names: dict[str, str] = record["names"]
    for message in record["messages"]:
        kind, code = message.get("subtype"), _code(message)
        speaker = _name(message) or names.get(code) or code
        if kind in DELETED:
            yield unread("" if speaker == SLACKBOT else speaker, "deleted message", report)
            continue
        if kind not in SAID:
            report.noise["system message"] += 1
            continue
        text = message.get("text")
        if not isinstance(text, str | None):
            raise fail("the `text` of a message is no text.")
        text, media = _plain(text or "", names), bool(message.get("files"))
        yield from message_turn(speaker, text, media, report, message.get("reactions"))


def _plain(text: str, names: dict[str, str]) -> str:
    """The text without Slack's marks: names for codes, and labels for links."""

    def written(match: re.Match[str]) -> str:
        sign, target, label = match[1], match[2], match[3] or ""
        if sign in ("@", "!"):
            name = label.lstrip("@") or names.get(target, target.partition("^")[0])
            return f"@{name}"
        return f"#{label or target}" if sign == "#" else label or target

    return html.unescape(REFERENCE.sub(written, text))


SLACK = Format("Slack", "Slack's messages as JSON", _detect, _read, gather=_conversations, by_name=True)
