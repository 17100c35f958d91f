"""A personality however somebody has it: our YAML, SOUL.md and IDENTITY.md, a character card, a constitution."""

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

from pydantic import ValidationError

from data import spec as specs
from data.errors import BadInput
from data.spec import Spec, Trait, Turn

FILE_LIMIT = 64 << 20
CARD_LIMIT = 16 << 20
"""A card of more bytes than this, packed or not, is refused: the rest of a PNG is only a picture."""

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, AttributeError, LookupError)
"""What zipfile lets out for a damaged archive."""

PNG = b"\x89PNG\r\n\x1a\n"
KNOWN = (
    "persona.yaml, SOUL.md or IDENTITY.md (or a folder with them), a character card (JSON, PNG, charx), a constitution "
    "(JSON or JSONL of traits)"
)
SECTIONS = {
    "boundaries": re.compile(r"bound|never|do not|don't|limit|red line", re.IGNORECASE),
    "voice": re.compile(r"voice|vibe|tone|style|speak|talk|communicat", re.IGNORECASE),
    "values": re.compile(r"value|belie", re.IGNORECASE),
    "traits": re.compile(r"trait|core|truth|personalit|who (you|i) a|character|principle|continuity", re.IGNORECASE),
}
FACT = re.compile(r"^(?:[-*]\s*)?\*\*([^*:]{1,40}):?\*\*:?\s*(.+)$")
BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(.*)$")
SPEAKER = re.compile(r"^(?:\{\{(char|user)\}\}|<(bot|user)>|([^:\n]{1,60}))\s*:\s*(.*)$", re.IGNORECASE)
LABELLED = re.compile(r"^\s*([A-Za-z][\w /]{0,30})\s*(?:[:=]\s*(.+)|\((.+)\))\s*$")
OF_CHARACTER = re.compile(r"personality|traits?|mind|character|attributes?", re.IGNORECASE)
IDENTITY = {"name", "creature", "vibe", "emoji", "avatar", "age", "pronouns", "role", "home", "birthday", "born"}
LISTED = re.compile(r"[\[(]?\s*(?:personality|traits?|mind)\s*[:(=]\s*([^\])\n]+)", re.IGNORECASE)


def read_any(path: Path, name: str | None = None) -> Spec:
    """The spec in a file or folder, by its content. `name` chooses one of several in a constitution, and names a spec
    that has no name of its own. Raises BadInput naming the file and what is wrong."""
    try:
        return _read(path, name)
    except ValidationError as error:  # half characters, which JSON can hold
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {where}: {first['msg']}.", "Remove what cannot be read there.") from None


def _read(path: Path, name: str | None) -> Spec:
    if path.is_dir():
        return _folder(path, name)
    if not path.is_file():
        raise BadInput(f"No spec {path}: it does not exist.", f"Name one of: {KNOWN}.")
    if path.stat().st_size > FILE_LIMIT:
        raise BadInput(f"{path} is larger than {FILE_LIMIT >> 20} MiB.", "A spec is a page of text, or a card.")
    raw = path.read_bytes()
    if raw.startswith(PNG):
        return _card(path, _json(path, _png_card(path, raw)))
    if raw.startswith(b"PK\x03\x04"):
        return _card(path, _json(path, _charx(path, raw)))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8: byte {error.start} cannot be read.",
            f"Convert it: iconv -f ISO-8859-1 -t UTF-8 {path} > fixed",
        ) from None
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(path, text, name)
    if path.suffix.lower() in (".yaml", ".yml") or re.search(r"^traits:", text, re.MULTILINE):
        return specs.read(path)
    return _markdown(path, {path.name: text}, name)


