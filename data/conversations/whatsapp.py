"""Chats that WhatsApp exports as text, on Android and iOS, with the dates of any country."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from moltlm.data.conversations import notices
from moltlm.data.conversations.format import TextFormat
from moltlm.data.conversations.notices import MARKS
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.speakers import JOINED
from moltlm.data.conversations.turns import Conversation, FileReport, Turn

INVISIBLE = re.compile("[\u200e\u202a-\u202e\u2066-\u2069\ufeff]")
"""The marks that nobody types: WhatsApp puts them around names and numbers."""
WORD = rf"[^\W\d_][\w{JOINED}.״׳]{{0,13}}"
NUMBER = "[\u200e\u200f]?\\d{1,2}[\u200e\u200f]?"
YEAR = "[\u200e\u200f]?\\d{1,4}[\u200e\u200f]?"
DATE = (
    rf"(?:{YEAR}[./-]\s?{NUMBER}[./-]\s?{YEAR}\.?(?:\s[^\W\d]\.)?|\d{{4}}년 \d{{1,2}}월 \d{{1,2}}일"
    r"|\d{4}年\d{1,2}月\d{1,2}日)"
)
HALF = rf"(?:{WORD}(?:\s{WORD})?)"
"""Half of the day: AM, p. m., 下午, 오전, e pasdites."""
TIME = rf"(?:{HALF}\s?)?\d{{1,2}}(?:[:.]\d{{2}}(?:[:.]\d{{2}})?|\sh\s\d{{2}}(?:\smin\s\d{{2}}\ss)?)(?:\s?{HALF})?"
BETWEEN = rf"{MARKS}[,،]?{MARKS}\s(?:[^\W\d]{{1,5}}\.?\s){{0,2}}"
STAMP = rf"(?:{DATE}{BETWEEN}{TIME}|{TIME},?\s{DATE})"
NAME = r"(?P<name>[^:\n\"“”„«»]{1,60}?)\s?:(?:\s(?P<text>.*))?"
BEGINNING = re.compile(
    rf"{MARKS}(?:\[{STAMP}\]\s{MARKS}|{STAMP}(?:\s[-–—]\s|,\s(?=[^\d]))){MARKS}(?:{NAME}|(?P<notice>.*))$",
    re.DOTALL,
)
"""A line that begins a message, or a notice: `[31/12/2025, 11:40:26] Ana: Hi`, `12/31/25, 11:40 PM - Ana: Hi`."""

OMITTED = re.compile(
    rf"{MARKS}(?:<[^\W\d_][^<>\n]{{2,60}}>|[^\n]{{1,200}}\.\w{{2,5}} \([^()\n]{{3,60}}\)"
    r"|\S{0,20}<[^<>\n]{2,20}: [^<>\n]{1,200}>)$"
)
"""What stands for a picture, in any language: `<Media omitted>`, `a.jpg (file attached)`."""

EDITED = re.compile(
    r"\s?(?:\u200e<[^<>:\n]{3,80}>|(?<=\s)<[^<>\n]{2,40} [^<>\n]{2,40}>|(?<=\s)<(?:已编辑|已編輯)[^<>\n]{0,40}>)\s*\Z"
)
"""`<This message was edited>`, in any language."""

OWN_WORDS = re.compile(r"(?<=\s)\u200e([^\u200e\n]{1,300})\Z")
"""What WhatsApp itself says on iOS after a text: `document omitted`, `<attached: a.jpg>`."""
IOS_MEDIA = re.compile(
    r"omitted|weggelassen|ausgeschlossen|omitid|omis|omess|weggelaten|pominięt|vynechán|kihagyva|utelat|utelämn|udelad"
    r"|jätetty pois|omès|παραλείφθηκε|пропущен|изключен|не включ|не додано|הושמט|تم استبعاد|dihilangkan|diabaikan"
    r"|bỏ qua|ละเว้น|忽略|省略|略過|含まれて|생략|eklenmedi|dahil edilmedi|छोड़"
    r"|<[^<>]{2,20}: ",
    re.IGNORECASE,
)
DOCUMENT = re.compile(r"\A(?:[^\n]{1,200}? • \u200e[^\u200e\n]{1,40}(?:\Z|\n)|[^\n]{1,200}\.\w{2,5}\s*\Z)")
"""What iOS writes of a document: its name, mostly with the number of its pages."""

PLACE = re.compile(
    rf"{MARKS}[^\W\d_][^\n:：]{{0,60}}[:：]\s?https://(?:maps\.google\.com/(?:maps)?\?|(?:www\.)?foursquare\.com/v/)"
    r"\S{1,300}\s*\Z"
)
"""`location: https://maps.google.com/?q=52.5,13.4`, in any language."""
POLL = re.compile(
    rf"{MARKS}[^\W\d_][\w{JOINED} ]{{1,30}}[:：]\n[^\n]{{1,300}}(?:\n{MARKS}[^\n:：]{{1,30}}[:：] [^\n]{{1,300}}"
    rf" [(（]{MARKS}\d{{1,4}} ?[^\d()（）\n]{{1,20}}[)）])+\s*\Z"
)
"""A poll, whose options end in the number of their votes, in any language."""

DELETED = notices.WHATSAPP
NOTICE_CHARS = 120
"""No notice is longer."""


def _detect(text: str) -> bool:
    """Whether the first line begins a message, and one of the first lines has a speaker."""
    beginnings = [BEGINNING.match(line) for line in text.lstrip("\ufeff").split("\n", 60)[:60]]
    return bool(beginnings and beginnings[0]) and any(each and each["name"] for each in beginnings)


def _read(source: Source, report: FileReport) -> Iterator[Conversation]:
    report.conversations += 1
    yield Conversation("the chat", _turns(source, report), source.stem, by_name=True)


def _turns(source: Source, report: FileReport) -> Iterator[Turn]:
    """Raises BadInput for a message over LIMIT."""
    name, pending, size, speakers = "", list[str](), 0, set[str]()
    for number, line in lines(source):
        match = BEGINNING.match(line)
        if match:
            yield from _turn(name, "\n".join(pending), speakers, report)
            report.noise["system message"] += match["name"] is None
            name, pending, size = _plain_name(match["name"] or ""), [match["text"] or ""], 0
        else:
            pending.append(line)
        size += len(line)
        if size > LIMIT:
            raise source.bad(f", line {number}: one message is larger than {LIMIT >> 20} MiB.")
    yield from _turn(name, "\n".join(pending), speakers, report)


@lru_cache(maxsize=4096)
def _plain_name(name: str) -> str:
    """The name without the tilde of a stranger and without marks of direction."""
    return re.sub(rf"^~\s?|{MARKS[:-1]}", "", name).strip()


def _turn(name: str, text: str, speakers: set[str], report: FileReport) -> Iterator[Turn]:
    """The turn of one message. One that cannot be read, such as a picture or a deleted message, is a turn without text:
    what follows does not answer what was before it.

    Args:
        speakers: who has said something before. On iOS, notices about a group stand beneath the name of the group.
    """
    if not name:
        return
    text, count = EDITED.subn("", text)
    report.noise["edit mark"] += count if text.strip() else 0
    said, is_media = _without_media(text.rstrip())
    caption = (said if said.isascii() else INVISIBLE.sub("", said)).strip()
    if is_media or not caption or ("https://" in said and PLACE.match(said)) or ("\n" in said and POLL.match(said)):
        report.noise["attachment"] += 1
        yield Turn("", caption if is_media else "", speaker=name)
    elif len(said) < NOTICE_CHARS and DELETED.match(said.casefold()):
        report.noise["system message"] += 1
        yield Turn("", "", speaker=name)
    elif said.startswith("\u200e"):
        report.noise["system message"] += 1
        if name in speakers and not caption.startswith(name):
            yield Turn("", "", speaker=name)
    else:
        speakers.add(name)
        yield Turn("", caption, speaker=name)


def _without_media(text: str) -> tuple[str, bool]:
    """What is said beside a picture or a document, and whether there is one; else the whole text."""
    first, _, rest = text.partition("\n")
    if OMITTED.match(first) or (first.startswith("\u200e") and "\u200e" not in first[1:] and IOS_MEDIA.search(first)):
        return rest, True
    own_words = OWN_WORDS.search(text[-400:]) if "\u200e" in text[1:] else None
    if own_words and IOS_MEDIA.search(own_words[1]):
        return DOCUMENT.sub("", text[: -len(own_words[0])].strip()), True
    return text, False


WHATSAPP = TextFormat("WhatsApp", "WhatsApp's text of a chat", _detect, _read)
