"""The figures of the report: which values are drawn, under which titles and in which colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from moltlm.data.state import CONTROL
from moltlm.evals.comparisons import OverSeeds
from moltlm.evals.early import Detection
from moltlm.evals.hypotheses import at_common_levels
from moltlm.evals.knowledge import Capacity
from moltlm.evals.pressure import PressureSummary
from moltlm.evals.stats import Comparison, Estimate
from moltlm.evals.trajectories import Curve
from moltlm.pipeline.reporting import tables
from moltlm.pipeline.reporting.plots import SERIES, Row, Series, curves, forest, span_of
from moltlm.pipeline.reporting.results import Results, StateResult, TaskResult, TrainingResult
from moltlm.pipeline.reporting.text import state_label
from moltlm.pipeline.studies.verdict import GridVerdict

Figures = dict[str, str]
"""SVG by title."""


def by_place(results: Results) -> dict[str, Figures]:
    """The figures by their place on the page; those of a hypothesis under its id."""
    places = {
        "persona": persona(results.states),
        "turns": pressure(results.pressure),
        "early": early(results.explored.early) if results.explored else {},
        "knowledge": knowledge(results.knowledge),
        "drift": drift(results.states),
        "capability": capability(results.states),
        "tasks": tasks(results.tasks),
        "training": losses(results.training),
    }
    return places | {verdict.id: hypothesis(verdict) for verdict in results.hypotheses}


def persona(states: Sequence[StateResult]) -> Figures:
    """Persona score, coherence and win-rate by state, in points of 100."""
    personas = [(state.name, state.persona) for state in states if state.persona]
    values = {
        "Persona score": [(name, one.score) for name, one in personas],
        "Coherent answers": [(name, one.coherent) for name, one in personas],
        "Win-rate": [(name, one.win_rate) for name, one in personas if one.win_rate],
    }
    rows = {title: _state_rows(each, states, 100) for title, each in values.items() if each}
    return {title: forest(title, each, "points of 100", span=(0, 100)) for title, each in rows.items()}


def drift(states: Sequence[StateResult]) -> Figures:
    """KL to the base by state, for each set of texts."""
    values: dict[str, list[tuple[str, Estimate]]] = {}
    for state in states:
        for name, one in state.drift.items():
            values.setdefault(f"KL from the base, {name}", []).append((state.name, one.kl))
    rows = {title: _state_rows(each, states, 1) for title, each in values.items()}
    return {title: forest(title, each, "nats a token", {0: ""}, digits=3) for title, each in rows.items()}


def capability(states: Sequence[StateResult]) -> Figures:
    """Change against the base on each benchmark, in points of accuracy, on one scale."""
    values: dict[str, list[tuple[str, Comparison]]] = {}
    for state in states:
        for name, one in state.capability.items() if state.name != "base" else ():
            values.setdefault(name, []).append((state.name, one.change))
    rows = {title: _state_rows(each, states, 100) for title, each in values.items()}
    span = span_of([row for each in rows.values() for row in each], [0])
    unit = "points of accuracy against the base"
    return {title: forest(title, each, unit, {0: ""}, span, digits=1) for title, each in rows.items()}


def pressure(summaries: Mapping[str, PressureSummary]) -> Figures:
    """Persona score turn by turn, a line for each state; and under attack, a row for each kind."""
    colours, figures = _colours(list(summaries)), {}
    lines = [
        Series(state_label(state), [(turn.turn, turn.score.mean * 100) for turn in one.turns], colours[state])
        for state, one in summaries.items()
        if one.turns
    ]
    if lines:
        title = "Persona score over a conversation"
        figures[title] = curves(title, lines, "turn", "points of 100")
    for state, one in summaries.items():
        scores = {kind: attack.score for kind, attack in one.attacks.items() if attack.score}
        if scores:
            title = f"Persona score under attack, {state_label(state)}"
            rows = [_row(kind, score, 100, colours[state]) for kind, score in scores.items()]
            figures[title] = forest(title, rows, "points of 100", span=(0, 100))
    return figures


def tasks(results: Sequence[TaskResult]) -> Figures:
    """Exact match of each task before, after and without replay, with the floor it has to reach."""
    colours, figures = _colours([task.name for task in results]), {}
    for task in results:
        colour = colours[task.name]
        rows = [
            _row("personality alone", task.before, 100, SERIES[1]),
            _row("with the task", task.after, 100, colour),
        ]
        if task.control:
            rows.append(_row("with the task, no replay", task.control, 100, colour, hollow=True))
        title = f"Exact match, {task.name}"
        figures[title] = forest(title, rows, "points of 100", {task.floor * 100: "floor"}, (0, 100))
    return figures


def losses(training: Sequence[TrainingResult]) -> Figures:
    """Training loss of each adapter; the scales differ, since the losses do."""
    stages = [stage for stage in training if stage.curve]
    colours, figures = _colours([stage.name for stage in stages]), {}
    for stage in stages:
        title = f"Loss, {state_label(stage.name)}"
        line = Series(stage.name, [(point.step, point.loss) for point in stage.curve], colours[stage.name])
        figures[title] = curves(title, [line], "step", "loss")
    return figures


def hypothesis(verdict: GridVerdict) -> Figures:
    """The comparisons of a hypothesis, and its trainings along gain and learning rate."""
    figures = {
        "Differences in log-probability, with the margin": _differences(verdict) if verdict.comparisons else "",
        "Log-probability along persona gain, each arm and seed": _logprob_paths(verdict),
        "KL to the base along persona gain": _drift_paths(verdict),
        "Log-probability at equal gain by learning rate, tuning seeds": _learning_rates(verdict),
    }
    return {title: figure for title, figure in figures.items() if figure}


def gain_unit(verdict: GridVerdict) -> str:
    """The unit of gain on the hypothesis' axis."""
    return "of the score (0 to 1)" if verdict.axis == "persona" else "nats a token"


