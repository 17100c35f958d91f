"""How long a job takes on this machine: the work of its parts, and how fast the model is here, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from moltlm.data import packing
from moltlm.data.state import BASE
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup.parts import TALKS, Job, Part
from moltlm.pipeline.setup.work import Counter, Speed

SHORT, LONG = 2, 10
"""Tokens of the answers by which writing is measured."""


def counter(run: Run) -> Counter:
    """Counts what this run computes with its model on this machine."""
    model, config = run.base, run.config
    packed = packing.possible(model.model)
    return Counter(model, config.model.shape, config.adapters(), packed, config.model.eval_batch_size)


def measure(run: Run, clock: Callable[[], float] = time.monotonic) -> Speed:
    """Read and write a few of the persona's texts with the base, which the first stage then uses."""
    start = clock()
    model: Any = run.base
    load = clock() - start
    job, batch = Job(run, counter(run)), run.config.model.eval_batch_size
    texts = [(item.prompt, item.answer) for item in job.persona.train]
    texts = texts or [(prompt, job.persona.spec.summary) for prompt in job.persona.neutral_train]
    prompts, answers = (list(column) for column in zip(*(texts * batch)[:batch], strict=True))
    few = max(1, batch // 4)

    def timed(work: Callable[[], Any]) -> float:
        start = clock()
        work()
        return clock() - start

    def writing(rows: int, temperature: float = 0.0) -> float:
        """Seconds of a round of that many rows."""
        short, long = (
            timed(lambda n=n: model.generate(prompts[:rows], n, batch, temperature=temperature)) for n in (SHORT, LONG)
        )
        return max(long - short, 1e-6) / (LONG - SHORT)

    with model.state(BASE):
        model.score(prompts[:2], answers[:2], 2)  # warms up
        read = timed(lambda: model.score(prompts, answers, batch))
        many, fewer, drawn = writing(batch), writing(few), writing(batch, 1.0)
    flop = job.counter.read(job.counter.rows(prompts, answers)).read
    row = max(0.0, many - fewer) / max(1, batch - few)
    drawing = max(0.0, drawn - many) / batch
    return Speed(read / flop, row / job.counter.forward(1, 1), max(0.0, many - batch * row), drawing, load)


def lines(parts: Sequence[Part], speed: Speed, arguments: str) -> list[str]:
    """What a terminal shows before a job begins.

    Args:
        arguments: those that name the job in another command.
    """
    seconds = [speed.seconds(part.work) for part in parts]
    talk = sum(seconds[: max(place for place, part in enumerate(parts) if part.name in TALKS) + 1])
    width = max(len(part.name) for part in parts)
    table = [
        f"  {part.name:{width}}  {minutes(each):>8}  {part.purpose}" for part, each in zip(parts, seconds, strict=True)
    ]
    head = f"This takes about {minutes(sum(seconds))} here, by the speed of this machine just now:"
    return [head, *table, f"After about {minutes(talk)} you can talk to it: molt chat {arguments}"]


def minutes(seconds: float) -> str:
    """A duration in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
