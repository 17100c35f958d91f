"""Characters of text-generation-webui (YAML): a card whose examples stand at the end of its context."""

from __future__ import annotations

from typing import Any

from moltlm.data.spec_formats import cards, examples
from moltlm.data.spec_formats.reading import Source, SpecReading, text_of


def is_character(record: dict[str, Any]) -> bool:
    """Whether an object is such a character: a name and a context."""
    return isinstance(_name(record), str) and isinstance(record.get("context"), str)


def read(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read a character: prose, examples and greeting."""
    prose, talk = examples.split(text_of(record["context"]), text_of(_name(record)))
    dialogue = text_of(record.get("example_dialogue"))
    others = {
        key: value
        for key, value in record.items()
        if key not in ("bot", "context", "example_dialogue", "your_name", "user")
    }
    card = {**others, "name": _name(record), "description": prose, "mes_example": f"{talk}\n<START>\n{dialogue}"}
    return cards.read(source, card, "text-generation-webui character")


def _name(record: dict[str, Any]) -> Any:
    return record.get("name") or record.get("bot") or record.get("char_name")