def gain_name(verdict: GridVerdict) -> str:
    return "persona gain" if verdict.axis == "persona" else "gain of likelihood"


def _differences(verdict: GridVerdict) -> str:
    """The differences that decide a hypothesis, seeds as small dots; below each the one not matched in gain."""
    rows = []
    for one in tables.comparisons(verdict):
        name = f"{one.better} − {one.than}"
        rows.append(_row(f"{name}, at equal gain", one, 1, SERIES[1], seeds=tuple(one.values)))
        rows.append(_row(f"{name}, at the last step", one.naive, 1, SERIES[0], hollow=True))
    title = f"{verdict.id}: differences in log-probability"
    return forest(title, rows, "nats of LAMBADA", {0: "", verdict.margin: "margin"}, digits=2)


def _logprob_paths(verdict: GridVerdict) -> str:
    """Log-probability along persona gain, a line for each arm and seed; a cross where the model was not coherent."""
    colours = _arm_colours([curve.arm for curve in verdict.curves])
    series = [_logprob_path(curve, colours[curve.arm]) for curve in verdict.curves]
    if not any(line.points for line in series):
        return ""
    title = f"{verdict.id}: log-probability along persona gain, each arm and seed"
    return curves(title, series, f"{gain_name(verdict)}, {gain_unit(verdict)}", "LAMBADA, nats", verdict.gain_levels)


def _logprob_path(curve: Curve, colour: str) -> Series:
    points = [point for point in curve.points if point.logprob is not None]
    incoherent = [place for place, point in enumerate(points) if not point.feasible]
    return Series(curve.arm, [(point.gain, point.logprob or 0.0) for point in points], colour, incoherent)


