"""A comparison of methods against forgetting: every method and both bounds with every seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moltlm.pipeline.config import Config
from moltlm.pipeline.run import Missing, Run
from moltlm.pipeline.studies import bounds, methods, sequence
from moltlm.pipeline.studies.bounds import BoundRow
from moltlm.pipeline.studies.engine import Engine, Job, local
from moltlm.pipeline.studies.methods import MethodRow
from moltlm.pipeline.typed_json import from_plain


@dataclass
class Comparison:
    """What is measured so far."""

    rows: list[MethodRow] = field(default_factory=list)
    bounds: list[BoundRow] = field(default_factory=list)


OnChange = Callable[[Comparison], None]


def compare(
    run: Run,
    only: Sequence[str] = (),
    best: int | None = None,
    other_runs: Sequence[Path] = (),
    on_change: OnChange = lambda comparison: None,
    engine: Engine = local,
) -> Comparison:
    """Train and measure every method with every seed, and after each seed its bounds. What is there already is reused.
    `molt compare-methods CONFIG`

    Args:
        only: the methods to train, and no bounds; all if empty. What was measured before is reported in any case.
        best: after the first seed, train only the reference and so many of the best methods.
        other_runs: methods.json files of other runs, whose rows are taken as they are, and those of the bounds.json
            beside them.
        on_change: called whenever there is more, to write it down.
        engine: gets the jobs of all seeds at once; with `best`, the methods of one seed at a time, and the bounds with
            the first.

    Raises:
        BadInput: for a method that the config does not have, a setting that no method may change, or a file of another
            run that is none, or of other tasks.
    """
    settings, names = run.config.sequence, sequence.methods_to_train(run.config, only)
    available, other_bounds = rows_of(run.config, other_runs), bounds.rows_of(run.config, other_runs)
    result = Comparison(bounds=bounds.measured(run, [], other_bounds))
    limits = [] if only else bounds.jobs(run.config, other_bounds)
    if best is None:
        engine(run, [*(job for seed in settings.seeds for job in _jobs(names, seed, available)), *limits])
    for place, seed in enumerate(settings.seeds):
        if best is not None and result.rows and place == 1:
            means = methods.means(result.rows, settings.reference)
            names = [settings.reference, *methods.best(means, best, settings.reference)]
        if best is not None:
            engine(run, [*_jobs(names, seed, available), *([] if place else limits)])
        for name in settings.methods:
            row = available.get((name, seed)) or _row(run, name, seed, train=name in names)
            if row is not None:
                result.rows.append(row)
                on_change(result)
        if limits:
            result.bounds = bounds.measured(run, settings.seeds[: place + 1], other_bounds)
            on_change(result)
    return result


def rows_of(config: Config, other_runs: Sequence[Path]) -> dict[tuple[str, int], MethodRow]:
    """The rows of other runs by method and seed.

    Args:
        other_runs: methods.json files.

    Raises:
        BadInput: for one that has other tasks, or another order of them.
    """
    orders = {seed: sequence.order(config, seed) for seed in config.sequence.seeds}
    rows = [row for file in other_runs for row in methods.read_rows(file, list(config.tasks), orders)]
    return {(row.method, row.seed): row for row in rows}


def _jobs(names: Sequence[str], seed: int, available: Collection[tuple[str, int]]) -> list[Job]:
    """The methods with this seed that are not available, after what they have in common."""
    jobs = [
        Job(f"{name}, seed {seed}", sequence.trial, (name, seed)) for name in names if (name, seed) not in available
    ]
    return [Job(f"before any task, seed {seed}", sequence.before_tasks, jobs[0].arguments), *jobs] if jobs else []


def _row(run: Run, name: str, seed: int, train: bool) -> MethodRow | None:
    """None where it has not been measured and is not to be trained now."""
    try:
        with run.reading(not train):
            facts = sequence.trial(run, name, seed).facts
    except Missing:
        return None
    return from_plain({"method": name, "seed": seed, **facts}, MethodRow)
