"""Commands for experiments over many trainings: methods on a sequence of tasks, and hypotheses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moltlm.pipeline.commands.common import (
    EngineName,
    JobCpus,
    JobGpus,
    Json,
    MethodsConfigArg,
    Overrides,
    StudyConfigArg,
    arguments,
    engine_of,
    group,
    loaded,
    print_artifacts,
    running,
)
from moltlm.pipeline.console import Console

HYPOTHESIS = (
    "YAML file or shipped hypothesis: h014, h015; h014-135m, h015-135m, h015-control-135m, h014-replication, "
    "h015-replication, h014-second-model, h015-second-model, h014-placement, h014-rank"
)
HypothesisArg = Annotated[str, typer.Argument(help=HYPOTHESIS)]

app = typer.Typer()
hypothesis_app = group(app, "hypothesis", "Test pre-registered hypotheses about training.")


@app.command("compare-methods")
def compare_methods(
    config: MethodsConfigArg,
    overrides: Overrides = None,
    only: Annotated[
        str, typer.Option(help="train only these methods, separated by commas; the report has all that are measured")
    ] = "",
    best: Annotated[int | None, typer.Option(min=1, help="run the remaining seeds only for the N best methods")] = None,
    measured_rows: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="methods.json of another run: its rows, and those of the bounds.json beside it, are taken as they are",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="print how many trainings are left and how long they take; train nothing")
    ] = False,
    engine: EngineName = "local",
    job_cpus: JobCpus = 1,
    job_gpus: JobGpus = None,
    json_output: Json = False,
) -> None:
    """Compare methods against forgetting on sequences of tasks: what each learns and keeps.

    Shipped configs with methods: sequence-135m, sequence-screening. An interrupted comparison resumes.
    """
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import methods as methods_report
        from moltlm.pipeline.studies import comparison, sequence, sequence_plan
        from moltlm.pipeline.studies.comparison import Comparison
        from moltlm.pipeline.typed_json import to_plain

        selected = [name.strip() for name in only.split(",") if name.strip()]
        reference, files, others = current.config.sequence.reference, list[Path](), measured_rows or []
        executor = engine_of(engine, job_cpus, job_gpus)
        sequence.methods_to_train(current.config, selected)  # a wrong name or setting shows before anything is trained
        if plan:
            planned = sequence_plan.plan(current, selected, best, others)
            console.result(asdict(planned), str(planned))
            return

        def write(now: Comparison) -> None:
            files[:] = methods_report.write(current.folder, now.rows, reference, now.bounds)

        result = comparison.compare(current, selected, best, others, write, executor)
        table = methods_report.table(result.rows, reference, result.bounds)
        console.result(to_plain(result.rows), f"{table}\n{', '.join(map(str, files))}")


@hypothesis_app.command("run")
def hypothesis_run(
    name: HypothesisArg,
    config: StudyConfigArg = "demo",
    overrides: Overrides = None,
    arm: Annotated[str, typer.Option(help="run only the trainings of this arm, without a verdict")] = "",
    engine: EngineName = "local",
    job_cpus: JobCpus = 1,
    job_gpus: JobGpus = None,
    json_output: Json = False,
) -> None:
    """Run the trainings of a hypothesis that are not stored, and judge it by the rule in its file."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        executor = engine_of(engine, job_cpus, job_gpus)
        artifacts = grid.train_arm(current, name, arm, executor) if arm else [grid.verdict(current, name, executor)]
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")


@hypothesis_app.command("plan")
def hypothesis_plan(
    name: HypothesisArg,
    config: StudyConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Print how many trainings of a hypothesis are left, how long they take, and how much memory. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        planned = grid.planned(current, name)
        console.result(asdict(planned), f"{planned}\nnext: molt hypothesis run {name} {arguments(config, overrides)}")


@hypothesis_app.command("explore")
def hypothesis_explore(config: StudyConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Ask all stored trainings whether forgetting shows early, and whether it starts at a threshold of KL."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies.explore import explore

        print_artifacts(console, [explore(current)], f"molt report {arguments(config, overrides)}")


@hypothesis_app.command("knowledge")
def hypothesis_knowledge(
    config: StudyConfigArg,
    overrides: Overrides = None,
    engine: EngineName = "local",
    job_cpus: JobCpus = 1,
    job_gpus: JobGpus = None,
    json_output: Json = False,
) -> None:
    """Teach invented facts, and measure how many bits are stored before other abilities suffer."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import knowledge

        artifact = knowledge.answer(current, engine_of(engine, job_cpus, job_gpus))
        print_artifacts(console, [artifact], f"molt report {arguments(config, overrides)}")


RecordsArg = Annotated[Path, typer.Argument(help="folder of the files, one for each training")]


@hypothesis_app.command("export")
def hypothesis_export(
    folder: RecordsArg, config: StudyConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """Write the stored trainings and their pairs to a folder, as small files without weights."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import archive as records

        _print_files(
            console, "written", records.export_trainings(current, folder), f"molt hypothesis import {folder} CONFIG"
        )


@hypothesis_app.command("import")
def hypothesis_import(
    folder: RecordsArg, config: StudyConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """Add trainings of another run or machine to this one, so that they are not repeated."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import archive as records

        folders = records.import_trainings(current, folder)
        _print_files(console, "imported", folders, f"molt hypothesis run H014 {arguments(config, overrides)}")


@hypothesis_app.command("recompute")
def hypothesis_recompute(
    folder: RecordsArg, config: StudyConfigArg, overrides: Overrides = None, json_output: Json = False
) -> None:
    """Compute every figure of a finished study again from its stored trainings alone, and write them beside the
    folder."""
    from moltlm.pipeline.studies import archive

    console = Console(json_output)
    settings = [*(overrides or []), f"run.folder={archive.folder_apart(loaded(config, overrides), folder)}"]
    with running(loaded(config, settings), console) as current:
        from moltlm.pipeline.job import recompute

        following = f"molt report {arguments(config, settings)}"
        _print_files(console, "written", recompute(current, folder), following)


def _print_files(console: Console, what: str, files: list[Path], following: str) -> None:
    listed = [str(file) for file in files]
    console.result({what: listed}, "\n".join([*listed, f"{what}: {len(listed)}", f"next: {following}"]))
