"""Characters of text-generation-webui (YAML): a card whose examples stand at the end of its context."""

from __future__ import annotations

import re
from typing import Any

from moltlm.data.spec_formats import cards
from moltlm.data.spec_formats.reading import Source, SpecReading, text_of


def is_character(record: dict[str, Any]) -> bool:
    """Whether an object is such a character: a name and a context."""
    return isinstance(_name(record), str) and isinstance(record.get("context"), str)


def read(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read a character: prose, examples and greeting."""
    prose, talk = _split(text_of(record["context"]), text_of(_name(record)))
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


def _split(context: str, name: str) -> tuple[str, str]:
    """The prose of a context, and the dialogue from the first line on that one of its sides says."""
    sides = rf"\{{\{{(?:user|char)\}}\}}|<(?:user|bot)>|You|{re.escape(name)}"
    match = re.search(rf"^[ \t]*(?:<START>|(?:{sides})[ \t]*:[ \t]*\S)", context, re.MULTILINE | re.IGNORECASE)
    return (context[: match.start()], context[match.start() :]) if match else (context, "")
