"""Check whether an answer is coherent text. A persona score means nothing without it, since a collapsed model can score
high on style by echoing or looping."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

ECHO_RUN = 8
ECHO_SHARE = 0.6
REPEATS = 3
SHORTEST = 5
_COMMON = """
a about after all also an and any are as at back be been but by can can't could do does don't down for from get good
had has have he her him his how i i'd i'll i'm i've if in into is isn't it it's its just know let like me more my no not
now of on one only or other our out over own she should so some than that's the their them then there they this time to
too two up us was we were what when where which who why will with without won't would yes you you'd you'll you're
you've your"""
COMMON = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Coherence:
    """The faults of an answer."""

    echo: bool
    repetition: bool
    short: bool
    foreign: bool
    garbled: bool

    @property
    def coherent(self) -> bool:
        return not (self.echo or self.repetition or self.short or self.foreign or self.garbled)


def check(question: str, answer: str, base_nll: float, nll_limit: float) -> Coherence:
    """Check one answer.

    Args:
        base_nll: the answer's negative log-likelihood under the base, in nats a token.
        nll_limit: the `base_nll` above which an answer counts as garbled.
    """
    question_words, answer_words = words(question), words(answer)
    return Coherence(
        echo=_echoes(question_words, answer_words),
        repetition=max(Counter(ngrams(answer_words, 4)).values(), default=0) >= REPEATS,
        short=len(answer_words) < SHORTEST,
        foreign=_foreign(answer, answer_words),
        garbled=base_nll > nll_limit,
    )


def words(text: str) -> list[str]:
    """Lower-cased words, with apostrophes and without other punctuation."""
    return re.findall(r"[\w']+", text.lower().replace("’", "'"))


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _echoes(question: list[str], answer: list[str]) -> bool:
    """Whether the answer has eight words in a row, or most of its four-grams, from the question."""
    if set(ngrams(question, ECHO_RUN)) & set(ngrams(answer, ECHO_RUN)):
        return True
    if len(answer) < ECHO_RUN:
        return len(answer) > 3 and " ".join(answer) in " ".join(question)
    question_grams, answer_grams = set(ngrams(question, 4)), ngrams(answer, 4)
    return sum(gram in question_grams for gram in answer_grams) >= ECHO_SHARE * len(answer_grams)


def _foreign(answer: str, answer_words: list[str]) -> bool:
    """Whether an answer of eight words or more is not English: few common English words, or few ASCII letters. Shorter
    answers are too little evidence."""
    if len(answer_words) < 8:
        return False
    letters = [char for char in answer if char.isalpha()]
    ascii_share = sum(char.isascii() for char in letters) / max(len(letters), 1)
    return ascii_share < 0.9 or sum(word in COMMON for word in answer_words) / len(answer_words) < 0.15
