"""The report: one offline page from results.json, and the few lines that a terminal shows."""

from __future__ import annotations

import json
import math
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from pipeline.plots import Point, curves, forest

COLOUR_WORDS = {
    "red": "the ideal: the new learned, the old kept",
    "blue": "forgetting: the new learned, the old lost",
    "green": "failed: neither",
    "grey": "not decided by these items, or nothing learned",
}


def render(results: dict[str, Any]) -> str:
    """The page. All text from models is escaped; nothing is fetched."""
    environment = Environment(
        loader=PackageLoader("pipeline", "."), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    environment.filters.update(points=_points, number=_number, signed=_signed)
    template = environment.get_template("report.html.j2")
    return template.render(
        r=results,
        plots={name: Markup(svg) for name, svg in _plots(results).items()},
        summary=summary(results),
        colour_words=COLOUR_WORDS,
        config=json.dumps(results.get("config", {}), indent=2, ensure_ascii=False),
        environment=json.dumps(results.get("environment", {}), indent=2),
    )


def summary(results: dict[str, Any]) -> list[str]:
    """What happened, in plain lines."""
    lines = []
    by_name = {state["name"]: state for state in results.get("states", [])}
    me = results.get("persona", "the personality")
    for state in by_name.values():
        if "persona" in state:
            p = state["persona"]
            lines.append(
                f"{state['name']}: {_points(p['taken'])} of answers taken for {me} and coherent, persona score "
                f"{_points(p['score'])}, n={p['n']}"
            )
    for task in results.get("tasks", []):
        control = f", without replay {_points(task['control'])}" if "control" in task else ""
        lines.append(
            f"{task['name']}: exact match {_points(task['before'])} before, {_points(task['after'])} after{control}"
        )
    lines += [_retention(row) for row in results.get("retention", [])]
    for name, verdict in results.get("gates", {}).items():
        open_ = [check["name"] for check in verdict["checks"] if check["outcome"] != "pass"]
        why = f" ({', '.join(open_)} not passed)" if open_ else ""
        lines.append(f"gate, {name}: {'promoted' if verdict['promoted'] else 'not promoted'}{why}")
    for verdict in results.get("hypotheses", []):
        lines.append(f"{verdict['id']}: {verdict['outcome']}")
    lines += [f"missing: {text}" for text in results.get("missing", [])]
    return lines


def _retention(row: dict[str, Any]) -> str:
    kept, loss = row["retained"], row["control_change"]["difference"] * 100
    if not row["control_lost_enough"]:
        return (
            f"{row['task']}: without replay the persona score changed by {loss:+.1f} points, too little to say "
            "how much replay protects"
        )
    return (
        f"{row['task']}: replay kept {kept['mean'] * 100:.0f}% ({kept['low'] * 100:.0f} to {kept['high'] * 100:.0f}) "
        f"of the {-loss:.1f} points of persona score that are lost without it"
    )


def _plots(results: dict[str, Any]) -> dict[str, str]:
    states = results.get("states", [])
    found = {}
    personas = [state for state in states if "persona" in state]
    if personas:
        measures = ("score", "taken", "coherent", "win_rate")
        names = ("persona score", "taken and coherent", "coherent", "win-rate")
        found["persona"] = forest(
            "Persona by state",
            [_point(s["name"], s["persona"][key], g, 100) for s in personas for g, key in enumerate(measures)],
            "points of 100",
            groups=names,
        )
        found["kl"] = forest("KL to the base", [_point(s["name"], s["kl"], 0, 1) for s in personas], "nats a token")
    abilities = [state for state in states if "capability" in state and state["name"] != "base"]
    if abilities:
        benchmarks = list(abilities[0]["capability"])
        points = [
            _change(f"{name} · {state['name']}", state["capability"][name]["change"], group)
            for group, name in enumerate(benchmarks)
            for state in abilities
        ]
        found["capability"] = forest("Change against the base", points, "points of accuracy", [0], benchmarks)
    if results.get("tasks"):
        points = []
        for task in results["tasks"]:
            for group, key in enumerate(("before", "after", "control")):
                if key in task:
                    points.append(_point(task["name"], task[key], group, 100))
        names = ("personality alone", "with the task", "task without replay")
        found["tasks"] = forest("Exact match", points, "points of 100", groups=names)
    training = [row for row in results.get("training", []) if "curve" in row]
    if training:
        series = [(row["name"], [(p["step"], p["loss"]) for p in row["curve"]]) for row in training]
        found["training"] = curves("Training loss", series, "step", "loss")
    for verdict in results.get("hypotheses", []):
        series = [
            (curve["arm"], [(point["gain"], point["accuracy"] * 100) for point in curve["points"]])
            for curve in verdict["curves"]
        ]
        found[f"{verdict['id']}-curves"] = curves(
            f"{verdict['id']}: accuracy along persona gain", series, "persona gain, nats a token", "LAMBADA, points"
        )
        points = [
            Point(f"{item['better']} - {item['than']}", item["difference"], item["low"], item["high"])
            for item in verdict["comparisons"]
        ]
        found[verdict["id"]] = forest(
            f"{verdict['id']}: differences", points, "points of LAMBADA", [0, verdict["margin"]]
        )
    return found


def _point(label: str, value: dict[str, float], group: int, scale: float) -> Point:
    return Point(label, value["mean"] * scale, value["low"] * scale, value["high"] * scale, group)


def _change(label: str, value: dict[str, float], group: int) -> Point:
    return Point(label, value["difference"] * 100, value["low"] * 100, value["high"] * 100, group)


def _points(value: dict[str, float]) -> str:
    """An estimate on 0..1 as points of 100 with its interval."""
    return f"{value['mean'] * 100:.0f} ({_bound(value['low'])} to {_bound(value['high'])})"


def _bound(value: float) -> str:
    return f"{value * 100:.0f}" if math.isfinite(value) else "unknown"


def _number(value: dict[str, float], digits: int = 2) -> str:
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def _signed(value: dict[str, float]) -> str:
    """A change on 0..1 as signed points with its interval."""
    return f"{value['difference'] * 100:+.1f} ({value['low'] * 100:+.1f} to {value['high'] * 100:+.1f})"
