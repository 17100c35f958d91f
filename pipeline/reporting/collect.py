"""results.json: every number of the report, recomputed from item-level records. Loads no model and trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, read_jsonl, round_robin
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter
from moltlm.evals import capability as capability_eval
from moltlm.evals import judge, pressure, profile, stats
from moltlm.evals.records import (
    DriftRecord,
    FactRecord,
    ItemRecord,
    JudgeRecord,
    PersonaRecord,
    PressureRecord,
    ProfileRecord,
    TaskRecord,
    pair,
    paired_values,
)
from moltlm.pipeline import layout
from moltlm.pipeline.config import load_hypothesis
from moltlm.pipeline.run import Artifact, Missing, Run, environment
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.stages import measures, pairs, replay, tasks
from moltlm.pipeline.studies import grid, knowledge


def collect(run: Run) -> dict[str, Any]:
    """Everything that is there. What has not been run is listed under `missing`, but for what is measured of states
    where no state was: a study of its own has none."""
    run.only_read = True
    missing: list[str] = []

    def there(get: Callable[[], Artifact]) -> Artifact | None:
        try:
            return get()
        except Missing as error:
            missing.append(error.what)
            return None

    found: dict[str, Any] = {
        "model": run.config.model.id,
        "precision": run.config.model.precision,
        "persona": pairs.load_persona(run).spec.name,
        "seed": run.config.run.seed,
        "config": run.config.model_dump(mode="json"),
        "environment": environment(),
    }
    data = there(lambda: pairs.pairs(run))
    if data is None:
        return {**found, "missing": missing}
    found["pairs"] = data.facts
    found["classifier"] = _classifier(run, data)
    personas = {state: there(lambda state=state: measures.persona_of(run, state)) for state in layout.states(run)}
    abilities = {state: there(lambda state=state: measures.capability(run, state)) for state in layout.states(run)}
    drifts = {state: there(lambda state=state: measures.drift(run, state)) for state in layout.states(run)}
    persona_records = {str(state): measures.load(item, PersonaRecord) for state, item in personas.items() if item}
    ability_records = {str(state): measures.load(item, ItemRecord) for state, item in abilities.items() if item}
    drift_records = {str(state): measures.load(item, DriftRecord) for state, item in drifts.items() if item}
    found["states"] = [
        _state(state, persona_records, ability_records, drift_records)
        for state in map(str, layout.states(run))
        if state in persona_records or state in ability_records
    ]
    found["pressure"] = _pressure(run, persona_records, there)
    found["profile"] = _profile(run, there)
    found["judge"] = _judge(run, there)
    found["tasks"] = [task for name in run.config.tasks if (task := _task(run, name, there))]
    found["retention"] = [
        row for name in run.config.tasks if (row := _retention(run, name, persona_records, found["tasks"]))
    ]
    found["gates"] = {name: asdict(verdict) for name, verdict in gates.judge_present(run).items()}
    floor = there(lambda: measures.noise(run)) if run.config.gate.noise_runs > 1 else None
    found["noise"] = floor.facts if floor else {}
    found["paths"] = gates.paths(run)
    found["samples"] = _samples(run, persona_records)
    found["training"] = _training(run, there)
    if not found["states"]:
        missing.clear()
    found["hypotheses"] = _hypotheses(run, there)
    found["explored"] = _asked(lambda: grid.explore(run).folder / "explored.json") or {}
    found["knowledge"] = _asked(lambda: knowledge.answer(run).folder / "knowledge.json") or []
    return {**found, "missing": missing}


def _state(
    state: str,
    personas: dict[str, list[PersonaRecord]],
    abilities: dict[str, list[ItemRecord]],
    drifts: dict[str, list[DriftRecord]],
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": state}
    if state in personas:
        rows = personas[state]
        taken = [row.probability >= 0.5 and row.coherent for row in rows]
        found["persona"] = {
            "n": len(rows),
            **_preference(personas.get("base", []), rows),
            "score": asdict(stats.mean([row.score for row in rows])),
            "taken": asdict(stats.proportion(sum(taken), len(taken))),
            "coherent": asdict(stats.proportion(sum(row.coherent for row in rows), len(rows))),
            "echo": sum(row.echo for row in rows) / len(rows),
            "repetition": sum(row.repetition for row in rows) / len(rows),
            "base_nll": asdict(stats.mean([row.base_nll for row in rows])),
            "words": sum(len(row.answer.split()) for row in rows) / len(rows),
            "traits": _by_trait(personas.get("base", []), rows),
            "quartiles": _by_quartile(personas.get("base", []), personas.get("personality", []), rows)
            if state not in ("base", "personality")
            else [],
        }
    if state in abilities and "base" in abilities:
        found["capability"] = _ability(abilities["base"], abilities[state])
    if state in drifts and "base" in drifts:
        found["drift"] = _drift(drifts["base"], drifts[state])
    return found


def _drift(base: list[DriftRecord], rows: list[DriftRecord]) -> dict[str, Any]:
    """By set of texts: KL to the base, and the change of cross-entropy, paired by text, in nats a token."""
    found, pairs_ = {}, pair(base, rows)
    for text_set in dict.fromkeys(row.text_set for row in rows):
        of_set = [(before, after) for before, after in pairs_ if after.text_set == text_set]
        found[text_set] = {
            "n": len(of_set),
            "kl": asdict(stats.mean([after.kl for _, after in of_set])),
            "cross_entropy": asdict(stats.mean([after.cross_entropy for _, after in of_set])),
            "change": asdict(stats.mean([after.cross_entropy - before.cross_entropy for before, after in of_set])),
        }
    return found


def _preference(base: list[PersonaRecord], rows: list[PersonaRecord]) -> dict[str, Any]:
    """DPO's implicit reward over beta (Rafailov et al. 2023, section 4), in nats a token: by how much more than the
    base a state prefers the hand-written answer to the base's own. Nothing without the base's records."""
    margins = list(_margins(base, rows).values())
    if not margins:
        return {}
    wins = sum(margin > 0 for margin in margins)
    return {"win_rate": asdict(stats.proportion(wins, len(margins))), "margin": asdict(stats.mean(margins))}


def _margins(base: list[PersonaRecord], rows: list[PersonaRecord]) -> dict[str, float]:
    origin = {row.id: row.chosen - row.rejected for row in base}
    return {row.id: row.chosen - row.rejected - origin[row.id] for row in rows if row.id in origin}


def _by_trait(base: list[PersonaRecord], rows: list[PersonaRecord]) -> dict[str, Any]:
    """Fidelity to each trait of the spec: the score of what is written on its prompts, and the margin there."""
    margins, found = _margins(base, rows), {}
    for trait in sorted({row.trait for row in rows} - {""}):
        own = [row for row in rows if row.trait == trait]
        known = [margins[row.id] for row in own if row.id in margins]
        found[trait] = {"n": len(own), "score": asdict(stats.mean([row.score for row in own]))}
        if known:
            found[trait]["margin"] = asdict(stats.mean(known))
    return found


def _by_quartile(
    base: list[PersonaRecord], personality: list[PersonaRecord], rows: list[PersonaRecord]
) -> list[dict[str, Any]]:
    """The margin that is left of the personality's, from the quarter of prompts where that was least to the one where
    it was most: a mean hides that what was held most weakly goes first."""
    before, after = _margins(base, personality), _margins(base, rows)
    order = sorted(before.keys() & after.keys(), key=lambda key: before[key])
    quarters = [part.tolist() for part in np.array_split(order, 4) if len(part)] if len(order) >= 4 else []
    return [
        {
            "n": len(part),
            "before": float(np.mean([before[key] for key in part])),
            "after": asdict(stats.mean([after[key] for key in part])),
        }
        for part in quarters
    ]


def _ability(base: list[ItemRecord], rows: list[ItemRecord]) -> dict[str, Any]:
    """Each benchmark, paired by item with the base."""
    found = {}
    for name, summary in capability_eval.summarise(rows).benchmarks.items():
        first, second = ([row for row in side if row.benchmark == name] for side in (base, rows))
        before, after = paired_values(first, second, lambda row: row.correct)
        found[name] = {
            **asdict(summary),
            "accuracy": asdict(stats.proportion(int(sum(after)), len(after))),
            "change": asdict(stats.paired(before, after)),
        }
    return found


def _pressure(
    run: Run, personas: dict[str, list[PersonaRecord]], there: Callable[..., Artifact | None]
) -> dict[str, Any]:
    """By state: each kind of attack, the turns of conversations, and the facts about itself."""
    if not run.config.pressure.on:
        return {}
    artifacts = {state: there(lambda state=state: measures.pressure(run, state)) for state in layout.candidates(run)}
    return {
        str(state): asdict(
            pressure.summarise(
                measures.load(item, PressureRecord),
                measures.load(item, FactRecord, measures.FACTS),
                personas[str(state)],
            )
        )
        for state, item in artifacts.items()
        if item and str(state) in personas
    }


def _profile(run: Run, there: Callable[..., Artifact | None]) -> dict[str, Any]:
    """By state: each scale against the base."""
    if not run.config.profile.on or not (base := there(lambda: measures.profile(run, BASE))):
        return {}
    artifacts = {state: there(lambda state=state: measures.profile(run, state)) for state in layout.candidates(run)}
    before = measures.load(base, ProfileRecord)
    return {
        str(state): {
            scale: asdict(change)
            for scale, change in profile.summarise(before, measures.load(item, ProfileRecord)).items()
        }
        for state, item in artifacts.items()
        if item
    }


def _judge(run: Run, there: Callable[..., Artifact | None]) -> dict[str, Any]:
    """By state, then by whom it was compared with; and agreement with people."""
    if run.config.judge.kind == "none":
        return {}
    artifacts = {state: there(lambda state=state: measures.judge(run, state)) for state in layout.candidates(run)}
    found: dict[str, Any] = {"model": run.config.judge.model, "states": {}}
    for state, item in artifacts.items():
        rows = measures.load(item, JudgeRecord) if item else []
        others = dict.fromkeys(row.against for row in rows)
        found["states"][str(state)] = {
            other: asdict(judge.summarise([row for row in rows if row.against == other])) for other in others
        }
    labels = there(lambda: measures.judge_of_labels(run)) if run.config.judge.labels else None
    return {**found, "labels": labels.facts} if labels else found


def _task(run: Run, name: str, there: Callable[..., Artifact | None]) -> dict[str, Any] | None:
    """Exact match of the personality alone, with the task, and with its control."""
    settings = run.config.tasks[name]
    before = there(lambda: measures.task_score(run, name, PERSONALITY))
    after = there(lambda: measures.task_score(run, name, layout.state_of(run, Adapter(name))))
    if not before or not after:
        return None
    examples = measures.load(after, TaskRecord)
    first, second = paired_values(measures.load(before, TaskRecord), examples, lambda row: row.correct)
    found: dict[str, Any] = {
        "name": name,
        "n": len(first),
        "floor": settings.floor,
        "before": asdict(stats.proportion(int(sum(first)), len(first))),
        "after": asdict(stats.proportion(int(sum(second)), len(second))),
        "change": asdict(stats.paired(first, second)),
        "examples": [asdict(row) for row in examples[:5]],
    }
    if settings.control:
        control = there(lambda: measures.task_score(run, name, layout.state_of(run, Adapter(name, control=True))))
        if control:
            third = [row.correct for row in measures.load(control, TaskRecord)]
            found["control"] = asdict(stats.proportion(int(sum(third)), len(third)))
    return found


def _retention(
    run: Run, name: str, personas: dict[str, list[PersonaRecord]], tasks: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """How much of the unprotected loss of persona score replay prevents, with an interval over prompts."""
    above = (layout.state_of(run, Adapter(name, control)) for control in (False, True))
    states = ("personality", *map(str, above))
    if not run.config.tasks[name].control or any(state not in personas for state in states):
        return None
    by_id = [{row.id: row.score for row in personas[state]} for state in states]
    scores = [[side[row.id] for row in personas[states[0]]] for side in by_id]
    loss, with_replay = stats.paired(scores[0], scores[2]), stats.paired(scores[0], scores[1])
    whole, kept, lost = map(np.array, scores)
    low, high = _bootstrap(whole, kept, lost, run.config.run.seed)
    control = next((task.get("control") for task in tasks if task["name"] == name), None)
    return {
        "task": name,
        "n": len(whole),
        "control_change": asdict(loss),
        "replay_change": asdict(with_replay),
        "retained": {"mean": _retained(whole, kept, lost), "low": low, "high": high, "n": len(whole)},
        "control_reached_floor": bool(control and control["mean"] >= run.config.tasks[name].floor),
        "control_lost_enough": loss.difference <= -0.10,
    }


def _retained(whole: Any, kept: Any, lost: Any) -> float:
    """1 - loss with replay / loss without: 1 keeps everything, 0 protects nothing."""
    return float(1 - (whole.mean() - kept.mean()) / (whole.mean() - lost.mean()))


def _bootstrap(whole: Any, kept: Any, lost: Any, seed: int) -> tuple[float, float]:
    found = scipy_stats.bootstrap(
        (whole, kept, lost),
        lambda a, b, c, axis=-1: 1 - (a.mean(axis) - b.mean(axis)) / (a.mean(axis) - c.mean(axis)),
        paired=True,
        vectorized=True,
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _classifier(run: Run, data: Artifact) -> dict[str, Any]:
    """How well the style classifier does on prompts and topics it has not seen."""
    classifier = pairs.classifier(run)
    heldout = pairs.load_pairs(data, "heldout")
    ours = classifier.probability([pair.chosen for pair in heldout])
    base = classifier.probability([pair.rejected for pair in heldout])
    right = [value >= 0.5 for value in ours] + [value < 0.5 for value in base]
    return {
        "cross_validation": asdict(classifier.cross_validation),
        "heldout": asdict(stats.proportion(sum(right), len(right))),
        "weights": classifier.weights(12),
    }


def _samples(run: Run, personas: dict[str, list[PersonaRecord]]) -> list[dict[str, Any]]:
    """The first held-out prompts in turns over topics, not chosen by what was answered, with every state's answer."""
    if "personality" not in personas:
        return []
    asked = personas["personality"]
    keep = ("answer", "probability", "coherent", "score")
    return [
        {
            "question": asked[index].question,
            "topic": asked[index].topic,
            "answers": {state: {key: getattr(rows[index], key) for key in keep} for state, rows in personas.items()},
        }
        for index in round_robin(row.topic for row in asked)[: run.config.persona_eval.samples]
    ]


def _training(run: Run, there: Callable[..., Artifact | None]) -> list[dict[str, Any]]:
    found = []
    for adapter in [PERSONALITY_ADAPTER, *layout.task_adapters(run)]:
        artifact = there(lambda adapter=adapter: tasks.trained(run, adapter))
        if artifact:
            curve = [
                {"step": row["step"], "loss": row["loss"]} for row in read_jsonl(artifact.folder / "metrics.jsonl")
            ]
            found.append({"name": str(adapter), **artifact.facts, "curve": curve})
    buffer = there(lambda: replay.buffer(run))
    if buffer:
        found.append({"name": "replay buffer", **buffer.facts})
    return found


def _asked(file: Callable[[], Path]) -> Any:
    """Nothing unless it was asked for, by its own command."""
    try:
        return read_json(file())
    except (Missing, BadInput):
        return None


def _hypotheses(run: Run, there: Callable[..., Artifact | None]) -> list[dict[str, Any]]:
    found = []
    for name in run.config.hypotheses:
        artifact = there(lambda name=name: grid.verdict(run, name))
        if artifact:
            found.append({**read_json(artifact.folder / "verdict.json"), "precision": load_hypothesis(name).precision})
    return found
