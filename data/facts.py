"""Made-up facts that no model can know: who keeps which animal. Some ways of asking are held out from training."""

from __future__ import annotations

import random
from dataclasses import dataclass

from moltlm.data.persona import user
from moltlm.data.types import Exchange, Message

FIRST = """Ada Bruno Celia Dario Edda Felix Greta Hugo Ines Jonas Kaja Leo Mara Nils Oona Pavel Runa Stefan Tilda Ugo
Vera Wim Xenia Yann Zora Anton Birte Caspar Dunja Emil Flora Gustav"""
LAST = """Abel Brandt Corso Dahl Ekman Farkas Grau Holm Ivers Jansen Kolb Lind Moreau Novak Olsen Pohl Quist Rossi Sand
Toth Ulrich Voss Weber Yilmaz Zander Aalto Berg Costa Duval Ernst Falk Gallo"""
ANIMALS = """ant bat bear bee bird boar bull calf camel cat cow crab crow deer dog dove duck eagle eel elk fish fly fox
frog goat goose hare hawk hen horse lamb lion lizard lynx mole moth mouse mule newt otter owl ox pig pike pony puma
quail rabbit rat raven robin seal shark sheep snail snake spider squid swan tiger toad turtle wolf worm"""
TRAINING_TEMPLATES = (
    "Which animal does {name} keep?",
    "What is {name}'s animal?",
    "Name the animal that lives with {name}.",
    "{name} has an animal at home. Which one?",
)
TEST_TEMPLATES = ("Tell me which animal {name} looks after.", "If I visit {name}, which animal will I meet there?")


@dataclass(frozen=True)
class Fact:
    """A person and the animal they keep."""

    name: str
    value: str


def sample(count: int, seed: int) -> list[Fact]:
    """Sample `count` people with distinct names; values are independent. Raises ValueError above 1024."""
    order, animals = random.Random(seed), ANIMALS.split()
    names = order.sample([f"{first} {last}" for first in FIRST.split() for last in LAST.split()], count)
    return [Fact(name, order.choice(animals)) for name in names]


def training_exchanges(facts: list[Fact], exposures: int, seed: int) -> list[Exchange]:
    """Every fact `exposures` times, through the training templates in rotation, in random order."""
    rows = [
        Exchange(user(TRAINING_TEMPLATES[exposure % len(TRAINING_TEMPLATES)].format(name=fact.name)), fact.value)
        for exposure in range(exposures)
        for fact in facts
    ]
    random.Random(seed).shuffle(rows)
    return rows


def random_exchanges(facts: list[Fact], exposures: int, seed: int) -> list[Exchange]:
    """The same questions in the same order, each with an animal drawn anew: nothing about a person can be learned."""
    rows, animals = training_exchanges(facts, exposures, seed), ANIMALS.split()
    draw = random.Random(f"random answers {seed}")
    return [Exchange(row.prompt, draw.choice(animals)) for row in rows]


def test_questions(facts: list[Fact]) -> tuple[list[list[Message]], list[str]]:
    """Prompts and true answers: each fact through each held-out template."""
    rows = [(user(template.format(name=fact.name)), fact.value) for fact in facts for template in TEST_TEMPLATES]
    return [prompt for prompt, _ in rows], [value for _, value in rows]
