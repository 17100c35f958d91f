"""The members of zip and tar archives. They are streamed; their names are shown, and never used as paths."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO

from moltlm.data.conversations.source import quoted
from moltlm.data.conversations.streams import BROKEN, Origin, spooled, stream
from moltlm.data.errors import BadInput

CONVERSATIONS = re.compile(r"conversations(?:[-_ ]?\(?\d{1,6}\)?)?\.json", re.IGNORECASE)
"""The file names of an export's conversations: `conversations.json`, `conversations-000.json`."""

OFFICE = {"[Content_Types].xml": "an Office document", "mimetype": "an OpenDocument or EPUB file"}


@dataclass(frozen=True)
class Member:
    """A file in an archive, or on the disk.

    Args:
        name: for people, such as `export.zip/chats/a.json`.
        path: its path in the archive, for its suffix and folder.
        open: its bytes.
        size: its size as it lies in the archive, in bytes.
        command: a shell command that prints it; "" if `cat NAME` does.
        error: why it cannot be read, or None.
    """

    name: str
    path: PurePosixPath
    open: Callable[[], BinaryIO]
    size: int
    command: str = ""
    error: BadInput | None = None


def export_folders(paths: Collection[PurePosixPath]) -> set[PurePosixPath]:
    """The folders that hold the conversations of an export."""
    return {path.parent for path in paths if CONVERSATIONS.fullmatch(path.name)}


def is_upload(path: PurePosixPath, folders: Collection[PurePosixPath]) -> bool:
    """Whether a file belongs to an export, and is none of its conversations."""
    if path.parent in folders:
        return not CONVERSATIONS.fullmatch(path.name)
    return any(parent in folders for parent in path.parents)


def _safe_path(name: str) -> PurePosixPath:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    return PurePosixPath(*(parts or [".nameless"]))


def zip_members(archive: Member) -> Iterator[Member]:
    """The files in a zip archive, by name. Raises BadInput for what is no whole archive, or no archive of files."""
    test = _file_of(archive, "unzip -t")
    try:
        with archive.open() as file, zipfile.ZipFile(file) as opened:
            names = set(opened.namelist())
            office = next((what for name, what in OFFICE.items() if name in names), "")
            if office:
                raise BadInput(f"{archive.name} is {office}.", "Save its text as *.txt or *.md, and import that.")
            for info in sorted(opened.infolist(), key=lambda info: info.filename):
                if not info.filename.endswith("/"):
                    yield _zip_member(archive, opened, info)
    except BROKEN as error:
        raise BadInput(f"{archive.name} is no whole zip archive ({error}).", f"Fetch it again: {test}") from None


def _file_of(archive: Member, program: str) -> str:
    """A shell command that runs a program on an archive, which may lie in another one."""
    return f"{archive.command} > inner && {program} inner" if archive.command else f"{program} {quoted(archive.name)}"


def _tar_command(archive: Member, options: str) -> str:
    return f"{archive.command} | tar {options} -" if archive.command else f"tar {options} {quoted(archive.name)}"


def _zip_member(archive: Member, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name, unpack = f"{archive.name}/{info.filename}", _file_of(archive, "unzip -d unpacked")
    origin = Origin(name, info.compress_size, _file_of(archive, "unzip -t"))
    error = None
    if info.flag_bits & 1:
        error = BadInput(f"{name} is encrypted.", f"Unpack it with its password, and give the folder: {unpack}")
    elif origin.too_large(info.file_size):
        error = Origin(name, info.compress_size, unpack).bomb(info.file_size)
    member = re.sub(r"([\[\]*?\\])", r"\\\1", info.filename)
    return Member(
        name,
        _safe_path(info.filename),
        lambda: stream(lambda: opened.open(info), origin),
        info.compress_size,
        f"{_file_of(archive, 'unzip -p')} {quoted(member)}",
        error,
    )


def tar_members(archive: Member) -> Iterator[Member]:
    """The files in a tar archive, in its order. `archive.open` gives the unpacked archive.

    Links and devices are left out. The archive is read as a stream, which reading a file would disturb: each is copied.

    Raises:
        BadInput: for what is no whole archive.
    """
    try:
        with archive.open() as file, tarfile.open(fileobj=file, mode="r|") as opened:
            for info in opened:
                content = opened.extractfile(info) if info.isreg() else None
                if content is not None:
                    yield _tar_member(archive, info, content)
    except BROKEN as error:
        raise broken_tar(archive, error) from None


def _tar_member(archive: Member, info: tarfile.TarInfo, content: IO[bytes]) -> Member:
    name = f"{archive.name}/{info.name}"
    command = f"{_tar_command(archive, '-xOf')} {quoted(info.name)}"
    origin = Origin(name, info.size, _tar_command(archive, "-tf"))
    copies: list[BinaryIO] = []

    def opened() -> BinaryIO:
        if not copies:
            copies.append(spooled(lambda: stream(lambda: content, origin)))
        copies[0].seek(0)
        return stream(lambda: _Copy(copies[0]), origin)

    return Member(name, _safe_path(info.name), opened, info.size, command)


class _Copy:
    """A copy that outlives the readers that close it."""

    def __init__(self, copy: BinaryIO) -> None:
        self.read = copy.read

    def close(self) -> None:
        pass


def broken_tar(archive: Member, error: Exception) -> BadInput:
    what = f"{archive.name} is no whole tar archive ({error})."
    return BadInput(what, f"Fetch it again, and test it: {_tar_command(archive, '-tf')}")


def is_tar(start: bytes) -> bool:
    """Whether a file starts as a tar archive does (POSIX or GNU)."""
    return start[257:262] == b"ustar"
