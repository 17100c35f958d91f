"""Commands that run a stage, a study, or the whole job."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moltlm.data.state import Adapter
from moltlm.pipeline.commands.common import (
    ConfigArg,
    EngineName,
    JobCpus,
    JobGpus,
    Json,
    Overrides,
    arguments,
    artifact_json,
    engine_of,
    group,
    loaded,
    print_artifacts,
    running,
)
from moltlm.pipeline.console import Console

app = typer.Typer()
DEMO_FOLDER = Path("runs/demo")
data_app = group(app, "data", "Import conversations, build and inspect preference pairs.")
train_app = group(app, "train", "Train personality and task adapters.")
replay_app = group(app, "replay", "Build and update the replay buffer.")


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="folder of the run")] = DEMO_FOLDER,
    json_output: Json = False,
) -> None:
    """Run every stage on the embedded model and write a report. It says at the start how long it takes here."""
    folder_override = [f"run.folder={folder}"] if folder != DEMO_FOLDER else []
    _whole_job("demo", [*folder_override, *(overrides or [])], json_output)


@app.command()
def run(
    config: ConfigArg,
    overrides: Overrides = None,
    engine: EngineName = "local",
    job_cpus: JobCpus = 1,
    job_gpus: JobGpus = None,
    json_output: Json = False,
) -> None:
    """Run every stage in order, reusing what is stored; an interrupted run resumes.

    With Ray, each measurement of a state and each training of a hypothesis is a job.
    """
    _whole_job(config, overrides, json_output, engine, job_cpus, job_gpus)


def _whole_job(
    name: str,
    overrides: list[str] | None,
    json_output: bool,
    engine: str = "local",
    cpus: float = 1,
    gpus: float | None = None,
) -> None:
    console, same = Console(json_output), arguments(name, overrides)
    with running(loaded(name, overrides), console) as current:
        from moltlm.pipeline import job

        outcome = job.run_all(current, same, engine_of(engine, cpus, gpus))
        console.result(
            {"report": str(outcome.report), "results": str(outcome.results), "summary": outcome.summary},
            "\n".join([*outcome.summary, f"report: {outcome.report}", f"next: molt report {same} --open"]),
        )


@data_app.command("import")
def data_import(
    paths: Annotated[list[Path], typer.Argument(help="chat exports, transcripts, session logs, or folders of them")],
    out: Annotated[Path, typer.Option(help="JSONL file to write")] = Path("conversations/imported.jsonl"),
    assistant: Annotated[
        str, typer.Option(help="the persona's name, in chats that name their speakers", show_default=False)
    ] = "",
    redact: Annotated[
        bool,
        typer.Option(
            help="replace secrets and passwords, e-mail and street addresses, numbers of phones, cards, accounts "
            "(IBAN) and documents, addresses of machines and positions by marks such as [EMAIL]"
        ),
    ] = True,
    json_output: Json = False,
) -> None:
    """Convert chat exports to clean JSONL; the format is detected from the content.

    Near-duplicates are dropped and secrets redacted.
    """
    from moltlm.data.config import ImportConfig
    from moltlm.data.conversations import importers
    from moltlm.data.conversations.report import ImportReport, lines
    from moltlm.data.conversations.voices import Voice
    from moltlm.data.errors import BadInput

    console = Console(json_output)
    if out.exists():
        raise BadInput(f"{out} exists already.", "Name another: --out conversations/more.jsonl")
    report, settings = ImportReport(), ImportConfig(redact=redact, assistant=assistant)
    command = shlex.join(["molt", "data", "import", *map(str, paths), "--out", str(out)]) + " --no-redact" * (
        not redact
    )
    voice = Voice(option=f"--assistant {{}}: {command.replace('{', '{{').replace('}', '}}')} --assistant {{}}")
    count = importers.write(importers.require_any(importers.read(paths, settings, report, voice), report, paths), out)
    text = [*lines(report.facts()), f"{count} exchanges of {report.turns} assistant turns in {out}"]
    text.append(f"next: molt data build CONFIG {shlex.quote(f'conversations.paths=[{out}]')}")
    console.result({**report.facts(), "out": str(out)}, "\n".join(text))


@data_app.command("build")
def data_build(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Build preference pairs: the persona's answers against those of the base model."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import pairs

        print_artifacts(console, [pairs.pairs(current)], f"molt train personality {arguments(config, overrides)}")


@replay_app.command("update")
def replay_update(
    config: ConfigArg,
    paths: Annotated[
        list[str], typer.Argument(help="files or folders of new conversations, then settings as KEY=VALUE")
    ],
    json_output: Json = False,
) -> None:
    """Build the next replay buffer from the current one and new conversations."""
    console = Console(json_output)
    overrides = [item for item in paths if "=" in item]
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import replay

        new = [Path(item) for item in paths if "=" not in item]
        print_artifacts(console, [replay.updated_buffer(current, new)], f"molt retrain {arguments(config, overrides)}")


@train_app.command("personality")
def train_personality(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Train the personality adapter: TRL's DPO with NLL and explicit KL, or SFT."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import personality

        print_artifacts(
            console, [personality.personality(current)], f"molt replay build {arguments(config, overrides)}"
        )


@data_app.command("introspection")
def data_introspection(
    config: ConfigArg,
    overrides: Overrides = None,
    n: Annotated[int, typer.Option("-n", min=0, help="number of texts to print")] = 3,
    json_output: Json = False,
) -> None:
    """Let the trained personality write about itself, filter it, and print some of it. Trains nothing on it."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import show
        from moltlm.pipeline.stages import introspection

        artifact = introspection.introspection(current)
        lines = show.introspection(artifact.facts, introspection.load_texts(artifact), n, current.config.run.seed)
        lines.append(f"texts: {artifact.folder / introspection.TEXTS}")
        lines.append(f"next: molt train personality {arguments(config, overrides)}")
        console.result(artifact_json(artifact), "\n".join(lines))


