"""What a stage computes: floating-point operations (FLOP) of forward passes and of training, and tokens that are
written one by one, counted from the shape of the model and from the texts themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from moltlm.adapters.config import AdaptersConfig, ShapeConfig
from moltlm.data.io import batches
from moltlm.data.types import Message
from moltlm.evals.relevance import DISTRACTORS, START
from moltlm.pipeline.setup import estimate

UNKNOWN = -1
"""A token that is not known yet, such as those of an answer that is still to be written. No two are equal."""
Row = tuple[list[int], list[int]]
"""Tokens of a prompt and of an answer."""


@dataclass(frozen=True)
class Work:
    """FLOP of forward passes (`read`), of training (`trained`, in so many `passes` forward and back) and of the forward
    passes in which a batch of rows gets one more token each (`written`); `rounds` counts these, `attended` the tokens
    before those that are written, `drawn` the tokens that are sampled, and `loads` how often the model is loaded."""

    read: float = 0.0
    trained: float = 0.0
    passes: float = 0.0
    written: float = 0.0
    rounds: float = 0.0
    attended: float = 0.0
    drawn: float = 0.0
    loads: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, factor: float) -> Work:
        """As much of everything but the loading."""
        values = {field.name: getattr(self, field.name) * factor for field in fields(self)}
        return Work(**{**values, "loads": self.loads})


@dataclass(frozen=True)
class Counter:
    """Counts the work on rows of tokens.

    Attributes:
        text: what encodes (`adapters.serve.TextModel`).
        packed: whether what rows begin with alike is computed once, and no padding (`data.packing`).
        batch: rows that are read or written at a time.
    """

    text: Any
    shape: ShapeConfig
    config: AdaptersConfig
    packed: bool
    batch: int

    def forward(self, tokens: float, labels: float, adapters: int = 0) -> float:
        """FLOP of `tokens` through the layers, with that many adapters active, and of `labels` of them through the
        head: two for each weight."""
        return 2 * (tokens * (self._layers + adapters * self._adapter) + labels * self._head)

    def step(self, tokens: float, labels: float, below: int = 0) -> float:
        """FLOP of training on them an adapter above `below` frozen ones: two more for each frozen weight, through which
        the gradient goes back, and four for each that is trained. Checkpointing computes the layers once more."""
        full = self.config.personality.parameters == "full"
        frozen, trained = (0, self._layers) if full else (self._layers + below * self._adapter, self._adapter)
        recomputed = 2 * (frozen + trained) if self.config.train.gradient_checkpointing else 0
        return tokens * (4 * frozen + 6 * trained + recomputed) + labels * 4 * self._head

    def tokens(self, rows: Sequence[list[int]]) -> int:
        """That are computed of one batch."""
        from moltlm.data import packing

        return len(packing.pack(list(rows)).tokens) if self.packed else len(rows) * max(map(len, rows))

    def read(self, rows: Sequence[Row], adapters: int = 0, head: int = 1) -> Work:
        """Of the likelihood of answers, whose labels go through the head `head` times."""
        order = sorted(rows, key=lambda row: (len(row[0]), row[0]))
        tokens = sum(self.tokens([a + b[:-1] for a, b in group]) for group in batches(order, self.batch))
        return Work(read=self.forward(tokens, head * sum(len(answer) for _, answer in rows), adapters))

    def train(self, rows: Sequence[Row], size: int, steps: int, below: int = 0) -> Work:
        """Of `steps` steps on `size` of these rows at a time."""
        if not rows or not steps:
            return Work()
        micro = self.config.micro_batch(size)
        groups = list(batches(list(rows), micro))
        tokens = sum(self.tokens([a + b[:-1] for a, b in group]) for group in groups) / len(rows)
        labels = sum(len(answer) for _, answer in rows) / len(rows)
        trained = self.step(tokens * size * steps, labels * size * steps, below)
        return Work(trained=trained, passes=steps * size / micro)

    def write(
        self,
        prompts: Sequence[list[int]],
        lengths: Sequence[float],
        longest: int,
        adapters: int = 0,
        drawn: bool = False,
    ) -> Work:
        """Of answers of these lengths, of which at least one in each batch is of the longest.

        Args:
            drawn: they are sampled. Random numbers are drawn for rows that have ended too.
        """
        if not prompts:
            return Work()
        groups = list(batches(sorted(prompts, key=len), self.batch))
        computed = sum(lengths) if self.packed else len(prompts) * longest
        return Work(
            read=self.forward(sum(map(self.tokens, groups)), len(prompts), adapters),
            written=self.forward(computed, computed, adapters),
            rounds=len(groups) * longest,
            attended=sum(len(group) * (len(group[-1]) + longest / 2) for group in groups) * computed / len(prompts),
            drawn=len(prompts) * longest if drawn else 0,
        )

    def relevance(self, answers: Sequence[float], questions: Sequence[str]) -> Work:
        """Of asking the base which of some questions each answer is to."""
        encode = self.text.tokenizer
        start = len(encode(START.format(""))["input_ids"])
        each = sum(len(encode(f" {question}")["input_ids"]) for question in questions) / max(1, len(questions))
        choices = min(1 + DISTRACTORS, len(questions))
        tokens, labels = sum(answers) + len(answers) * (start + choices * (each - 1)), len(answers) * choices * each
        return Work(read=self.forward(tokens, labels))

    def rows(self, prompts: list[list[Message]], answers: list[str]) -> list[Row]:
        """Tokens of prompts and answers."""
        return self.text.encode(prompts, answers)

    @property
    def _layers(self) -> int:
        return estimate.linear_parameters(self.shape)

    @property
    def _head(self) -> int:
        return self.shape.vocab_size * self.shape.hidden_size

    @property
    def _adapter(self) -> int:
        return estimate.lora_parameters(self.shape, self.config.lora.r)


def unknown(lengths: Sequence[float]) -> list[list[int]]:
    """Tokens of answers of these lengths that nobody has written yet."""
    answers, last = [], UNKNOWN
    for length in map(round, lengths):
        answers.append(list(range(last, last - max(1, length), -1)))
        last -= max(1, length)
    return answers


@dataclass(frozen=True)
class Speed:
    """Seconds for a FLOP of reading, of training and of writing; for a pass of training and a round of writing beyond
    those; for each earlier token that a written one attends to; to sample a token, and to load the model."""

    read: float
    train: float
    step: float
    write: float
    round: float
    attend: float
    draw: float
    load: float

    def seconds(self, work: Work) -> float:
        """How long it takes at this speed."""
        training = work.trained * self.train + work.passes * self.step
        writing = work.written * self.write + work.rounds * self.round + work.attended * self.attend
        return work.read * self.read + training + writing + work.drawn * self.draw + work.loads * self.load
