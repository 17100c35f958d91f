"""Generate prompts from a spec: messages to which an answer shows a trait, spread over topics."""

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
PER_REQUEST = 6
"""Prompts that one request to the teacher asks for."""
NEAR = 0.9
"""Cosine of `lexical` from which a prompt is too similar to another. It is higher than the cosine for leaks between the
sides of a split, since it only serves variety."""
BULLET = re.compile(r"^\s*(?:[-*•–]\s+|[*_]*\(?\d{1,3}[.):]+[*_]*\s*|[-*•](?=[\"“']))")
FENCE = re.compile(r"^\s*```.*$", re.MULTILINE)
# a row of an array that a teacher started and did not finish
ARRAY_ROW = re.compile(r'^"(.*)",?$')
QUOTES = "\"'“”‘’`"


@dataclass(frozen=True)
class Prompt:
    """A user's message, and the topic and trait that it was generated for."""

    text: str
    topic: str
    trait: str


def grow(spec: Spec, config: TeacherConfig, ask: Ask, existing: list[str]) -> list[Prompt]:
    """Generate up to `prompts_per_trait` prompts for each trait.

    A trait's own questions come first, with the trait as their topic; they only have to be new. Then the teacher
    invents prompts, one request for each cell of trait and topic, and the prompts of the cells alternate. None of them
    is the same as, or spelled much like, an existing prompt or an earlier one.

    Args:
        ask: the teacher.
        existing: prompts that there are already.
    """
    count = config.prompts_per_trait
    index = _PromptIndex(existing)
    prompts: list[Prompt] = []
    for trait in spec.traits:
        questions = [Prompt(text.strip(), trait.id, trait.id) for text in trait.questions]
        prompts += index.add_new(questions, count)
    counts = Counter(prompt.trait for prompt in prompts)
    lacking = {trait.id: max(count - counts[trait.id], 0) for trait in spec.traits}
    cells = _cells(spec, lacking, list(config.topics) or list(TOPICS))
    if not cells:
        return prompts
    answers = ask([_request(spec, trait, topic) for trait, topic in cells])
    for trait in spec.traits:
        columns = [
            [Prompt(text, topic, trait.id) for text in parse(clean(answer or "") or "")]
            for (owner, topic), answer in zip(cells, answers, strict=True)
            if owner.id == trait.id
        ]
        alternating = [prompt for prompt in chain.from_iterable(zip_longest(*columns)) if prompt]
        prompts += index.add_new(alternating, lacking[trait.id], NEAR)
    return prompts


def summary(spec: Spec, config: TeacherConfig, prompts: list[Prompt]) -> list[str]:
    """A line for each trait: the number of prompts, the number that was asked for, and their topics."""
    lines = []
    for trait in spec.traits:
        topics = Counter(prompt.topic for prompt in prompts if prompt.trait == trait.id)
        about = [f"its own questions {topics.pop(trait.id)}"] if trait.id in topics else []
        about += [f"{topic} {count}" for topic, count in topics.most_common()]
        total = sum(prompt.trait == trait.id for prompt in prompts)
        lines.append(f"{trait.id}: {total} of {config.prompts_per_trait} ({', '.join(about) or 'nothing usable came'})")
    return lines


class _PromptIndex:
    """The prompts so far, as normalized texts and as vectors of `lexical`."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = {_normal(text) for text in texts}
        self._rows = lexical(texts)

    def add_new(self, prompts: list[Prompt], limit: int, threshold: float = np.inf) -> list[Prompt]:
        """Add and return the first `limit` prompts that are new and below a cosine of `threshold` with all others."""
        rows = lexical([prompt.text for prompt in prompts])
        near_existing = np.any(rows @ self._rows.T >= threshold, axis=1)
        near = np.asarray(rows @ rows.T >= threshold)
        taken: list[int] = []
        for place, prompt in enumerate(prompts):
            key = _normal(prompt.text)
            if (
                len(taken) < limit
                and key
                and key not in self._texts
                and not near_existing[place] | near[place, taken].any()
            ):
                self._texts.add(key)
                taken.append(place)
        self._rows = np.concatenate([self._rows, rows[taken]])
        return [prompts[place] for place in taken]


def _cells(spec: Spec, lacking: dict[str, int], topics: list[str]) -> list[tuple[Trait, str]]:
    """As many cells as the traits need. Every topic comes equally often, and each trait has different topics."""
    cells, place = [], 0
    for trait in spec.traits:
        requests = -(-lacking[trait.id] // PER_REQUEST)
        for _ in range(min(2 * requests, len(topics))):  # twice as many, since some answers are not usable
            cells.append((trait, topics[place % len(topics)]))
            place += 1
    return cells


def _request(spec: Spec, trait: Trait, topic: str) -> list[Message]:
    return [
        {
            "role": "user",
            "content": (
                f'{spec.name} is a chat assistant. One trait of {spec.name}: "{trait.text}"\n'
                f"Write {PER_REQUEST} messages that different people might type to {spec.name} about {topic}, to "
                "which an answer would show this trait. Vary length and tone: some short, some with details, some not "
                "questions. "
                f"Do not mention the trait or {spec.name}'s name. One message on each line, nothing else."
            ),
        }
    ]


def parse(answer: str) -> list[str]:
    """Parse the teacher's list of messages.

    It may be a JSON array of texts or of objects with one text, alone, in an object or within other text; a list with
    numbers or bullets, with or without words around it; or plain lines.
    """
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
    """The texts of the first JSON array of texts in an answer; None if it has none."""
    for start in (place for place, char in enumerate(answer) if char == "["):
        try:
            array, _ = json.JSONDecoder().raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if texts := [text for row in array if (text := _text(row))]:
            return texts
    return None


def _text(row: Any) -> str:
    texts = [value for value in row.values() if isinstance(value, str)] if isinstance(row, dict) else [row]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""


def _normal(text: str) -> str:
    return " ".join(words(text))
