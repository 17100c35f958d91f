"""Files, folders and archives as streams of lines or of JSON values. No file is ever read whole."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from moltlm.data.conversations import tables, unread
from moltlm.data.conversations.archives import (
    Member,
    export_folders,
    is_tar,
    is_upload,
    tar_members,
    zip_members,
)
from moltlm.data.conversations.decoder import DECODER
from moltlm.data.conversations.feedback import NAME as FEEDBACK
from moltlm.data.conversations.feedback import Feedback, feedback_of
from moltlm.data.conversations.source import Source, quoted
from moltlm.data.conversations.streams import (
    CHUNK,
    Codec,
    Origin,
    as_utf8,
    codec_of,
    spooled,
    stream,
)
from moltlm.data.errors import BadInput
from moltlm.data.io import encoding_of

TEXTS = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".md",
    ".markdown",
    ".txt",
    ".text",
    ".csv",
    ".tsv",
    ".parquet",
    ".html",
    ".htm",
    "",
)
PACKED = (".gz", ".tgz", ".zst", ".tzst", ".bz2", ".tbz2", ".xz", ".txz", ".zip", ".tar")
"""Suffixes of the files that are read in folders and archives. A file that the user names may have any name."""

LIMIT = 64 << 20
"""Maximum size of a line or a conversation, in bytes (in characters, within a JSON array)."""

HEAD = 1 << 18
START = 512
"""Bytes that tell the container: the mark of a tar archive is at 257."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")

PRINT_PARQUET = (
    "python -c 'import pandas, sys; print(pandas.read_parquet(sys.argv[1]).to_json(orient=\"records\", lines=True))'"
)
"""A shell command that prints a table as the JSON lines that are read."""

NO_COMMAS = "sed 's/,[[:space:]]*$//'"
"""A shell command that removes the commas at the ends of lines."""

INCOMPLETE = "Unterminated string"

Skip = Callable[[str, str], None]


@contextmanager
def sources(path: Path, skip: Skip) -> Iterator[Iterator[Source]]:
    """Every file that may hold conversations, in sorted order: the file itself, the files in the folder, or the members
    of the archive; compressed files are unpacked, and tables are read as JSON lines.

    Args:
        skip: called with the name of each other file and the reason for skipping it.

    Raises:
        BadInput: for a path that does not exist or is no file and no folder.
    """
    if path.is_dir():
        files = _folder(path, skip)
    elif not path.exists():
        raise BadInput(
            f"conversations {path} does not exist.", "Correct the path in the config or on the command line."
        )
    elif not path.is_file():
        raise BadInput(
            f"conversations {path} is no file and no folder.", "Copy its content into a file, and give that."
        )
    else:
        feedback = _beside(path.parent, PurePosixPath(), skip)
        files = _with_feedback(_expand(_file(path), True, skip), feedback, PurePosixPath(path.name))
    with closing(files):
        yield files


def _file(path: Path) -> Member:
    return Member(str(path), PurePosixPath(path.name), lambda: _open(path), path.stat().st_size)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=CHUNK)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", f"Make it readable: chmod u+r '{path}'") from None


def _folder(path: Path, skip: Skip) -> Generator[Source]:
    def unreadable(error: OSError) -> None:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror}.", f"chmod u+rx '{error.filename}'")

    exports: set[PurePosixPath] = set()
    for parent, folders, names in os.walk(path, onerror=unreadable):
        folders.sort()
        files = {PurePosixPath(Path(parent).relative_to(path) / name): Path(parent) / name for name in sorted(names)}
        feedback = _beside(Path(parent), PurePosixPath(Path(parent).relative_to(path)), skip)
        exports |= export_folders([relative for relative, file in files.items() if _is_export(file)])
        for relative, file in files.items():
            reason = _unwanted(relative, exports)
            if feedback.holds(relative) and relative.parent in exports:
                continue
            if reason or not file.is_file():
                skip(str(file), reason or "no regular file")
            else:
                yield from _with_feedback(_expand(_file(file), False, skip), feedback, relative)


def _is_export(file: Path) -> bool:
    """Whether a file of an export's name has its content too: other files beside it are then no conversations."""
    if not export_folders([PurePosixPath(file.name)]) or not file.is_file():
        return False
    with _open(file) as opened:
        start = opened.read(HEAD)
    return any(key in start for key in (b'"mapping"', b'"chat_messages"'))


def _unwanted(path: PurePosixPath, exports: Collection[PurePosixPath]) -> str:
    """Why a file in a folder or an archive is not read; "" if it is."""
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return "hidden"
    if is_upload(path, exports):
        return "an upload or other data of the export, of which only conversations*.json is read"
    if path.suffix.lower() in (*TEXTS, *PACKED):
        return ""
    return unread.by_suffix(path.suffix) or "not *.json, *.jsonl, *.md, *.txt, *.csv, *.parquet or one of them packed"


def _expand(member: Member, named: bool, skip: Skip, depth: int = 0) -> Generator[Source]:
    """The sources in a file. A damaged one that nobody named becomes a source that cannot be opened."""
    try:
        if member.error:
            raise member.error
        with member.open() as file:
            start = file.read(START)
        codec = codec_of(start)
        if codec:
            member, start = _unpacked(member, codec)
        if start.startswith(ZIP) or is_tar(start):
            yield from _archive(member, is_tar(start), skip, depth)
        else:
            yield _source(member, start, named)
    except BadInput as error:
        if named:
            raise
        yield Source(member.name, member.path.stem, False, partial(_raise, error))


def _raise(error: BadInput) -> BinaryIO:
    raise error


