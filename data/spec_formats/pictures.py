"""The card in a picture or an archive: PNG text chunks, EXIF of WEBP and JPEG, and charx, alone or behind a picture.

Only the parts that may hold a card are read, so that a picture or an archive may be of any size.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import lzma
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from moltlm.data.errors import BadInput
from moltlm.data.spec_formats.reading import Source, parse_json

PNG = b"\x89PNG\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
CARD_LIMIT = 16 << 20
"""Maximum size of a card in bytes, compressed or not."""
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
)
"""What zipfile raises for a damaged archive."""
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
OBJECT = re.compile(r'\{\s*"')
TRIES = 50
"""Places in the metadata of a picture at which a JSON object may begin."""
DOCUMENTS = {
    "word/document.xml": "a Word document: save it as Markdown or text",
    "content.xml": "an OpenDocument file: save it as Markdown or text",
    "META-INF/container.xml": "an e-book (EPUB)",
    "xl/workbook.xml": "a spreadsheet",
}
"""Members that tell other archives from charx."""


def card_in(source: Source, head: bytes) -> tuple[Any, str] | None:
    """The card in a picture or archive, and what holds it; None for any other file.

    Args:
        head: how the file begins.

    Raises:
        BadInput: for a picture or archive without a card.
    """
    if head.startswith(ZIP):
        return _archived(source, ""), "charx"
    if head.startswith(PNG):
        return _in_picture(source, "PNG", _png)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _in_picture(source, "WEBP", _webp)
    if head.startswith(b"\xff\xd8\xff"):
        return _in_picture(source, "JPEG", _jpeg)
    if head.startswith((b"GIF8", b"BM")) or head[4:12] in (b"ftypavif", b"ftypheic"):
        raise _no_card(source)
    return None


def _in_picture(source: Source, kind: str, find: Any) -> tuple[Any, str]:
    with source.path.open("rb") as file:
        card = find(source, file)
    if card is not None:
        return card, kind
    if zipfile.is_zipfile(source.path):
        return _archived(source, f" behind the {kind}"), f"charx behind a {kind}"
    raise _no_card(source)


def _no_card(source: Source) -> BadInput:
    return source.bad(
        " is a picture without a character card.",
        f"Export the character as JSON or as a PNG card, and read that: {source.command('card.json')}",
    )


def _png(source: Source, file: BinaryIO) -> Any:
    """The card in the `ccv3` chunk, or else in `chara`. Lengths are checked, and CARD_LIMIT bounds what is inflated."""
    cards: dict[str, bytes] = {}
    for kind, data in _png_chunks(source, file):
        keyword, _, rest = data.partition(b"\0")
        key = keyword.decode("latin-1").strip().lower()
        if key in ("chara", "ccv3") and (key not in cards or len(rest) > len(cards[key])):
            cards[key] = _chunk_text(source, kind, rest)
    errors: list[BadInput] = []
    for key in ("ccv3", "chara"):
        try:
            if key in cards:
                return _decoded(source, cards[key])
        except BadInput as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return None


def _png_chunks(source: Source, file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The text chunks; the others are skipped."""
    size = file.seek(0, os.SEEK_END)
    place = len(PNG)
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if place + 12 + length > size:
            raise source.bad(
                f": the picture ends within a chunk, at byte {size}.",
                "Download it again, and read that: " + source.command(),
            )
        if kind in TEXT_CHUNKS:
            if length > CARD_LIMIT:
                raise source.bad(f": a text chunk has more than {CARD_LIMIT >> 20} MiB.", "It is no card.")
            yield kind, file.read(length)
        place += 12 + length
        if kind == b"IEND":
            return


def _chunk_text(source: Source, kind: bytes, rest: bytes) -> bytes:
    if kind == b"tEXt":
        return rest
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.split(b"\0", 2)[-1]
        return _inflate(source, rest) if packed else rest
    return _inflate(source, rest[1:])


def _inflate(source: Source, packed: bytes) -> bytes:
    try:
        engine = zlib.decompressobj()
        text = engine.decompress(packed, CARD_LIMIT)
    except zlib.error:
        raise source.bad(
            ": a text chunk cannot be unpacked.", "Download it again, and read that: " + source.command()
        ) from None
    if engine.unconsumed_tail:
        raise source.bad(f": a text chunk unpacks to more than {CARD_LIMIT >> 20} MiB.", "It is no card.")
    return text


def _decoded(source: Source, text: bytes) -> Any:
    """The card in a chunk: base64, with padding or without, or plain JSON."""
    text = text.strip(b"\0 \t\r\n")
    if text[:1] in (b"{", b"["):
        return parse_json(source, text)
    return parse_json(source, _from_base64(source, text))


def _from_base64(source: Source, text: bytes) -> bytes:
    packed = re.sub(rb"\s+", b"", text).replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=False)
    except (binascii.Error, ValueError):
        raise source.bad(
            ": the card in it is not base64.", f"Export it again as JSON, and read that: {source.command('card.json')}"
        ) from None


