"""Streams of bytes whose damage shows as BadInput and whose size is bounded: compressed files, and other encodings."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from moltlm.data.errors import BadInput

CHUNK = 1 << 20
MEMBER_LIMIT = 64 << 30
RATIO_LIMIT, RATIO_FROM = 250, 10 << 20
"""What unpacks to RATIO_FROM bytes or more, and to RATIO_LIMIT times its packed size, is a bomb."""
SPOOLED = 8 << 20
"""A temporary copy up to this size stays in memory."""

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)
"""What the libraries raise for a damaged file. NotImplementedError, for an unknown compression, is a RuntimeError."""


class Reader(Protocol):
    """What can be read and closed."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Origin:
    """Where a stream comes from.

    Args:
        name: for people.
        size: its packed size in bytes.
        fix: the command that tests or unpacks it.
    """

    name: str
    size: int
    fix: str

    def too_large(self, size: int) -> bool:
        return size > MEMBER_LIMIT or (size >= RATIO_FROM and size > RATIO_LIMIT * max(self.size, 1))

    def bomb(self, size: int) -> BadInput:
        what = f"{self.name} would unpack from {self.size:,} to {size:,} bytes or more: no text does that."
        return BadInput(what, f"If you trust it, unpack it and give the folder: {self.fix}")


class Stream(io.RawIOBase):
    """What `opener` opens. Damage, and more bytes than `origin` may hold, raise BadInput."""

    def __init__(self, opener: Callable[[], Reader], origin: Origin) -> None:
        self.origin, self.count = origin, 0
        try:
            self.file = opener()
        except BROKEN as error:
            raise self._damaged("cannot be unpacked", error) from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self.file.read(len(buffer))
        except BROKEN as error:
            raise self._damaged("is damaged", error) from None
        self.count += len(block)
        if self.origin.too_large(self.count):
            raise self.origin.bomb(self.count)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed and hasattr(self, "file"):
            self.file.close()
        super().close()

    def _damaged(self, what: str, error: Exception) -> BadInput:
        reason = " ".join(str(error).split()) or type(error).__name__
        return BadInput(f"{self.origin.name} {what} ({reason}).", f"Fetch it again, and test it: {self.origin.fix}")


def stream(opener: Callable[[], Reader], origin: Origin) -> io.BufferedReader:
    """A buffered Stream."""
    return io.BufferedReader(Stream(opener, origin), CHUNK)


def spooled(opener: Callable[[], BinaryIO]) -> BinaryIO:
    """A temporary copy that can be read from any place."""
    copy = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115 closed by whoever reads it
    with opener() as file:
        while block := file.read(CHUNK):
            copy.write(block)
    copy.seek(0)
    return copy  # type: ignore[return-value]


@dataclass(frozen=True)
class Codec:
    """A compression of single files.

    Args:
        magic: the first bytes.
        suffixes: of file names, each with what the name becomes without it.
        unpack: a shell command that prints the content of the file that follows it.
        open: makes a reader from a packed file.
    """

    magic: bytes
    suffixes: dict[str, str]
    unpack: str
    open: Callable[[BinaryIO], Reader]

    def inner_name(self, name: str) -> str:
        """The name of the file in a compressed file of this name."""
        for suffix, rest in self.suffixes.items():
            if name.lower().endswith(suffix):
                return name[: -len(suffix)] + rest
        return name


def _zstd(file: BinaryIO) -> Reader:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


CODECS = (
    Codec(b"\x1f\x8b", {".tgz": ".tar", ".gz": ""}, "gzip -dc", lambda file: gzip.GzipFile(fileobj=file)),
    Codec(b"BZh", {".tbz2": ".tar", ".tbz": ".tar", ".bz2": ""}, "bzip2 -dc", bz2.BZ2File),
    Codec(b"\xfd7zXZ\0", {".txz": ".tar", ".xz": ""}, "xz -dc", lzma.LZMAFile),
    Codec(b"\x28\xb5\x2f\xfd", {".tzst": ".tar", ".zst": "", ".zstd": ""}, "zstd -dc", _zstd),
)


def codec_of(start: bytes) -> Codec | None:
    """The compression of a file that starts with these bytes."""
    return next((codec for codec in CODECS if start.startswith(codec.magic)), None)


def as_utf8(opener: Callable[[], BinaryIO], encoding: str, origin: Origin) -> BinaryIO:
    """A text in another encoding as UTF-8."""
    return io.BufferedReader(Blocks(_transcoded(opener, encoding, origin)), CHUNK)


def _transcoded(opener: Callable[[], BinaryIO], encoding: str, origin: Origin) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    with opener() as file:
        while True:
            block = file.read(CHUNK)
            try:
                yield decoder.decode(block, not block).encode()
            except UnicodeError as error:
                raise BadInput(f"{origin.name} is not valid {encoding} ({error}).", origin.fix) from None
            if not block:
                return


class Blocks(io.RawIOBase):
    """The bytes of an iterator as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks, self.rest = blocks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            block = next(self.blocks, None)
            if block is None:
                return 0
            self.rest = block
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size

    def read(self, size: int = -1, /) -> bytes:
        return super().read(size) or b""

    def close(self) -> None:
        if not self.closed and hasattr(self.blocks, "close"):
            self.blocks.close()  # type: ignore[attr-defined]
        super().close()
