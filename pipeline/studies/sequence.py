"""Methods against forgetting, compared on one sequence of tasks: what each learned, and what it kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, read_jsonl, write_json, write_text
from moltlm.data.state import BASE, PERSONALITY, Adapter
from moltlm.evals import stats
from moltlm.evals.continual import transfer
from moltlm.pipeline import layout
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.reporting import methods as methods_report
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.stages import measures, tasks

Record = dict[str, Any]
CHANGED = ("protect", "tasks", "replay", "router")


def compare(
    run: Run, only: list[str] | None = None, best: int | None = None, elsewhere: Sequence[Path] = ()
) -> list[Record]:
    """Train and measure every method with every seed, or those in `only`; what is there already is reused, and all of
    it is reported. With `best`, seeds after the first are for so many of the best methods, and the reference, only.
    `elsewhere` are the methods.json of other runs, whose rows are taken as they are. Writes methods.json, methods.md
    and methods.svg into the run's folder after each. `molt compare-methods CONFIG`"""
    settings, names = run.config.sequence, _wanted(run.config, only)
    given = {(row["method"], row["seed"]): row for file in elsewhere for row in _rows(run.config, file)}
    found: list[Record] = []
    for seed in settings.seeds:
        if best is not None and found and seed == settings.seeds[1]:
            rows = methods_report.means(found, settings.reference)
            names = [settings.reference, *methods_report.best(rows, best, settings.reference)]
        for name in settings.methods:
            row = given.get((name, seed)) or _row(run, name, seed, train=name in names)
            if row is not None:
                found.append(row)
                write_json(run.folder / "methods.json", found)
                write_text(run.folder / "methods.md", methods_report.table(found, settings.reference))
                write_text(run.folder / "methods.svg", methods_report.plot(found))
    return found


def _rows(config: Config, file: Path) -> list[Record]:
    """Of a methods.json. Raises BadInput if it is none, or of other tasks."""
    rows = read_json(file)
    keys = {"method", "seed", "tasks", *methods_report.MEANS}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
        raise BadInput(f"{file} is no methods.json.", "Name the file that molt compare-methods wrote.")
    if any(row["tasks"] != list(config.tasks) for row in rows):
        raise BadInput(f"{file} is of other tasks than {', '.join(config.tasks)}.", "Name one of the same tasks.")
    return rows


def _row(run: Run, name: str, seed: int, train: bool) -> Record | None:
    """None where it has not been measured and is not to be trained now."""
    run.only_read = not train
    try:
        with run.varied(method(run.config, name, seed)):
            return {"method": name, "seed": seed, **measured(run, f"{name}, seed {seed}").facts}
    except Missing:
        return None
    finally:
        run.only_read = False


def _wanted(config: Config, only: list[str] | None) -> list[str]:
    known = list(config.sequence.methods)
    if not known or not config.tasks:
        raise BadInput(
            "The config names no methods or no tasks to compare them on.",
            "Start from the shipped one: molt compare-methods sequence-135m",
        )
    if missing := [name for name in only or [] if name not in known]:
        raise BadInput(f"There is no method {missing[0]}.", f"There are: {', '.join(known)}.")
    for name in known:
        method(config, name, 0)  # a wrong setting is told now, and not after hours
    return [name for name in known if not only or name in only]


def method(config: Config, name: str, seed: int) -> Config:
    """The configuration of one method. Everything else, the personality too, is the same for all."""
    changes = config.sequence.methods[name]
    if other := [key for key in changes if key.split(".")[0] not in CHANGED]:
        raise BadInput(
            f"sequence.methods.{name} changes {other[0]}.",
            f"A method may change {', '.join(CHANGED)}: all share the rest.",
        )
    return vary(config, {**changes, "tasks.*.seed": seed, "sequence.methods": {}}, f"sequence.methods.{name}")


def measured(run: Run, label: str) -> Artifact:
    """The whole sequence by the current configuration: transfer between the tasks, and what the last state keeps."""
    names = list(run.config.tasks)
    trained = [tasks.task(run, Adapter(name)) for name in names]
    practised = [tasks.practice(run, Adapter(name)) for name in names if run.config.tasks[name].on_policy != "none"]
    states = [layout.state_after(run, names[: count + 1]) for count in range(len(names))]
    scores = {
        (state, name): measures.task_score(run, name, state)
        for place, state in enumerate([PERSONALITY, *states])
        for name in (names if state == PERSONALITY else names[: place + 1])
    }
    apart = {name: layout.state_of(run, Adapter(name)) for name in names} if states[-1].routes else {}
    told = [measures.task_score(run, name, state) for name, state in apart.items()]
    personas = {state: measures.persona_of(run, state) for state in (BASE, PERSONALITY, states[-1])}
    abilities = {state: measures.capability(run, state) for state in (PERSONALITY, states[-1])}
    moved = measures.drift(run, states[-1])
    inputs = [artifact.fingerprint for group in (scores, personas, abilities) for artifact in group.values()]
    inputs += [artifact.fingerprint for artifact in [*told, moved]]

    def make(folder: Any) -> dict[str, Any]:
        exact = {key: artifact.facts["exact_match"] for key, artifact in scores.items()}
        matrix = [[exact.get((state, name), math.nan) for name in names] for state in states]
        before = [exact[PERSONALITY, name] for name in names]
        base, start, end = (personas[state].facts for state in (BASE, PERSONALITY, states[-1]))
        return {
            "layout": run.config.protect.layout,
            "tasks": names,
            "accuracy": [[None if math.isnan(value) else value for value in row] for row in matrix],
            "before": before,
            **asdict(transfer(matrix, before)),
            "told": sum(artifact.facts["exact_match"] for artifact in told) / len(told) if told else None,
            "persona": end["score"],
            "persona_kept": (end["score"] - base["score"]) / ((start["score"] - base["score"]) or math.nan),
            "coherent": end["coherent"],
            "capability": _change(*(read_jsonl(artifact.folder / "records.jsonl") for artifact in abilities.values())),
            "kl": moved.facts["kl"],
            "seconds": sum(artifact.facts["seconds"] for artifact in [*trained, *practised]),
            "steps": [artifact.facts["steps"] for artifact in trained],
            "peak_gib": max(artifact.facts["peak_gib"] for artifact in [*trained, *practised]),
        }

    return run.do("sequence", {"of": inputs}, make, label)


def _change(before: list[Record], after: list[Record]) -> dict[str, Any]:
    """Points of accuracy over all items of all benchmarks pooled, paired by item, with its 95% interval."""
    old, new = ([float(row["correct"]) for row in rows] for rows in (before, after))
    found = stats.paired(old, new)
    return {key: round(100 * getattr(found, key), 2) for key in ("difference", "low", "high")} | {"n": found.n}