def _webp(source: Source, file: BinaryIO) -> Any:
    """The card in the EXIF or XMP chunk of a RIFF file."""
    size = file.seek(0, os.SEEK_END)
    place = 12
    while place + 8 <= size:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(8))
        metadata = kind in (b"EXIF", b"XMP ", b"JUNK", b"CHAR") and length <= CARD_LIMIT
        if metadata and (card := _in_metadata(file.read(length))) is not None:
            return card
        place += 8 + length + length % 2
    return None


def _jpeg(source: Source, file: BinaryIO) -> Any:
    """The card in a comment or an application segment (EXIF) of a JPEG, each of up to 64 KiB."""
    parts: list[bytes] = []
    file.seek(2)
    while len(mark := file.read(4)) == 4 and mark[0] == 0xFF and mark[1] not in (0xD9, 0xDA):
        length = struct.unpack(">H", mark[2:])[0] - 2
        if length < 0:
            break
        data = file.read(length)
        if mark[1] == 0xFE or 0xE1 <= mark[1] <= 0xEF:
            parts.append(data)
    for part in [*parts, b"".join(parts)]:
        if (card := _in_metadata(part)) is not None:
            return card
    return None


def _in_metadata(data: bytes) -> Any:
    """The card in a block of metadata: JSON, base64 of it, or its bytes as decimal numbers (TavernAI); else None."""
    plain = data.decode("utf-8", "replace")
    for text in (plain, html.unescape(plain) if "&quot;" in plain else "", _wide(data)):
        if (card := _object_in(text)) is not None:
            return card
    for match in re.finditer(rb"(?:[A-Za-z0-9+/_-]{60,}={0,2})", data):
        packed = match.group().rstrip(b"=")
        try:
            text = base64.b64decode(packed + b"=" * (-len(packed) % 4), altchars=b"+/").decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            continue
        if (card := _object_in(text)) is not None:
            return card
    if numbers := re.search(rb"\d{1,3}(?:,\s?\d{1,3}){30,}", data):
        values = [int(each) for each in numbers.group().split(b",")]
        return _object_in(bytes(value for value in values if value < 256).decode("utf-8", "replace"))
    return None


def _wide(data: bytes) -> str:
    """The text of a UTF-16 comment, which EXIF marks as UNICODE; "" if there is none."""
    place = data.find(b"UNICODE\0")
    if place < 0:
        return ""
    text = data[place + 8 :]
    little = text[1:2] == b"\0"
    return text.decode("utf-16-le" if little else "utf-16-be", "replace")


def _object_in(text: str) -> Any:
    """The first JSON object in a text that may be a card."""
    decode = json.JSONDecoder().raw_decode
    for count, match in enumerate(OBJECT.finditer(text)):
        if count == TRIES:
            return None
        try:
            value, _ = decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and ("name" in value or "char_name" in value or "data" in value):
            return value
    return None


def _archived(source: Source, where: str) -> Any:
    """The `card.json` of an archive, or the card in the one picture there; no other member is read."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = [name for name in archive.namelist() if "__MACOSX" not in name]
            name = _member(names)
            text = b""
            if name:
                with archive.open(name) as member:
                    text = member.read(CARD_LIMIT + 1)
    except BROKEN as error:
        raise source.bad(
            f": the archive{where} is broken ({str(error)[:60]}).",
            "Download it again, and read that: " + source.command(),
        ) from None
    if not name:
        raise _other_archive(source, names, where)
    if len(text) > CARD_LIMIT:
        raise source.bad(f": {name} is larger than {CARD_LIMIT >> 20} MiB.", "It is no card.")
    if not text.startswith(PNG):
        return parse_json(source, text)
    card = _png(source, BytesIO(text))
    if card is None:
        raise _no_card(source)
    return card


def _member(names: list[str]) -> str:
    """The name of the member that holds the card; "" if none does."""
    cards = [name for name in names if PurePosixPath(name).name.lower() == "card.json"]
    pictures = [name for name in names if name.lower().endswith(".png")]
    return min(cards, key=len) if cards else pictures[0] if len(pictures) == 1 else ""


def _other_archive(source: Source, names: list[str], where: str) -> BadInput:
    for member, what in DOCUMENTS.items():
        if member in names:
            return source.bad(f" is {what}.", f"Then read that: {source.command('persona.md')}")
    if any(name.startswith("characters/") for name in names) and "manifest.json" in names:
        return source.bad(
            " is a Backyard AI archive.",
            f"Export the character as a PNG card, and read that: {source.command('card.png')}",
        )
    folder = source.path.stem or "unpacked"
    unpack = f"unzip -d {shlex.quote(folder)} {shlex.quote(str(source.path))}"
    return source.bad(
        f" is an archive without card.json{where}.",
        f"Unpack it and read what is in it: {unpack} && {source.command(folder)}",
    )
