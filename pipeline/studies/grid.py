"""Hypotheses as grids of independent, cached jobs: every arm with every seed, measured at its checkpoints."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltlm.data.errors import BadInput
from moltlm.evals import hypotheses as judge
from moltlm.evals.config import Arm, HypothesisConfig
from moltlm.evals.records import BasePoint, CheckpointRecord, read_records, write_records
from moltlm.pipeline.config import load_hypothesis
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.stages import pairs
from moltlm.pipeline.studies import checkpoint
from moltlm.pipeline.studies.arms import arm_config, arm_names, beyond, candidates, check, fixed, in_order
from moltlm.pipeline.studies.authorship import by_authorship
from moltlm.pipeline.studies.engine import Engine, Job, local
from moltlm.pipeline.studies.plan import Plan, plan
from moltlm.pipeline.studies.verdict import GridVerdict, TuningRow
from moltlm.pipeline.typed_json import write_document

if TYPE_CHECKING:
    from moltlm.adapters.serve import TextModel
    from moltlm.adapters.training import Measurements

RECORDS = "records.jsonl"
MEASURED = {"steps", "batch_size", "checkpoints", "pairs", "precision", "axis", "gain_levels", "composite"}
"""The settings of a hypothesis that a training depends on."""


@dataclass(frozen=True)
class Tuned:
    """The arms with everything chosen that was open, and by arm all that was tried for it."""

    arms: dict[str, Arm]
    tables: dict[str, list[TuningRow]]


def verdict(run: Run, name: str, engine: Engine = local) -> Artifact:
    """Run what is missing of a hypothesis' grid and judge it. `molt hypothesis run H014 CONFIG`"""
    hypothesis = check(run, name)
    if not run.only_read:
        run.console.say(str(_planned(run, hypothesis)))
    tuned = tune(run, hypothesis, arm_names(hypothesis), engine)
    engine(run, _jobs(hypothesis, tuned.arms.items(), hypothesis.seeds))
    jobs = {
        (arm_name, seed): job(run, hypothesis, arm_name, arm, seed)
        for seed in hypothesis.seeds
        for arm_name, arm in tuned.arms.items()
    }
    inputs = {
        "hypothesis": identity(hypothesis),
        "jobs": {f"{arm}-{seed}": artifact.fingerprint for (arm, seed), artifact in jobs.items()},
    }

    def make(folder: Path) -> dict[str, Any]:
        records = [
            row
            for (name, seed), artifact in jobs.items()
            for row in records_of(run, hypothesis, artifact, name, tuned.arms[name], seed)
        ]
        result = judge.judge(hypothesis, records)
        other = judge.judge(hypothesis, by_authorship(run, records)) if hypothesis.axis == "persona" else None
        write_document(
            folder / "verdict.json",
            GridVerdict(
                **vars(result),
                axis=hypothesis.axis,
                precision=hypothesis.precision,
                arms=tuned.arms,
                tuning=tuned.tables,
                by_authorship=other and replace(other, curves=[]),
            ),
        )
        return {"id": hypothesis.id, "outcome": result.outcome, "reasons": result.reasons}

    return run.do("hypothesis", inputs, make, subject=hypothesis.id.lower())


def planned(run: Run, name: str) -> Plan:
    """What is left of a grid, and how long it takes. Trains nothing, but builds the pairs, on which depends what can be
    run. `molt hypothesis plan H014 CONFIG`"""
    return _planned(run, check(run, name))


def _planned(run: Run, hypothesis: HypothesisConfig) -> Plan:
    whole = plan(run, hypothesis)
    names = in_order(hypothesis, arm_names(hypothesis))
    reader = run.reader()  # so that the run itself still says what is reused
    try:
        arms, tuning = tune(reader, hypothesis, names).arms, 0
    except Missing:
        tuning = whole.tuning - _finished(reader, _first_tuning(hypothesis, names))
        arms = {name: hypothesis.arms[name] for name in names if _is_fixed(hypothesis.arms[name])}
    confirming = whole.confirming - _finished(reader, _jobs(hypothesis, arms.items(), hypothesis.seeds))
    return replace(whole, left=tuning + confirming)


def _is_fixed(arm: Arm) -> bool:
    """Whether nothing is to be chosen for it."""
    return isinstance(arm.learning_rate, float) and not isinstance(arm.kl_weight, list)


def _finished(reader: Run, jobs: Iterable[Job]) -> int:
    """How many of the trainings among these jobs are stored."""
    count = 0
    for each in jobs:
        with suppress(Missing):
            each(reader)
            count += each.function is job
    return count


