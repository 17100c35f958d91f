"""What the commands share: arguments, a run to work in, and how an artifact is told."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.run import Artifact, Run

ConfigArg = Annotated[str, typer.Argument(help="a YAML file, or a shipped config: demo, smoke, llama-8b")]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings as KEY=VALUE, for example dpo.beta=0.2")]
Json = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]


def group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    sub = typer.Typer(no_args_is_help=True, help=text)
    app.add_typer(sub, name=name)
    return sub


@contextmanager
def running(config: Config, console: Console) -> Iterator[Run]:
    from moltlm.pipeline.run import Run

    run = Run(config, console)
    try:
        yield run
    except KeyboardInterrupt:  # here, since typer would make a silent exit of it
        console.error("Interrupted.", "Run the same command again: it continues with what is done.")
        raise typer.Exit(130) from None
    finally:
        run.close()


def loaded(name: str, overrides: list[str] | None) -> Config:
    from moltlm.pipeline.config import load

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
