"""Commands that use what was trained: chat and export."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moltlm.data.state import State
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, Own, loaded, running
from moltlm.pipeline.console import Console

app = typer.Typer()


@app.command()
def chat(
    config: ConfigArg,
    overrides: Overrides = None,
    use: Annotated[
        str, typer.Option(help="states that answer, separated by commas; by default all that are trained")
    ] = "",
    message: Annotated[str, typer.Option(help="send this message, print the answers, and exit")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="maximum length of an answer in tokens")] = 128,
    own: Own = False,
    json_output: Json = False,
) -> None:
    """Chat with the base, the personality and each task above it side by side; /help lists commands."""
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline import layout

        current.only_read = True  # chat never trains
        states = [State.parse(name) for name in use.split(",")] if use else []
        for state in states:
            layout.check_state(current, state)
        from moltlm.pipeline.service import chat as chats
        from moltlm.pipeline.service import in_use
        from moltlm.pipeline.stages import serving

        for line in in_use.take(current, own):
            console.say(line)
        for state in states:
            in_use.check(current, state)

        states = states or serving.trained_states(current)
        for state in states:
            serving.serve(current, state)
        session = chats.Chat(current.base, [], max_new_tokens)
        session.use(states)
        if message:
            answers = session.answers(message)
            lines = [f"{state}: {answer}" for state, answer in answers.items()]
            console.result({str(state): answer for state, answer in answers.items()}, "\n".join(lines))
            return
        console.say(f"answering: {', '.join(map(str, states))}. /help for commands, /quit to end.")
        chats.talk(session, _lines(), lambda text: console.result(text, text))


def _lines() -> Iterator[str]:
    """Lines of standard input, typed or piped."""
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
    out: Annotated[Path, typer.Option(help="folder to create")] = Path("exported"),
    to: Annotated[
        str, typer.Option(help="form of the export: adapter, merged, gguf, gguf-adapter, ollama, vllm or hub")
    ] = "adapter",
    state: Annotated[
        str, typer.Option(help="state to export: personality or personality+TASK; base for merged or gguf")
    ] = "personality",
    method: Annotated[
        str, typer.Option(help="how several adapters become one: cat (exact), svd, linear, ties, ...")
    ] = "cat",
    rank: Annotated[
        int | None, typer.Option(min=1, help="rank of the exported adapter, for methods that reduce it")
    ] = None,
    quant: Annotated[
        str,
        typer.Option(help="gguf, ollama: form of the weights: F16, Q8_0, or with llama-quantize Q6_K, Q5_K_M, Q4_K_M"),
    ] = "Q8_0",
    base_name: Annotated[
        str, typer.Option(help="ollama: the base's name there, to load an adapter above it (Ollama up to 0.34.0)")
    ] = "",
    push: Annotated[
        str, typer.Option(help="hub: upload to this repository; left out, the folder is only written")
    ] = "",
    licence: Annotated[str, typer.Option("--license", help="hub: licence of the model, for its card")] = "",
    dataset: Annotated[str, typer.Option(help="hub: id of the training data there, for the card")] = "",
    own: Own = False,
    json_output: Json = False,
) -> None:
    """Export a state for use elsewhere; the export is loaded and compared with what was trained."""
    from moltlm.data.errors import BadInput

    if out.exists():
        raise BadInput(f"{out} exists already.", "Name another: --out FOLDER")
    console = Console(json_output)
    with running(loaded(config, overrides), console) as current:
        from moltlm.pipeline.service import export as module
        from moltlm.pipeline.service import hub, in_use

        if push:
            hub.check(push, to)
        current.only_read = True
        for line in in_use.take(current, own):
            console.say(line)
        request = module.Request(to, State.parse(state), method, rank, quant, base_name, licence, dataset)
        exported = module.export(current, out, request)
        lines = [str(out), *(f"  {name}" for name in exported.files), *exported.sentences(out)]
        value = {
            "folder": str(out),
            "files": exported.files,
            **(asdict(exported.composition) if exported.composition else {}),
            **asdict(exported.check),
        }
        if push:
            value["pushed"] = hub.push(out, push)
            lines[-1] = f"pushed to {value['pushed']}"
        console.result(value, "\n".join(lines))
