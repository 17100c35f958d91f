"""Read a personality from any supported format: persona.yaml, SOUL.md and IDENTITY.md, a character card, a
constitution."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moltlm.data import cards
from moltlm.data import spec as specs
from moltlm.data.errors import BadInput
from moltlm.data.spec import IDENTITY, Spec, Trait, add_trait

FILE_LIMIT = 64 << 20
"""Maximum size of a file in bytes."""

SECTIONS = {
    "boundaries": re.compile(r"bound|never|do not|don't|limit|red line", re.IGNORECASE),
    "voice": re.compile(r"voice|vibe|tone|style|speak|talk|communicat", re.IGNORECASE),
    "values": re.compile(r"value|belie", re.IGNORECASE),
    "traits": re.compile(r"trait|core|truth|personalit|who (you|i) a|character|principle|continuity", re.IGNORECASE),
}
FACT = re.compile(r"^(?:[-*]\s*)?\*\*([^*:]{1,40}):?\*\*:?\s*(.+)$")
BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(.*)$")


def read_any(path: Path, name: str | None = None) -> Spec:
    """Read the spec in a file or folder, whose format is detected from its content.

    Args:
        name: selects one of several personas in a constitution, and names a spec without a name.

    Raises:
        BadInput: naming the file and what is wrong.
    """
    try:
        return _read(path, name)
    except ValidationError as error:  # lone surrogates, which JSON can hold
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {where}: {first['msg']}.", "Remove what cannot be read there.") from None


def _read(path: Path, name: str | None) -> Spec:
    if path.is_dir():
        return _folder(path, name)
    if not path.is_file():
        raise BadInput(f"No spec {path}: it does not exist.", f"Name one of: {cards.SUPPORTED}.")
    if path.stat().st_size > FILE_LIMIT:
        raise BadInput(f"{path} is larger than {FILE_LIMIT >> 20} MiB.", "A spec is a page of text, or a card.")
    raw = path.read_bytes()
    if raw.startswith(cards.PNG):
        return cards.from_png(path, raw)
    if raw.startswith(b"PK\x03\x04"):
        return cards.from_charx(path, raw)
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
    files = [path / file for file in ("IDENTITY.md", "SOUL.md") if (path / file).is_file()]
    if not files:
        raise BadInput(f"{path} has no persona.yaml, SOUL.md or IDENTITY.md.", f"Name one of: {cards.SUPPORTED}.")
    try:
        return _markdown(path, {file.name: file.read_text(encoding="utf-8-sig") for file in files}, name)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: a file there is not UTF-8 ({error.reason}).", "Save it as UTF-8.") from None


def _from_json(path: Path, text: str, name: str | None) -> Spec:
    try:
        value = json.loads(text)
    except RecursionError:
        raise BadInput(f"{path}: nested too deep to be a spec.", f"Name one of: {cards.SUPPORTED}.") from None
    except ValueError:
        value = [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if isinstance(value, dict) and not _trait_of(value):
        return cards.from_json(path, value)
    return _constitution(path, value if isinstance(value, list) else [value], name)


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path}, line {number}: not valid JSON ({str(error)[:80]}).", f"Look at it: sed -n {number}p '{path}'"
        ) from None


def _trait_of(row: Any) -> str:
    """The trait in a row of a constitution; "" if it has none."""
    if isinstance(row, str):
        return row.strip()
    if isinstance(row, dict):
        for key in ("trait", "principle", "statement", "text"):
            if isinstance(row.get(key), str) and row[key].strip():
                return row[key].strip()
    return ""


def _constitution(path: Path, rows: list[Any], name: str | None) -> Spec:
    labelled = [(str(row.get("persona") or "") if isinstance(row, dict) else "", row) for row in rows if _trait_of(row)]
    names = list(dict.fromkeys(persona for persona, _ in labelled))
    if not labelled:
        raise BadInput(f"{path} holds no traits.", 'Write rows such as {"trait": "I ...", "questions": ["..."]}.')
    if len(names) > 1:
        if name not in names:
            raise BadInput(f"{path} holds {len(names)} personas.", f"Choose one with --name: {', '.join(names)}.")
        labelled = [(persona, row) for persona, row in labelled if persona == name]
    traits: list[Trait] = []
    for _, row in labelled:
        lists = [row.get(key) for key in ("questions", "additional_questions")] if isinstance(row, dict) else []
        questions = [text.strip() for part in lists if isinstance(part, list) for text in part if isinstance(text, str)]
        add_trait(traits, _trait_of(row), [text for text in dict.fromkeys(questions) if text])
    called = name or labelled[0][0] or path.stem
    lines = "\n".join(f"- {trait.text}" for trait in traits)
    return Spec(name=called, system_prompt=f"You are {called}, an assistant of this character:\n{lines}", traits=traits)


def _markdown(path: Path, files: dict[str, str], name: str | None) -> Spec:
    """Headings decide what a bullet or paragraph is. The whole text is the system prompt, so nothing is lost."""
    whole = "\n\n".join(text.strip() for text in files.values() if text.strip())
    if not whole:
        raise BadInput(f"{path} is empty.", f"Name one of: {cards.SUPPORTED}.")
    facts: dict[str, str] = {}
    labelled: list[str] = []  # `**Be direct:** ...` under no heading of SECTIONS: a fact, and perhaps a trait
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
        add_trait(traits, text)
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
