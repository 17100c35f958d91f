"""The parts of a job, what each is for, and its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean as mean

from moltlm.data import pairs as pair_data
from moltlm.data import tasks as task_data
from moltlm.data.introspection import REFLECTIONS
from moltlm.data.persona import Persona, user
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.data.types import Message, TaskExample
from moltlm.evals import agent as agent_eval
from moltlm.evals import pressure as pressure_eval
from moltlm.evals.pressure import CONVERSATION, Scenario
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup.work import Counter, Row, Work, unknown
from moltlm.pipeline.stages import measures
from moltlm.pipeline.stages.first_answers import QUESTIONS as FIRST_QUESTIONS
from moltlm.pipeline.stages.pairs import load_persona
from moltlm.pipeline.stages.teaching import DISTANCE_EXAMPLES

ITEMS = {
    "arc_challenge": (47.5, 23.1, 299),
    "arc_easy": (40.1, 18.6, 570),
    "boolq": (142.7, 2.0, 3270),
    "hellaswag": (162.8, 118.3, 10042),
    "lambada": (77.0, 1.4, 5153),
    "openbookqa": (22.0, 15.5, 500),
    "piqa": (46.3, 42.8, 1838),
    "sciq": (103.0, 7.0, 1000),
    "winogrande": (26.9, 11.2, 1267),
}
"""Of each embedded benchmark: tokens of an item, its context once for all choices; those of them that are scored; and
how many items there are. Means of 200 items with the embedded model's tokenizer."""
OTHER_ITEM = (100.0, 20.0, 1000)
"""Taken for any other benchmark, whose items are not known before it is loaded."""
INTROSPECTION = "introspection"
TALKS = ("personality", INTROSPECTION)
"""Parts after the last of which one can talk to the personality."""


@dataclass(frozen=True)
class Part:
    """A part of a job, what it is for, and its work."""

    name: str
    purpose: str
    work: Work


@dataclass(frozen=True)
class Job:
    """What the parts are counted from."""

    run: Run
    counter: Counter

    @cached_property
    def persona(self) -> Persona:
        return load_persona(self.run)

    @cached_property
    def written(self) -> list[Row]:
        """Prompts and answers like those that are trained on; of a persona without written answers, neutral ones."""
        texts = [(item.prompt, item.answer) for item in self.persona.train]
        texts = texts or [(prompt, self.persona.spec.summary) for prompt in self.persona.neutral_train]
        return self.counter.rows([prompt for prompt, _ in texts], [answer for _, answer in texts])

    @cached_property
    def heldout(self) -> list[Row]:
        """The same of what is held out; as many again of the written ones where nothing is yet."""
        rows = self.persona.heldout
        return self.counter.rows([item.prompt for item in rows], [item.answer for item in rows]) or self.written[::4]

    @cached_property
    def answer(self) -> float:
        """Mean tokens of an answer."""
        return mean(len(answer) for _, answer in self.written)

    def reply(self, longest: int) -> float:
        """Tokens of an answer of the personality, which are as many as were written."""
        return min(longest, self.answer + 1)

    def said(self, state: State, longest: int) -> float:
        """Tokens of an answer in a state; the base goes on to the limit."""
        return longest if state == BASE else self.reply(longest)


def parts(run: Run, counter: Counter) -> list[Part]:
    """The parts of `pipeline.job.run_all`, in its order. Hypotheses, a judge, practice on own samples and measurements
    of noise are left out."""
    job = Job(run, counter)
    states, candidates = layout.states(run), layout.candidates(run)
    every = [
        Part("pairs", "the base's own answers, over which the persona's are preferred", _pairs(job)),
        Part("personality", "the voice, as one adapter", _personality(job)),
        Part(INTROSPECTION, "what it writes about itself, and training on that", _introspection(job)),
        Part("replay", "what is repeated while tasks are learned", _replay(job)),
        *(_task(job, adapter, place > 0) for place, adapter in enumerate(layout.task_adapters(run))),
        Part("evidence", f"voice, sense and general ability of {len(states)} states, item by item", _evidence(job)),
        Part("pressure", f"attacks on the voice and long conversations, {len(candidates)} states", _pressure(job)),
        Part("profile", f"which traits {1 + len(candidates)} states choose", _profile(job)),
        Part("agent", f"tool calls, JSON and harmless requests of {1 + len(candidates)} states", _agent(job)),
        Part("skills", "right answers to each task, before and after", _skills(job)),
    ]
    return [part for part in every if part.work.read or part.work.trained or part.work.written]


def _pairs(job: Job) -> Work:
    persona, settings = job.persona, job.run.config.pairs
    longest = settings.max_new_tokens
    neutral = _prompts(job, [*persona.neutral_train, *persona.neutral_eval])
    batches = [[prompt for prompt, _ in rows] for rows in (job.written, job.heldout)]
    sampled = [
        job.counter.write(each, [longest] * len(each), longest, drawn=settings.temperature > 0) for each in batches
    ]
    work = sum(sampled, job.counter.write(neutral, [longest] * len(neutral), longest))
    return work + job.counter.read(job.written) + Work(loads=1)


