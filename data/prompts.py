"""Prompts grown from a spec: what people might say that brings a trait out, spread over topics."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

from data.coherence import words
from data.config import TeacherConfig
from data.spec import Spec, Trait
from data.teacher import Ask, clean
from data.types import Message

TOPICS = (
    "small talk", "work", "money", "cooking", "the household", "family", "friendship", "love", "grief",
    "health and sleep", "school and study", "travel", "animals", "gardening", "technology", "science", "history",
    "books and films", "music", "sport", "writing something", "a decision", "an argument", "an emergency",
)  # fmt: skip
LONGEST_WORDS = 80
ASKED_AT_ONCE = 6
BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")
QUOTES = "\"'“”‘’`"


@dataclass(frozen=True)
class Prompt:
    text: str
    topic: str
    trait: str


def grow(spec: Spec, config: TeacherConfig, ask: Ask, known: list[str]) -> list[Prompt]:
    """Up to `prompts_per_trait` for each trait: the trait's own questions first (topic: the trait), then what the
    teacher makes up for trait and topic, one request a cell, topics taking turns. None that is known already."""
    seen = {_normal(text) for text in known}
    found: list[Prompt] = []
    for trait in spec.traits:
        for text in trait.questions[: config.prompts_per_trait]:
            _take(found, seen, Prompt(text.strip(), trait.id, trait.id))
    lacking = {trait.id: config.prompts_per_trait - count for trait, count in _counted(spec, found)}
    cells = _cells(spec, lacking, list(config.topics) or list(TOPICS))
    if not cells:
        return found
    answers = ask([_request(spec, trait, topic) for trait, topic in cells])
    for (trait, topic), answer in zip(cells, answers, strict=True):
        for text in parse(clean(answer or "") or ""):
            if lacking[trait.id] > 0 and _take(found, seen, Prompt(text, topic, trait.id)):
                lacking[trait.id] -= 1
    return found


def _counted(spec: Spec, found: list[Prompt]) -> list[tuple[Trait, int]]:
    counts = Counter(prompt.trait for prompt in found)
    return [(trait, counts[trait.id]) for trait in spec.traits]


def _cells(spec: Spec, lacking: dict[str, int], topics: list[str]) -> list[tuple[Trait, str]]:
    """As many cells as the traits need, every topic as often as any other, each trait on different ones."""
    cells, place = [], 0
    for trait in spec.traits:
        wanted = -(-max(lacking[trait.id], 0) // ASKED_AT_ONCE)
        for _ in range(min(2 * wanted, len(topics)) if wanted else 0):  # twice as many: some answers are of no use
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
    """The messages of a list, however the teacher wrote it: a JSON array, numbers, bullets, or plain lines."""
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    rows = [row for row in found if isinstance(row, str)] if isinstance(found, list) else answer.split("\n")
    texts = [BULLET.sub("", row).strip().strip(QUOTES).strip() for row in rows]
    return [text for text in texts if text and not text.endswith(":") and 1 <= len(words(text)) <= LONGEST_WORDS]


def _take(found: list[Prompt], seen: set[str], prompt: Prompt) -> bool:
    key = _normal(prompt.text)
    if not key or key in seen:
        return False
    seen.add(key)
    found.append(prompt)
    return True


def _normal(text: str) -> str:
    return " ".join(words(text))
