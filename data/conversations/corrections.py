"""Corrections: better versions of answers, as preference data in a file that grows line by line.

Each line is a row as TRL reads it, of lists of messages: `prompt`, `chosen` (the user's version), `rejected` (what was
said); and `provenance: edited`, `source: corrections`, `said_by`, `time` (UTC, ISO 8601).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from moltlm.data.conversations.importers import message_row
from moltlm.data.errors import BadInput
from moltlm.data.io import open_to_append, utc_now
from moltlm.data.types import EDITED, Exchange, Message

FILE = "corrections.jsonl"
SOURCE = "corrections"


def append(path: Path, prompt: list[Message], said: str, better: str, said_by: str = "") -> bool:
    """Add a correction to a file, whole or not at all. A file that this creates can be read by its owner alone.

    Args:
        said_by: which model, or which file, the answer is from.

    Returns:
        False, with nothing written, if the better version is what was said.

    Raises:
        BadInput: for an empty text, or a file that cannot be written.
    """
    said, better = said.strip(), better.strip()
    if not better or not said or not prompt or not prompt[-1]["content"].strip():
        raise BadInput(
            "A correction needs a prompt, what was said, and a better answer, and one of them is empty.",
            "Give all three: molt data correct CONFIG --prompt TEXT --answer TEXT --edited TEXT",
        )
    if better == said:
        return False
    row = message_row(Exchange(prompt, better, source=SOURCE, rejected=said, provenance=EDITED))
    row |= {"said_by": said_by} if said_by else {}
    row |= {"time": utc_now()}
    _append(path, (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="replace"))
    return True


def _append(path: Path, line: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_to_append(path)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # somebody's editor left the last line open
            line = b"\n" + line
        try:
            if os.write(handle, line) < len(line):
                raise OSError("only a part of it fits")
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise _not_written(path, error) from None
    finally:
        os.close(handle)


def _not_written(path: Path, error: OSError) -> BadInput:
    return BadInput(
        f"The correction is not written to {path}: {error.strerror or error}.",
        "Name another file: molt data correct CONFIG --out FILE.jsonl",
    )
