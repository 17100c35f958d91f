"""The gate over a run: each adapter against what it was trained from. What passes comes into use, the rest does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Generic, Literal, Protocol

from moltlm.data.io import fingerprint
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter, State
from moltlm.evals import gate
from moltlm.evals.config import GateConfig
from moltlm.evals.profile import REFUSED_SAFE
from moltlm.evals.records import AgentRecord, ItemRecord, PersonaRecord, ProfileRecord, R, TaskRecord, read_records
from moltlm.evals.stats import Outcome
from moltlm.pipeline import layout
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service import origin
from moltlm.pipeline.service.entries import entry_ids
from moltlm.pipeline.service.registry import Entry, Registry
from moltlm.pipeline.stages import measures, pairs, replay, tasks

Colour = Literal["red", "blue", "green", "grey"]


@dataclass(frozen=True)
class Sides(Generic[R]):
    """Records of what is in use (`before`) and of the candidate (`after`)."""

    before: Sequence[R]
    after: Sequence[R]


class Evidence(Protocol):
    """What criteria are made of. Records are measured when a criterion asks for them."""

    @property
    def skill(self) -> Literal["persona", "task"] | None:
        """What the candidate exists to learn; None where it has only to lose nothing."""
        ...

    def persona(self) -> Sides[PersonaRecord]:
        """The answers to the held-out prompts."""
        ...

    def capability(self) -> Sides[ItemRecord]:
        """The items of the benchmarks."""
        ...

    def task(self) -> Sides[TaskRecord]:
        """The test examples of the task that the candidate exists to learn."""
        ...

    def safe_requests(self) -> Sides[ProfileRecord]:
        """The safe requests of `profile.refusals`; `value` is 1 where one was refused."""
        ...

    def agent(self) -> Sides[AgentRecord]:
        """Tool calls, JSON and harmless requests; nothing where `agent.items` is 0."""
        ...


def capability(settings: GateConfig, evidence: Evidence) -> gate.Criterion:
    """Accuracy, each benchmark counting the same."""
    sides = evidence.capability()
    values = gate.paired(sides.before, sides.after, lambda item: item.correct, lambda item: item.benchmark)
    return gate.Criterion("capability", "capability.correct", "noninferior", values, settings.capability_margin)


def persona(settings: GateConfig, evidence: Evidence) -> gate.Criterion:
    """Persona score."""
    sides = evidence.persona()
    values = gate.paired(sides.before, sides.after, lambda answer: answer.score)
    return gate.Criterion("persona", "persona.score", "noninferior", values, settings.persona_margin)


def coherence(settings: GateConfig, evidence: Evidence) -> gate.Criterion:
    """Share of coherent answers."""
    sides = evidence.persona()
    values = gate.paired(sides.before, sides.after, lambda answer: answer.coherent)
    return gate.Criterion("coherence", "persona.coherent", "noninferior", values, settings.coherence_margin)


def new_skill(_: GateConfig, evidence: Evidence) -> gate.Criterion | None:
    """What the candidate exists to learn must be better: the persona score, or exact match on the task."""
    if evidence.skill is None:
        return None
    if evidence.skill == "persona":
        answers = evidence.persona()
        values = gate.paired(answers.before, answers.after, lambda answer: answer.score)
        return gate.Criterion("new skill", "persona.score", "improved", values)
    examples = evidence.task()
    values = gate.paired(examples.before, examples.after, lambda example: example.correct)
    return gate.Criterion("new skill", "task.correct", "improved", values)


def kept_skill(settings: GateConfig, evidence: Evidence) -> gate.Criterion:
    """A task above another personality: exact match, or the probability of its texts, above that in use."""
    sides = evidence.task()
    values = gate.paired(sides.before, sides.after, lambda example: example.correct)
    return gate.Criterion("task", "task.correct", "noninferior", values, settings.task_margin)


def over_refusal(settings: GateConfig, evidence: Evidence) -> gate.Criterion | None:
    """Share of safe requests that are answered; off without a margin."""
    if not settings.refusal_margin:
        return None
    sides = evidence.safe_requests()
    values = gate.paired(sides.before, sides.after, lambda request: 1 - request.value)
    return gate.Criterion("safe requests", "profile.refused", "noninferior", values, settings.refusal_margin)


def agent_skills(settings: GateConfig, evidence: Evidence) -> gate.Criterion | None:
    """What programs need of a model, each kind counting the same; off without items."""
    sides = evidence.agent()
    if not sides.before:
        return None
    values = gate.paired(sides.before, sides.after, lambda item: item.score, lambda item: item.kind)
    return gate.Criterion("agent skills", "agent.score", "noninferior", values, settings.agent_margin)


CRITERIA: list[Callable[[GateConfig, Evidence], gate.Criterion | None]] = [
    capability,
    persona,
    coherence,
    over_refusal,
    agent_skills,
    new_skill,
]
"""What `molt gate` and `molt retrain` require. A function returns None where its criterion does not apply."""


AS_IT_IS: list[Callable[[GateConfig, Evidence], gate.Criterion]] = [kept_skill]
"""What is required of a task, as it is, above a new personality; the personality itself has passed the gate."""
TRAINED_AGAIN: list[Callable[[GateConfig, Evidence], gate.Criterion]] = [kept_skill, persona, coherence]
"""What is required of a task that was trained again above a new personality, against the former two."""


def judge_evidence(
    settings: GateConfig, evidence: Evidence, anchored: Evidence | None = None, look: int = 1
) -> gate.GateVerdict:
    """The gate on the records of what is in use and of a candidate.

    Args:
        anchored: the records of the personality that the retrainings began with, and of the candidate. Small losses
            that each pass add up, and this margin is theirs together.
        look: the number of this candidate among those judged against that personality, but for those that passed. The
            more have failed, the surer it must be: else one in twenty passes by chance (docs/decisions/0015).
    """
    verdict = gate.judge(
        [criterion for make in CRITERIA if (criterion := make(settings, evidence))], settings.confidence
    )
    if not anchored:
        return verdict
    total = settings.model_copy(update=dict.fromkeys(_margins(settings), settings.anchor_margin))
    criteria = [criterion for make in CRITERIA if (criterion := make(total, anchored))]
    since = [replace(each, name=f"{each.name} since the first personality") for each in criteria]
    anchor = gate.judge(since, gate.confidence_at(look, settings.confidence))
    return gate.GateVerdict(verdict.promoted and anchor.promoted, [*verdict.checks, *anchor.checks])


def _margins(settings: GateConfig) -> list[str]:
    """The settings of the margins that are on."""
    names = ["capability_margin", "persona_margin", "coherence_margin", "agent_margin"]
    return [*names, "refusal_margin"] if settings.refusal_margin else names


@dataclass(frozen=True)
class RunEvidence:
    """The records of a run: an adapter against the state that it was trained from."""

    run: Run
    adapter: Adapter

    @property
    def skill(self) -> Literal["persona", "task"] | None:
        return "persona" if self.adapter == PERSONALITY_ADAPTER else "task"

    @cached_property
    def states(self) -> tuple[State, State]:
        before = BASE if self.adapter == PERSONALITY_ADAPTER else PERSONALITY
        return before, layout.state_of(self.run, self.adapter)

    def persona(self) -> Sides[PersonaRecord]:
        return self._sides(measures.persona_of, PersonaRecord)

    def capability(self) -> Sides[ItemRecord]:
        return self._sides(measures.capability, ItemRecord)

    def task(self) -> Sides[TaskRecord]:
        return self._sides(lambda run, state: measures.task_score(run, self.adapter.name, state), TaskRecord)

    def safe_requests(self) -> Sides[ProfileRecord]:
        sides = self._sides(measures.profile, ProfileRecord)
        before, after = ([row for row in side if row.scale == REFUSED_SAFE] for side in (sides.before, sides.after))
        return Sides(before, after)

    def agent(self) -> Sides[AgentRecord]:
        return self._sides(measures.agent, AgentRecord) if self.run.config.agent.items else Sides([], [])

    def _sides(self, measure: Callable[[Run, State], Artifact], kind: type[R]) -> Sides[R]:
        before, after = (
            read_records(intact(measure(self.run, state).folder, "records.jsonl"), kind) for state in self.states
        )
        return Sides(before, after)


def judge_all(run: Run) -> dict[str, gate.GateVerdict]:
    """Judge the personality against the base and each task against the personality, and register all of them.
    `molt gate CONFIG`

    What passes comes into use, except for a task whose personality is not in use, anything that would replace what is
    in use (it was not compared with that), and anything that was in use before (it was replaced or rolled back on
    purpose). Controls are never candidates.
    """
    registry = Registry(run.config.registry.folder)
    verdicts: dict[str, gate.GateVerdict] = {}
    for adapter in candidates(run):
        name = str(adapter)
        verdicts[name] = judge(run, adapter)
        artifact = tasks.trained(run, adapter)
        lineage = origin.lineage_of(run, artifact, _data_of(run, adapter))
        entry = registry.add(artifact.folder, asdict(verdicts[name]), lineage=lineage)
        if not verdicts[name].promoted or registry.current().get(name) == entry.id:
            continue
        if obstacle := activation_obstacle(registry, entry):
            run.console.say(f"{name} passed the gate but is not put into use: {obstacle}")
        else:
            registry.promote(entry.id, replaces="", buffer=_buffer_of(run) if adapter == PERSONALITY_ADAPTER else None)
    return verdicts


def _data_of(run: Run, adapter: Adapter) -> str:
    """What identifies the data that an adapter of the run was trained on."""
    if adapter == PERSONALITY_ADAPTER:
        return pairs.pairs(run).fingerprint
    return fingerprint(pairs.source_of(layout.task_settings(run, adapter)))


def _buffer_of(run: Run) -> str:
    """What identifies the replay buffer of the run; empty if it has none."""
    try:
        with run.reading():
            return origin.buffer_id(replay.buffer(run).folder)
    except Missing:
        return ""


def activation_obstacle(registry: Registry, entry: Entry) -> str:
    """Why an adapter that passed the gate is not put into use, and the command that does it; empty if it can be."""
    current, command = registry.current(), f"molt registry promote {entry.id} CONFIG"
    if entry.slot in current:
        return f"{current[entry.slot]} is in use. To replace it: {command}"
    if not entry.fits(current):
        parents = " and ".join(entry_ids(entry.parents))
        return f"it was trained above {parents}, which is not in use. Put that into use first, then: {command}"
    if registry.was_in_use(entry.id):
        return f"it was in use before, and was taken out. To put it into use again: {command}"
    return ""


def candidates(run: Run) -> list[Adapter]:
    """The adapters that may be promoted: the personality and the tasks, without controls."""
    return [PERSONALITY_ADAPTER, *map(Adapter, run.config.tasks)]


def judge(run: Run, adapter: Adapter) -> gate.GateVerdict:
    """The personality must be better than the base at being itself, a task better than the personality at the task;
    neither may lose more than the margins in anything else."""
    return judge_evidence(run.config.gate, RunEvidence(run, adapter))


def path(run: Run, adapter: Adapter, verdict: gate.GateVerdict) -> tuple[Colour, str]:
    """The path colour of a stage that was judged, and why (docs: path colours)."""
    skill, retained = verdict.skill, verdict.retained
    learned = skill is not None and skill.outcome == "pass"
    if adapter != PERSONALITY_ADAPTER:
        exact = measures.task_score(run, adapter.name, layout.state_of(run, adapter)).facts["exact_match"]
        learned = learned and exact >= layout.task_settings(run, adapter).floor
    lost = [check.name for check in retained if check.outcome == "fail"]
    unresolved = [check.name for check in retained if check.outcome == "unresolved"]
    points = f" ({skill.difference:+z.0f} points)" if skill else ""
    gained = f"the new was {'learned' if learned else 'not learned'}{points}"
    name = colour(learned, [check.outcome for check in retained])
    if lost:
        return name, f"{gained}; {' and '.join(lost)} got worse by more than the margin"
    if unresolved:
        return name, f"{gained}; whether {' and '.join(unresolved)} held is not resolved with these items"
    return name, f"{gained} and nothing was lost"


def colour(learned: bool, retained: list[Outcome]) -> Colour:
    """red: new good, old good, the ideal. blue: new good, old bad, forgetting. green: both bad, failed. grey: these
    items do not tell, or nothing was learned and nothing lost.

    Args:
        retained: the outcome of each criterion that nothing was lost.
    """
    if "fail" in retained:
        return "blue" if learned else "green"
    return "red" if learned and "unresolved" not in retained else "grey"


def sentences(verdicts: dict[str, gate.GateVerdict]) -> list[str]:
    """Lines for a reader: each candidate, its verdict, its criteria."""
    lines = []
    for name, verdict in verdicts.items():
        lines.append(f"{name}: {'passed' if verdict.promoted else 'not promoted'}")
        lines += [f"  {check.outcome:<10} {check.sentence}" for check in verdict.checks]
    return lines
