"""Inline SVG figures, each value with its interval. The same numbers give the same text, byte for byte.

All are small and of one width, so that a page can set them side by side and a phone can show one at full size.
Colours are CSS variables with a fallback: the page decides about light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from moltlm.data.state import CONTROL

INK, SOFT, GRID, PAPER = "#23252a", "#5f646d", "#d9d6cf", "#fdfdfd"
SERIES = ("#666b73", "#3b5b92", "#b04a24", "#2a7766", "#7a5299", "#86671a", "#277389")
"""The base is grey, the personality blue; tasks take the others in turn."""
VARIABLES = {INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "card"} | {hex_: f"s{i}" for i, hex_ in enumerate(SERIES)}
WIDTH, MARGIN, ROW = 3.4, 0.14, 0.36  # inches
DROP = 0.22  # of a row, from its middle down to the interval
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
}


@dataclass(frozen=True)
class Row:
    """A value with its interval. Infinite bounds are drawn dotted over the whole width; `seeds` are drawn beneath."""

    label: str
    mean: float
    low: float
    high: float
    colour: str = INK
    hollow: bool = False
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    crossed: Sequence[int] = ()


def persona(states: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Persona score, coherence and win-rate by state, in points of 100."""
    titles = {"Persona score": "score", "Coherent answers": "coherent", "Win-rate": "win_rate"}
    rows = {
        title: [_row(state, state["persona"][key], 100) for state in states if key in state["persona"]]
        for title, key in titles.items()
    }
    dressed = _coloured(rows, states)
    return {title: forest(title, each, "points of 100", span=(0, 100)) for title, each in dressed if each}


