"""What all formats of a personality share: the source with its errors, and the result of reading."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.spec import Spec

LeftOut = Counter[str]
"""Number of things that were not kept, by what they are."""


@dataclass(frozen=True)
class Source:
    """A file or folder to read, and the command that reads it.

    Args:
        name: what the user calls the persona; None if they did not say.
        folder: the folder of the new project, for the commands in errors.
    """

    path: Path
    name: str | None = None
    folder: str = "FOLDER"

    def bad(self, what: str, fix: str = "") -> BadInput:
        """The error about this source. `what` continues the sentence that begins with its path."""
        return BadInput(f"{self.path}{what}", fix or self.look())

    def command(self, file: str = "", name: str = "") -> str:
        """The `molt init` that reads this source, or another file, under a name."""
        source = shlex.quote(file or str(self.path))
        return f"molt init {shlex.quote(self.folder)} --from {source}" + (f" --name {name}" if name else "")

    def look(self) -> str:
        return f"Look at it: less {shlex.quote(str(self.path))}"

    def edit(self, file: Path | None = None) -> str:
        return f"${{EDITOR:-vi}} {shlex.quote(str(file or self.path))}"

    def nameless(self) -> BadInput:
        """The error about a source in which nobody is named."""
        return self.bad(" does not say what the persona is called.", f"Give the name: {self.command(name='NAME')}")


@dataclass(frozen=True)
class SpecReading:
    """What was read from a source.

    Args:
        left_out: how much of the source the spec does not hold.
        names: what the source calls the persona, whatever the user calls it.
    """

    spec: Spec
    format: str
    left_out: LeftOut = field(default_factory=Counter)
    names: tuple[str, ...] = ()


def parse_json(source: Source, text: str | bytes) -> Any:
    """The JSON value. Raises BadInput for anything else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise source.bad(f": not valid JSON ({str(error)[:80]}).") from None


def text_of(value: Any, joint: str = "\n") -> str:
    """A text, or the texts of a list joined; "" for anything else."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").strip()
    if isinstance(value, list):
        return joint.join(filter(None, (text_of(item, joint) for item in value)))
    return ""


def texts_of(value: Any) -> list[str]:
    """The texts of a list, or one text as a list; empty ones are skipped."""
    items = value if isinstance(value, list) else [value]
    return [text for item in items if (text := text_of(item))]


def count_fields(record: dict[str, Any], read_fields: Iterable[str], left_out: LeftOut) -> None:
    """Count every field that has a value and is not read; a list counts its items."""
    for key, value in record.items():
        if key not in read_fields and value not in (None, "", "none", [], {}, False):
            left_out[str(key)[:40]] += len(value) if isinstance(value, list) else 1


def unique(texts: Iterable[str]) -> list[str]:
    """The texts without repetitions and empty ones, in their order."""
    return list(dict.fromkeys(text for text in texts if text.strip()))
