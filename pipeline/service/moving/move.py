"""Carry a personality and its tasks to another base: answers, pairs, training, proof, tasks, registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint
from moltlm.data.state import Adapter
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import bundles, in_use, origin
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.moving import carry, proof
from moltlm.pipeline.service.moving import tasks as moved_tasks
from moltlm.pipeline.service.rebase import TaskResult
from moltlm.pipeline.service.registry import Outdated, Registry
from moltlm.pipeline.stages import measures, pairs, personality, tasks


@dataclass(frozen=True)
class Move:
    """A bundle, the run that it is of, and the configuration on the new base.

    Attributes:
        old: serves the bundle; its pairs are those that the personality began with.
        target: the configuration on the new base, without what is carried.
    """

    old: Run
    registry: Registry
    bundle: Bundle
    target: Config

    @property
    def former(self) -> str:
        """The id of the personality."""
        return self.bundle.get("personality")


@dataclass
class Outcome:
    """How a move ended.

    Attributes:
        config: the configuration on the new base, with what is carried.
        carried: facts about what was carried.
        distilled: whether the former distributions were part of the training, and not only its answers.
        tasks: what became of each task with data.
        left_behind: tasks that cannot be trained again, and why.
    """

    id: str
    promoted: bool
    config: Config
    carried: dict[str, Any]
    distilled: bool
    proof: dict[str, Any]
    tasks: list[TaskResult] = field(default_factory=list)
    left_behind: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For a reader."""
        facts, figures = self.carried, self.proof["figures"]
        teacher = "answers and distributions" if self.distilled else "answers"
        lines = [
            f"carried: {facts['own_answers']} own answers to {facts['prompts']} prompts, {facts['learned']} others",
            f"the teacher was the former one, by its {teacher}",
            f"measured on {self.proof['prompts']} held-out prompts, both sides by {self.proof['ruler']}",
            *(f"  {name}: {_listed(figures[name])}" for name in ("former", "moved", "new base")),
            f"  its answers are taken for: {_listed(figures['recognised'])}",
        ]
        checks = self.proof["verdict"]["checks"]
        lines += [f"  {check['outcome']:<10} {check['sentence']}" for check in checks]
        lines += [f"  {note}" for note in self.proof["notes"]]
        lines += [f"  {result.sentence()}" for result in self.tasks]
        return [*lines, *(f"  left behind: {slot}: {why}" for slot, why in self.left_behind.items())]


def _listed(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in values.items())


def begin(old: Run, target: Config, name: str) -> Move:
    """Look whether it can be moved; no model is loaded.

    Args:
        name: of the bundle; `current` is what is in use.

    Raises:
        BadInput: if the name stands for no bundle with a personality on the base of the old run, or the new base is the
            same.
    """
    registry = Registry(old.config.registry.folder)
    bundle = registry.resolve(name)
    if not isinstance(bundle, Bundle) or not bundle.get("personality"):
        raise BadInput(
            f"{name} is no bundle with a personality, so there is nothing to move.",
            "See what there is: molt registry list CONFIG",
        )
    if bundle.base != old.config.model.id:
        raise BadInput(
            f"{bundle.id} is on {bundle.base}, and this configuration on {old.config.model.id}.",
            f"Name the configuration that belongs to it, or: model.id={bundle.base}",
        )
    if target.model.id == old.config.model.id:
        raise BadInput(f"{bundle.id} is on {bundle.base} already.", "Name another model: molt move CONFIG MODEL")
    old.fixed = origin.origin(old, bundle.get("personality"))
    in_use.put(old, registry, bundle.adapters)
    measures.check(old)
    return Move(old, registry, bundle, target)