def drift(states: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """KL to the base by state, for each set of texts."""
    sets = dict.fromkeys(name for state in states for name in state["drift"])
    rows = {
        f"KL from the base, {name}": [_row(state, state["drift"][name]["kl"], 1) for state in states] for name in sets
    }
    dressed = _coloured(rows, states)
    return {title: forest(title, each, "nats a token", {0: ""}, digits=3) for title, each in dressed if each}


def turns(pressure: Mapping[str, Any]) -> dict[str, str]:
    """Persona score turn by turn, a line for each state; and under attack, a row for each kind."""
    colours, found = _colours(list(pressure)), {}
    lines = [
        Series(state_label(state), [(row["turn"], row["score"]["mean"] * 100) for row in item["turns"]], colours[state])
        for state, item in pressure.items()
        if item.get("turns")
    ]
    if lines:
        title = "Persona score over a conversation"
        found[title] = curves(title, lines, "turn", "points of 100")
    for state, item in pressure.items():
        scored = {kind: row["score"] for kind, row in item["attacks"].items() if row.get("score")}
        if scored:
            title = f"Persona score under attack, {state_label(state)}"
            rows = [Row(kind, *_scaled(score, 100), colours[state]) for kind, score in scored.items()]
            found[title] = forest(title, rows, "points of 100", span=(0, 100))
    return found


def capability(states: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Change against the base on each benchmark, in points of accuracy, on one scale."""
    others = [state for state in states if state["name"] != "base"]
    rows: dict[str, list[Row]] = {}
    for name in dict.fromkeys(name for state in others for name in state["capability"]):
        there = [state for state in others if name in state["capability"]]
        rows[name] = [_row(state, state["capability"][name]["change"], 100) for state in there]
    span = _span([row for each in rows.values() for row in each], [0])
    return {
        title: forest(title, each, "points of accuracy against the base", {0: ""}, span, digits=1)
        for title, each in _coloured(rows, states)
    }


def tasks(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Exact match of each task before, after and without replay, with the floor it has to reach."""
    colours, plots = _colours([task["name"] for task in found]), {}
    for task in found:
        colour = colours[task["name"]]
        looks = {
            "personality alone": ("before", SERIES[1], False),
            "with the task": ("after", colour, False),
            "with the task, no replay": ("control", colour, True),
        }
        rows = [
            Row(label, *_scaled(task[key], 100), colour, hollow)
            for label, (key, colour, hollow) in looks.items()
            if task.get(key)
        ]
        title = f"Exact match, {task['name']}"
        plots[title] = forest(title, rows, "points of 100", {task["floor"] * 100: "floor"}, (0, 100))
    return plots


def losses(training: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Training loss of each stage; the scales differ, since the losses do."""
    colours, plots = _colours([stage["name"] for stage in training]), {}
    for stage in training:
        title = f"Loss, {state_label(stage['name'])}"
        line = Series(stage["name"], [(p["step"], p["loss"]) for p in stage["curve"]], colours[stage["name"]])
        plots[title] = curves(title, [line], "step", "loss")
    return plots


def differences(verdict: Mapping[str, Any]) -> str:
    """The differences that decide a hypothesis, seeds as small dots; below each the one not matched in gain."""
    rows = []
    for item in compared(verdict):
        name, naive, matched = f"{item['better']} − {item['than']}", item["naive"], _scaled(item, 1)
        rows.append(Row(f"{name}, at equal gain", *matched, SERIES[1], seeds=tuple(item["values"])))
        rows.append(Row(f"{name}, at the last step", *_scaled(naive, 1), SERIES[0], hollow=True))
    title = f"{verdict['id']}: differences in accuracy"
    return forest(title, rows, "points of LAMBADA", {0: "", verdict["margin"]: "margin"}, digits=1)


def compared(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All comparisons of a verdict, those beside it behind the others, the positive control last."""
    control = [verdict["control"]] if verdict.get("control") else []
    return [*verdict["comparisons"], *verdict.get("beside", []), *control]


def paths(verdict: Mapping[str, Any]) -> str:
    """Accuracy along persona gain, a line for each arm and seed; a cross where the model was not coherent."""
    arms = list(dict.fromkeys(curve["arm"] for curve in verdict["curves"]))
    series = [
        Series(
            curve["arm"],
            [(point["gain"], point["accuracy"] * 100) for point in curve["points"]],
            SERIES[1 + arms.index(curve["arm"]) % 6],
            [i for i, point in enumerate(curve["points"]) if not point.get("feasible", True)],
        )
        for curve in verdict["curves"]
    ]
    title = f"{verdict['id']}: accuracy along persona gain, each arm and seed"
    return curves(title, series, f"persona gain, {gain_unit(verdict)}", "LAMBADA, points", verdict["gain_levels"])


def gain_unit(verdict: Mapping[str, Any]) -> str:
    return "of the score (0 to 1)" if verdict.get("axis") == "persona" else "nats a token"


def drift_paths(verdict: Mapping[str, Any]) -> str:
    """KL to the base along persona gain; nothing where it was not measured."""
    arms = list(dict.fromkeys(curve["arm"] for curve in verdict["curves"]))
    series = [
        Series(
            curve["arm"],
            [(point["gain"], point["kl"]) for point in curve["points"] if point.get("kl") is not None],
            SERIES[1 + arms.index(curve["arm"]) % 6],
        )
        for curve in verdict["curves"]
    ]
    if not any(line.points for line in series):
        return ""
    title = f"{verdict['id']}: KL to the base along persona gain, each arm and seed"
    return curves(title, series, f"persona gain, {gain_unit(verdict)}", "nats a token")


def doses(verdict: Mapping[str, Any]) -> str:
    """Accuracy at equal gain by learning rate, on the tuning seeds; nothing where none was chosen."""
    arms = list(verdict.get("tuning") or {})
    series = []
    for arm in arms:
        rows = [row for row in verdict["tuning"][arm] if row["accuracy"] is not None]
        points = [(math.log10(row["learning_rate"]), row["accuracy"] * 100) for row in rows]
        if len({x for x, _ in points}) > 1:
            series.append(Series(arm, points, SERIES[1 + arms.index(arm) % 6]))
    title = f"{verdict['id']}: accuracy at equal gain by learning rate, tuning seeds"
    return curves(title, series, "log10 of the learning rate", "LAMBADA, points") if series else ""


def early(found: Mapping[str, Any]) -> dict[str, str]:
    """ROC of the best three early predictors and of the baseline, in points of 100."""
    if not found.get("detectors"):
        return {}
    lines = [
        Series(one["predictor"].replace("_", "-"), [(100 * x, 100 * y) for x, y in one["roc"]], SERIES[place])
        for place, one in enumerate([found["baseline"], *found["detectors"][:3]])
    ]
    title = "Forgetting seen early: alarms that are right against false ones"
    return {title: curves(title, lines, "false alarms, of 100", "forgetting that is seen, of 100")}


def knowledge(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Points lost by bits stored, for each rank, and for as many tokens of the base's own text."""
    lines = []
    for one in found:
        for name, key in ((f"rank {one['rank']}", "cost"), (f"rank {one['rank']}, own text", "control")):
            points = [(0.0, 0.0), *((point["bits"]["mean"], point[key]["mean"]) for point in one["points"])]
            lines.append(Series(name, points, SERIES[len(lines) % len(SERIES)]))
    title = "What new knowledge costs: LAMBADA lost by bits stored"
    return {title: curves(title, lines, "bits stored", "points lost")} if lines else {}


def forest(
    title: str,
    rows: Sequence[Row],
    unit: str,
    lines: Mapping[float, str] | None = None,
    span: tuple[float, float] | None = None,
    digits: int = 0,
) -> str:
    """One row a value, its label above its interval. `lines` are vertical references (0, a margin) with their names."""
    lines = lines or {}
    low, high = span or _span(rows, list(lines))
    named = any(lines.values())
    height = ROW * len(rows) + 0.5 + (0.14 if named else 0)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height))
        box = (MARGIN / WIDTH, 0.4 / height, 1 - 2 * MARGIN / WIDTH, ROW * len(rows) / height)
        axes = figure.add_axes(box, xlim=(low, high), ylim=(-0.5, len(rows) - 0.5))
        for x, name in lines.items():
            heights = np.arange(len(rows))
            dashes = (0, (2.5, 1.5)) if name else "solid"
            axes.vlines([x] * len(rows), heights - 0.5, heights, SOFT, dashes, linewidth=0.8, zorder=1)
            axes.annotate(
                name, (x, len(rows) - 0.5), textcoords="offset points", xytext=(0, 2), ha="center", color=SOFT
            )
        for i, row in enumerate(rows):
            _draw(axes, row, len(rows) - 1 - i, digits)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(unit, fontsize=7.5)
        told = "; ".join(f"{row.label} {_told(row, digits)}" for row in rows)
        return svg(figure, title, f"{title}, {unit}: {told}")


def curves(title: str, series: Sequence[Series], x: str, y: str, marks: Sequence[float] = ()) -> str:
    """A line for each of `series`; those of one name share a colour and a place in the legend. `marks` are dotted."""
    names = {line.name: line.colour for line in series}
    legend = math.ceil(len(names) / 2) * 0.17 if len(names) > 1 else 0.0
    height = 2.4 + legend
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.36 / WIDTH, 0.4 / height, 1 - 0.5 / WIDTH, 1.8 / height))
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        for line in series:
            at, values = zip(*line.points, strict=True) if line.points else ((), ())
            axes.plot(at, values, color=line.colour, linewidth=1.2, marker="o", markersize=2.2 if len(at) < 20 else 0)
            if line.crossed:
                axes.plot(at, values, "x", color=line.colour, markersize=6, markevery=list(line.crossed))
        for mark in marks:
            axes.axvline(mark, color=SOFT, linewidth=0.8, linestyle=":", zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(x, fontsize=7.5)
        axes.annotate(y, (0, 1), xycoords="axes fraction", xytext=(-20, 5), textcoords="offset points", color=SOFT)
        if len(names) > 1:
            handles = [plt.Line2D([], [], color=colour, linewidth=1.5) for colour in names.values()]
            place = {"loc": "lower left", "bbox_to_anchor": (-0.1, 1.08), "ncols": 2}
            axes.legend(handles, list(names), frameon=False, handlelength=1.2, borderpad=0.2, fontsize=8, **place)
        return svg(figure, title, f"{title}: {', '.join(names)}")


def _draw(axes: Any, row: Row, height: int, digits: int) -> None:
    y, left, right = height - DROP, *axes.get_xlim()
    axes.text(left, height + 0.2, row.label, va="center", ha="left")
    axes.text(right, height + 0.2, _value(row.mean, digits), va="center", ha="right", color=row.colour)
    axes.plot([left, right], [y, y], color=GRID, linewidth=0.6, zorder=0)
    if not math.isfinite(row.mean):
        return
    known = math.isfinite(row.low) and math.isfinite(row.high)
    ends = [row.low, row.high] if known else [left, right]
    axes.plot(ends, [y, y], color=row.colour, linewidth=1.8, linestyle="-" if known else ":", solid_capstyle="butt")
    axes.plot(row.seeds, [y - 0.15] * len(row.seeds), "D", color=row.colour, markersize=2, clip_on=False)
    face = PAPER if row.hollow else row.colour
    axes.plot([row.mean], [y], "o", markersize=5, markerfacecolor=face, markeredgecolor=row.colour, clip_on=False)


def state_label(name: str) -> str:
    """A state or an adapter in words: `personality+shell-control` is "with shell, no replay"."""
    task = name.removeprefix("personality+")
    words = task.removesuffix(CONTROL).replace("+", " + ") + (", no replay" if task.endswith(CONTROL) else "")
    return words if task == name else f"with {words}"


def _row(state: Mapping[str, Any], value: Mapping[str, float], scale: float) -> Row:
    return Row(state["name"], *_scaled(value, scale))


def _coloured(rows: Mapping[str, list[Row]], states: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Row]]]:
    """Rows that are named after states: in words, each state in its own colour on the whole page, controls hollow."""
    colours = _colours([state["name"] for state in states])

    def dressed(row: Row) -> Row:
        label, hollow = state_label(row.label), row.label.endswith(CONTROL)
        return Row(label, row.mean, row.low, row.high, colours[row.label], hollow)

    return [(title, [dressed(row) for row in each]) for title, each in rows.items()]


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each state or adapter: grey for the base, blue for the personality, a task's and its control's
    alike."""
    tasks = dict.fromkeys(_task(name) for name in names if _task(name) not in ("base", "personality"))
    fixed = {"base": SERIES[0], "personality": SERIES[1]}
    fixed |= {task: SERIES[2 + i % (len(SERIES) - 2)] for i, task in enumerate(tasks)}
    return {name: fixed[_task(name)] for name in names}


def _task(name: str) -> str:
    return name.split("+")[-1].removesuffix(CONTROL)


def _scaled(value: Mapping[str, Any], scale: float) -> tuple[float, float, float]:
    """Center, low and high; NaN for what a file has as null."""
    center = "mean" if "mean" in value else "difference"
    first, low, high = (math.nan if value[key] is None else value[key] * scale for key in (center, "low", "high"))
    return first, low, high


def _span(rows: Sequence[Row], lines: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest finite value, with some air."""
    values = [value for row in rows for value in (row.mean, row.low, row.high, *row.seeds) if math.isfinite(value)]
    low, high = min([*values, *lines], default=0.0), max([*values, *lines], default=1.0)
    air = 0.06 * ((high - low) or 1.0)
    return low - air, high + air


def _value(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−") if math.isfinite(value) else "unknown"


def _told(row: Row, digits: int) -> str:
    return f"{_value(row.mean, digits)} ({_value(row.low, digits)} to {_value(row.high, digits)})"


def svg(figure: Any, title: str, description: str) -> str:
    """Text for the body of a page: no prolog, date or page-wide style; ids that no other figure has."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": title}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()[out.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"|font-family: [^;"]*; ?', "", text)
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
