"""Task examples and replayed exchanges in training order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data.errors import BadInput
from data.types import Exchange


def mix(
    task: list[Exchange], replay: list[Exchange], steps: int, batch_size: int, replayed: int, seed: int
) -> list[Exchange]:
    """`steps` batches of `batch_size`, `replayed` of all examples from the buffer, as evenly spread over the batches as
    can be and at random places within them. Both sides are reshuffled whenever they run out.

    The order of the task examples does not depend on the buffer, so two buffers can be compared example by example.
    Raises BadInput when replay is asked for and there is none.
    """
    if replayed and not replay:
        raise BadInput("replay_ratio is above 0 but the replay buffer is empty.", "Build it: molt replay build CONFIG")
    rng = random.Random(seed)
    draw_task, draw_replay = _forever(task, seed), _forever(replay, seed + 1)
    rows = []
    for step in range(steps):
        here = replayed * (step + 1) // steps - replayed * step // steps
        batch = [next(draw_task) for _ in range(batch_size - here)] + [next(draw_replay) for _ in range(here)]
        rng.shuffle(batch)
        rows += batch
    return rows


def _forever(rows: list[Exchange], seed: int) -> Iterator[Exchange]:
    rng = random.Random(seed)
    while rows:
        order = list(rows)
        rng.shuffle(order)
        yield from order
