"""Hypotheses as grids of independent, cached jobs: every arm with every seed, measured along its path."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moltlm.adapters import base, personality
from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.serve import TextModel
from moltlm.adapters.training import Measurements
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, read_jsonl, write_json
from moltlm.evals import early as early_eval
from moltlm.evals import hypotheses as judge
from moltlm.evals import threshold
from moltlm.evals.config import Arm, HypothesisConfig
from moltlm.evals.records import BasePoint, CheckpointRecord, read_records, write_records
from moltlm.pipeline.config import Config, load_hypothesis
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.setup import estimate
from moltlm.pipeline.stages import pairs
from moltlm.pipeline.studies import checkpoint

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a grid takes: trainings that choose, trainings that confirm, and how many more can follow where the best
    learning rate lies at an edge. `each_s` is the mean of the `there` trainings in the folder, whatever they were for;
    None before the first. `gib` is estimated, for the largest arm, without the base that measuring takes beside it."""

    id: str
    tuning: int
    confirming: int
    beyond: int
    there: int
    each_s: float | None
    gib: float

    def __str__(self) -> str:
        count = f"{self.tuning + self.confirming} trainings, {self.tuning} that tune and {self.confirming} that confirm"
        more = f" (and up to {self.beyond} beyond an edge)" if self.beyond else ""
        if self.each_s is None:
            took = "how long one takes is known after the first"
        else:
            hours = (self.tuning + self.confirming) * self.each_s / 3600
            took = f"about {self.each_s / 60:.0f} minutes each by the {self.there} that are there, {hours:.1f} h in all"
        return f"{self.id}: {count}{more}; {took}; about {self.gib:.1f} GiB for training alone"


def plan(run: Run, name: str) -> Plan:
    """Trains nothing, but makes the pairs, on which what is possible depends. `molt hypothesis plan H014 CONFIG`"""
    return _plan(run, check(run, name))


def _plan(run: Run, hypothesis: HypothesisConfig) -> Plan:
    names = _after_their_rates(hypothesis, arm_names(hypothesis))
    rates = dict.fromkeys(names, 0.0001)
    candidates = {name: _candidates(hypothesis.arms[name], rates) for name in names}
    seeds = len(hypothesis.tuning_seeds)
    several = [name for name in names if isinstance(hypothesis.arms[name].learning_rate, list)]
    needs = []
    for arm in names:
        settings = _arm_config(run.config, hypothesis, candidates[arm][0])
        changed = {"model": settings.model, "personality": settings.personality}
        needs.append(estimate.training_memory(run.config.model_copy(update=changed)).total)
    took = [read_json(folder / "artifact.json")["seconds"] for folder in run.stored("job")]
    return Plan(
        hypothesis.id,
        sum(len(rows) * seeds for rows in candidates.values() if len(rows) > 1),
        len(names) * len(hypothesis.seeds),
        len(several) * seeds,
        len(took),
        sum(took) / len(took) if took else None,
        max(needs),
    )


def verdict(run: Run, name: str) -> Artifact:
    """Run what is missing of a hypothesis' grid and judge it. `molt hypothesis run H014 CONFIG`"""
    hypothesis = check(run, name)
    if not run.only_read:
        run.console.say(str(_plan(run, hypothesis)))
    arms, tuning = tune(run, hypothesis, arm_names(hypothesis))
    jobs = {(arm, seed): job(run, hypothesis, arm, arms[arm], seed) for seed in hypothesis.seeds for arm in arms}
    inputs = {
        "hypothesis": identity(hypothesis),
        "jobs": {f"{arm}-{seed}": artifact.fingerprint for (arm, seed), artifact in jobs.items()},
    }

    def make(folder: Path) -> dict[str, Any]:
        records = [row for (arm, seed), artifact in jobs.items() for row in _records(artifact, arm, seed)]
        found = asdict(judge.judge(hypothesis, records))
        found |= {"axis": hypothesis.axis, "tuning": tuning}
        found["arms"] = {name: arm.model_dump() for name, arm in arms.items()}
        write_json(folder / "verdict.json", found)
        return {"id": hypothesis.id, "outcome": found["outcome"], "reasons": found["reasons"]}

    return run.do("hypothesis", inputs, make, subject=hypothesis.id.lower())