def move(job: Move, before_training: Callable[[Config], None] = lambda config: None) -> Outcome:
    """Carry, train, prove, and put into use what passes. A move that was stopped goes on where it was.

    Args:
        before_training: is called with the configuration on the new base; it may refuse it.

    Raises:
        Outdated: all passed, but what was moved is not in use any more.
    """
    carried, config = _carried(job)
    before_training(config)
    with opened(config, job.old.console) as new:
        artifact = personality.personality(new)
        new.release()
        digest = card.read(artifact.folder).base_digest
        evidence = proof.prove(job.old, new, job.former, _look(job, digest, artifact))
        outcome = Outcome(
            "",
            evidence.facts["verdict"]["promoted"],
            config,
            carried.facts,
            config.dpo.distill_weight > 0,
            evidence.facts,
            left_behind=moved_tasks.left_behind(new, job.bundle),
        )
        if outcome.promoted:
            outcome.tasks = moved_tasks.train_again(job.old, new, job.bundle)
            outcome.promoted = all(result.survives for result in outcome.tasks)
        _conclude(job, new, artifact, evidence, outcome)
    return outcome


def _look(job: Move, digest: str, artifact: Artifact) -> int:
    """The number of this candidate among those that were moved to this base; one that was judged before has the number
    that it had."""
    history = job.registry.history()
    weights = card.read(artifact.folder).weights_sha256[:10]
    for place, change in enumerate(history):
        if change.candidate and change.candidate.get("personality").endswith(weights):
            return bundles.look(history[:place], digest)
    return bundles.look(history, digest)


def _carried(job: Move) -> tuple[Artifact, Config]:
    """What is carried, stored in the new run, and the configuration that takes it up."""
    with opened(job.target, job.old.console) as store:
        carried = carry.carry(job.old, store, job.bundle)
    job.old.release()
    changes: dict[str, Any] = {"persona.carried": str(carried.folder)}
    if carried.facts["distributions"]:
        changes["dpo.distill_weight"] = job.target.move.distill_weight
    return carried, vary(job.target, changes, "molt move")


def _conclude(job: Move, new: Run, artifact: Artifact, evidence: Artifact, outcome: Outcome) -> None:
    """Register the personality and its tasks, and put them into use if all passed. A second call changes nothing."""
    registry, action = job.registry, f"move {evidence.fingerprint}"
    lineage = origin.lineage_of(new, artifact, pairs.pairs(new).fingerprint, moved_from=job.former)
    entry = registry.add(artifact.folder, evidence.facts["verdict"], job.former, lineage=lineage)
    adapters = {"personality": entry.id} | _registered(job, new, outcome.tasks)
    outcome.id = entry.id
    try:
        if outcome.promoted and not registry.was_in_use(entry.id):
            fix = f"Put it into use all the same: molt registry promote {entry.id} CONFIG"
            registry.switch(adapters, replaces=job.bundle.adapters, action=action, fix=fix)
        elif not outcome.promoted:
            registry.keep_out(adapters, f"keep out {action}", _why_not(outcome))
    except Outdated as error:
        registry.keep_out(adapters, f"keep out {action}", error.what)
        raise


def _registered(job: Move, new: Run, results: list[TaskResult]) -> dict[str, str]:
    """Add the tasks to the registry. Returns the ids by slot of those that survive."""
    adapters = {}
    for result in results:
        if not result.verdict:
            continue  # it could not be trained
        artifact = tasks.trained(new, Adapter(result.slot))
        data = fingerprint(pairs.source_of(new.config.tasks[result.slot]))
        lineage = origin.lineage_of(new, artifact, data, moved_from=result.id)
        entry = job.registry.add(artifact.folder, result.verdict, result.id, lineage=lineage)
        adapters |= {result.slot: entry.id} if result.survives else {}
    return adapters


def _why_not(outcome: Outcome) -> str:
    missed = [check["sentence"] for check in outcome.proof["verdict"]["checks"] if check["outcome"] != "pass"]
    return "; ".join([*missed, *(result.sentence() for result in outcome.tasks if not result.survives)])


@contextmanager
def opened(config: Config, console: Console) -> Iterator[Run]:
    """A run, closed at the end."""
    with closing(Run(config, console)) as run:
        yield run