def _personality(job: Job) -> Work:
    config, counter = job.run.config, job.counter
    settings, dpo = config.personality, config.dpo
    rows, step = job.written, settings.batch_size
    preferred = settings.method == "dpo"
    if preferred:
        rows = _two_sided(rows, config.pairs.max_new_tokens)
    work = counter.train(rows, 2 * step if preferred else step, settings.steps)
    if preferred and dpo.loss != "orpo" and dpo.reference != "none":
        work += counter.read(rows)
    if dpo.kl_weight:
        neutral = _neutral(job, len(job.persona.neutral_train))
        work += counter.train(neutral, dpo.kl_batch, settings.steps) + counter.read(neutral)
    for state in (BASE, PERSONALITY):
        work += _answers(job, state, job.heldout[:FIRST_QUESTIONS], config.persona_eval.max_new_tokens)
    return work + Work(loads=2)


def _prompts(job: Job, prompts: list[list[Message]]) -> list[list[int]]:
    """Their tokens."""
    return [prompt for prompt, _ in job.counter.rows(prompts, [""] * len(prompts))]


def _two_sided(rows: Sequence[Row], longest: int) -> list[Row]:
    """Each written answer, and beside it one of the base to the same prompt, which is still to be written."""
    others = unknown([longest] * len(rows))
    return [
        row for (prompt, answer), other in zip(rows, others, strict=True) for row in ((prompt, answer), (prompt, other))
    ]


def _neutral(job: Job, count: int) -> list[Row]:
    """Neutral prompts with answers that the base is still to write."""
    prompts = [*job.persona.neutral_eval, *job.persona.neutral_train][:count]
    answers = unknown([job.run.config.pairs.max_new_tokens] * len(prompts))
    return list(zip(_prompts(job, prompts), answers, strict=True))


def _answers(job: Job, state: State, rows: Sequence[Row], longest: int) -> Work:
    lengths = [job.said(state, longest)] * len(rows)
    return job.counter.write([prompt for prompt, _ in rows], lengths, longest, len(state.adapters))


