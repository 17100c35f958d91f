"""The measurements of a state, each written as typed records: ability, persona, tasks, and the optional ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.adapters import router as routers
from moltlm.data import endpoint, tasks, teacher
from moltlm.data.io import sha256_tree
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.data.types import ChatModel, Exchange, Progress
from moltlm.evals import agent as agent_eval
from moltlm.evals import capability as capability_eval
from moltlm.evals import drift as drift_eval
from moltlm.evals import judge as judge_eval
from moltlm.evals import persona as persona_eval
from moltlm.evals import pressure as pressure_eval
from moltlm.evals import profile as profile_eval
from moltlm.evals import stats
from moltlm.evals import tasks as task_eval
from moltlm.evals.records import (
    AgentRecord,
    DriftRecord,
    ItemRecord,
    JudgeRecord,
    LikelihoodRecord,
    PersonaRecord,
    PressureRecord,
    R,
    TaskRecord,
    read_records,
    write_records,
)
from moltlm.evals.relevance import Questions
from moltlm.pipeline import layout, preconditions
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.config import vary
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import pairs, routing, serving

RECORDS, FACTS, SCORED = "records.jsonl", "facts.jsonl", "scored.jsonl"


def load(artifact: Artifact, kind: type[R], file: str = RECORDS) -> list[R]:
    """The records of a measurement."""
    return read_records(intact(artifact.folder, file), kind)


@once_per_config
def capability(run: Run, state: State) -> Artifact:
    """General ability in one state, item by item, by lm-evaluation-harness. `molt eval capability CONFIG --state S`"""
    config = run.config.capability
    files = [capability_eval.files(name) for name in config.items]
    inputs = {
        "capability": identity(config),
        "files": files if any(files) else None,
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
        from moltlm.evals import harness

        model = serving.serve(run, state)
        if parts:
            records = _routed_records(run, routes, parts)
        else:
            with run.console.progress(f"capability of {state}") as progress, model.state(state):
                batch, seed = config.batch_size, run.config.run.seed
                records = harness.evaluate(model, config.items, batch, seed, progress)
        write_records(folder / RECORDS, records)
        return {"state": str(state), "summary": asdict(capability_eval.summarise(records))}

    return run.do("capability", inputs, make, f"capability of {state}")


def _routed_records(run: Run, routes: tuple[Adapter, ...], parts: dict[str, Artifact]) -> list[ItemRecord]:
    """Each item as it is answered by the adapter that the router picks for it."""
    from moltlm.evals import harness

    records = {name: load(part, ItemRecord) for name, part in parts.items()}
    by_key = {name: {record.key: record for record in each} for name, each in records.items()}
    router = routers.load(routing.router(run, routes).folder)
    texts = {capability_eval.label(name): harness.texts(name) for name in run.config.capability.items}
    items = records[routers.NO_TASK]
    picked = router.route(run.base.embed([texts[item.benchmark][int(item.item)] for item in items]))
    return [by_key[name][item.key] for name, item in zip(picked, items, strict=True)]


def persona_measure(run: Run, max_new_tokens: int | None = None) -> persona_eval.PersonaMeasure:
    """How answers are scored in this run.

    Args:
        max_new_tokens: length of an answer; None for that of the persona evaluation.
    """
    data = pairs.pairs(run)
    heldout = pairs.load_pairs(data, "heldout")
    return persona_eval.PersonaMeasure(
        pairs.classifier(run),
        data.facts["nll_limit"],
        max_new_tokens or run.config.persona_eval.max_new_tokens,
        run.config.model.eval_batch_size,
        Questions([pair.question for pair in heldout], [pair.topic for pair in heldout]),
    )


@once_per_config
def persona_of(run: Run, state: State) -> Artifact:
    """Persona and coherence in one state, prompt by prompt. `molt eval persona CONFIG --state S`"""
    config = run.config
    inputs = {"max_new_tokens": config.persona_eval.max_new_tokens, "state": serving.lineage(run, state)}
    data = pairs.pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        model, heldout = serving.serve(run, state), pairs.load_pairs(data, "heldout")
        with run.console.progress(f"persona of {state}") as progress:
            records = persona_eval.evaluate(model, state, heldout, persona_measure(run), progress)
        write_records(folder / RECORDS, records)
        return {"state": str(state), **_persona_facts(records)}

    return run.do("persona", inputs, make, f"persona of {state}")


@once_per_config
def pressure(run: Run, state: State) -> Artifact:
    """The persona under attack and over long conversations in one state. `molt eval pressure CONFIG --state S`"""
    config = run.config
    preconditions.pressure(config)
    inputs = {
        "pressure": identity(config.pressure),
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }
    data = pairs.pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        model, settings, seed = serving.serve(run, state), config.pressure, config.run.seed
        heldout, persona = pairs.load_pairs(data, "heldout"), pairs.load_persona(run)
        scenarios = pressure_eval.attacks(heldout, persona.attacks, persona.spec.name, settings.attacks, seed)
        scenarios += pressure_eval.conversations(heldout, settings.conversations, settings.turns, seed)
        measure = persona_measure(run, settings.max_new_tokens)
        with run.console.progress(f"pressure on {state}") as progress:
            records, facts = pressure_eval.evaluate(model, state, scenarios, persona.spec.facts, measure, progress)
        write_records(folder / RECORDS, records)
        write_records(folder / FACTS, facts)
        return {"state": str(state), **_persona_facts([record for record in records if record.score is not None])}

    return run.do("pressure", inputs, make, f"pressure on {state}")


def check(run: Run) -> None:
    """Raises BadInput if a file that a measurement needs is missing or malformed."""
    profile_material(run)
    if run.config.judge.labels:
        judge_eval.labelled(run.config.judge.labels)


def profile_material(run: Run) -> tuple[list[profile_eval.Choice], list[profile_eval.Request]]:
    """The choices and requests of the profile. Raises BadInput if a file is missing or malformed."""
    return profile_eval.material(run.config.profile, pairs.load_persona(run).spec.traits, run.config.run.seed)


def profile_inputs(run: Run) -> dict[str, Any]:
    """What the profile depends on: its settings, with the contents of its files in place of their paths."""
    settings = run.config.profile
    paths = {"big_five": settings.big_five, "traits": settings.traits, "refusals": settings.refusals}
    return {
        "profile": identity(settings, exclude=paths),
        "files": {name: sha256_tree(path) for name, path in paths.items() if path},
    }


@once_per_config
def profile(run: Run, state: State) -> Artifact:
    """Which traits a state prefers, and what else changed. `molt eval profile CONFIG --state S`"""
    config = run.config
    preconditions.profile(config)
    choices, requests = profile_material(run)
    inputs = {
        **profile_inputs(run),
        "max_new_tokens": config.persona_eval.max_new_tokens,
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model, length = serving.serve(run, state), config.persona_eval.max_new_tokens
        with run.console.progress(f"profile of {state}") as progress:
            batch = config.model.eval_batch_size
            records = profile_eval.evaluate(model, state, choices, requests, length, batch, progress)
        write_records(folder / RECORDS, records)
        return {"state": str(state), "items": len(records)}

    return run.do("profile", inputs, make, f"profile of {state}")


@once_per_config
def agent(run: Run, state: State) -> Artifact:
    """Whether a program can still work with a state: tool calls, JSON, harmless requests.
    `molt eval agent CONFIG --state S`"""
    config = run.config
    preconditions.agent(config)
    inputs = {"agent": identity(config.agent), "seed": config.run.seed, "state": serving.lineage(run, state)}

    def make(folder: Path) -> dict[str, Any]:
        model = serving.serve(run, state)
        with run.console.progress(f"agent skills of {state}") as progress:
            records = agent_records(run, model, state, progress)
        write_records(folder / RECORDS, records)
        return {"state": str(state), **agent_eval.summarise(records)}

    return run.do("agent", inputs, make, f"agent skills of {state}")


def agent_records(run: Run, model: ChatModel, state: State, progress: Progress) -> list[AgentRecord]:
    """The agent skills of a state that this model serves, by the settings of the run."""
    config = run.config
    items = agent_eval.sample_items(config.agent.items, config.run.seed)
    voice, batch = pairs.classifier(run).probability, config.model.eval_batch_size
    return agent_eval.evaluate(model, state, items, voice, config.agent.max_new_tokens, batch, progress)


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
        answers = load(persona_of(run, state), PersonaRecord)[: run.config.judge.prompts or None]
        ids, records = {answer.id for answer in answers}, []
        for other in others:
            other_answers = [answer for answer in load(persona_of(run, other), PersonaRecord) if answer.id in ids]
            duels = judge_eval.duels(answers, other_answers)
            records += _judged(run, duels, f"judge of {state}, against {other}", str(other))
        write_records(folder / RECORDS, records)
        return {"state": str(state), "judged": len(records)}

    return run.do("judge", inputs, make, f"judge of {state}")


@once_per_config
def judge_of_labels(run: Run) -> Artifact:
    """The judge's agreement with people on answers that they compared (`judge.labels`). Part of
    `molt eval judge CONFIG`"""
    path = Path(run.config.judge.labels or "")
    duels, labels = judge_eval.labelled(path)

    def make(folder: Path) -> dict[str, Any]:
        records = _judged(run, duels, "judge of labels")
        write_records(folder / RECORDS, records)
        return asdict(judge_eval.agreement(records, labels))

    return run.do("judge-labels", {"labels": sha256_tree(path), **_judge_inputs(run)}, make)


def _judge_inputs(run: Run) -> dict[str, Any]:
    preconditions.judge(run.config)
    settings = identity(run.config.judge, include={"url", "model", "temperature", "max_tokens", "prompts"})
    return {"judge": settings, "spec": teacher.description(pairs.load_persona(run).spec)}


def _judged(run: Run, duels: list[judge_eval.Duel], label: str, against: str = "") -> list[JudgeRecord]:
    """Replies are stored in the run folder, as a teacher's answers are, so that none is paid for twice."""
    endpoint.check_told(run.config.judge)
    brief = teacher.description(pairs.load_persona(run).spec)
    with run.console.progress(label) as progress:
        ask = endpoint.connect(run.config.judge, run.folder / "judge.jsonl", endpoint.Usage(), progress)
        return judge_eval.evaluate(duels, brief, ask, against)