@data_app.command("lint")
def data_lint(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Print what the filters dropped and why, leakage, length bias and variety."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import show
        from moltlm.pipeline.stages import pairs

        artifact = pairs.pairs(current)
        card = f"card: {artifact.folder / 'README.md'}"
        console.result(artifact_json(artifact), "\n".join([*show.lint(artifact.facts), card]))


@data_app.command("show")
def data_show(
    config: ConfigArg,
    overrides: Overrides = None,
    n: Annotated[int, typer.Option("-n", min=0, help="number of examples")] = 3,
    split: Annotated[str, typer.Option(help="split to show: train or heldout")] = "train",
    json_output: Json = False,
) -> None:
    """Print how the pairs spread over topics, traits and lengths, and some of them token by token."""
    from moltlm.data.errors import BadInput

    if split not in ("train", "heldout"):
        raise BadInput(f"There is no split {split}.", "Use --split train or --split heldout")
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import show

        value, text = show.lines(current, split, n)
        console.result(value, "\n".join(text))


@replay_app.command("build")
def replay_build(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Choose the exchanges to replay while tasks are learned, within a token budget."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import replay

        print_artifacts(console, [replay.buffer(current)], f"molt train task NAME {arguments(config, overrides)}")


@train_app.command("task")
def train_task(
    name: Annotated[str, typer.Argument(help="name of a task of the config")],
    config: ConfigArg,
    overrides: Overrides = None,
    control: Annotated[bool, typer.Option("--control", help="train without replay, as a control")] = False,
    json_output: Json = False,
) -> None:
    """Train a task adapter above the frozen personality, with replay mixed in."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout

        adapter = Adapter(name, control)
        layout.task_settings(current, adapter)
        from moltlm.pipeline.stages import tasks

        artifact, state = tasks.task(current, adapter), layout.state_of(current, adapter)
        print_artifacts(console, [artifact], f"molt eval persona {arguments(config, overrides)} --state {state}")


@app.command()
def report(
    config: ConfigArg,
    overrides: Overrides = None,
    open_it: Annotated[bool, typer.Option("--open", help="open the report in a browser")] = False,
    json_output: Json = False,
) -> None:
    """Write results.json, report.html and report.md from the stored records. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import writing

        outcome = writing.write_report(current)
        console.result(
            {"report": str(outcome.report), "results": str(outcome.results), "summary": outcome.summary},
            "\n".join([*outcome.summary, f"report: {outcome.report}"]),
        )
    if open_it:
        typer.launch(str(outcome.report))
