"""The candidates of a cycle: one as configured, then one for each remedy, until one passes the gate."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import base
from moltlm.adapters import personality as trainer
from moltlm.data import filters
from moltlm.data import pairs as pair_data
from moltlm.data import state as states
from moltlm.data.io import write_json
from moltlm.data.types import Exchange, Pair
from moltlm.evals.gate import GateVerdict
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.evidence import CycleEvidence, served
from moltlm.pipeline.stages import material, pairs

CANDIDATE, FOLDER = "candidate", "attempts"
AS_CONFIGURED = "as configured"
WEAKER = 0.5
"""Strength of the change under the remedy `strength`."""


def _more_replay(config: Config) -> dict[str, Any]:
    return {"retrain.replay_ratio": (1 + config.retrain.replay_ratio) / 2}


def _more_kl(config: Config) -> dict[str, Any]:
    return {"dpo.kl_weight": max(0.5, 4 * config.dpo.kl_weight)}


def _distillation(config: Config) -> dict[str, Any]:
    return {"retrain.distill_weight": max(1.0, 4 * config.retrain.distill_weight)}


TRAININGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "replay": _more_replay,
    "kl": _more_kl,
    "distillation": _distillation,
}
"""The settings that a remedy changes. `strength` trains nothing: it weakens what was trained as configured."""


@dataclass(frozen=True)
class Start:
    """What all candidates of a cycle begin with.

    Attributes:
        current, anchor: folders of the personality in use and of the one that no retraining may drift from.
        look: the number of the first candidate among those judged against the anchor, but for those that passed.
        buffered: what can be replayed.
    """

    current: Path
    anchor: Path
    look: int
    buffered: list[Exchange]
    new_exchanges: list[Exchange]


@dataclass(frozen=True)
class Attempt:
    """A candidate that was judged.

    Attributes:
        name: of its remedy, or AS_CONFIGURED.
        folder: of its weights, within that of the cycle.
        look: its number among those judged against the anchor, but for those that passed.
        provenance: its pairs by where their rejected side is from; dropped: what the filters left out.
    """

    name: str
    folder: str
    look: int
    verdict: dict[str, Any]
    provenance: dict[str, int]
    dropped: dict[str, int]


def attempt(run: Run, start: Start, folder: Path) -> list[Attempt]:
    """Train and judge candidates until one passes. The last one lies in `folder`, with its records; the others in
    folders of their own."""
    attempts: list[Attempt] = []
    measured: dict[Any, Any] = {}
    for place, name in enumerate([AS_CONFIGURED, *run.config.retrain.remedies]):
        if attempts:
            run.console.say(f"  not promoted {attempts[-1].name}: next remedy, {name}")
            attempts[-1] = _put_away(folder, attempts[-1])
        training_pairs, dropped = _make_candidate(run, start, name, folder, attempts)
        verdict = judge(run, start, start.look + place, folder, measured)
        counts = {"provenance": pairs.counted(training_pairs), "dropped": dropped}
        attempts.append(Attempt(name, CANDIDATE, start.look + place, asdict(verdict), **counts))
        if verdict.promoted:
            break
    write_json(folder / "verdict.json", attempts[-1].verdict)
    return attempts


def _make_candidate(
    run: Run, start: Start, name: str, folder: Path, before: list[Attempt]
) -> tuple[list[Pair], dict[str, int]]:
    """The candidate of a remedy; its pairs, and how many each filter dropped."""
    if name == "strength":
        run.release()
        trainer.weaken(start.current, folder / before[0].folder, folder / CANDIDATE, WEAKER)
        return [], {}
    changes = TRAININGS[name](run.config) if name in TRAININGS else {}
    with run.varied(vary(run.config, changes, "retrain.remedies") if changes else run.config):
        training_pairs, dropped = training_pairs_of(run, start.buffered, start.new_exchanges)
        train(run, training_pairs, start, folder / CANDIDATE)
    return training_pairs, dropped


def _put_away(folder: Path, failed: Attempt) -> Attempt:
    """Move a candidate that did not pass and its records out of the way of the next one."""
    inside = f"{FOLDER}/{failed.name}"
    (folder / inside).mkdir(parents=True)
    for path in [folder / CANDIDATE, *folder.glob(f"*_{CANDIDATE}.jsonl")]:
        shutil.move(path, folder / inside / path.name)
    write_json(folder / inside / "verdict.json", failed.verdict)
    return replace(failed, folder=f"{inside}/{CANDIDATE}")


def judge(run: Run, start: Start, look: int, folder: Path, measured: dict[Any, Any]) -> GateVerdict:
    """The gate on the candidate in `folder`, against the personality in use and the anchor.

    Args:
        measured: records of earlier candidates, of which those of the other states are used again.
    """
    adapters = {"current": start.current, CANDIDATE: folder / CANDIDATE}
    first = "current" if start.anchor == start.current else "anchor"
    adapters[first] = start.anchor
    candidate = states.of(CANDIDATE)
    for key in [key for key in measured if key[1] == candidate]:
        del measured[key]
    run.release()
    model = served(run, adapters)
    evidence = CycleEvidence(run, model, folder, states.of("current"), candidate, measured=measured)
    return gates.judge_evidence(run.config.gate, evidence, replace(evidence, before=states.of(first)), look)


def train(run: Run, training_pairs: list[Pair], start: Start, candidate: Path) -> None:
    """Continue the personality in use on the pairs, into `candidate`."""
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
                start=start.current,
                replay=start.buffered,
                distill_weight=config.retrain.distill_weight,
            )
        )


def training_pairs_of(
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
