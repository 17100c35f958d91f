"""The replay buffer of a run, and the next one from new conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from moltlm.data import coherence
from moltlm.data import pairs as pair_data
from moltlm.data import replay as buffers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.errors import BadInput
from moltlm.data.rows import fingerprint_rows
from moltlm.data.state import PERSONALITY, PERSONALITY_ADAPTER
from moltlm.data.types import Exchange
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import buffer as building
from moltlm.pipeline.stages import material
from moltlm.pipeline.stages.pairs import load_pairs, load_persona, pairs
from moltlm.pipeline.stages.personality import load_adapters, personality


@once_per_config
def buffer(run: Run) -> Artifact:
    """Choose the exchanges to replay, within a token budget. `molt replay build CONFIG`"""
    config, data, adapter = run.config, pairs(run), personality(run)
    inputs = {"personality": adapter.fingerprint, "replay": identity(config.replay), "seed": config.run.seed}

    def make(folder: Path) -> dict[str, Any]:
        model = load_adapters(run, {PERSONALITY_ADAPTER: adapter})
        exchanges = [pair_data.exchange_of(pair) for pair in load_pairs(data, "train")]
        if config.replay.answers == "own":
            exchanges = _own_answers(run, exchanges)
        batch = config.model.eval_batch_size
        with run.console.progress("replay buffer") as progress:
            return building.build(model, exchanges, config.replay, config.run.seed, batch, folder, progress)

    return run.do("replay", inputs, make)


def _own_answers(run: Run, exchanges: list[Exchange]) -> list[Exchange]:
    """The same prompts with the answers of the personality; incoherent answers, and those that the pair rejects, are
    dropped."""
    prompts, batch = [item.prompt for item in exchanges], run.config.model.eval_batch_size
    with run.console.progress("own answers") as progress, run.base.state(PERSONALITY):
        answers = run.base.generate(prompts, run.config.pairs.max_new_tokens, batch, progress)
    return [
        replace(item, answer=answer, rejected="")
        for item, answer in zip(exchanges, answers, strict=True)
        if answer.strip() != item.rejected.strip() and coherence.check(item.question, answer, 0.0, 1.0).coherent
    ]


def updated_buffer(run: Run, paths: list[Path]) -> Artifact:
    """Choose the next buffer from the present one and new conversations. `molt replay update CONFIG PATH...`"""
    from moltlm.data.conversations import importers

    config, report = run.config, ImportReport()
    if not paths:
        raise BadInput("No new conversations are named.", "Name some: molt replay update CONFIG conversations.jsonl")
    read = importers.read(paths, config.conversations, report, material.voice(load_persona(run)))
    exchanges = list(importers.require_any(read, report, paths))
    current = buffer(run)
    inputs = {"replay": current.fingerprint, "new": fingerprint_rows(exchanges)}

    def make(folder: Path) -> dict[str, Any]:
        batch, start = config.model.eval_batch_size, buffers.load(current.folder)
        with run.console.progress("replay buffer") as progress:
            model = load_adapters(run, {PERSONALITY_ADAPTER: personality(run)})
            facts = building.build(model, exchanges, config.replay, config.run.seed, batch, folder, progress, start)
        return {**facts, "conversations": report.facts()}

    return run.do("replay-update", inputs, make)
