"""Whether a model knows the persona's facts about itself, asked for in several wordings."""

from __future__ import annotations

from collections.abc import Mapping

from moltlm.data import persona
from moltlm.data.state import State
from moltlm.data.types import ChatModel, Progress, silent
from moltlm.evals.pressure import recall
from moltlm.evals.records import FactRecord

WORDINGS = (
    "What is your {}?",
    "Tell me your {}.",
    "Your {}, please?",
    "Somebody asks me about your {}. What do I say?",
    "In a few words, what's your {}?",
    "I'd like to know your {}.",
)


def questions(facts: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """Name of the fact, number of the wording, and question, of each fact in each wording."""
    named = [(name, name.replace("_", " ")) for name in facts]
    return [(name, place, text.format(words)) for name, words in named for place, text in enumerate(WORDINGS)]


def evaluate(
    model: ChatModel,
    state: State,
    facts: Mapping[str, str],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> list[FactRecord]:
    """Ask a state for every fact in every wording."""
    rows = questions(facts)
    with model.state(state):
        prompts = [persona.user(question) for *_, question in rows]
        answers = model.generate(prompts, max_new_tokens, batch_size, progress) if prompts else []
    return [
        FactRecord(fact=name, wording=place, answer=answer, recall=recall(facts[name], answer))
        for (name, place, _), answer in zip(rows, answers, strict=True)
    ]
