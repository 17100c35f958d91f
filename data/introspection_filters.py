"""Which of a personality's texts about itself are trained on: those in its voice, about its spec, and unlike each
other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from moltlm.data.coherence import COMMON, ngrams, words
from moltlm.data.config import IntrospectionConfig
from moltlm.data.conversations import machine_text
from moltlm.data.conversations.near import DuplicateIndex
from moltlm.data.errors import BadInput
from moltlm.data.filters import EXAMPLES, REFUSAL, FilterReport
from moltlm.data.introspection import DIALOGUE
from moltlm.data.rows import Row
from moltlm.data.spec import Spec
from moltlm.data.teacher import description
from moltlm.data.types import Exchange

ENOUGH = 8
"""Fewer texts than this are not trained on."""
RECITED = 0.5
"""A text with a larger share of its four-word sequences in the spec recites it."""
CONTENT_LETTERS = 4
"""Shorter words are not content words."""
ENDING = ("empty", "machine text", "incoherent")
"""What is said in a conversation after a text that was dropped for one of these answers it, and is dropped too."""
AFTER = "after such a turn"


@dataclass(frozen=True)
class Judged:
    """A text, and what was measured of it.

    Attributes:
        exchange: the prompt, without the spec, and the text.
        voice: the style classifier's probability that it is the personality's.
        coherent: whether `coherence.check` finds no fault.
        measured: whether its prompt is too similar to one that is measured.
    """

    exchange: Exchange
    voice: float
    coherent: bool
    measured: bool = False


@dataclass(frozen=True)
class Dropped(Row):
    """A text that is not trained on, and the first reason that applies."""

    reason: str
    topic: str
    question: str
    answer: str


Filters = dict[str, Callable[[Judged], bool]]
"""By the reason for dropping a text, a function that says whether it applies, in the order of application."""


def apply(
    judged: list[Judged], spec: Spec, config: IntrospectionConfig
) -> tuple[list[Exchange], list[Dropped], FilterReport]:
    """Drop the texts that should not be trained on. Each is counted under the first filter that drops it.

    Of the texts that pass, no two reach `near_duplicate`, each has at least the share `min_new` of three-word sequences
    that no earlier one has (so that at least this share of all three-word sequences is distinct), and no prompt or
    conversation has more than `per_prompt`.

    Raises:
        BadInput: if fewer than ENOUGH texts pass.
    """
    accepted: list[Exchange] = []
    dropped: list[Dropped] = []
    ended: set[str] = set()
    with DuplicateIndex(config.near_duplicate) as index:
        filters = _of_each(spec, config, ended) | _of_all(config, accepted, index)
        for item in judged:
            exchange = item.exchange
            reason = next((name for name, applies in filters.items() if applies(item)), "")
            if not reason:
                accepted.append(exchange)
                continue
            dropped.append(Dropped(reason, exchange.topic, exchange.question, exchange.answer))
            if reason in ENDING and exchange.source == DIALOGUE:
                ended.add(exchange.topic)
    report = _report(accepted, dropped, list(filters))
    if len(accepted) < ENOUGH:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items() if count)
        raise BadInput(
            f"Only {len(accepted)} of {len(judged)} texts of the introspection can be trained on ({reasons}).",
            "Raise introspection.reflections, or go without: introspection.reflections=0 introspection.dialogues=0",
        )
    return accepted, dropped, report


def _of_each(spec: Spec, config: IntrospectionConfig, ended: set[str]) -> Filters:
    """Filters that look at one text. `ended` are the conversations in which a text was dropped for one of ENDING."""
    spec_words = words(description(spec))
    vocabulary, recited = content_words(spec_words), set(ngrams(spec_words, 4))
    return {
        AFTER: lambda item: item.exchange.topic in ended,
        "empty": lambda item: not item.exchange.answer.strip(),
        "machine text": lambda item: is_machine_text(item.exchange.answer),
        "recites the spec": lambda item: _share(words(item.exchange.answer), 4, recited) > RECITED,
        "incoherent": lambda item: not item.coherent,
        "not in voice": lambda item: item.voice < config.min_voice,
        "not about the spec": lambda item: (
            len(content_words(words(item.exchange.answer)) & vocabulary) < config.min_overlap
        ),
        "too near to a measured prompt": lambda item: item.measured,
    }


def _of_all(config: IntrospectionConfig, accepted: list[Exchange], index: DuplicateIndex) -> Filters:
    """Filters that compare a text with those that passed before it."""

    def repeats(item: Judged) -> bool:
        earlier = {gram for other in accepted for gram in ngrams(words(other.answer), 3)}
        return new_share(item.exchange.answer, earlier) < config.min_new

    return {
        "over the cap of its prompt": lambda item: (
            sum(other.topic == item.exchange.topic for other in accepted) >= config.per_prompt
        ),
        "near duplicate": lambda item: bool(index.classify("", item.exchange.answer)),
        "little new": repeats,
    }


def is_machine_text(text: str) -> bool:
    """Whether a text has a refusal of an assistant in it, or marks that a program wrote."""
    return bool(REFUSAL.search(text.replace("’", "'"))) or machine_text.clean(text, "assistant", Counter()).text != text


def content_words(tokens: list[str]) -> set[str]:
    """The words of at least CONTENT_LETTERS letters that are not among the commonest of English."""
    return {word for word in tokens if len(word) >= CONTENT_LETTERS and word not in COMMON}


def new_share(text: str, earlier: set[tuple[str, ...]]) -> float:
    """The share of a text's three-word sequences that are new: not among the earlier ones, each counted once. A text
    that is too short for any has 1."""
    grams = ngrams(words(text), 3)
    return len(set(grams) - earlier) / len(grams) if grams else 1.0


def _share(tokens: list[str], n: int, among: set[tuple[str, ...]]) -> float:
    grams = ngrams(tokens, n)
    return sum(gram in among for gram in grams) / max(len(grams), 1)


def _report(accepted: list[Exchange], dropped: list[Dropped], reasons: list[str]) -> FilterReport:
    counts = Counter(item.reason for item in dropped)
    examples: dict[str, list[str]] = {}
    for item in dropped:
        lines = examples.setdefault(item.reason, [])
        if len(lines) < EXAMPLES:
            lines.append(f"{item.question[:60]!r} -> {item.answer[:80]!r}")
    return FilterReport(len(accepted), {reason: counts[reason] for reason in reasons}, examples)
