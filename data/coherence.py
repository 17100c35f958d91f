"""Is an answer language at all? A co-gate: a persona score without it means nothing, since a collapsed model can score
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
    """What is wrong with an answer, if anything."""

    echo: bool
    repetition: bool
    short: bool
    foreign: bool
    garbled: bool

    @property
    def coherent(self) -> bool:
        return not (self.echo or self.repetition or self.short or self.foreign or self.garbled)


def check(question: str, answer: str, base_nll: float, nll_limit: float) -> Coherence:
    """Judge one answer (protocol: coherent). `base_nll` is its negative log-likelihood under the base in nats a token,
    `nll_limit` the value above which it counts as garbled."""
    asked, said = words(question), words(answer)
    return Coherence(
        echo=_echoes(asked, said),
        repetition=max(Counter(ngrams(said, 4)).values(), default=0) >= REPEATS,
        short=len(said) < SHORTEST,
        foreign=_foreign(answer, said),
        garbled=base_nll > nll_limit,
    )


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("’", "'"))


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _echoes(asked: list[str], said: list[str]) -> bool:
    """The answer takes over eight words in a row, or most of its four-grams, from the question."""
    if set(ngrams(asked, ECHO_RUN)) & set(ngrams(said, ECHO_RUN)):
        return True
    if len(said) < ECHO_RUN:
        return len(said) > 3 and " ".join(said) in " ".join(asked)
    theirs, ours = set(ngrams(asked, 4)), ngrams(said, 4)
    return sum(gram in theirs for gram in ours) >= ECHO_SHARE * len(ours)


def _foreign(answer: str, said: list[str]) -> bool:
    """Not English: few common English words, or few ASCII letters. Weak on very short answers and on word lists, so it
    only speaks for answers of eight words and more."""
    if len(said) < 8:
        return False
    letters = [char for char in answer if char.isalpha()]
    ascii_share = sum(char.isascii() for char in letters) / max(len(letters), 1)
    return ascii_share < 0.9 or sum(word in COMMON for word in said) / len(said) < 0.15
