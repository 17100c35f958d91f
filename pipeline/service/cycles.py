"""The record of retraining cycles in a run folder: when each ran, how it ended, and what it passed over."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import append_line, fingerprint, read_json, utc_now, write_json
from moltlm.pipeline.artifact_files import FINISHED
from moltlm.pipeline.typed_json import from_plain

RECORD = "cycles.jsonl"
FAILED, NOTHING_NEW, PROMOTED, NOT_PROMOTED = "failed", "nothing new", "promoted", "not promoted"
OUTDATED = "outdated"
"""The outcome of a cycle whose conversations are learned again, since what it was judged against was replaced."""


@dataclass
class CheckFigures:
    """A criterion of the gate, in points of 100: candidate minus what was in use, its lower bound, and the margin."""

    difference: float
    low: float
    margin: float


@dataclass
class Cycle:
    """One call of `molt retrain`.

    Attributes:
        began, ended: UTC, ISO 8601.
        outcome: promoted, not promoted, nothing new or failed.
        reason: of a failure.
        passed_over: files of conversations that could not be read, and why.
        tasks: what became of each task that was in use: kept as it is, trained again or lost.
        new_exchanges: how many it learned.
        left_out: answers that were read and not learned, by reason, where too few were new.
        set_aside: how many conversations were not taken, by reason.
        checks: figures of the gate's criteria, by name.
        persona: mean persona score of what is in use afterwards, 0 to 1; None where it was not measured.
        first: that of the first personality, on the same prompts.
        remedy: of the candidate that was judged last, where the first one did not pass.
        name: of the cycle's folder, as `molt blame` takes it; empty where nothing was trained.
        sources: files that the new exchanges come from.
    """

    began: str
    ended: str = ""
    outcome: str = FAILED
    reason: str = ""
    passed_over: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    new_exchanges: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    checks: dict[str, CheckFigures] = field(default_factory=dict)
    persona: float | None = None
    first: float | None = None
    remedy: str = ""
    name: str = ""
    sources: dict[str, int] = field(default_factory=dict)

    def sentence(self) -> str:
        """How it ended, for a reader."""
        reason = f": {self.reason}" if self.reason else ""
        files = f"; {len(self.passed_over)} files passed over" if self.passed_over else ""
        left = f"; left out: {', '.join(f'{n} {why}' for why, n in self.left_out.items())}" if self.left_out else ""
        aside = f"; {sum(self.set_aside.values())} set aside" if self.set_aside else ""
        remedy = f" by {self.remedy}" if self.remedy and self.outcome == PROMOTED else ""
        tasks = "".join(f"; {name} {outcome}" for name, outcome in self.tasks.items())
        return f"{self.ended[:16].replace('T', ' ')} UTC, {self.outcome}{remedy}{reason}{tasks}{left}{aside}{files}"


@contextmanager
def recorded(folder: Path, then: Callable[[Cycle], None] = lambda cycle: None) -> Iterator[Cycle]:
    """Record a cycle in `folder` when the block ends, also by an error, and then do something with it. The block sets
    its outcome."""
    cycle = Cycle(utc_now())
    try:
        yield cycle
    except BaseException as error:
        cycle.outcome = FAILED
        cycle.reason = error.what if isinstance(error, MoltError) else f"{type(error).__name__} {error}".strip()
        raise
    finally:
        cycle.ended = utc_now()
        with suppress(OSError, MoltError):  # of a full disk or a read-only folder, which the error itself says
            append_line(folder / RECORD, json.dumps(asdict(cycle), ensure_ascii=False))
        then(cycle)


def finish(folder: Path, names: dict[str, Any], outcome: str) -> None:
    """Note in the folder of a cycle that it is finished.

    Args:
        names: of its candidates: `candidate`, and those `before_it`.
    """
    path, record = folder / FINISHED, {**names, "outcome": outcome}
    before = path.stat() if path.is_file() else None
    write_json(path, {**record, "sha256": fingerprint(record)})
    if before:  # another outcome is no later end
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def finished(folder: Path) -> dict[str, Any]:
    """The candidates of a finished cycle and its outcome. Raises BadInput if the note is damaged."""
    path = folder / FINISHED
    try:
        record = read_json(path)
        if record.pop("sha256", None) == fingerprint(record):
            return record
    except (BadInput, AttributeError, TypeError):
        pass
    again = f"rm {shlex.quote(str(path))} && molt retrain CONFIG"
    raise BadInput(f"{path} is not as it was written.", f"It is written again from the rest of the cycle: {again}")


def all_finished(run_folder: Path) -> list[Path]:
    """The folders of the finished cycles of a run, in the order in which they finished."""
    notes = sorted(run_folder.glob(f"retrain/*/{FINISHED}"), key=lambda file: file.stat().st_mtime_ns)
    return [note.parent for note in notes]


def read(folder: Path) -> list[Cycle]:
    """All recorded cycles, oldest first. Lines that a power cut spoiled are left out."""
    path, cycles = folder / RECORD, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError, ValidationError):
            cycles.append(from_plain(json.loads(line), Cycle))
    return cycles


def last(folder: Path) -> Cycle | None:
    """The last recorded cycle; None if there is none."""
    return next(reversed(read(folder)), None)
