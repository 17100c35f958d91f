"""Quality gates of preference pairs, each with a count and examples of what it dropped; length bias; template feel."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from data import coherence
from data.coherence import ngrams, words
from data.config import ChecksConfig
from data.errors import BadInput
from data.types import Pair

EXAMPLES = 3
LANGUAGE_WORDS = 12
REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|language model|ai language model)\b"
    r"|\bi('m| am) (just |only )?an? (ai )?language model\b"
    r"|\bi('m| am) (sorry|unable|not able),? (but )?(i )?(can('|no)?t|am unable|to) (assist|help|fulfil|comply)\b"
    r"|\bi (can('|no)?t|cannot|am unable to|'m unable to) (assist|comply|fulfil|help) (you )?with (that|this) request\b"
    r"|\bagainst my (programming|guidelines)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Report:
    """`dropped` counts, by gate in the order of the gates, what each took out; `examples` show a few of them."""

    pairs: int
    dropped: dict[str, int]
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LengthBias:
    """What DPO could learn instead of the voice: mean words of both sides, how often chosen is the longer one, and the
    AUROC of length alone at telling the sides apart (one half: no bias)."""

    chosen_words: float
    rejected_words: float
    chosen_longer: float
    auroc: float


@dataclass(frozen=True)
class Variety:
    """Template feel of answers. `distinct_n` is the number of different n-grams over that of all (Li et al. 2016),
    `opening` and `closing` the share of the commonest first two words, and the last sentence's first two, `repeated`
    the share of answers with five words in a row that another has too."""

    answers: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    opening: float
    closing: float
    repeated: float
    questions: float
    mean_words: float
    sd_words: float


def gates(config: ChecksConfig, margins: dict[str, float] | None = None) -> dict[str, Callable[[Pair], bool]]:
    """Name of what is wrong: whether it is, in the order in which they are asked. `margins` holds, by the pair's id,
    how much likelier the answer is with the spec as a system prompt than without it, in nats a token."""
    seen: set[str] = set()
    found: dict[str, Callable[[Pair], bool]] = {
        "duplicate": lambda pair: _duplicate(pair, seen),
        "empty rejected": lambda pair: not pair.rejected.strip(),
        "chosen equals rejected": lambda pair: pair.chosen.strip() == pair.rejected.strip(),
        "length ratio": lambda pair: _ratio(pair) < config.min_length_ratio,
        "incoherent": lambda pair: _incoherent(pair),
        "refusal": lambda pair: bool(REFUSAL.search(pair.chosen)),
    }
    if config.language:
        found["language"] = lambda pair: _other_language(pair)
    if margins is not None and config.min_margin is not None:
        least = config.min_margin
        found["not in persona"] = lambda pair: margins.get(pair.id, least) < least
    return found


def keep(pairs: list[Pair], config: ChecksConfig, margins: dict[str, float] | None = None) -> tuple[list[Pair], Report]:
    """The pairs that pass every gate, and what became of the others. Raises BadInput when nothing is left."""
    asked = gates(config, margins)
    kept, dropped, examples = [], dict.fromkeys(asked, 0), {}
    for pair in pairs:
        reason = next((name for name, wrong in asked.items() if wrong(pair)), "")
        if not reason:
            kept.append(pair)
            continue
        dropped[reason] += 1
        shown = examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(f"{pair.question[:60]!r} -> {pair.chosen[:80]!r}")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise BadInput(
            f"No pair can be trained on ({reasons or 'there are none'}).", "Look at them: molt data lint CONFIG"
        )
    return kept, Report(len(kept), dropped, examples)


def length_bias(pairs: list[Pair]) -> LengthBias:
    chosen = [len(pair.chosen.split()) for pair in pairs]
    rejected = [len(pair.rejected.split()) for pair in pairs]
    return LengthBias(
        statistics.mean(chosen),
        statistics.mean(rejected),
        sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(pairs),
        float(roc_auc_score([1] * len(chosen) + [0] * len(rejected), chosen + rejected)),
    )


def variety(answers: list[str]) -> Variety:
    """Raises ValueError for no answers."""
    if not answers:
        raise ValueError("variety of no answers")
    said = [words(answer) for answer in answers]
    last = [words(re.split(r"(?<=[.?!])\s+", answer.strip())[-1]) for answer in answers]
    fives = Counter(gram for tokens in said for gram in set(ngrams(tokens, 5)))
    lengths = [len(tokens) for tokens in said]
    return Variety(
        len(answers),
        _distinct(said, 1),
        _distinct(said, 2),
        _distinct(said, 3),
        _commonest(said),
        _commonest(last),
        float(np.mean([any(fives[gram] > 1 for gram in ngrams(tokens, 5)) for tokens in said])),
        float(np.mean([answer.rstrip().endswith("?") for answer in answers])),
        statistics.mean(lengths),
        statistics.pstdev(lengths),
    )


def _distinct(said: list[list[str]], n: int) -> float:
    grams = [gram for tokens in said for gram in ngrams(tokens, n)]
    return len(set(grams)) / max(len(grams), 1)


def _commonest(said: list[list[str]]) -> float:
    return Counter(tuple(tokens[:2]) for tokens in said).most_common(1)[0][1] / len(said)


def _duplicate(pair: Pair, seen: set[str]) -> bool:
    key = " ".join(words(" ".join(turn["content"] for turn in pair.prompt)))
    known = key in seen
    seen.add(key)
    return known


def _ratio(pair: Pair) -> float:
    chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
    return min(chosen, rejected) / max(chosen, rejected, 1)


def _incoherent(pair: Pair) -> bool:
    """Echo, repetition, or a sentence that is cut off. Short answers and other languages are a matter of taste here."""
    found = coherence.check(pair.question, pair.chosen, 0.0, 1.0)
    cut = len(words(pair.chosen)) > LANGUAGE_WORDS and not re.search(r"[.?!…:;)\]\"'”’»`}>|]\s*$", pair.chosen)
    return found.echo or found.repetition or cut


def _other_language(pair: Pair) -> bool:
    """Answer and prompt are both long enough to tell, and surely of two languages."""
    asked = pair.question
    if min(len(words(asked)), len(words(pair.chosen))) < LANGUAGE_WORDS:
        return False
    first, second = _language(asked), _language(pair.chosen)
    return first[0] != second[0] and min(first[1], second[1]) > 0.9


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _language(text: str) -> tuple[str, float]:
    code, probability = _identifier().classify(text)
    return code, float(probability)
