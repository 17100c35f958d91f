"""Commands that run a stage, a study, or the whole job."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.data.state import Adapter, State
from moltlm.pipeline.commands.common import (
    ConfigArg,
    Json,
    MethodsConfigArg,
    Overrides,
    StudyConfigArg,
    arguments,
    artifact_json,
    group,
    loaded,
    print_artifacts,
    running,
)
from moltlm.pipeline.console import Console

app = typer.Typer()
DEMO_FOLDER = Path("runs/demo")
InState = Annotated[
    str, typer.Option(help="state to measure: base, personality or personality+TASK; all states by default")
]
data_app = group(app, "data", "Import conversations, build and inspect preference pairs.")
train_app = group(app, "train", "Train personality and task adapters.")
replay_app = group(app, "replay", "Build and update the replay buffer.")
eval_app = group(app, "eval", "Measure capability, persona, drift and more, item by item.")
hypothesis_app = group(app, "hypothesis", "Test pre-registered hypotheses about training.")


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="folder of the run")] = DEMO_FOLDER,
    json_output: Json = False,
) -> None:
    """Run every stage on the embedded model and write a report: about half an hour on two CPU cores."""
    folder_override = [f"run.folder={folder}"] if folder != DEMO_FOLDER else []
    _whole_job("demo", [*folder_override, *(overrides or [])], json_output)


@app.command()
def run(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Run every stage in order, reusing what is stored; an interrupted run resumes."""
    _whole_job(config, overrides, json_output)


@app.command("compare-methods")
def compare_methods(
    config: MethodsConfigArg,
    overrides: Overrides = None,
    only: Annotated[
        str, typer.Option(help="train only these methods, separated by commas; the report has all that are measured")
    ] = "",
    best: Annotated[int | None, typer.Option(min=1, help="run the remaining seeds only for the N best methods")] = None,
    measured_rows: Annotated[
        list[Path] | None, typer.Option("--with", help="methods.json of another run; its rows are not measured again")
    ] = None,
    json_output: Json = False,
) -> None:
    """Compare methods against forgetting on one sequence of tasks: what each learns and keeps.

    Shipped configs with methods: sequence-135m. An interrupted comparison resumes.
    """
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import methods as methods_report
        from moltlm.pipeline.studies import sequence
        from moltlm.pipeline.studies.methods import MethodRow
        from moltlm.pipeline.typed_json import to_plain

        selected = [name.strip() for name in only.split(",") if name.strip()]
        reference, files = current.config.sequence.reference, list[Path]()

        def write(rows: list[MethodRow]) -> None:
            files[:] = methods_report.write(current.folder, rows, reference)

        rows = sequence.compare(current, selected, best, measured_rows or [], write)
        table = methods_report.table(rows, reference)
        console.result(to_plain(rows), f"{table}\n{', '.join(map(str, files))}")


def _whole_job(name: str, overrides: list[str] | None, json_output: bool) -> None:
    console, same = Console(json_output), arguments(name, overrides)
    with running(loaded(name, overrides), console) as current:
        from moltlm.pipeline import job

        outcome = job.run_all(current)
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
        bool, typer.Option(help="replace secrets, e-mail addresses, phone and card numbers by marks")
    ] = True,
    json_output: Json = False,
) -> None:
    """Convert chat exports to clean JSONL; the format is detected from the content.

    Near-duplicates are dropped and secrets redacted.
    """
    from moltlm.data.config import ImportConfig
    from moltlm.data.conversations import importers
    from moltlm.data.conversations.voices import Voice
    from moltlm.data.errors import BadInput

    console = Console(json_output)
    if out.exists():
        raise BadInput(f"{out} exists already.", "Name another: --out conversations/more.jsonl")
    report = importers.ImportReport()
    command = shlex.join(["molt", "data", "import", *map(str, paths), "--out", str(out)])
    command += "" if redact else " --no-redact"
    voice = Voice(option=f"--assistant {{0}}: {command.replace('{', '{{').replace('}', '}}')} --assistant {{0}}")
    settings = ImportConfig(redact=redact, assistant=assistant)
    count = importers.write(importers.read(paths, settings, report, voice), out)
    lines = [_imported(row) for row in report.rows()]
    lines += [f"{name}: skipped, {reason}" for name, reason in report.skipped.items()]
    if report.redacted:
        marks = ", ".join(f"{number} {kind}" for kind, number in report.redacted.most_common())
        lines.append(f"redacted: {marks}")
    lines.append(f"{count} exchanges of {report.turns} assistant turns in {out}")
    lines.append(f"next: molt data build CONFIG 'conversations.paths=[{out}]'")
    value = {"files": report.rows(), "skipped": report.skipped, "redacted": report.redacted, "exchanges": count}
    console.result({**value, "out": str(out)}, "\n".join(lines))


