"""The words that all rooms share: messages, pairs, exchanges, scores, and what evals need of a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np

from moltlm.data.rows import Row
from moltlm.data.state import State

Progress = Callable[[int, int, str], None]
"""Called as (done, total, note) while something long goes on."""


def silent(done: int, total: int, note: str) -> None:
    """The Progress that says nothing."""


class Message(TypedDict):
    role: str
    content: str


RAW = "text"
"""Role of the beginning of a plain text, which is no conversation: it is continued as it stands, without a template."""


@dataclass(frozen=True)
class Exchange(Row):
    """A conversation up to a user turn, and the assistant's answer to it."""

    prompt: list[Message]
    answer: str
    topic: str = ""
    trait: str = ""
    source: str = ""

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.prompt[-1]["content"]


@dataclass(frozen=True)
class Pair(Row):
    """One preference: what the personality says (`chosen`) against what the bare model says (`rejected`)."""

    id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    topic: str = ""
    trait: str = ""

    @property
    def question(self) -> str:
        return self.prompt[-1]["content"]


@dataclass(frozen=True)
class TaskExample:
    """One input of a task and the answer that counts as right."""

    prompt: list[Message]
    answer: str


@dataclass(frozen=True)
class TokenScore:
    """Log-probability of one completion: its sum in nats and the number of tokens it has."""

    logprob: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.logprob / max(self.tokens, 1)


class ChatModel(Protocol):
    """A base model with adapters, as `pipeline` hands it to `evals`."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...

    def state(self, state: State) -> AbstractContextManager[None]:
        """Serve this state inside the `with`, and the one before it afterwards."""
        ...

    def generate(
        self,
        prompts: list[list[Message]],
        max_new_tokens: int,
        batch_size: int,
        progress: Progress = silent,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Answers in the current state, one for each prompt: greedy at temperature 0, else sampled."""
        ...

    def embed(self, texts: list[str]) -> np.ndarray:
        """(n, d) float32 of unit length, the same in every state."""
        ...

    def score(
        self, prompts: list[list[Message]], completions: list[str], batch_size: int, progress: Progress = silent
    ) -> list[TokenScore]:
        """Log-probability of each completion after its prompt, in the current state."""
        ...

    def kl_from(
        self,
        reference: State,
        prompts: list[list[Message]],
        completions: list[str],
        batch_size: int,
        progress: Progress = silent,
    ) -> list[float]:
        """Mean KL(reference state || current state) in nats a token over each completion."""
        ...
