"""What the commands share: arguments, an open run, and how artifacts are printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltlm.adapters import processes
from moltlm.data.conversations.report import lines as import_lines
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.run import Artifact, Run
    from moltlm.pipeline.studies.engine import Engine

ConfigArg = Annotated[str, typer.Argument(help="YAML file or shipped config: demo, smoke, llama-8b")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="settings to change, as KEY=VALUE, for example dpo.beta=0.2")
]
MethodsConfigArg = Annotated[
    str, typer.Argument(help="YAML file or shipped config with methods to compare: sequence-135m, sequence-screening")
]
StudyConfigArg = Annotated[
    str, typer.Argument(help="YAML file or shipped config to train with: evidence-135m (the committed study), demo")
]
Own = Annotated[bool, typer.Option("--own", help="the run's own adapters, whatever is in use in the registry")]
EngineName = Annotated[
    str, typer.Option("--engine", help="local: one job after the other, here; ray: jobs on the nodes of a Ray cluster")
]
JobCpus = Annotated[float, typer.Option(min=0, help="processors of each job on Ray")]
JobGpus = Annotated[
    float | None,
    typer.Option(min=0, help="GPUs of each job on Ray; by default one, where any node has one", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="write one JSON document to standard output")]


def group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    """A group of commands under one name, with its help text."""
    sub = typer.Typer(no_args_is_help=True, help=text)
    app.add_typer(sub, name=name)
    return sub


@contextmanager
def running(config: Config, console: Console) -> Iterator[Run]:
    """A run of this configuration, closed at the end."""
    from moltlm.pipeline.run import Run

    _check_processes(config)
    run = Run(config, console)
    try:
        yield run
    except KeyboardInterrupt:  # typer would exit without a word
        console.error("Interrupted.", "Run the same command again: it resumes after the last finished stage.")
        raise typer.Exit(130) from None
    finally:
        run.close()


def _check_processes(config: Config) -> None:
    """Raises BadInput if a training could not be divided over the processes of the command, before anything is made."""
    processes.check_divides(config.personality.batch_size, "personality.batch_size")
    for name, task in config.tasks.items():
        processes.check_divides(task.batch_size, f"tasks.{name}.batch_size")


def loaded(name: str, overrides: list[str] | None) -> Config:
    """The configuration of a command, which hints name from then on."""
    from moltlm.pipeline.config import load

    Console.same = [name, *(overrides or [])]
    return load(name, overrides)


def engine_of(name: str, cpus: float, gpus: float | None) -> Engine:
    """The engine that a command names.

    Raises:
        BadInput: for an unknown name, or Ray where it is not installed or has no cluster with such nodes.
    """
    from moltlm.data.errors import BadInput

    if name == "local":
        from moltlm.pipeline.studies.engine import local

        return local
    if name != "ray":
        raise BadInput(f"There is no engine {name}.", "Use --engine local or --engine ray")
    from moltlm.pipeline.studies import cluster

    return cluster.connect(cpus, gpus)


def arguments(config: str, overrides: list[str] | None) -> str:
    """The arguments that name the same run in another command, quoted for a shell."""
    return shlex.join([config, *(overrides or [])])


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """An artifact for standard output."""
    return {"stage": artifact.stage, "folder": str(artifact.folder), "seconds": artifact.seconds, **artifact.facts}


def print_artifacts(console: Console, artifacts: list[Artifact], following: str) -> None:
    """Print the folder and facts of each artifact, then the next command."""
    lines = []
    for artifact in artifacts:
        lines.append(f"{artifact.stage}  {artifact.folder}")
        facts = {key: value for key, value in artifact.facts.items() if key != "conversations"}
        lines += [f"  {key}: {_short(value)}" for key, value in facts.items()]
        lines += [f"  {line}" for line in import_lines(artifact.facts.get("conversations", {}))]
    values = [artifact_json(artifact) for artifact in artifacts]
    console.result(values[0] if len(values) == 1 else values, "\n".join([*lines, f"next: {following}"]))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(_short(item) for item in value)
    return str(value)
