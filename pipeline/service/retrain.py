"""One maintenance cycle: a candidate is trained on new conversations, judged, and promoted if it passes the gate."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import base, card
from moltlm.adapters import personality as trainer
from moltlm.adapters.serve import Served
from moltlm.data import filters, replay
from moltlm.data import pairs as pair_data
from moltlm.data import state as states
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport, lines
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file, write_json
from moltlm.data.rows import fingerprint_rows, read_rows, write_rows
from moltlm.data.state import State
from moltlm.data.types import Exchange, Pair, Progress
from moltlm.evals import capability as capability_eval
from moltlm.evals import persona as persona_eval
from moltlm.evals import profile as profile_eval
from moltlm.evals.records import ItemRecord, PersonaRecord, ProfileRecord, R, TaskRecord, write_records
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, read_artifact
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.registry import Outdated, Registry
from moltlm.pipeline.stages import buffer as buffers
from moltlm.pipeline.stages import material, measures, pairs
from moltlm.pipeline.stages import replay as replay_stage

FINISHED = "finished.json"
README = "README.md"  # `molt init` puts one beside the conversations
OUTDATED = "outdated"
"""The outcome of a cycle whose conversations are learned again, since what it was judged against was replaced."""
ANCHOR = "anchor"
REFUTED = "worse answer than another to the same prompt"


def cycle(run: Run, passed_over: dict[str, str] | None = None) -> Artifact | None:
    """Train a candidate from the active personality on new conversations and replay, judge it, and promote it only if
    it passes the gate. `molt retrain CONFIG`

    Args:
        passed_over: is filled with the files of conversations that could not be read, and why.

    Returns:
        None when there are too few new exchanges. The same conversations are never trained on twice.

    Raises:
        BadInput: if no personality is active.
    """
    config = run.config
    registry = Registry(config.registry.folder)
    interrupted = _conclude_interrupted(run, registry)
    current = registry.current().get("personality")
    if current is None:
        raise BadInput(
            "No personality is active yet, so there is nothing to retrain.",
            "Train one: molt run CONFIG   or activate one: molt registry promote ID",
        )
    anchor = registry.anchor()
    run.fixed = _origin(run, current)
    dropped: dict[str, int] = {}
    new_exchanges = _new_exchanges(run, dropped, {} if passed_over is None else passed_over)
    if len(new_exchanges) >= config.retrain.min_new:  # only then is the model needed
        card.check_base(registry.path(current), run.base)
        new_exchanges = _usable(run, new_exchanges, dropped)
    if len(new_exchanges) < config.retrain.min_new:
        run.console.say(
            f"{len(new_exchanges)} new exchanges in {config.retrain.conversations}, fewer than retrain.min_new="
            f"{config.retrain.min_new}: nothing to do."
        )
        return interrupted
    measures.check(run)  # before anything is trained

    def make(folder: Path) -> dict[str, Any]:
        buffer, candidate = _buffer(run, current), folder / "candidate"
        training_pairs, filtered = _training_pairs(run, replay.load(buffer).exchanges, new_exchanges)
        _train(run, training_pairs, registry.path(current), candidate)
        adapters = {"current": registry.path(current), "candidate": candidate}
        evidence = _evidence(run, adapters | ({ANCHOR: registry.path(anchor)} if anchor != current else {}), folder)
        anchored = replace(evidence, before=ANCHOR) if anchor != current else None
        verdict = gates.judge_evidence(config.gate, evidence, anchored)
        write_json(folder / "verdict.json", asdict(verdict))
        write_rows(folder / "new.jsonl", new_exchanges)
        if verdict.promoted:
            _next_buffer(run, buffer, new_exchanges, candidate, folder / "replay")
        facts = {
            "current": current,
            "new_exchanges": len(new_exchanges),
            "provenance": pairs.counted(training_pairs),
            "dropped": {**dropped, **filtered},
        }
        return {**facts, "verdict": asdict(verdict)}

    artifact = run.do("retrain", inputs_of(run, current, new_exchanges, anchor), make)
    left_out = {reason: count for reason, count in artifact.facts["dropped"].items() if count}
    for reason, count in left_out.items():
        run.console.say(f"  left out: {count} {reason}")
    _conclude(run, registry, artifact)
    return artifact


def _conclude(run: Run, registry: Registry, artifact: Artifact) -> None:
    """Register the candidate of a cycle, promote it if it passed, and note that the cycle is finished. A second call
    changes nothing.

    Raises:
        Outdated: the candidate passed, but what it was judged against is not active any more.
    """
    facts = artifact.facts
    entry = registry.add(artifact.folder / "candidate", facts["verdict"], facts["current"])
    outcome = "promoted" if facts["verdict"]["promoted"] else "not promoted"
    try:
        if facts["verdict"]["promoted"] and not registry.was_in_use(entry.id):
            for task in registry.promote(entry.id, replaces=facts["current"]):
                run.console.say(f"{task} is not active any more: it was trained above the former personality.")
    except Outdated:
        outcome = OUTDATED
        raise
    finally:
        write_json(artifact.folder / FINISHED, {"candidate": entry.id, "outcome": outcome})


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


def inputs_of(run: Run, current: str, new: list[Exchange], anchor: str = "") -> dict[str, Any]:
    """What a cycle depends on: the id of the active personality, the new exchanges, settings and what is replayed."""
    config = run.config
    return {
        "current": current,
        "anchor": anchor if anchor != current else None,
        "new": fingerprint_rows(new),
        "retrain": identity(config.retrain),
        "pairs": pairs.pairs(run).fingerprint,
        "replay": sha256_file(_buffer(run, current) / replay.MANIFEST),
        "batch_size": config.personality.batch_size,
        "seed": config.run.seed,
        **measures.profile_inputs(run),
        **{name: identity(getattr(config, name)) for name in ("train", "dpo", "persona_eval", "capability", "gate")},
    }


def _new_exchanges(run: Run, dropped: dict[str, int], passed_over: dict[str, str]) -> list[Exchange]:
    """A sample of the exchanges that no earlier cycle was trained on. Counts what the importer dropped, and names the
    files that it could not read. An empty folder holds none."""
    config, report = run.config, ImportReport()
    finished = {_key(item) for item in _finished(run)}
    if "pairs" in run.fixed:  # what `molt run` has learned from the same files
        learned = pairs.load_pairs(run.fixed["pairs"], "train")
        finished |= {_key(pair_data.exchange_of(pair)) for pair in learned}
    read = importers.read(
        [config.retrain.conversations], config.conversations, report, material.voice(pairs.load_persona(run))
    )
    folder = config.retrain.conversations
    if folder.is_dir() and not any(file.is_file() and file.name != README for file in folder.rglob("*")):
        return []
    unseen = (item for item in read if _key(item) not in finished)
    sampled = material.sample(unseen, config.conversations.limit, config.run.seed)
    for line in lines(report.facts()):
        run.console.say(f"  {line}")
    dropped.update(report.dropped)
    passed_over.update({name: why for name, why in report.skipped.items() if Path(name).name != README})
    return sampled


def _usable(run: Run, exchanges: list[Exchange], dropped: dict[str, int]) -> list[Exchange]:
    """Those that are short enough, and not near anything that is measured. Counts the rest."""
    limit = run.config.pairs.max_prompt_tokens
    exchanges, dropped[REFUTED] = pair_data.without_refuted(exchanges, earlier=_finished(run))
    fitting = [item for item in exchanges if pair_data.prompt_tokens(item, run.base.tokenizer) <= limit]
    dropped[f"prompt over {limit} tokens"] = len(exchanges) - len(fitting)
    within, _ = material.within_length(run, fitting)
    dropped[f"over {run.config.model.max_length} tokens"] = len(fitting) - len(within)
    heldout = [pair_data.exchange_of(pair) for pair in pairs.load_pairs(pairs.pairs(run), "heldout")]
    clean, leaked, unchecked = material.without_leaks(run, pairs.load_persona(run), within, heldout)
    dropped.update({f"too near to {name}": count for name, count in Counter(name for _, name in leaked).items()})
    if unchecked:
        run.console.say(f"  not compared with {', '.join(unchecked)}")
    return clean


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


def _origin(run: Run, current: str) -> dict[str, Artifact]:
    """The run's pairs, personality and replay buffer that the active personality began with, by stage; none where it
    comes from another folder. New files in `conversations.paths` would otherwise mean another personality, from
    scratch."""
    before = {}
    for finished in run.folder.glob(f"retrain/*/{FINISHED}"):
        before[read_json(finished)["candidate"]] = read_artifact(finished.parent).facts["current"]
    first = current
    while first in before:
        first = before.pop(first)
    for folder in run.stored("personality"):
        if f"personality-{read_json(folder / card.MANIFEST)['weights_sha256'][:10]}" == first:
            data = run.folder / "pairs" / read_json(folder / "inputs.json")["pairs"]
            origin = {"pairs": data, "personality": folder}
            replays = [
                path for path in run.stored("replay") if read_json(path / "inputs.json")["personality"] == folder.name
            ]
            origin |= {"replay": replays[-1]} if replays else {}
            return {stage: read_artifact(path) for stage, path in origin.items() if path.is_dir()}
    return {}


def _buffer(run: Run, current: str) -> Path:
    """The replay buffer of the active personality: of the cycle that trained it, or else of the run."""
    for finished in run.folder.glob(f"retrain/*/{FINISHED}"):
        if read_json(finished)["candidate"] == current and (finished.parent / "replay").is_dir():
            return finished.parent / "replay"
    return replay_stage.buffer(run).folder


def _next_buffer(run: Run, before: Path, new_exchanges: list[Exchange], candidate: Path, folder: Path) -> None:
    """The former buffer and the new exchanges, weighted by the personality that is about to be activated."""
    config = run.config
    run.release()
    served = Served(base.load(config.model))
    served.load("personality", candidate)
    former, batch = replay.load(before), config.model.eval_batch_size
    with run.console.progress("replay buffer") as progress:
        buffers.build(served, new_exchanges, config.replay, config.run.seed, batch, folder, progress, former)


def _evidence(run: Run, adapters: dict[str, Path], folder: Path) -> CycleEvidence:
    run.release()
    served = Served(base.load(run.config.model))
    for name, path in adapters.items():
        served.load(name, path)
    return CycleEvidence(run, served, folder)


@dataclass(frozen=True)
class CycleEvidence:
    """Measures the active personality, or the one named by `before`, and the candidate on the same items, each once,
    and writes the records into `folder`."""

    run: Run
    served: Served
    folder: Path
    before: str = "current"
    measured: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def skill(self) -> None:
        """A candidate has only to lose nothing."""
        return None

    def persona(self) -> gates.Sides[PersonaRecord]:
        run, data = self.run, pairs.pairs(self.run)
        heldout = pairs.load_pairs(data, "heldout")
        measure = measures.persona_measure(run)
        return self._sides(
            "persona", lambda state, progress: persona_eval.evaluate(self.served, state, heldout, measure, progress)
        )

    def capability(self) -> gates.Sides[ItemRecord]:
        config = self.run.config

        def measure(state: State, progress: Progress) -> list[ItemRecord]:
            with self.served.state(state):
                return capability_eval.evaluate(
                    self.served, config.capability.items, config.capability.batch_size, config.run.seed, progress
                )

        return self._sides("capability", measure)

    def task(self) -> gates.Sides[TaskRecord]:
        raise NotImplementedError("a candidate of retraining learns no task")

    def safe_requests(self) -> gates.Sides[ProfileRecord]:
        config = self.run.config
        requests = [request for request in measures.profile_material(self.run)[1] if request.safe]
        length, size = config.persona_eval.max_new_tokens, config.model.eval_batch_size
        return self._sides(
            "refusals",
            lambda state, progress: profile_eval.evaluate(self.served, state, [], requests, length, size, progress),
        )

    def _sides(self, name: str, measure: Callable[[State, Progress], list[R]]) -> gates.Sides[R]:
        adapters = (self.before, "candidate")
        for adapter in adapters:
            if (name, adapter) not in self.measured:
                state = states.of(adapter)
                with self.run.console.progress(f"{name} of {state}") as progress:
                    self.measured[name, adapter] = measure(state, progress)
                write_records(self.folder / f"{name}_{adapter}.jsonl", self.measured[name, adapter])
        return gates.Sides(*(self.measured[name, adapter] for adapter in adapters))


def _finished(run: Run) -> list[Exchange]:
    """The exchanges of earlier cycles that finished, whether the candidate was promoted or not. An interrupted cycle is
    not finished: the next call continues it."""
    finished = sorted(run.folder.glob(f"retrain/*/{FINISHED}"), key=lambda file: file.stat().st_mtime_ns)
    learned = (file for file in finished if read_json(file).get("outcome") != OUTDATED)
    return [item for file in learned for item in read_rows(file.with_name("new.jsonl"), Exchange)]


def _key(item: Exchange) -> str:
    """What is learned of an exchange, whatever earlier turns were left out of its prompt to fit."""
    return fingerprint([item.question, item.answer, item.rejected])
