"""JSON documents with a checksum: a flipped bit can leave a file that still parses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from moltlm.data.io import read_json, write_json
from moltlm.pipeline.typed_json import from_plain, to_plain

T = TypeVar("T")


def write(path: Path, name: str, value: Any) -> None:
    """Write a dataclass, or a list of them, under this name, beside its SHA-256, in one rename."""
    plain = to_plain(value)
    write_json(path, {"sha256": _checksum(plain), name: plain})


def read(path: Path, name: str, kind: type[T]) -> T:
    """The value that `write` wrote. Raises BadInput or ValueError for a file that is missing or damaged."""
    raw = read_json(path)
    plain = raw.get(name) if isinstance(raw, dict) else None
    if plain is None or raw.get("sha256") != _checksum(plain):
        raise ValueError("its checksum does not match")
    try:
        return from_plain(plain, kind)
    except ValidationError:
        raise ValueError("it is of another form") from None


def _checksum(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
