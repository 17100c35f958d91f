"""Faults of a retraining cycle, made on purpose, and what becomes of it.

    python benchmarks/faults.py                         # all: docs/results/faults.json and docs/findings/faults.md
    python benchmarks/faults.py --only killed           # these anew; the others stay as they were
    python benchmarks/faults.py --most 1                # each kind once

A small random model with something in use gets one new conversation. One cycle runs undisturbed. Then, each in a copy
of that project, a cycle runs into a fault. What is in use is read after it; what the error names is run, and the cycle
again. It has to end with the same weights in use as the undisturbed one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import breaking
import lying
import trials
from breaking import Kind
from fault_study import EQUAL, Row, Study, points, say
from trials import Ended

from moltlm.data.io import read_json, sha256_file, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "results" / "faults.json", ROOT / "docs" / "findings" / "faults.md"
TEACHER = "teacher.kind=endpoint", "teacher.model=m", "teacher.prompts_per_trait=2", "teacher.retries=0"
TEACHER += "teacher.timeout_s=1", "teacher.concurrency=1", "teacher.topics=[work]"


def nothing() -> None:
    """The fault is over by itself."""


def killed(study: Study, times: int) -> None:
    row = study.row("killed (SIGKILL), at changes of files over the whole cycle")
    for at in points(times, study.changes):
        study.trial(row, study.copy(), breaking.killed(at))


def power_cut(study: Study, times: int) -> None:
    row = study.row("power cut: killed, and what was written and not synced is empty")
    for at in points(times, study.changes):
        study.trial(row, study.copy(), breaking.power_cut(at), mend=nothing)
    row = study.row("power cut after the command has ended")
    study.trial(row, study.copy(), breaking.power_cut(0), mend=nothing)


def full_disk(study: Study, times: int) -> None:
    """On a disk of its own, which another program fills up at that moment."""
    if not trials.can_mount():
        say("full disk: left out, since it needs the right to mount")
        return
    row = study.row("disk full from a write on, until the cycle ends")
    for number, at in enumerate(points(times, study.changes)):
        with trials.small_disk(study.folder / f"disk-{number}") as disk:
            shutil.copytree(study.project.parent / trials.MODEL, disk / trials.MODEL)
            folder = study.copy(disk)
            study.trial(row, folder, breaking.full(disk, at), mend=lambda disk=disk: breaking.resize(disk, "2g"))


def read_only(study: Study, times: int) -> None:
    if not trials.can_mount():
        say("read-only: left out, since it needs the right to mount")
        return
    row = study.row("read-only: the project, the run folder, the registry, the conversations")
    for name in (".", "run", "registry", "conversations")[:times]:
        study.trial(row, study.copy(), breaking.read_only(name), mend=nothing)


def two_at_once(study: Study, times: int) -> None:
    row = study.row("two cycles at once, in one run folder")
    for _ in range(times):
        folder = study.copy()
        both = [trials.start(folder, "retrain") for _ in range(2)]
        _conclude_all(study, row, folder, [process.wait() for process in both])
    row = study.row("two cycles at once, of two run folders with one registry")
    for _ in range(times):
        folder = study.copy()
        shutil.copytree(folder / "run", folder / "other")
        both = [trials.start(folder, "retrain", settings=(f"run.folder={name}",)) for name in ("run", "other")]
        _conclude_all(study, row, folder, [process.wait() for process in both])


def _conclude_all(study: Study, row: Row, folder: Path, endings: list[Ended]) -> None:
    for ended in endings:
        study.conclude(row, folder, ended, mend=nothing)
    shutil.rmtree(folder)


def reader(study: Study, times: int) -> None:
    row = study.row("a reader that reads all the time, also during the promotion")
    reads = 0
    for _ in range(times):
        folder = study.copy()
        process, seen = trials.start(folder, "retrain"), Counter[str]()
        while not process.is_over():
            seen[trials.in_use(folder)] += 1
            time.sleep(0.01)
        reads += sum(seen.values())
        ended = process.wait()
        study.conclude(row, folder, ended)
        if set(seen) - {study.before, study.after}:
            row.whole -= 1
        shutil.rmtree(folder)
    row.notes.append(f"{reads} reads")


def clock(study: Study, times: int) -> None:
    row = study.row("clock a year ahead or behind in one cycle, or set right in the middle of it")
    year, middle = 366 * 86400, study.changes // 2
    faults = [breaking.clock(year), breaking.clock(-year)]
    faults += [breaking.both(fault, breaking.killed(middle)) for fault in faults]
    for fault in faults[:times]:
        study.trial(row, study.copy(), fault, mend=nothing)


def damaged_conversation(study: Study, times: int) -> None:
    row = study.row("a new conversation cut in half")
    folder = study.copy()
    file = folder / "conversations" / "second.jsonl"
    whole = file.read_bytes()
    breaking.cut(file)
    study.trial(row, folder, None, mend=lambda: _restored(file, whole))


ACTS = {"cut in half": breaking.cut, "with one bit flipped": breaking.flipped}


def damaged(begins: str, words: str, is_restored: bool = False) -> Callable[[Study, int], None]:
    """Each kind of file in a place that is there before the cycle.

    Args:
        is_restored: a user puts the file back, since no command can.
    """

    def make(study: Study, times: int) -> None:
        kinds = breaking.kinds(study.folder, study.before)
        files = {name: file for name, file in kinds.items() if _place(name) == begins}
        for label, act in ACTS.items():
            row = study.row(f"each kind of file {words}, {label}")
            for name, file in _sampled(files, times):
                box = study.box()
                broken = box / file.relative_to(study.folder)
                whole = broken.read_bytes()
                act(broken)
                say(f"  {name} {label}")
                mend = (lambda broken=broken, whole=whole: _restored(broken, whole)) if is_restored else None
                study.trial(row, box / "project", None, mend=mend)
                shutil.rmtree(box)

    return make


def _place(name: str) -> str:
    """Which of `PLACES` a file belongs to; empty for what a user wrote: half a text is a text, too."""
    name = name.removeprefix("project/")
    return next((place for place in PLACES if name.startswith(place)), "")


PLACES = ("registry/", "run/retrain/", "run/", "model/")
OF_REGISTRY, OF_CYCLE = "of the registry", "of a past cycle"


def _sampled(kinds: Kind, times: int) -> Iterator[tuple[str, Path]]:
    names = sorted(kinds)
    for name in names if times >= len(names) else random.Random(0).sample(names, times):
        yield name, kinds[name]


ANSWERED_SINGLY = "out of memory for more than one text of a batch, elsewhere"
LASTING = [f"each kind of file {words}, {label}" for words in (OF_REGISTRY, OF_CYCLE) for label in ACTS]
LASTING += [ANSWERED_SINGLY]
"""Faults after which the next cycle may learn something else than an undisturbed one: a past cycle that cannot be read
is left out, a state of the registry that cannot be read gives way to the one before, and what a batch of another size
samples are other answers."""
IN_USE = [f"each kind of file {OF_REGISTRY}, {label}" for label in ACTS]
"""Faults of what is in use itself, which is refused until it is repaired."""


def _restored(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def not_finite(study: Study, times: int) -> None:
    row = study.row("the loss is not a number in one step")
    for step in (2, 1, 3)[:times]:
        study.trial(row, study.copy(), breaking.not_finite(step), mend=nothing)


def out_of_memory(study: Study, times: int) -> None:
    row = study.row("out of memory for more than one example of a batch, in training")
    study.trial(row, study.copy(), breaking.out_of_memory_in_training(1))
    row = study.row(ANSWERED_SINGLY)
    study.trial(row, study.copy(), breaking.out_of_memory_elsewhere(1))
    row = study.row("out of memory even for one, in training and elsewhere")
    for fault in (breaking.out_of_memory_in_training(0), breaking.out_of_memory_elsewhere(0))[:times]:
        study.trial(row, study.copy(), fault, mend=nothing)


def endpoint(study: Study, times: int) -> None:
    row = study.row("the receiver of notices is down, slow or lies")
    for answer in lying.ANSWERS[:times]:
        with lying.server(answer) as url:
            notify = "schedule.notify_on=[promoted, not promoted, failed]", f"schedule.notify={url}"
            study.trial(row, study.copy(), breaking.impatient, *notify)


def teacher(study: Study, times: int) -> None:
    """Of `molt data build`, the only command of a schedule's project that asks one."""
    row = study.row("the teacher of a build hangs up, is slow, fails, or answers with nonsense")
    with lying.teacher() as (url, mood):
        settings = (f"teacher.url={url}", *TEACHER)
        folder = study.copy()
        before = _pairs(folder)
        trials.molt(folder, "data", "build", settings=settings)
        good = _pairs(folder) - before
        for name in lying.MOODS[:times]:
            shutil.rmtree(folder)
            folder, mood["now"] = study.copy(), name
            first = trials.molt(folder, "data", "build", settings=settings)
            row.first[EQUAL if _pairs(folder) - before == good else study.outcome(first)] += 1
            row.notes += [first.error] if first.error and first.error not in row.notes else []
            mood["now"] = lying.GOOD
            again = trials.molt(folder, "data", "build", settings=settings)
            row.then[EQUAL if _pairs(folder) - before == good else study.outcome(again)] += 1
            row.times += 1
            row.whole += study.is_whole(first, again)
            say(f"{row.fault}: {name}: {dict(row.first)}, then {dict(row.then)} {first.error}")
    shutil.rmtree(folder)


