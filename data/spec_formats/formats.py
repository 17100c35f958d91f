"""The table of formats that are an object in JSON or YAML. A format is detected from the fields, never from a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moltlm.data.spec_formats import agnai, assistants, cards, constitution, eliza, refused, webui
from moltlm.data.spec_formats.reading import Source, SpecReading, text_of


@dataclass(frozen=True)
class SpecFormat:
    """A shape of personas: what an error calls it, whether an object has it, and how to read one."""

    description: str
    detect: Callable[[dict[str, Any]], bool]
    read: Callable[[Source, dict[str, Any]], SpecReading]


FORMATS = (
    SpecFormat("an Agnai character", agnai.is_character, agnai.read),
    SpecFormat("an ElizaOS character", eliza.is_character, eliza.read),
    SpecFormat("a text-generation-webui character (YAML)", webui.is_character, webui.read),
    SpecFormat("a character card (JSON, PNG, WEBP, JPEG, charx)", cards.is_card, cards.read),
    SpecFormat("a constitution (JSON or JSONL of traits)", constitution.is_document, constitution.read_document),
    SpecFormat(
        "an assistant with instructions (OpenAI, custom GPT, Open WebUI, LobeChat)",
        assistants.is_assistant,
        assistants.read,
    ),
)  # fmt: skip
"""An object has the first format whose `detect` is true: those with fields of their own come first."""
WRAPPERS = ("data", "character", "char", "card", "node", "definition", "bot", "agent", "assistant", "persona")
"""Fields in which an export may hold the object that is read."""
LISTS = ("data", "characters", "agents", "assistants", "personas", "models")
"""Fields in which an export may hold a list of such objects."""

SUPPORTED = "; ".join(
    [
        "persona.yaml",
        "SOUL.md, IDENTITY.md or other Markdown, or a folder with them",
        *(each.description for each in FORMATS),
        "a Modelfile",
    ]
)


def detect(record: Any) -> SpecFormat | None:
    """The format of a value, or None."""
    if not isinstance(record, dict):
        return None
    return next((each for each in FORMATS if each.detect(record)), None)


def read_value(source: Source, value: Any) -> SpecReading:
    """Read an object, a list of objects of which one is chosen by its name, or rows of a constitution.

    Raises:
        BadInput: if it is none of these, saying what it is.
    """
    if isinstance(value, dict):
        rows = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
        if rows is None or not any(isinstance(row, dict) and _unwrapped(row)[1] for row in rows) or detect(value):
            return _object(source, value)
        value = rows
    rows = value if isinstance(value, list) else [value]
    personas = [(record, format) for row in rows for record, format in [_unwrapped(row)] if format]
    if personas and not any(isinstance(row, str) for row in rows):
        record, format = _chosen(source, personas)
        return format.read(source, record)
    for row in rows[:1]:
        if isinstance(row, dict) and not constitution.trait_of(row):
            raise refused.error_about(source, row)
    return constitution.read(source, rows)


def _object(source: Source, record: dict[str, Any]) -> SpecReading:
    inner, format = _unwrapped(record)
    if format:
        return format.read(source, inner)
    if not refused.is_known(record) and constitution.trait_of(record):
        return constitution.read(source, [record])
    raise refused.error_about(source, record)


def _unwrapped(record: Any) -> tuple[Any, SpecFormat | None]:
    """The object with its format, also where it is a field of another object."""
    for _ in range(4):
        if format := detect(record):
            weak = format.read is assistants.read or format.read is constitution.read_document
            return (record, None) if weak and refused.is_known(record) else (record, format)
        inner = (
            next((record[key] for key in WRAPPERS if isinstance(record.get(key), dict)), None)
            if isinstance(record, dict)
            else None
        )
        if inner is None or (isinstance(record, dict) and refused.is_known(record)):
            return record, None
        record = inner
    return record, None


def _chosen(source: Source, personas: list[tuple[Any, SpecFormat]]) -> tuple[Any, SpecFormat]:
    """The one persona of a file, or the one that the user names."""
    if len(personas) == 1:
        return personas[0]
    names = [_called(record) for record, _ in personas]
    if source.name in names:
        return personas[names.index(source.name)]
    listing = ", ".join(name or "(no name)" for name in names[:20])
    raise source.bad(f" holds {len(personas)} personas.", f"Choose one with --name: {listing}.")


def _called(record: dict[str, Any]) -> str:
    inner = record["data"] if isinstance(record.get("data"), dict) else record
    return next((text for key in cards.FIELDS["name"] if (text := text_of(inner.get(key)))), "")
