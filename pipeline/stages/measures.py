"""What is measured of a state: general ability, persona, and tasks. Everything ends in records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.adapters import router as routers
from moltlm.data import endpoint, tasks, teacher
from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl, sha256_tree, write_jsonl
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.data.types import Exchange
from moltlm.evals import capability as capability_eval
from moltlm.evals import drift as drift_eval
from moltlm.evals import judge as judge_eval
from moltlm.evals import persona as persona_eval
from moltlm.evals import pressure as pressure_eval
from moltlm.evals import profile as profile_eval
from moltlm.evals import stats
from moltlm.evals import tasks as task_eval
from moltlm.pipeline import layout
from moltlm.pipeline.config import vary
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import pairs, routing, serving


@once_per_config
def capability(run: Run, state: State) -> Artifact:
    """General ability in one state, item by item, by lm-evaluation-harness. `molt eval capability CONFIG --state S`"""
    config = run.config.capability
    own = [capability_eval.files(name) for name in config.items]
    inputs = {
        "capability": identity(config),
        "files": own if any(own) else None,
        "seed": run.config.run.seed,
        "state": serving.lineage(run, state),
    }
    routes = () if run.config.router.gated else state.routes
    parts = (
        {str(route or routers.NO_TASK): capability(run, state.routed_to(route)) for route in (*routes, None)}
        if routes
        else {}
    )

    def make(folder: Path) -> dict[str, Any]:
        model = serving.serve(run, state)
        if parts:
            records = _routed_records(run, routes, parts)
        else:
            with run.console.progress(f"capability of {state}") as progress, model.state(state):
                batch, seed = config.batch_size, run.config.run.seed
                records = capability_eval.evaluate(model, config.items, batch, seed, progress)
        write_jsonl(folder / "records.jsonl", records)
        return {"state": str(state), "summary": capability_eval.summarise(records)}

    return run.do("capability", inputs, make, f"capability of {state}")


def _routed_records(run: Run, routes: tuple[Adapter, ...], parts: dict[str, Artifact]) -> list[dict[str, Any]]:
    """Each item as the adapter that it is sent to answers it."""
    rows = {name: read_jsonl(part.folder / "records.jsonl") for name, part in parts.items()}
    chooser = routers.load(routing.router(run, routes).folder)
    texts = {capability_eval.label(name): capability_eval.texts(name) for name in run.config.capability.items}
    asked = [texts[row["benchmark"]][row["item"]] for row in rows[routers.NO_TASK]]
    sent = chooser.route(run.base.embed(asked))
    return [rows[name][place] for place, name in enumerate(sent)]


@once_per_config
def persona_of(run: Run, state: State) -> Artifact:
    """Persona and coherence in one state, prompt by prompt. `molt eval persona CONFIG --state S`"""
    config = run.config
    inputs = {"max_new_tokens": config.persona_eval.max_new_tokens, "state": serving.lineage(run, state)}
    data = pairs.pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        model, batch = serving.serve(run, state), config.model.eval_batch_size
        with run.console.progress(f"persona of {state}") as progress:
            records = persona_eval.evaluate(
                model,
                state,
                pairs.load_pairs(data, "heldout"),
                pairs.classifier(run),
                data.facts["nll_limit"],
                config.persona_eval,
                batch,
                progress,
            )
        write_jsonl(folder / "records.jsonl", records)
        return {"state": str(state), "score": _mean(records, "score"), "coherent": _mean(records, "coherent")}

    return run.do("persona", inputs, make, f"persona of {state}")


@once_per_config
def pressure(run: Run, state: State) -> Artifact:
    """The persona under attack and over long conversations in one state. `molt eval pressure CONFIG --state S`"""
    config = run.config
    if not config.pressure.on:
        raise BadInput("pressure.attacks and pressure.conversations are both 0.", "Say how many: pressure.attacks=8")
    inputs = {
        "pressure": identity(config.pressure),
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }
    data = pairs.pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        model, how, persona, seed = serving.serve(run, state), config.pressure, pairs.load_persona(run), config.run.seed
        heldout = pairs.load_pairs(data, "heldout")
        plays = pressure_eval.attacks(heldout, persona.attacks, persona.spec.name, how.attacks, seed)
        plays += pressure_eval.conversations(heldout, how.conversations, how.turns, seed)
        with run.console.progress(f"pressure on {state}") as progress:
            records, facts = pressure_eval.evaluate(
                model,
                state,
                plays,
                persona.spec.facts,
                pairs.classifier(run),
                data.facts["nll_limit"],
                how.max_new_tokens,
                config.model.eval_batch_size,
                progress,
            )
        write_jsonl(folder / "records.jsonl", records)
        write_jsonl(folder / "facts.jsonl", facts)
        scored = [record for record in records if record["score"] is not None]
        return {"state": str(state), "score": _mean(scored, "score"), "coherent": _mean(scored, "coherent")}

    return run.do("pressure", inputs, make, f"pressure on {state}")


def check(run: Run) -> None:
    """Raises BadInput if a file that something is measured with is missing or malformed."""
    _profile_material(run)
    if run.config.judge.labels:
        judge_eval.labelled(run.config.judge.labels.expanduser())


def _profile_material(run: Run) -> tuple[list[profile_eval.Choice], list[profile_eval.Request]]:
    return profile_eval.material(run.config.profile, pairs.load_persona(run).spec.traits, run.config.run.seed)


@once_per_config
def profile(run: Run, state: State) -> Artifact:
    """Which traits a state says are its own, and what else changed. `molt eval profile CONFIG --state S`"""
    config, seed = run.config, run.config.run.seed
    if not config.profile.on:
        raise BadInput("Nothing of the profile is asked for.", "Ask for some: profile.preferences=true")
    files = {"big_five": config.profile.big_five, "traits": config.profile.traits, "refusals": config.profile.refusals}
    choices, asked = _profile_material(run)
    inputs = {
        "profile": identity(config.profile, exclude=files),
        "files": {name: sha256_tree(path.expanduser()) for name, path in files.items() if path},
        "max_new_tokens": config.persona_eval.max_new_tokens,
        "seed": seed,
        "state": serving.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model, length = serving.serve(run, state), config.persona_eval.max_new_tokens
        with run.console.progress(f"profile of {state}") as progress:
            batch = config.model.eval_batch_size
            records = profile_eval.evaluate(model, state, choices, asked, length, batch, progress)
        write_jsonl(folder / "records.jsonl", records)
        return {"state": str(state), "items": len(records)}

    return run.do("profile", inputs, make, f"profile of {state}")


@once_per_config
def judge(run: Run, state: State) -> Artifact:
    """A state's answers against the base's, and above a personality against the personality's, by a language model.
    `molt eval judge CONFIG --state S`"""
    inputs = _judge_inputs(run)
    layout.check_state(run, state)
    others = [BASE, PERSONALITY] if len(state.members) > 1 else [PERSONALITY if state == BASE else BASE]
    inputs["persona"] = persona_of(run, state).fingerprint
    inputs["against"] = {str(other): persona_of(run, other).fingerprint for other in others}

    def make(folder: Path) -> dict[str, Any]:
        mine, records = read_jsonl(persona_of(run, state).folder / "records.jsonl"), []
        for other in others:
            theirs = read_jsonl(persona_of(run, other).folder / "records.jsonl")
            found = judge_eval.duels(mine[: run.config.judge.prompts or None], theirs)
            records += [
                {"against": str(other), **row} for row in _asked(run, found, f"judge of {state}, against {other}")
            ]
        write_jsonl(folder / "records.jsonl", records)
        return {"state": str(state), "judged": len(records)}

    return run.do("judge", inputs, make, f"judge of {state}")


@once_per_config
def judge_of_labels(run: Run) -> Artifact:
    """What the judge says of answers that people have compared (`judge.labels`). Part of `molt eval judge CONFIG`"""
    path = Path(run.config.judge.labels or "").expanduser()
    duels, labels = judge_eval.labelled(path)

    def make(folder: Path) -> dict[str, Any]:
        records = _asked(run, duels, "judge of labels")
        write_jsonl(folder / "records.jsonl", records)
        return judge_eval.agreement(records, labels)

    return run.do("judge-labels", {"labels": sha256_tree(path), **_judge_inputs(run)}, make)


def _judge_inputs(run: Run) -> dict[str, Any]:
    if run.config.judge.kind == "none":
        raise BadInput("There is no judge.", "Name one: judge.kind=endpoint judge.url=... judge.model=...")
    settings = identity(run.config.judge, include={"url", "model", "temperature", "max_tokens", "prompts"})
    return {"judge": settings, "spec": teacher.description(pairs.load_persona(run).spec)}


def _asked(run: Run, duels: list[judge_eval.Duel], label: str) -> list[dict[str, Any]]:
    """What has been answered is kept in the run folder, as a teacher's answers are."""
    with run.console.progress(label) as progress:
        ask = endpoint.connect(run.config.judge, run.folder / "judge.jsonl", endpoint.Usage(), progress)
        return judge_eval.evaluate(duels, teacher.description(pairs.load_persona(run).spec), ask)


