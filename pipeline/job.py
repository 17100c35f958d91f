"""The whole job: all stages in order, then the gate, the hypotheses and the report."""

from __future__ import annotations

import shutil
from pathlib import Path

from moltlm.data import assets
from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, PERSONALITY
from moltlm.pipeline import layout
from moltlm.pipeline.reporting.writing import Outcome, write_report
from moltlm.pipeline.run import Missing, Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.setup import forecast
from moltlm.pipeline.setup.parts import parts
from moltlm.pipeline.stages import first_answers, measures, pairs, personality, replay, tasks
from moltlm.pipeline.studies import archive, arms, explore, grid, knowledge
from moltlm.pipeline.studies.engine import Engine, Job, local


def run_all(run: Run, arguments: str, engine: Engine = local) -> Outcome:
    """Run all stages. Trainings come first, so that the base is loaded once for all measurements.

    Args:
        arguments: those that name this run in another command.
        engine: trains the tasks and the grids of the hypotheses, and takes the measurements, each of one state.
    """
    config = run.config
    if not all(state.present for state in assets.status()):
        with run.console.progress("assets") as progress:
            assets.pull(progress)
    measures.check(run)  # before training, so that a missing file does not stop the job after an hour
    for adapter in layout.task_adapters(run):
        tasks.check(run, adapter)
    _forecast(run, arguments)
    pairs.pairs(run)
    for name in config.hypotheses:
        arms.check(run, name)
    personality.personality(run)
    _first_result(run, arguments)
    replay.buffer(run)
    trainings = [Job(f"task {adapter}", tasks.trained, (adapter,)) for adapter in layout.task_adapters(run)]
    for jobs in (trainings, _measurements(run)):
        engine(run, jobs)
        for job in jobs:
            job(run)
    if config.judge.kind == "endpoint":
        for state in layout.candidates(run):
            measures.judge(run, state)
        if config.judge.labels:
            measures.judge_of_labels(run)
    if config.gate.noise_runs:
        measures.noise(run)
    gates.judge_all(run)
    for name in config.hypotheses:
        grid.verdict(run, name, engine)
    return write_report(run)


def _measurements(run: Run) -> list[Job]:
    """What is measured of each state, independently of the others."""
    config, states, candidates = run.config, layout.states(run), layout.candidates(run)
    measured = [
        ("persona", measures.persona_of, states),
        ("capability", measures.capability, states),
        ("drift", measures.drift, states),
        ("pressure", measures.pressure, candidates if config.pressure.on else []),
        ("profile", measures.profile, [BASE, *candidates] if config.profile.on else []),
        ("agent", measures.agent, [BASE, *candidates] if config.agent.items else []),
    ]
    scores = [(name, PERSONALITY) for name in config.tasks]
    scores += [(adapter.name, layout.state_of(run, adapter)) for adapter in layout.task_adapters(run)]
    return [
        *(Job(f"{name} of {state}", measure, (state,)) for name, measure, states in measured for state in states),
        *(Job(f"{name} in {state}", measures.task_score, (name, state)) for name, state in scores),
    ]


def _forecast(run: Run, arguments: str) -> None:
    """Say how long a job takes that has not begun."""
    if not run.stored("pairs"):
        run.console.say("Timing the model on this machine, for half a minute or less with a small one.")
        speed = forecast.measure(run)  # first, since it times how long the model takes to load
        run.console.say("\n".join(forecast.lines(parts(run, forecast.counter(run)), speed, arguments)))


def _first_result(run: Run, arguments: str) -> None:
    """Show what the personality answers, before anything is measured."""
    for row in first_answers.load(first_answers.first_answers(run)):
        run.console.say("\n".join(row.lines()))
    run.console.say(f"Talk to it in another terminal while the evidence is gathered: molt chat {arguments}")


def _check_pairs(run: Run, folder: Path) -> None:
    """Refuse trainings on other pairs than the configuration makes: every one of them would be made again."""
    try:
        with run.reading():
            pairs.pairs(run)
    except Missing:
        raise BadInput(
            f"{folder} does not have the pairs that this configuration makes: its trainings had other settings.",
            "Give the settings of the study, for example: persona.spec=odile model.precision=fp32",
        ) from None


def recompute(run: Run, folder: Path) -> list[Path]:
    """Judge the hypotheses of the configuration, explore, and answer how much knowledge fits, from the stored trainings
    in a folder, and write results and report beside it: FOLDER.json, FOLDER.md and FOLDER.html. A training that the
    folder lacks is made. `molt hypothesis recompute FOLDER CONFIG`

    Args:
        run: without any other training, which would be explored, too (`archive.folder_apart`).

    Raises:
        BadInput: for a folder without trainings, with damaged ones, or without the pairs that the configuration makes.
    """
    archive.import_trainings(run, folder)
    _check_pairs(run, folder)
    for name in run.config.hypotheses:
        grid.verdict(run, name)
    if run.stored("job"):
        explore.explore(run)
    if run.stored("knowledge-job"):
        knowledge.answer(run)
    outcome, written = write_report(run), []
    for source in (outcome.results, outcome.report.with_suffix(".md"), outcome.report):
        written.append(folder.with_name(folder.name + source.suffix))
        shutil.copyfile(source, written[-1])
    return written
