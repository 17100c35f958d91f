"""Talk to several states side by side: base, personality, personality with a task. The base is loaded once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moltlm.adapters import rendering, streaming
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
        left_out: how many of the oldest messages the last answers left out, since the model has no room for them.
    """

    model: Any
    states: list[State]
    max_new_tokens: int
    system: str = ""
    histories: dict[State, list[Message]] = field(default_factory=dict)
    left_out: int = 0

    def answers(self, text: str) -> dict[State, str]:
        """Each state's answer to `text`; both become part of its history, which loses its oldest turns where the model
        has no room for them. Raises BadInput if there is no room for `text` alone."""
        answers: dict[State, str] = {}
        self.left_out = 0
        for state in self.states:
            history = self._fitted([*self.histories.get(state, []), {"role": "user", "content": text}])
            with self.model.state(state):
                (answer,) = self.model.generate([[*self._system(), *history]], self.max_new_tokens, 1)
            self.histories[state] = [*history, {"role": "assistant", "content": answer}]
            answers[state] = answer
        return answers

    def _fitted(self, history: list[Message]) -> list[Message]:
        tokenizer, room = self.model.tokenizer, streaming.context(self.model) - self.max_new_tokens
        prompt = rendering.fitted(tokenizer, [*self._system(), *history], room)
        if (length := len(rendering.encode_prompt(tokenizer, prompt))) > room:
            raise BadInput(
                f"The message has {length} tokens with the system prompt, and there is room for {max(0, room)}.",
                f"Shorten it, or shorten the answers ({self.max_new_tokens} tokens): --max-new-tokens N",
            )
        shorter = prompt[len(self._system()) :]
        self.left_out = max(self.left_out, len(history) - len(shorter))
        return shorter

    def _system(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

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
            if chat.left_out:
                say(f"({chat.left_out} of the oldest messages no longer fit into the model, and are forgotten)")
        except BadInput as error:
            say(f"{error.what} {error.fix}")
