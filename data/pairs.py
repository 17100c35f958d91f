"""Preference pairs: the personality's answer over a worse one, which the data gives or the base model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moltlm.data.config import PairsConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint
from moltlm.data.state import BASE
from moltlm.data.types import SAID_BY_BASE, ChatModel, Exchange, Message, Pair, Progress, silent

BASE_ANSWERS = 200
"""Answers of the base that are enough to tell its style from the personality's."""


def build(
    exchanges: list[Exchange],
    model: ChatModel,
    config: PairsConfig,
    batch_size: int,
    progress: Progress = silent,
    seed: int = 0,
    base_answers: int | None = None,
) -> list[Pair]:
    """Build one pair for each exchange. The rejected side is the exchange's own; where there is none, it is sampled
    from the model in its base state.

    Args:
        base_answers: how many pairs at least get an answer of the base, including those whose rejected side it is. The
            others are asked evenly spread; None: all of them.

    Raises:
        BadInput: for a prompt of more than `max_prompt_tokens`, before anything is generated.
    """
    for item in exchanges:
        tokens = prompt_tokens(item, model.tokenizer)
        if tokens > config.max_prompt_tokens:
            raise BadInput(
                f"The prompt {item.question[:40]!r}... has {tokens} tokens, more than {config.max_prompt_tokens}.",
                f"Shorten it, or set pairs.max_prompt_tokens={tokens}",
            )
    places = _to_answer(exchanges, len(exchanges) if base_answers is None else base_answers)
    with model.state(BASE):
        prompts = [exchanges[place].prompt for place in places]
        answers = model.generate(
            prompts, config.max_new_tokens, batch_size, progress, temperature=config.temperature, seed=seed
        )
    by_place = dict(zip(places, answers, strict=True))
    return [pair_of(item, by_place.get(place, "")) for place, item in enumerate(exchanges)]


def _to_answer(exchanges: list[Exchange], at_least: int) -> list[int]:
    """The places of the exchanges without a rejected side, and of as many others as make `at_least`, in order."""
    without = [place for place, item in enumerate(exchanges) if not item.rejected]
    others = [place for place, item in enumerate(exchanges) if item.rejected]
    count = min(len(others), max(0, at_least - len(without)))
    spread = {others[int(place)] for place in np.linspace(0, len(others), count, endpoint=False)}
    return sorted({*without, *spread})


def pair_of(item: Exchange, base_answer: str) -> Pair:
    """The pair of an exchange and what the base says to its prompt, "" if it was not asked."""
    labels = (item.topic, item.trait)
    if not item.rejected:
        return Pair(fingerprint([item.prompt, item.answer]), item.prompt, item.answer, base_answer, *labels)
    identity = fingerprint([item.prompt, item.answer, item.rejected])
    return Pair(identity, item.prompt, item.answer, item.rejected, *labels, item.provenance, base_answer)


def exchange_of(pair: Pair) -> Exchange:
    """The exchange that a pair is of: with its rejected side, unless the base said that."""
    if pair.provenance == SAID_BY_BASE:
        return Exchange(pair.prompt, pair.chosen, pair.topic, pair.trait)
    return Exchange(pair.prompt, pair.chosen, pair.topic, pair.trait, "", pair.rejected, pair.provenance)


def without_refuted(
    exchanges: list[Exchange], earlier: Sequence[Exchange] = (), later: Sequence[Exchange] = ()
) -> tuple[list[Exchange], int]:
    """Leave out the answers that the same data calls worse ones to the same prompt, and count them.

    An answer is refuted by a correction of it, of several by the latest; and, unless the answer is itself preferred to
    another, by being a rejected side.

    Args:
        earlier, later: exchanges before and after these, which refute, too, and are not returned.
    """
    everything = [*earlier, *exchanges, *later]
    rejected = {_said(item.prompt, item.rejected) for item in everything if item.rejected}
    corrected = {_said(item.prompt, item.rejected) for item in everything if item.is_correction}
    latest: set[str] = set()
    standing = [False] * len(everything)
    for place in reversed(range(len(everything))):
        item = everything[place]
        refuting = latest if item.is_correction else corrected if item.rejected else rejected
        standing[place] = _said(item.prompt, item.answer) not in refuting
        if standing[place] and item.is_correction:
            latest.add(_said(item.prompt, item.rejected))
    stands = standing[len(earlier) : len(earlier) + len(exchanges)]
    accepted = [item for item, is_standing in zip(exchanges, stands, strict=True) if is_standing]
    return accepted, len(exchanges) - len(accepted)


def _said(prompt: list[Message], answer: str) -> str:
    return fingerprint([prompt, answer.strip()])


def prompt_tokens(item: Exchange, tokenizer: Any) -> int:
    """Number of tokens of the last user turn."""
    return len(tokenizer(item.question)["input_ids"])