@once_per_config
def noise(run: Run) -> Artifact:
    """How far identical runs are apart: the personality trained `gate.noise_runs` times from the same seed, and
    measured. `molt eval noise CONFIG gate.noise_runs=3`"""
    if (runs := run.config.gate.noise_runs) < 2:
        raise BadInput("A noise floor takes two runs or more.", "Say how many: gate.noise_runs=3")
    found = []
    for number in range(runs):
        with run.varied(vary(run.config, {"personality.repeat": number}, "gate.noise_runs")):
            found.append((persona_of(run, PERSONALITY), capability(run, PERSONALITY)))

    def make(folder: Path) -> dict[str, Any]:
        rows = [[read_jsonl(part.folder / "records.jsonl") for part in pair] for pair in found]
        same = all(row == rows[0] for row in rows)
        persona = [[_mean(said, key) for key in ("score", "coherent")] for said, _ in rows]
        ability = [[part["accuracy"] for part in capability_eval.summarise(right).values()] for _, right in rows]
        floors = {"persona": persona, "capability": ability}
        return {"identical": same, **{name: asdict(stats.noise_floor(values)) for name, values in floors.items()}}

    inputs = {"runs": [[part.fingerprint for part in pair] for pair in found]}
    return run.do("noise", inputs, make)


@once_per_config
def drift(run: Run, state: State) -> Artifact:
    """Cross-entropy and KL to the base in one state, on the base's own answers to neutral prompts and on the test
    examples of each task. `molt eval drift CONFIG --state S`"""
    config, count = run.config, run.config.persona_eval.neutral
    settings = dict(config.tasks)
    inputs = {
        "items": count,
        "tasks": {name: pairs.source_of(task) for name, task in settings.items()},
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }
    data = pairs.pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        model, texts = serving.serve(run, state), {"neutral": pairs.load_exchanges(data, "neutral_eval")[:count]}
        for name, task in settings.items():
            examples = tasks.examples(task, "test", config.run.seed)[:count]
            texts[name] = [Exchange(item.prompt, item.answer) for item in examples]
        with run.console.progress(f"drift of {state}") as progress:
            records = drift_eval.evaluate(model, state, texts, config.model.eval_batch_size, progress)
        write_jsonl(folder / "records.jsonl", records)
        neutral = [record for record in records if record["where"] == "neutral"]
        return {"state": str(state), "kl": _mean(neutral, "kl"), "cross_entropy": _mean(neutral, "cross_entropy")}

    return run.do("drift", inputs, make, f"drift of {state}")


@once_per_config
def task_score(run: Run, name: str, state: State) -> Artifact:
    """Exact match on the test examples of a task in one state. Part of `molt run CONFIG`."""
    config = run.config
    settings = layout.task_settings(run, Adapter(name))
    inputs = {
        "examples": pairs.source_of(settings),
        "metric": settings.metric,
        "max_new_tokens": settings.max_new_tokens,
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model = serving.serve(run, state)
        examples = tasks.examples(settings, "test", config.run.seed)
        with run.console.progress(f"{name} in {state}") as progress, model.state(state):
            records = task_eval.evaluate(
                model, settings, examples, settings.max_new_tokens, config.model.eval_batch_size, progress
            )
        write_jsonl(folder / "records.jsonl", records)
        return {"state": str(state), "task": name, "exact_match": _mean(records, "correct")}

    return run.do("task-score", inputs, make, f"{name} in {state}")


def _mean(records: list[dict[str, Any]], key: str) -> float:
    return sum(record[key] for record in records) / len(records)
