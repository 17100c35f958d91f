"""Questions to all trainings of the grids together: an early sign of forgetting, and a threshold of KL to the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, read_jsonl
from moltlm.evals import early as early_eval
from moltlm.evals import threshold
from moltlm.evals.records import CheckpointRecord, read_records
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.studies.verdict import Explored
from moltlm.pipeline.typed_json import write_document


def explore(run: Run) -> Artifact:
    """Ask of all trainings in this folder whether forgetting can be predicted early, and whether there is a threshold
    of KL to the base above which capability falls. No hypothesis asks either. `molt hypothesis explore CONFIG`

    Raises:
        BadInput: if there is no training.
    """
    folders = sorted(run.stored("job"), key=_content)  # so that resampling does not depend on fingerprints
    if not folders:
        raise BadInput(f"No training of a hypothesis is in {run.folder}.", "Run one: molt hypothesis run H014 CONFIG")

    def make(folder: Path) -> dict[str, Any]:
        trainings = [_signals_and_doses(one) for one in folders]
        early = early_eval.detect([signals for signals, _ in trainings])
        limit = threshold.find([dose for _, doses in trainings for dose in doses])
        write_document(folder / "explored.json", Explored(early, limit))
        facts = {"trainings": early.n, "events": early.events, "early sign": early.best}
        return {**facts, "threshold": limit.at if limit and limit.shown else None}

    return run.do("explored", {"jobs": [one.name for one in folders]}, make)


def _content(folder: Path) -> str:
    """What a training is, for an order that stays the same when fingerprints change."""
    inputs = read_json(folder / "inputs.json")
    return json.dumps([f"{inputs['seed']:09}", inputs["arm"], inputs["hypothesis"]], sort_keys=True) + folder.name


def _signals_and_doses(folder: Path) -> tuple[early_eval.EarlyRun, list[threshold.Dose]]:
    """One training for both questions. Trainings of one arm and learning rate are of one group."""
    inputs, records = read_json(folder / "inputs.json"), read_records(folder / "records.jsonl", CheckpointRecord)
    group, rate, seed = fingerprint(inputs["arm"]), inputs["arm"]["learning_rate"], inputs["seed"]
    losses = [(row["step"], row["loss"]) for row in read_jsonl(folder / "weights" / "metrics.jsonl")]
    signals = early_eval.run(records, losses, group, seed, rate)
    doses = [threshold.Dose(seed, row.kl, early_eval.cost(row)) for row in records if row.kl is not None]
    return signals, doses
