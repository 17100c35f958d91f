"""Files, folders and zip archives as streams of lines or of JSON values. No file is ever read whole."""

from __future__ import annotations

import codecs
import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from moltlm.data.errors import BadInput

SUFFIXES = (".json", ".jsonl", ".ndjson", ".md", ".markdown", ".txt")
LIMIT = 64 << 20
"""Maximum size of a line or a conversation, in bytes (in characters, within a JSON array)."""

CHUNK = 1 << 20
HEAD = 1 << 18
MEMBER_LIMIT = 64 << 30
RATIO_LIMIT, RATIO_FROM = 250, 10 << 20
"""A zip member that unpacks to RATIO_FROM bytes or more, and to RATIO_LIMIT times its packed size, is a bomb."""

BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)
"""What zipfile raises for a damaged archive. NotImplementedError, for an unknown compression, is a RuntimeError."""

INCOMPLETE = "Unterminated string"
DECODE = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Source:
    """A file to read. `name` is for people (`export.zip/chats/a.json`), `stem` is the source of its exchanges."""

    name: str
    stem: str
    named: bool
    """Whether the user named this file: it must be readable. Other files may be skipped."""
    open: Callable[[], BinaryIO]

    def bad(self, what: str, fix: str = "") -> BadInput:
        return BadInput(f"{self.name}{what}", fix or f"Look at it: less '{self.name}'")


@contextmanager
def sources(path: Path, skip: Callable[[str, str], None]) -> Iterator[Iterator[Source]]:
    """Every file that may hold conversations, in sorted order: the file itself, the files in the folder, or the members
    of the zip archive.

    Args:
        skip: called with the name of each other file and the reason for skipping it.

    Raises:
        BadInput: for a path that does not exist or is no file and no folder.
    """
    if path.is_dir():
        yield _folder(path, skip)
    elif not path.exists():
        raise BadInput(
            f"conversations {path} does not exist.", "Correct the path in the config or on the command line."
        )
    elif not path.is_file():
        raise BadInput(
            f"conversations {path} is no file and no folder.", "Copy its content into a file, and give that."
        )
    elif _is_zip(path):
        with _archive(path) as members:
            yield _members(path, members, skip)
    else:
        yield iter([Source(str(path), path.stem, True, lambda: _open(path))])


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=CHUNK)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", f"Make it readable: chmod u+r '{path}'") from None


