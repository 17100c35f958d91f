"""One maintenance cycle: new conversations in, a candidate out, judged against what is in use, promoted or kept out."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.adapters import base, card, personality
from moltlm.adapters.serve import Served
from moltlm.data import filters, leakage, replay
from moltlm.data import pairs as pair_data
from moltlm.data import state as states
from moltlm.data.conversations import importers
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file, write_json, write_jsonl
from moltlm.data.rows import fingerprint_rows, read_rows, write_rows
from moltlm.data.types import Exchange, Pair
from moltlm.evals import capability as capability_eval
from moltlm.evals import gate
from moltlm.evals import persona as persona_eval
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import buffer as buffers
from moltlm.pipeline.stages import material, pairs
from moltlm.pipeline.stages import replay as replay_stage

FINISHED = "finished.json"


def cycle(run: Run) -> Artifact | None:
    """Train a candidate from the personality in use on new conversations and replay, judge it, and promote it only if
    it is non-inferior. None when there is too little that is new: the same conversations are never trained on twice.
    `molt retrain CONFIG`"""
    config = run.config
    registry = Registry(config.registry.folder)
    current = registry.current().get("personality")
    if current is None:
        raise BadInput(
            "No personality is in use yet, so there is nothing to retrain.",
            "Make one: molt run CONFIG   or put one into use: molt registry promote ID",
        )
    known, report = _already_seen(run), importers.ImportReport()
    voice = material.voice(pairs.load_persona(run))
    read = importers.read([config.retrain.conversations], config.conversations, report, voice)
    unseen = (item for item in read if _key(item) not in known)
    fresh = material.drawn(unseen, config.conversations.limit, config.run.seed)
    dropped = dict(report.dropped)
    if len(fresh) >= config.retrain.min_new:  # only then is the model needed
        card.check_base(registry.path(current), run.base.digest)
        fresh = _usable(run, fresh, dropped)
    if len(fresh) < config.retrain.min_new:
        run.console.say(
            f"{len(fresh)} new exchanges in {config.retrain.conversations}, fewer than retrain.min_new="
            f"{config.retrain.min_new}: nothing to do."
        )
        return None
    data = pairs.pairs(run)
    inputs = {
        "current": current,
        "new": fingerprint_rows(fresh),
        "retrain": identity(config.retrain),
        "pairs": data.fingerprint,
        "replay": sha256_file(_buffer(run, current) / replay.MANIFEST),
        "batch_size": config.personality.batch_size,
        "seed": config.run.seed,
        **{name: identity(getattr(config, name)) for name in ("train", "dpo", "persona_eval", "capability", "gate")},
    }

    def make(folder: Path) -> dict[str, Any]:
        mixed = _training_pairs(run, replay.load(_buffer(run, current)).exchanges, fresh)
        candidate = folder / "candidate"
        run.release()
        settings = config.adapters()
        settings = settings.model_copy(
            update={
                "personality": settings.personality.model_copy(
                    update={
                        "method": "dpo",
                        "parameters": "lora",
                        "steps": config.retrain.steps,
                        "learning_rate": config.retrain.learning_rate,
                    }
                )
            }
        )
        with run.console.progress("candidate") as progress:
            personality.train_personality(
                personality.PersonalityJob(
                    config=settings,
                    base=base.load(config.model),
                    folder=candidate,
                    seed=config.run.seed,
                    progress=progress,
                    pairs=mixed,
                    neutral=pairs.load_exchanges(data, "neutral_train"),
                    start=registry.path(current),
                )
            )
        verdict = asdict(_judge(run, data, registry.path(current), candidate, folder))
        write_json(folder / "verdict.json", verdict)
        write_rows(folder / "new.jsonl", fresh)
        if verdict["promoted"]:
            _next_buffer(run, _buffer(run, current), fresh, candidate, folder / "replay")
        return {"current": current, "new_exchanges": len(fresh), "dropped": dropped, "verdict": verdict}

    artifact = run.do("retrain", inputs, make)
    entry = registry.add(artifact.folder / "candidate", artifact.facts["verdict"])
    if artifact.facts["verdict"]["promoted"]:
        for task in registry.promote(entry.id):
            run.console.say(f"{task} is not in use any more: it was trained above the former personality.")
    write_json(artifact.folder / FINISHED, {"candidate": entry.id})
    return artifact


def _usable(run: Run, fresh: list[Exchange], dropped: dict[str, int]) -> list[Exchange]:
    """What is short enough, and not near to a prompt that the candidate will be judged on. Counts the rest."""
    limit = run.config.pairs.max_prompt_tokens
    fitting = [item for item in fresh if pair_data.prompt_tokens(item, run.base.tokenizer) <= limit]
    dropped[f"prompt over {limit} tokens"] = len(fresh) - len(fitting)
    questions = [item.question for item in fitting]
    heldout = [pair.question for pair in pairs.load_pairs(pairs.pairs(run), "heldout")]
    near = {leak.first for leak in leakage.leaks(questions, heldout, run.base.embed, run.config.filters.near)}
    dropped["too near to a held-out prompt"] = len(near)
    return [item for place, item in enumerate(fitting) if place not in near]


def _training_pairs(run: Run, kept: list[Exchange], fresh: list[Exchange]) -> list[Pair]:
    """Pairs of what is new, and of as much from the replay buffer as makes `replay_ratio` of the whole."""
    config = run.config
    ratio = config.retrain.replay_ratio
    wanted = min(len(kept), round(len(fresh) * ratio / (1 - ratio)))
    rows = [*fresh, *random.Random(config.run.seed).sample(kept, wanted)]
    with run.console.progress("rejected side") as progress:
        drafts = pair_data.build(rows, run.base, config.pairs, config.model.eval_batch_size, progress)
    return filters.apply(drafts, config.filters)[0]


def _buffer(run: Run, current: str) -> Path:
    """The replay buffer of the personality in use: that of the cycle which made it, or else of the run."""
    for done in run.folder.glob(f"retrain/*/{FINISHED}"):
        if read_json(done)["candidate"] == current and (done.parent / "replay").is_dir():
            return done.parent / "replay"
    return replay_stage.buffer(run).folder


def _next_buffer(run: Run, before: Path, fresh: list[Exchange], candidate: Path, folder: Path) -> None:
    """What was kept, and the new, weighed by the personality that is about to be used."""
    config = run.config
    run.release()
    served = Served(base.load(config.model))
    served.load("personality", candidate)
    with run.console.progress("replay buffer") as progress:
        batch = config.model.eval_batch_size
        buffers.build(served, fresh, config.replay, config.run.seed, batch, folder, progress, replay.load(before))


def _judge(run: Run, data: Artifact, current: Path, candidate: Path, folder: Path) -> gate.GateVerdict:
    """Both adapters on the same items, then the gate."""
    config = run.config
    run.release()
    served = Served(base.load(config.model))
    served.load("current", current)
    served.load("candidate", candidate)
    classifier, heldout = pairs.classifier(run), pairs.load_pairs(data, "heldout")
    found: dict[str, Any] = {}
    for name in ("current", "candidate"):
        state = states.of(name)
        with run.console.progress(f"judging {state}") as progress:
            found[f"persona_{name}"] = persona_eval.evaluate(
                served,
                state,
                heldout,
                classifier,
                data.facts["nll_limit"],
                config.persona_eval,
                config.model.eval_batch_size,
                progress,
            )
            with served.state(state):
                found[f"capability_{name}"] = capability_eval.evaluate(
                    served, config.capability.items, config.capability.batch_size, config.run.seed, progress
                )
    for name, records in found.items():
        write_jsonl(folder / f"{name}.jsonl", records)
    return gates.judge_records(
        run,
        (found["persona_current"], found["persona_candidate"]),
        (found["capability_current"], found["capability_candidate"]),
    )


def _already_seen(run: Run) -> set[str]:
    """Keys of the exchanges that an earlier cycle finished with, whether its candidate was promoted or not. One that
    was interrupted is not finished: the same cycle goes on from there."""
    done = run.folder.glob(f"retrain/*/{FINISHED}")
    return {_key(item) for file in done for item in read_rows(file.with_name("new.jsonl"), Exchange)}


def _key(item: Exchange) -> str:
    return fingerprint([item.prompt, item.answer])
