"""Mix task examples with replayed exchanges, in training order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange


def mix(
    task: list[Exchange], replay: list[Exchange], steps: int, batch_size: int, replayed: int, seed: int
) -> list[Exchange]:
    """Mix `steps` batches of `batch_size` examples.

    The order of the task examples does not depend on the buffer, so two buffers can be compared example by example.

    Args:
        replay: the buffer. Like `task`, it is reshuffled whenever it runs out.
        replayed: the number of replayed examples in all batches, spread evenly over the batches and placed at random
            within each.

    Raises:
        BadInput: if `replayed` is above 0 and the buffer is empty.
    """
    if replayed and not replay:
        raise BadInput("replay_ratio is above 0 but the replay buffer is empty.", "Build it: molt replay build CONFIG")
    rng = random.Random(seed)
    draw_task, draw_replay = _forever(task, seed), _forever(replay, seed + 1)
    rows = []
    for step in range(steps):
        count = replayed * (step + 1) // steps - replayed * step // steps
        batch = [next(draw_task) for _ in range(batch_size - count)] + [next(draw_replay) for _ in range(count)]
        rng.shuffle(batch)
        rows += batch
    return rows


def stream(
    task: list[Exchange], replay: list[Exchange], steps: int, batch_size: int, replayed: int, memory: int, seed: int
) -> list[Exchange]:
    """As `mix`, but each task example comes once, in its order. Replayed examples are sampled from the buffer and from
    a reservoir of task examples that came before (experience replay; Chaudhry et al. 2019, arXiv:1902.10486).

    Args:
        memory: the size of the reservoir.

    Raises:
        BadInput: if there are fewer task examples than the steps take.
    """
    # without a buffer, there is nothing to replay at the first step
    needed = steps * batch_size - replayed + (0 if replay else replayed // steps)
    if len(task) < needed:
        raise BadInput(
            f"A stream of {steps} steps takes {needed} examples, and there are {len(task)}.",
            "Raise the task's train, or lower its steps.",
        )
    rng, rows, reservoir = random.Random(seed), [], []
    arriving = iter(enumerate(task))
    for step in range(steps):
        count = replayed * (step + 1) // steps - replayed * step // steps
        available = [*replay, *reservoir]
        replays = [rng.choice(available) for _ in range(count)] if available else []
        new = [next(arriving) for _ in range(batch_size - len(replays))]
        batch = [item for _, item in new] + replays
        rng.shuffle(batch)
        rows += batch
        for number, item in new:
            if len(reservoir) < memory:
                reservoir.append(item)
            elif (place := rng.randrange(number + 1)) < memory:
                reservoir[place] = item
    return rows


def _forever(rows: list[Exchange], seed: int) -> Iterator[Exchange]:
    rng = random.Random(seed)
    while rows:
        order = list(rows)
        rng.shuffle(order)
        yield from order
