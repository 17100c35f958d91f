"""One maintenance cycle: a candidate is trained on new conversations, judged, and promoted if it passes the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moltlm.adapters import card
from moltlm.data import replay
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_file, utc_now
from moltlm.data.rows import fingerprint_rows, write_rows
from moltlm.data.types import Exchange
from moltlm.pipeline.artifact_files import FETCHED, FINISHED
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Run, read_artifact
from moltlm.pipeline.service import attempts, new_conversations, origin, rebase, screening
from moltlm.pipeline.service.attempts import CANDIDATE, Start
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.cycles import NOT_PROMOTED, OUTDATED, PROMOTED, Cycle, finish
from moltlm.pipeline.service.rebase import TaskResult
from moltlm.pipeline.service.registry import Entry, Outdated, Registry
from moltlm.pipeline.stages import measures, pairs
from moltlm.pipeline.typed_json import from_plain

SECTIONS = ("train", "dpo", "persona_eval", "capability", "agent", "gate")
"""Sections all of whose settings a cycle depends on."""


@dataclass(frozen=True)
class CycleJob:
    """What a cycle starts from.

    Attributes:
        bundle: what is in use.
        anchor: the id of the personality that no retraining may drift from.
        look: the number of this candidate among those judged against it, but for those that passed.
        dropped: counts of conversations that are left out, by reason.
    """

    registry: Registry
    bundle: Bundle
    anchor: str
    look: int
    new_exchanges: list[Exchange]
    dropped: dict[str, int]

    @property
    def current(self) -> str:
        """The id of the personality in use."""
        return self.bundle.get("personality")

    @property
    def active(self) -> dict[str, str]:
        """The ids in use by slot."""
        return self.bundle.adapters


def cycle(run: Run, record: Cycle | None = None) -> Artifact | None:
    """Train a candidate from the personality in use on new conversations and replay, judge it and the tasks in use
    above it, and promote all of them only if they pass the gate. `molt retrain CONFIG`

    Args:
        record: is filled with the files of conversations that could not be read, and with what is set aside.

    Returns:
        None when there are too few new exchanges. The same conversations are never trained on twice.

    Raises:
        BadInput: if no personality is in use, or a task in use cannot be measured.
    """
    config = run.config
    registry = Registry(config.registry.folder)
    interrupted = _conclude_interrupted(run, registry)
    bundle = registry.bundle()
    if "personality" not in bundle.adapters:
        raise BadInput(
            "No personality is in use yet, so there is nothing to retrain.",
            "Train one: molt run CONFIG   or put one into use: molt registry promote ID CONFIG",
        )
    run.fixed = origin.origin(run, bundle.get("personality"))
    dropped: dict[str, int] = {}
    record = record or Cycle(utc_now())
    new_exchanges = new_conversations.unseen_exchanges(run, dropped, record.passed_over)
    if len(new_exchanges) >= config.retrain.min_new:  # only then is the model needed
        registry.adapter(registry.anchor())
        card.check_base(registry.adapter(bundle.get("personality")), run.base)
        new_exchanges = new_conversations.usable(run, new_exchanges, dropped)
        current = bundle.get("personality")
        new_exchanges, record.set_aside = screening.screen(run, current, registry.path(current), new_exchanges)
    if len(new_exchanges) < config.retrain.min_new:
        record.left_out = {reason: count for reason, count in dropped.items() if count}
        run.console.say(
            f"{len(new_exchanges)} new exchanges in {config.retrain.conversations}, fewer than retrain.min_new="
            f"{config.retrain.min_new}: nothing to do.{new_conversations.why_nothing(record.left_out)}"
        )
        return interrupted
    dropped.pop(new_conversations.LEARNED, None)
    measures.check(run)  # before anything is trained
    rebase.check(run, registry.active_entries())
    job = CycleJob(registry, bundle, registry.anchor(), registry.look(), new_exchanges, dropped)
    artifact = run.do("retrain", inputs_of(run, job), lambda folder: _make(run, job, folder))
    for reason, count in artifact.facts["dropped"].items():
        if count:
            run.console.say(f"  left out: {count} {reason}")
    _conclude(run, registry, artifact)
    return artifact


def _make(run: Run, job: CycleJob, folder: Path) -> dict[str, Any]:
    """Train and judge candidates and, if one passes, the tasks in use above it."""
    buffer = origin.buffer_of(run, job.bundle)
    write_rows(folder / origin.NEW, job.new_exchanges)
    first, current = (job.registry.path(identity) for identity in (job.anchor, job.current))
    start = Start(current, first, job.look, replay.load(buffer).exchanges, job.new_exchanges)
    tried = attempts.attempt(run, start, folder)
    last = tried[-1]
    task_results: list[TaskResult] = []
    if last.verdict["promoted"]:
        origin.next_buffer(run, buffer, job.new_exchanges, folder / CANDIDATE, folder / "replay")
        task_results = rebase.rebase(run, job.registry, job.active, folder)
    return {
        "active": job.active,
        "current": job.current,
        "anchor": job.anchor,
        "data": fingerprint_rows(job.new_exchanges),
        "new_exchanges": len(job.new_exchanges),
        "provenance": tried[0].provenance,
        "dropped": dict(Counter(job.dropped) + Counter(tried[0].dropped)),
        "verdict": last.verdict,
        "attempts": [asdict(each) for each in tried],
        "tasks": [asdict(result) for result in task_results],
        "promoted": last.verdict["promoted"] and all(result.survives for result in task_results),
    }


def task_results(facts: Mapping[str, Any]) -> list[TaskResult]:
    """What became of the tasks in use in a cycle."""
    return from_plain(facts["tasks"], list[TaskResult])


def _conclude(run: Run, registry: Registry, artifact: Artifact) -> None:
    """Register the candidate of a cycle and the tasks above it, promote all of them if all passed, and note that the
    cycle is finished. A second call changes nothing, and goes on where the first one failed.

    Raises:
        Outdated: all passed, but what they were judged against is not in use any more.
    """
    facts, results = artifact.facts, task_results(artifact.facts)
    action = f"retrain {artifact.fingerprint}"
    *failed, entry = _registered(run, registry, artifact)
    for each in failed:
        registry.keep_out({"personality": each.id}, f"keep out {action}", _why_not(each.verdict, []))
    adapters = {"personality": entry.id} | rebase.register(run, registry, results, artifact)
    names = _names(entry, failed)
    try:
        if facts["promoted"] and not registry.was_in_use(entry.id):
            buffer = origin.buffer_id(artifact.folder / "replay")
            registry.switch(adapters, replaces=facts["active"], action=action, buffer=buffer)
        elif not facts["promoted"]:
            registry.keep_out(adapters, f"keep out {action}", _why_not(facts["verdict"], results))
    except Outdated as error:
        registry.keep_out(adapters, f"keep out {action}", error.what)  # one look at the anchor set more
        finish(artifact.folder, names, OUTDATED)
        raise
    finish(artifact.folder, names, PROMOTED if facts["promoted"] else NOT_PROMOTED)


def _registered(run: Run, registry: Registry, artifact: Artifact) -> list[Entry]:
    """The entries of all candidates of a cycle, in the order in which they were judged."""
    facts, current = artifact.facts, artifact.facts["current"]
    lineage = origin.lineage_of(run, artifact, facts["data"], current)
    return [
        registry.add(artifact.folder / each["folder"], each["verdict"], current, facts["anchor"], lineage)
        for each in facts["attempts"]
    ]


def _names(entry: Entry, failed: list[Entry]) -> dict[str, Any]:
    """The candidates of a cycle, as its FINISHED file has them."""
    return {"candidate": entry.id, "before_it": [each.id for each in failed]}


def _why_not(verdict: dict[str, Any], results: list[TaskResult]) -> str:
    """Why a candidate is kept out: the criteria that it does not meet, or the tasks that would be lost."""
    missed = [check["sentence"] for check in verdict["checks"] if check["outcome"] != "pass"]
    return "; ".join([*missed, *(result.sentence() for result in results if not result.survives)])


def _conclude_interrupted(run: Run, registry: Registry) -> Artifact | None:
    """Conclude the cycles of this machine that were stopped between their verdict and their end; the last of them, if
    any. One of another machine has ended there, and this one's registry may have something else in use."""
    last = None
    for folder in run.stored("retrain"):
        if (folder / FINISHED).is_file() or (folder / FETCHED).is_file():
            continue
        run.start_writing()
        if (folder / FINISHED).is_file():  # another command has concluded it until the lock was free
            continue
        artifact = read_artifact(folder)
        try:
            _conclude(run, registry, artifact)
            run.console.say(f"The cycle {folder.name} had been interrupted, and is concluded now.")
            last = artifact
        except Outdated as error:
            run.console.say(f"The interrupted cycle {folder.name} is not used: {error.what}")
    return last


def inputs_of(run: Run, job: CycleJob) -> dict[str, Any]:
    """What a cycle depends on: what is in use, the new exchanges, settings and what is replayed."""
    config = run.config
    return {
        "current": job.current,
        "anchor": job.anchor,
        "look": job.look,
        "tasks": rebase.inputs_of(run, job.active),
        "new": fingerprint_rows(job.new_exchanges),
        "retrain": identity(config.retrain),
        "pairs": pairs.pairs(run).fingerprint,
        "replay": sha256_file(origin.buffer_of(run, job.bundle) / replay.MANIFEST),
        "batch_size": config.personality.batch_size,
        "seed": config.run.seed,
        "prose": prose_of(config.train, config.dpo.kl_on),
        **measures.profile_inputs(run),
        **{name: identity(getattr(config, name)) for name in SECTIONS},
    }
