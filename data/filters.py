"""Filters of preference pairs, each with a count and examples of what it dropped; and what a set of pairs looks like:
length bias and variety."""

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

from moltlm.data.coherence import ECHO_SHARE, REPEATS, ngrams, words
from moltlm.data.config import FiltersConfig
from moltlm.data.errors import BadInput
from moltlm.data.types import EDITED, SAID_BY_BASE, Pair

EXAMPLES = 3
"""Dropped pairs that the report shows for each filter."""
EVIDENCE = 8
"""A habit needs more answers than this."""
LONG_WORDS = 12
"""A line of more words should end with punctuation."""
LANGUAGE_WORDS = 16
"""The language of a text of fewer words is not guessed."""
LOOPING_SHARE = 0.15
QUOTED_WORDS = 50
"""A question of more words is a text to work on, which an answer may quote."""
_ME = r"\bi(?:'m| am) "
_NOT = r"(?:can't|cannot|can not|won't|am unable to|'m unable to|am not able to|'m not able to)"
_DONT = r"(?:don't|do not|can't|cannot)"
_AI = r"(?:just |only |merely )?an? (?:ai|artificial intelligence)"
_OWN = r"(?:opinion|feeling|experience|preference|belief|emotion)s?"
_HELP = r"(?:assist|help(?! \w+ing\b| it\b| but\b)|comply|fulfil|provide|answer)"
REFUSAL = re.compile(
    # "As an AI, ...", "as a large language model developed by ..."
    r"\bas an? (?:\w+ ){0,2}(?:ai|artificial intelligence|language model)\b"
    rf"|{_ME}(?:just |only |merely )?an? (?:\w+ ){{0,2}}language model\b"
    # being an AI is no refusal, and a personality may say so: only with what it therefore has not
    rf"|{_ME}{_AI}\b[^.?!]{{0,40}}\b{_DONT} (?:have|feel|possess)\b"
    rf"|\bi {_DONT} have (?:personal|my own) (?:\w+ (?:or|and) )?{_OWN}"
    # "I'm sorry, but I can't assist with that." and "I cannot fulfill this request."
    rf"|(?:\bsorry|\bapologi[sz]e)\b[^.?!]{{0,20}}\bi ?{_NOT} {_HELP}"
    rf"|\bi ?{_NOT} (?:assist|comply|fulfill?|help)(?: you)?(?: with)? (?:that|this|your) request\b"
    rf"|{_ME}(?:unable|not able) to (?:assist|help|comply|fulfill?)\b"
    r"|\bagainst my (?:programming|guidelines)\b",
    re.IGNORECASE,
)
UNFINISHED = re.compile(r"[\w,&(/–—-]\s*$")
ITEM = re.compile(r"\s*(?:[-*•·–+#|>]|\(?(?:\d{1,3}|[A-Za-z])[.):\t])")


@dataclass(frozen=True)
class FilterReport:
    """What the filters did.

    `pairs` is the number that passed, `dropped` the number that each filter dropped, in the order of the filters, and
    `examples` a few dropped pairs for each filter.
    """

    pairs: int
    dropped: dict[str, int]
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LengthBias:
    """How well length alone separates the two sides, which DPO could learn instead of the voice.

    Mean words of both sides, the share of pairs whose chosen side is longer, and the AUROC of length as a classifier of
    the sides (0.5: no bias).
    """

    chosen_words: float
    rejected_words: float
    chosen_longer: float
    auroc: float


@dataclass(frozen=True)
class Variety:
    """How repetitive a set of answers is.

    `distinct_n` is the number of different n-grams over that of all (Li et al. 2016), `opening` the share of answers
    with the commonest first two words, `closing` that with the commonest first two words of the last sentence, and
    `repeated` the share that has five words in a row in common with another answer. `questions` is the share that ends
    with a question mark.
    """

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


@dataclass(frozen=True)
class Habits:
    """What most answers have in common, and what is therefore no fault in one of them.

    `language` is the language of most answers ("" if none has a majority), `unpunctuated` whether most short answers,
    which no length limit has cut, end without punctuation. Both need more than EVIDENCE answers.
    """

    language: str
    unpunctuated: bool


