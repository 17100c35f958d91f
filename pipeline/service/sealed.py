"""JSON documents with a checksum: a flipped bit can leave a file that still parses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from moltlm.data.io import read_json, to_json, write_text
from moltlm.pipeline.typed_json import from_plain, to_plain

T = TypeVar("T")


def write(path: Path, name: str, value: Any) -> None:
    """Write a dataclass, or a list of them, under this name, beside its SHA-256, in one rename."""
    write_text(path, to_text(name, value))


def read(path: Path, name: str, kind: type[T]) -> T:
    """The value that `write` wrote. Raises BadInput or ValueError for a file that is missing or damaged."""
    return _checked(read_json(path), name, kind)


def to_text(name: str, value: Any) -> str:
    """What `write` writes."""
    plain = to_plain(value)
    return to_json({"sha256": _checksum(plain), name: plain}) + "\n"


def from_text(text: str, name: str, kind: type[T]) -> T:
    """The inverse of `to_text`. Raises ValueError for a damaged text."""
    return _checked(json.loads(text), name, kind)


def _checked(raw: Any, name: str, kind: type[T]) -> T:
    plain = raw.get(name) if isinstance(raw, dict) else None
    if plain is None or raw.get("sha256") != _checksum(plain):
        raise ValueError("its checksum does not match")
    try:
        return from_plain(plain, kind)
    except ValidationError:
        raise ValueError("it is of another form") from None


def _checksum(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