def train_arm(run: Run, name: str, arm: str) -> list[Artifact]:
    """One arm's part of a grid, what is tuned first: for a folder or a machine of its own. No verdict.
    `molt hypothesis run H014 CONFIG --arm full`"""
    hypothesis = load_hypothesis(name)
    if arm not in hypothesis.arms:
        raise BadInput(f"{hypothesis.id} has no arm {arm}.", f"Its arms: {', '.join(hypothesis.arms)}.")
    check(run, name)
    arms, _ = tune(run, hypothesis, [arm])
    return [job(run, hypothesis, arm, arms[arm], seed) for seed in hypothesis.seeds]


def explore(run: Run) -> Artifact:
    """Questions that no hypothesis asks, to all trainings of the grids in this folder: whether forgetting could be seen
    early, and whether there is a threshold of KL to the base from which capability falls. `molt hypothesis explore
    CONFIG`"""
    folders = sorted(run.stored("job"), key=_content)  # so that resampling does not depend on fingerprints
    if not folders:
        raise BadInput(f"No training of a hypothesis is in {run.folder}.", "Run one: molt hypothesis run H014 CONFIG")

    def make(folder: Path) -> dict[str, Any]:
        learned = [_learned(one) for one in folders]
        early = early_eval.detect([run for run, _ in learned])
        limit = threshold.find([dose for _, doses in learned for dose in doses])
        found = {"early": asdict(early), "threshold": asdict(limit) if limit else None}
        write_json(folder / "explored.json", found)
        seen = {"trainings": early.n, "events": early.events, "early sign": early.best}
        return {**seen, "threshold": limit.at if limit and limit.shown else None}

    return run.do("explored", {"jobs": [one.name for one in folders]}, make)


def _content(folder: Path) -> str:
    """What a training is, for an order that stays the same when fingerprints change."""
    inputs = read_json(folder / "inputs.json")
    return json.dumps([f"{inputs['seed']:09}", inputs["arm"], inputs["hypothesis"]], sort_keys=True) + folder.name


def _learned(folder: Path) -> tuple[early_eval.EarlyRun, list[threshold.Dose]]:
    """What a job has to say to both. Runs of one arm and learning rate are of one group, whatever else they share."""
    inputs, records = read_json(folder / "inputs.json"), read_records(folder / "records.jsonl", CheckpointRecord)
    group, rate, seed = fingerprint(inputs["arm"]), inputs["arm"]["learning_rate"], inputs["seed"]
    losses = [(row["step"], row["loss"]) for row in read_jsonl(folder / "weights" / "metrics.jsonl")]
    early = early_eval.run(records, losses, group, seed, rate)
    doses = [threshold.Dose(seed, row.kl, early_eval.cost(row)) for row in records if row.kl is not None]
    return early, doses


def check(run: Run, name: str) -> HypothesisConfig:
    """The hypothesis, if it can be run with this configuration and its pairs; BadInput if not. Trains nothing."""
    hypothesis = load_hypothesis(name)
    for arm in arm_names(hypothesis):
        for candidate in _candidates(hypothesis.arms[arm], dict.fromkeys(hypothesis.arms, 0.0001)):
            _arm_config(run.config, hypothesis, candidate)
    there = pairs.pairs(run).facts["pairs"]
    if there < hypothesis.pairs:
        raise BadInput(
            f"{hypothesis.id} draws {hypothesis.pairs} pairs for each seed, and there are {there}.",
            f"Write more prompts, set pairs: {there} in a copy of its file, or run without it: hypotheses=[]",
        )
    return hypothesis