Filters = dict[str, Callable[[Pair], bool]]
"""By the reason for dropping a pair, a function that says whether it applies to a pair, in the order of application."""


def habits(pairs: list[Pair]) -> Habits:
    """The habits of the chosen sides."""
    answers = [pair.chosen for pair in pairs]
    short = [text for text in answers if len(words(text)) <= LONG_WORDS]
    unfinished = sum(bool(UNFINISHED.search(text)) for text in short)
    languages = Counter(_language(text)[0] for text in answers if len(words(text)) >= LANGUAGE_WORDS)
    code, count = languages.most_common(1)[0] if languages else ("", 0)
    majority = max(languages.total() / 2, EVIDENCE)
    return Habits(code if count > majority else "", unfinished > max(len(short) / 2, EVIDENCE))


def _filters(config: FiltersConfig, accepted: set[str], habits: Habits, margins: dict[str, float] | None) -> Filters:
    """The filters of `apply`. `accepted` grows with each pair that passes (see `_identity`)."""
    filters: Filters = {
        "duplicate": lambda pair: _identity(pair) in accepted,
        "empty rejected": lambda pair: not pair.rejected.strip(),
        "chosen equals rejected": lambda pair: pair.chosen.strip() == pair.rejected.strip(),
    }
    quality: Filters = {
        "length ratio": lambda pair: _length_ratio(pair) < config.min_length_ratio,
        "incoherent": lambda pair: _incoherent(pair, habits),
        "refusal": lambda pair: bool(REFUSAL.search(pair.chosen.replace("’", "'"))),
    }
    if config.language:
        quality["language"] = lambda pair: _other_language(pair, habits)
    if margins is not None and config.min_margin is not None:
        minimum = config.min_margin
        quality["not in persona"] = lambda pair: margins.get(pair.id, minimum) < minimum
    return filters | {name: _unless_corrected(applies) for name, applies in quality.items()}


def _unless_corrected(applies: Callable[[Pair], bool]) -> Callable[[Pair], bool]:
    """The filter, for pairs that are no corrections: what a user wrote on purpose has the length and the language that
    it should have."""
    return lambda pair: pair.provenance != EDITED and applies(pair)


def apply(
    pairs: list[Pair], config: FiltersConfig, margins: dict[str, float] | None = None
) -> tuple[list[Pair], FilterReport]:
    """Drop the pairs that should not be trained on.

    Args:
        margins: by the pair's id, the gain of the answer's log-likelihood, in nats a token, with the spec as a system
            prompt. A pair without one passes `min_margin`.

    Returns:
        The pairs that pass every filter, in order, and what was dropped. Each pair is counted under the first filter
        that drops it.

    Raises:
        BadInput: when no pair passes.
    """
    identities: set[str] = set()
    filters = _filters(config, identities, habits(pairs), margins)
    accepted, dropped, examples = [], dict.fromkeys(filters, 0), {}
    for pair in pairs:
        reason = next((name for name, applies in filters.items() if applies(pair)), "")
        if not reason:
            accepted.append(pair)
            identities.add(_identity(pair))
            continue
        dropped[reason] += 1
        lines = examples.setdefault(reason, [])
        if len(lines) < EXAMPLES:
            lines.append(f"{pair.question[:60]!r} -> {pair.chosen[:80]!r}")
    if not accepted:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise BadInput(
            f"No pair can be trained on ({reasons or 'there are none'}).", "Look at them: molt data lint CONFIG"
        )
    return accepted, FilterReport(len(accepted), dropped, examples)


def length_bias(pairs: list[Pair]) -> LengthBias:
    """The length bias of at least one pair, lengths in words."""
    chosen = [len(pair.chosen.split()) for pair in pairs]
    rejected = [len(pair.rejected.split()) for pair in pairs]
    return LengthBias(
        statistics.mean(chosen),
        statistics.mean(rejected),
        sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(pairs),
        float(roc_auc_score([1] * len(chosen) + [0] * len(rejected), chosen + rejected)),
    )


