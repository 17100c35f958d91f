"""What a job takes on a GPU that is not here: computed from its data sheet, and not measured. Imports no torch before
it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moltlm.data.errors import BadInput
from moltlm.pipeline.setup import estimate
from moltlm.pipeline.setup.estimate import GIB

if TYPE_CHECKING:
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.run import Run
    from moltlm.pipeline.setup.parts import Part
    from moltlm.pipeline.setup.work import Speed

DISK = 1e9
"""Bytes a second at which weights are assumed to be loaded."""


@dataclass(frozen=True)
class Card:
    """A GPU by the vendor's data sheet.

    Attributes:
        gib: memory.
        tflops: dense bf16 with sums in fp32, 1e12 FLOP a second.
        bandwidth: of its memory, 1e9 bytes a second.
    """

    name: str
    gib: float
    tflops: float
    bandwidth: float


CARDS = (
    Card("RTX 3090", 24, 71, 936),
    Card("RTX 4090", 24, 165, 1008),
    Card("L40S", 48, 362, 864),
    Card("L4", 24, 121, 300),
    Card("A100", 80, 312, 2039),
    Card("A10", 24, 125, 600),
    Card("H100", 80, 989, 3350),
    Card("H200", 141, 989, 4800),
)
"""A100, H100 and H200 in the SXM form; the A100 with 80 GB."""


def card(name: str) -> Card:
    """The card of this name, in any case.

    Raises:
        BadInput: there is none.
    """
    for each in CARDS:
        if each.name.lower() == name.lower():
            return each
    listed = ", ".join(each.name for each in CARDS)
    raise BadInput(f"No data sheet of {name} is known.", f"Name one of: {listed}")


def of_device(name: str) -> Card | None:
    """The card whose name is in that of a device."""
    return next((each for each in CARDS if each.name in name), None)


def parts_on(run: Run) -> list[Part]:
    """The work of the parts on a GPU, where rows are padded. Texts are in tokens of the model's own tokenizer if it is
    here, else of the embedded model's."""
    from moltlm.adapters import architecture, base, serve
    from moltlm.adapters.config import ModelConfig
    from moltlm.pipeline.setup.parts import parts
    from moltlm.pipeline.setup.work import Counter

    config = run.config
    model = config.model if architecture.is_here(config.model) else ModelConfig()
    text = serve.TextModel(None, base.load_text(model).tokenizer)
    return parts(run, Counter(text, config.model.shape, config.adapters(), False, config.model.eval_batch_size))


def speed(config: Config, on: Card, share: float) -> Speed:
    """What the card would reach at this share of its peak, and of its bandwidth: each round of writing reads all
    weights once. Keys and values are not counted."""
    from moltlm.pipeline.setup.work import Speed

    flop = 1 / (share * on.tflops * 1e12)
    weights = estimate.evaluation_memory(config, "cuda").weights * GIB
    load = estimate.parameters(config.model.shape) * 2 / DISK
    return Speed(flop, flop, 0.0, flop, weights / (share * on.bandwidth * 1e9), 0.0, 0.0, load)


def seconds(config: Config, parts: list[Part], on: Card, share: float) -> dict[str, float]:
    """Of each part."""
    reached = speed(config, on, share)
    return {part.name: reached.seconds(part.work) for part in parts}


def lines(config: Config, parts: list[Part], on: Card, share: float, price: float) -> list[str]:
    """What a terminal shows of the time on a card, and of what it costs where there is a price for an hour."""
    by_part = seconds(config, parts, on, share)
    width, hours = max(map(len, by_part)), sum(by_part.values()) / 3600
    table = [f"  {name:{width}}  {each / 3600:6.2f} h" for name, each in by_part.items()]
    head = (
        f"time on one {on.name}: about {hours:.1f} h, computed and not measured, at {share:.0%} of its peak of "
        f"{on.tflops:g} TFLOP/s and of {on.bandwidth:g} GB/s:"
    )
    return [head, *table, *([f"at {price:g} an hour: {hours * price:.2f}"] if price else [])]