def arm_names(hypothesis: HypothesisConfig) -> list[str]:
    """The arms of the verdict, and those beside them."""
    return [*hypothesis.deciding, *hypothesis.beside]


def _after_their_rates(hypothesis: HypothesisConfig, names: list[str]) -> list[str]:
    """Each once, behind the arm whose learning rate it takes."""
    rates = {name: hypothesis.arms[name].learning_rate for name in names}
    return list(dict.fromkeys(one for name in names for one in (rates[name], name) if isinstance(one, str)))


def tune(run: Run, hypothesis: HypothesisConfig, names: list[str]) -> tuple[dict[str, Arm], dict[str, list[Row]]]:
    """The arms, and those whose learning rate they take, with what was left open chosen on the tuning seeds: the most
    capable at equal gain; and all that was tried for it. Where the best learning rate is the first or last of several,
    one more beyond it is tried."""
    found: dict[str, Arm] = {}
    tables: dict[str, list[Row]] = {}
    for name in _after_their_rates(hypothesis, names):
        rates = {other: arm.learning_rate for other, arm in found.items()}
        candidates = _candidates(hypothesis.arms[name], rates)
        best, table = _best(run, hypothesis, name, candidates)
        if (beyond := _beyond(hypothesis.arms[name], best)) is not None:
            best, table = _best(run, hypothesis, name, [*candidates, beyond])
        found[name] = best
        if table:
            tables[name] = sorted(table, key=lambda row: (row["learning_rate"], row["kl_weight"]))
    return found, tables


def _candidates(arm: Arm, rates: dict[str, Any]) -> list[Arm]:
    given = rates[arm.learning_rate] if isinstance(arm.learning_rate, str) else arm.learning_rate
    sides = [value if isinstance(value, list) else [value] for value in (given, arm.kl_weight)]
    return [arm.model_copy(update={"learning_rate": rate, "kl_weight": weight}) for rate, weight in product(*sides)]


def _beyond(arm: Arm, best: Arm) -> Arm | None:
    if not isinstance(arm.learning_rate, list) or len(arm.learning_rate) < 2:
        return None
    rates = sorted(arm.learning_rate)
    nearest = {rates[0]: rates[0] ** 2 / rates[1], rates[-1]: rates[-1] ** 2 / rates[-2]}
    rate = nearest.get(best.learning_rate)  # type: ignore[arg-type]
    return None if rate is None else best.model_copy(update={"learning_rate": rate})


def _best(run: Run, hypothesis: HypothesisConfig, name: str, candidates: list[Arm]) -> tuple[Arm, list[Row]]:
    if len(candidates) == 1:
        return candidates[0], []
    records = [
        [row for seed in hypothesis.tuning_seeds for row in _records(job(run, hypothesis, name, arm, seed), name, seed)]
        for arm in candidates
    ]
    settings = judge.tuning_results(hypothesis, records)
    table = [
        {**arm.model_dump(include={"learning_rate", "kl_weight"}), **asdict(one)}
        for arm, one in zip(candidates, settings, strict=True)
    ]
    return candidates[judge.best(settings)], table


def _records(artifact: Artifact, arm: str, seed: int) -> list[CheckpointRecord]:
    records = read_records(artifact.folder / "records.jsonl", CheckpointRecord)
    return [replace(record, arm=arm, seed=seed) for record in records]


