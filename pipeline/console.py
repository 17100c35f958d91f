"""Terminal output: messages and progress on standard error, results on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as Rich
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moltlm.data.io import to_json
from moltlm.data.types import Progress as Callback


class Console:
    """Where commands print. With `json_output`, standard output carries one JSON document and nothing else."""

    def __init__(self, json_output: bool = False) -> None:
        self.json_output = json_output
        self._err = Rich(stderr=True, highlight=False, soft_wrap=True)
        self._out = Rich(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a message."""
        self._err.print(escape(text))

    def stage(self, name: str, note: str) -> None:
        """Print the state of a stage."""
        self._err.print(f"[bold]{escape(name)}[/bold]  {escape(note)}")

    def result(self, value: Any, text: str) -> None:
        """Print a command's result: the value as JSON with `json_output`, else the text."""
        if self.json_output:
            sys.stdout.write(to_json(value) + "\n")
        else:
            self._out.print(escape(text))

    def error(self, what: str, fix: str) -> None:
        """Print an error and what mends it."""
        self._err.print(f"[bold red]error[/bold red]  {escape(what)}")
        if fix:
            self._err.print(f"       {escape(fix)}")

    @contextmanager
    def progress(self, label: str) -> Iterator[Callback]:
        """A progress bar with the remaining time in a terminal; elsewhere a line every 20 seconds."""
        if self._err.is_terminal:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, TextColumn("{task.fields[note]}"), console=self._err, transient=True) as bar:
                task = bar.add_task(label, total=None, note="")
                yield lambda count, total, note: bar.update(task, completed=count, total=total, note=note)
        else:
            yield _Lines(label, self.say)


class _Lines:
    """Progress as plain text, at most one line in 20 seconds."""

    def __init__(self, label: str, say: Any, every_s: float = 20.0) -> None:
        self._label, self._say, self._every = label, say, every_s
        self._began = self._last = time.monotonic()

    def __call__(self, count: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - self._last < self._every or not count:
            return
        self._last = now
        left = (now - self._began) / count * (total - count)
        self._say(f"  {self._label}: {count}/{total} {note}, about {left:.0f} s left")
