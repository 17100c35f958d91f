"""Preference pairs: what the personality says against what the bare model really said to the same prompt."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from data.config import PairsConfig
from data.errors import BadInput
from data.io import fingerprint
from data.types import ChatModel, Exchange, Pair, Progress, silent


@dataclass(frozen=True)
class Lint:
    """Counts of what was kept and dropped, and the length bias that DPO could learn instead of the voice."""

    pairs: int
    dropped: dict[str, int]
    chosen_words: float
    rejected_words: float
    chosen_longer: float


def build(
    exchanges: list[Exchange],
    model: ChatModel,
    config: PairsConfig,
    batch_size: int,
    progress: Progress = silent,
    seed: int = 0,
) -> list[Pair]:
    """One pair an exchange, the rejected side sampled from the model in its `base` state.

    Raises BadInput for a prompt that is too long, before anything is generated.
    """
    for item in exchanges:
        tokens = prompt_tokens(item, model.tokenizer)
        if tokens > config.max_prompt_tokens:
            raise BadInput(
                f"The prompt {item.question[:40]!r}... has {tokens} tokens, more than {config.max_prompt_tokens}.",
                f"Shorten it, or set pairs.max_prompt_tokens={tokens}",
            )
    with model.state("base"):
        prompts = [item.prompt for item in exchanges]
        rejected = model.generate(
            prompts, config.max_new_tokens, batch_size, progress, temperature=config.temperature, seed=seed
        )
    return [
        Pair(fingerprint([item.prompt, item.answer]), item.prompt, item.answer, answer, item.topic, item.trait)
        for item, answer in zip(exchanges, rejected, strict=True)
    ]


def prompt_tokens(item: Exchange, tokenizer: Any) -> int:
    """Length of the last user turn."""
    return len(tokenizer(item.question)["input_ids"])


def lint(pairs: list[Pair], config: PairsConfig) -> tuple[list[Pair], Lint]:
    """The pairs that can be trained on, and a report of the rest. Raises BadInput when nothing is left."""
    kept, dropped, seen = (
        [],
        {"chosen equals rejected": 0, "empty rejected": 0, "duplicate": 0, "length ratio": 0},
        set(),
    )
    for pair in pairs:
        reason = _problem(pair, seen, config)
        seen.add(pair.id)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(pair)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise BadInput(f"No pair can be trained on ({reasons}).", "Look at the persona's training file.")
    return kept, _report(kept, dropped)


def _problem(pair: Pair, seen: set[str], config: PairsConfig) -> str:
    if pair.id in seen:
        return "duplicate"
    if not pair.rejected.strip():
        return "empty rejected"
    if pair.chosen.strip() == pair.rejected.strip():
        return "chosen equals rejected"
    chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
    return "length ratio" if min(chosen, rejected) / max(chosen, rejected) < config.min_length_ratio else ""


def _report(pairs: list[Pair], dropped: dict[str, int]) -> Lint:
    chosen = [len(pair.chosen.split()) for pair in pairs]
    rejected = [len(pair.rejected.split()) for pair in pairs]
    longer = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(pairs)
    return Lint(len(pairs), dropped, statistics.mean(chosen), statistics.mean(rejected), longer)


def to_row(pair: Pair) -> dict[str, Any]:
    return asdict(pair)


def from_row(row: dict[str, Any]) -> Pair:
    return Pair(**row)
