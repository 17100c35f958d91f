"""The results of a run, recomputed from its item-level records. Loads no model and trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter, State
from moltlm.evals import judge, pressure, profile, stats
from moltlm.evals.distance import Distance
from moltlm.evals.gate import GateVerdict
from moltlm.evals.judge import Agreement
from moltlm.evals.knowledge import Capacity
from moltlm.evals.records import (
    DriftRecord,
    FactRecord,
    ItemRecord,
    JudgeRecord,
    PersonaRecord,
    PressureRecord,
    ProfileRecord,
    R,
    TaskRecord,
)
from moltlm.evals.stats import Comparison
from moltlm.pipeline import layout
from moltlm.pipeline.reporting import from_records
from moltlm.pipeline.reporting.results import (
    BufferResult,
    ClassifierResult,
    Environment,
    IntrospectionFacts,
    JudgeResult,
    NoiseResult,
    PairFacts,
    PathResult,
    Results,
    Retention,
    StateResult,
    StyleWords,
    TaskResult,
    TrainingResult,
)
from moltlm.pipeline.run import Artifact, Missing, Run, environment
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.stages import introspection, measures, pairs, replay, tasks
from moltlm.pipeline.studies import grid, knowledge
from moltlm.pipeline.studies.explore import explore
from moltlm.pipeline.studies.verdict import Explored, GridVerdict
from moltlm.pipeline.typed_json import from_plain, read_document

DISTANCE = [item.name for item in fields(Distance)]
WORDS = 12
"""Words of the style classifier that the report shows for each side."""


@dataclass
class Existing:
    """The artifacts of a run that exist. Each is looked up once; what does not exist is noted under `missing`."""

    run: Run
    missing: list[str] = field(default_factory=list)
    _artifacts: dict[tuple[Any, ...], Artifact | None] = field(default_factory=dict)

    def artifact(self, stage: Callable[..., Artifact], *arguments: Any) -> Artifact | None:
        """The artifact that `stage(run, *arguments)` leaves, if it exists."""
        key = (stage, *arguments)
        if key not in self._artifacts:
            try:
                self._artifacts[key] = stage(self.run, *arguments)
            except Missing as error:
                self._artifacts[key] = None
                self.missing.append(error.what)
        return self._artifacts[key]

    def records(self, kind: type[R], stage: Callable[..., Artifact], *arguments: Any) -> list[R] | None:
        """The records of a measurement, if it exists."""
        artifact = self.artifact(stage, *arguments)
        return measures.load(artifact, kind) if artifact else None

    def by_state(self, kind: type[R], stage: Callable[..., Artifact], states: list[State]) -> dict[str, list[R]]:
        """The records of a measurement in each state where it exists, by the state's name."""
        records = {str(state): self.records(kind, stage, state) for state in states}
        return {state: rows for state, rows in records.items() if rows is not None}


def collect(run: Run) -> Results:
    """Collect all that exists. What has not been run is listed under `missing`, except for measurements of states
    where none exists at all: a study on its own has none."""
    run.only_read = True
    existing = Existing(run)
    results = Results(
        model=run.config.model.id,
        precision=run.config.model.precision,
        persona=pairs.load_persona(run).spec.name,
        seed=run.config.run.seed,
        config=run.config.model_dump(mode="json"),
        environment=from_plain(environment(), Environment),
        missing=existing.missing,
    )
    data = existing.artifact(pairs.pairs)
    if data is None:
        return results
    results = _with_measurements(results, existing)
    if not results.states:
        existing.missing.clear()
    return replace(
        results,
        pairs=from_plain(data.facts, PairFacts),
        introspection=_introspection(existing),
        classifier=_classifier(run, data),
        hypotheses=_hypotheses(existing),
        explored=_optional(lambda: read_document(explore(run).folder / "explored.json", Explored)),
        knowledge=_optional(lambda: read_document(knowledge.answer(run).folder / "knowledge.json", list[Capacity]))
        or [],
    )


def _with_measurements(results: Results, existing: Existing) -> Results:
    """With what was measured of the states, and what was trained."""
    run = existing.run
    states = layout.states(run)
    personas = existing.by_state(PersonaRecord, measures.persona_of, states)
    items = existing.by_state(ItemRecord, measures.capability, states)
    texts = existing.by_state(DriftRecord, measures.drift, states)
    names = [name for name in map(str, states) if name in personas or name in items]
    pressure_by_state, profile_by_state, judged = _pressure(existing, personas), _profile(existing), _judge(existing)
    task_results = [task for name in run.config.tasks if (task := _task(existing, name))]
    verdicts, paths = _gates(run)
    return replace(
        results,
        states=[_state(name, personas, items, texts) for name in names],
        pressure=pressure_by_state,
        profile=profile_by_state,
        judge=judged,
        tasks=task_results,
        retention=[row for task in task_results if (row := _retention(run, task, personas))],
        gates=verdicts,
        noise=_noise(existing),
        paths=paths,
        samples=from_records.samples(personas, run.config.persona_eval.samples),
        training=_training(existing),
        buffer=_buffer(existing),
    )


def _state(
    name: str,
    personas: dict[str, list[PersonaRecord]],
    items: dict[str, list[ItemRecord]],
    texts: dict[str, list[DriftRecord]],
) -> StateResult:
    """One state; capability and drift need the base's records."""
    return StateResult(
        name=name,
        persona=from_records.persona(personas, name) if name in personas else None,
        capability=from_records.capability(items["base"], items[name]) if {"base", name} <= items.keys() else {},
        drift=from_records.drift(texts["base"], texts[name]) if {"base", name} <= texts.keys() else {},
    )


