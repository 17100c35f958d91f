"""What happened, in sentences made of the numbers: the report's first paragraph, and lines for a terminal."""

from __future__ import annotations

from moltlm.data.state import CONTROL
from moltlm.evals.knowledge import Capacity
from moltlm.evals.stats import Comparison
from moltlm.pipeline.reporting import tables
from moltlm.pipeline.reporting.results import PersonaResult, Results, Retention, TaskResult
from moltlm.pipeline.reporting.text import bounds, change, interval, listed, number, path_name, points, state_label


def summary(results: Results) -> list[str]:
    """A few plain lines: persona, tasks, retention, capability, paths, gate, hypotheses and other studies, gaps."""
    return [
        *_persona_lines(results),
        *map(_task_line, results.tasks),
        *(_retention_line(results, row) for row in results.retention),
        *_capability_lines(results),
        *_path_lines(results),
        *_gate_lines(results),
        *(f"{one.id}: {one.outcome}. {' '.join(one.reasons[:1])}".strip() for one in results.hypotheses),
        *_explored_lines(results),
        *map(_knowledge_line, results.knowledge),
        *_missing_lines(results),
    ]


def _persona_lines(results: Results) -> list[str]:
    personas = _personas(results)
    if not personas:
        return []
    shares = [f"{state_label(name)} {points(persona.taken)}" for name, persona in personas.items()]
    n = next(iter(personas.values())).n
    return [f"persona: taken for {results.persona} and coherent, of 100 (n={n}): {', '.join(shares)}"]


def _task_line(task: TaskResult) -> str:
    control = f", {points(task.control)} without replay" if task.control else ""
    scores = f"exact match {points(task.before)} before, {points(task.after)} after{control}"
    return f"task {task.name}: {scores}; floor {task.floor * 100:.0f}, n={task.n}"


def _retention_line(results: Results, row: Retention) -> str:
    difference = change(row.replay_change, " points")
    masked = _masked(results, row.task)
    return f"retention, {row.task}: with replay the persona score changed by {difference}; {_protection(row)}{masked}"


def _masked(results: Results, task: str) -> str:
    """What of the preference for the hand-written answers is left without replay: a voice can be masked by the format
    of a task and not be gone. Empty where it was not measured, or may not have been gained at all."""
    personas = _personas(results)
    alone, control = (personas.get(name) for name in ("personality", f"personality+{task}{CONTROL}"))
    if not (alone and control and alone.margin and control.margin and alone.margin.low > 0):
        return ""
    share = control.margin.mean / alone.margin.mean
    return f"; by likelihood {share:.0%} of the gain is left without replay"


def _capability_lines(results: Results) -> list[str]:
    changes = [f"{state_label(name)} {change(one)}" for name, one in tables.candidate_changes(results).items()]
    benchmarks = "".join(f"; {text}" for text in _changed_benchmarks(results))
    return [f"capability against the base, mean over benchmarks: {', '.join(changes)}{benchmarks}"] if changes else []


def _path_lines(results: Results) -> list[str]:
    paths = [f"{path.stage}: {path_name(path.colour)}" for path in results.paths]
    return [f"paths: {'; '.join(paths)}"] if paths else []


def _gate_lines(results: Results) -> list[str]:
    standing = [f"{name} {words}" for name, words in tables.standing(results).items()]
    return [f"gate: {'; '.join(standing)}"] if standing else []


def _explored_lines(results: Results) -> list[str]:
    if results.explored is None:
        return []
    early, limit = results.explored.early, results.explored.threshold
    sign = early.best or ("none" if early.detectors else "unknown")
    at = f"at {limit.at:.2f} nats a token" if limit and limit.shown else "not shown" if limit else "unknown"
    return [f"explored, {early.n} trainings: early sign of forgetting {sign}; threshold of KL to the base {at}"]


def _knowledge_line(one: Capacity) -> str:
    where = f"unknown with up to {max(point.bits.mean for point in one.points):.0f} bits"
    if one.at_drop:
        where = f"{number(one.at_drop.mean)} bits ({interval(one.at_drop)})"
        if one.bound:
            where = f"at most {number(one.at_drop.mean)} bits"
    seeds = f"{one.reached} of {one.seeds} seeds lose as many"
    lost = f"{one.drop:g} points of LAMBADA"
    return f"new knowledge, rank {one.rank}, stored where {lost} are lost: {where}, {seeds}"


