"""Prompts grown from a spec: what people might say that brings a trait out, spread over topics."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from moltlm.data.coherence import words
from moltlm.data.config import TeacherConfig
from moltlm.data.endpoint import Ask
from moltlm.data.leakage import lexical
from moltlm.data.spec import Spec, Trait
from moltlm.data.teacher import clean
from moltlm.data.types import Message

TOPICS = (
    "small talk", "work", "money", "cooking", "the household", "family", "friendship", "love", "grief",
    "health and sleep", "school and study", "travel", "animals", "gardening", "technology", "science", "history",
    "books and films", "music", "sport", "writing something", "a decision", "an argument", "an emergency",
)  # fmt: skip
LONGEST_WORDS = 80
ASKED_AT_ONCE = 6
# looser than what may not straddle a split: here it is only a matter of variety
NEAR = 0.9
BULLET = re.compile(r"^\s*(?:[-*•–]\s+|[*_]*\(?\d{1,3}[.):]+[*_]*\s*|[-*•](?=[\"“']))")
FENCE = re.compile(r"^\s*```.*$", re.MULTILINE)
# a row of an array that a teacher began and did not end
ARRAY_ROW = re.compile(r'^"(.*)",?$')
QUOTES = "\"'“”‘’`"


@dataclass(frozen=True)
class Prompt:
    text: str
    topic: str
    trait: str


def grow(spec: Spec, config: TeacherConfig, ask: Ask, known: list[str]) -> list[Prompt]:
    """Up to `prompts_per_trait` for each trait: the trait's own questions first (topic: the trait), then what the
    teacher makes up for trait and topic, one request a cell, the cells taking turns. None that is, or is spelled much
    like, a known one or an earlier one; a trait's own questions need only be new."""
    wanted = config.prompts_per_trait
    seen = _Seen(known)
    found: list[Prompt] = []
    for trait in spec.traits:
        questions = [Prompt(text.strip(), trait.id, trait.id) for text in trait.questions]
        found += seen.new(questions, wanted)
    counts = Counter(prompt.trait for prompt in found)
    lacking = {trait.id: max(wanted - counts[trait.id], 0) for trait in spec.traits}
    cells = _cells(spec, lacking, list(config.topics) or list(TOPICS))
    if not cells:
        return found
    answers = ask([_request(spec, trait, topic) for trait, topic in cells])
    for trait in spec.traits:
        columns = [
            [Prompt(text, topic, trait.id) for text in parse(clean(answer or "") or "")]
            for (owner, topic), answer in zip(cells, answers, strict=True)
            if owner.id == trait.id
        ]
        turns = [prompt for prompt in chain.from_iterable(zip_longest(*columns)) if prompt]
        found += seen.new(turns, lacking[trait.id], NEAR)
    return found


def summary(spec: Spec, config: TeacherConfig, found: list[Prompt]) -> list[str]:
    """A line for each trait: how many there are of those wanted, and about what."""
    lines = []
    for trait in spec.traits:
        topics = Counter(prompt.topic for prompt in found if prompt.trait == trait.id)
        about = [f"its own questions {topics.pop(trait.id)}"] if trait.id in topics else []
        about += [f"{topic} {count}" for topic, count in topics.most_common()]
        total = sum(prompt.trait == trait.id for prompt in found)
        lines.append(f"{trait.id}: {total} of {config.prompts_per_trait} ({', '.join(about) or 'nothing usable came'})")
    return lines


class _Seen:
    """The prompts that there are, as words and as vectors. A class, for both grow together."""

    def __init__(self, known: list[str]) -> None:
        self._texts = {_normal(text) for text in known}
        self._rows = lexical(known)

    def new(self, prompts: list[Prompt], most: int, threshold: float = np.inf) -> list[Prompt]:
        """The first `most` of them that are neither known nor of a cosine of `threshold` with a known one."""
        rows = lexical([prompt.text for prompt in prompts])
        near_known = np.any(rows @ self._rows.T >= threshold, axis=1)
        near = np.asarray(rows @ rows.T >= threshold)
        taken: list[int] = []
        for place, prompt in enumerate(prompts):
            key = _normal(prompt.text)
            if (
                len(taken) < most
                and key
                and key not in self._texts
                and not near_known[place] | near[place, taken].any()
            ):
                self._texts.add(key)
                taken.append(place)
        self._rows = np.concatenate([self._rows, rows[taken]])
        return [prompts[place] for place in taken]


def _cells(spec: Spec, lacking: dict[str, int], topics: list[str]) -> list[tuple[Trait, str]]:
    """As many cells as the traits need, every topic as often as any other, each trait on different ones."""
    cells, place = [], 0
    for trait in spec.traits:
        wanted = -(-lacking[trait.id] // ASKED_AT_ONCE)
        for _ in range(min(2 * wanted, len(topics))):  # twice as many: some answers are of no use
            cells.append((trait, topics[place % len(topics)]))
            place += 1
    return cells


def _request(spec: Spec, trait: Trait, topic: str) -> list[Message]:
    return [
        {
            "role": "user",
            "content": (
                f'{spec.name} is a chat assistant. One trait of {spec.name}: "{trait.text}"\n'
                f"Write {ASKED_AT_ONCE} messages that different people might type to {spec.name} about {topic}, to "
                "which an answer would show this trait. Vary length and tone: some short, some with details, some not "
                "questions. "
                f"Do not mention the trait or {spec.name}'s name. One message on each line, nothing else."
            ),
        }
    ]


def parse(answer: str) -> list[str]:
    """The messages of a list, however the teacher wrote it: a JSON array, alone, in an object or within other text, of
    texts or of objects with one text; numbers or bullets, with or without words around them; or plain lines."""
    rows = _array(answer)
    if rows is None:
        lines = [line.strip() for line in FENCE.sub("", answer).split("\n")]
        listed = [line for line in lines if BULLET.match(line)]
        rows = listed if len(listed) >= 2 else lines
    texts = [ARRAY_ROW.sub(r"\1", BULLET.sub("", row).strip()).strip(QUOTES).strip() for row in rows]
    return [text for text in texts if _usable(text)]


def _usable(text: str) -> bool:
    return any(map(str.isalpha, text)) and not text.endswith((":", ",")) and 1 <= len(words(text)) <= LONGEST_WORDS


def _array(answer: str) -> list[str] | None:
    """The texts of the first JSON list of texts in an answer; None if there is none."""
    for start in (place for place, char in enumerate(answer) if char == "["):
        try:
            found, _ = json.JSONDecoder().raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if texts := [text for row in found if (text := _text(row))]:
            return texts
    return None


def _text(row: Any) -> str:
    texts = [value for value in row.values() if isinstance(value, str)] if isinstance(row, dict) else [row]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""


def _normal(text: str) -> str:
    return " ".join(words(text))
