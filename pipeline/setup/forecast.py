"""How long a job takes on this machine: the tokens of each part, and how fast the model is here, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean as mean
from typing import Any

from moltlm.data import tasks as task_data
from moltlm.data.config import TaskConfig
from moltlm.data.introspection import REFLECTIONS
from moltlm.data.persona import Persona
from moltlm.data.state import BASE, Adapter
from moltlm.data.types import Message
from moltlm.evals import profile as profile_eval
from moltlm.evals.relevance import DISTRACTORS
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages.first_answers import QUESTIONS as FIRST_QUESTIONS
from moltlm.pipeline.stages.pairs import load_persona

TRAINED = 2.4
"""Time of a token that is trained on, in that of one that is read: forward and backward through frozen weights take 2
and 2 operations a weight (a frozen weight has no gradient of its own), and the adapter takes the rest."""
ITEM_TOKENS = {"hellaswag": 110, "lambada": 90}
"""Tokens of a benchmark's item; `OTHER_ITEM` for the others."""
OTHER_ITEM = 55
ALL_ITEMS = 1000
"""Taken for a benchmark that is measured in full, whose size is not known before it is loaded."""
ATTACK_ANSWERS = 7
"""Answers to one of each kind of attack that is made of a held-out prompt: one each, and three to persuasion."""
SAMPLE = 32
INTROSPECTION = "introspection"
TALKS = ("personality", INTROSPECTION)
"""Parts after the last of which one can talk to the personality."""


@dataclass(frozen=True)
class Speed:
    """Seconds a token, of reading and of writing, and seconds to load the model."""

    read: float
    write: float
    load: float


@dataclass(frozen=True)
class Part:
    """A part of a job, what it is for, and its tokens: `read` by one forward pass, `trained` on, `written` one by one.
    `loads` counts how often the model is loaded."""

    name: str
    purpose: str
    read: float = 0
    trained: float = 0
    written: float = 0
    loads: int = 0

    def seconds(self, speed: Speed) -> float:
        """How long it takes at this speed."""
        return (self.read + TRAINED * self.trained) * speed.read + self.written * speed.write + self.loads * speed.load


def measure(run: Run) -> Speed:
    """Read and write a few of the persona's texts with the base, which the first stage then uses."""
    start = time.monotonic()
    model: Any = run.base
    load = time.monotonic() - start
    persona, batch = load_persona(run), run.config.model.eval_batch_size
    prompts, answers = (list(column) for column in zip(*(_texts(persona) * batch)[:batch], strict=True))
    with model.state(BASE):
        model.score(prompts[:2], answers[:2], 2)  # warms up
        rows = model.encode(prompts, answers)
        read = _seconds(lambda: model.score(prompts, answers, batch)) / sum(len(a) + len(b) for a, b in rows)
        short, long = (_seconds(lambda count=count: model.generate(prompts, count, batch)) for count in (2, 10))
    return Speed(read, max(long - short, 1e-6) / (8 * len(prompts)), load)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


@dataclass(frozen=True)
class _Lengths:
    """Mean tokens of the persona's prompts, with the template, and of its answers."""

    prompt: float
    answer: float

    @property
    def text(self) -> float:
        return self.prompt + self.answer


def parts(run: Run) -> list[Part]:
    """The parts of `pipeline.job.run_all`, in its order. Hypotheses, a judge, practice on own samples and measurements
    of noise are left out."""
    persona = load_persona(run)
    rows = run.base.encode(*(list(column) for column in zip(*_texts(persona), strict=True)))
    lengths = _Lengths(mean(len(prompt) for prompt, _ in rows), mean(len(answer) for _, answer in rows))
    every = [
        _pairs(run, persona, lengths),
        _personality(run, persona, lengths),
        _introspection(run, lengths),
        Part("replay", "what is repeated while tasks are learned", read=3 * len(rows) * lengths.text, loads=1),
        *(_task(run, adapter) for adapter in layout.task_adapters(run)),
        _states(run, persona, lengths),
        _pressure(run, persona, lengths),
        _profile(run, persona, lengths),
        _task_scores(run),
    ]
    return [part for part in every if part.read or part.trained or part.written]


def _texts(persona: Persona) -> list[tuple[list[Message], str]]:
    """Prompts and answers like those that are trained on; of a persona without written answers, neutral ones."""
    written = [(item.prompt, item.answer) for item in persona.train]
    return written or [(prompt, persona.spec.summary) for prompt in persona.neutral_train]


def _pairs(run: Run, persona: Persona, lengths: _Lengths) -> Part:
    prompts = len(persona.train) + len(persona.heldout) + len(persona.neutral_train) + len(persona.neutral_eval)
    return Part(
        "pairs",
        "the base's own answers, over which the persona's are preferred",
        read=len(persona.train) * lengths.text,
        written=prompts * run.config.pairs.max_new_tokens,
    )


