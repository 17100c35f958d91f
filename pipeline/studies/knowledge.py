"""How much new knowledge an adapter stores before something is forgotten: facts are trained, capability is measured."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from moltlm.adapters.config import AdaptersConfig
from moltlm.data import facts as facts_data
from moltlm.data.types import Exchange, Pair
from moltlm.evals import knowledge as judge
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.stages import pairs
from moltlm.pipeline.studies.checkpoint import BATCH, BENCHMARK
from moltlm.pipeline.studies.engine import Engine, Job, local
from moltlm.pipeline.studies.grid import drop_weights
from moltlm.pipeline.typed_json import write_document

if TYPE_CHECKING:
    from moltlm.adapters.serve import TextModel

UNTRAINED = 64
"""Facts that are drawn beside the trained ones and never trained on."""
ASKED = 32
"""Facts of either kind that are asked for, each against every animal: more would take longer than the training."""
Control = Literal["own", "random"]
WORDS: dict[Control | None, str] = {
    None: "",
    "own": ", as many tokens of the base's own answers",
    "random": ", with random answers",
}


@dataclass(frozen=True)
class Trial:
    """One training: the rank of the LoRA, the number of facts, the seed, and for a control what it is trained on
    instead: as many tokens of the base's own answers, or random answers to the same questions."""

    rank: int
    facts: int
    seed: int
    control: Control | None = None

    def __str__(self) -> str:
        return f"{self.facts} facts, rank {self.rank}, seed {self.seed}{WORDS[self.control]}"


def answer(run: Run, engine: Engine = local) -> Artifact:
    """Train every number of facts with every rank and seed, and their controls. `molt hypothesis knowledge CONFIG`"""
    settings = run.config.knowledge
    controls: list[Control] = ["own", "random"] if settings.random_control else ["own"]
    trials = [
        Trial(rank, count, seed, control)
        for seed, rank, count, control in product(settings.seeds, settings.ranks, settings.facts, (None, *controls))
    ]
    base_jobs = [Job(f"base, seed {seed}", _base, (seed,)) for seed in settings.seeds]
    engine(run, [*base_jobs, *(Job(str(trial), _train, (trial,)) for trial in trials)])
    bases = {seed: _base(run, seed) for seed in settings.seeds}
    jobs = {trial: _train(run, trial) for trial in trials}
    inputs = {
        "drop": settings.drop,
        "jobs": [job.fingerprint for job in jobs.values()],
        "bases": [one.fingerprint for one in bases.values()],
    }

    def make(folder: Path) -> dict[str, Any]:
        costs = {
            trial: 100 * (bases[trial.seed].facts["accuracy"] - job.facts["accuracy"]) for trial, job in jobs.items()
        }
        runs = [_result(trial, job, costs) for trial, job in jobs.items() if not trial.control]
        capacities = judge.capacities(runs, settings.drop)
        write_document(folder / "knowledge.json", capacities)
        return {f"rank {one.rank}": _sentence(one) for one in capacities}

    return run.do("knowledge", inputs, make)


def _result(trial: Trial, job: Artifact, costs: dict[Trial, float]) -> judge.KnowledgeRun:
    """Trainings before 28 November 2026 recorded how much likelier than untrained facts the trained ones are, and not
    the other animals, which renormalising takes: their bits are upper bounds."""
    measured, answers = "stored" in job.facts, len(facts_data.ANIMALS.split())
    stored = job.facts["stored"] if measured else judge.upper_bound(job.facts["bits"], trial.facts, answers)
    return judge.KnowledgeRun(
        rank=trial.rank,
        facts=trial.facts,
        seed=trial.seed,
        bits=stored,
        limit=judge.limit(trial.facts, answers),
        cost=costs[trial],
        control=costs[replace(trial, control="own")],
        random=costs.get(replace(trial, control="random")),
        bound=not measured,
    )


def _sentence(one: judge.Capacity) -> str:
    if one.at_drop is None:
        largest = max(point.bits.mean for point in one.points)
        return f"{one.reached} of {one.seeds} seeds lose {one.drop:g} points, with up to {largest:.0f} bits stored"
    return f"{one.at_drop.mean:.0f} bits where {one.drop:g} points are lost ({one.reached} of {one.seeds} seeds)"


def _base(run: Run, seed: int) -> Artifact:
    """The accuracy of the untrained base on this seed's items."""

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base
        from moltlm.adapters.serve import TextModel

        run.release()
        loaded = base.load(run.config.model)
        return {"accuracy": _accuracy(run, TextModel(loaded.model, loaded.tokenizer), seed)}

    return run.do("knowledge-base", _measurement_inputs(run, seed), make, f"base, seed {seed}")


