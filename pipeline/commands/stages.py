"""Commands that make something: a stage each, and the whole job."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.data.state import Adapter, State
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, again, group, loaded, running, shown, told
from moltlm.pipeline.console import Console

app = typer.Typer()
DEMO_FOLDER = Path("runs/demo")
InState = Annotated[str, typer.Option(help="base, personality, or personality+TASK; empty for all")]
data_app = group(app, "data", "Conversations and preference pairs.")
train_app = group(app, "train", "Personality and task adapters.")
replay_app = group(app, "replay", "The replay buffer.")
eval_app = group(app, "eval", "Capability, persona and what else changed, item by item.")
hypothesis_app = group(app, "hypothesis", "Pre-registered comparisons.")


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


@app.command("compare-methods")
def compare_methods(
    config: ConfigArg,
    overrides: Overrides = None,
    only: Annotated[str, typer.Option(help="train these methods, separated by commas; report all that there are")] = "",
    best: Annotated[int | None, typer.Option(min=1, help="seeds after the first for so many of the best only")] = None,
    beside: Annotated[
        list[Path] | None, typer.Option("--with", help="methods.json of another run: its rows are not measured again")
    ] = None,
    json_output: Json = False,
) -> None:
    """Methods against forgetting on one sequence of tasks: what each learned and kept. An interrupted run continues."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import methods as methods_report
        from moltlm.pipeline.studies import sequence
        from moltlm.pipeline.studies.methods import MethodRow
        from moltlm.pipeline.typed_json import to_plain

        wanted = [name.strip() for name in only.split(",") if name.strip()]
        reference, files = current.config.sequence.reference, list[Path]()

        def write(rows: list[MethodRow]) -> None:
            files[:] = methods_report.write(current.folder, rows, reference)

        rows = sequence.compare(current, wanted, best, beside or [], write)
        table = methods_report.table(rows, reference)
        console.result(to_plain(rows), f"{table}\n{', '.join(map(str, files))}")


def _whole_job(name: str, overrides: list[str] | None, json_output: bool) -> None:
    console, same = Console(json_output), again(name, overrides)
    with running(loaded(name, overrides), console) as current:
        from moltlm.pipeline import job

        found = job.run_all(current)
        console.result(
            {"report": str(found.report), "results": str(found.results), "summary": found.summary},
            "\n".join([*found.summary, f"report: {found.report}", f"next: molt report {same} --open"]),
        )


@data_app.command("import")
def data_import(
    paths: Annotated[list[Path], typer.Argument(help="exports, transcripts, session logs, or folders of them")],
    out: Annotated[Path, typer.Option(help="JSONL to write")] = Path("conversations/imported.jsonl"),
    assistant: Annotated[
        str, typer.Option(help="the persona's name, in chats that name their speakers", show_default=False)
    ] = "",
    redact: Annotated[bool, typer.Option(help="replace secrets, e-mail addresses, phone and card numbers")] = True,
    json_output: Json = False,
) -> None:
    """Conversations as people have them into clean JSONL: told by content, near-duplicates out, secrets redacted."""
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
    lines += [f"{name}: passed over, {why}" for name, why in report.skipped.items()]
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
    """Preference pairs: the persona's answers against what the bare model really says; with lint counts."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import pairs

        told(console, [pairs.pairs(current)], f"molt train personality {again(config, overrides)}")


@replay_app.command("update")
def replay_update(
    config: ConfigArg,
    paths: Annotated[list[str], typer.Argument(help="new conversations, then settings as KEY=VALUE")],
    json_output: Json = False,
) -> None:
    """The next buffer, from the present one and new conversations; what was left out before is not read again."""
    console = Console(json_output)
    overrides = [item for item in paths if "=" in item]
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import replay

        new = [Path(item) for item in paths if "=" not in item]
        told(console, [replay.updated_buffer(current, new)], f"molt retrain {again(config, overrides)}")


@train_app.command("personality")
def train_personality(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """The personality adapter: TRL's DPO with NLL and explicit KL, or SFT."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import personality

        told(console, [personality.personality(current)], f"molt replay build {again(config, overrides)}")