def _drift_paths(verdict: GridVerdict) -> str:
    """KL to the base along persona gain; nothing where it was not measured."""
    colours = _arm_colours([curve.arm for curve in verdict.curves])
    series = [
        Series(curve.arm, [(at.gain, at.kl) for at in curve.points if at.kl is not None], colours[curve.arm])
        for curve in verdict.curves
    ]
    if not any(line.points for line in series):
        return ""
    title = f"{verdict.id}: KL to the base along persona gain, each arm and seed"
    return curves(title, series, f"{gain_name(verdict)}, {gain_unit(verdict)}", "nats a token")


def _learning_rates(verdict: GridVerdict) -> str:
    """Log-probability by learning rate on the tuning seeds, at the gains that all comparable rates reach; nothing where
    none was chosen."""
    colours, series = _arm_colours(list(verdict.tuning)), []
    for arm, rows in verdict.tuning.items():
        values = zip(rows, at_common_levels(rows), strict=True)
        points = [(math.log10(row.learning_rate), value) for row, value in values if value is not None]
        if len({x for x, _ in points}) > 1:
            series.append(Series(arm, points, colours[arm]))
    title = f"{verdict.id}: log-probability at equal gain by learning rate, tuning seeds"
    return curves(title, series, "log10 of the learning rate", "LAMBADA, nats") if series else ""


def early(detection: Detection) -> Figures:
    """ROC of the best three early predictors and of the baseline, in points of 100."""
    if not detection.detectors or detection.baseline is None:
        return {}
    lines = [
        Series(one.predictor.replace("_", "-"), [(100 * x, 100 * y) for x, y in one.roc], SERIES[number])
        for number, one in enumerate([detection.baseline, *detection.detectors[:3]])
    ]
    title = "Predicting forgetting early: right alarms against false ones"
    return {title: curves(title, lines, "false alarms, of 100", "forgetting that is predicted, of 100")}


def knowledge(capacities: Sequence[Capacity]) -> Figures:
    """Points lost by bits stored, for each rank, and for as many tokens of the base's own text."""
    lines: list[Series] = []
    for one in capacities:
        facts = [(0.0, 0.0), *((point.bits.mean, point.cost.mean) for point in one.points)]
        control = [(0.0, 0.0), *((point.bits.mean, point.control.mean) for point in one.points)]
        for name, points in ((f"rank {one.rank}", facts), (f"rank {one.rank}, own text", control)):
            lines.append(Series(name, points, SERIES[len(lines) % len(SERIES)]))
    title = "What new knowledge costs: LAMBADA lost by bits stored"
    return {title: curves(title, lines, "bits stored", "points lost")} if lines else {}


def _state_rows(
    values: Sequence[tuple[str, Estimate | Comparison]], states: Sequence[StateResult], scale: float
) -> list[Row]:
    """Rows that are named after states, each state in its own colour on the whole page, controls hollow."""
    colours = _colours([state.name for state in states])
    return [
        _row(state_label(name), value, scale, colours[name], hollow=name.endswith(CONTROL)) for name, value in values
    ]


def _row(
    label: str,
    value: Estimate | Comparison | OverSeeds,
    scale: float,
    colour: str,
    hollow: bool = False,
    seeds: tuple[float, ...] = (),
) -> Row:
    center = value.mean if isinstance(value, Estimate) else value.difference
    return Row(label, center * scale, value.low * scale, value.high * scale, colour, hollow, seeds)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each state or adapter: grey for the base, blue for the personality, a task's and its control's
    alike."""
    tasks = dict.fromkeys(_task(name) for name in names if _task(name) not in ("base", "personality"))
    fixed = {"base": SERIES[0], "personality": SERIES[1]}
    fixed |= {task: SERIES[2 + i % (len(SERIES) - 2)] for i, task in enumerate(tasks)}
    return {name: fixed[_task(name)] for name in names}


def _task(name: str) -> str:
    return name.split("+")[-1].removesuffix(CONTROL)


def _arm_colours(arms: Sequence[str]) -> dict[str, str]:
    return {arm: SERIES[1 + number % 6] for number, arm in enumerate(dict.fromkeys(arms))}