def _missing_lines(results: Results) -> list[str]:
    missing = list(dict.fromkeys(results.missing))
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return [f"missing: {missing[0]}{more}"] if missing else []


def story(results: Results) -> str:
    """The first paragraph. What is not decided is said to be so."""
    sentences = [
        *_persona_sentences(results),
        *_task_sentences(results),
        *_capability_sentences(results),
        *_verdict_sentences(results),
    ]
    return " ".join(sentences or ["Nothing has been measured yet."])


def _persona_sentences(results: Results) -> list[str]:
    personas = _personas(results)
    if "personality" not in personas:
        return []
    name, after = results.persona, personas["personality"]
    base = f"; from the untouched base, {points(personas['base'].taken)}" if "base" in personas else ""
    return [
        f"{results.model} was trained to be {name}. On {after.n} held-out prompts, of 100 answers "
        f"{points(after.taken)} are coherent and taken for {name} by a style classifier{base}."
    ]


def _task_sentences(results: Results) -> list[str]:
    scores = []
    for task in results.tasks:
        floor = "" if task.after.mean >= task.floor else f", below its floor of {task.floor * 100:.0f}"
        scores.append(f"{task.name}, from {points(task.before)} to {points(task.after)}{floor}")
    sentences = [f"Right answers of 100 on the tasks that it then learned: {listed(scores)}."] if scores else []
    for row in results.retention:
        unclear = ", which could be no change" if _includes_zero(row.replay_change) else ""
        sentences.append(
            f"Learning {row.task} with replay changed the persona score by {change(row.replay_change, ' points')}"
            f"{unclear}; {_protection(row)}{_masked(results, row.task)}."
        )
    return sentences


def _capability_sentences(results: Results) -> list[str]:
    changes = tables.candidate_changes(results)
    if not changes:
        return []
    each = [f"{change(one)} {_at_end(name)}" for name, one in changes.items()]
    sentences = [f"General ability, as the mean change in points of accuracy against the base: {listed(each)}."]
    if benchmarks := _changed_benchmarks(results):
        sentences.append(f"Of the single benchmarks, {listed(benchmarks)}.")
    if any(map(_includes_zero, changes.values())):
        detectable = max(one.detectable for one in changes.values()) * 100
        sentences.append(
            "An interval that includes zero does not show that nothing was lost: these items mostly show changes of "
            f"{detectable:.1f} points and more."
        )
    return sentences


def _verdict_sentences(results: Results) -> list[str]:
    standing = [f"{name} {words}" for name, words in tables.standing(results).items()]
    sentences = [f"The gate: {'; '.join(standing)}."] if standing else []
    for outcome in dict.fromkeys(verdict.outcome for verdict in results.hypotheses):
        ids = [verdict.id for verdict in results.hypotheses if verdict.outcome == outcome]
        sentences.append(f"{listed(ids)} {'is' if len(ids) == 1 else 'are'} {outcome}.")
    return sentences


def _personas(results: Results) -> dict[str, PersonaResult]:
    return {state.name: state.persona for state in results.states if state.persona}


def _protection(row: Retention) -> str:
    """What replay protects, as the end of a sentence."""
    loss = change(row.control_change, " points")
    if not row.control_lost_enough:
        return f"without replay, by {loss}, too little to say how much replay protects"
    unlearned = "" if row.control_reached_floor else ", though that control did not learn the task"
    whole = "all and more: " if row.retained.mean > 1 else ""
    share = f"{whole}{row.retained.mean * 100:.0f}% ({bounds(row.retained)})"
    return f"without replay, by {loss}{unlearned}, so replay kept {share} of what is lost without it"


def _changed_benchmarks(results: Results) -> list[str]:
    """The benchmarks that changed against the base by more than their interval: a mean can hide them."""
    candidates = tables.candidate_changes(results)
    states = [state for state in results.states if state.name in candidates]
    texts = []
    for name in dict.fromkeys(name for state in states for name in state.capability):
        changes = [state.capability[name].change for state in states if name in state.capability]
        counts = {"below": sum(one.high < 0 for one in changes), "above": sum(one.low > 0 for one in changes)}
        texts += [
            f"the interval of {name} is {side} zero in {count} of {len(changes)} states"
            for side, count in counts.items()
            if count
        ]
    return texts


def _includes_zero(value: Comparison) -> bool:
    return value.low <= 0 <= value.high


def _at_end(name: str) -> str:
    """A state at the end of a clause."""
    return "for the personality alone" if name == "personality" else state_label(name)
