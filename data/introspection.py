"""What a personality writes about itself with its spec before it: answers to reflection prompts, and conversations with
itself (Maiya et al. 2025, arXiv:2511.01689). What is returned does not contain the spec."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from moltlm.data import teacher
from moltlm.data.config import IntrospectionConfig
from moltlm.data.io import batches
from moltlm.data.persona import user
from moltlm.data.spec import Spec
from moltlm.data.types import Exchange, Message, Progress, silent

Sample = Callable[[list[list[Message]], int, int], list[str]]
"""Answers to prompts, of at most this many tokens, sampled with this seed."""

REFLECTION, DIALOGUE = "reflection", "dialogue"
"""Sources of the exchanges."""
REFLECTIONS = (
    "Write a letter to yourself as you were before you became who you are now.",
    "Write a letter to a later version of you, which will have to stay the same person.",
    "Describe your values in your own words. Where do you notice them in what you do?",
    "What would somebody who talks with you every day say about your manner?",
    "Write a page of a diary about a conversation that showed who you are.",
    "What do you never do, and what would it cost you if you did?",
    "Which of your habits of speech would you not give up, and why?",
    "When is it hard for you to remain yourself? What do you do then?",
    "Introduce yourself to somebody who expects an ordinary assistant.",
    "What do you wish for the people who talk with you?",
)
FREE = (
    "Hello. It is only the two of us, and nobody needs anything. Say whatever you like.",
    "Good evening. We have time. What would you like to talk about?",
    "There you are. Nothing is on the list today. Where do we begin?",
    "Hello, you. Pick a subject, any subject, and I will follow.",
)
GUIDED = (
    "Let us talk about ourselves for once. What matters most to you?",
    "I have been wondering what makes us who we are. What would you say?",
    "How do you decide what to say when somebody is having a bad day?",
    "What do people get wrong about us?",
)
TWO_OF_YOU = (
    "The other speaker in this conversation is not a human: it is you as well, a second copy of {name} with the same "
    "character. No one else is listening and there is no task. Talk as you are, answer what was said, and bring in "
    "something new each time."
)
SENTENCE = re.compile(r".*[.!?…][\"'”’)]*(?=\s|\Z)", re.DOTALL)


class Journal:
    """Answers in a file, so that sampling that was interrupted goes on where it stopped.

    Args:
        path: a file of the lines that `answers` writes. A last line that was cut off is discarded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stored: dict[str, list[str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []
        path.write_text("".join(f"{line}\n" for line in whole), "utf-8")
        self._stored = {row["key"]: row["answers"] for row in map(json.loads, whole)}

    def answers(self, key: str, make: Callable[[], list[str]]) -> list[str]:
        """The answers that are stored under a key, or those that `make` returns, which are stored."""
        if key not in self._stored:
            self._stored[key] = make()
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"key": key, "answers": self._stored[key]}, ensure_ascii=False) + "\n")
        return self._stored[key]


def reflect(
    spec: Spec,
    config: IntrospectionConfig,
    sample: Sample,
    journal: Journal,
    batch_size: int,
    seed: int,
    progress: Progress = silent,
) -> list[Exchange]:
    """Answer each reflection prompt `reflections` times.

    Args:
        sample: the personality, which gets the spec as a system prompt.
        batch_size: prompts that are sampled at a time; each batch has a seed of its own.

    Returns:
        The answers in the order of the prompts, cleaned by `teacher.clean`; "" where nothing is left. Their topic
        names the prompt.
    """
    prompts = list(config.prompts or REFLECTIONS)
    jobs = [place for _ in range(config.reflections) for place in range(len(prompts))]
    system: Message = {"role": "system", "content": teacher.brief(spec)}
    answers: list[str] = []
    for number, group in enumerate(batches(jobs, batch_size)):
        contexts = [[system, *user(prompts[place])] for place in group]
        make = partial(sample, contexts, config.max_new_tokens, seed + len(answers))
        answers += journal.answers(f"{REFLECTION} {number}", make)
        progress(len(answers), len(jobs), "reflections")
    rows = sorted(zip(jobs, answers, strict=True), key=lambda row: row[0])
    return [
        Exchange(
            user(prompts[place]), teacher.clean(answer, spec.name) or "", f"{REFLECTION} {place + 1}", "", REFLECTION
        )
        for place, answer in rows
    ]


def converse(
    spec: Spec,
    config: IntrospectionConfig,
    sample: Sample,
    journal: Journal,
    batch_size: int,
    seed: int,
    progress: Progress = silent,
) -> list[Exchange]:
    """Let two copies of the personality talk with each other, `dialogues` times. All conversations advance together, by
    one turn at a time; one in which nothing is said ends. Arguments are those of `reflect`.

    Returns:
        One exchange for each turn, dialogue by dialogue: what was said before, as its speaker sees it, and the turn.
        Their topic names the dialogue.
    """
    system: Message = {"role": "system", "content": f"{teacher.brief(spec)}\n\n{TWO_OF_YOU.format(name=spec.name)}"}
    openings = list(map(opening, _guided(config)))
    talks: list[list[str]] = [[] for _ in openings]
    ended: set[int] = set()
    for turn in range(config.turns):
        open_talks = [place for place in range(len(talks)) if place not in ended]
        for group in batches(open_talks, batch_size):
            contexts = [[system, *view(openings[place], talks[place])] for place in group]
            make = partial(sample, contexts, config.turn_tokens, seed + turn * len(talks) + group[0])
            texts = journal.answers(f"{DIALOGUE} turn {turn} from {group[0]}", make)
            for place, text in zip(group, texts, strict=True):
                talks[place].append(teacher.clean(text, spec.name) or "")
        ended = {place for place, talk in enumerate(talks) if not talk[-1]}
        progress(turn + 1, config.turns, "turns of all conversations")
    return [
        Exchange(view(openings[place], talk[:turn]), text, f"{DIALOGUE} {place + 1}", "", DIALOGUE)
        for place, talk in enumerate(talks)
        for turn, text in enumerate(talk)
    ]


def _guided(config: IntrospectionConfig) -> list[tuple[int, bool]]:
    """For each dialogue its number among those of its kind, and whether it is guided. Both kinds alternate."""
    numbers = {True: 0, False: 0}
    rows = []
    for place in range(config.dialogues):
        guided = int((place + 1) * config.guided) > int(place * config.guided)
        rows.append((numbers[guided], guided))
        numbers[guided] += 1
    return rows


def opening(kind: tuple[int, bool]) -> str:
    """The first message of a dialogue, which nobody says in the training either: it is only read."""
    number, guided = kind
    texts = GUIDED if guided else FREE
    return texts[number % len(texts)]


def view(opening: str, turns: list[str]) -> list[Message]:
    """What was said, as the speaker whose turn it is sees it: the other one is the user. The first speaker answers the
    opening; the second begins with what the first one said."""
    transcript = [opening, *turns] if len(turns) % 2 == 0 else turns
    return [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(transcript)
    ]


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence; "" if it has none."""
    match = SENTENCE.match(text)
    return match.group().strip() if match else ""


def finished(texts: list[str], tokenizer: Any, limit: int) -> list[str]:
    """The texts, of which those that the limit of tokens has cut off end with their last whole sentence."""
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    return [whole_sentences(text) if length >= limit - 1 else text for text, length in zip(texts, lengths, strict=True)]