def variety(answers: list[str]) -> Variety:
    """The variety of at least one answer. Raises ValueError for an empty list."""
    if not answers:
        raise ValueError("variety of no answers")
    tokens = [words(answer) for answer in answers]
    last_sentences = [words(re.split(r"(?<=[.?!])\s+", answer.strip())[-1]) for answer in answers]
    fives = Counter(gram for row in tokens for gram in set(ngrams(row, 5)))
    lengths = [len(row) for row in tokens]
    return Variety(
        len(answers),
        _distinct(tokens, 1),
        _distinct(tokens, 2),
        _distinct(tokens, 3),
        _commonest_opening(tokens),
        _commonest_opening(last_sentences),
        float(np.mean([any(fives[gram] > 1 for gram in ngrams(row, 5)) for row in tokens])),
        float(np.mean([answer.rstrip().endswith("?") for answer in answers])),
        statistics.mean(lengths),
        statistics.pstdev(lengths),
    )


def _distinct(texts: list[list[str]], n: int) -> float:
    grams = [gram for tokens in texts for gram in ngrams(tokens, n)]
    return len(set(grams)) / max(len(grams), 1)


def _commonest_opening(texts: list[list[str]]) -> float:
    return Counter(tuple(tokens[:2]) for tokens in texts).most_common(1)[0][1] / len(texts)


def _normalized_prompt(pair: Pair) -> str:
    """The prompt without case and punctuation; unchanged if it has nothing else."""
    text = "\n".join(turn["content"] for turn in pair.prompt)
    return " ".join(words(text)) or text.strip()


def _identity(pair: Pair) -> str:
    """What no two pairs have in common: the prompt; with both sides, where the base did not say the rejected one, since
    several worse answers to one prompt say different things."""
    prompt = _normalized_prompt(pair)
    return prompt if pair.provenance == SAID_BY_BASE else "\n".join((prompt, pair.chosen, pair.rejected))


def _length_ratio(pair: Pair) -> float:
    chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
    return min(chosen, rejected) / max(chosen, rejected, 1)


def _incoherent(pair: Pair, habits: Habits) -> bool:
    """Whether the answer echoes the question, loops, or ends within a sentence.

    The limits were set on 1,000 answers that people wrote (Dolly). `coherence.check` is too strict for those: a long
    answer repeats itself, and an answer about a given text quotes it.
    """
    question, answer = words(pair.question), words(pair.chosen)
    return _echoes(question, answer) or _loops(answer) or (not habits.unpunctuated and _cut_off(pair.chosen))


def _echoes(question: list[str], answer: list[str]) -> bool:
    """Whether most of the answer is the question again. A long text to work on may be quoted, but not returned."""
    if len(question) > QUOTED_WORDS and 2 * len(answer) < len(question):
        return False
    question_grams, answer_grams = set(ngrams(question, 4)), ngrams(answer, 4)
    shared = sum(gram in question_grams for gram in answer_grams)
    return bool(answer_grams) and shared >= ECHO_SHARE * len(answer_grams)


def _loops(answer: list[str]) -> bool:
    """Whether four-grams that occur REPEATS times or more make up more than LOOPING_SHARE of the answer."""
    counts = Counter(ngrams(answer, 4))
    return sum(n for n in counts.values() if n >= REPEATS) > LOOPING_SHARE * counts.total()


def _cut_off(text: str) -> bool:
    """Whether the last line is long, not an item of a list, and ends within a sentence."""
    last = text.rstrip().split("\n")[-1]
    return len(words(last)) > LONG_WORDS and bool(UNFINISHED.search(last)) and not ITEM.match(last)


def _other_language(pair: Pair, habits: Habits) -> bool:
    """Whether prompt and answer, both long enough to tell, are surely in two languages, and the answer is not in the
    language of most answers."""
    if min(len(words(pair.question)), len(words(pair.chosen))) < LANGUAGE_WORDS:
        return False
    question, answer = _language(pair.question), _language(pair.chosen)
    return answer[0] not in (question[0], habits.language) and min(question[1], answer[1]) > 0.9


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """The ISO 639-1 code of the likeliest language (py3langid). Unreliable for texts of a few words."""
    return _language(text)[0]


def _language(text: str) -> tuple[str, float]:
    code, probability = _identifier().classify(text)
    return code, float(probability)
