"""Terminal output: messages and progress on standard error, results on standard output."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from rich.console import Console as Rich
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moltlm.data.io import to_json, without_surrogates
from moltlm.data.types import Progress as Callback

_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)))
del _UNPRINTABLE[ord("\n")], _UNPRINTABLE[ord("\t")]
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_COMMAND = re.compile(r"(\bmolt\b[^\n]*?)\bCONFIG\b( MODEL)?")


def printable(text: str) -> str:
    """The text without what would steer a terminal (control characters, reversals of direction), give away the password
    of a URL, or is half a character. Texts of strangers come through here: conversations, answers, names of files."""
    return _PASSWORD.sub("", without_surrogates(text.translate(_UNPRINTABLE)))


def named(text: str, same: Sequence[str]) -> str:
    """The text with the configuration and the settings of this command, `same`, for CONFIG in its commands."""
    if not same:
        return text
    name, settings = shlex.quote(same[0]), "".join(f" {shlex.quote(each)}" for each in same[1:])
    return _COMMAND.sub(lambda match: f"{match[1]}{name}{match[2] or ''}{settings}", text)


class Console:
    """Where commands print. With `json_output`, standard output carries one JSON document and nothing else.

    Attributes:
        same: the configuration and the settings of this command, once they are known: what is deep in the code does not
            know them, and its hints say CONFIG.
    """

    same: ClassVar[Sequence[str]] = ()

    def __init__(self, json_output: bool = False) -> None:
        self.json_output = json_output
        self._err = Rich(stderr=True, highlight=False, soft_wrap=True)
        self._out = Rich(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a message."""
        self._err.print(escape(printable(named(text, self.same))))

    def stage(self, name: str, note: str) -> None:
        """Print the state of a stage."""
        self._err.print(f"[bold]{escape(printable(name))}[/bold]  {escape(printable(note))}")

    def result(self, value: Any, text: str) -> None:
        """Print a command's result: the value as JSON with `json_output`, else the text."""
        if self.json_output:
            document = _PASSWORD.sub("", without_surrogates(to_json(value)))
            sys.stdout.write("".join(_escaped(char) for char in document) + "\n")
        else:
            self._out.print(escape(printable(named(text, self.same))))

    def error(self, what: str, fix: str) -> None:
        """Print an error and what mends it."""
        self._err.print(f"[bold red]error[/bold red]  {escape(printable(what))}")
        if fix:
            self._err.print(f"       {escape(printable(named(fix, self.same)))}")

    @contextmanager
    def progress(self, label: str) -> Iterator[Callback]:
        """A progress bar with the remaining time in a terminal; elsewhere a line every 20 seconds."""
        if self._err.is_terminal:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, TextColumn("{task.fields[note]}"), console=self._err, transient=True) as bar:
                task = bar.add_task(escape(printable(label)), total=None, note="")
                yield lambda count, total, note: bar.update(
                    task, completed=count, total=total, note=escape(printable(note))
                )
        else:
            yield _Lines(label, self.say)


def _escaped(char: str) -> str:
    """A character of a JSON document, in which those below the space are escaped already."""
    return f"\\u{ord(char):04x}" if ord(char) in _UNPRINTABLE else char


class _Lines:
    """Progress as plain text, at most one line in 20 seconds."""

    def __init__(self, label: str, say: Any, every_s: float = 20.0) -> None:
        self._label, self._say, self._every = label, say, every_s
        self._last = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __call__(self, count: int, total: int, note: str) -> None:
        now = time.monotonic()
        # what came before the first call took no time here: steps before an interruption, the reading of a model
        self._first = self._first or (now, count)
        began, before = self._first
        if now - self._last < self._every or count == before:
            return
        self._last = now
        left = (now - began) / (count - before) * (total - count)
        self._say(f"  {self._label}: {count}/{total} {note}, about {left:.0f} s left")
