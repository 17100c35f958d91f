"""What the grid of a hypothesis takes: trainings, time and memory."""

from __future__ import annotations

from dataclasses import dataclass

from moltlm.data.io import read_json
from moltlm.evals.config import HypothesisConfig
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup import estimate, fitting
from moltlm.pipeline.studies.arms import ANY_RATE, arm_config, arm_names, candidates, in_order


@dataclass(frozen=True)
class Plan:
    """What a grid takes.

    Attributes:
        tuning: trainings that choose settings; `confirming` those that are compared.
        beyond: how many more can follow where the best learning rate lies at an edge.
        left: how many of them are not finished.
        seconds_each: the mean of all trainings in the folder, of whatever hypothesis; None before the first.
        gib: estimated for the largest arm, without the base that the measurements load too.
    """

    id: str
    tuning: int
    confirming: int
    beyond: int
    left: int
    seconds_each: float | None
    gib: float

    def __str__(self) -> str:
        total = self.tuning + self.confirming
        count = f"{total} trainings, {self.tuning} to tune and {self.confirming} to confirm"
        more = f" (and up to {self.beyond} beyond an edge)" if self.beyond else ""
        if self.left == 0:
            return f"{self.id}: {count}{more}; all are finished"
        finished = f"; {total - self.left} are finished" if self.left < total else ""
        time = "the time of each is known after the first"
        if self.seconds_each is not None:
            hours = self.left * self.seconds_each / 3600
            time = f"about {self.seconds_each / 60:.0f} minutes each by those in the folder, {hours:.1f} h in all"
        return f"{self.id}: {count}{more}{finished}; {time}; about {self.gib:.1f} GiB for training alone"


def plan(run: Run, hypothesis: HypothesisConfig) -> Plan:
    """Plan the whole grid of a hypothesis that was checked, as if nothing of it were finished. Trains nothing."""
    names = in_order(hypothesis, arm_names(hypothesis))
    options = {name: candidates(hypothesis.arms[name], dict.fromkeys(names, ANY_RATE)) for name in names}
    seeds = len(hypothesis.tuning_seeds)
    several = [name for name in names if isinstance(hypothesis.arms[name].learning_rate, list)]
    memory, device = [], fitting.this_machine().device
    for arm in names:
        settings = arm_config(run.config, hypothesis, options[arm][0])
        changes = {"model": settings.model, "lora": settings.lora, "personality": settings.personality}
        memory.append(estimate.training_memory(run.config.model_copy(update=changes), device).total)
    seconds = [read_json(folder / "artifact.json")["seconds"] for folder in run.stored("job")]
    tuning = sum(len(arms) * seeds for arms in options.values() if len(arms) > 1)
    confirming = len(names) * len(hypothesis.seeds)
    return Plan(
        id=hypothesis.id,
        tuning=tuning,
        confirming=confirming,
        beyond=len(several) * seeds,
        left=tuning + confirming,
        seconds_each=sum(seconds) / len(seconds) if seconds else None,
        gib=max(memory),
    )