def _gates(run: Run) -> tuple[dict[str, GateVerdict], list[PathResult]]:
    """The gate's verdict on each candidate that the records are enough for, and the path of each stage, controls
    included. Promotes nothing."""
    verdicts, paths = {}, []
    candidates = gates.candidates(run)
    for adapter in [PERSONALITY_ADAPTER, *layout.task_adapters(run)]:
        try:
            verdict = gates.judge(run, adapter)
            colour, reason = gates.path(run, adapter, verdict)
        except Missing:
            continue
        paths.append(PathResult(str(adapter), colour, reason))
        if adapter in candidates:
            verdicts[str(adapter)] = verdict
    return verdicts, paths


def _pressure(existing: Existing, personas: dict[str, list[PersonaRecord]]) -> dict[str, pressure.PressureSummary]:
    """By state: each kind of attack, the turns of conversations, and the facts about itself."""
    run, summaries = existing.run, {}
    for state in layout.candidates(run) if run.config.pressure.on else []:
        artifact = existing.artifact(measures.pressure, state)
        if artifact and str(state) in personas:
            records = measures.load(artifact, PressureRecord), measures.load(artifact, FactRecord, measures.FACTS)
            summaries[str(state)] = pressure.summarise(*records, personas[str(state)])
    return summaries


def _profile(existing: Existing) -> dict[str, dict[str, Comparison]]:
    """By state: each scale against the base."""
    run = existing.run
    if not run.config.profile.on:
        return {}
    records = existing.by_state(ProfileRecord, measures.profile, [BASE, *layout.candidates(run)])
    base = records.pop("base", None)
    return {state: profile.summarise(base, rows) for state, rows in records.items()} if base else {}


def _judge(existing: Existing) -> JudgeResult | None:
    config = existing.run.config.judge
    if config.kind == "none":
        return None
    records = existing.by_state(JudgeRecord, measures.judge, layout.candidates(existing.run))
    states = {
        state: {
            other: judge.summarise([row for row in rows if row.against == other])
            for other in dict.fromkeys(row.against for row in rows)
        }
        for state, rows in records.items()
    }
    labels = existing.artifact(measures.judge_of_labels) if config.labels else None
    return JudgeResult(config.model, states, from_plain(labels.facts, Agreement) if labels else None)


def _task(existing: Existing, name: str) -> TaskResult | None:
    settings = existing.run.config.tasks[name]

    def records(state: State) -> list[TaskRecord] | None:
        return existing.records(TaskRecord, measures.task_score, name, state)

    before, after = records(PERSONALITY), records(layout.state_of(existing.run, Adapter(name)))
    if not before or not after:
        return None
    control = records(layout.state_of(existing.run, Adapter(name, control=True))) if settings.control else None
    return from_records.task(name, settings.floor, before, after, control)


def _retention(run: Run, task: TaskResult, personas: dict[str, list[PersonaRecord]]) -> Retention | None:
    states = [str(layout.state_of(run, Adapter(task.name, control))) for control in (False, True)]
    if not run.config.tasks[task.name].control or not {"personality", *states} <= personas.keys():
        return None
    replay_records, control_records = (personas[state] for state in states)
    return from_records.retention(task, personas["personality"], replay_records, control_records, run.config.run.seed)


def _noise(existing: Existing) -> NoiseResult | None:
    artifact = existing.artifact(measures.noise) if existing.run.config.gate.noise_runs > 1 else None
    return from_plain(artifact.facts, NoiseResult) if artifact else None


def _classifier(run: Run, data: Artifact) -> ClassifierResult:
    """How well the style classifier does on prompts and topics that it was not trained on."""
    classifier = pairs.classifier(run)
    heldout = pairs.load_pairs(data, "heldout")
    persona = classifier.probability([pair.chosen for pair in heldout])
    base = classifier.probability([pair.base_answer for pair in heldout])
    right = [value >= 0.5 for value in persona] + [value < 0.5 for value in base]
    weights = classifier.weights(WORDS)
    return ClassifierResult(
        cross_validation=classifier.cross_validation,
        heldout=stats.proportion(sum(right), len(right)),
        weights=StyleWords(weights["ours"], weights["theirs"]),
    )


def _training(existing: Existing) -> list[TrainingResult]:
    results = []
    for adapter in [PERSONALITY_ADAPTER, *layout.task_adapters(existing.run)]:
        if artifact := existing.artifact(tasks.trained, adapter):
            rows = read_jsonl(artifact.folder / "metrics.jsonl")
            curve = [{"step": row["step"], "loss": row["loss"]} for row in rows]
            distance = {key: artifact.facts[key] for key in DISTANCE if key in artifact.facts} or None
            values = {"name": str(adapter), "curve": curve, "distance": distance, **artifact.facts}
            results.append(from_plain(values, TrainingResult))
    return results


def _introspection(existing: Existing) -> IntrospectionFacts | None:
    artifact = existing.artifact(introspection.introspection) if existing.run.config.introspection.on else None
    return from_plain(artifact.facts, IntrospectionFacts) if artifact else None


def _buffer(existing: Existing) -> BufferResult | None:
    artifact = existing.artifact(replay.buffer)
    return from_plain({"size": artifact.facts["kept"], **artifact.facts}, BufferResult) if artifact else None


def _hypotheses(existing: Existing) -> list[GridVerdict]:
    artifacts = [existing.artifact(grid.verdict, name) for name in existing.run.config.hypotheses]
    return [read_document(artifact.folder / "verdict.json", GridVerdict) for artifact in artifacts if artifact]


def _optional(read: Callable[[], Any]) -> Any:
    """None for what is only there if its own command was run; its absence is not noted as missing."""
    try:
        return read()
    except (Missing, BadInput):
        return None
