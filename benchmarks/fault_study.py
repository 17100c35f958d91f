"""One undisturbed cycle, and what becomes of others that run into a fault, compared with it."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import breaking
import numpy as np
import trials
from trials import Ended, Fault

from moltlm.data.io import read_json, write_json

EQUAL, ROUNDED, ERROR = "equal", "equal but for rounding", "one error"
KILLED, TRACEBACK = "killed", "traceback"
NUMBERS = "numbers.json"
NOTHING_NEW, NOT_PROMOTED, OTHER = "nothing learned", "kept out", "other weights"


@dataclass
class Row:
    """What became of the cycles that ran into one kind of fault.

    Attributes:
        whole: how often what was in use was whole, by its hashes, whenever it was read.
        first: how the cycle ended, by name.
        then: how the next one ended, once the fault was over and what the error names was run.
        notes: errors, each once, with the command that was run after it.
    """

    fault: str
    times: int = 0
    whole: int = 0
    first: Counter[str] = field(default_factory=Counter)
    then: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Study:
    """A project, what is in use before its next cycle and after an undisturbed one, and the rows so far. What was
    prepared in the folder is used again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.whole = folder, folder / "project", folder / "undisturbed"
        self.number, self.rows = 0, list[Row]()
        if not self.whole.is_dir():
            trials.prepare(self.project)
            self._undisturbed()
        self.before, self.after = trials.in_use(self.project), trials.in_use(self.whole)
        self.weights = trials.weights_in_use(self.whole)
        self.changes, self.seconds = read_json(self.whole / NUMBERS)

    def _undisturbed(self) -> None:
        """Run the cycle that the others are compared with; processor seconds, since a machine may be shared."""
        counter, copy, before = breaking.Counting(), self.copy(), os.times()
        ended, after = trials.molt(copy, "retrain", fault=counter), os.times()
        if ended.code or ended.in_use in ("", trials.in_use(self.project)):
            raise SystemExit(f"The undisturbed cycle did not promote:\n{ended.output}")
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        write_json(copy / NUMBERS, [counter.count, round(seconds, 1)])
        copy.rename(self.whole)
        say(f"undisturbed: {counter.count} changes of files, {seconds:.1f} s of a processor")

    def copy(self, to: Path | None = None) -> Path:
        """A copy of the project, for one trial."""
        self.number += 1
        return trials.copied(self.project, f"trial-{self.number}", to)

    def box(self) -> Path:
        """A folder with copies of the project and of its model, for one trial."""
        self.number += 1
        box = self.folder / f"box-{self.number}"
        shutil.copytree(self.folder / trials.MODEL, box / trials.MODEL)
        trials.copied(self.project, "project", box)
        return box

    def row(self, fault: str) -> Row:
        """A new row of the table."""
        self.rows.append(Row(fault))
        return self.rows[-1]

    def outcome(self, ended: Ended) -> str:
        """What a cycle came to, compared with the undisturbed one."""
        if ended.code < 0:
            return KILLED
        if trials.TRACEBACK in ended.output:
            return TRACEBACK
        if ended.code == 0:
            known = {self.after: EQUAL, self.before: NOTHING_NEW}
            return known.get(ended.in_use) or (ROUNDED if self.is_near(ended.weights) else OTHER)
        return NOT_PROMOTED if ended.code == 3 else ERROR

    def is_near(self, weights: trials.Weights) -> bool:
        """Whether these are the undisturbed cycle's weights but for rounding."""
        return weights.keys() == self.weights.keys() and all(
            np.allclose(value, self.weights[name], atol=1e-4) for name, value in weights.items()
        )

    def is_whole(self, *endings: Ended) -> bool:
        """Whether what was in use was whole after each of these."""
        return all(ended.in_use for ended in endings)

    def trial(
        self, row: Row, folder: Path, fault: Fault | None, *settings: str, mend: Callable[[], None] | None = None
    ) -> None:
        """Run a cycle with a fault; then what the error names, and the cycle again.

        Args:
            mend: what ends the fault; None: what the error names.
        """
        began = time.monotonic()
        first = trials.molt(folder, "retrain", fault=fault, settings=settings)
        self.conclude(row, folder, first, mend)
        say(f"{row.fault}: {self.outcome(first)}, then {dict(row.then)}, {time.monotonic() - began:.0f} s")
        shutil.rmtree(folder, ignore_errors=True)

    def conclude(self, row: Row, folder: Path, first: Ended, mend: Callable[[], None] | None = None) -> None:
        """Note how a cycle ended, and how the next one does."""
        result, command = self.outcome(first), ""
        row.first[result] += 1
        if mend:
            mend()
        elif result in (ERROR, TRACEBACK):
            command = trials.obey(folder, first.error)
        again = first if result in (EQUAL, ROUNDED) and mend is None else trials.molt(folder, "retrain")
        row.then[self.outcome(again)] += 1
        row.times += 1
        row.whole += self.is_whole(first, again)
        for ended in (first, again):
            note = ended.error.replace(str(self.folder), "").strip() + (f" [ran: {command}]" if command else "")
            if ended.error and note not in row.notes:
                row.notes.append(note)
                say(f"    {note}")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def points(count: int, of: int) -> list[int]:
    """Half of the points evenly spread over all changes of files, half at random."""
    rng = random.Random(0)
    even = [1 + round(step * (of - 1) / max(count // 2 - 1, 1)) for step in range(count // 2)]
    return even + [rng.randint(1, of) for _ in range(count - len(even))]
