"""What `molt data show` says: how the pairs are spread, and some of them as the trainer will see them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np

from adapters import base, preview
from adapters.preview import Seen, Token
from data.types import Pair
from pipeline import stages
from pipeline.run import Run


def distributions(pairs: list[Pair]) -> dict[str, Any]:
    """Counts by topic and trait, turns of the prompt, and quartiles of the lengths in words."""
    words = {
        "prompt": [sum(len(turn["content"].split()) for turn in pair.prompt) for pair in pairs],
        "chosen": [len(pair.chosen.split()) for pair in pairs],
        "rejected": [len(pair.rejected.split()) for pair in pairs],
    }
    return {
        "pairs": len(pairs),
        "topics": dict(Counter(pair.topic or "none" for pair in pairs).most_common()),
        "traits": dict(Counter(pair.trait or "none" for pair in pairs).most_common()),
        "turns": dict(sorted(Counter(len(pair.prompt) for pair in pairs).items())),
        "words": {side: [int(q) for q in np.percentile(found, (0, 25, 50, 75, 100))] for side, found in words.items()},
    }


def examples(run: Run, pairs: list[Pair], n: int) -> list[Seen]:
    """`n` drawn with the run's seed."""
    tokenizer = base.load_tokenizer(run.config.model)
    drawn = random.Random(run.config.run.seed).sample(pairs, min(n, len(pairs)))
    return [preview.seen(run.config.adapters(), tokenizer, pair) for pair in drawn]


def lines(run: Run, split: str, n: int) -> tuple[dict[str, Any], list[str]]:
    """The value for `--json`, and the text."""
    pairs = stages.load_pairs(stages.pairs(run), split)
    spread, shown = distributions(pairs), examples(run, pairs, n)
    text = [f"{split}: {spread['pairs']} pairs"]
    for name in ("topics", "traits", "turns"):
        text.append(f"{name}: " + ", ".join(f"{key} {count}" for key, count in spread[name].items()))
    for side, quartiles in spread["words"].items():
        text.append(f"words of {side}: " + " / ".join(map(str, quartiles)) + " (least, quartiles, most)")
    text += ["", "What is learned stands between « and »; the rest is only read."]
    for item in shown:
        text += ["", f"--- {item.pair.id}  {item.pair.topic}  {item.pair.trait}"]
        text += [f"chosen    {_marked(item.chosen)}", f"rejected  {_marked(item.rejected)}"]
    value = {
        **spread,
        "examples": [
            {
                "id": item.pair.id,
                **{
                    side: [[token.text, token.learned] for token in getattr(item, side)]
                    for side in ("chosen", "rejected")
                },
            }
            for item in shown
        ],
    }
    return value, text


def _marked(tokens: list[Token]) -> str:
    text, inside = "", False
    for token in tokens:
        if token.learned != inside:
            text += "«" if token.learned else "»"
            inside = token.learned
        text += token.text
    text = (text + "»" if inside else text) or "nothing is left of it after truncation to model.max_length"
    return text.replace("\n", "\n          ")
