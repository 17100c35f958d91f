"""The gate over a run: each adapter against what it was trained from. What passes may be used, the rest stays out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moltlm.data.io import read_jsonl
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter
from moltlm.evals import gate
from moltlm.evals.stats import Outcome
from moltlm.pipeline import layout
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service.registry import Entry, Registry
from moltlm.pipeline.stages import measures, tasks

Record = dict[str, Any]


def judge_all(run: Run) -> dict[str, gate.GateVerdict]:
    """Judge the personality against the base and each task against the personality, keep all of them in the registry,
    and put what passes into use: a task only above the personality that it was trained on; nothing in place of what is
    in use, since it was not compared with that; and nothing that has been in use before, since somebody replaced it or
    rolled it back. Controls are never candidates. `molt gate CONFIG`"""
    registry = Registry(run.config.registry.folder)
    verdicts: dict[str, gate.GateVerdict] = {}
    for adapter in candidates(run):
        name = str(adapter)
        verdicts[name] = judge(run, adapter)
        entry = registry.add(tasks.trained(run, adapter).folder, asdict(verdicts[name]))
        if not verdicts[name].promoted or registry.current().get(name) == entry.id:
            continue
        if why := hindrance(registry, entry):
            by_hand = f"molt registry promote {entry.id} CONFIG"
            run.console.say(f"{name} passed and is not put into use: {why}. By hand: {by_hand}")
        else:
            registry.promote(entry.id)
    return verdicts


def hindrance(registry: Registry, entry: Entry) -> str:
    """Why an adapter that passed is not put into use; empty if nothing stands in the way."""
    current = registry.current()
    if entry.slot in current:
        return f"{current[entry.slot]} is"
    if not entry.fits(current):
        return "what it was trained above is not"
    return "it was before" if registry.was_in_use(entry.id) else ""


def judge_present(run: Run) -> dict[str, gate.GateVerdict]:
    """The verdicts that the records there are enough for; promotes nothing."""
    found = {}
    for adapter in candidates(run):
        try:
            found[str(adapter)] = judge(run, adapter)
        except Missing:
            continue
    return found


def candidates(run: Run) -> list[Adapter]:
    return [PERSONALITY_ADAPTER, *map(Adapter, run.config.tasks)]


def judge(run: Run, adapter: Adapter) -> gate.GateVerdict:
    """The personality must be better than the base at being itself, a task better than the personality at the task;
    neither may lose capability, persona or coherence beyond the margins."""
    alone = adapter == PERSONALITY_ADAPTER
    before, after = (BASE if alone else PERSONALITY), layout.state_of(run, adapter)
    personas = records(measures.persona_of(run, before)), records(measures.persona_of(run, after))
    abilities = records(measures.capability(run, before)), records(measures.capability(run, after))
    if alone:
        learned = _pair(*personas, "score")
    else:
        old, new = (records(measures.task_score(run, adapter.name, state)) for state in (before, after))
        learned = _pair(old, new, "correct")
    return judge_records(run, personas, abilities, learned)


def judge_records(
    run: Run,
    personas: tuple[list[Record], list[Record]],
    abilities: tuple[list[Record], list[Record]],
    learned: gate.Paired | None = None,
) -> gate.GateVerdict:
    """The gate on the records of what is in use and of the candidate."""
    return gate.judge(
        gate.Paired(
            [row["correct"] for row in abilities[0]],
            [row["correct"] for row in abilities[1]],
            [row["benchmark"] for row in abilities[0]],
        ),
        _pair(*personas, "score"),
        _pair(*personas, "coherent"),
        run.config.gate,
        learned,
    )


def paths(run: Run) -> list[dict[str, str]]:
    """The path colour of each stage that was judged, controls included (docs: path colours)."""
    found = []
    for adapter in [PERSONALITY_ADAPTER, *layout.task_adapters(run)]:
        try:
            verdict = judge(run, adapter)
            colour, reason = _colour(run, adapter, verdict)
            found.append({"stage": str(adapter), "colour": colour, "reason": reason})
        except Missing:
            continue
    return found


def _colour(run: Run, adapter: Adapter, verdict: gate.GateVerdict) -> tuple[str, str]:
    """The colour of a stage, and why."""
    checks = {check.name: check for check in verdict.checks}
    new = checks.pop("new skill")
    if adapter == PERSONALITY_ADAPTER:
        checks.pop("persona")  # there is no earlier personality to lose
        learned = new.outcome == "pass"
    else:
        exact = measures.task_score(run, adapter.name, layout.state_of(run, adapter)).facts["exact_match"]
        learned = new.outcome == "pass" and exact >= layout.task_settings(run, adapter).floor
    lost = [check.name for check in checks.values() if check.outcome == "fail"]
    open_ = [check.name for check in checks.values() if check.outcome == "unresolved"]
    gained = f"the new was {'learned' if learned else 'not learned'} ({new.difference:+z.0f} points)"
    found = colour(learned, [check.outcome for check in checks.values()])
    if lost:
        return found, f"{gained}; {' and '.join(lost)} got worse by more than the margin"
    if open_:
        return found, f"{gained}; whether {' and '.join(open_)} held is not resolved with these items"
    return found, f"{gained} and nothing was lost"


def colour(learned: bool, old: list[Outcome]) -> str:
    """red: new good, old good, the ideal. blue: new good, old bad, forgetting. green: both bad, failed. grey: these
    items do not tell, or nothing was learned and nothing lost. `old` has an outcome for each thing that should stay."""
    if "fail" in old:
        return "blue" if learned else "green"
    return "red" if learned and "unresolved" not in old else "grey"


def sentences(verdicts: dict[str, gate.GateVerdict]) -> list[str]:
    """What a person reads: each candidate, its verdict, its checks."""
    lines = []
    for name, verdict in verdicts.items():
        lines.append(f"{name}: {'passed' if verdict.promoted else 'not promoted'}")
        lines += [f"  {check.outcome:<10} {check.sentence}" for check in verdict.checks]
    return lines


def records(artifact: Artifact) -> list[Record]:
    return read_jsonl(artifact.folder / "records.jsonl")


def _pair(before: list[Record], after: list[Record], key: str) -> gate.Paired:
    return gate.Paired([float(row[key]) for row in before], [float(row[key]) for row in after])
