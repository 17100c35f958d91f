"""What a comparison of methods takes: sequences, trainings and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moltlm.pipeline.run import Missing, Run
from moltlm.pipeline.setup import forecast
from moltlm.pipeline.setup import parts as setup_parts
from moltlm.pipeline.studies import bounds, comparison, sequence
from moltlm.pipeline.studies.engine import Job


@dataclass(frozen=True)
class Plan:
    """What a comparison takes.

    Attributes:
        sequences: methods times seeds, without those of other runs; `finished` those that are stored.
        bounds: the same of the bounds; a pair of them costs about as much as two sequences, `joint` as long as one.
        bounds_finished: those that are stored.
        trainings: task trainings of what is left. Some may be shared, as by two routers over the same adapters.
        seconds_each: of a sequence, with its measurements.
        measured: whether that is the mean of the finished ones, and not an estimate by the speed of this machine.
    """

    sequences: int
    finished: int
    bounds: int
    bounds_finished: int
    trainings: int
    seconds_each: float
    measured: bool

    @property
    def hours(self) -> float:
        """Of what is left."""
        return (self.sequences - self.finished + self.bounds - self.bounds_finished) * self.seconds_each / 3600

    def __str__(self) -> str:
        if not self.sequences + self.bounds:
            return "Nothing is left to train."
        basis = (
            f"by the {self.finished} finished ones"
            if self.measured
            else "by the speed of this machine just now, a rough estimate until one is finished"
        )
        return (
            f"{self.sequences} sequences and {self.bounds} bounds, of which {self.finished} and {self.bounds_finished} "
            f"are finished; {self.trainings} trainings of tasks are left; about {self.seconds_each / 60:.0f} minutes "
            f"for each sequence or bound {basis}, {self.hours:.1f} h in all"
        )


def plan(run: Run, only: Sequence[str] = (), best: int | None = None, other_runs: Sequence[Path] = ()) -> Plan:
    """Plan a comparison. Trains nothing for good. `molt compare-methods CONFIG --plan`

    Args:
        only: as in `comparison.compare`; bounds are not trained with it.
        best: as there.
        other_runs: as there; what they have is not counted.
    """
    config = run.config
    seeds, tasks = config.sequence.seeds, len(config.tasks)
    names = sequence.methods_to_train(config, only)
    later = names if best is None else names[: best + 1]
    every = [(name, seeds[0]) for name in names] + [(name, seed) for seed in seeds[1:] for name in later]
    available = comparison.rows_of(config, other_runs)
    trials = [trial for trial in every if trial not in available]
    limits = [] if only else bounds.cells(config, bounds.rows_of(config, other_runs))
    times = [_stored(run, Job("", sequence.trial, trial), trial) for trial in trials]
    finished = {key: seconds for each in times if each is not None for key, seconds in each.items()}
    count = sum(each is not None for each in times)
    left = [bound for bound in limits if _stored(run, Job("", bounds.trial, bound), None) is None]
    return Plan(
        sequences=len(trials),
        finished=count,
        bounds=len(limits),
        bounds_finished=len(limits) - len(left),
        trainings=(len(trials) - count) * tasks + sum(tasks if bound == "alone" else 1 for bound, _ in left),
        seconds_each=_seconds_each(run, finished, count, names[0]) if trials or left else 0.0,
        measured=bool(count),
    )


def _seconds_each(run: Run, finished: dict[str, float], count: int, name: str) -> float:
    """By the sequences that are finished, or an estimate by the speed of this machine."""
    return sum(finished.values()) / count if count else _estimate(run, name, run.config.sequence.seeds[0])


def _stored(run: Run, job: Job, trial: tuple[str, int] | None) -> dict[str, float] | None:
    """The seconds of every artifact of a trial, without what all trials have in common; None if it is not finished."""
    reader = run.reader()
    try:
        job(reader)
        whole = dict(reader.artifacts)
        if trial is not None:
            common = run.reader()
            sequence.before_tasks(common, *trial)
            whole = {key: each for key, each in whole.items() if key not in common.artifacts}
    except Missing:
        return None
    return {key: artifact.seconds for key, artifact in whole.items()}


def _estimate(run: Run, name: str, seed: int) -> float:
    """Seconds of a sequence: its trainings, the task scores, and the evidence of its last state."""
    with run.varied(sequence.method(run.config, name, seed)):
        speed = forecast.measure(run)
        every = setup_parts.parts(run, forecast.counter(run))
        seconds = {part.name: speed.seconds(part.work) for part in every}
        names = list(run.config.tasks)
        trainings = sum(seconds[task] for task in names)
    after = range(1, len(names) + 1)
    scores = sum(len(sequence.scored_after(names, count, run.config.sequence.history)) for count in after)
    # `skills` scores each task before and after its training, `evidence` the base, the personality and every task
    return trainings + seconds["skills"] * scores / (2 * len(names)) + seconds["evidence"] / (len(names) + 2)