def _is_zip(path: Path) -> bool:
    with _open(path) as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _folder(path: Path, skip: Callable[[str, str], None]) -> Iterator[Source]:
    def unreadable(error: OSError) -> None:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror}.", f"chmod u+rx '{error.filename}'")

    for parent, folders, names in os.walk(path, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            file = Path(parent) / name
            reason = _unwanted(file.relative_to(path).parts)
            if reason or not file.is_file():
                skip(str(file), reason or "no regular file")
            else:
                yield Source(str(file), file.stem, False, lambda file=file: _open(file))


def _unwanted(parts: tuple[str, ...]) -> str:
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return "hidden"
    return "" if parts[-1].lower().endswith(SUFFIXES) else "not " + ", ".join(f"*{suffix}" for suffix in SUFFIXES)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN_ARCHIVE as error:
        raise BadInput(
            f"{path} is no whole zip archive ({error}).", f"Fetch it again, and test it: unzip -t '{path}'"
        ) from None
    with archive:
        yield archive


def _members(path: Path, archive: zipfile.ZipFile, skip: Callable[[str, str], None]) -> Iterator[Source]:
    """Members are streamed from the archive; their names are shown, never used as paths."""
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        name, inner = f"{path}/{member.filename}", PurePosixPath(member.filename.replace("\\", "/"))
        if member.filename.endswith("/"):
            continue
        reason = _unwanted(tuple(part for part in inner.parts if part not in ("/", "..")) or ("?",))
        if reason:
            skip(name, reason)
            continue
        if member.flag_bits & 1:
            raise BadInput(f"{name} is encrypted.", f"Unpack it with its password, and give the folder: unzip '{path}'")
        bomb = member.file_size >= RATIO_FROM and member.file_size > RATIO_LIMIT * max(member.compress_size, 1)
        if bomb or member.file_size > MEMBER_LIMIT:
            raise BadInput(
                f"{name} would unpack from {member.compress_size:,} to {member.file_size:,} bytes: no text does that.",
                f"If you trust it, unpack it and give the folder: unzip '{path}'",
            )
        yield Source(name, inner.stem, False, lambda member=member: _open_member(archive, member, path))


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> BinaryIO:
    return io.BufferedReader(_Member(archive, member, path), CHUNK)


class _Member(io.RawIOBase):
    """A member of an archive whose damage shows as BadInput, and that stops at its declared size."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
        self.what, self.fix = f"{path}/{member.filename}", f"Fetch the archive again, and test it: unzip -t '{path}'"
        try:
            self.file = archive.open(member)
        except BROKEN_ARCHIVE as error:
            raise BadInput(f"{self.what} cannot be unpacked ({error}).", self.fix) from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self.file.read(len(buffer))
        except BROKEN_ARCHIVE as error:
            raise BadInput(f"{self.what} is damaged ({error}).", self.fix) from None
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed and hasattr(self, "file"):
            self.file.close()
        super().close()


def head(source: Source) -> bytes:
    """The first 256 KiB, without a byte order mark. Raises BadInput if they are clearly not UTF-8."""
    with source.open() as file:
        start = file.read(HEAD)
    if start.startswith(BOMS) or b"\0" in start:
        fix = f"Convert it: iconv -f UTF-16 -t UTF-8 '{source.name}' > fixed.json"
        raise source.bad(" is not UTF-8 but UTF-16, or no text at all.", fix)
    return start.removeprefix(codecs.BOM_UTF8)


def lines(source: Source) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines without their line break. Raises BadInput for a line over LIMIT or not UTF-8."""
    at = 0
    with source.open() as file:
        number = 0
        while line := file.readline(LIMIT + 1):
            number += 1
            if len(line) > LIMIT:
                raise source.bad(f", line {number}: longer than {LIMIT >> 20} MiB.", "Remove that line, or split it.")
            try:
                text = line.removeprefix(codecs.BOM_UTF8).decode() if number == 1 else line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(source, f", line {number}", at + error.start) from None
            at += len(line)
            yield number, text.rstrip("\r\n")


def _not_utf8(source: Source, where: str, byte: int) -> BadInput:
    fix = f"Convert it: iconv -f ISO-8859-1 -t UTF-8 '{source.name}' > fixed.json"
    return source.bad(f"{where} is not UTF-8: byte {byte} cannot be read.", fix)


def parse(text: str) -> Any:
    """The JSON value. Raises ValueError with a reason to show."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_lines(source: Source) -> Iterator[tuple[str, Any]]:
    """The place (`line 3`) and the value of each line that is not blank. Raises BadInput for a malformed line."""
    for number, text in lines(source):
        if text and not text.isspace():
            try:
                value = parse(text)
            except ValueError as error:
                raise source.bad(
                    f", line {number}: not valid JSON ({error}).", f"Look at it: sed -n {number}p '{source.name}'"
                ) from None
            yield f"line {number}", value


def json_values(source: Source) -> Iterator[tuple[str, Any]]:
    """The place and the value of each element of a JSON array, or of each value of a file that is no array.

    Memory holds one element at a time, which the scanner of the standard library decodes. (ijson, made for this, ends
    the process on deep nesting and on numbers of thousands of digits, and holds a string of any length.)

    Raises:
        BadInput: for a value that is malformed, cut off, nested too deep, or over LIMIT.
    """
    with source.open() as file:
        buffer = _Buffer(source, file)
        is_array = buffer.next() == "["
        if is_array:
            buffer.at += 1
        number = 0
        while sign := buffer.next():
            if is_array and number and sign == ",":
                buffer.at += 1
                if buffer.next() == "]":
                    raise buffer.bad("a comma before the end of the array", number)
            elif is_array and sign == "]":
                buffer.at += 1
                if buffer.next():
                    raise buffer.bad("something after the end of the array", number)
                return
            elif is_array and number:
                raise buffer.bad("a comma is missing between two values", number)
            number += 1
            yield f"conversation {number}", buffer.value(number)
        if is_array:
            raise buffer.bad("cut off: the array does not end", number)


class _Buffer:
    """The decoded text from position `at` on; more is read on demand."""

    def __init__(self, source: Source, file: BinaryIO) -> None:
        self.source, self.file = source, file
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False
        self.bytes = self.lines = 0
        self.more(CHUNK)
        self.text = self.text.removeprefix("\ufeff")

    def more(self, size: int) -> None:
        self.lines += self.text.count("\n", 0, self.at)
        block = self.file.read(size)
        self.ended = len(block) < size
        pending = len(self.decoder.getstate()[0])
        try:
            read = self.decoder.decode(block, self.ended)
        except UnicodeDecodeError as error:
            raise _not_utf8(self.source, "", self.bytes - pending + error.start) from None
        self.bytes += len(block)
        self.text, self.at = self.text[self.at :] + read, 0

    def next(self) -> str:
        """The next character that is not white space, which `at` then points to; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.more(CHUNK)

    def value(self, number: int) -> Any:
        """The value at `at`. Doubles the text each time the value turns out to be incomplete."""
        while True:
            try:
                value, end = DECODE(self.text, self.at)
                if end < len(self.text) or self.ended:  # else a number may go on
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                whole = not error.msg.startswith(INCOMPLETE) and error.pos < len(self.text) - 12
                if self.ended or whole:
                    raise self.bad(error.msg if whole else f"cut off: {error.msg}", number, error.pos) from None
            except (RecursionError, ValueError) as error:
                deep = isinstance(error, RecursionError)
                raise self.bad("nested too deep" if deep else str(error), number) from None
            pending = len(self.text) - self.at
            if pending > LIMIT:
                raise self.bad(f"larger than {LIMIT >> 20} MiB", number)
            self.more(min(max(CHUNK, pending), LIMIT + CHUNK - pending))

    def bad(self, why: str, number: int, at: int | None = None) -> BadInput:
        line = self.lines + self.text.count("\n", 0, self.at if at is None else at) + 1
        return self.source.bad(
            f", line {line}, conversation {max(number, 1)}: not valid JSON ({why}).",
            f"Export it again, or look at it: python -m json.tool '{self.source.name}' > /dev/null",
        )
