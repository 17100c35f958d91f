"""Commands for maintenance: the gate and retraining."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moltlm.data.errors import BadInput, NotPromoted
from moltlm.data.state import State
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, artifact_json, loaded, running
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.config import Config

app = typer.Typer()


@app.command()
def gate(
    config: ConfigArg,
    overrides: Overrides = None,
    served: Annotated[
        str, typer.Option(help="judge the model behind this server with OpenAI's interface: http://HOST:PORT/v1")
    ] = "",
    model: Annotated[str, typer.Option(help="--served: its name there; left out, the only one")] = "",
    state: Annotated[str, typer.Option(help="--served: the state that is served")] = "personality",
    against: Annotated[str, typer.Option(help="--served: trained, the same state in process; or base")] = "trained",
    json_output: Json = False,
) -> None:
    """Judge the run's adapters against what they were trained from; exit code 3 if one is not promoted."""
    console = Console(json_output)
    if served:
        settings = [*(overrides or []), f"served.url={json.dumps(served)}", f"served.model={json.dumps(model)}"]
        _judge_served(loaded(config, settings), console, state, against)
        return
    if model or (state, against) != ("personality", "trained"):
        raise BadInput(
            "--model, --state and --against are about a server.", "Name it: --served URL   or leave them out"
        )
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.service import gate as gates

        verdicts = gates.judge_all(current)
        console.result(
            {name: asdict(verdict) for name, verdict in verdicts.items()},
            "\n".join(gates.sentences(verdicts)),
        )
        kept_out = [name for name, verdict in verdicts.items() if not verdict.promoted]
    if kept_out:
        same = arguments(config, overrides)
        raise NotPromoted(
            f"Not promoted: {', '.join(kept_out)}. They are kept in the registry.",
            f"See why: molt report {same} --open   Use one all the same: molt registry promote ID {same}",
        )


def _judge_served(config: Config, console: Console, state: str, against: str) -> None:
    if against not in ("trained", "base"):
        raise BadInput(f"Nothing is compared with {against}.", "Use --against trained or --against base")
    with running(config, console) as current:
        from moltlm.pipeline.service import in_use
        from moltlm.pipeline.service import served as module

        for line in in_use.take(current):
            console.say(line)
        result = module.judge(current, State.parse(state), against)  # type: ignore[arg-type]
        console.result({"passed": result.passed, **asdict(result)}, "\n".join(result.sentences()))
    if not result.passed:
        fix = "Export it with less loss (--quant Q8_0), or look at the server's chat template and sampling settings."
        if not result.has_failed:
            fix = "Nothing was shown to be lost, but too little was measured to tell: hold out more prompts."
        raise NotPromoted(f"What is served at {result.url} did not pass the gate against {result.against}.", fix)


@app.command()
def retrain(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """One maintenance cycle on new conversations: train, judge, promote or keep out (exit code 3)."""
    from moltlm.pipeline.service import after_cycle as reports
    from moltlm.pipeline.service import cycles

    console = Console(json_output)
    settings = loaded(config, overrides)
    then = functools.partial(reports.after, settings, config, console.say)
    with cycles.recorded(settings.run.folder, then) as record, running(settings, console) as current:
        from moltlm.pipeline.service import retrain as module

        artifact = module.cycle(current, record)
        lines = [f"passed over: {file}: {reason}" for file, reason in record.passed_over.items()]
        lines += [f"set aside: {count} {reason}" for reason, count in record.set_aside.items()]
        if record.set_aside:
            lines.append(f"what is set aside: molt screen list {arguments(config, overrides)}")
        if artifact is None:
            record.outcome = cycles.NOTHING_NEW
            value = {"promoted": None, "reason": record.outcome, "passed_over": record.passed_over}
            value |= {"set_aside": record.set_aside, "left_out": record.left_out}
            lines += [f"left out: {count} {reason}" for reason, count in record.left_out.items()]
            console.result(value, "\n".join([*lines, "nothing to do"]))
            return
        promoted, results = artifact.facts["promoted"], module.task_results(artifact.facts)
        record.outcome = cycles.PROMOTED if promoted else cycles.NOT_PROMOTED
        record.tasks = {result.slot: result.outcome for result in results}
        reports.note(record, artifact)
        checks = [check["sentence"] for check in artifact.facts["verdict"]["checks"]]
        lines = [*checks, *(result.sentence() for result in results), *lines]
        value = {**artifact_json(artifact), "passed_over": record.passed_over, "set_aside": record.set_aside}
        console.result(value, "\n".join([*lines, f"next: molt registry list {arguments(config, overrides)}"]))
    if not promoted:
        same = arguments(config, overrides)
        lost = " and ".join(result.slot for result in results if not result.survives)
        raise NotPromoted(
            f"The candidate is not promoted{f', since {lost} would be lost' if lost else ''}; what was in use stays.",
            f"It is kept: molt registry list {same}   Use it all the same: molt registry promote ID {same}",
        )


@app.command()
def blame(
    cycle: Annotated[str, typer.Argument(help="a cycle by its name or the beginning of it, or `last`")],
    config: ConfigArg,
    overrides: Overrides = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="also train on halves of the conversations, to see who did it")
    ] = False,
    trainings: Annotated[int, typer.Option(min=1, help="--confirm: at most so many trainings")] = 4,
    json_output: Json = False,
) -> None:
    """Which conversations of a cycle did harm to the personality, and the command that leaves them out."""
    from moltlm.pipeline.service import blame as module

    console, settings = Console(json_output), loaded(config, overrides)
    folder = module.find(settings, cycle)
    with running(settings, console) as current:
        result = module.blame(current, folder.name, trainings if confirm else 0)
    in_use = module.finished(folder)["candidate"] in module.lineage(settings)
    text = module.lines(result, arguments(config, overrides), in_use)
    if confirm and result.change >= 0:
        text.insert(1, "nothing to confirm: the cycle did not lower the persona score")
    console.result(module.as_json(result), "\n".join(text))
