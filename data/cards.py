"""Character cards V1, V2 and V3: JSON, the text chunk of a PNG, or card.json in a charx archive."""

from __future__ import annotations

import base64
import binascii
import json
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.spec import IDENTITY, Spec, Trait, Turn, add_trait

SUPPORTED = (
    "persona.yaml, SOUL.md or IDENTITY.md (or a folder with them), a character card (JSON, PNG, charx), a constitution "
    "(JSON or JSONL of traits)"
)
CARD_LIMIT = 16 << 20
"""Maximum size of a card in bytes, compressed or not. (The picture of a PNG may be larger.)"""
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, AttributeError, LookupError)
"""What zipfile raises for a damaged archive, besides the built-in errors."""
PNG = b"\x89PNG\r\n\x1a\n"
SPEAKER = re.compile(r"^(?:\{\{(char|user)\}\}|<(bot|user)>|([^:\n]{1,60}))\s*:\s*(.*)$", re.IGNORECASE)
LABELLED = re.compile(r"^\s*([A-Za-z][\w /]{0,30})\s*(?:[:=]\s*(.+)|\((.+)\))\s*$")
OF_CHARACTER = re.compile(r"personality|traits?|mind|character|attributes?", re.IGNORECASE)
LISTED = re.compile(r"[\[(]?\s*(?:personality|traits?|mind)\s*[:(=]\s*([^\])\n]+)", re.IGNORECASE)


def from_png(path: Path, raw: bytes) -> Spec:
    """Read the card in a PNG. Raises BadInput if it has none. `path` only names the file in errors."""
    return from_json(path, _json(path, _png_card(path, raw)))


def from_charx(path: Path, raw: bytes) -> Spec:
    """Read the card in a charx archive. Raises BadInput if it has none. `path` only names the file in errors."""
    return from_json(path, _json(path, _charx(path, raw)))


def from_json(path: Path, raw: Any) -> Spec:
    """Read a card V1, V2 (malfoyslastname/character-card-spec-v2) or V3 (kwaroran/character-card-spec-v3).

    Raises:
        BadInput: if the value is no card with a name.
    """
    data = raw.get("data") if isinstance(raw, dict) and isinstance(raw.get("data"), dict) else raw
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not data["name"].strip():
        raise BadInput(f"{path} is no spec: no traits, and no character card with a name.", f"Known are: {SUPPORTED}.")
    name = data["name"].strip()

    def field(key: str) -> str:
        value = data.get(key)
        return _unmacro(value, name).strip() if isinstance(value, str) else ""

    parts = [field(key) for key in ("system_prompt", "description", "personality", "scenario")]
    parts += [*_book(data, name), field("post_history_instructions")]
    prompt = "\n\n".join(part for part in parts if part) or f"You are {name}."
    traits: list[Trait] = []
    for text in _card_traits(field("personality"), field("description")):
        add_trait(traits, text)
    if not traits:
        add_trait(traits, f"I am {name}.")
    opening = field("first_mes")
    summary = (field("creator_notes") or field("description") or field("personality")).split("\n")[0][:300]
    example = data.get("mes_example")
    return Spec(
        name=name,
        summary=summary,
        system_prompt=prompt,
        voice=[f"Opens a conversation like this: {opening}"] if opening else [],
        traits=traits,
        dialogues=_examples(example, name) if isinstance(example, str) else [],
        catchphrases=[name],
    )


def _unmacro(text: str, name: str) -> str:
    text = re.sub(r"\{\{char\}\}|<BOT>", lambda _: name, text, flags=re.IGNORECASE)
    return re.sub(r"\{\{user\}\}|<USER>", "the user", text, flags=re.IGNORECASE)


def _book(data: dict[str, Any], name: str) -> list[str]:
    """The entries of the card's lorebook that always apply."""
    book = data.get("character_book")
    entries = book.get("entries") if isinstance(book, dict) else None
    rows = [row for row in entries if isinstance(row, dict)] if isinstance(entries, list) else []
    on = [row for row in rows if row.get("constant") and row.get("enabled", True)]
    return [_unmacro(row["content"], name).strip() for row in on if isinstance(row.get("content"), str)]


def _card_traits(personality: str, description: str) -> list[str]:
    """Traits as sentences, from lists of words (`Personality: kind, dry`, W++, plists, commas) or from prose."""
    if grouped := _grouped(personality) or _grouped(description):
        character = [text for key, text in grouped if OF_CHARACTER.fullmatch(key)]
        others = [(key.lower(), text) for key, text in grouped if key.lower() not in IDENTITY]
        sentences = [f"My {key}: {', '.join(_listed(text))}." for key, text in others]
        return [_i_am(word) for text in character for word in _listed(text)] or sentences
    listed = LISTED.search(description)
    text = personality or (listed.group(1) if listed else "")
    parts = [part for chunk in re.split(r"(?<=\w)\.\s", text) for part in _listed(chunk)]
    if parts and sum(len(part.split()) <= 4 for part in parts) >= len(parts) / 2:
        return [_i_am(part) for part in parts]
    prose = personality or description
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", prose) if len(part.split()) >= 3][:12]


