"""Hypotheses as grids of independent, cached jobs: every arm with every seed, measured along its path."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters import base, train
from adapters.config import AdaptersConfig
from adapters.serve import TextModel
from data import coherence
from data.errors import BadInput
from data.io import read_jsonl, write_json, write_jsonl
from data.types import Pair
from evals import capability
from evals import hypotheses as judge
from evals.config import Arm, HypothesisConfig
from pipeline import stages
from pipeline.config import Config, load_hypothesis
from pipeline.run import Artifact, Run

BENCHMARK = "lambada"
COHERENCE_PROMPTS = 8
COHERENCE_TOKENS = 48


def verdict(run: Run, name: str) -> Artifact:
    """Run what is missing of a hypothesis' grid and judge it. `molt hypothesis run H014 CONFIG`"""
    hypothesis = check(run, name)
    arms = needed_arms(hypothesis)
    jobs = {(arm, seed): job(run, hypothesis, arm, seed) for seed in hypothesis.seeds for arm in arms}
    inputs = {
        "hypothesis": hypothesis.model_dump(),
        "jobs": {f"{arm}-{seed}": artifact.fingerprint for (arm, seed), artifact in jobs.items()},
    }

    def make(folder: Path) -> dict[str, Any]:
        records = [
            {"arm": arm, "seed": seed, **row}
            for (arm, seed), artifact in jobs.items()
            for row in read_jsonl(artifact.folder / "records.jsonl")
        ]
        found = asdict(judge.judge(hypothesis, records))
        write_json(folder / "verdict.json", found)
        return {"id": hypothesis.id, "outcome": found["outcome"], "reasons": found["reasons"]}

    return run.do(f"hypothesis-{hypothesis.id.lower()}", inputs, make)


def check(run: Run, name: str) -> HypothesisConfig:
    """The hypothesis, if it can be run with this configuration and its pairs; BadInput if not. Trains nothing."""
    hypothesis = load_hypothesis(name)
    for arm in needed_arms(hypothesis):
        _arm_config(run.config, hypothesis, hypothesis.arms[arm])
    there = stages.pairs(run).facts["pairs"]
    if there < hypothesis.pairs:
        raise BadInput(
            f"{hypothesis.id} draws {hypothesis.pairs} pairs for each seed, and there are {there}.",
            f"Write more prompts, set pairs: {there} in a copy of its file, or run without it: hypotheses=[]",
        )
    return hypothesis


def needed_arms(hypothesis: HypothesisConfig) -> list[str]:
    """The arms that the verdict compares, each once."""
    control = [hypothesis.positive_control] if hypothesis.positive_control else []
    return list(dict.fromkeys([hypothesis.better, *hypothesis.than, *control]))


def job(run: Run, hypothesis: HypothesisConfig, name: str, seed: int) -> Artifact:
    """Train one arm with one seed and measure it at each checkpoint. Arms that two hypotheses share are run once."""
    arm = hypothesis.arms[name]
    data, start = stages.pairs(run), _base_point(run, hypothesis, seed)
    inputs = {
        "arm": arm.model_dump(),
        "seed": seed,
        "pairs": data.fingerprint,
        "base": start.fingerprint,
        **hypothesis.model_dump(include={"steps", "batch_size", "checkpoints", "pairs", "precision"}),
        **{section: getattr(run.config, section).model_dump() for section in ("lora", "train")},
        "dpo": run.config.dpo.model_dump(include={"beta", "nll_weight", "kl_batch"}),
    }

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        config = _arm_config(run.config, hypothesis, arm)
        heldout = stages.load_pairs(data, "heldout")
        drawn = random.Random(seed).sample(stages.load_pairs(data, "train"), hypothesis.pairs)
        origin = read_jsonl(start.folder / "records.jsonl")[0]
        records: list[dict[str, Any]] = []

        def measure(step: int, text: TextModel) -> None:
            point = _point(text, heldout, hypothesis, seed)
            records.append(
                {
                    "step": step,
                    "learning_rate": arm.learning_rate,
                    "gain": point["likelihood"] - origin["likelihood"],
                    "items": point["items"],
                    "base_items": origin["items"],
                    "feasible": point["coherent"] >= 0.5,
                    "coherent": point["coherent"],
                }
            )

        with run.console.progress(f"{name}, seed {seed}") as progress:
            trained = train.train_personality(
                config,
                base.load(config.model),
                drawn,
                stages.load_exchanges(data, "neutral_train"),
                folder / "weights",
                seed,
                progress,
                measure=measure,
                at=tuple(hypothesis.checkpoints),
            )
        _drop_weights(folder / "weights")
        write_jsonl(folder / "records.jsonl", records)
        return {"arm": name, "seed": seed, "train_s": round(trained.seconds, 1), "gain": records[-1]["gain"]}

    return run.do("job", inputs, make, f"{hypothesis.id} {name}, seed {seed}")


def _base_point(run: Run, hypothesis: HypothesisConfig, seed: int) -> Artifact:
    """The untrained model on this seed's items: step 0 of every arm."""
    data = stages.pairs(run)
    inputs = {"pairs": data.fingerprint, "seed": seed, **hypothesis.model_dump(include={"items", "precision"})}

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        loaded = base.load(run.config.model, hypothesis.precision)
        point = _point(TextModel(loaded.model, loaded.tokenizer), stages.load_pairs(data, "heldout"), hypothesis, seed)
        write_jsonl(folder / "records.jsonl", [point])
        return {"likelihood": point["likelihood"], "coherent": point["coherent"]}

    return run.do("job-base", inputs, make, f"base, seed {seed}")


def _point(text: Any, heldout: list[Pair], hypothesis: HypothesisConfig, seed: int) -> dict[str, Any]:
    """Likelihood of the personality's held-out answers (nats a token), coherence, and LAMBADA item by item."""
    size = 16
    prompts = [pair.prompt for pair in heldout]
    scores = text.score(prompts, [pair.chosen for pair in heldout], size)
    few = heldout[:COHERENCE_PROMPTS]
    answers = text.generate([pair.prompt for pair in few], COHERENCE_TOKENS, size)
    checks = [
        coherence.check(pair.question, answer, 0.0, float("inf")).coherent
        for pair, answer in zip(few, answers, strict=True)
    ]
    records = capability.evaluate(text, {BENCHMARK: hypothesis.items}, size, seed)
    return {
        "likelihood": sum(score.per_token for score in scores) / len(scores),
        "coherent": sum(checks) / len(checks),
        "items": [{"item": record["item"], "correct": record["correct"]} for record in records],
    }


def _arm_config(config: Config, hypothesis: HypothesisConfig, arm: Arm) -> AdaptersConfig:
    """The run's configuration with what the arm and the hypothesis fix. Raises BadInput if they do not go together."""
    trained = {
        "method": arm.method,
        "parameters": arm.parameters,
        "learning_rate": arm.learning_rate,
        "steps": hypothesis.steps,
        "batch_size": hypothesis.batch_size,
    }
    try:
        return AdaptersConfig(
            model=config.model.model_copy(update={"precision": hypothesis.precision}),
            lora=config.lora,
            train=config.train,
            personality=config.personality.model_copy(update=trained),
            dpo=config.dpo.model_copy(update={"reference": arm.reference, "kl_weight": arm.kl_weight}),
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadInput(f"{hypothesis.id}: {why}.", "For example with: train.gradient_accumulation=1") from None


def _drop_weights(folder: Path) -> None:
    """Only the records count; a full fine-tuning would leave its weights behind for every job."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