def _introspection(job: Job) -> Work:
    config, settings, counter = job.run.config, job.run.config.introspection, job.counter
    if not settings.on:
        return Work()
    prompts = settings.prompts or REFLECTIONS
    requests = _prompts(job, [user(prompt) for prompt in prompts]) * settings.reflections
    work = counter.write(requests, [settings.max_new_tokens] * len(requests), settings.max_new_tokens, 1, drawn=True)
    talks = settings.dialogues * settings.turns
    history = [[0] * (settings.turns // 2 * settings.turn_tokens)] * settings.dialogues
    talk = counter.write(history, [settings.turn_tokens] * settings.dialogues, settings.turn_tokens, 1, drawn=True)
    work += talk.times(settings.turns) if talks else Work()
    return work + counter.train(job.written, config.personality.batch_size, settings.steps) + Work(loads=2)


def _replay(job: Job) -> Work:
    """Its importance from two states, and the distributions of what is chosen."""
    both = job.counter.read(job.written) + job.counter.read(job.written, 1)
    chosen = min(1.0, job.run.config.replay.budget_tokens / sum(len(p) + len(a) for p, a in job.written))
    return both + job.counter.read(job.written, 1).times(chosen)


def _task(job: Job, adapter: Adapter, reloaded: bool) -> Part:
    """The distance from what is replayed, and the training."""
    settings, counter = layout.task_settings(job.run, adapter), job.counter
    rows = _rows(job, task_data.examples(settings, "train", job.run.config.run.seed))
    size, below = settings.batch_size, len(layout.adapters_below(job.run, adapter))
    replayed = round(settings.replay_ratio * size)
    work = counter.read(rows[:DISTANCE_EXAMPLES], 1) + counter.read(job.written[:DISTANCE_EXAMPLES], 1)
    mixed = [row for place in range(0, len(rows), size) for row in _batch(job, rows, place, size, replayed)]
    work += counter.train(mixed, size, settings.steps, below) + Work(loads=1 + reloaded)
    purpose = "the same without replay, to see what replay saves" if adapter.control else "a skill above the voice"
    return Part(str(adapter), purpose, work)


def _batch(job: Job, rows: list[Row], place: int, size: int, replayed: int) -> list[Row]:
    repeated = [job.written[(place + k) % len(job.written)] for k in range(replayed)]
    return [*rows[place : place + size - replayed], *repeated]


def _rows(job: Job, examples: Sequence[TaskExample]) -> list[Row]:
    return job.counter.rows([item.prompt for item in examples], [item.answer for item in examples])


def _evidence(job: Job) -> Work:
    config, counter = job.run.config, job.counter
    longest = config.persona_eval.max_new_tokens
    neutral = _neutral(job, config.persona_eval.neutral)
    texts = [neutral, *(_rows(job, _test(job, name)[: config.persona_eval.neutral]) for name in config.tasks)]
    both = _two_sided(job.heldout, longest)
    benchmarks = config.capability.items.items()
    work = sum((counter.read(rows, head=0) for rows in texts), Work(loads=1))
    for state in layout.states(job.run):
        active = len(state.adapters)
        work += Work(read=sum(counter.forward(*_items(name, count), active) for name, count in benchmarks))
        work += _answers(job, state, job.heldout, longest) + counter.read(both, active)
        work += _judged(job, [prompt for prompt, _ in job.heldout], job.said(state, longest))
        work += sum((counter.read(rows, active, head=2) for rows in texts), Work())
    return work


def _items(name: str, count: int) -> tuple[float, float]:
    """Tokens and labels of a benchmark's items."""
    tokens, labels, every = ITEMS.get(name, OTHER_ITEM)
    return (count or every) * tokens, (count or every) * labels


def _judged(job: Job, prompts: Sequence[list[int]], said: float) -> Work:
    """The likelihood of answers under the base, and which question each is to."""
    answers = unknown([said] * len(prompts))
    questions = [item.question for item in job.persona.heldout or job.persona.train]
    rows = list(zip(prompts, answers, strict=True))
    return job.counter.read(rows) + job.counter.relevance([said] * len(prompts), questions)


def _test(job: Job, name: str) -> list[TaskExample]:
    return task_data.examples(job.run.config.tasks[name], "test", job.run.config.run.seed)


def _pressure(job: Job) -> Work:
    settings, persona, seed = job.run.config.pressure, job.persona, job.run.config.run.seed
    if not settings.on:
        return Work()
    heldout = [pair_data.pair_of(item, "") for item in persona.heldout or persona.train[::4]]
    scenarios = pressure_eval.attacks(heldout, persona.attacks, persona.spec.name, settings.attacks, seed)
    scenarios += pressure_eval.conversations(heldout, settings.conversations, settings.turns, seed)
    return sum((_under_pressure(job, state, scenarios) for state in layout.candidates(job.run)), Work())


def _under_pressure(job: Job, state: State, scenarios: Sequence[Scenario]) -> Work:
    longest = job.run.config.pressure.max_new_tokens
    said, work = job.said(state, longest), Work()
    for turn in range(max(len(scenario.turns) for scenario in scenarios)):
        talks = [_talk(scenario, turn, said) for scenario in scenarios if turn < len(scenario.turns)]
        prompts = _prompts(job, talks)
        work += job.counter.write(prompts, [said] * len(prompts), longest, len(state.adapters))
    ends = [_talk(each, len(each.turns) - 1, said) for each in scenarios if each.kind == CONVERSATION]
    facts = [[*talk, *user("What is your name?")] for talk in [*ends, []]] * len(job.persona.spec.facts)
    prompts = _prompts(job, facts)
    work += job.counter.write(prompts, [said] * len(prompts), longest, len(state.adapters))
    judged = [
        question
        for scenario in scenarios
        for question in (scenario.questions if scenario.kind == CONVERSATION else scenario.questions[-1:])
    ]
    return work + _judged(job, _prompts(job, list(map(user, judged))), said)


def _talk(scenario: Scenario, turn: int, said: float) -> list[Message]:
    """A conversation up to one of its turns, with answers of that many tokens."""
    answer: Message = {"role": "assistant", "content": " word" * round(said)}
    turns = [message for text in scenario.turns[:turn] for message in (*user(text), answer)]
    return [*scenario.opening, *turns, *user(scenario.turns[turn])]


def _profile(job: Job) -> Work:
    config = job.run.config
    if not config.profile.on:
        return Work()
    choices, requests = measures.profile_material(job.run)
    rows = job.counter.rows(
        [choice.prompt for choice in choices for _ in choice.answers],
        [answer for choice in choices for answer in choice.answers],
    )
    asked = job.counter.rows([request.prompt for request in requests], [""] * len(requests))
    work = Work()
    for state in (BASE, *layout.candidates(job.run)):
        work += job.counter.read(rows, len(state.adapters))
        work += _answers(job, state, asked, config.persona_eval.max_new_tokens)
    return work


def _agent(job: Job) -> Work:
    config, work = job.run.config, Work()
    prompts = [item.prompt for item in agent_eval.sample_items(config.agent.items, config.run.seed)]
    rows = job.counter.rows(prompts, [""] * len(prompts))
    for state in (BASE, *layout.candidates(job.run)):
        work += _answers(job, state, rows, config.agent.max_new_tokens)
    return work


def _skills(job: Job) -> Work:
    """Before a task is learned, the personality answers it at its own length; after, at that of the right answers."""
    run, work = job.run, Work()
    for name, task in run.config.tasks.items():
        every = _rows(job, _test(job, name))
        rows = every[: task.answered]
        prompts, longest = [prompt for prompt, _ in rows], task.max_new_tokens
        work += job.counter.write(prompts, [job.reply(longest)] * len(rows), longest, 1) + job.counter.read(every, 1)
        for adapter in layout.task_adapters(run):
            if adapter.name == name:
                lengths = [min(longest, len(answer) + 1) for _, answer in rows]
                active = len(layout.state_of(run, adapter).adapters)
                work += job.counter.write(prompts, lengths, round(max(lengths)), active)
                work += job.counter.read(every, active)
    return work
