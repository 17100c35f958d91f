"""The types that all packages share: messages, exchanges, pairs, scores, and the interface of a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np

from moltlm.data.rows import Row
from moltlm.data.state import State

Progress = Callable[[int, int, str], None]
"""Called as (completed, total, note) during long work."""


def silent(completed: int, total: int, note: str) -> None:
    """A Progress that reports nothing."""


class Message(TypedDict):
    """One turn of a conversation. `role` is `system`, `user`, `assistant`, or RAW."""

    role: str
    content: str


RAW = "text"
"""Role of the beginning of a plain text, which the model continues without a chat template."""


SAID_BY_BASE, GIVEN, EDITED = "base", "given", "edited"
"""Where the rejected side of a pair is from: the base model said it, the data gives it as the worse answer, or a model
said it and the user wrote a better answer (a correction)."""


@dataclass(frozen=True)
class Exchange(Row):
    """A conversation up to a user turn, and the assistant's answer to it.

    `rejected` is the worse answer to the same prompt, where the data gives one, and `provenance` says whether it is
    GIVEN or EDITED.
    """

    prompt: list[Message]
    answer: str
    topic: str = ""
    trait: str = ""
    source: str = ""
    rejected: str = ""
    provenance: str = GIVEN

    @property
    def is_correction(self) -> bool:
        """Whether the user wrote the answer in place of the rejected one."""
        return bool(self.rejected) and self.provenance == EDITED

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.prompt[-1]["content"]


@dataclass(frozen=True)
class Pair(Row):
    """One preference: the personality's answer (`chosen`) over a worse one (`rejected`).

    `provenance` says where the rejected side is from: SAID_BY_BASE, GIVEN or EDITED. `base` is what the base says to
    the prompt; it may be empty where the rejected side is another.
    """

    id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    topic: str = ""
    trait: str = ""
    provenance: str = SAID_BY_BASE
    base: str = ""

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.prompt[-1]["content"]

    @property
    def base_answer(self) -> str:
        """What the base says to the prompt, or "" if it was not asked."""
        return self.rejected if self.provenance == SAID_BY_BASE else self.base


@dataclass(frozen=True)
class TaskExample:
    """One input of a task and its correct answer."""

    prompt: list[Message]
    answer: str


@dataclass(frozen=True)
class TokenScore:
    """The log-probability of one completion, summed over its tokens, in nats; and the number of tokens."""

    logprob: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.logprob / max(self.tokens, 1)


@dataclass(frozen=True)
class Divergence:
    """One completion in a state: its log-probability, and the mean KL(reference state || state) over its tokens, in
    nats."""

    score: TokenScore
    kl: float


class ChatModel(Protocol):
    """A base model with adapters, as `pipeline` hands it to `evals`."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...

    def state(self, state: State) -> AbstractContextManager[None]:
        """Serve this state inside the `with`, and the previous one afterwards."""
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
        """One answer for each prompt in the current state: greedy at temperature 0, else sampled with the seed."""
        ...

    def embed(self, texts: list[str]) -> np.ndarray:
        """Embeddings (n, d) float32 of unit length. They do not depend on the state."""
        ...

    def score(
        self, prompts: list[list[Message]], completions: list[str], batch_size: int, progress: Progress = silent
    ) -> list[TokenScore]:
        """The log-probability of each completion after its prompt, in the current state."""
        ...

    def score_continuations(
        self, starts: list[str], continuations: list[list[str]], batch_size: int, progress: Progress = silent
    ) -> list[list[float]]:
        """The log-probability of each of the continuations of a plain text, in the current state."""
        ...

    def score_against(
        self,
        reference: State,
        prompts: list[list[Message]],
        completions: list[str],
        batch_size: int,
        progress: Progress = silent,
    ) -> list[Divergence]:
        """Each completion in the current state, and how far that is from the reference state."""
        ...