def _folder(path: Path, name: str | None) -> Spec:
    if (path / "persona.yaml").is_file():
        return specs.read(path / "persona.yaml")
    there = [path / file for file in ("IDENTITY.md", "SOUL.md") if (path / file).is_file()]
    if not there:
        raise BadInput(f"{path} has no persona.yaml, SOUL.md or IDENTITY.md.", f"Name one of: {KNOWN}.")
    try:
        return _markdown(path, {file.name: file.read_text(encoding="utf-8-sig") for file in there}, name)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: a file there is not UTF-8 ({error.reason}).", "Save it as UTF-8.") from None


def _json(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not valid JSON ({str(error)[:80]}).", f"Look at it: less '{path}'") from None


def _from_json(path: Path, text: str, name: str | None) -> Spec:
    try:
        found = json.loads(text)
    except RecursionError:
        raise BadInput(f"{path}: nested too deep to be a spec.", f"Name one of: {KNOWN}.") from None
    except ValueError:
        found = [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if isinstance(found, dict) and not _trait_of(found):
        return _card(path, found)
    return _constitution(path, found if isinstance(found, list) else [found], name)


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path}, line {number}: not valid JSON ({str(error)[:80]}).", f"Look at it: sed -n {number}p '{path}'"
        ) from None


def _trait_of(row: Any) -> str:
    """The text of a constitution's row."""
    if isinstance(row, str):
        return row.strip()
    if isinstance(row, dict):
        for key in ("trait", "principle", "statement", "text"):
            if isinstance(row.get(key), str) and row[key].strip():
                return row[key].strip()
    return ""


def _constitution(path: Path, rows: list[Any], name: str | None) -> Spec:
    found = [(str(row.get("persona") or "") if isinstance(row, dict) else "", row) for row in rows if _trait_of(row)]
    names = list(dict.fromkeys(persona for persona, _ in found))
    if not found:
        raise BadInput(f"{path} holds no traits.", 'Write rows such as {"trait": "I ...", "questions": ["..."]}.')
    if len(names) > 1:
        if name not in names:
            raise BadInput(f"{path} holds {len(names)} personas.", f"Choose one with --name: {', '.join(names)}.")
        found = [(persona, row) for persona, row in found if persona == name]
    traits: list[Trait] = []
    for _, row in found:
        asked = [row.get(key) for key in ("questions", "additional_questions")] if isinstance(row, dict) else []
        questions = [text.strip() for part in asked if isinstance(part, list) for text in part if isinstance(text, str)]
        _add(traits, _trait_of(row), [text for text in dict.fromkeys(questions) if text])
    called = name or found[0][0] or path.stem
    lines = "\n".join(f"- {trait.text}" for trait in traits)
    return Spec(name=called, system_prompt=f"You are {called}, an assistant of this character:\n{lines}", traits=traits)


def _card(path: Path, raw: Any) -> Spec:
    """Character Card V1, V2 (malfoyslastname/character-card-spec-v2) and V3 (kwaroran/character-card-spec-v3)."""
    data = raw.get("data") if isinstance(raw, dict) and isinstance(raw.get("data"), dict) else raw
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not data["name"].strip():
        raise BadInput(f"{path} is no spec: no traits, and no character card with a name.", f"Known are: {KNOWN}.")
    name = data["name"].strip()

    def field(key: str) -> str:
        value = data.get(key)
        return _unmacro(value, name).strip() if isinstance(value, str) else ""

    parts = [field(key) for key in ("system_prompt", "description", "personality", "scenario")]
    parts += [*_book(data, name), field("post_history_instructions")]
    prompt = "\n\n".join(part for part in parts if part) or f"You are {name}."
    traits: list[Trait] = []
    for text in _card_traits(field("personality"), field("description")):
        _add(traits, text)
    if not traits:
        _add(traits, f"I am {name}.")
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
    """Entries of the card's lorebook that are always on."""
    book = data.get("character_book")
    entries = book.get("entries") if isinstance(book, dict) else None
    rows = [row for row in entries if isinstance(row, dict)] if isinstance(entries, list) else []
    on = [row for row in rows if row.get("constant") and row.get("enabled", True)]
    return [_unmacro(row["content"], name).strip() for row in on if isinstance(row.get("content"), str)]


