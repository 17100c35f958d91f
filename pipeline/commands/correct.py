"""The command that takes better versions of answers."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltlm.data.state import State
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, Own, arguments, loaded, running
from moltlm.pipeline.commands.stages import data_app
from moltlm.pipeline.console import Console

app = typer.Typer()  # its command belongs to `molt data`

if TYPE_CHECKING:
    from moltlm.data.types import Exchange
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.service.corrections import Session


@data_app.command("correct")
def data_correct(
    config: ConfigArg,
    overrides: Overrides = None,
    prompt: Annotated[str | None, typer.Option(help="what the user says; else you are asked for it")] = None,
    answer: Annotated[str | None, typer.Option(help="what was said to the prompt; else the state answers")] = None,
    edited: Annotated[str | None, typer.Option(help="the better answer; else you are asked for it")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="go through the answers of conversations instead, in any format")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="with --from: at most this many answers")] = None,
    use: Annotated[str, typer.Option(help="state that answers: personality, base or personality+TASK")] = "personality",
    out: Annotated[
        Path | None,
        typer.Option(help="file of corrections to add to; default: corrections.jsonl in retrain.conversations"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="maximum length of an answer in tokens")] = 128,
    own: Own = False,
    json_output: Json = False,
) -> None:
    """Show an answer, take your better version, and write both down as preference data.

    The better version is a line on standard input, or /edit for the editor in $VISUAL or $EDITOR; an empty line changes
    nothing.
    """
    console, resolved = Console(json_output), loaded(config, overrides)
    _check(prompt, answer, edited, source)
    from moltlm.pipeline.service import corrections

    session = corrections.session(resolved, console.say, _ask, _edit, out)
    if source:
        corrections.review(session, itertools.islice(_answers(resolved, source, console), n), str(source))
    elif prompt and answer is not None:
        _one(session, prompt, answer, edited, "")
    else:
        with running(resolved, console) as run:
            from moltlm.data.persona import user
            from moltlm.pipeline.service.answering import answering

            reply, said_by = answering(run, State.parse(use), max_new_tokens, own)
            if prompt:
                _one(session, prompt, reply(user(prompt)), edited, said_by)
            else:
                console.say(f"{said_by} answers. {corrections.HELP}")
                corrections.talk(session, reply, said_by)
    text = [f"{session.out}: {session.written} written, {session.unchanged} unchanged"]
    text += _next(resolved, config, overrides, session.out) if session.written else []
    value = {"out": str(session.out), "written": session.written, "unchanged": session.unchanged}
    console.result(value, "\n".join(text))


def _check(prompt: str | None, answer: str | None, edited: str | None, source: Path | None) -> None:
    from moltlm.data.errors import BadInput

    one = [prompt, answer, edited]
    if source and any(text is not None for text in one):
        raise BadInput(
            "--from goes through conversations, and --prompt, --answer and --edited are one exchange.",
            "Use either: molt data correct CONFIG --from FILE",
        )
    if any(text is not None for text in one) and not (prompt or "").strip():
        raise BadInput(
            "--answer and --edited need the prompt that they answer.",
            "Add it: molt data correct CONFIG --prompt TEXT --answer TEXT --edited TEXT",
        )


def _one(session: Session, prompt: str, answer: str, edited: str | None, said_by: str) -> None:
    """One exchange; the better version is asked for if it is not given."""
    from moltlm.data.persona import user

    if edited is None:
        session.offer(user(prompt), answer, said_by)
    else:
        session.take(user(prompt), answer, edited, said_by)


def _answers(config: Config, source: Path, console: Console) -> Iterator[Exchange]:
    """The exchanges of conversations, and then a report on what was read."""
    from moltlm.data import persona
    from moltlm.data.conversations import importers
    from moltlm.data.conversations.report import ImportReport, lines
    from moltlm.pipeline.stages import material

    report = ImportReport()
    voice = material.voice(persona.load(config.persona))
    yield from importers.require_any(importers.read([source], config.conversations, report, voice), report, [source])
    for line in lines(report.facts()):
        console.say(f"  {line}")


def _ask(label: str) -> str | None:
    """A line of standard input, after a label in a terminal; None at its end."""
    if sys.stdin.isatty():
        sys.stderr.write(label)
        sys.stderr.flush()
    return sys.stdin.readline() or None


def _edit(text: str) -> str:
    """The text as the user leaves it in the editor of $VISUAL or $EDITOR."""
    from moltlm.data.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput("An editor needs a terminal.", "Write the better answer in one line, or give it with --edited")
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:  # which only its owner can read
        file = Path(folder) / "answer.md"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            return file.read_text(encoding="utf-8")
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            raise BadInput(f"The editor {editor} does not work: {error}.", "Name one: export EDITOR=nano") from None


def _next(config: Config, name: str, overrides: list[str] | None, out: Path) -> list[str]:
    """The commands that learn from the corrections."""
    same, folder = arguments(name, overrides), config.retrain.conversations
    lines = []
    if _inside(out, folder):
        lines.append(f"a cycle starts at {config.retrain.min_new} new exchanges. next: molt retrain {same}")
    if any(_inside(out, Path(path)) for path in config.conversations.paths):
        return [*lines, f"or build again with them: molt data build {same}"]
    paths = [*config.conversations.paths, str(out if folder.is_file() else out.parent)]
    setting = shlex.quote(f"conversations.paths=[{', '.join(paths)}]")
    return [*lines, f"or build with them: molt data build {same} {setting}"]


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