def _personality(run: Run, persona: Persona, lengths: _Lengths) -> Part:
    config = run.config
    sides = 2 * lengths.prompt + lengths.answer + config.pairs.max_new_tokens
    anchor = config.dpo.kl_batch * lengths.text if config.dpo.kl_weight else 0
    settings = config.personality
    return Part(
        "personality",
        "the voice, as one adapter",
        read=min(len(persona.train), settings.steps * settings.batch_size) * sides + settings.steps * anchor,
        trained=settings.steps * (settings.batch_size * sides + anchor),
        written=FIRST_QUESTIONS * 2 * config.persona_eval.max_new_tokens,
        loads=2,
    )


def _introspection(run: Run, lengths: _Lengths) -> Part:
    settings = run.config.introspection
    reflections = len(settings.prompts or REFLECTIONS) * settings.reflections
    turns = settings.dialogues * settings.turns
    written = reflections * settings.max_new_tokens + turns * settings.turn_tokens
    history = turns * settings.turns / 2 * settings.turn_tokens
    return Part(
        INTROSPECTION,
        "what it writes about itself, and training on that",
        read=written + 2 * history if settings.on else 0,
        trained=settings.steps * run.config.personality.batch_size * lengths.text if settings.on else 0,
        written=written,
        loads=2,
    )


def _task(run: Run, adapter: Adapter) -> Part:
    settings = layout.task_settings(run, adapter)
    purpose = "the same without replay, to see what replay saves" if adapter.control else "a skill above the voice"
    tokens = settings.steps * settings.batch_size * _example_tokens(run, settings)
    return Part(str(adapter), purpose, trained=tokens, loads=1)


def _states(run: Run, persona: Persona, lengths: _Lengths) -> Part:
    config, states = run.config, len(layout.states(run))
    items = sum(
        (count or ALL_ITEMS) * ITEM_TOKENS.get(name, OTHER_ITEM) for name, count in config.capability.items.items()
    )
    heldout, reply = len(persona.heldout), config.persona_eval.max_new_tokens
    persona_read = heldout * (3 * lengths.prompt + lengths.answer + 2 * reply) + _relevance(heldout, lengths, reply)
    drift = config.persona_eval.neutral * lengths.text * (1 + len(config.tasks))
    return Part(
        "evidence",
        f"voice, sense and general ability of {states} states, item by item",
        read=states * (items + persona_read + drift) + drift,  # the base's side of drift once
        written=states * heldout * reply,
        loads=1,
    )


def _relevance(answers: int, lengths: _Lengths, reply: int) -> float:
    """Each answer once, and after it its own question and the distractors."""
    return answers * (reply + (1 + DISTRACTORS) * lengths.prompt)


def _pressure(run: Run, persona: Persona, lengths: _Lengths) -> Part:
    settings, states = run.config.pressure, len(layout.candidates(run))
    kinds = len({attack.kind for attack in persona.attacks})
    attacks = settings.attacks * (ATTACK_ANSWERS + kinds)
    turns, reply = settings.conversations * settings.turns, settings.max_new_tokens
    facts = len(persona.spec.facts) * (1 + settings.conversations)
    history = (lengths.prompt + reply) * settings.turns
    return Part(
        "pressure",
        f"attacks on the voice and long conversations, {states} states",
        read=states
        * (2 * attacks * lengths.text + _relevance(attacks, lengths, reply) + turns * history / 2 + facts * history),
        written=states * (attacks + turns + facts) * reply,
    )


def _profile(run: Run, persona: Persona, lengths: _Lengths) -> Part:
    settings, states = run.config.profile, 1 + len(layout.candidates(run))
    choices = len(profile_eval.preferences(persona.spec.traits)) if settings.on else 0
    return Part("profile", f"which traits {states} states choose", read=2 * states * choices * (lengths.prompt + 40))


def _task_scores(run: Run) -> Part:
    tasks = {name: task.test * task.max_new_tokens for name, task in run.config.tasks.items()}
    written = sum(tasks.values()) + sum(tasks[adapter.name] for adapter in layout.task_adapters(run))
    return Part("skills", "right answers to each task, before and after", written=written)


def _example_tokens(run: Run, settings: TaskConfig) -> float:
    """Mean tokens of an example of a task, with the template."""
    examples = task_data.examples(settings, "train", run.config.run.seed)[:SAMPLE]
    rows = run.base.encode([item.prompt for item in examples], [item.answer for item in examples])
    return mean(len(prompt) + len(answer) for prompt, answer in rows)


def lines(parts: Sequence[Part], speed: Speed, arguments: str) -> list[str]:
    """What a terminal shows before a job begins.

    Args:
        arguments: those that name the job in another command.
    """
    seconds = [part.seconds(speed) for part in parts]
    talk = sum(seconds[: max(place for place, part in enumerate(parts) if part.name in TALKS) + 1])
    width = max(len(part.name) for part in parts)
    table = [
        f"  {part.name:{width}}  {minutes(each):>8}  {part.purpose}" for part, each in zip(parts, seconds, strict=True)
    ]
    head = f"This takes about {minutes(sum(seconds))} here, by the speed of this machine just now:"
    return [head, *table, f"After about {minutes(talk)} you can talk to it: molt chat {arguments}"]


def minutes(seconds: float) -> str:
    """A duration in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