def job(run: Run, hypothesis: HypothesisConfig, name: str, arm: Arm, seed: int) -> Artifact:
    """Train one arm with one seed and measure it at each checkpoint. Arms that two hypotheses share are run once."""
    hypothesis = hypothesis.model_copy(update={"precision": arm.precision or hypothesis.precision})
    data, start = pairs.pairs(run), _base_point(run, hypothesis, seed)
    measured = {"steps", "batch_size", "checkpoints", "pairs", "precision", "axis", "gain_levels", "composite"}
    inputs = {
        "arm": identity(arm, exclude={"precision"}),
        "seed": seed,
        "pairs": data.fingerprint,
        "base": start.fingerprint,
        "hypothesis": identity(hypothesis, measured),
        **{section: identity(getattr(run.config, section)) for section in ("lora", "train")},
        "dpo": identity(run.config.dpo, include={"beta", "nll_weight", "kl_batch"}),
    }

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        config = _arm_config(run.config, hypothesis, arm)
        drawn = random.Random(seed).sample(pairs.load_pairs(data, "train"), hypothesis.pairs)
        origin = read_records(start.folder / "records.jsonl", BasePoint)[0]
        look = checkpoint.probe(run, hypothesis, seed)
        records: list[CheckpointRecord] = []

        def measure(step: int, text: TextModel) -> None:
            record = _since_base(hypothesis, look(text), origin, step, arm)
            late = record.gain >= _middle(hypothesis) or step == hypothesis.checkpoints[-1]
            if hypothesis.composite and late and all(row.composite is None for row in records):
                record = replace(record, composite=checkpoint.composite(text, hypothesis, seed, record.items))
            records.append(record)

        with run.console.progress(f"{name}, seed {seed}") as progress:
            trained = personality.train_personality(
                personality.PersonalityJob(
                    config=config,
                    base=base.load(config.model),
                    folder=folder / "weights",
                    seed=seed,
                    progress=progress,
                    pairs=drawn,
                    neutral=pairs.load_exchanges(data, "neutral_train"),
                    measurements=Measurements(measure, tuple(hypothesis.checkpoints)),
                )
            )
        drop_weights(folder / "weights")
        write_records(folder / "records.jsonl", records)
        return {"arm": name, "seed": seed, "train_s": round(trained.seconds, 1), "gain": records[-1].gain}

    label = f"{hypothesis.id} {name} at {arm.learning_rate:g}, seed {seed}"
    return run.do("job", inputs, make, label)


def _since_base(
    hypothesis: HypothesisConfig, point: BasePoint, origin: BasePoint, step: int, arm: Arm
) -> CheckpointRecord:
    """The gain since the base on the hypothesis' axis and on the other one."""
    gains = {"likelihood": point.likelihood - origin.likelihood, "persona": point.persona - origin.persona}
    return CheckpointRecord(
        **vars(point),
        step=step,
        learning_rate=arm.learning_rate,  # type: ignore[arg-type]
        gain=gains[hypothesis.axis],
        second=gains["persona" if hypothesis.axis == "likelihood" else "likelihood"],
        base_items=origin.items,
        feasible=point.coherent >= 0.5,
    )


def _base_point(run: Run, hypothesis: HypothesisConfig, seed: int) -> Artifact:
    """The untrained model on this seed's items: step 0 of every arm."""
    data = pairs.pairs(run)
    measured = identity(hypothesis, include={"items", "precision", "prompts", "neutral"})
    inputs = {"pairs": data.fingerprint, "skip": checkpoint.skip(hypothesis, seed), "hypothesis": measured}

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        loaded = base.load(run.config.model, hypothesis.precision)
        point = checkpoint.probe(run, hypothesis, seed)(TextModel(loaded.model, loaded.tokenizer))
        write_records(folder / "records.jsonl", [point])
        return {key: getattr(point, key) for key in ("likelihood", "persona", "coherent")}

    return run.do("job-base", inputs, make, f"base, seed {seed}")


def _middle(hypothesis: HypothesisConfig) -> float:
    return sorted(hypothesis.gain_levels)[len(hypothesis.gain_levels) // 2]


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
            model=config.model.model_copy(update={"precision": arm.precision or hypothesis.precision}),
            lora=config.lora,
            train=config.train,
            personality=config.personality.model_copy(update=trained),
            dpo=config.dpo.model_copy(update={"reference": arm.reference, "kl_weight": arm.kl_weight}),
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadInput(f"{hypothesis.id}: {why}.", "For example with: train.gradient_accumulation=1") from None


def drop_weights(folder: Path) -> None:
    """Only the records count; a full fine-tuning would leave its weights behind for every job."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
