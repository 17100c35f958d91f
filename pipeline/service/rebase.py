"""The active tasks above a candidate for the personality: each is kept as it is, trained again, or lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from moltlm.adapters import card
from moltlm.data import state as states
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import fingerprint
from moltlm.data.state import Adapter, State
from moltlm.evals import gate
from moltlm.evals.config import GateConfig
from moltlm.pipeline import layout
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service import origin
from moltlm.pipeline.service.entries import entry_id
from moltlm.pipeline.service.evidence import CycleEvidence, served
from moltlm.pipeline.service.registry import Entry, Registry
from moltlm.pipeline.stages import tasks, teaching
from moltlm.pipeline.stages.pairs import source_of

Outcome = Literal["kept as it is", "trained again", "lost"]
KEPT, TRAINED_AGAIN, LOST = "kept as it is", "trained again", "lost"
TASKS = "tasks"
"""Folder of a cycle with the tasks that were trained again, by slot."""


@dataclass(frozen=True)
class TaskResult:
    """What became of an active task above a candidate.

    Attributes:
        id: of the active adapter.
        verdict: on the adapter as it is where it is kept, else on the one that was trained again.
        reason: the criteria in words, first as it is, then trained again; or why the training ended.
        above: hashes of the adapters that the verdict is about, by slot, as in `registry.Entry.parents`.
    """

    slot: str
    id: str
    outcome: Outcome
    verdict: dict[str, Any]
    reason: list[str]
    above: dict[str, str]

    @property
    def survives(self) -> bool:
        return self.outcome != LOST

    def sentence(self) -> str:
        """For a reader."""
        return f"{self.slot}: {self.outcome}. {'. '.join(self.reason)}"


def check(run: Run, active: dict[str, Entry]) -> None:
    """Raises BadInput if an active task could not be measured or trained above another personality."""
    for slot, entry in _task_entries(active).items():
        if slot not in run.config.tasks:
            raise BadInput(
                f"{entry.id} is in use, but the config has no task {slot}: nothing could say whether it survives a "
                "new personality.",
                f"Add it under `tasks:`, or take it out of use: molt registry retire {slot} CONFIG",
            )
        tasks.check(run, Adapter(slot))


def inputs_of(run: Run, active: dict[str, str]) -> dict[str, Any]:
    """What the results depend on, besides the candidate; empty without active tasks."""
    slots = [slot for slot in active if slot != "personality"]
    if not slots:
        return {}
    settings = {slot: run.config.tasks[slot] for slot in slots}
    return {
        "active": {slot: active[slot] for slot in slots},
        "settings": {slot: identity(each) for slot, each in settings.items()},
        "examples": {slot: source_of(each) for slot, each in settings.items()},
        "prose": prose_of(run.config.train, run.config.protect.kl_on),
        **{name: identity(getattr(run.config, name)) for name in ("lora", "protect")},
    }


def rebase(run: Run, registry: Registry, active: dict[str, str], folder: Path) -> list[TaskResult]:
    """Measure each active task above the candidate of a cycle in `folder`, as it is; where it has lost more than
    `gate.task_margin`, train it again above the candidate, and measure that.

    Records and trained adapters are written into `folder`; its `replay` is what they are trained with.
    """
    work = _Work(run, registry, folder)
    entries = _task_entries({slot: registry.entry(identity) for slot, identity in active.items()})
    work.names["personality"] = ("current", "candidate")
    work.folders.update(current=registry.path(active["personality"]), candidate=folder / "candidate")
    results = []
    for entry in sorted(entries.values(), key=lambda entry: len(entry.parents)):  # those below come first
        results.append(_rebased(work, entry))
        run.console.say(f"  {results[-1].sentence()}")
        if not results[-1].survives:
            break  # nothing of the cycle is promoted
    return results


@dataclass(frozen=True)
class _Work:
    """What has been measured and trained so far.

    Attributes:
        names: for each slot, the names under which its active adapter and its new one are loaded.
        folders: adapters by the names under which they are loaded.
        measured: records by measure and state.
    """

    run: Run
    registry: Registry
    folder: Path
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    measured: dict[tuple[str, State], Any] = field(default_factory=dict)


def _rebased(work: _Work, entry: Entry) -> TaskResult:
    former, retrained = f"former-{entry.slot}", f"new-{entry.slot}"
    above = {slot: card.read(work.folders[work.names[slot][1]]).weights_sha256 for slot in entry.parents}
    work.folders[former], work.names[entry.slot] = work.registry.path(entry.id), (former, former)
    verdict = _as_it_is(work, entry)
    reason = [f"as it is: {_words(verdict)}"]
    if verdict.promoted:
        return TaskResult(entry.slot, entry.id, KEPT, asdict(verdict), reason, above)
    try:
        work.folders[retrained] = _train_again(work, entry)
    except MoltError as error:
        return TaskResult(entry.slot, entry.id, LOST, asdict(verdict), [*reason, f"trained again: {error.what}"], above)
    work.names[entry.slot] = (former, retrained)
    verdict = _judge(work, entry, gates.TRAINED_AGAIN)
    outcome: Outcome = TRAINED_AGAIN if verdict.promoted else LOST
    reason += [f"trained again: {_words(verdict)}"]
    return TaskResult(entry.slot, entry.id, outcome, asdict(verdict), reason, above)


def _as_it_is(work: _Work, entry: Entry) -> gate.GateVerdict:
    """A task above the candidate, against it above what is active and above what it was trained above: small losses of
    many cycles would add up otherwise."""
    verdict, above = _judge(work, entry, gates.AS_IT_IS), []
    for slot, digest in entry.parents.items():
        identity = entry_id(slot, digest)
        work.folders[f"first-{slot}"] = work.registry.path(identity)
        above.append(identity)
    if above == [work.folders[work.names[slot][0]].name for slot in entry.parents]:
        return verdict  # it was trained above what is active
    if missing := [identity for identity in above if not work.registry.path(identity).is_dir()]:
        work.run.console.say(f"  {entry.slot} is not compared with what it was above {missing[0]}, which is gone.")
        return verdict
    trained = states.of(*(f"first-{slot}" for slot in entry.parents), work.names[entry.slot][0])
    since = _judge(work, entry, gates.AS_IT_IS, trained)
    checks = [replace(check, sentence=f"since it was trained, {check.sentence}") for check in since.checks]
    return gate.GateVerdict(verdict.promoted and since.promoted, [*verdict.checks, *checks])


def _judge(
    work: _Work,
    entry: Entry,
    criteria: Sequence[Callable[[GateConfig, gates.Evidence], gate.Criterion]],
    reference: State | None = None,
) -> gate.GateVerdict:
    """A task above the candidate against a reference; by default the active task above the active personality."""
    active, after = (states.of(*(work.names[slot][side] for slot in (*entry.parents, entry.slot))) for side in (0, 1))
    before = reference or active
    work.run.release()
    adapters = {str(each): work.folders[str(each)] for each in (*before.adapters, *after.adapters)}
    model, config = served(work.run, adapters), work.run.config.gate
    evidence = CycleEvidence(work.run, model, work.folder, before, after, entry.slot, work.measured)
    return gate.judge([make(config, evidence) for make in criteria], config.confidence)


def _train_again(work: _Work, entry: Entry) -> Path:
    """The folder of the task trained from its own data above what is new."""
    run, adapter = work.run, Adapter(entry.slot)
    settings, previous = layout.task_settings(run, adapter), layout.continued_from(run, adapter)
    below = {slot: work.folders[work.names[slot][1]] for slot in entry.parents}
    start = work.names.get(str(previous))
    replay = work.folder / "replay" if tasks.needs_replay(run, settings) else None
    target = work.folder / TASKS / entry.slot
    lesson = tasks.lesson_above(run, adapter, below, replay, work.folders[start[1]] if start else None)
    if settings.on_policy == "none":
        teaching.teach(run, lesson, target)
        return target
    first = target.with_name(f"{entry.slot}-first")
    teaching.teach(run, lesson, first)
    teaching.practise(run, tasks.lesson_above(run, adapter, below, replay, first), target)
    return target


def register(run: Run, registry: Registry, results: list[TaskResult], artifact: Artifact) -> dict[str, str]:
    """Note in the registry what became of the tasks in a cycle. A second call changes nothing.

    Returns:
        The ids by slot of those that survive.
    """
    adapters = {}
    for result in results:
        trained = artifact.folder / TASKS / result.slot
        if result.outcome == KEPT:
            registry.note_measured(result.id, result.above, result.verdict)
            adapters[result.slot] = result.id
        elif (trained / card.MANIFEST).is_file():
            lineage = origin.lineage_of(run, artifact, fingerprint(source_of(run.config.tasks[result.slot])))
            entry = registry.add(trained, result.verdict, result.id, lineage=lineage)
            adapters |= {result.slot: entry.id} if result.survives else {}
    return adapters


def _task_entries(active: dict[str, Entry]) -> dict[str, Entry]:
    return {slot: entry for slot, entry in active.items() if slot != "personality"}


def _words(verdict: gate.GateVerdict) -> str:
    return "; ".join(check.sentence for check in verdict.checks)
