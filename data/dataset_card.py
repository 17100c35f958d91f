"""The README.md of a folder of pairs, in the form that dataset hubs read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from moltlm.data.io import write_text
from moltlm.data.spec import Spec
from moltlm.data.types import Pair


def write(folder: Path, spec: Spec, model: str, pairs: list[Pair], facts: dict[str, Any]) -> None:
    """Write the card: contents, sources, what the filters dropped, biases, licence and privacy.

    Args:
        model: the id of the base model.
        facts: the facts of the pairs artifact.
    """
    write_text(folder / "README.md", text(spec, model, pairs, facts))


def text(spec: Spec, model: str, pairs: list[Pair], facts: dict[str, Any]) -> str:
    variety = facts["variety"]
    sections = [
        "---\ntask_categories: [text-generation]\ntags: [preference, persona, dpo, moltlm]\n---",
        f"# Preference pairs for {spec.name}",
        f"{facts['pairs']} pairs to train on and {facts['heldout']} held out ({facts['held_out']}). `chosen` is an "
        f"answer in the voice of {spec.name}; `rejected` is a worse answer to the same prompt, and `provenance` says "
        "whose (`base` where it is left out).",
        f"## Character\n\n{spec.summary or spec.system_prompt}",
        "## Where the answers come from\n\n" + _table(("source", "exchanges"), facts["sources"]),
        "## Where the rejected sides come from\n\n"
        + _table(("provenance", "pairs"), facts["provenance"])
        + f"\n\n`base`: `{model}` said it, without any personality. `given`: the data named it as the worse answer. "
        "`edited`: a model said it, and the user wrote the better answer. "
        f"{facts['base_answers']} pairs have an answer of the base (`rejected`, or `base` beside another rejected "
        "side); every held-out pair has one. Only these stand for the base where the style of the personality is told "
        "from it.",
        "## Topics and traits\n\n"
        + _table(("topic", "pairs"), dict(Counter(pair.topic or "none" for pair in pairs).most_common()))
        + "\n\n"
        + _table(("trait", "pairs"), dict(Counter(pair.trait or "none" for pair in pairs).most_common())),
        "## What was dropped\n\n"
        + _table(("reason", "exchanges"), _dropped(facts))
        + "\n\nConversations: "
        + _listed(facts["conversations"]["dropped"])
        + ". Redacted: "
        + _listed(facts["conversations"]["redacted"])
        + ".",
        "## Known biases\n\n"
        f"Chosen answers have {facts['chosen_words']:.1f} words on average, rejected {facts['rejected_words']:.1f}; "
        f"length alone tells them apart with an AUROC of {facts['auroc']:.2f}. {variety['questions']:.0%} of the "
        f"chosen end in a question; {variety['opening']:.1%} open with the commonest two words, "
        f"{variety['closing']:.1%} close with a sentence that begins with the commonest two; "
        f"{variety['repeated']:.1%} share five words in a row with another; "
        f"distinct 2-grams {variety['distinct_2']:.2f}, 3-grams {variety['distinct_3']:.2f}.",
        "## Licence and privacy\n\nThe licence is that of the sources. Conversations are personal data even when "
        "redacted: read them before you share them.",
    ]
    return "\n\n".join(sections) + "\n"


def _dropped(facts: dict[str, Any]) -> dict[str, int]:
    return {
        **facts["dropped"],
        "worse answer than another to the same prompt": facts["refuted"],
        **_prefixed("too near to: ", facts["leaked"]),
    }


def write_introspection(folder: Path, spec: Spec, model: str, facts: dict[str, Any]) -> None:
    """Write the card of the texts of an introspection: contents, what the filters dropped, variety, privacy.

    Args:
        model: the id of the base model.
        facts: the facts of the introspection artifact.
    """
    variety = facts["variety"]
    sections = [
        "---\ntask_categories: [text-generation]\ntags: [persona, introspection, moltlm]\n---",
        f"# What {spec.name} writes about itself",
        f"{facts['texts']} texts to train on (`texts.jsonl`), of {facts['samples']} that were sampled: "
        f"{facts['reflections']} answers to reflection prompts and {facts['turns']} turns of conversations with "
        f"itself. A personality adapter above `{model}` wrote them with the spec of {spec.name} as its system prompt. "
        "The spec is not in them.",
        "## What was dropped\n\n"
        + _table(("reason", "texts"), facts["dropped"])
        + "\n\n`dropped.jsonl` has each of them.",
        "## Variety\n\n"
        f"{variety['mean_words']:.1f} words on average; distinct 2-grams {variety['distinct_2']:.2f}, 3-grams "
        f"{variety['distinct_3']:.2f}; {variety['opening']:.1%} open with the commonest two words; "
        f"{variety['repeated']:.1%} share five words in a row with another.",
        "## Licence and privacy\n\nA model wrote all of it. If the personality was trained on conversations, the texts "
        "can repeat personal data from them: read them before you share them.",
    ]
    write_text(folder / "README.md", "\n\n".join(sections) + "\n")


def _prefixed(prefix: str, counts: dict[str, int]) -> dict[str, int]:
    return {prefix + name: count for name, count in counts.items()}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"


def _table(head: tuple[str, str], rows: dict[str, int]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {count} |" for name, count in rows.items())]
    return "\n".join(lines)
