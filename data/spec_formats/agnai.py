"""Characters of Agnai (Agnaistic): a card whose persona is a set of attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moltlm.data.spec_formats import cards
from moltlm.data.spec_formats.reading import Source, SpecReading, text_of, texts_of

KEPT = ("persona", "description", "kind", "appearance")


def is_character(record: dict[str, Any]) -> bool:
    """Whether an object is an Agnai character: a name and a persona with attributes."""
    persona = record.get("persona")
    return (
        isinstance(record.get("name"), str)
        and isinstance(persona, dict)
        and isinstance(persona.get("attributes"), dict)
    )


def read(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read a character as the card that it is, with its attributes as a list of labelled lines.

    `description` is left out: it is shown to people who choose a character, and is no part of the prompt.
    """
    attributes = record["persona"]["attributes"]
    texts = {str(key): ", ".join(texts_of(value)) for key, value in attributes.items()}
    free = texts.pop("text", "")
    lines = [f"{key[:1].upper()}{key[1:]}: {value}" for key, value in texts.items() if value]
    card = {key: value for key, value in record.items() if key not in KEPT}
    card["description"] = "\n".join([free, *lines]).strip()
    reading = cards.read(source, card, "Agnai character")
    for key in ("description", "appearance"):
        reading.left_out[key] += bool(text_of(record.get(key)))
    return replace(reading, left_out=+reading.left_out)
