"""Commands for maintenance: the gate, retraining, the registry, the schedule."""

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
registry_app = group(app, "registry", "List, promote and roll back adapters.")
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


@registry_app.command("list")
def registry_list(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """The adapters that were judged, and which are in use. With --json, the history too."""
    from moltlm.pipeline.service.registry import Registry

    console = Console(json_output)
    registry = Registry(loaded(config, overrides).registry.folder)
    current, (entries, damaged) = registry.current(), registry.entries()
    lines = []
    for entry in entries:
        mark = "*" if current.get(entry.slot) == entry.id else " "
        checks = entry.verdict.get("checks", [])
        failed = [f"{each['name']} {each['outcome']}" for each in checks if each["outcome"] != "pass"]
        passed = "passed the gate" if checks else "not judged"
        lines.append(f"{mark} {entry.id}  {entry.added[:19]}  {', '.join(failed) or passed}")
    lines += [f"! {name}  damaged, and cannot be used" for name in damaged]
    if entries:
        lines.append(f"* in use. next: molt registry promote ID {arguments(config, overrides)}")
    value = {
        "current": current,
        "entries": [asdict(entry) for entry in entries],
        "anchor": registry.anchor(),
        "damaged": damaged,
        "history": [asdict(change) for change in registry.history()],
    }
    console.result(
        value,
        "\n".join(lines) or f"The registry {registry.folder} is empty. next: molt run {arguments(config, overrides)}",
    )


@registry_app.command("promote")
def registry_promote(
    identity: Annotated[str, typer.Argument(help="an id from `molt registry list`")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Put a kept adapter into use by hand."""
    from moltlm.pipeline.service.registry import Registry

    registry = Registry(loaded(config, overrides).registry.folder)
    against = registry.entry(identity).judged_against
    before = registry.current().get(registry.entry(identity).slot, "")
    out = registry.promote(identity)
    lines = [f"It was judged against {against}, not against {before or 'nothing'}, which it replaces."]
    lines = lines if against and against != before else []
    anchor = registry.anchor()
    if not against and registry.entry(identity).slot == "personality" and anchor != identity:
        begin = f"molt registry rebaseline {arguments(config, overrides)}"
        lines.append(f"Retrainings are still compared with {anchor}, too. To begin anew: {begin}")
    lines += [f"{identity} is in use now. Undo: molt registry rollback {arguments(config, overrides)}"]
    lines += [f"{other} is not any more: it was trained above another personality." for other in out]
    Console(json_output).result(registry.current(), "\n".join(lines))


@registry_app.command("rollback")
def registry_rollback(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Undo the last promotion."""
    from moltlm.pipeline.service.registry import Registry

    now = Registry(loaded(config, overrides).registry.folder).rollback()
    text = ", ".join(f"{slot}: {identity}" for slot, identity in now.items()) or "nothing"
    Console(json_output).result(now, f"in use now: {text}")


@registry_app.command("retire")
def registry_retire(
    slot: Annotated[str, typer.Argument(help="the name of a task in use")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Take a task out of use, and those that were trained above it."""
    from moltlm.pipeline.service.registry import Registry

    registry = Registry(loaded(config, overrides).registry.folder)
    out = registry.retire(slot)
    lines = [f"{identity} is not in use any more" for identity in out]
    undo = f"Undo: molt registry rollback {arguments(config, overrides)}"
    Console(json_output).result(registry.current(), "\n".join([*lines, undo]))


@registry_app.command("rebaseline")
def registry_rebaseline(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Compare later retrainings with the personality in use instead of the first one (gate.anchor_margin)."""
    from moltlm.pipeline.service.registry import Registry

    anchor = Registry(loaded(config, overrides).registry.folder).rebaseline()
    Console(json_output).result({"anchor": anchor}, f"later retrainings are compared with {anchor}, too")


@registry_app.command("repair")
def registry_repair(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Replace a damaged state of the registry by the one before the last change."""
    from moltlm.pipeline.service.registry import Registry

    now = Registry(loaded(config, overrides).registry.folder).repair()
    text = ", ".join(f"{slot}: {identity}" for slot, identity in now.items()) or "nothing"
    Console(json_output).result(now, f"in use now: {text}. Look whether that is right: molt registry list CONFIG")


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