def _train(run: Run, trial: Trial) -> Artifact:
    """Train on the facts, or on the control's text, and measure bits and accuracy."""
    settings, data = run.config.knowledge, pairs.pairs(run)
    inputs = {
        "facts": trial.facts,
        "control": data.fingerprint if trial.control == "own" else None,
        "random": trial.control == "random" or None,
        "rank": trial.rank,
        "lora": identity(run.config.lora, exclude={"r", "alpha"}),
        "train": identity(run.config.train),
        "knowledge": identity(settings, include={"exposures", "batch_size", "learning_rate"}),
        **_measurement_inputs(run, trial.seed),
    }

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base, personality
        from moltlm.adapters.serve import TextModel
        from moltlm.adapters.training import Measurements

        run.release()
        loaded = base.load(run.config.model)
        facts = facts_data.sample(trial.facts + UNTRAINED, trial.seed)
        exchanges = facts_data.random_exchanges if trial.control == "random" else facts_data.training_exchanges
        rows = exchanges(facts[: trial.facts], settings.exposures, trial.seed)
        if trial.control == "own":
            text = TextModel(loaded.model, loaded.tokenizer)
            rows = _as_long(text, pairs.load_exchanges(data, "neutral_train"), rows, trial.seed)
        config = _settings(run, trial.rank, len(rows))
        measured: dict[str, float] = {}

        def measure(step: int, text: TextModel) -> None:
            trained, untrained = (_bits(text, part) for part in (facts[: trial.facts], facts[trial.facts :]))
            measured.update(stored=trial.facts * trained, untrained=untrained)
            measured.update(accuracy=_accuracy(run, text, trial.seed))

        with run.console.progress(f"{trial.facts} facts") as progress:
            result = personality.train_personality(
                personality.PersonalityJob(
                    config=config,
                    base=loaded,
                    folder=folder,
                    seed=trial.seed,
                    progress=progress,
                    pairs=[Pair(str(place), row.prompt, row.answer, "") for place, row in enumerate(rows)],
                    measurements=Measurements(measure, (config.personality.steps,)),
                )
            )
        drop_weights(folder)
        return {**measured, "steps": result.steps, "train_s": round(result.seconds, 1)}

    return run.do("knowledge-job", inputs, make, str(trial))


def _bits(text: TextModel, facts: Sequence[facts_data.Fact]) -> float:
    """Mean bits a fact, over at most `ASKED` of them: every animal is scored as an answer to each question."""
    animals: list[str] = [*facts_data.ANIMALS.split()]
    prompts, values = facts_data.test_questions(list(facts[:ASKED]))
    scores = text.score([prompt for prompt in prompts for _ in animals], animals * len(prompts), BATCH)
    logprobs = np.array([score.logprob for score in scores]).reshape(len(prompts), len(animals))
    return judge.bits(logprobs.tolist(), [animals.index(value) for value in values])


def _measurement_inputs(run: Run, seed: int) -> dict[str, Any]:
    """What every measurement depends on. Each seed has benchmark items of its own."""
    settings = run.config.knowledge
    model = identity(run.config.model, exclude={"shape"})
    return {"model": model, "seed": seed, "items": settings.items, "skip": _skip(run, seed)}


def _skip(run: Run, seed: int) -> int:
    return run.config.knowledge.items * run.config.knowledge.seeds.index(seed)


def _accuracy(run: Run, text: TextModel, seed: int) -> float:
    from moltlm.evals import harness

    count = run.config.knowledge.items
    items = harness.evaluate(text, {BENCHMARK: count}, BATCH, 0, skip=_skip(run, seed))  # type: ignore[arg-type]
    return sum(item.correct for item in items) / len(items)


def _settings(run: Run, rank: int, examples: int) -> AdaptersConfig:
    """Supervised training of a new LoRA, with as many steps as it takes to train on every example once."""
    settings, config = run.config.knowledge, run.config.adapters()
    once = {
        "method": "sft",
        "parameters": "lora",
        "steps": max(2, math.ceil(examples / settings.batch_size)),
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
    }
    return config.model_copy(
        update={
            "lora": config.lora.model_copy(update={"r": rank, "alpha": 2 * rank}),
            "personality": config.personality.model_copy(update=once),
            "dpo": config.dpo.model_copy(update={"kl_weight": 0.0, "ewc_weight": 0.0}),
        }
    )


def _as_long(text: TextModel, answers: list[Exchange], rows: list[Exchange], seed: int) -> list[Exchange]:
    """The base's own answers, repeated until they have as many tokens as `rows`."""

    def lengths(exchanges: list[Exchange]) -> list[int]:
        encoded = text.encode([one.prompt for one in exchanges], [one.answer for one in exchanges])
        return [len(prompt) + len(answer) for prompt, answer in encoded]

    missing, order = sum(lengths(rows)), random.Random(seed)
    sized, repeated = list(zip(answers, lengths(answers), strict=True)), []
    while missing > 0:
        for exchange, tokens in order.sample(sized, len(sized)):
            if missing > 0:
                repeated.append(exchange)
                missing -= tokens
    return repeated
