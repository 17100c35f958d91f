"""Dataclasses as rows of JSONL.

Fields at their default are left out, so that adding a field with a default changes neither rows nor fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_jsonl, write_jsonl


class Row:
    """Base of a dataclass that is stored as rows of JSONL."""

    def to_row(self) -> dict[str, Any]:
        """The fields by name, without those that equal their default."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if not at_default(self, item)}  # type: ignore[arg-type]
        return {name: value.to_row() if isinstance(value, Row) else value for name, value in values.items()}

    @classmethod
    def from_row(cls, row: dict[str, Any], place: str = "row") -> Self:
        """The inverse of `to_row`.

        Args:
            place: what an error names, such as "pairs.jsonl, record 3".

        Raises:
            BadInput: for a key that is no field, or a field without a default that is missing.
        """
        names = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(row, dict):
            raise BadInput(f"{place}: a {cls.__name__} is not an object.", f"Its keys are: {', '.join(names)}.")
        unknown = [key for key in row if key not in names]
        missing = [name for name, item in names.items() if name not in row and not _has_default(item)]
        if unknown or missing:
            problem = f"unknown key {unknown[0]}" if unknown else f"{missing[0]} is missing"
            raise BadInput(
                f"{place}: {problem} in a row of {cls.__name__}.", f"The keys of such a row are: {', '.join(names)}."
            )
        return cls(**row)


T = TypeVar("T", bound=Row)


def at_default(item: Any, field: Field[Any]) -> bool:
    """Whether a field of a dataclass instance equals its default."""
    if not _has_default(field):
        return False
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return getattr(item, field.name) == default


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def write_rows(path: Path, items: Iterable[Row]) -> None:
    """Write one row a line."""
    write_jsonl(path, (item.to_row() for item in items))


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Read what `write_rows` wrote. Raises BadInput naming the file and the record that is wrong."""
    return [kind.from_row(row, f"{path}, record {number}") for number, row in enumerate(read_jsonl(path), start=1)]


def fingerprint_rows(items: Iterable[Row]) -> str:
    """The fingerprint of a list of items, through their rows."""
    return fingerprint([item.to_row() for item in items])