def train_arm(run: Run, name: str, arm: str, engine: Engine = local) -> list[Artifact]:
    """Train one arm of a grid with all its seeds, after tuning what is open, in a folder or on a machine of its own. No
    verdict. `molt hypothesis run H014 CONFIG --arm full`"""
    hypothesis = load_hypothesis(name)
    if arm not in hypothesis.arms:
        raise BadInput(f"{hypothesis.id} has no arm {arm}.", f"Its arms: {', '.join(hypothesis.arms)}.")
    check(run, name)
    tuned = tune(run, hypothesis, [arm], engine)
    engine(run, _jobs(hypothesis, [(arm, tuned.arms[arm])], hypothesis.seeds))
    return [job(run, hypothesis, arm, tuned.arms[arm], seed) for seed in hypothesis.seeds]


def tune(run: Run, hypothesis: HypothesisConfig, names: Sequence[str], engine: Engine = local) -> Tuned:
    """Choose what the arms leave open on the tuning seeds: the most capable setting at equal gain, or, where the
    hypothesis fixes its learning rate, among those of this rate. Where the chosen learning rate is the smallest or
    largest of several, one more beyond it is tried. The arms whose learning rate others take are tuned too."""
    tuned, ordered = Tuned({}, {}), in_order(hypothesis, names)
    engine(run, _first_tuning(hypothesis, ordered))
    for name in ordered:
        rates = {other: arm.learning_rate for other, arm in tuned.arms.items()}
        options = candidates(hypothesis.arms[name], rates)
        best, table = _best(run, hypothesis, name, options, engine)
        if (one_more := beyond(hypothesis.arms[name], best)) is not None:
            best, table = _best(run, hypothesis, name, [*options, one_more], engine)
        tuned.arms[name] = best
        if table:
            tuned.tables[name] = sorted(table, key=lambda row: (row.learning_rate, row.kl_weight))
            _say_if_short(run, hypothesis, name, best, table)
    return tuned


def _first_tuning(hypothesis: HypothesisConfig, names: Sequence[str]) -> list[Job]:
    """The trainings that tune the arms whose settings depend on no other arm's."""
    rates = {name: hypothesis.arms[name].learning_rate for name in names}
    options = {name: candidates(hypothesis.arms[name], {}) for name in names if not isinstance(rates[name], str)}
    several = [(name, arm) for name, arms in options.items() for arm in arms if len(arms) > 1]
    return _jobs(hypothesis, several, hypothesis.tuning_seeds)


def _jobs(hypothesis: HypothesisConfig, arms: Iterable[tuple[str, Arm]], seeds: Sequence[int]) -> list[Job]:
    """The trainings of these arms with these seeds, after the untrained models that they are compared with."""
    named = list(arms)
    bases = {arm.precision: _in_precision(hypothesis, arm) for _, arm in named}
    return [
        *(Job(f"base, seed {seed}", base_point, (base, seed)) for base in bases.values() for seed in seeds),
        *(Job(_label(hypothesis, *each, seed), job, (hypothesis, *each, seed)) for seed in seeds for each in named),
    ]


def _best(
    run: Run, hypothesis: HypothesisConfig, name: str, options: list[Arm], engine: Engine
) -> tuple[Arm, list[TuningRow]]:
    """The best of several settings of an arm, and the results of all; no results where there is no choice."""
    if len(options) == 1:
        return options[0], []
    engine(run, _jobs(hypothesis, [(name, arm) for arm in options], hypothesis.tuning_seeds))
    records = [
        [
            row
            for seed in hypothesis.tuning_seeds
            for row in records_of(run, hypothesis, job(run, hypothesis, name, arm, seed), name, arm, seed)
        ]
        for arm in options
    ]
    results = judge.tuning_results(hypothesis, records)
    preferred = judge.best(results)
    table = [
        TuningRow(
            **vars(result),
            learning_rate=arm.learning_rate,  # type: ignore[arg-type]
            kl_weight=arm.kl_weight,  # type: ignore[arg-type]
            preferred=place == preferred,
        )
        for place, (arm, result) in enumerate(zip(options, results, strict=True))
    ]
    allowed = fixed(options, hypothesis.fixed_rates.get(name))
    return options[allowed[judge.best([results[place] for place in allowed])]], table


def _say_if_short(run: Run, hypothesis: HypothesisConfig, name: str, best: Arm, table: list[TuningRow]) -> None:
    """Say which arm stops short of the gain levels at its best rate, before time is spent on confirming it."""
    gain = next(row.gain for row in table if (row.learning_rate, row.kl_weight) == (best.learning_rate, best.kl_weight))
    top = max(hypothesis.gain_levels)
    if gain < top and not run.only_read:
        short = f"{hypothesis.id} {name} gains {gain:.3f} at its best rate, not {top:g}"
        more = f"set arms.{name}.steps to more than {best.steps or hypothesis.steps} in its file"
        run.console.say(f"{short}: to compare it there, {more}")


