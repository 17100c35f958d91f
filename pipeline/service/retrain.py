"""One maintenance cycle: a candidate is trained on new conversations, judged, and promoted if it passes the gate."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import base, card
from moltlm.adapters import personality as trainer
from moltlm.data import filters, replay
from moltlm.data import pairs as pair_data
from moltlm.data import state as states
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_file, write_json
from moltlm.data.rows import fingerprint_rows, write_rows
from moltlm.data.types import Exchange, Pair
from moltlm.evals.gate import GateVerdict
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Run, read_artifact
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service import new_conversations, origin, rebase
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.cycles import FINISHED, NOT_PROMOTED, OUTDATED, PROMOTED
from moltlm.pipeline.service.evidence import CycleEvidence, served
from moltlm.pipeline.service.rebase import TaskResult
from moltlm.pipeline.service.registry import Outdated, Registry
from moltlm.pipeline.stages import material, measures, pairs
from moltlm.pipeline.typed_json import from_plain


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
        """The id of the active personality."""
        return self.bundle.get("personality")

    @property
    def active(self) -> dict[str, str]:
        """The active ids by slot."""
        return self.bundle.adapters


def cycle(run: Run, passed_over: dict[str, str] | None = None) -> Artifact | None:
    """Train a candidate from the active personality on new conversations and replay, judge it and the active tasks
    above it, and promote all of them only if they pass the gate. `molt retrain CONFIG`

    Args:
        passed_over: is filled with the files of conversations that could not be read, and why.

    Returns:
        None when there are too few new exchanges. The same conversations are never trained on twice.

    Raises:
        BadInput: if no personality is active, or an active task cannot be measured.
    """
    config = run.config
    registry = Registry(config.registry.folder)
    interrupted = _conclude_interrupted(run, registry)
    bundle = registry.bundle()
    if "personality" not in bundle.adapters:
        raise BadInput(
            "No personality is active yet, so there is nothing to retrain.",
            "Train one: molt run CONFIG   or put one into use: molt registry promote ID CONFIG",
        )
    run.fixed = origin.origin(run, bundle.get("personality"))
    dropped: dict[str, int] = {}
    new_exchanges = new_conversations.unseen_exchanges(run, dropped, {} if passed_over is None else passed_over)
    if len(new_exchanges) >= config.retrain.min_new:  # only then is the model needed
        card.check_base(registry.path(bundle.get("personality")), run.base)
        new_exchanges = new_conversations.usable(run, new_exchanges, dropped)
    if len(new_exchanges) < config.retrain.min_new:
        run.console.say(
            f"{len(new_exchanges)} new exchanges in {config.retrain.conversations}, fewer than retrain.min_new="
            f"{config.retrain.min_new}: nothing to do."
        )
        return interrupted
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
    """Train and judge a candidate and, if it passes, the active tasks above it."""
    buffer, candidate = origin.buffer_of(run, job.bundle), folder / "candidate"
    training_pairs, filtered = _training_pairs(run, replay.load(buffer).exchanges, job.new_exchanges)
    _train(run, training_pairs, job.registry.path(job.current), candidate)
    verdict = _judge(run, job, folder)
    write_json(folder / "verdict.json", asdict(verdict))
    write_rows(folder / "new.jsonl", job.new_exchanges)
    task_results: list[TaskResult] = []
    if verdict.promoted:
        origin.next_buffer(run, buffer, job.new_exchanges, candidate, folder / "replay")
        task_results = rebase.rebase(run, job.registry, job.active, folder)
    return {
        "active": job.active,
        "current": job.current,
        "anchor": job.anchor,
        "data": fingerprint_rows(job.new_exchanges),
        "new_exchanges": len(job.new_exchanges),
        "provenance": pairs.counted(training_pairs),
        "dropped": dict(Counter(job.dropped) + Counter(filtered)),
        "verdict": asdict(verdict),
        "tasks": [asdict(result) for result in task_results],
        "promoted": verdict.promoted and all(result.survives for result in task_results),
    }


def _judge(run: Run, job: CycleJob, folder: Path) -> GateVerdict:
    """The gate on the candidate in `folder`, against the active personality and the anchor."""
    adapters = {"current": job.registry.path(job.current), "candidate": folder / "candidate"}
    first = "current" if job.anchor == job.current else "anchor"
    adapters[first] = job.registry.path(job.anchor)
    run.release()
    evidence = CycleEvidence(run, served(run, adapters), folder, states.of("current"), states.of("candidate"))
    return gates.judge_evidence(run.config.gate, evidence, replace(evidence, before=states.of(first)), job.look)


def task_results(facts: Mapping[str, Any]) -> list[TaskResult]:
    """What became of the active tasks in a cycle."""
    return from_plain(facts["tasks"], list[TaskResult])


def _conclude(run: Run, registry: Registry, artifact: Artifact) -> None:
    """Register the candidate of a cycle and the tasks above it, promote all of them if all passed, and note that the
    cycle is finished. A second call changes nothing.

    Raises:
        Outdated: all passed, but what they were judged against is not active any more.
    """
    facts, results, current = artifact.facts, task_results(artifact.facts), artifact.facts["current"]
    lineage, action = origin.lineage_of(run, artifact, facts["data"], current), f"retrain {artifact.fingerprint}"
    entry = registry.add(artifact.folder / "candidate", facts["verdict"], current, facts["anchor"], lineage)
    adapters = {"personality": entry.id} | rebase.register(run, registry, results, artifact)
    outcome = PROMOTED if facts["promoted"] else NOT_PROMOTED
    try:
        if facts["promoted"] and not registry.was_in_use(entry.id):
            buffer = origin.buffer_id(artifact.folder / "replay")
            registry.switch(adapters, replaces=facts["active"], action=action, buffer=buffer)
        elif not facts["promoted"]:
            registry.keep_out(adapters, f"keep out {action}", _why_not(facts["verdict"], results))
    except Outdated as error:
        outcome = OUTDATED
        registry.keep_out(adapters, f"keep out {action}", error.what)  # one look at the anchor set more
        raise
    finally:
        write_json(artifact.folder / FINISHED, {"candidate": entry.id, "outcome": outcome})


def _why_not(verdict: dict[str, Any], results: list[TaskResult]) -> str:
    """Why a candidate is kept out: the criteria that it does not meet, or the tasks that would be lost."""
    missed = [check["sentence"] for check in verdict["checks"] if check["outcome"] != "pass"]
    return "; ".join([*missed, *(result.sentence() for result in results if not result.survives)])


def _conclude_interrupted(run: Run, registry: Registry) -> Artifact | None:
    """Conclude the cycles that were stopped between their verdict and their end; the last of them, if any."""
    last = None
    for folder in run.stored("retrain"):
        if (folder / FINISHED).is_file():
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
    """What a cycle depends on: what is active, the new exchanges, settings and what is replayed."""
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
        **{name: identity(getattr(config, name)) for name in ("train", "dpo", "persona_eval", "capability", "gate")},
    }


def _train(run: Run, training_pairs: list[Pair], start: Path, candidate: Path) -> None:
    """Continue the active personality in `start` on the pairs, into `candidate`."""
    run.release()
    config, settings = run.config, run.config.adapters()
    changes = {
        "method": "dpo",
        "parameters": "lora",
        "steps": config.retrain.steps,
        "learning_rate": config.retrain.learning_rate,
    }
    personality = settings.personality.model_copy(update=changes)
    with run.console.progress("candidate") as progress:
        trainer.train_personality(
            trainer.PersonalityJob(
                config=settings.model_copy(update={"personality": personality}),
                base=base.load(config.model),
                folder=candidate,
                seed=config.run.seed,
                progress=progress,
                pairs=training_pairs,
                references=run.references,
                neutral=pairs.load_exchanges(pairs.pairs(run), "neutral_train"),
                start=start,
            )
        )


def _training_pairs(
    run: Run, buffered: list[Exchange], new_exchanges: list[Exchange]
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of the new exchanges, and of as many from the replay buffer as make `replay_ratio` of the whole; and how
    many each filter dropped. What a new correction refutes is not replayed."""
    config = run.config
    ratio = config.retrain.replay_ratio
    count = min(len(buffered), round(len(new_exchanges) * ratio / (1 - ratio)))
    replayed = random.Random(config.run.seed).sample(buffered, count)
    replayed, _ = pair_data.without_refuted(replayed, later=new_exchanges)
    rows = [*new_exchanges, *replayed]
    with run.console.progress("rejected side") as progress:
        drafts = pair_data.build(rows, run.base, config.pairs, config.model.eval_batch_size, progress, base_answers=0)
    margins = material.margins(run, pairs.load_persona(run), rows, [pair.id for pair in drafts])
    filtered, report = filters.apply(drafts, config.filters, margins)
    return filtered, report.dropped
