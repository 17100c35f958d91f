"""Commands for a job that runs by itself: its schedule, its notices, and how it stands."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, group, loaded
from moltlm.pipeline.console import Console

app = typer.Typer()
schedule_app = group(app, "schedule", "Install, look at or remove scheduled retraining.")
Kind = Annotated[
    str | None,
    typer.Option(
        help="systemd, cron, loop, kubernetes, slurm or hf-jobs; by default systemd or cron, which this machine has"
    ),
]
Image = Annotated[str, typer.Option(help="container image with molt in it, for kubernetes and hf-jobs")]


@schedule_app.command("install")
def schedule_install(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Kind = None,
    image: Image = "moltlm:latest",
    print_only: Annotated[bool, typer.Option("--print", help="show it and install nothing")] = False,
    json_output: Json = False,
) -> None:
    """A systemd user timer or a cron line that runs `molt retrain CONFIG`, or a file or line for another scheduler."""
    from moltlm.pipeline.service import schedule

    console = Console(json_output)
    job = _schedule_job(config, overrides, kind, image)
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
    kind: Kind = None,
    json_output: Json = False,
) -> None:
    """Take the timer or the cron line away again."""
    from moltlm.pipeline.service import schedule

    job = _schedule_job(config, overrides, kind) if _exists(config) else _job_of_missing(config, kind)
    gone = schedule.remove(job)
    Console(json_output).result({"removed": gone}, f"removed {job.name}" if gone else f"there was no {job.name}")


@schedule_app.command("loop")
def schedule_loop(config: ConfigArg, overrides: Overrides = None) -> None:
    """Stay, and run a cycle whenever one is due: for containers. A missed one is caught up; SIGTERM ends it."""
    import signal
    import sys
    from threading import Event

    from moltlm.pipeline.config import find
    from moltlm.pipeline.service import loop

    console, settings = Console(), loaded(config, overrides)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    command = [sys.executable, "-m", "moltlm.pipeline.cli", "retrain", str(find(config)), *(overrides or [])]
    job = _schedule_job(config, overrides, "loop")
    console.say(f"A cycle runs {settings.schedule.every} at {settings.schedule.at}. Stop: Ctrl-C")
    loop.run(settings.schedule, job.name, settings.run.folder, command, stop, console.say)


@schedule_app.command("notify")
def schedule_notify(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Send the notice of the last cycle again, or of an empty one, to see whether `schedule.notify` works."""
    from moltlm.data.errors import BadInput
    from moltlm.data.io import utc_now
    from moltlm.pipeline.service import cycles, notices

    settings = loaded(config, overrides)
    if not settings.schedule.notify:
        raise BadInput("schedule.notify is not set.", "Set a command or an https URL: schedule.notify=URL")
    problems: list[str] = []
    record = cycles.last(settings.run.folder) or cycles.Cycle(utc_now())
    notices.send(settings.schedule.notify, record, config, problems.append)
    if problems:
        raise BadInput(problems[0], "")
    Console(json_output).result({"sent": asdict(record)}, "the notice was sent")


@schedule_app.command("status")
def schedule_status(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Kind = None,
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


@app.command()
def status(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """What is in use, how the last cycle ended, what waits, and what needs a person: in at most ten lines."""
    from moltlm.pipeline.commands.common import running
    from moltlm.pipeline.service import overview

    console = Console(json_output)
    with running(loaded(config, overrides), console) as run:
        view = overview.overview(run, arguments(config, overrides), _next_cycle(config, overrides))
    console.result(asdict(view), "\n".join(view.lines()))


def _next_cycle(config: str, overrides: list[str] | None) -> str:
    """When the next cycle runs, or the command that schedules it."""
    from moltlm.data.errors import MoltError
    from moltlm.pipeline.config import find
    from moltlm.pipeline.service import schedule

    settings = loaded(config, overrides).schedule
    same = arguments(config, overrides)
    for kind in ("systemd", "cron", *schedule.FILES):
        try:
            state = schedule.status(schedule.plan(find(config), settings, kind, overrides), settings)
        except MoltError:
            continue
        if state.next_run:
            return f"{state.next_run:%Y-%m-%d %H:%M} ({kind})"
        if state.outdated:
            return f"by other settings than {config}: molt schedule install {same}"
    return f"not scheduled: molt schedule install {same}"


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


def _schedule_job(config: str, overrides: list[str] | None, kind: str | None, image: str = "moltlm:latest") -> Any:
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.config import find
    from moltlm.pipeline.service import schedule

    if kind is not None and kind not in schedule.KINDS:
        raise BadInput(f"--kind {kind} is not known.", f"Use one of: {', '.join(schedule.KINDS)}")
    return schedule.plan(find(config), loaded(config, overrides).schedule, kind, overrides, image)
