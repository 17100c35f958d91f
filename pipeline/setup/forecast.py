"""How long a job takes on this machine: the work of its parts, and how fast the model is here, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moltlm.data.types import Message
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup.parts import TALKS, Part
from moltlm.pipeline.setup.work import Counter, Speed
from moltlm.pipeline.stages.pairs import load_persona

LONG = 8
"""Tokens of the answers by which writing is measured."""


def counter(run: Run) -> Counter:
    """Counts what this run computes with its model on this machine."""
    from moltlm.data import packing

    model, config = run.base, run.config
    packed = packing.possible(model.model)
    return Counter(model, config.model.shape, config.adapters(), packed, config.model.eval_batch_size)


def measure(run: Run, clock: Callable[[], float] = time.monotonic) -> Speed:
    """Read, write and train on a few of the persona's texts with the base, which the first stage then uses. What is
    trained is thrown away."""
    from moltlm.adapters import rates

    start = clock()
    model: Any = run.base
    load = clock() - start
    with rates.new_adapter(model, run.config.lora) as trainable:
        sample = _Sample.of(run, clock)
        read = sample.reading()
        train, step = sample.training() if trainable and sample.counter.packed else (read, 0.0)
        return Speed(read, train, step, *sample.writing(), load)


@dataclass(frozen=True)
class _Sample:
    """Texts of the persona by which the model is timed, a batch of them.

    Attributes:
        prompts, longer: conversations to answer, the second ones with an exchange before the question.
    """

    model: Any
    counter: Counter
    clock: Callable[[], float]
    micro: int
    prompts: list[list[Message]]
    answers: list[str]
    longer: list[list[Message]]

    @classmethod
    def of(cls, run: Run, clock: Callable[[], float]) -> _Sample:
        persona, batch = load_persona(run), run.config.model.eval_batch_size
        texts = [(item.prompt, item.answer) for item in persona.train]
        texts = texts or [(prompt, persona.spec.summary) for prompt in persona.neutral_train]
        prompts, answers = (list(column) for column in zip(*(texts * batch)[:batch], strict=True))
        longer = [
            [*prompt, {"role": "assistant", "content": answer}, prompt[-1]]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        micro = run.config.adapters().micro_batch(run.config.personality.batch_size)
        return cls(run.base, counter(run), clock, micro, prompts, answers, longer)

    def timed(self, work: Callable[[], Any]) -> float:
        start = self.clock()
        work()
        return self.clock() - start

    def reading(self) -> float:
        """Seconds for a FLOP."""
        self.model.score(self.prompts[:2], self.answers[:2], 2)  # warms up
        seconds = self.timed(lambda: self.model.score(self.prompts, self.answers, len(self.prompts)))
        return seconds / self.counter.read(self.counter.rows(self.prompts, self.answers), 1).read

    def training(self) -> tuple[float, float]:
        """Seconds for a FLOP, and for a pass beyond those."""
        (few, seconds), (many, longer) = (self._pass(count) for count in (1, max(2, self.micro)))
        flop = max(0.0, longer - seconds) / (many - few)
        return flop, max(0.0, longer - many * flop)

    def _pass(self, count: int) -> tuple[float, float]:
        """FLOP and seconds of a training pass on so many rows."""
        from moltlm.adapters import rates

        rows = self.counter.rows(self.prompts[:count], self.answers[:count])
        tokens = self.counter.tokens([prompt + answer[:-1] for prompt, answer in rows])
        flop = self.counter.step(tokens, sum(len(answer) for _, answer in rows))
        return flop, self.timed(lambda: rates.step(self.model, rows))

    def writing(self) -> tuple[float, float, float, float]:
        """Seconds for a FLOP, for a round beyond those, for an earlier token, and to sample a token."""
        batch, few = len(self.prompts), max(1, len(self.prompts) // 4)
        many, drawn = self._round(self.prompts), self._round(self.prompts, 1.0)
        fewer, farther = self._round(self.prompts[:few]), self._round(self.longer[:few])
        near, far = (self._columns(prompts[:few]) for prompts in (self.prompts, self.longer))
        attend = max(0.0, farther - fewer) / (few * (far - near))
        many, fewer = many - batch * self._columns(self.prompts) * attend, fewer - few * near * attend
        row = max(0.0, many - fewer) / max(1, batch - few)
        draw = max(0.0, drawn - attend * batch * self._columns(self.prompts) - many) / batch
        return row / self.counter.forward(1, 1, 1), max(0.0, many - batch * row), attend, draw

    def _round(self, prompts: list[list[Message]], temperature: float = 0.0) -> float:
        """Seconds in which each prompt's answer gets one more token."""
        short, long = (
            self.timed(lambda n=n: self.model.generate(prompts, n, len(prompts), temperature=temperature))
            for n in (1, LONG)
        )
        return max(long - short, 1e-6) / (LONG - 1)

    def _columns(self, prompts: list[list[Message]]) -> float:
        """Tokens before the one that is written, of all rows."""
        return max(len(prompt) for prompt, _ in self.counter.rows(prompts, [""] * len(prompts))) + LONG / 2


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
