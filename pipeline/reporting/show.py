"""What `molt data show` and `molt data lint` say: how the pairs are spread, some of them as the trainer will see them,
and what the filters dropped."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np

from moltlm.adapters import base, preview
from moltlm.adapters.preview import Token, TokenizedPair
from moltlm.data.types import Pair
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs

LENGTH_AUROC = 0.8


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


def examples(run: Run, pairs: list[Pair], n: int) -> list[TokenizedPair]:
    """`n` drawn with the run's seed."""
    tokenizer = base.load_tokenizer(run.config.model)
    drawn = random.Random(run.config.run.seed).sample(pairs, min(n, len(pairs)))
    return [preview.tokenized(run.config.adapters(), tokenizer, pair) for pair in drawn]


def lines(run: Run, split: str, n: int) -> tuple[dict[str, Any], list[str]]:
    """The value for `--json`, and the text."""
    rows = pairs.load_pairs(pairs.pairs(run), split)
    spread, shown = distributions(rows), examples(run, rows, n)
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


def lint(facts: dict[str, Any]) -> list[str]:
    """What was left out and why, with examples, and what the rest could teach that nobody meant."""
    sources = ", ".join(f"{count} {name}" for name, count in facts["sources"].items())
    text = [f"{facts['pairs']} pairs to train on, {facts['heldout']} held out ({facts['held_out']}); from: {sources}"]
    near = {f"too near to {name}": count for name, count in facts["leaked"].items()}
    left_out = {**facts["dropped"], "prompt too long": facts["too_long"], **near}
    for reason, count in left_out.items():
        text.append(f"{count:5d}  {reason}")
    for reason, shown in facts["examples"].items():
        text += [f"       {reason}: {line}" for line in shown]
    talks = facts["conversations"]
    if talks["turns"]:
        dropped = ", ".join(f"{count} {name}" for name, count in talks["dropped"].items()) or "none dropped"
        marks = ", ".join(f"{count} {name}" for name, count in talks["redacted"].items()) or "nothing"
        text.append(f"conversations: {talks['turns']} assistant turns, {dropped}; redacted: {marks}")
    text.append(
        f"length: chosen {facts['chosen_words']:.0f} words, rejected {facts['rejected_words']:.0f}; chosen is longer "
        f"in {facts['chosen_longer']:.0%}; length alone tells them apart with AUROC {facts['auroc']:.2f}"
    )
    if facts["auroc"] > LENGTH_AUROC:
        text.append("  which DPO can learn instead of the voice: raise pairs.max_new_tokens, or shorten the answers")
    found = facts["variety"]
    text.append(
        f"variety: distinct 1/2/3-grams {found['distinct_1']:.2f} {found['distinct_2']:.2f} {found['distinct_3']:.2f}; "
        f"commonest opening {found['opening']:.1%}, closing {found['closing']:.1%}; {found['repeated']:.1%} share five "
        f"words in a row with another; {found['questions']:.0%} end in a question"
    )
    return text


def _marked(tokens: list[Token]) -> str:
    text, inside = "", False
    for token in tokens:
        if token.learned != inside:
            text += "«" if token.learned else "»"
            inside = token.learned
        text += token.text
    text = (text + "»" if inside else text) or "nothing is left of it after truncation to model.max_length"
    return text.replace("\n", "\n          ")
