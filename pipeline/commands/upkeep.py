"""Commands for maintenance: the gate, retraining, the schedule."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.data.errors import NotPromoted
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, artifact_json, group, loaded, running
from moltlm.pipeline.console import Console

app = typer.Typer()
schedule_app = group(app, "schedule", "Install, look at or remove scheduled retraining.")


@app.command()
def gate(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Judge the run's adapters against what they were trained from; exit code 3 if one is not promoted."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.service import gate as gates

        verdicts = gates.judge_all(current)
        console.result(
            {name: asdict(verdict) for name, verdict in verdicts.items()},
            "\n".join(gates.sentences(verdicts)),
        )
        kept_out = [name for name, verdict in verdicts.items() if not verdict.promoted]
    if kept_out:
        same = arguments(config, overrides)
        raise NotPromoted(
            f"Not promoted: {', '.join(kept_out)}. They are kept in the registry.",
            f"See why: molt report {same} --open   Use one all the same: molt registry promote ID {same}",
        )


@app.command()
def retrain(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """One maintenance cycle on new conversations: train, judge, promote or keep out (exit code 3)."""
    from moltlm.pipeline.service import cycles

    console = Console(json_output)
    settings = loaded(config, overrides)
    with cycles.recorded(settings.run.folder) as record, running(settings, console) as current:
        from moltlm.pipeline.service import retrain as module

        artifact = module.cycle(current, record.passed_over)
        lines = [f"passed over: {file}: {reason}" for file, reason in record.passed_over.items()]
        if artifact is None:
            record.outcome = cycles.NOTHING_NEW
            value = {"promoted": None, "reason": record.outcome, "passed_over": record.passed_over}
            console.result(value, "\n".join([*lines, "nothing to do"]))
            return
        promoted, results = artifact.facts["promoted"], module.task_results(artifact.facts)
        record.outcome = cycles.PROMOTED if promoted else cycles.NOT_PROMOTED
        record.tasks = {result.slot: result.outcome for result in results}
        checks = [check["sentence"] for check in artifact.facts["verdict"]["checks"]]
        lines = [*checks, *(result.sentence() for result in results), *lines]
        value = {**artifact_json(artifact), "passed_over": record.passed_over}
        console.result(value, "\n".join([*lines, f"next: molt registry list {arguments(config, overrides)}"]))
    if not promoted:
        same = arguments(config, overrides)
        lost = " and ".join(result.slot for result in results if not result.survives)
        raise NotPromoted(
            f"The candidate is not promoted{f', since {lost} would be lost' if lost else ''}; what was in use stays.",
            f"It is kept: molt registry list {same}   Use it all the same: molt registry promote ID {same}",
        )


@schedule_app.command("install")
def schedule_install(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Annotated[str | None, typer.Option(help="systemd or cron; by default what this machine has")] = None,
    print_only: Annotated[bool, typer.Option("--print", help="show it and install nothing")] = False,
    json_output: Json = False,
) -> None:
    """A systemd user timer, or a cron line, that runs `molt retrain CONFIG`."""
    from moltlm.pipeline.service import schedule

    console = Console(json_output)
    job = _schedule_job(config, overrides, kind)
    text = "\n".join([*(f"# {path}\n{content}" for path, content in job.files.items())] or [job.line])
    value = {**asdict(job), "files": {str(path): content for path, content in job.files.items()}}
    if print_only:
        console.result(value, text)
        return
    hint = schedule.install(job)
    console.result(value, f"installed {job.name} ({job.kind})\n{hint}")


@schedule_app.command("remove")
def schedule_remove(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Annotated[str | None, typer.Option(help="systemd or cron; by default what this machine has")] = None,
    json_output: Json = False,
) -> None:
    """Take the timer or the cron line away again."""
    from moltlm.pipeline.service import schedule

    job = _schedule_job(config, overrides, kind) if _exists(config) else _job_of_missing(config, kind)
    gone = schedule.remove(job)
    Console(json_output).result({"removed": gone}, f"removed {job.name}" if gone else f"there was no {job.name}")


@schedule_app.command("status")
def schedule_status(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Annotated[str | None, typer.Option(help="systemd or cron; by default what this machine has")] = None,
    json_output: Json = False,
) -> None:
    """Whether it is installed, how the last cycle ended, when the next one runs, and jobs whose folder has gone."""
    from moltlm.pipeline.service import cycles, schedule

    settings, job = loaded(config, overrides), _schedule_job(config, overrides, kind)
    state, last = schedule.status(job, settings.schedule), cycles.last(settings.run.folder)
    same = arguments(config, overrides)
    lines = [
        f"{job.name} ({job.kind}): installed" if state.installed else f"not installed: molt schedule install {same}"
    ]
    if state.outdated:
        lines = [f"{job.name} ({job.kind}) has other settings than {config}: molt schedule install {same}"]
    lines.append(f"last cycle: {last.sentence() if last else 'none yet'}")
    lines += [f"  passed over: {file}: {reason}" for file, reason in (last.passed_over if last else {}).items()]
    lines += [f"next cycle: {state.next_run:%Y-%m-%d %H:%M}"] if state.next_run else []
    lines += [
        f"left behind, {path} is gone: molt schedule remove {shlex.quote(str(path))}" for path in state.left_behind
    ]
    value = {**asdict(state), "kind": job.kind, "name": job.name, "last": asdict(last) if last else None}
    Console(json_output).result(value, "\n".join(lines))


def _exists(config: str) -> bool:
    """Whether a configuration can be had; not one whose folder was moved."""
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.config import find

    try:
        return find(config).is_file()
    except BadInput:
        return False


def _job_of_missing(config: str, kind: str | None) -> Any:
    """The job of a configuration that was moved or removed: its path alone names it."""
    from moltlm.pipeline.config import ScheduleConfig
    from moltlm.pipeline.service import schedule

    return schedule.plan(Path(config), ScheduleConfig(), kind)


def _schedule_job(config: str, overrides: list[str] | None, kind: str | None) -> Any:
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.config import find
    from moltlm.pipeline.service import schedule

    if kind not in (None, "systemd", "cron"):
        raise BadInput(f"--kind {kind} is not known.", "Use --kind systemd or --kind cron")
    return schedule.plan(find(config), loaded(config, overrides).schedule, kind, overrides)
