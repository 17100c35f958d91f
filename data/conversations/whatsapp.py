"""Chats that WhatsApp exports as text, on Android and iOS, with the dates of any country."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.format import TextFormat
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.turns import Conversation, FileReport, Turn

MARKS = "[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
"""Invisible marks of the direction of a text. iOS puts one before what WhatsApp itself says."""
WORD = r"[^\W\d]{1,5}\.?"
DATE = r"(?:\d{1,4}[./-]\s?\d{1,2}[./-]\s?\d{1,4}\.?(?:\s[^\W\d]\.)?|\d{4}년 \d{1,2}월 \d{1,2}일)"
HALF = rf"(?:[AaPp]\.?\s?[Mm]\.?|{WORD}(?:\s[^\W\d]\.)?)"
"""Half of the day: AM, p. m., 下午, 오전."""
TIME = rf"(?:{HALF}\s?)?\d{{1,2}}[:.]\d{{2}}(?:[:.]\d{{2}})?(?:\s?{HALF})?"
BETWEEN = rf"{MARKS}[,،]?\s(?:{WORD}\s){{0,2}}"
STAMP = rf"(?:{DATE}{BETWEEN}{TIME}|{TIME},?\s{DATE})"
NAME = r"(?P<name>[^:\n\"“”„«»]{1,60}?)\s?:(?:\s(?P<text>.*))?"
BEGINNING = re.compile(
    rf"{MARKS}(?:\[{STAMP}\]\s{MARKS}|{STAMP}(?:\s[-–—]\s|,\s(?=[^\d]))){MARKS}(?:{NAME}|(?P<notice>.*))$",
    re.DOTALL,
)
"""A line that begins a message, or a notice: `[31/12/2025, 11:40:26] Ana: Hi`, `12/31/25, 11:40 PM - Ana: Hi`."""

OMITTED = re.compile(
    rf"{MARKS}(?:<[^<>\n]{{3,60}}>|[^\n]{{1,200}}\.\w{{2,5}} \([^()\n]{{3,60}}\)"
    r"|\S{0,20}<[^<>\n]{2,20}: [^<>\n]{1,200}>)$"
)
"""What stands for a picture, in any language: `<Media omitted>`, `a.jpg (file attached)`."""

EDITED = re.compile(
    r"\s?(?:\u200e<[^<>\n]{3,80}>|(?<=\s)<[^<>\n]{2,40} [^<>\n]{2,40}>|(?<=\s)<(?:已编辑|已編輯)[^<>\n]{0,40}>)\s*\Z"
)
"""`<This message was edited>`, in any language."""

DELETED = re.compile(
    MARKS + r"(?:null|(?:This message was deleted|You deleted this message|Missed (?:group )?(?:voice|video) call"
    r"|Waiting for this message|Diese Nachricht wurde gelöscht|Du hast diese Nachricht gelöscht"
    r"|Verpasster (?:Sprach|Video)anruf|Se eliminó este mensaje|Este mensaje fue eliminado|Eliminaste este mensaje"
    r"|(?:Llamada|Videollamada) perdida|Ce message a été supprimé|Vous avez supprimé ce message"
    r"|Appel (?:vocal|vidéo) manqué|Mensagem apagada|Esta mensagem foi (?:apagada|eliminada)|Você apagou esta mensagem"
    r"|Chamada de (?:voz|vídeo) perdida|Questo messaggio è stato eliminato|Hai eliminato questo messaggio"
    r"|(?:Chiamata|Videochiamata) (?:vocale )?persa|Dit bericht is verwijderd|Je hebt dit bericht verwijderd"
    r"|Gemiste (?:spraak|video)oproep|Данное сообщение удалено|Вы удалили это сообщение|Сообщение удалено"
    r"|此消息已删除|您已删除此消息|此訊息已刪除|您已刪除此訊息|このメッセージは削除されました|このメッセージを削除しました"
    r"|삭제된 메시지입니다|이 메시지는 삭제되었습니다|Bu mesaj silindi|Bu mesajı sildiniz)[^\n]{0,40})\Z",
    re.IGNORECASE,
)
"""Notices that Android writes as if somebody had said them."""

IOS_MEDIA = re.compile(
    r"omitted|weggelassen|ausgeschlossen|omitid|omis|omess|weggelaten|пропущен|忽略|省略|含まれて|생략|eklenmedi"
    r"|<[^<>]{2,20}: ",
    re.IGNORECASE,
)


def _detect(text: str) -> bool:
    """Whether the first line begins a message, and one of the first lines has a speaker."""
    beginnings = [BEGINNING.match(line) for line in text.lstrip("\ufeff").split("\n", 60)[:60]]
    return bool(beginnings and beginnings[0]) and any(each and each["name"] for each in beginnings)


def _read(source: Source, report: FileReport) -> Iterator[Conversation]:
    report.conversations += 1
    yield Conversation("the chat", _turns(source, report), source.stem)


def _turns(source: Source, report: FileReport) -> Iterator[Turn]:
    """Raises BadInput for a message over LIMIT."""
    name, pending, size = "", list[str](), 0
    for number, line in lines(source):
        match = BEGINNING.match(line)
        if match:
            yield from _turn(name, "\n".join(pending), report)
            report.noise["system message"] += match["name"] is None
            name, pending, size = match["name"] or "", [match["text"] or ""], 0
        else:
            pending.append(line)
        size += len(line)
        if size > LIMIT:
            raise source.bad(f", line {number}: one message is larger than {LIMIT >> 20} MiB.")
    yield from _turn(name, "\n".join(pending), report)


def _turn(name: str, text: str, report: FileReport) -> Iterator[Turn]:
    """The turn of one message. A picture is a turn without text: what follows does not answer what was before it."""
    name = re.sub(rf"^~\s?|{MARKS[:-1]}", "", name).strip()
    if not name:
        return
    text, count = EDITED.subn("", text)
    report.noise["edit mark"] += count if text.strip() else 0
    notice = text.startswith("\u200e")
    caption = text.strip("\u200e \n")
    first, _, rest = text.partition("\n")
    if OMITTED.match(first) or (count and not caption) or (notice and IOS_MEDIA.search(first)):
        report.noise["attachment"] += 1
        yield Turn("", rest.strip(), speaker=name)
    elif notice or DELETED.match(text):
        report.noise["system message"] += 1
    elif caption:
        yield Turn("", text.replace("\u200e", "").strip(), speaker=name)


WHATSAPP = TextFormat("WhatsApp", "WhatsApp's text of a chat", _detect, _read)
