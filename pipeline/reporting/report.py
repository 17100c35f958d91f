"""The report: one offline page from results.json, its tables as Markdown, and the few lines that a terminal shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup, escape

from moltlm.data.state import CONTROL
from moltlm.evals import stats
from moltlm.pipeline.reporting import plots
from moltlm.pipeline.reporting.plots import state_label

Results = Mapping[str, Any]
COLOURS = {
    "red": "the new learned, the old kept: the ideal",
    "blue": "the new learned, the old lost: forgetting",
    "green": "the new not learned, the old lost: failed",
    "grey": "not decided by these items, or nothing learned and nothing lost",
}


def render(results: Results) -> str:
    """The page. It copes with any part being absent, escapes all text that a model wrote, and fetches nothing."""
    figures = {
        place: {title: Markup(svg) for title, svg in drawn.items()} for place, drawn in _figures(results).items()
    }
    config = yaml.safe_dump(results.get("config") or {}, sort_keys=False, allow_unicode=True)
    template = _templates(escaped=True).get_template("report.html.j2")
    return template.render(**{**_found(results), "plots": figures, "config": config, "story": _quiet(_told(results))})


def markdown(results: Results) -> str:
    """The verdicts and tables of the page as Markdown, without what a model wrote."""
    text = _templates(escaped=False).get_template("report.md.j2").render(**_found(results), story=_told(results))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _templates(escaped: bool) -> Environment:
    # a partial run has no value for much of what the templates name: those places stay empty
    environment = Environment(
        loader=PackageLoader("moltlm.pipeline.reporting", ""),
        autoescape=escaped,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "label": state_label, "minus": minus, "p": p_value}
    environment.filters["text"] = _in_markdown
    environment.globals |= {"compared": plots.compared, "gain_unit": plots.gain_unit}
    return environment


def _found(results: Results) -> dict[str, Any]:
    """What both templates name."""
    states = results.get("states", [])
    return {
        "r": results,
        "colours": COLOURS,
        "persona_rows": _persona_rows(results),
        "ability_rows": _ability_rows(results),
        "drift_rows": _by_name((state["name"], state.get("drift", {})) for state in states),
        "trait_rows": _by_name((state["name"], state.get("persona", {}).get("traits", {})) for state in states),
        "profile_rows": _by_name((results.get("profile") or {}).items()),
        "apart": _apart(results),
        "standing": _standing(results),
        "missing": list(dict.fromkeys(results.get("missing", []))),
    }


def _told(results: Results) -> str:
    return minus(" ".join(_story(results)))


def _in_markdown(text: Any) -> str:
    """On one line, and neither markup nor the border of a cell."""
    return re.sub(r"([\\|*`\[\]<>]|\b_|_\b)", r"\\\1", " ".join(str(text).split()))


def summary(results: Results) -> list[str]:
    """What happened, in a few plain lines: persona, tasks, retention, capability, paths, gate, hypotheses and other
    questions, gaps."""
    lines = []
    personas = {s["name"]: s["persona"] for s in results.get("states", []) if "persona" in s}
    if personas:
        shown = [f"{state_label(name)} {_points(p['taken'])}" for name, p in personas.items()]
        n = next(iter(personas.values()))["n"]
        lines.append(f"persona: taken for {results['persona']} and coherent, of 100 (n={n}): {', '.join(shown)}")
    for task in results.get("tasks", []):
        control = f", {_points(task['control'])} without replay" if task.get("control") else ""
        shown = f"exact match {_points(task['before'])} before, {_points(task['after'])} after{control}"
        lines.append(f"task {task['name']}: {shown}; floor {task['floor'] * 100:.0f}, n={task['n']}")
    for row in results.get("retention", []):
        kept = _change(row["replay_change"], " points")
        lines.append(f"retention, {row['task']}: with replay the persona score changed by {kept}; {_retention(row)}")
    changes = [f"{state_label(name)} {_change(change)}" for name, change in _candidates(results).items()]
    if changes:
        clear = "".join(f"; {text}" for text in _clear(results))
        lines.append(f"capability against the base, mean over benchmarks: {', '.join(changes)}{clear}")
    if results.get("paths"):
        shown = [f"{path['stage']} {path['colour']}" for path in results["paths"]]
        lines.append(f"paths: {', '.join(shown)}")
    if results.get("gates"):
        lines.append(f"gate: {'; '.join(f'{name} {word}' for name, word in _standing(results).items())}")
    for verdict in results.get("hypotheses", []):
        lines.append(f"{verdict['id']}: {verdict['outcome']}. {' '.join(verdict['reasons'][:1])}".strip())
    lines += [*_explored(results.get("explored") or {}), *_knowledge(results.get("knowledge") or [])]
    missing = list(dict.fromkeys(results.get("missing", [])))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        lines.append(f"missing: {missing[0]}{more}")
    return lines


def _explored(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    early, limit = found["early"], found["threshold"] or {}
    sign = early["best"] or ("none" if early["detectors"] else "not to be told")
    unseen = "not shown" if limit else "not to be told"
    at = f"at {limit['at']:.2f} nats a token" if limit.get("shown") else unseen
    return [f"explored, {early['n']} trainings: early sign of forgetting {sign}; threshold of KL to the base {at}"]


def _knowledge(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in found:
        lost = f"{one['drop']:g} points of LAMBADA"
        most = max(point["bits"]["mean"] for point in one["points"])
        where = f"not to be told with {most:.0f} bits"
        if one["at_drop"]:
            where = f"{number(one['at_drop']['mean'])} bits ({interval(one['at_drop'])})"
        seeds = f"{one['reached']} of {one['seeds']} seeds lose as many"
        lines.append(f"new knowledge, rank {one['rank']}, stored where {lost} are lost: {where}, {seeds}")
    return lines


def number(value: Any, digits: int = 0, scale: float = 1, sign: bool = False) -> str:
    """A number for the page; a dash for one that is not there or cannot be told."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return minus(f"{value * scale:{'+' if sign else ''}z,.{digits}f}")


