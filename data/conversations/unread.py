"""What people bring and nothing reads: recognised by its content, with what to do."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from moltlm.data.conversations.source import Source, quoted
from moltlm.data.errors import BadInput


class Kind(NamedTuple):
    """A kind of file that is not read, and what to do instead."""

    what: str
    fix: str


DATABASE = Kind(
    "a database (SQLite)",
    "Export the chats from the application that wrote it: Cursor: Export Chat; Open WebUI: Settings > Chats > Export; "
    "SillyTavern: the folder chats; WhatsApp, Signal: Export chat.",
)
AS_TEXT = "Save its text as *.txt or *.md, and import that."
MAGIC: dict[bytes, Kind] = {
    b"SQLite format 3\0": DATABASE,
    b"%PDF": Kind("a PDF document", AS_TEXT),
    b"\xd0\xcf\x11\xe0": Kind("an old Office document", AS_TEXT),
    b"{\\rtf": Kind("an RTF document", AS_TEXT),
    b"7z\xbc\xaf\x27\x1c": Kind("a 7z archive", "Unpack it, and give the folder: 7z x -ounpacked {}"),
    b"Rar!": Kind("a RAR archive", "Unpack it, and give the folder: unrar x {} unpacked/"),
    b"\x89PNG": Kind("a PNG picture", "A character card makes a persona: molt init mine --from {}"),
    b"\xff\xd8\xff": Kind("a JPEG picture", "A picture holds no conversation: export the chat as text or JSON."),
    b"GIF8": Kind("a GIF picture", "A picture holds no conversation: export the chat as text or JSON."),
    b"ARROW1": Kind("an Arrow file", "Save it as Parquet or JSONL: Dataset.to_json('rows.jsonl')"),
    b"ADRA": Kind("a WhatsApp backup", "In WhatsApp open the chat: More > Export chat, and import the text."),
}
"""By the first bytes of a file."""

HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,500}?-->\s*)?<(?:!doctype html|html)\b", re.IGNORECASE | re.DOTALL
)
PAGES: tuple[tuple[re.Pattern[bytes], Kind], ...] = (
    (
        re.compile(rb"chatlog__|DiscordChatExporter", re.IGNORECASE),
        Kind("a web page of DiscordChatExporter", "Export as JSON: DiscordChatExporter.Cli export -f Json ..."),
    ),
    (
        re.compile(rb"tgme|page_header|Exported Data|history_page"),
        Kind("a web page of Telegram", "Export the chat again with the format: Machine-readable JSON."),
    ),
    (
        re.compile(rb"Gemini|mdl-grid|My Activity", re.IGNORECASE),
        Kind(
            "a web page of Gemini's activity (Google Takeout)",
            "Export My Activity again as JSON: Multiple formats > Activity records.",
        ),
    ),
    (
        re.compile(rb"jsonData|ChatGPT", re.IGNORECASE),
        Kind("a web page of the ChatGPT export", "Import the conversations.json beside it, or the whole zip."),
    ),
)
"""By the beginning of a web page."""
OTHER_PAGE = Kind("a web page (HTML)", "Export the chat as JSON, Markdown or text, and import that.")

DISCORD_TEXT = re.compile(rb"={20,}\r?\nGuild: ")
DISCORD = Kind("a text of DiscordChatExporter", "Export as JSON: DiscordChatExporter.Cli export -f Json ...")
AS_LINES = "Write a line for each turn, `Name: what is said`, and import that with --assistant NAME."
CHATS: tuple[tuple[re.Pattern[bytes], Kind], ...] = (
    (re.compile(rb"\[LINE\] "), Kind("a chat of LINE", AS_LINES)),
    (re.compile(r".{1,80}(?:님과 카카오톡 대화|KakaoTalk Chats)".encode()), Kind("a chat of KakaoTalk", AS_LINES)),
    (re.compile(rb"WEBVTT\b"), Kind("subtitles (WebVTT)", AS_LINES)),
    (re.compile(rb"1\r?\n\d\d:\d\d:\d\d,\d{3} --> "), Kind("subtitles (SRT)", AS_LINES)),
    (
        re.compile(rb"[A-Z][a-z]{2} \d\d, \d{4} +\d{1,2}:\d\d:\d\d [AP]M[^\n]{0,80}\n[^\n:]{1,60}\n"),
        Kind("a text of imessage-exporter", AS_LINES),
    ),
)
"""By the beginning of a text."""
BINARY = Kind("no text", "Export the chat as JSON, Markdown or text, and import that.")

SUFFIXES = {
    ".db": "a database",
    ".sqlite": "a database",
    ".vscdb": "a database of Cursor: export the chat",
    ".pdf": "a PDF document",
    ".docx": "a Word document: save it as text",
}


def by_suffix(suffix: str) -> str:
    """What a file of this suffix is that is not read; "" if nothing is known of it."""
    return SUFFIXES.get(suffix.lower(), "")


def error_for(source: Source, start: bytes) -> BadInput | None:
    """The error for a file whose first bytes show that it is not read."""
    kind = _kind(start)
    if kind is None:
        return None
    fix = kind.fix.replace("{}", quoted(source.name))
    return BadInput(f"{source.name} is {kind.what}, which is not read.", fix)


def _kind(start: bytes) -> Kind | None:
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return kind
    if start[4:12] in (b"ftypheic", b"ftypmp42", b"ftypisom"):
        return Kind("a picture or a film", "Export the chat as JSON or text.")
    if HTML.match(start[:2000]):
        return next((kind for pattern, kind in PAGES if pattern.search(start[: 1 << 14])), OTHER_PAGE)
    if DISCORD_TEXT.match(start):
        return DISCORD
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    return next((kind for pattern, kind in CHATS if pattern.match(text)), BINARY if b"\0" in start else None)