def _pairs(folder: Path) -> set[str]:
    """The hashes of the training pairs that were built."""
    return {sha256_file(path) for path in folder.glob("run/pairs/*/train.jsonl")}


FAULTS: dict[str, tuple[Callable[[Study, int], None], int]] = {
    "killed": (killed, 50),
    "power_cut": (power_cut, 16),
    "full_disk": (full_disk, 16),
    "read_only": (read_only, 4),
    "two_at_once": (two_at_once, 2),
    "reader": (reader, 3),
    "clock": (clock, 4),
    "damaged_registry": (damaged("registry/", OF_REGISTRY), 1000),
    "damaged_cycle": (damaged("run/retrain/", OF_CYCLE), 1000),
    "damaged_run": (damaged("run/", "of the run"), 1000),
    "damaged_model": (damaged("model/", "of the model", is_restored=True), 1000),
    "damaged_conversation": (damaged_conversation, 1),
    "not_finite": (not_finite, 3),
    "out_of_memory": (out_of_memory, 2),
    "endpoint": (endpoint, 5),
    "teacher": (teacher, 6),
}
"""Each kind of fault, and how often it is made at most."""


def write(study: Study) -> None:
    """Put the rows so far into the figures, in place of former ones, and all of them into the page."""
    former = {row["fault"]: row for row in read_json(RESULTS)["rows"]} if RESULTS.is_file() else {}
    rows = former | {row.fault: vars(row) for row in study.rows}
    numbers = {"changes_of_files": study.changes, "processor_seconds_of_a_cycle": study.seconds}
    write_json(RESULTS, {**numbers, "rows": list(rows.values())})
    start, middle, end = PAGE.read_text(encoding="utf-8").partition("<!-- table -->")
    _, closing, rest = end.partition("<!-- end of table -->")
    write_text(PAGE, f"{start}{middle}\n\n" + "\n".join(table(read_rows())) + f"\n\n{closing}{rest}")


def read_rows() -> list[Row]:
    """The committed rows."""
    return [
        Row(**{**row, "first": Counter(row["first"]), "then": Counter(row["then"])})
        for row in read_json(RESULTS)["rows"]
    ]


def table(rows: list[Row]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| fault | times | in use whole | this cycle | the next cycle |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.fault, row.times, row.whole, _counted(row.first), _counted(row.then))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="these kinds")
    parser.add_argument("--most", type=int, help="each at most so many times")
    parser.add_argument("--folder", type=Path, help="keep the project here, and use it again; by default it is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="molt-faults-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        study = Study(folder)
        for name in options.only:
            make, times = FAULTS[name]
            make(study, min(times, options.most or times))
            write(study)
    sys.stdout.write("\n".join(table(study.rows)) + "\n")


if __name__ == "__main__":
    main()