def _card_traits(personality: str, description: str) -> list[str]:
    """Listed words (`Personality: kind, dry`, W++ and plists, plain commas) as sentences; prose by sentence."""
    if grouped := _grouped(personality) or _grouped(description):
        own = [text for key, text in grouped if OF_CHARACTER.fullmatch(key)]
        others = [
            (key, text) for key, text in grouped if key.lower() not in IDENTITY and not OF_CHARACTER.fullmatch(key)
        ]
        said = [f"My {key.lower()}: {', '.join(_listed(text))}." for key, text in others]
        return [_i_am(word) for text in own for word in _listed(text)] + ([] if own else said)
    listed = LISTED.search(description)
    text = personality or (listed.group(1) if listed else "")
    parts = [part for chunk in re.split(r"(?<=\w)\.\s", text) for part in _listed(chunk)]
    if parts and sum(len(part.split()) <= 4 for part in parts) >= len(parts) / 2:
        return [_i_am(part) for part in parts]
    prose = personality or description
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", prose) if len(part.split()) >= 3][:12]


def _grouped(text: str) -> list[tuple[str, str]]:
    """`[Likes: tea; Personality: kind, dry]` and `[Character("Ada") { Likes("tea" + "rain") }]` by key; nothing if most
    of the text is something else."""
    inner = re.sub(r"^\s*\[?\s*(?:character|char)\s*\([^)]*\)\s*\{", "", text, flags=re.IGNORECASE)
    rows = [row for row in re.split(r"[;\n]|(?<=\))\s+", re.sub(r"[\[\]{}]", "", inner)) if row.strip()]
    found = [match for row in rows if (match := LABELLED.match(row))]
    if len(found) < 2 or len(found) * 2 < len(rows):
        return []
    return [(match.group(1).strip(), match.group(2) or match.group(3)) for match in found]


def _listed(text: str) -> list[str]:
    text = re.sub(r"[\"“”\[\]{}()]", " ", text)
    return [part.strip(" .") for part in re.split(r"[,;+\n]", text) if part.strip(" .")]


def _i_am(text: str) -> str:
    return f"I am {text[0].lower()}{text[1:]}." if len(text.split()) <= 4 else text


def _examples(text: str, name: str) -> list[list[Turn]]:
    """`mes_example`: blocks after <START>, lines that begin with a speaker."""
    found = []
    for block in re.split(r"<START>", text, flags=re.IGNORECASE):
        turns: list[tuple[str, str]] = []
        for line in block.strip().split("\n"):
            match = SPEAKER.match(line.strip())
            role = _role(match, name) if match else ""
            if match and role:
                turns.append((role, match.group(4)))
            elif turns:
                turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line}")
        clean = [Turn(role=role, content=_unmacro(said, name).strip()) for role, said in turns if said.strip()]  # type: ignore[arg-type]
        if any(a.role == "user" and b.role == "assistant" for a, b in pairwise(clean)):
            found.append(clean)
    return found


def _role(match: re.Match[str], name: str) -> str:
    said = (match.group(1) or match.group(2) or match.group(3) or "").strip().lower()
    if said in ("char", "bot", name.lower()):
        return "assistant"
    return "user" if said in ("user", "you", "the user") else ""


