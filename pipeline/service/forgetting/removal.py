"""Removing a text from files: rows are dropped and the rest stays byte for byte; whatever has no rows goes whole."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moltlm.data import carried, replay
from moltlm.data.io import PRIVATE, sync, utc_now, write_json
from moltlm.pipeline.service.forgetting.search import ROWS, TABLES, row_holds, strings
from moltlm.pipeline.service.forgetting.target import Target
from moltlm.pipeline.service.server import archive

FORGOTTEN = "[forgotten]"
PACK: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.decompress, gzip.compress),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
}
WIDE = 1 << 17
"""A vocabulary whose token ids do not fit 16 bits."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write through a temporary file that is synced and renamed, which its owner alone can read."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).chmod(PRIVATE)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def has_rows(path: Path) -> bool:
    """Whether single rows can be removed from a file: lines of JSON, a table, or an array of objects."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACK:
        suffixes.pop()
    if not suffixes:
        return False
    if suffixes[-1] in (*ROWS, *TABLES):
        return True
    return suffixes[-1] == ".json" and _elements(_unpacked(path).decode("utf-8", errors="replace")) is not None


def drop_rows(path: Path, target: Target) -> None:
    """Remove the rows that hold the target; the file, where none is left, and the distributions over what was carried,
    from which its answers could be read."""
    content = _unpacked(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes[-1] in PACK else ""
    if suffixes[-1] in ROWS:
        remaining = _without_lines(content, target)
    elif suffixes[-1] in TABLES:
        remaining = _without_table_rows(content, target)
    else:
        remaining = _without_elements(content.decode("utf-8"), target).encode()
    if remaining != content:
        (path.parent / carried.ARRAYS).unlink(missing_ok=True)
    if not remaining.strip():
        path.unlink()
    elif remaining != content:
        write_bytes(path, PACK[packed][1](remaining) if packed else remaining)


def _unpacked(path: Path) -> bytes:
    content, suffix = path.read_bytes(), path.suffix.lower()
    return PACK[suffix][0](content) if suffix in PACK else content


def _without_lines(content: bytes, target: Target) -> bytes:
    return b"\n".join(line for line in content.split(b"\n") if not line.strip() or not row_holds(line, target))


def _without_table_rows(content: bytes, target: Target) -> bytes:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    mask = [not target.holds_any(list(strings(row))) for row in table.to_pylist()]
    if not any(mask):
        return b""
    out = io.BytesIO()
    pyarrow.parquet.write_table(table.filter(mask), out)
    return out.getvalue()


def _elements(text: str) -> list[tuple[int, int, Any]] | None:
    """Begin, end and value of each element of a file that holds one array of objects; None for any other."""
    start = len(text) - len(text.lstrip("\ufeff \t\r\n"))
    if text[start : start + 1] != "[":
        return None
    decode, place, elements = json.JSONDecoder().raw_decode, start + 1, []
    while True:
        while text[place : place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        if text[place : place + 1] != "{":
            return elements if text[place : place + 1] == "]" and elements else None
        try:
            value, end = decode(text, place)
        except (ValueError, RecursionError):
            return None
        elements.append((place, end, value))
        place = end


def _without_elements(text: str, target: Target) -> str:
    """The array without the elements that hold the target."""
    elements = _elements(text) or []
    remaining = [part for part in elements if not target.holds_any(list(strings(part[2])))]
    if not remaining:
        return ""
    separator = text[elements[0][1] : elements[1][0]] if len(elements) > 1 else ""
    inside = separator.join(text[begin:end] for begin, end, _ in remaining)
    return text[: elements[0][0]] + inside + text[elements[-1][1] :]


def is_served(path: Path) -> bool:
    """Whether a file is a conversation that `molt serve` wrote."""
    if path.parent.name != archive.FOLDER or path.suffix != ".json" or path.is_symlink():
        return False
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("source") == archive.SOURCE and "messages" in document


def end_before(path: Path, target: Target) -> None:
    """End a served conversation before the first question that holds the target, or whose answer does: what was said
    later refers to it. The file goes, where nothing is left."""
    document = json.loads(path.read_text(encoding="utf-8"))
    messages = document["messages"]
    end = len(messages)
    while end and target.holds_any(list(strings(messages[:end]))):
        end = next((place for place in reversed(range(end)) if messages[place]["role"] == "user"), 0)
    if end == len(messages) or not end:
        path.unlink()
    else:
        write_json(path, {**document, "messages": messages[:end]})
        path.chmod(PRIVATE)


def scrub(path: Path, target: Target) -> None:
    """Replace the texts of a JSON document that hold the target by a mark."""
    write_json(path, _scrubbed(json.loads(path.read_text(encoding="utf-8")), target))
    path.chmod(PRIVATE)


def _scrubbed(value: Any, target: Target) -> Any:
    if isinstance(value, str):
        return FORGOTTEN if target.holds(value, beginnings=True) else value
    if isinstance(value, dict):
        return {_scrubbed(key, target): _scrubbed(item, target) for key, item in value.items()}
    return [_scrubbed(item, target) for item in value] if isinstance(value, list) else value


def shrink_buffer(folder: Path, target: Target) -> None:
    """Remove exchanges from a replay buffer, with their embeddings and distributions; the folder, if none is left."""
    buffer = replay.load(folder)
    remaining = [each for each in buffer.exchanges if not target.holds_any(list(strings(each.to_row())))]
    if not remaining:
        shutil.rmtree(folder)
        return
    wide = any(int(row.ids.max(initial=0)) >= 1 << 16 for row in buffer.stored)
    replay.save(replay.only(buffer, remaining), folder, WIDE if wide else 1)


def mark(folder: Path, taught: bool) -> None:
    """Note in an artifact that it held what is forgotten or was made from it, so that it is made anew when it is asked
    for.

    Args:
        taught: whether weights learned from it, rather than were only measured on it.
    """
    from moltlm.pipeline.run import MARK

    write_json(folder / MARK, {"time": utc_now(), "taught": taught})