def _imported(row: dict[str, Any]) -> str:
    left = "; ".join(f"{key} {row[key]}" for key in ("dropped", "removed") if row[key])
    return f"{row['file']}: {row['format']}, {row['conversations']} conversations, {row['exchanges']} exchanges" + (
        f" ({left})" if left else ""
    )


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
        from moltlm.pipeline.stages import tasks

        adapter = Adapter(name, control)
        artifact, state = tasks.task(current, adapter), layout.state_of(current, adapter)
        print_artifacts(console, [artifact], f"molt eval persona {arguments(config, overrides)} --state {state}")


@eval_app.command("capability")
def eval_capability(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Measure general ability on benchmarks of lm-evaluation-harness."""
    measured("capability", config, overrides, state, json_output)


@eval_app.command("persona")
def eval_persona(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Measure persona and coherence of the answers to held-out prompts."""
    measured("persona_of", config, overrides, state, json_output)


@eval_app.command("drift")
def eval_drift(config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False) -> None:
    """Measure KL to the base and cross-entropy on neutral answers and on the tasks' test examples."""
    measured("drift", config, overrides, state, json_output)


@eval_app.command("pressure")
def eval_pressure(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Measure the persona under attack, over long conversations, and in facts about itself."""
    measured("pressure", config, overrides, state, json_output)


@eval_app.command("profile")
def eval_profile(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Measure which traits the model claims; Big Five, other traits and refusals from your own files."""
    measured("profile", config, overrides, state, json_output)


@eval_app.command("judge")
def eval_judge(config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False) -> None:
    """Let a language model judge whose answers are more in character, over an OpenAI-compatible endpoint."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.stages import measures

        artifacts = [measures.judge(current, each) for each in _named(state) or layout.candidates(current)]
        artifacts += [measures.judge_of_labels(current)] if current.config.judge.labels else []
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")


@eval_app.command("noise")
def eval_noise(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Train the personality gate.noise_runs times with the same seed, and measure how much the results differ."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import measures

        print_artifacts(console, [measures.noise(current)], f"molt report {arguments(config, overrides)}")


def _named(state: str) -> list[State]:
    """The state of the option, if it names one."""
    return [State.parse(state)] if state else []


def measured(what: str, config: str, overrides: list[str] | None, state: str, json_output: bool) -> None:
    """Run one of `stages.measures` in one state, or in all of them."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.stages import measures

        artifacts = [getattr(measures, what)(current, each) for each in _named(state) or layout.states(current)]
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")


@hypothesis_app.command("run")
def hypothesis_run(
    name: Annotated[
        str, typer.Argument(help="hypothesis: h014, h015, h014-135m, h015-135m, or a YAML file of your own")
    ],
    config: StudyConfigArg = "demo",
    overrides: Overrides = None,
    arm: Annotated[str, typer.Option(help="run only the trainings of this arm, without a verdict")] = "",
    json_output: Json = False,
) -> None:
    """Run the trainings of a hypothesis that are not stored, and judge it by the rule in its file."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        artifacts = grid.train_arm(current, name, arm) if arm else [grid.verdict(current, name)]
        print_artifacts(console, artifacts, f"molt report {arguments(config, overrides)}")


@hypothesis_app.command("plan")
def hypothesis_plan(
    name: Annotated[
        str, typer.Argument(help="hypothesis: h014, h015, h014-135m, h015-135m, or a YAML file of your own")
    ],
    config: StudyConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Print how many trainings a hypothesis takes, how long, and how much memory. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies.plan import plan

        planned = plan(current, name)
        console.result(asdict(planned), f"{planned}\nnext: molt hypothesis run {name} {arguments(config, overrides)}")


@hypothesis_app.command("explore")
def hypothesis_explore(config: StudyConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Ask all stored trainings whether forgetting shows early, and whether it starts at a threshold of KL."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies.explore import explore

        print_artifacts(console, [explore(current)], f"molt report {arguments(config, overrides)}")


@hypothesis_app.command("knowledge")
def hypothesis_knowledge(config: StudyConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Teach invented facts, and measure how many bits are stored before other abilities suffer."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import knowledge

        print_artifacts(console, [knowledge.answer(current)], f"molt report {arguments(config, overrides)}")


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


def _print_files(console: Console, what: str, files: list[Path], following: str) -> None:
    listed = [str(file) for file in files]
    console.result({what: listed}, "\n".join([*listed, f"{what}: {len(listed)}", f"next: {following}"]))


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
        from moltlm.pipeline import job

        outcome = job.write_report(current)
        console.result(
            {"report": str(outcome.report), "results": str(outcome.results), "summary": outcome.summary},
            "\n".join([*outcome.summary, f"report: {outcome.report}"]),
        )
    if open_it:
        typer.launch(str(outcome.report))