def _unpacked(member: Member, codec: Codec) -> tuple[Member, bytes]:
    """The file in a compressed file, and how it starts."""
    command = f"{member.command} | {codec.unpack}" if member.command else f"{codec.unpack} {quoted(member.name)}"
    origin = Origin(member.name, member.size, f"{command} > /dev/null")
    path = member.path.with_name(codec.inner_name(member.path.name))
    opened = replace(member, path=path, command=command, open=lambda: stream(lambda: codec.open(member.open()), origin))
    with opened.open() as file:
        return opened, file.read(START)


def _archive(archive: Member, is_tar_archive: bool, skip: Skip, depth: int) -> Iterator[Source]:
    """The sources in an archive. Raises BadInput for what is no whole archive, and for one that lies two deep."""
    if depth > 1:
        raise BadInput(f"{archive.name} is an archive in an archive in an archive.", "Unpack the outer ones.")
    read = tar_members if is_tar_archive else zip_members
    if archive.command and not is_tar_archive:
        archive = replace(archive, open=partial(spooled, archive.open))
    feedback = feedback_of(read(archive), skip)
    exports = export_folders(feedback.paths)
    for member in read(archive):
        reason = _unwanted(member.path, exports)
        if feedback.holds(member.path) and member.path.parent in exports:
            continue
        if reason:
            skip(member.name, reason)
        else:
            yield from _with_feedback(_expand(member, False, skip, depth + 1), feedback, member.path)


def _with_feedback(files: Iterator[Source], feedback: Feedback, path: PurePosixPath) -> Generator[Source]:
    """The sources in a file of this path, which know its thumbs down."""
    for file in files:
        yield replace(file, disliked=file.disliked | feedback.of(path))


def _beside(folder: Path, relative: PurePosixPath, skip: Skip) -> Feedback:
    """The feedback in a folder."""
    file = folder / FEEDBACK
    return feedback_of([replace(_file(file), path=relative / FEEDBACK)] if file.is_file() else [], skip)


def _source(member: Member, start: bytes, named: bool) -> Source:
    """The source of a file that is no archive and not compressed: a text as UTF-8, a table as JSON lines."""
    name, opened, command = member.name, member.open, member.command
    if start.startswith(b"PAR1"):
        return _table(member, named)
    encoding = encoding_of(start)
    if encoding:
        iconv = f"iconv -f {encoding} -t UTF-8"
        command = f"{command} | {iconv}" if command else f"{iconv} {quoted(name)}"
        origin = Origin(name, member.size, f"Convert it: {command} > fixed.txt")
        opened = partial(as_utf8, opened, encoding, origin)
    source = Source(name, member.path.stem, named, opened, command)
    suffix = member.path.suffix.lower()
    return replace(source, open=partial(tables.csv_lines, source, suffix)) if suffix in (".csv", ".tsv") else source


def _table(member: Member, named: bool) -> Source:
    """A Parquet file, which is read from its end."""
    opened, command = member.open, f"{PRINT_PARQUET} {quoted(member.name)}"
    if member.command:
        opened, command = partial(spooled, opened), f"{member.command} > inner.parquet && {PRINT_PARQUET} inner.parquet"
    rows = partial(tables.parquet_lines, member.name, opened)
    origin = Origin(member.name, member.size, f"{command} > rows.jsonl")
    return Source(member.name, member.path.stem, named, lambda: stream(rows, origin), command)


def head(source: Source) -> bytes:
    """The first 256 KiB, without a byte order mark. Raises BadInput for what is no text, and for a format that is known
    and not read."""
    with source.open() as file:
        start = file.read(HEAD)
    error = unread.error_for(source, start)
    if error:
        raise error
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
                raise source.undecodable(f", line {number}", at + error.start, Path(source.name).suffix) from None
            at += len(line)
            yield number, text.rstrip("\r\n")


def parse(text: str) -> Any:
    """The JSON value. Raises ValueError with a reason to show."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_json(text: str) -> bool:
    """Whether a text is one JSON value."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def json_lines(source: Source) -> Iterator[tuple[str, Any]]:
    """The place (`line 3`) and the value of each line that is not blank. Raises BadInput for a malformed line."""
    for number, text in lines(source):
        if text and not text.isspace():
            try:
                value = parse(text)
            except ValueError as error:
                raise _malformed(source, number, text, error) from None
            yield f"line {number}", value


def _malformed(source: Source, number: int, text: str, error: ValueError) -> BadInput:
    """The error for a line that is no JSON. A comma after each value is removed by its command."""
    value = text.rstrip()
    if value.endswith(",") and is_json(value[:-1]):
        fix = f"Remove the commas at the ends of the lines: {source.convert(NO_COMMAS, '.jsonl')}"
        return source.bad(f", line {number}: a comma after the value, which stands alone on its line.", fix)
    return source.bad(f", line {number}: not valid JSON ({error}).", source.look(f"line {number}"))


def json_values(source: Source) -> Iterator[tuple[str, Any]]:
    """The place and the value of each element of a JSON array, or of each value of a file that is no array.

    Memory holds one element at a time, which the scanner of the standard library decodes. (ijson, made for this, ends
    the process on deep nesting and on numbers of thousands of digits, and holds a string of any length.)

    Raises:
        BadInput: for a value that is malformed, cut off, nested too deep, or over LIMIT.
    """
    with source.open() as file:
        buffer = _Buffer(source, file)
        buffer.is_array = is_array = buffer.next() == "["
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
        self.is_array = False
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
            byte = self.bytes - pending + error.start
            raise self.source.undecodable("", byte, Path(self.source.name).suffix) from None
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
                value, end = DECODER.raw_decode(self.text, self.at)
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
        fix = f"Export it again, or look at it: {self.source.piped('python -m json.tool')} > /dev/null"
        return self.source.bad(
            f", line {line}, conversation {max(number, 1)}: not valid JSON ({why}).",
            fix if self.is_array or number < 2 else self.source.look(f"line {line}"),
        )
