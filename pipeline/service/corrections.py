"""Corrections: an answer is shown, and the user's better version of it is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from moltlm.data import persona
from moltlm.data.conversations import corrections
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange, Message
from moltlm.pipeline.config import Config

HELP = (
    "The better answer: write it in one line, or /edit to open your editor; an empty line leaves the answer as it is. "
    "/reset forgets the conversation, /quit ends."
)


def silent(text: str) -> None:
    """Shows nothing."""


@dataclass
class Session:
    """Takes better versions of answers and appends them to a file.

    Attributes:
        out: the file.
        say: shows a text to the user.
        ask: returns the line that the user writes after a label; None at the end.
        edit: opens an editor with a text, and returns it as the user leaves it.
        is_measured: whether a prompt is too near to one that is measured, and is therefore never trained on.
        written, unchanged: the answers so far.
    """

    out: Path
    say: Callable[[str], None]
    ask: Callable[[str], str | None]
    edit: Callable[[str], str]
    is_measured: Callable[[str], bool]
    written: int = 0
    unchanged: int = 0

    def take(self, prompt: list[Message], said: str, better: str, said_by: str) -> None:
        """Write a correction, and say what became of it."""
        if not said.strip():
            self.unchanged += 1
            self.say("  nothing was said that could be worse: nothing is written")
            return
        if not corrections.append(self.out, prompt, said, better, said_by):
            self.unchanged += 1
            self.say("  unchanged: nothing is written")
            return
        self.written += 1
        self.say(f"  written to {self.out}")
        if self.is_measured(prompt[-1]["content"]):
            self.say("  its prompt is too near to a held-out one, so it will be left out of training")

    def offer(self, prompt: list[Message], said: str, said_by: str) -> str | None:
        """Show an answer and take the better version.

        Returns:
            The answer that stands, or None if the user ends.
        """
        self.say(said)
        while True:
            line = self.ask("better> ")
            if line is None or line.strip() == "/quit":
                return None
            try:
                better = self.edit(said) if line.strip() == "/edit" else line
            except BadInput as error:
                self.say(f"{error.what} {error.fix}")
                continue
            better = better.strip() or said
            self.take(prompt, said, better, said_by)
            return better


def session(
    config: Config,
    say: Callable[[str], None] = silent,
    ask: Callable[[str], str | None] = lambda _: None,
    edit: Callable[[str], str] = lambda text: text,
    out: Path | None = None,
) -> Session:
    """A session that writes beside the conversations of the next retraining, or into `out`."""
    folder = config.retrain.conversations
    beside = folder / corrections.FILE if folder.suffix != ".jsonl" else folder.with_name(corrections.FILE)
    heldout = [item.question for item in persona.load(config.persona).heldout]

    def is_measured(question: str) -> bool:
        from moltlm.data import leakage

        return bool(heldout) and bool(leakage.leaks([question], heldout))

    return Session(out or beside, say, ask, edit, is_measured)


def talk(session: Session, answer: Callable[[list[Message]], str], said_by: str) -> None:
    """Answer what the user asks, line by line. The conversation goes on from the better version of each answer."""
    history: list[Message] = []
    while (line := session.ask("> ")) is not None and (text := line.strip()) != "/quit":
        if text == "/reset":
            history = []
        elif text == "/help":
            session.say(HELP)
        elif text:
            prompt: list[Message] = [*history, {"role": "user", "content": text}]
            better = session.offer(prompt, answer(prompt), said_by)
            if better is None:
                return
            history = [*prompt, {"role": "assistant", "content": better}]


def review(session: Session, exchanges: Iterable[Exchange], said_by: str) -> None:
    """Go through the answers of conversations."""
    for item in exchanges:
        session.say(f"\n> {item.question}")
        if session.offer(item.prompt, item.answer, said_by) is None:
            return
