"""The record of retraining cycles in a run folder: when each ran, how it ended, and what it passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from moltlm.data.errors import MoltError
from moltlm.data.io import append_line
from moltlm.pipeline.typed_json import from_plain

RECORD = "cycles.jsonl"
FINISHED = "finished.json"
"""File in the folder of a cycle that is finished: its candidate and its outcome."""
FAILED, NOTHING_NEW, PROMOTED, NOT_PROMOTED = "failed", "nothing new", "promoted", "not promoted"
OUTDATED = "outdated"
"""The outcome of a cycle whose conversations are learned again, since what it was judged against was replaced."""


@dataclass
class Cycle:
    """One call of `molt retrain`.

    Attributes:
        began, ended: UTC, ISO 8601.
        outcome: promoted, not promoted, nothing new or failed.
        reason: of a failure.
        passed_over: files of conversations that could not be read, and why.
        tasks: what became of each task that was in use: kept as it is, trained again or lost.
    """

    began: str
    ended: str = ""
    outcome: str = FAILED
    reason: str = ""
    passed_over: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """How it ended, for a reader."""
        reason = f": {self.reason}" if self.reason else ""
        files = f"; {len(self.passed_over)} files passed over" if self.passed_over else ""
        tasks = "".join(f"; {name} {outcome}" for name, outcome in self.tasks.items())
        return f"{self.ended[:16].replace('T', ' ')} UTC, {self.outcome}{reason}{tasks}{files}"


@contextmanager
def recorded(folder: Path) -> Iterator[Cycle]:
    """Record a cycle in `folder` when the block ends, also by an error. The block sets its outcome."""
    cycle = Cycle(_now())
    try:
        yield cycle
    except BaseException as error:
        cycle.outcome = FAILED
        cycle.reason = error.what if isinstance(error, MoltError) else f"{type(error).__name__} {error}".strip()
        raise
    finally:
        cycle.ended = _now()
        with suppress(OSError):  # of a full disk or a read-only folder, which the error itself says
            append_line(folder / RECORD, json.dumps(asdict(cycle), ensure_ascii=False))


def last(folder: Path) -> Cycle | None:
    """The last recorded cycle; None if there is none. Lines that a power cut spoiled are left out."""
    path = folder / RECORD
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in reversed(lines):
        with suppress(ValueError, ValidationError):
            return from_plain(json.loads(line), Cycle)
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