def interval(value: Any, digits: int = 0, scale: float = 1, sign: bool = False) -> str:
    low, high = (number(value[key], digits, scale, sign) if value else "–" for key in ("low", "high"))
    return "interval unknown" if "–" in (low, high) else f"{low} to {high}"


def p_value(value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def minus(text: str) -> str:
    """Hyphens before digits and between words of their own become minus signs."""
    return re.sub(r"(?<![\w.])-(?=[\d.]|inf)|(?<= )-(?= )", "−", text)


def _quiet(text: str) -> Markup:
    """Escaped, with the intervals in brackets set apart, so that a paragraph full of them can be read."""
    return Markup(re.sub(r"\([^()]* to [^()]*\)", r'<span class="ci">\g<0></span>', str(escape(text))))


def _story(results: Results) -> list[str]:
    """What happened, in sentences made of the numbers; what is not decided is said to be so."""
    return [
        *_persona_story(results),
        *_task_story(results),
        *_ability_story(results),
        *_verdict_story(results),
    ] or ["Nothing has been measured yet."]


def _persona_story(results: Results) -> list[str]:
    personas = {s["name"]: s["persona"] for s in results.get("states", []) if "persona" in s}
    if "personality" not in personas:
        return []
    me, after = results["persona"], personas["personality"]
    base = f"; from the untouched base, {_points(personas['base']['taken'])}" if "base" in personas else ""
    return [
        f"{results['model']} was taught to be {me}. On {after['n']} prompts that it had not seen, of 100 answers "
        f"{_points(after['taken'])} are coherent and taken for {me} by a style classifier{base}."
    ]


def _task_story(results: Results) -> list[str]:
    told = []
    for task in results.get("tasks", []):
        floor = "" if task["after"]["mean"] >= task["floor"] else f", below its floor of {task['floor'] * 100:.0f}"
        told.append(f"{task['name']}, from {_points(task['before'])} to {_points(task['after'])}{floor}")
    told = [f"Right answers of 100 on the tasks that it then learned: {_listed(told)}."] if told else []
    for row in results.get("retention", []):
        kept = row["replay_change"]
        unclear = ", which could be no change" if kept["low"] <= 0 <= kept["high"] else ""
        told.append(
            f"Learning {row['task']} with replay changed the persona score by {_change(kept, ' points')}{unclear}; "
            f"{_retention(row)}."
        )
    return told


def _ability_story(results: Results) -> list[str]:
    changes = _candidates(results)
    if not changes:
        return []
    shown = [f"{_change(change)} {_state(name)}" for name, change in changes.items()]
    told = [f"General ability, as the mean change in points of accuracy against the base: {_listed(shown)}."]
    told += [f"Taken singly, {_listed(clear)}." for clear in [_clear(results)] if clear]
    if any(change["low"] <= 0 <= change["high"] for change in changes.values()):
        seen = max(change["detectable"] for change in changes.values()) * 100
        told.append(
            "An interval that includes zero does not show that nothing was lost: these items mostly show changes of "
            f"{seen:.1f} points and more."
        )
    return told


def _clear(results: Results) -> list[str]:
    """The benchmarks that changed against the base by more than their interval: a mean can hide them."""
    states = [s for s in results.get("states", []) if "capability" in s and s["name"] in _candidates(results)]
    told = []
    for name in dict.fromkeys(name for state in states for name in state["capability"]):
        changes = [state["capability"][name]["change"] for state in states if name in state["capability"]]
        counts = {"below": sum(c["high"] < 0 for c in changes), "above": sum(c["low"] > 0 for c in changes)}
        told += [
            f"the interval of {name} is {side} zero in {count} of {len(changes)} states"
            for side, count in counts.items()
            if count
        ]
    return told


def _verdict_story(results: Results) -> list[str]:
    hypotheses = results.get("hypotheses", [])
    standing = [f"{name} {word}" for name, word in _standing(results).items()]
    told = [f"The gate: {'; '.join(standing)}."] if standing else []
    for outcome in dict.fromkeys(verdict["outcome"] for verdict in hypotheses):
        ids = [verdict["id"] for verdict in hypotheses if verdict["outcome"] == outcome]
        told.append(f"{_listed(ids)} {'is' if len(ids) == 1 else 'are'} {outcome}.")
    return told


def _state(name: str) -> str:
    """A state at the end of a clause."""
    return "for the personality alone" if name == "personality" else state_label(name)


def _retention(row: Mapping[str, Any]) -> str:
    kept, lost = row["retained"], _change(row["control_change"], " points")
    if not row["control_lost_enough"]:
        return f"without replay, by {lost}, too little to say how much replay protects"
    unlearned = "" if row["control_reached_floor"] else ", though that control did not learn the task"
    whole = "all and more: " if kept["mean"] > 1 else ""
    share = f"{whole}{kept['mean'] * 100:.0f}% ({_range(kept, 0)})"
    return f"without replay, by {lost}{unlearned}, so replay kept {share} of what is lost without it"


def _standing(results: Results) -> dict[str, str]:
    """What the gate makes of each candidate. A task that passes is put into use only with the personality beneath."""
    gates, words = results.get("gates") or {}, {}
    for name, verdict in gates.items():
        failed = [f"{check['name']} {check['outcome']}" for check in verdict["checks"] if check["outcome"] != "pass"]
        alone = not gates.get("personality", verdict)["promoted"]
        passed = "passed, but waits for the personality" if alone else "promoted"
        words[name] = passed if verdict["promoted"] else f"not promoted ({', '.join(failed)})"
    return words


def _candidates(results: Results) -> dict[str, dict[str, Any]]:
    """The mean changes of the states that could be used; controls never are."""
    return {name: change for name, change in _mean_changes(results).items() if not name.endswith(CONTROL)}


def _mean_changes(results: Results) -> dict[str, dict[str, Any]]:
    """By state: the mean of its changes against the base, each benchmark weighted equally."""
    found = {}
    for state in results.get("states", []):
        changes = [row["change"] for row in state.get("capability", {}).values()]
        if changes and state["name"] != "base":
            found[state["name"]] = asdict(stats.stratified([stats.Comparison(**change) for change in changes]))
    return found


def _persona_rows(results: Results) -> list[dict[str, Any]]:
    """The states with a persona; echo and repetition, which are shares of n, get their intervals."""
    rows = []
    for state in results.get("states", []):
        if "persona" in state:
            p = state["persona"]
            shares = {key: asdict(stats.proportion(round(p[key] * p["n"]), p["n"])) for key in ("echo", "repetition")}
            rows.append({"name": state["name"], **p, **shares})
    return rows


def _ability_rows(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Benchmark by benchmark, each state; last the mean of the changes."""
    rows = _by_name((state["name"], state.get("capability", {})) for state in results.get("states", []))
    changes = _mean_changes(results)
    if changes and len(rows) > 1:
        margin = ((results.get("config") or {}).get("gate") or {}).get("capability_margin", 5.0)
        rows["mean of the changes"] = [
            {"state": name, "n": c["n"], "change": c, "within": margin, "same": _same(c, margin)}
            for name, c in changes.items()
        ]
    return rows


def _same(change: Mapping[str, Any], margin: float) -> str:
    """Two one-sided tests: is it shown that nothing changed by the margin, in points?"""
    outcome = stats.equivalent(stats.Comparison(**change), margin / 100)
    return {"pass": "shown", "fail": "no", "unresolved": "not resolved"}[outcome]


def _by_name(states: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What each state has under a name, name by name."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for state, found in states:
        for name, row in found.items():
            rows.setdefault(name, []).append({"state": state, **row})
    return rows


def _apart(results: Results) -> dict[str, int]:
    """How many comparisons with the base there are, and how many have an interval that excludes zero."""
    changes = [
        row["change"]
        for state in results.get("states", [])
        for row in state.get("capability", {}).values()
        if state["name"] != "base"
    ]
    return {
        "all": len(changes),
        "down": sum(change["high"] < 0 for change in changes),
        "up": sum(change["low"] > 0 for change in changes),
    }


def _figures(results: Results) -> dict[str, dict[str, str]]:
    """By place on the page, figures by title."""
    states = results.get("states", [])
    personas = [state for state in states if "persona" in state]
    training = [row for row in results.get("training", []) if row.get("curve")]
    found = {
        "persona": plots.persona(personas),
        "turns": plots.turns(results.get("pressure") or {}),
        "early": plots.early((results.get("explored") or {}).get("early") or {}),
        "knowledge": plots.knowledge(results.get("knowledge") or []),
        "drift": plots.drift([state for state in states if "drift" in state]),
        "capability": plots.capability([state for state in states if "capability" in state]),
        "tasks": plots.tasks(results.get("tasks", [])),
        "training": plots.losses(training),
    }
    for verdict in results.get("hypotheses", []):
        drawn = {}
        if verdict["comparisons"]:
            drawn["Differences in accuracy, with the margin"] = plots.differences(verdict)
        if verdict["curves"]:
            drawn["Accuracy along persona gain, each arm and seed"] = plots.paths(verdict)
            drawn["KL to the base along persona gain"] = plots.drift_paths(verdict)
        drawn["Accuracy at equal gain by learning rate, tuning seeds"] = plots.doses(verdict)
        found[verdict["id"]] = {title: figure for title, figure in drawn.items() if figure}
    return found


def _points(value: Mapping[str, float]) -> str:
    """An estimate on 0..1 as points of 100 with its interval."""
    return f"{value['mean'] * 100:.0f} ({_range(value, 0)})"


def _change(value: Mapping[str, float], unit: str = "") -> str:
    """A change on 0..1 as signed points with its interval."""
    return f"{value['difference'] * 100:+z.1f}{unit} ({_range(value, 1, '+')})"


def _range(value: Mapping[str, float], digits: int, sign: str = "") -> str:
    low, high = value["low"] * 100, value["high"] * 100
    if not (math.isfinite(low) and math.isfinite(high)):
        return "interval unknown"
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)
