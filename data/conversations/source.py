"""A file to read, wherever it lies: on the disk, in an archive, compressed, or made of the rows of a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from moltlm.data.errors import BadInput
from moltlm.data.io import without_surrogates


def quoted(path: object) -> str:
    """A path in single quotes, for a shell. A byte that is no UTF-8 becomes a wildcard."""
    return "'" + re.sub("[\ud800-\udfff]", "'?'", str(path).replace("'", "'\\''")) + "'"


@dataclass(frozen=True)
class Source:
    """A file to read.

    Args:
        name: for people, such as `export.zip/chats/a.json`.
        stem: the source of its exchanges.
        named: whether the user named this file: it must be readable. Other files may be skipped.
        open: its content as UTF-8.
        command: a shell command that prints the content, if `cat NAME` does not.
        disliked: ids of messages that got a thumb down, as a file beside it says.
    """

    name: str
    stem: str
    named: bool
    open: Callable[[], BinaryIO]
    command: str = ""
    disliked: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", without_surrogates(self.stem))

    def bad(self, what: str, fix: str = "") -> BadInput:
        """The error for what is wrong with this file; `what` begins with a comma, a colon or a verb."""
        return BadInput(f"{self.name}{what}", fix or self.look())

    def undecodable(self, where: str, byte: int, suffix: str) -> BadInput:
        """The error for a text that is not UTF-8, at a place that begins with a comma or is "". It says how to convert
        it to a file of this suffix."""
        convert = self.convert("iconv -f CP1252 -t UTF-8", suffix)
        fix = f"Convert it from its encoding, which is CP1252 in most of Western Europe: {convert}"
        return self.bad(f"{where} is not UTF-8: byte {byte} cannot be read.", fix)

    def look(self, place: str = "") -> str:
        """How to see the file, or one line of it (`line 3`)."""
        line = place.removeprefix("line ")
        return f"Look at it: {self.piped(f'sed -n {line}p' if line != place else 'less')}"

    def piped(self, program: str) -> str:
        """A shell command that runs a program on the content."""
        return f"{self.command} | {program}" if self.command else f"{program} {quoted(self.name)}"

    def convert(self, program: str, suffix: str) -> str:
        """A shell command that writes what `program` makes of the content to a new file, and imports that."""
        return f"{self.piped(program)} > fixed{suffix} && molt data import fixed{suffix}"
