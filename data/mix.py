"""Task examples and replayed exchanges in training order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange


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


def stream(
    task: list[Exchange], replay: list[Exchange], steps: int, batch_size: int, replayed: int, memory: int, seed: int
) -> list[Exchange]:
    """As `mix`, but each task example comes once, in its order, and what is replayed is drawn from the buffer and from
    a reservoir of at most `memory` of those that have come (experience replay; Chaudhry et al. 2019, arXiv:1902.10486).

    Raises BadInput when there are fewer examples than the steps take.
    """
    needed = steps * batch_size - replayed + (0 if replay else replayed // steps)  # nothing is known at the first step
    if len(task) < needed:
        raise BadInput(
            f"A stream of {steps} steps takes {needed} examples, and there are {len(task)}.",
            "Raise the task's train, or lower its steps.",
        )
    rng, rows, kept = random.Random(seed), [], []
    arriving = iter(enumerate(task))
    for step in range(steps):
        here = replayed * (step + 1) // steps - replayed * step // steps
        known = [*replay, *kept]
        again = [rng.choice(known) for _ in range(here)] if known else []
        fresh = [next(arriving) for _ in range(batch_size - len(again))]
        batch = [item for _, item in fresh] + again
        rng.shuffle(batch)
        rows += batch
        for number, item in fresh:
            if len(kept) < memory:
                kept.append(item)
            elif (place := rng.randrange(number + 1)) < memory:
                kept[place] = item
    return rows


def _forever(rows: list[Exchange], seed: int) -> Iterator[Exchange]:
    rng = random.Random(seed)
    while rows:
        order = list(rows)
        rng.shuffle(order)
        yield from order
