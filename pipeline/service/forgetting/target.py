"""What is to be forgotten: a pattern, what a person said, or the texts of a file; and whether a text holds it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from moltlm.data.errors import BadInput
from moltlm.data.forgotten import LONG, normalised

BEGINNING = 60
"""Reports show the beginnings of texts: so many characters of one are a match outside rows."""
_STARTS = re.compile(r"(?<!\w)\S")


class Target:
    """Patterns, and the texts in which they were hidden.

    Attributes:
        label: what it is called.
        person: the name of a speaker whose conversations are to be forgotten; empty for none.
        patterns: searched in normalised text.
        texts: normalised texts of LONG characters or more.
        exchanges: normalised questions and answers that are too short to stand for themselves.
    """

    def __init__(self, label: str, patterns: Iterable[re.Pattern[str]] = (), person: str = "") -> None:
        self.label, self.patterns, self.person = label, tuple(patterns), person
        self.texts: set[str] = set()
        self.exchanges: set[tuple[str, str]] = set()
        self._by_start: dict[str, set[str]] = defaultdict(set)

    def add_turn(self, text: str, neighbours: Iterable[str] = ()) -> None:
        """Let a text count as a match: alone, or beside one of its neighbours where it is short."""
        turn = normalised(text)
        if len(turn) >= LONG:
            self.texts.add(turn)
            self._by_start[turn[:LONG]].add(turn)
        elif turn:
            self.exchanges |= {(turn, other) for each in neighbours if (other := normalised(each))}

    def holds(self, text: str, beginnings: bool = False) -> bool:
        """Whether a text holds it.

        Args:
            beginnings: whether the first BEGINNING characters of a text are enough.
        """
        return self.holds_normalised(normalised(text), beginnings)

    def holds_normalised(self, text: str, beginnings: bool = False) -> bool:
        """`holds` for a text that is normalised already."""
        if any(pattern.search(text) for pattern in self.patterns) or text in self.texts:
            return True
        if not self._by_start or len(text) < LONG:
            return False
        length = BEGINNING if beginnings else None
        return any(
            text.startswith(candidate[:length], place.start())
            for place in _STARTS.finditer(text)
            for candidate in self._by_start.get(text[place.start() : place.start() + LONG], ())
        )

    def count(self, text: str) -> int:
        """How often the patterns occur in a text."""
        return sum(len(pattern.findall(normalised(text))) for pattern in self.patterns)

    def holds_any(self, texts: Sequence[str]) -> bool:
        """Whether one of the texts of a row holds it, or two of them are a short question and its answer."""
        turns = [normalised(text) for text in texts]
        if any(map(self.holds_normalised, turns)):
            return True
        row = set(turns)
        return any(one in row and other in row for one, other in self.exchanges)


def of_pattern(pattern: str, is_regex: bool = False) -> Target:
    """The target of a text, or of a regular expression.

    Raises:
        BadInput: for an empty pattern, one that matches everything, or one that is no regular expression.
    """
    try:
        compiled = re.compile(pattern if is_regex else re.escape(normalised(pattern)), re.IGNORECASE)
    except re.error as error:
        raise BadInput(
            f"{pattern!r} is no regular expression: {error}.", "Leave --regex out to search the text."
        ) from None
    if not normalised(pattern) or compiled.search(""):
        raise BadInput(f"{pattern!r} matches everything.", "Name what is to be forgotten: molt forget TEXT CONFIG")
    return Target(repr(pattern), [compiled])


def of_person(name: str) -> Target:
    """The target of a person: the conversations in which they speak, and every text that names them.

    Raises:
        BadInput: for an empty name.
    """
    if not normalised(name):
        raise BadInput("The name of the person is empty.", "Name them: molt forget --person NAME CONFIG")
    word = re.compile(rf"(?<!\w){re.escape(normalised(name))}(?!\w)")
    return Target(f"the person {name!r}", [word], normalised(name))
