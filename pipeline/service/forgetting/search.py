"""Searching files of any kind: rows, documents, compressed files, archives, tables, databases, and plain bytes."""

from __future__ import annotations

import bz2
import gzip
import html
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.pipeline.service.forgetting.target import Target

ROWS, TABLES, WEIGHTS = (".jsonl", ".ndjson"), (".parquet",), (".safetensors",)
COMPRESSED = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Hits:
    """How many parts of a file hold the target: rows of a file of rows, else texts.

    Attributes:
        error: why the file could not be searched; empty if it could.
    """

    count: int
    of: int
    error: str = ""


def strings(value: Any) -> Iterator[str]:
    """Every text in a nested value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def row_holds(line: bytes, target: Target) -> bool:
    """Whether a line of JSON, or of anything else, holds the target."""
    text = line.decode("utf-8", errors="replace")
    try:
        return target.holds_any(list(strings(json.loads(text))))
    except (ValueError, RecursionError):
        return target.holds(text)


def search(path: Path, target: Target) -> Hits:
    """Search a file. One that cannot be read is no hit, and says why."""
    try:
        return _search(path.name, path.read_bytes(), target)
    except (OSError, ValueError, EOFError, lzma.LZMAError, zipfile.BadZipFile, sqlite3.Error) as error:
        return Hits(0, 0, str(error) or type(error).__name__)


def _search(name: str, content: bytes, target: Target) -> Hits:
    suffix = Path(name).suffix.lower()
    if unpack := COMPRESSED.get(suffix):
        return _search(name[: -len(suffix)], unpack(content), target)
    if content[:2] == b"PK":
        return _archive(content, target)
    if suffix in ROWS:
        lines = [line for line in content.split(b"\n") if line.strip()]
        return Hits(sum(row_holds(line, target) for line in lines), len(lines))
    if suffix in TABLES:
        rows = [list(strings(row)) for row in _table(content).to_pylist()]
        return Hits(sum(map(target.holds_any, rows)), len(rows))
    texts = list(_database(content)) if content.startswith(SQLITE) else _texts(suffix, content)
    return Hits(sum(target.holds(text, beginnings=True) for text in texts), len(texts))


def _texts(suffix: str, content: bytes) -> list[str]:
    """The texts of a document: the values of JSON, else the whole of it."""
    if suffix in WEIGHTS:
        length = int.from_bytes(content[:8], "little")
        content = content[8 : 8 + length]
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = content.decode(encoding, errors="replace")
    if suffix == ".json" or suffix in WEIGHTS:
        try:
            return list(strings(json.loads(text)))
        except (ValueError, RecursionError):
            return [text]
    return [html.unescape(text)]


def _archive(content: bytes, target: Target) -> Hits:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        hits = [_search(info.filename, archive.read(info), target) for info in members]
    return Hits(sum(each.count for each in hits), sum(each.of for each in hits))


def _table(content: bytes) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(content))


def _database(content: bytes) -> Iterator[str]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            quoted = table.replace('"', '""')
            for row in database.execute(f'SELECT * FROM "{quoted}"'):
                for value in row:
                    if isinstance(value, bytes | str):
                        yield value.decode(errors="replace") if isinstance(value, bytes) else value
