"""One method against forgetting on one sequence of tasks: what it learned, and what it kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.evals import stats
from moltlm.evals.continual import transfer
from moltlm.evals.records import ItemRecord, paired_values
from moltlm.pipeline import layout
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.stages import measures, tasks
from moltlm.pipeline.studies.methods import LEAST_GAIN, CapabilityChange, MeasuredTransfer

CHANGEABLE = ("protect", "tasks", "replay", "router")
"""The sections of the config that a method may change."""


def trial(run: Run, name: str, seed: int) -> Artifact:
    """Train and measure one method with one seed."""
    before_tasks(run, name, seed)
    with run.varied(method(run.config, name, seed)):
        return measure(run, f"{name}, seed {seed}")


def before_tasks(run: Run, name: str, seed: int) -> None:
    """Measure what methods have in common: the base and the personality, before any task is trained."""
    with run.varied(method(run.config, name, seed)):
        for task in run.config.tasks:
            measures.task_score(run, task, PERSONALITY)
        for state in (BASE, PERSONALITY):
            measures.persona_of(run, state)
        measures.capability(run, PERSONALITY)


def order(config: Config, seed: int) -> list[str]:
    """The order in which this seed learns the tasks: seeds and orders are crossed, one order a seed in turn."""
    settings = config.sequence
    if not settings.orders or seed not in settings.seeds:
        return list(config.tasks)
    return settings.orders[settings.seeds.index(seed) % len(settings.orders)]


def methods_to_train(config: Config, only: Sequence[str]) -> list[str]:
    names = list(config.sequence.methods)
    if not names or not config.tasks:
        raise BadInput(
            "The config names no methods or no tasks to compare them on.",
            "Start from the shipped one: molt compare-methods sequence-135m",
        )
    if missing := [name for name in only if name not in names]:
        raise BadInput(f"There is no method {missing[0]}.", f"There are: {', '.join(names)}.")
    for name in names:
        method(config, name, 0)  # so that a wrong setting fails now, and not after hours
    return [name for name in names if not only or name in only]


def method(config: Config, name: str, seed: int) -> Config:
    """The configuration of one method. Everything else, the personality too, is the same for all."""
    changes = config.sequence.methods[name]
    if other := [key for key in changes if key.split(".")[0] not in CHANGEABLE]:
        raise BadInput(
            f"sequence.methods.{name} changes {other[0]}.",
            f"A method may change {', '.join(CHANGEABLE)}: all share the rest.",
        )
    raw = config.model_dump(mode="json")["tasks"]
    in_order = {task: raw[task] for task in order(config, seed)}
    measured = {"history": config.sequence.history}
    return vary(
        config, {"tasks": in_order, **changes, "tasks.*.seed": seed, "sequence": measured}, f"sequence.methods.{name}"
    )


def measure(run: Run, label: str) -> Artifact:
    """Train and measure the whole sequence by the current configuration. The facts are `methods.SequenceMeasures`:
    transfer between the tasks, and what the last state keeps."""
    names = list(run.config.tasks)
    trainings = [tasks.task(run, Adapter(name)) for name in names]
    trainings += [tasks.practice(run, Adapter(name)) for name in names if run.config.tasks[name].on_policy != "none"]
    states = [layout.state_after(run, names[: count + 1]) for count in range(len(names))]
    scores = {
        (state, name): measures.task_score(run, name, state)
        for place, state in enumerate([PERSONALITY, *states])
        for name in scored_after(names, place, run.config.sequence.history)
    }
    alone = {name: layout.state_of(run, Adapter(name)) for name in names} if states[-1].routes else {}
    oracle = [measures.task_score(run, name, state) for name, state in alone.items()]
    personas = {state: measures.persona_of(run, state) for state in (BASE, PERSONALITY, states[-1])}
    abilities = {state: measures.capability(run, state) for state in (PERSONALITY, states[-1])}
    drift = measures.drift(run, states[-1])
    artifacts = [artifact for group in (scores, personas, abilities) for artifact in group.values()]

    def make(folder: Path) -> dict[str, Any]:
        by_measure = {key: _transfer(scores, oracle, states, names, key) for key in ("exact_match", "likelihood", "f1")}
        exact = by_measure["exact_match"]
        if exact is None:
            raise ValueError("a task score without exact match")
        base, start, end = (personas[state].facts for state in (BASE, PERSONALITY, states[-1]))
        gain = start["score"] - base["score"]
        return {
            "layout": run.config.protect.layout,
            "tasks": names,
            "accuracy": exact.matrix,
            **{key: value for key, value in asdict(exact).items() if key != "matrix"},
            **{key: each and asdict(each) for key, each in by_measure.items() if key != "exact_match"},
            "persona": end["score"],
            "persona_kept": (end["score"] - base["score"]) / gain if gain >= LEAST_GAIN else None,
            "coherent": end["coherent"],
            "capability": asdict(_capability_change(abilities[PERSONALITY], abilities[states[-1]])),
            "kl": drift.facts["kl"],
            "seconds": sum(artifact.facts["seconds"] for artifact in trainings),
            "steps": [artifact.facts["steps"] for artifact in trainings[: len(names)]],
            "peak_gib": max(artifact.facts["peak_gib"] for artifact in trainings),
        }

    inputs = {"measured": [artifact.fingerprint for artifact in [*artifacts, *oracle, drift]]}
    return run.do("sequence", inputs, make, label)


def scored_after(names: Sequence[str], trained: int, history: bool) -> Sequence[str]:
    """The tasks that are scored after `trained` trainings. Before the first and after the last: all. In between: those
    trained so far, or only the one just trained, and the next one.

    Args:
        names: the tasks in the order of training.
        history: score those trained before, too.
    """
    if trained in (0, len(names)):
        return names
    return names[0 if history else trained - 1 : trained + 1]


def _transfer(
    scores: Mapping[tuple[State, str], Artifact],
    oracle: Sequence[Artifact],
    states: Sequence[State],
    names: Sequence[str],
    key: str,
) -> MeasuredTransfer | None:
    """Transfer by one fact of the task scores; None where a task does not have it."""
    values = {place: artifact.facts[key] for place, artifact in scores.items()}
    if any(value is None for value in values.values()):
        return None
    matrix = [[values.get((state, name)) for name in names] for state in states]
    before = [values[PERSONALITY, name] for name in names]
    result = transfer([[math.nan if value is None else value for value in row] for row in matrix], before)
    routed = sum(artifact.facts[key] for artifact in oracle) / len(oracle) if oracle else None
    return MeasuredTransfer(**asdict(result), matrix=matrix, before=before, oracle=routed)


def _capability_change(before: Artifact, after: Artifact) -> CapabilityChange:
    """Points of accuracy over all items of all benchmarks pooled, paired by item, with its 95% interval."""
    old, new = (measures.load(artifact, ItemRecord) for artifact in (before, after))
    change = stats.paired(*paired_values(old, new, lambda item: item.correct))
    difference, low, high = (round(100 * value, 2) for value in (change.difference, change.low, change.high))
    return CapabilityChange(difference, low, high, change.n)
