"""The text of `molt data show` and `molt data lint`: how the pairs are distributed, some of them as the trainer reads
them, and what the filters dropped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from moltlm.adapters import base, preview
from moltlm.adapters.preview import Token, TokenizedPair
from moltlm.data.conversations.report import lines as import_lines
from moltlm.data.types import SAID_BY_BASE, Exchange, Pair
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs

LENGTH_AUROC = 0.8
"""From here on length alone separates the two sides so well that DPO can learn it instead of the voice."""


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
        "rejected": dict(Counter(pair.provenance for pair in pairs).most_common()),
        "turns": dict(sorted(Counter(len(pair.prompt) for pair in pairs).items())),
        "words": {
            name: [int(q) for q in np.percentile(counts, (0, 25, 50, 75, 100))] for name, counts in words.items()
        },
    }


def examples(run: Run, pairs: list[Pair], n: int) -> list[TokenizedPair]:
    """`n` pairs, sampled with the run's seed, as the trainer reads them."""
    tokenizer = base.load_text(run.config.model).tokenizer
    sampled = random.Random(run.config.run.seed).sample(pairs, min(n, len(pairs)))
    return [preview.tokenized(run.config.adapters(), tokenizer, pair) for pair in sampled]


def lines(run: Run, split: str, n: int) -> tuple[dict[str, Any], list[str]]:
    """The value for `--json`, and the text, for `n` examples of a split."""
    rows = pairs.load_pairs(pairs.pairs(run), split)
    counts, sampled = distributions(rows), examples(run, rows, n)
    text = [f"{split}: {counts['pairs']} pairs"]
    for name in ("topics", "traits", "rejected", "turns"):
        text.append(f"{name}: " + ", ".join(f"{key} {count}" for key, count in counts[name].items()))
    for side, quartiles in counts["words"].items():
        text.append(f"words of {side}: " + " / ".join(map(str, quartiles)) + " (minimum, quartiles, maximum)")
    text += ["", "Tokens between « and » are learned; the rest is only read."]
    for item in sampled:
        text += ["", f"--- {item.pair.id}  {item.pair.topic}  {item.pair.trait}  {item.pair.provenance}"]
        text += [f"chosen    {_marked(item.chosen)}", f"rejected  {_marked(item.rejected)}"]
    return {**counts, "examples": list(map(_example, sampled))}, text


def _example(item: TokenizedPair) -> dict[str, Any]:
    """The tokens of both sides, each with whether it is learned."""
    sides = {"chosen": item.chosen, "rejected": item.rejected}
    return {"id": item.pair.id} | {
        side: [[token.text, token.learned] for token in tokens] for side, tokens in sides.items()
    }


def lint(facts: Mapping[str, Any]) -> list[str]:
    """What was dropped and why, with examples, and what the rest could teach by mistake."""
    sources = ", ".join(f"{count} {name}" for name, count in facts["sources"].items())
    return [
        f"{facts['pairs']} pairs to train on, {facts['heldout']} held out ({facts['held_out']}); from: {sources}",
        _rejected(facts),
        *_dropped(facts),
        *import_lines(facts["conversations"]),
        *_lengths(facts),
        _variety(facts["variety"]),
    ]


def _rejected(facts: Mapping[str, Any]) -> str:
    by_provenance = facts.get("provenance", {SAID_BY_BASE: facts["pairs"]})  # artifacts of written answers may lack it
    counts = ", ".join(f"{count} {name}" for name, count in by_provenance.items())
    return f"rejected side: {counts}; {facts.get('base_answers', facts['pairs'])} pairs have an answer of the base"


def introspection(facts: Mapping[str, Any], texts: list[Exchange], n: int, seed: int) -> list[str]:
    """What passed, what was dropped and why, with examples, and `n` of the texts."""
    lines = [
        f"{facts['texts']} of {facts['samples']} texts to train on: {facts['reflections']} reflections, "
        f"{facts['turns']} turns of conversations",
        *(f"{count:5d}  {reason}" for reason, count in facts["dropped"].items() if count),
        *(f"       {reason}: {line}" for reason, some in facts["examples"].items() for line in some),
        _variety(facts["variety"]),
    ]
    for item in random.Random(seed).sample(texts, min(n, len(texts))):
        lines += ["", f"--- {item.topic}: {item.question}", item.answer]
    return lines


def _dropped(facts: Mapping[str, Any]) -> list[str]:
    leaked = {f"too near to {name}": count for name, count in facts["leaked"].items()}
    counts = {**facts["dropped"], "prompt too long": facts["too_long"], **leaked}
    counts["kept without its oldest turns, which did not fit"] = facts.get("shortened", 0)
    counts["worse answer than another to the same prompt"] = facts.get("refuted", 0)
    return [
        *(f"{count:5d}  {reason}" for reason, count in counts.items()),
        *(f"       {reason}: {line}" for reason, some in facts["examples"].items() for line in some),
    ]


def _lengths(facts: Mapping[str, Any]) -> list[str]:
    line = (
        f"length: chosen {facts['chosen_words']:.0f} words, rejected {facts['rejected_words']:.0f}; chosen is longer "
        f"in {facts['chosen_longer']:.0%}; length alone separates them with AUROC {facts['auroc']:.2f}"
    )
    advice = "  DPO can learn the length instead of the voice: raise pairs.max_new_tokens, or shorten the answers"
    return [line, advice] if facts["auroc"] > LENGTH_AUROC else [line]


def _variety(facts: Mapping[str, Any]) -> str:
    return (
        f"variety: distinct 1/2/3-grams {facts['distinct_1']:.2f} {facts['distinct_2']:.2f} {facts['distinct_3']:.2f}; "
        f"commonest opening {facts['opening']:.1%}, closing {facts['closing']:.1%}; {facts['repeated']:.1%} share five "
        f"words in a row with another; {facts['questions']:.0%} end in a question"
    )


def _marked(tokens: list[Token]) -> str:
    text, inside = "", False
    for token in tokens:
        if token.learned != inside:
            text += "«" if token.learned else "»"
            inside = token.learned
        text += token.text
    text = (text + "»" if inside else text) or "nothing is left of it after truncation to model.max_length"
    return text.replace("\n", "\n          ")
