"""Talk to several states side by side: base, personality, personality with a task. The base is loaded once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.state import State
from moltlm.data.types import Message

HELP = """\
/use STATE [STATE ...]   answer in these states: base, personality, personality+TASK
/scale ADAPTER FACTOR    turn an adapter up or down: 0 is off, 1 as it was trained
/system TEXT             set the system prompt; without TEXT there is none
/reset                   forget the conversation
/states                  show the loaded adapters and the answering states
/quit                    or ctrl-D"""
Reply = Callable[[str], None]


@dataclass
class Chat:
    """A conversation with several states. Each has a history of its own, without the others' answers.

    Attributes:
        model: a served model with the states' adapters.
        states: those that answer.
        max_new_tokens: length of an answer.
        system: the system prompt; empty for none.
        histories: messages by state.
    """

    model: Any
    states: list[State]
    max_new_tokens: int
    system: str = ""
    histories: dict[State, list[Message]] = field(default_factory=dict)

    def answers(self, text: str) -> dict[State, str]:
        """Each state's answer to `text`; both become part of its history."""
        answers = {}
        for state in self.states:
            history = self.histories.setdefault(state, [])
            history.append({"role": "user", "content": text})
            system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
            with self.model.state(state):
                (answer,) = self.model.generate([[*system, *history]], self.max_new_tokens, 1)
            history.append({"role": "assistant", "content": answer})
            answers[state] = answer
        return answers

    def use(self, states: list[State]) -> None:
        """Let these states answer. Raises BadInput for a state whose adapters are not loaded."""
        for state in states:
            with self.model.state(state):
                pass
        self.states = states

    def command(self, line: str) -> str:
        """Run a line that begins with a slash, and return the reply to the user. Raises BadInput for an unknown
        command."""
        name, *words = line.split()
        if name == "/use" and words:
            self.use([State.parse(word) for word in words])
            return f"answering: {', '.join(words)}"
        if name == "/scale" and len(words) == 2 and re.fullmatch(r"-?\d+(\.\d+)?", words[1]):
            self.model.scale(words[0], float(words[1]))
            return f"{words[0]} is scaled by {words[1]}"
        if name == "/system":
            self.system = line.removeprefix("/system").strip()
            return f"system prompt: {self.system or 'none'}"
        if name == "/reset":
            self.histories.clear()
            return "the conversation is forgotten"
        if name == "/states":
            loaded = ", ".join(self.model.adapters) or "no adapter"
            return f"loaded: {loaded}; answering: {', '.join(map(str, self.states))}"
        if name == "/help":
            return HELP
        raise BadInput(f"Unknown command: {line}.", "See: /help")


def talk(chat: Chat, lines: Iterator[str], say: Reply) -> None:
    """Answer line by line until /quit or the end. An error is shown, and the conversation continues."""
    for line in lines:
        text = line.strip()
        if text == "/quit":
            return
        if not text:
            continue
        try:
            if text.startswith("/"):
                say(chat.command(text))
                continue
            for state, answer in chat.answers(text).items():
                say(f"{state}: {answer}" if len(chat.states) > 1 else answer)
        except BadInput as error:
            say(f"{error.what} {error.fix}")