def _grouped(text: str) -> list[tuple[str, str]]:
    """The parts of `[Likes: tea; Personality: kind, dry]` or `[Character("Ada") { Likes("tea" + "rain") }]` with their
    keys; nothing if most of the text is something else."""
    inner = re.sub(r"^\s*\[?\s*(?:character|char)\s*\([^)]*\)\s*\{", "", text, flags=re.IGNORECASE)
    rows = [row for row in re.split(r"[;\n]|(?<=\))\s+", re.sub(r"[\[\]{}]", "", inner)) if row.strip()]
    matches = [match for row in rows if (match := LABELLED.match(row))]
    if len(matches) < 2 or len(matches) * 2 < len(rows):
        return []
    return [(match.group(1).strip(), match.group(2) or match.group(3)) for match in matches]


def _listed(text: str) -> list[str]:
    text = re.sub(r"[\"“”\[\]{}()]", " ", text)
    return [part.strip(" .") for part in re.split(r"[,;+\n]", text) if part.strip(" .")]


def _i_am(text: str) -> str:
    return f"I am {text[0].lower()}{text[1:]}." if len(text.split()) <= 4 else text


def _examples(text: str, name: str) -> list[list[Turn]]:
    """The dialogues of `mes_example`: blocks after <START>, with lines that begin with a speaker."""
    dialogues = []
    for block in re.split(r"<START>", text, flags=re.IGNORECASE):
        turns: list[tuple[str, str]] = []
        for line in block.strip().split("\n"):
            match = SPEAKER.match(line.strip())
            role = _role(match, name) if match else ""
            if match and role:
                turns.append((role, match.group(4)))
            elif turns:
                turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line}")
        clean = [Turn(role=role, content=_unmacro(text, name).strip()) for role, text in turns if text.strip()]  # type: ignore[arg-type]
        if any(a.role == "user" and b.role == "assistant" for a, b in pairwise(clean)):
            dialogues.append(clean)
    return dialogues


def _role(match: re.Match[str], name: str) -> str:
    speaker = (match.group(1) or match.group(2) or match.group(3) or "").strip().lower()
    if speaker in ("char", "bot", name.lower()):
        return "assistant"
    return "user" if speaker in ("user", "you", "the user") else ""


def _png_card(path: Path, raw: bytes) -> bytes:
    """The JSON in the `ccv3` or `chara` chunk. Lengths are checked, and nothing is inflated beyond CARD_LIMIT."""
    cards: dict[str, bytes] = {}
    for kind, data in _chunks(path, raw):
        keyword, _, rest = data.partition(b"\0")
        key = keyword.decode("latin-1").lower()
        if kind in (b"tEXt", b"zTXt", b"iTXt") and key in ("chara", "ccv3"):
            cards[key] = _chunk_text(path, kind, rest)
    card = cards.get("ccv3") or cards.get("chara")
    if card is None:
        raise BadInput(f"{path} is a picture without a character card.", "Export it again as a card, or give the JSON.")
    try:
        return base64.b64decode(card, validate=False)
    except (binascii.Error, ValueError):
        raise BadInput(f"{path}: the card in it is not base64.", "Export it again, or give the JSON.") from None


def _chunks(path: Path, raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG)
    while place + 8 <= len(raw):
        length, kind = struct.unpack(">I4s", raw[place : place + 8])
        if place + 12 + length > len(raw):
            raise BadInput(f"{path}: the picture ends within a chunk, at byte {len(raw)}.", "Download it again.")
        yield kind, raw[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IEND":
            return


def _chunk_text(path: Path, kind: bytes, rest: bytes) -> bytes:
    if kind == b"tEXt":
        return rest
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.split(b"\0", 2)[-1]
        return _inflate(path, rest) if packed else rest
    return _inflate(path, rest[1:])


def _inflate(path: Path, packed: bytes) -> bytes:
    try:
        engine = zlib.decompressobj()
        text = engine.decompress(packed, CARD_LIMIT)
    except zlib.error:
        raise BadInput(f"{path}: a text chunk cannot be unpacked.", "Download it again.") from None
    if engine.unconsumed_tail:
        raise BadInput(f"{path}: a text chunk unpacks to more than {CARD_LIMIT >> 20} MiB.", "It is no card.")
    return text


def _charx(path: Path, raw: bytes) -> bytes:
    """The `card.json` of the archive; no other member is read."""
    try:
        with zipfile.ZipFile(BytesIO(raw)) as archive, archive.open("card.json") as member:
            text = member.read(CARD_LIMIT + 1)
    except KeyError:
        raise BadInput(f"{path} is an archive without card.json.", f"Known are: {SUPPORTED}.") from None
    except (*BROKEN, OSError, RuntimeError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: the archive is broken ({str(error)[:60]}).", "Download it again.") from None
    if len(text) > CARD_LIMIT:
        raise BadInput(f"{path}: card.json is larger than {CARD_LIMIT >> 20} MiB.", "It is no card.")
    return text


def _json(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not valid JSON ({str(error)[:80]}).", f"Look at it: less '{path}'") from None