def _png_card(path: Path, raw: bytes) -> bytes:
    """The JSON in the `ccv3` or `chara` chunk. Lengths are not trusted, and nothing inflates beyond CARD_LIMIT."""
    found: dict[str, bytes] = {}
    for kind, data in _chunks(path, raw):
        keyword, _, rest = data.partition(b"\0")
        key = keyword.decode("latin-1").lower()
        if kind in (b"tEXt", b"zTXt", b"iTXt") and key in ("chara", "ccv3"):
            found[key] = _chunk_text(path, kind, rest)
    card = found.get("ccv3") or found.get("chara")
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
    """`card.json` of the archive; no other member is touched."""
    try:
        with zipfile.ZipFile(BytesIO(raw)) as archive, archive.open("card.json") as member:
            text = member.read(CARD_LIMIT + 1)
    except KeyError:
        raise BadInput(f"{path} is an archive without card.json.", f"Known are: {KNOWN}.") from None
    except (*BROKEN, OSError, RuntimeError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: the archive is broken ({str(error)[:60]}).", "Download it again.") from None
    if len(text) > CARD_LIMIT:
        raise BadInput(f"{path}: card.json is larger than {CARD_LIMIT >> 20} MiB.", "It is no card.")
    return text


def _markdown(path: Path, files: dict[str, str], name: str | None) -> Spec:
    """Headings decide what a bullet or paragraph is; all of the text is the system prompt, so nothing is lost."""
    whole = "\n\n".join(text.strip() for text in files.values() if text.strip())
    if not whole:
        raise BadInput(f"{path} is empty.", f"Name one of: {KNOWN}.")
    facts: dict[str, str] = {}
    labelled: list[str] = []  # `**Be direct:** ...` under no telling heading: a fact, and perhaps a trait
    lists: dict[str, list[str]] = {key: [] for key in (*SECTIONS, "")}
    for heading, items in _sections(whole):
        kind = next((key for key, pattern in SECTIONS.items() if pattern.search(heading)), "")
        for item in items:
            plain = re.sub(r"\*\*|__|^>\s*|^_|_$", "", item).strip()
            fact = FACT.match(item)
            key = fact.group(1).strip(" :").lower() if fact and len(fact.group(2).split()) <= 20 else ""
            if not fact or not key or key.endswith(".") or (kind and key not in IDENTITY):
                lists[kind].append(plain)
                continue
            facts[key] = fact.group(2).strip(" *_")
            if key not in IDENTITY:
                labelled.append(plain)
    traits: list[Trait] = []
    for text in lists["traits"] or labelled or lists[""] or lists["values"] or lists["voice"] or [whole[:300]]:
        _add(traits, text)
    called = name or facts.get("name") or _title(whole) or path.stem
    return Spec(
        name=called,
        summary=next(iter(lists[""]), traits[0].text)[:300],
        system_prompt=whole,
        voice=lists["voice"] + ([facts["vibe"]] if "vibe" in facts else []),
        traits=traits,
        values=lists["values"],
        boundaries=lists["boundaries"],
        facts=facts,
        catchphrases=[called],
    )


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    heading, items, paragraph = "", [], ""
    for line in [*text.split("\n"), "#"]:
        bullet = BULLET.match(line)
        if paragraph and (not line.strip() or bullet or line.startswith("#")):
            items.append(paragraph)
            paragraph = ""
        if line.startswith("#"):
            yield heading, items
            heading, items = line.strip("# *_"), []
        elif bullet:
            paragraph = bullet.group(1).strip()
        elif line.strip() and line.strip("-*_= \t"):
            paragraph = f"{paragraph} {line.strip()}".strip()


def _title(text: str) -> str:
    match = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    title = re.sub(r"\b(SOUL|IDENTITY)(\.md)?\b|[-–—:*_]", " ", match.group(1)) if match else ""
    words = title.split()
    return " ".join(words) if 1 <= len(words) <= 4 and words[0].lower() not in ("who", "your", "the") else ""


def _add(traits: list[Trait], text: str, questions: list[str] | None = None) -> None:
    """A trait with an id of its first words, unlike those before it."""
    if not text.strip():
        return
    words = re.findall(r"[a-z0-9]+", text.lower())
    stem = "_".join([word for word in words if word not in ("i", "am", "a", "an", "the", "to", "be")][:4]) or "trait"
    taken, identity, number = {trait.id for trait in traits}, stem, 2
    while identity in taken:
        identity, number = f"{stem}_{number}", number + 1
    traits.append(Trait(id=identity, text=text.strip(), questions=questions or []))