@data_app.command("lint")
def data_lint(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """What the filters dropped and why, leakage, length bias and variety. The same is in the data's README.md."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.reporting import show
        from moltlm.pipeline.stages import pairs

        artifact = pairs.pairs(current)
        card = f"card: {artifact.folder / 'README.md'}"
        console.result(shown(artifact), "\n".join([*show.lint(artifact.facts), card]))


@data_app.command("show")
def data_show(
    config: ConfigArg,
    overrides: Overrides = None,
    n: Annotated[int, typer.Option("-n", min=0, help="examples")] = 3,
    split: Annotated[str, typer.Option(help="train or heldout")] = "train",
    json_output: Json = False,
) -> None:
    """How the pairs are spread over topics, traits and lengths, and some as the trainer sees them, token by token."""
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
    """Choose the exchanges that protect the personality, under a token budget."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import replay

        told(console, [replay.buffer(current)], f"molt train task NAME {again(config, overrides)}")


@train_app.command("task")
def train_task(
    name: Annotated[str, typer.Argument(help="a task of the config")],
    config: ConfigArg,
    overrides: Overrides = None,
    control: Annotated[bool, typer.Option("--control", help="train it without replay, to compare with")] = False,
    json_output: Json = False,
) -> None:
    """A task adapter above the frozen personality, with replay mixed in."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.stages import tasks

        adapter = Adapter(name, control)
        artifact, state = tasks.task(current, adapter), layout.state_of(current, adapter)
        told(console, [artifact], f"molt eval persona {again(config, overrides)} --state {state}")


@eval_app.command("capability")
def eval_capability(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Benchmarks by lm-evaluation-harness, item by item."""
    measured("capability", config, overrides, state, json_output)


@eval_app.command("persona")
def eval_persona(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Persona and coherence of the answers to held-out prompts."""
    measured("persona_of", config, overrides, state, json_output)


@eval_app.command("drift")
def eval_drift(config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False) -> None:
    """Cross-entropy and KL to the base on its own neutral answers and on the tasks' test examples."""
    measured("drift", config, overrides, state, json_output)


@eval_app.command("pressure")
def eval_pressure(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Persona under attack (each kind), turn by turn over long conversations, and facts about itself."""
    measured("pressure", config, overrides, state, json_output)


@eval_app.command("profile")
def eval_profile(
    config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False
) -> None:
    """Which traits it says are its own; Big Five, other traits and refusals from files of yours."""
    measured("profile", config, overrides, state, json_output)


@eval_app.command("judge")
def eval_judge(config: ConfigArg, overrides: Overrides = None, state: InState = "", json_output: Json = False) -> None:
    """Whose answers are more in character, by a language model at any OpenAI-compatible endpoint."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.stages import measures

        found = [measures.judge(current, each) for each in _named(state) or layout.candidates(current)]
        found += [measures.judge_of_labels(current)] if current.config.judge.labels else []
        told(console, found, f"molt report {again(config, overrides)}")


@eval_app.command("noise")
def eval_noise(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """How far identical trainings of the personality are apart (gate.noise_runs of them)."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.stages import measures

        told(console, [measures.noise(current)], f"molt report {again(config, overrides)}")


def _named(state: str) -> list[State]:
    """The state of the option, if it names one."""
    return [State.parse(state)] if state else []


def measured(what: str, config: str, overrides: list[str] | None, state: str, json_output: bool) -> None:
    """One of `pipeline.measures`, in one state or in all of them."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.stages import measures

        found = [getattr(measures, what)(current, each) for each in _named(state) or layout.states(current)]
        told(console, found, f"molt report {again(config, overrides)}")


@hypothesis_app.command("run")
def hypothesis_run(
    name: Annotated[str, typer.Argument(help="H014, H015, or a YAML file of your own")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    arm: Annotated[str, typer.Option(help="only this arm's trainings, and no verdict")] = "",
    json_output: Json = False,
) -> None:
    """Run what is missing of a hypothesis' grid, and judge it by the rule in its file."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        found = grid.train_arm(current, name, arm) if arm else [grid.verdict(current, name)]
        told(console, found, f"molt report {again(config, overrides)}")


@hypothesis_app.command("plan")
def hypothesis_plan(
    name: Annotated[str, typer.Argument(help="H014, H015, or a YAML file of your own")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """How many trainings a hypothesis takes, how long, and how much memory. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        found = grid.plan(current, name)
        console.result(asdict(found), f"{found}\nnext: molt hypothesis run {name} {again(config, overrides)}")


@hypothesis_app.command("explore")
def hypothesis_explore(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """From all trainings of the grids: could forgetting be seen early, and does it set in at a threshold?"""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import grid

        told(console, [grid.explore(current)], f"molt report {again(config, overrides)}")


@hypothesis_app.command("knowledge")
def hypothesis_knowledge(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Teach facts that no model can know: how many bits are stored before other abilities suffer?"""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import knowledge

        told(console, [knowledge.answer(current)], f"molt report {again(config, overrides)}")


RecordsArg = Annotated[Path, typer.Argument(help="where the files are, one a training")]


@hypothesis_app.command("export")
def hypothesis_export(
    folder: RecordsArg, config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """The trainings so far, of `run` and `knowledge`, as small files without weights; the pairs they learned from."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import archive as records

        _moved(console, "written", records.export_trainings(current, folder), f"molt hypothesis import {folder} CONFIG")


@hypothesis_app.command("import")
def hypothesis_import(
    folder: RecordsArg, config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """Trainings of another run or machine into this one: they are not trained again."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.studies import archive as records

        found = records.import_trainings(current, folder)
        _moved(console, "brought", found, f"molt hypothesis run H014 {again(config, overrides)}")


def _moved(console: Console, what: str, files: list[Path], following: str) -> None:
    listed = [str(file) for file in files]
    console.result({what: listed}, "\n".join([*listed, f"{what}: {len(listed)}", f"next: {following}"]))


@app.command()
def report(
    config: ConfigArg,
    overrides: Overrides = None,
    open_it: Annotated[bool, typer.Option("--open", help="show it in a browser")] = False,
    json_output: Json = False,
) -> None:
    """results.json, report.html and report.md, recomputed from the records that are there. Trains nothing."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import job

        found = job.write_report(current)
        console.result(
            {"report": str(found.report), "results": str(found.results), "summary": found.summary},
            "\n".join([*found.summary, f"report: {found.report}"]),
        )
    if open_it:
        typer.launch(str(found.report))
