"""Lorebooks: entries that always apply, and entries that apply when a word comes up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from moltlm.data.spec_formats import macros
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import text_of

BOOKS = ("character_book", "characterBook", "embedded_lorebook", "lorebook", "lore_book", "memoryBook")
KEYED_LIMIT = 8000
"""Characters of keyed entries that are kept: a teacher is told all of them with every question."""


@dataclass
class Lore:
    """The texts of entries that always apply, and those of keyed entries by their keys."""

    always: list[str] = field(default_factory=list)
    keyed: dict[str, str] = field(default_factory=dict)


def read(card: dict[str, Any], cast: Cast) -> Lore:
    """Read the lorebook in a card, whose entries are a list or an object by number, in their order of insertion.

    Disabled entries, those that nothing activates, and keyed ones beyond KEYED_LIMIT are counted as left out.
    """
    lore, size = Lore(), 0
    for row in sorted(_entries(card), key=_order):
        content = text_of(row.get("content") or row.get("entry") or row.get("value"))
        text = macros.instruction(content, cast)
        keys = _keys(row)
        if not _enabled(row) or re.search(r"^\s*@@dont_activate", content, re.MULTILINE):
            cast.left_out["disabled lore entry"] += 1
        elif not text:
            cast.left_out["empty lore entry"] += 1
        elif row.get("constant") is True or re.search(r"^\s*@@activate\b", content, re.MULTILINE):
            lore.always.append(text)
        elif not keys:
            cast.left_out["lore entry without a key"] += 1
        elif size + len(text) > KEYED_LIMIT:
            cast.left_out[f"keyed lore entry beyond {KEYED_LIMIT} characters"] += 1
        else:
            size += len(text)
            key = ", ".join(keys)
            lore.keyed[key] = f"{lore.keyed[key]} {text}" if key in lore.keyed else text
    return lore


def _entries(card: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[Any] = []
    for name in BOOKS:
        book = card.get(name)
        entries = book.get("entries") if isinstance(book, dict) else book
        rows += list(entries.values()) if isinstance(entries, dict) else entries if isinstance(entries, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _order(row: dict[str, Any]) -> float:
    order = row.get("insertion_order", row.get("order", 0))
    return float(order) if isinstance(order, int | float) and abs(order) < 1e9 else 0.0


def _enabled(row: dict[str, Any]) -> bool:
    return row.get("enabled", True) is not False and row.get("disable") is not True


def _keys(row: dict[str, Any]) -> list[str]:
    value = row.get("keys") or row.get("key") or row.get("keywords")
    keys = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    return [key.strip() for key in keys if isinstance(key, str) and key.strip()]
