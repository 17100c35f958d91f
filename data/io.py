"""Reading and writing files: errors with line numbers, atomic writes, hashes."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from moltlm.data.errors import BadInput

BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

PRIVATE = 0o600
"""The mode of files with what people said."""
GONE = "gone.partial"
"""The folder into which `discard` renames what it deletes."""


def encoding_of(start: bytes) -> str:
    """The encoding of a text that starts with these bytes, if it is not UTF-8: UTF-32 or UTF-16, as the byte order mark
    or the zeros in the first two characters say; else ""."""
    marked = next((name for mark, name in BOMS.items() if start.startswith(mark)), "")
    if marked or len(start) < 4:
        return marked
    zeros = [byte == 0 for byte in start[:4]]
    return "UTF-16LE" if zeros == [False, True] * 2 else "UTF-16BE" if zeros == [True, False] * 2 else ""


def decoded(raw: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32. Raises UnicodeDecodeError for another encoding."""
    if encoding := encoding_of(raw):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("utf-8-sig")


def read_text(path: Path, what: str = "file") -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32. `what` is what an error calls it. Raises BadInput if it is
    missing, a folder, empty or in another encoding."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise BadInput(f"{what} {path} {kind}.", "Correct the path in the config or on the command line.")
    try:
        text = decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{what} {path} is not UTF-8: byte {error.start} cannot be read.",
            f"Convert it: iconv -f ISO-8859-1 -t UTF-8 {shlex.quote(str(path))} > fixed",
        ) from None
    if not text.strip():
        raise BadInput(f"{what} {path} is empty.", "Point at a file with content, or remove the setting.")
    return text


def read_yaml(path: Path, what: str = "file") -> Any:
    """The parsed YAML file. Raises BadInput naming the line that is wrong."""
    text = read_text(path, what)
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        why = error.problem if isinstance(error, Twice) else "not valid YAML"
        raise BadInput(f"{what} {path}{line}: {why}.", f"Open it: ${{EDITOR:-vi}} {shlex.quote(str(path))}") from None


class Twice(yaml.MarkedYAMLError):
    """A key that a mapping has twice."""


class _Loader(yaml.SafeLoader):
    """Raises Twice, where YAML's own loader would forget the first value. What `<<` merges may be given again."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (before := first.setdefault((key.tag, key.value), key)) is not key:
                line = before.start_mark.line + 1
                raise Twice(None, None, f"{key.value} is given twice, first in line {line}", key.start_mark)
        return node


def parse_yaml(text: str) -> Any:
    """The parsed YAML. Raises yaml.YAMLError for a key that is given twice, and for anything that cannot be read, also
    where the loader raises other errors: a date such as 2026-13-45, an empty `!!int`, deep nesting."""
    try:
        return yaml.load(text, _Loader)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def read_jsonl(path: Path, what: str = "file") -> list[dict[str, Any]]:
    """One dict for each line that is not blank. Raises BadInput naming the first line that is not a JSON object."""
    rows = []
    # splitlines would also split at U+2028 and others, which may be inside a JSON string
    for number, line in enumerate(read_text(path, what).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(
                f"{what} {path}, line {number}: not valid JSON ({str(error)[:80]}).",
                f"Look at it: sed -n {number}p {path}",
            ) from None
        if not isinstance(row, dict):
            raise BadInput(
                f"{what} {path}, line {number}: expected an object, found {type(row).__name__}.",
                f"Look at it: sed -n {number}p {path}",
            )
        rows.append(row)
    return rows


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write through a temporary file that is synced and renamed: no reader and no power cut leaves half a file.

    Args:
        private: only the owner may read it, whatever the umask: for what people said.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).chmod(PRIVATE if private else 0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line to a file that only its owner may read, and sync it. Half a line that a killed process left
    before it is ended first.

    Raises:
        BadInput: if the path is a link: in a folder of a stranger it could lead to any file of the user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_to_append(path)
    with os.fdopen(handle, "rb+") as out:
        size = out.seek(0, os.SEEK_END)
        is_cut = size and os.pread(handle, 1, size - 1) != b"\n"
        out.write(("\n" if is_cut else "").encode() + line.encode() + b"\n")
        out.flush()
        os.fsync(handle)


def open_to_append(path: Path) -> int:
    """The descriptor of a file that only its owner may read, made if it is not there. Raises BadInput for a link."""
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadInput(
            f"{path} is a link, and nothing is written through it.", f"Look where it leads: ls -l {path}"
        ) from None


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems sync no folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def publish(partial: Path, folder: Path) -> None:
    """Rename a complete folder into place; everything in it is on the disk before, and its new name after."""
    for path in [*partial.rglob("*"), partial]:
        if not path.is_symlink():
            sync(path)
    partial.rename(folder)
    sync(folder.parent)


def discard(folder: Path) -> None:
    """Delete a folder, if it is there. It is first renamed into the folder GONE beside it, so that a deletion that is
    killed leaves no part of it in its place; what such a deletion has left there goes, too."""
    gone = folder.with_name(GONE)
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        gone.mkdir(mode=0o700)
        folder.rename(gone / folder.name)
        sync(folder.parent)
        shutil.rmtree(gone)


def _umask() -> int:
    current = os.umask(0o077)  # it can only be read by setting it
    os.umask(current)
    return current


def to_json(value: Any) -> str:
    """Indented JSON. Numbers that are not finite, such as the bounds of an unknown interval, become null."""
    return json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `to_json` atomically."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path) -> Any:
    """The parsed JSON file. Raises BadInput if it is missing or malformed."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}).", f"Look at it: cat {path}"
        ) from None


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]], private: bool = True) -> None:
    """Write one row a line, atomically; rows are what people said, unless they are not `private`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), private)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path) -> list[list[str]]:
    """Name and hash of a file, or of every file in a folder, by name. Raises BadInput if the path does not exist."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise BadInput(f"{path} does not exist.", "Correct the path in the config or on the command line.")
    stats = [(file, file.stat()) for file in files]
    return [[str(file.relative_to(path)), _cached_hash(file, stat.st_mtime_ns, stat.st_size)] for file, stat in stats]


@cache
def _cached_hash(path: Path, modified_ns: int, size: int) -> str:
    """Every stage needs the hash of an export, which may have gigabytes."""
    return sha256_file(path)


def without_surrogates(text: str) -> str:
    """The text without lone surrogates, which JSON and names of files can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-able value. They do not depend on the order of keys."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def utc_now(timespec: str = "seconds") -> str:
    """The time as records have it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=timespec)


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def round_robin(groups: Iterable[str]) -> list[int]:
    """Indices in round-robin order: the first item of each group, then the second of each, and so on."""
    rank: dict[str, int] = {}
    order = []
    for place, group in enumerate(groups):
        order.append((rank.setdefault(group, 0), place))
        rank[group] += 1
    return [place for _, place in sorted(order)]
