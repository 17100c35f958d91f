"""What models, personas and conversations cost at scale, computed by what `molt estimate` computes with. Not part of
the installed package. Fills the tables of docs/concepts/scale.md:

    python benchmarks/costs.py                             # seconds; nothing is loaded but a tokenizer
    python benchmarks/costs.py --share 0.15 --price 2.5    # under other assumptions

Nothing in the tables is measured but the rates of importing, which docs/how-to/conversation-formats.md has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from moltlm.pipeline import config as configs
from moltlm.pipeline import layout
from moltlm.pipeline.config import Config
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup import cards, estimate, fitting
from moltlm.pipeline.setup.parts import Part

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "scale.md"
SHAPE_70B = {"hidden_size": 8192, "intermediate_size": 28672, "layers": 80, "heads": 64, "kv_heads": 8}
MODELS = {
    "135M": ("demo", []),
    "8B": ("llama-8b", []),
    "70B": ("llama-8b", [f"model.shape.{key}={value}" for key, value in SHAPE_70B.items()]),
}
ON = {"8B": ["L4", "RTX 4090", "A100", "H100"], "70B": ["L40S", "A100", "H100", "H200"]}
PERSONA = ("pairs", "personality")
ANSWERS, ARRAY_GB, ARRAY_SECONDS, ARRAY_GIB = 2.7e6, 5.0, 285.0, 0.45
"""Of the one large import that was measured (docs/how-to/conversation-formats.md): answers, GB, CPU seconds, GiB."""
SIZES = (10_000, 1_000_000, 100_000_000)
TURNS = 4
"""Answers that a conversation is taken to have."""


@dataclass(frozen=True)
class Assumptions:
    """The share of a card's peak that is reached, and the price of an hour of a card."""

    share: float
    price: float


def config_of(model: str, more: list[str]) -> Config:
    name, settings = MODELS[model]
    return configs.load(name, [*settings, *more])


@cache
def parts_of(model: str, settings: tuple[str, ...]) -> list[Part]:
    return cards.parts_on(Run(config_of(model, list(settings)), Console(True)))


def hours(model: str, settings: list[str], card: cards.Card, assumed: Assumptions) -> dict[str, float]:
    parts = parts_of(model, tuple(settings))
    return {
        name: each / 3600
        for name, each in cards.seconds(config_of(model, settings), parts, card, assumed.share).items()
    }


def adapter_gb(config: Config) -> float:
    """A LoRA's file, in fp32."""
    return estimate.lora_parameters(config.model.shape, config.lora.r) * 4 / 1e9


def storage_gb(config: Config) -> float:
    """Weights from a hub in bf16, and the adapters of a job."""
    adapters = 1 + sum(1 + task.control for task in config.tasks.values())
    return estimate.parameters(config.model.shape) * 2 / 1e9 + adapters * adapter_gb(config)


def jobs(assumed: Assumptions) -> list[str]:
    """A whole job, by model and card."""
    heads = ["model", "card", "largest stage, GiB", "settings that make it fit", "hours to talk", "hours in all"]
    lines = _head([*heads, "cost", "disk, GB"])
    for model, names in ON.items():
        for name in names:
            card, machine = cards.card(name), fitting.Machine("cuda", cards.card(name).gib)
            settings = fitting.remedies(config_of(model, []), machine, lambda more, model=model: config_of(model, more))
            needed = max(each.total for each in estimate.stages(config_of(model, []), "cuda").values())
            row = [model, name, f"{needed:.1f} of {card.gib:g}"]
            if settings is None:
                lines.append(_row([*row, "none", "", "", "", ""]))
                continue
            config = config_of(model, settings)
            by_part = hours(model, settings, card, assumed)
            whole, talk = sum(by_part.values()), sum(by_part[part] for part in PERSONA)
            changed = ", ".join(f"`{each}`" for each in settings) or "as it is"
            values = [talk, whole, whole * assumed.price]
            lines.append(_row([*row, changed, *(f"{value:.2f}" for value in values), f"{storage_gb(config):.0f}"]))
    return lines


def personas(assumed: Assumptions) -> list[str]:
    """One persona and a thousand: its pairs, its training, and the evidence of it and of the base."""
    heads = ["model", "adapter, MB", "1,000 adapters, GB", "card", "beside one base in its memory"]
    lines = _head([*heads, "hours, one persona", "hours, 1,000", "cost, 1,000"])
    for model, name in {"135M": "", "8B": "H100", "70B": "H200"}.items():
        config = config_of(model, [])
        size = adapter_gb(config)
        row = [model, f"{1000 * size:,.0f}", f"{1000 * size:,.0f}"]
        lines.append(_row([*row, *(_on_card(model, cards.card(name), assumed) if name else ["", "", "", "", ""])]))
    return lines


def _on_card(model: str, card: cards.Card, assumed: Assumptions) -> list[str]:
    """The card, adapters beside one base in its memory, and hours and cost of training and measuring personas."""
    config, by_part = config_of(model, []), hours(model, [], card, assumed)
    states = len(layout.states(Run(config, Console(True))))
    own = sum(by_part[part] for part in PERSONA) + 2 / states * by_part["evidence"]
    memory = estimate.evaluation_memory(config, "cuda")
    room = (card.gib / fitting.MARGIN - memory.total + memory.adapters) * estimate.GIB / 1e9
    cost = f"{1000 * own * assumed.price:,.0f}"
    return [card.name, f"{int(room / adapter_gb(config)):,}", f"{own:.2f}", f"{1000 * own:,.0f}", cost]


def conversations(assumed: Assumptions) -> list[str]:
    """Importing, in proportion to the one import that was measured."""
    lines = _head(["conversations", "answers", "GB of export", "hours of one core", "GiB of memory"])
    for count in SIZES:
        share = count * TURNS / ANSWERS
        values = [share * ARRAY_GB, share * ARRAY_SECONDS / 3600, share * ARRAY_GIB]
        lines.append(_row([f"{count:,}", f"{count * TURNS:,}", *(f"{value:,.2f}" for value in values)]))
    return lines


def _head(names: list[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES = {"jobs": jobs, "personas": personas, "conversations": conversations}


def page(text: str, assumed: Assumptions) -> str:
    """The page with its tables made anew."""
    for name, table in TABLES.items():
        block = re.compile(f"(<!-- costs: {name} -->\n).*?(<!-- end of costs -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            raise SystemExit(f"{PAGE} has not one block `<!-- costs: {name} -->`.")
        lines = "\n".join(table(assumed))
        text = block.sub(lambda match, lines=lines: f"{match[1]}\n{lines}\n\n{match[2]}", text)
    return text


def main(
    share: Annotated[float, typer.Option(help="of a card's peak and bandwidth")] = 0.3,
    price: Annotated[float, typer.Option(help="of an hour of one card")] = 1.0,
    write: Annotated[bool, typer.Option(help="into the page; else print")] = True,
) -> None:
    assumed = Assumptions(share, price)
    if write and (share, price) == (0.3, 1.0):
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), assumed), encoding="utf-8")
        print(f"written: {PAGE}")
        return
    for name, table in TABLES.items():
        print(f"\n{name}\n", *table(assumed), sep="\n")


if __name__ == "__main__":
    typer.run(main)
