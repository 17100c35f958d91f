"""The replay buffer: the exchanges that carry the personality, chosen under one token budget."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from data.config import ReplayConfig
from data.errors import BadInput
from data.types import Exchange


@dataclass(frozen=True)
class Candidate:
    """An exchange that could be replayed. `importance` is the mean KL, in nats a token of the answer, of the
    personality's distribution from the base's: how much is lost there if the personality is forgotten."""

    exchange: Exchange
    importance: float
    tokens: int


def select(candidates: list[Candidate], config: ReplayConfig, seed: int) -> list[Candidate]:
    """The most important candidates (or a uniform sample) that fit `budget_tokens`, topics taking turns if asked.

    Raises BadInput when not even one fits.
    """
    order = list(candidates)
    random.Random(seed).shuffle(order)
    if config.select == "importance":
        order.sort(key=lambda item: -item.importance)
    if config.per_topic:
        order = _turns(order)
    kept, used = [], 0
    for candidate in order:
        if used + candidate.tokens <= config.budget_tokens:
            kept.append(candidate)
            used += candidate.tokens
    if not kept:
        smallest = min((item.tokens for item in candidates), default=0)
        raise BadInput(
            f"No exchange fits a replay budget of {config.budget_tokens} tokens.",
            f"Set replay.budget_tokens={max(smallest, 1000)} or more.",
        )
    return kept


def _turns(order: list[Candidate]) -> list[Candidate]:
    """The same candidates, best of each topic first, then second best, and so on."""
    rank: dict[str, int] = {}
    keyed = []
    for index, candidate in enumerate(order):
        topic = candidate.exchange.topic
        keyed.append((rank.get(topic, 0), index))
        rank[topic] = rank.get(topic, 0) + 1
    return [order[index] for _, index in sorted(keyed)]


def mix(
    task: list[Exchange], replay: list[Exchange], steps: int, batch_size: int, replayed: int, seed: int
) -> list[Exchange]:
    """`steps` equal batches in training order, each of `batch_size` task examples and `replayed` replayed ones at
    random places. Both are reshuffled whenever they run out.

    Raises BadInput when replay is asked for and there is none.
    """
    if replayed and not replay:
        raise BadInput("replay_ratio is above 0 but the replay buffer is empty.", "Build it: molt replay build CONFIG")
    rng = random.Random(seed)
    draw_task, draw_replay = _forever(task, rng), _forever(replay, random.Random(seed + 1))
    rows = []
    for _ in range(steps):
        batch = [next(draw_task) for _ in range(batch_size)] + [next(draw_replay) for _ in range(replayed)]
        rng.shuffle(batch)
        rows += batch
    return rows


def _forever(rows: list[Exchange], rng: random.Random) -> Any:
    while rows:
        order = list(rows)
        rng.shuffle(order)
        yield from order


def to_row(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate)


def from_row(row: dict[str, Any]) -> Candidate:
    return Candidate(Exchange(**row["exchange"]), row["importance"], row["tokens"])