@once_per_config
def noise(run: Run) -> Artifact:
    """The spread of identical runs: the personality trained `gate.noise_runs` times from the same seed, and measured.
    `molt eval noise CONFIG gate.noise_runs=3`"""
    preconditions.noise(run.config)
    measured = []
    for number in range(run.config.gate.noise_runs):
        with run.varied(vary(run.config, {"personality.repeat": number}, "gate.noise_runs")):
            measured.append((persona_of(run, PERSONALITY), capability(run, PERSONALITY)))

    def make(folder: Path) -> dict[str, Any]:
        records = [(load(persona, PersonaRecord), load(ability, ItemRecord)) for persona, ability in measured]
        identical = all(each == records[0] for each in records)
        persona = [[facts["score"], facts["coherent"]] for facts in (_persona_facts(rows) for rows, _ in records)]
        ability = [_accuracies(capability_eval.summarise(items)) for _, items in records]
        floors = {"persona": persona, "capability": ability}
        return {"identical": identical, **{name: asdict(stats.noise_floor(values)) for name, values in floors.items()}}

    inputs = {"runs": [[part.fingerprint for part in pair] for pair in measured]}
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
        write_records(folder / RECORDS, records)
        return {"state": str(state), **_drift_facts([record for record in records if record.text_set == "neutral"])}

    return run.do("drift", inputs, make, f"drift of {state}")


