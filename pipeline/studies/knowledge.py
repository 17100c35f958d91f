"""How much new knowledge an adapter takes before something is forgotten: facts are taught, capability is measured."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from moltlm.adapters import base, personality
from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.serve import TextModel
from moltlm.adapters.training import Measurements
from moltlm.data import facts as facts_data
from moltlm.data.io import write_json
from moltlm.data.types import Exchange, Pair
from moltlm.evals import capability
from moltlm.evals import knowledge as judge
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.stages import pairs
from moltlm.pipeline.studies.checkpoint import BATCH, BENCHMARK
from moltlm.pipeline.studies.grid import drop_weights

UNTAUGHT = 64
"""Facts that are asked for and were never taught: what the form of the answer alone is worth."""


def answer(run: Run) -> Artifact:
    """Every number of facts with every rank and seed, and a control of as many tokens of the base's own answers.
    `molt hypothesis knowledge CONFIG`"""
    asked = run.config.knowledge
    bases = {seed: _base(run, seed) for seed in asked.seeds}
    jobs = {
        (rank, count, seed, control): _taught(run, rank, count, seed, control)
        for seed, rank, count, control in product(asked.seeds, asked.ranks, asked.facts, (False, True))
    }
    inputs = {
        "drop": asked.drop,
        "jobs": [job.fingerprint for job in jobs.values()],
        "bases": [one.fingerprint for one in bases.values()],
    }

    def make(folder: Path) -> dict[str, Any]:
        def cost(rank: int, count: int, seed: int, control: bool) -> float:
            return 100 * (bases[seed].facts["accuracy"] - jobs[rank, count, seed, control].facts["accuracy"])

        rows = [
            judge.KnowledgeRun(
                rank, count, seed, job.facts["bits"], cost(rank, count, seed, False), cost(rank, count, seed, True)
            )
            for (rank, count, seed, control), job in jobs.items()
            if not control
        ]
        found = judge.capacities(rows, asked.drop)
        write_json(folder / "knowledge.json", [asdict(one) for one in found])
        return {f"rank {one.rank}": _told(one) for one in found}

    return run.do("knowledge", inputs, make)


def _told(found: judge.Capacity) -> str:
    most = max(point.bits.mean for point in found.points)
    if found.at_drop is None:
        return f"{found.reached} of {found.seeds} seeds lose {found.drop:g} points, with up to {most:.0f} bits stored"
    return (
        f"{found.at_drop.mean:.0f} bits where {found.drop:g} points are lost ({found.reached} of {found.seeds} seeds)"
    )


def _base(run: Run, seed: int) -> Artifact:
    def make(folder: Path) -> dict[str, Any]:
        run.release()
        loaded = base.load(run.config.model)
        return {"accuracy": _accuracy(run, TextModel(loaded.model, loaded.tokenizer), seed)}

    return run.do("knowledge-base", _measured(run, seed), make, f"base, seed {seed}")


def _taught(run: Run, rank: int, count: int, seed: int, control: bool) -> Artifact:
    asked, data = run.config.knowledge, pairs.pairs(run)
    inputs = {
        "facts": count,
        "control": data.fingerprint if control else None,
        "rank": rank,
        "lora": identity(run.config.lora, exclude={"r", "alpha"}),
        "train": identity(run.config.train),
        "knowledge": identity(asked, include={"exposures", "batch_size", "learning_rate"}),
        **_measured(run, seed),
    }

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        loaded = base.load(run.config.model)
        drawn = facts_data.sample(count + UNTAUGHT, seed)
        taught, untaught = drawn[:count], drawn[count:]
        rows = facts_data.training_exchanges(taught, asked.exposures, seed)
        if control:
            text = TextModel(loaded.model, loaded.tokenizer)
            rows = _as_long(text, pairs.load_exchanges(data, "neutral_train"), rows, seed)
        config = _settings(run, rank, len(rows))
        found: dict[str, Any] = {}

        def measure(step: int, text: TextModel) -> None:
            known, unknown = (
                [score.logprob for score in text.score(*facts_data.test_questions(facts), BATCH)]
                for facts in (taught, untaught)
            )
            found.update(bits=judge.bits(known, unknown, count), accuracy=_accuracy(run, text, seed))

        with run.console.progress(f"{count} facts") as progress:
            trained = personality.train_personality(
                personality.PersonalityJob(
                    config=config,
                    base=loaded,
                    folder=folder,
                    seed=seed,
                    progress=progress,
                    pairs=[Pair(str(place), row.prompt, row.answer, "") for place, row in enumerate(rows)],
                    measurements=Measurements(measure, (config.personality.steps,)),
                )
            )
        drop_weights(folder)
        return {**found, "steps": trained.steps, "train_s": round(trained.seconds, 1)}

    label = f"{count} facts, rank {rank}, seed {seed}" + (", as many tokens of its own" if control else "")
    return run.do("knowledge-job", inputs, make, label)


def _measured(run: Run, seed: int) -> dict[str, Any]:
    """What every measurement depends on. Each seed has benchmark items of its own."""
    asked = run.config.knowledge
    skip = asked.items * asked.seeds.index(seed)
    model = identity(run.config.model, exclude={"shape"})
    return {"model": model, "seed": seed, "items": asked.items, "skip": skip}


def _accuracy(run: Run, text: TextModel, seed: int) -> float:
    measured = _measured(run, seed)
    items = capability.evaluate(text, {BENCHMARK: measured["items"]}, BATCH, 0, skip=measured["skip"])  # type: ignore[arg-type]
    return sum(item.correct for item in items) / len(items)


def _settings(run: Run, rank: int, examples: int) -> AdaptersConfig:
    """Supervised training of a new LoRA, for as many steps as take every example once."""
    asked, config = run.config.knowledge, run.config.adapters()
    once = {
        "method": "sft",
        "parameters": "lora",
        "steps": max(2, math.ceil(examples / asked.batch_size)),
        "batch_size": asked.batch_size,
        "learning_rate": asked.learning_rate,
    }
    return config.model_copy(
        update={
            "lora": config.lora.model_copy(update={"r": rank, "alpha": 2 * rank}),
            "personality": config.personality.model_copy(update=once),
            "dpo": config.dpo.model_copy(update={"kl_weight": 0.0, "ewc_weight": 0.0}),
        }
    )


def _as_long(text: TextModel, own: list[Exchange], rows: list[Exchange], seed: int) -> list[Exchange]:
    """The base's own answers, over and over, until they are as many tokens as `rows`."""

    def length(each: list[Exchange]) -> list[int]:
        encoded = text.encode([row.prompt for row in each], [row.answer for row in each])
        return [len(prompt) + len(answer) for prompt, answer in encoded]

    missing, order = sum(length(rows)), random.Random(seed)
    sized, found = list(zip(own, length(own), strict=True)), []
    while missing > 0:
        for row, tokens in order.sample(sized, len(sized)):
            if missing > 0:
                found.append(row)
                missing -= tokens
    return found
