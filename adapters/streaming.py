"""One answer, piece by piece as it is generated: what a server sends to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from moltlm.adapters import cpu
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.serve import TextModel, sampling, seeded
from moltlm.data.types import Message

Finish = Literal["stop", "length", "cancelled"]
THOUGHT = ("<think>", "</think>")
REPLACEMENT = "\ufffd"
"""What a decoder writes for the bytes of a character whose last ones are still to come."""


@dataclass(frozen=True)
class Options:
    """How an answer is generated.

    Attributes:
        max_new_tokens: its largest length.
        temperature: 0 takes the likeliest token, always.
        top_p: samples from the likeliest tokens that have this probability together.
        stop: texts before which an answer ends.
        seed: of the samples.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Generated:
    """A finished answer. `tokens` counts what was generated, with the token that ends it."""

    text: str
    tokens: int
    finish: Finish


class Visible:
    """Turns the text generated so far into the part that can be shown: without thoughts, before any stop text, and
    without an end that further tokens may take back. What was shown is never changed."""

    def __init__(self, stop: tuple[str, ...] = (), thinking: bool = False, continues: bool = False) -> None:
        self._stop, self._thinking, self._continues = stop, thinking, continues
        self._marks = (*stop, *THOUGHT)
        self.text = ""
        self.stopped = False

    def advance(self, generated: str, final: bool = False) -> str:
        """The new part of what can be shown.

        Args:
            generated: everything generated so far.
            final: nothing follows.
        """
        text = self._settled(generated, final)
        new = text[len(self.text) :] if len(text) > len(self.text) else ""
        self.text += new
        return new

    def _settled(self, generated: str, final: bool) -> str:
        if self._thinking and THOUGHT[1] not in generated:
            return ""
        before, closed, after = generated.partition(THOUGHT[1])
        text = (after if closed else before).partition(THOUGHT[0])[0]
        text = text if self._continues else text.lstrip()
        ends = [place for each in self._stop if (place := text.find(each)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)].rstrip()
        return text.rstrip() if final else _without_open_end(text, self._marks)


def _without_open_end(text: str, marks: tuple[str, ...]) -> str:
    """A text without its last spaces, half characters, and what may be the beginning of a mark."""
    longest = max(map(len, marks), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            text = text[:-length]
            break
    return text.rstrip().rstrip(REPLACEMENT).rstrip()


class _Watch(StoppingCriteria):
    """Shows each new piece, and ends the generation at a stop text or when nobody waits any more."""

    def __init__(
        self, tokenizer: Any, begin: int, visible: Visible, say: Callable[[str], None], is_cancelled: Callable[[], bool]
    ) -> None:
        self._tokenizer, self._begin, self._visible = tokenizer, begin, visible
        self._say, self._is_cancelled = say, is_cancelled

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        self.show(input_ids[0])
        ended = self._visible.stopped or self._is_cancelled()
        return torch.tensor([ended], device=input_ids.device)

    def show(self, tokens: torch.Tensor, final: bool = False) -> None:
        text = self._tokenizer.decode(tokens[self._begin :], skip_special_tokens=True)
        if piece := self._visible.advance(text, final):
            self._say(piece)


@torch.no_grad()
def stream(
    model: TextModel,
    prompt: list[Message],
    options: Options,
    say: Callable[[str], None],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Generated:
    """Answer a prompt in the current state. The pieces given to `say` are the text of the result.

    Args:
        is_cancelled: asked after each token; the generation ends when it says yes.
    """
    ids = encode_prompt(model.tokenizer, prompt)
    tokens, mask = model.left_padded([ids])
    thinking = model.tokenizer.decode(ids[-8:]).rstrip().endswith(THOUGHT[0])
    visible = Visible(options.stop, thinking, continues=prompt[-1]["role"] == "assistant")
    watch = _Watch(model.tokenizer, len(ids), visible, say, is_cancelled)
    with seeded(options.seed) if options.temperature else nullcontext(), cpu.answering(model.model):
        out = model.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=options.max_new_tokens,
            **sampling(options.temperature, options.top_p),
            pad_token_id=model.tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    watch.show(out[0], final=True)
    return Generated(visible.text, out.shape[1] - len(ids), _finish(model, out[0], visible, is_cancelled()))


def _finish(model: TextModel, tokens: torch.Tensor, visible: Visible, cancelled: bool) -> Finish:
    ends = model.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if visible.stopped or int(tokens[-1]) in ends:
        return "stop"
    return "cancelled" if cancelled else "length"


def context(model: TextModel) -> int:
    """How many tokens a prompt and its answer may have together."""
    config = model.model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or model.tokenizer.model_max_length
