"""Commands that use what was trained: talk to it, take it elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moltlm.data.state import State
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, loaded, running
from moltlm.pipeline.console import Console

app = typer.Typer()
LAYOUTS = ("adapter", "merged", "ollama", "vllm")


@app.command()
def chat(
    config: ConfigArg,
    overrides: Overrides = None,
    use: Annotated[str, typer.Option(help="states to answer in, separated by commas; empty: all")] = "",
    message: Annotated[str, typer.Option(help="say this, print the answers, and end")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="length of an answer")] = 128,
    json_output: Json = False,
) -> None:
    """Talk to the base, the personality and each task above it side by side; /help inside. Reads a pipe, too."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout
        from moltlm.pipeline.service import chat as chats
        from moltlm.pipeline.stages import serving

        current.only_read = True  # to talk is no order to train
        every = [state for state in layout.states(current) if not state.is_control]
        states = [State.parse(name) for name in use.split(",")] if use else every
        for state in states:
            layout.check_state(current, state)
        for state in states:
            serving.serve(current, state)
        session = chats.Chat(current.base, [], max_new_tokens)
        session.use(states)
        if message:
            found = session.answers(message)
            lines = [f"{state}: {answer}" for state, answer in found.items()]
            console.result({str(state): answer for state, answer in found.items()}, "\n".join(lines))
            return
        console.say(f"answering: {', '.join(map(str, states))}. /help for commands, /quit to end.")
        chats.talk(session, _lines(), lambda text: console.result(text, text))


def _lines() -> Iterator[str]:
    """What is typed, or piped in."""
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        yield line


@app.command()
def export(
    config: ConfigArg,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="a new folder")] = Path("exported"),
    to: Annotated[str, typer.Option(help="adapter, merged, ollama or vllm")] = "adapter",
    state: Annotated[str, typer.Option(help="personality, or personality+TASK")] = "personality",
    method: Annotated[str, typer.Option(help="how adapters become one: cat (exact), svd, linear, ties, ...")] = "cat",
    rank: Annotated[int | None, typer.Option(min=1, help="of the one adapter, with a method that cuts")] = None,
    json_output: Json = False,
) -> None:
    """One state for use elsewhere, loaded again and compared with what was trained before it counts."""
    from moltlm.data.errors import BadInput

    if to not in LAYOUTS:
        raise BadInput(f"Nothing is exported to {to}.", f"Use --to {', --to '.join(LAYOUTS)}")
    if out.exists():
        raise BadInput(f"{out} exists already.", "Name another: --out FOLDER")
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.service import export as module

        current.only_read = True
        found = module.export(current, out, to, State.parse(state), method, rank)
        value = {"folder": str(out), **(asdict(found.composition) if found.composition else {}), **asdict(found.check)}
        console.result(value, "\n".join([str(out), *found.sentences(out, to)]))