def records_of(
    run: Run, hypothesis: HypothesisConfig, artifact: Artifact, name: str, arm: Arm, seed: int
) -> list[CheckpointRecord]:
    """The checkpoints of a training, with what their file leaves out: arm, seed, and the untrained model."""
    start = read_records(base_point(run, _in_precision(hypothesis, arm), seed).folder / RECORDS, BasePoint)[0]
    rows = read_records(artifact.folder / RECORDS, CheckpointRecord)
    return [replace(row, arm=name, seed=seed, base=start) for row in rows]


def _in_precision(hypothesis: HypothesisConfig, arm: Arm) -> HypothesisConfig:
    return hypothesis.model_copy(update={"precision": arm.precision or hypothesis.precision})


def job(run: Run, hypothesis: HypothesisConfig, name: str, arm: Arm, seed: int) -> Artifact:
    """Train one arm with one seed and measure it at each checkpoint. Arms that two hypotheses share are run once."""
    hypothesis = _in_precision(hypothesis, arm)
    data, start = pairs.pairs(run), base_point(run, hypothesis, seed)
    inputs = {
        "arm": identity(arm, exclude={"precision"}),
        "seed": seed,
        "pairs": data.fingerprint,
        "base": start.fingerprint,
        "hypothesis": identity(hypothesis, MEASURED),
        "prose": prose_of(run.config.train, arm.kl_on),
        **{section: identity(getattr(run.config, section)) for section in ("lora", "train")},
        "dpo": identity(run.config.dpo, include={"beta", "nll_weight", "kl_batch"}),
    }

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base, personality

        run.release()
        config = arm_config(run.config, hypothesis, arm)
        records: list[CheckpointRecord] = []
        with run.console.progress(f"{name}, seed {seed}") as progress:
            trained = personality.train_personality(
                personality.PersonalityJob(
                    config=config,
                    base=base.load(config.model),
                    folder=folder / "weights",
                    seed=seed,
                    progress=progress,
                    pairs=random.Random(seed).sample(pairs.load_pairs(data, "train"), hypothesis.pairs),
                    neutral=pairs.load_exchanges(data, "neutral_train"),
                    references=run.references,
                    measurements=_measurements(run, hypothesis, arm, seed, start, records),
                )
            )
        drop_weights(folder / "weights")
        write_records(folder / RECORDS, records)
        return {"arm": name, "seed": seed, "train_s": round(trained.seconds, 1), "gain": records[-1].gain}

    return run.do("job", inputs, make, _label(hypothesis, name, arm, seed))


def _label(hypothesis: HypothesisConfig, name: str, arm: Arm, seed: int) -> str:
    return f"{hypothesis.id} {name} at {arm.learning_rate:g}, seed {seed}"


def _measurements(
    run: Run, hypothesis: HypothesisConfig, arm: Arm, seed: int, start: Artifact, records: list[CheckpointRecord]
) -> Measurements:
    """Append a record at each checkpoint. The composite is measured once: at the middle gain level, or at the end."""
    from moltlm.adapters.training import Measurements

    origin = read_records(start.folder / RECORDS, BasePoint)[0]
    probe = checkpoint.probe(run, hypothesis, seed)
    middle = sorted(hypothesis.gain_levels)[len(hypothesis.gain_levels) // 2]
    steps = tuple(hypothesis.checkpoints_of(arm))

    def measure(step: int, text: TextModel) -> None:
        record = _since_base(hypothesis, probe(text), origin, step, arm)
        late = record.gain >= middle or step == steps[-1]
        if hypothesis.composite and late and all(row.composite is None for row in records):
            record = replace(record, composite=checkpoint.composite(text, hypothesis, seed, record.items))
        records.append(record)

    return Measurements(measure, steps)


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


def base_point(run: Run, hypothesis: HypothesisConfig, seed: int) -> Artifact:
    """The untrained model on this seed's items: step 0 of every arm."""
    data = pairs.pairs(run)
    measured = identity(hypothesis, include={"items", "precision", "prompts", "neutral"})
    inputs = {"pairs": data.fingerprint, "skip": checkpoint.skip(hypothesis, seed), "hypothesis": measured}

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base
        from moltlm.adapters.serve import TextModel

        measure = checkpoint.probe(run, hypothesis, seed)
        loaded = base.load(run.config.model, hypothesis.precision)
        point = measure(TextModel(loaded.model, loaded.tokenizer))
        write_records(folder / RECORDS, [point])
        return {"likelihood": point.likelihood, "persona": point.persona, "coherent": point.coherent}

    return run.do("job-base", inputs, make, f"base, seed {seed}")


def drop_weights(folder: Path) -> None:
    """Delete the weights of a training: only the records count, and a full fine-tuning would store a model a job."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
