"""What answers requests: the model in this process, or another server behind this one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from moltlm.pipeline.service.server.requests import ChatRequest


@dataclass(frozen=True)
class Started:
    """An answer begins.

    Attributes:
        state: what answers, as `personality+a`.
        fingerprint: of the adapters that answer.
        is_learned: whether a retraining may learn the answer: the personality gave it, at its full strength.
    """

    state: str
    fingerprint: str
    is_learned: bool


@dataclass(frozen=True)
class Finished:
    """An answer ended: why (`stop` or `length`), and how many tokens the prompt and the answer have."""

    reason: str
    prompt_tokens: int
    completion_tokens: int


Event = Started | str | Finished
"""An answer is one Started, pieces of text, and one Finished."""


@dataclass(frozen=True)
class Offer:
    """The names of the states that can be asked for, and which of them answers where none is named."""

    names: tuple[str, ...]
    default: str


class Engine(Protocol):
    async def offer(self) -> Offer:
        """What can be asked for now."""
        ...

    def answer(self, request: ChatRequest) -> AsyncIterator[Event]:
        """Answer a request; closing the iterator ends the generation.

        Raises:
            ApiError: before the first event for a request that cannot be answered, later for a failure.
        """
        ...

    @property
    def trouble(self) -> str:
        """What is wrong, though requests are answered; empty for nothing."""
        ...

    def close(self) -> None: ...