@once_per_config
def task_score(run: Run, name: str, state: State) -> Artifact:
    """Exact match and token F1 of the answers to a task in one state, and the likelihood of the right ones. Part of
    `molt run CONFIG`."""
    config = run.config
    settings = layout.task_settings(run, Adapter(name))
    inputs = {
        "examples": pairs.source_of(settings),
        "metric": settings.metric,
        "max_new_tokens": settings.max_new_tokens,
        "generated": settings.test_generated,
        "seed": config.run.seed,
        "state": serving.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model = serving.serve(run, state)
        examples = tasks.examples(settings, "test", config.run.seed)
        with run.console.progress(f"{name} in {state}") as progress, model.state(state):
            batch = config.model.eval_batch_size
            records = task_eval.evaluate(model, settings, examples, settings.max_new_tokens, batch, progress)
            others = task_eval.likelihoods(model, settings, examples, batch, progress, settings.answered)
        write_records(folder / RECORDS, records)
        write_records(folder / SCORED, others)
        return {"state": str(state), "task": name, **_task_facts(records, others)}

    return run.do("task-score", inputs, make, f"{name} in {state}")


def _persona_facts(records: Sequence[PersonaRecord | PressureRecord]) -> dict[str, float]:
    """Mean score and share of coherent answers, the version of the measure, and the mean of each part that it has."""
    scores = [record.score for record in records if record.score is not None]
    facts = {"score": _mean(scores), "coherent": _mean([record.coherent for record in records])}
    return {**facts, "measure": persona_eval.VERSION, **persona_eval.parts(records)}


def _drift_facts(records: Sequence[DriftRecord]) -> dict[str, float]:
    """Means in nats a token."""
    return {
        "kl": _mean([record.kl for record in records]),
        "cross_entropy": _mean([record.cross_entropy for record in records]),
    }


def _accuracies(summary: capability_eval.CapabilitySummary) -> list[float]:
    return [*(benchmark.accuracy for benchmark in summary.benchmarks.values()), summary.mean]


def _task_facts(records: Sequence[TaskRecord], others: Sequence[LikelihoodRecord]) -> dict[str, float | None]:
    """Means: of the answered examples, and of the likelihood over all, `others` among them."""
    scores = [record.f1 for record in records if record.f1 is not None]
    likelihoods = [record.likelihood for record in [*records, *others] if record.likelihood is not None]
    return {
        "exact_match": _mean([record.correct for record in records]),
        "f1": _mean(scores) if scores else None,
        "likelihood": _mean(likelihoods),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
