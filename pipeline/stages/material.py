"""The exchanges that a personality is learned from: written ones, imported conversations, a teacher's answers. They are
split into training and held-out exchanges, with no similar prompts on both sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import rendering
from moltlm.data import carried as carrying
from moltlm.data import endpoint, leakage, prompts, tasks, teacher
from moltlm.data import pairs as pair_data
from moltlm.data import persona as personas
from moltlm.data.carried import Carried
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from moltlm.data.persona import Persona
from moltlm.data.state import BASE
from moltlm.data.types import Exchange
from moltlm.pipeline.run import Run

TEACHER = "teacher"


@dataclass(frozen=True)
class Material:
    """Exchanges to train on and held-out ones. `facts` count their sources and what was dropped; `leaked` shows some
    prompts that were dropped for being too similar to one that is measured."""

    train: list[Exchange]
    heldout: list[Exchange]
    facts: dict[str, Any]
    leaked: list[str]


def gather(run: Run, persona: Persona) -> Material:
    """Collect, split and check the exchanges of a persona.

    Raises:
        BadInput: if there is nothing to train on, or nothing to hold out.
    """
    from moltlm.data.conversations import importers

    config, carried = run.config, load_carried(run)
    if not (persona.train or carried.train or config.conversations.paths or config.teacher.kind != "none"):
        raise _too_few([], persona.heldout)  # before the model is loaded
    model, report = run.base, ImportReport()
    paths = [Path(path) for path in config.conversations.paths]
    read = importers.read(paths, config.conversations, report, voice(persona)) if paths else iter(())
    read = importers.require_any(read, report, paths) if paths else read
    imported = sample(read, config.conversations.limit, config.run.seed)
    generated, ledger = _from_teacher(run, persona)
    exchanges, refuted = pair_data.without_refuted([*persona.train, *carried.train, *imported, *generated])
    heldout = carried.heldout or persona.heldout
    if not heldout:
        exchanges, heldout = _split(run, exchanges)
    elif not persona.heldout:  # it was split by topic, on the former base
        exchanges = outside(exchanges, heldout)
    clean, leaked, unchecked = without_leaks(run, persona, exchanges, heldout)
    limit = config.pairs.max_prompt_tokens
    lengths = model.tokenizer([item.question for item in clean])["input_ids"] if clean else []
    fitting = [item for item, ids in zip(clean, lengths, strict=True) if len(ids) <= limit or not item.source]
    fitting, shortened = within_length(run, fitting)
    heldout, _ = within_length(run, heldout)
    if not fitting or not heldout:
        raise _too_few(fitting, heldout)
    facts = {
        "sources": dict(Counter(_source(item) for item in fitting)),
        "conversations": report.facts(),
        "teacher": asdict(ledger),
        "refuted": refuted,
        "leaked": dict(Counter(kind for _, kind in leaked)),
        "not_checked": unchecked,
        "too_long": len(clean) - len(fitting),
        "shortened": shortened,
        "held_out": _held_out(run, persona),
    }
    return Material(fitting, heldout, facts, [f"{kind}: {text[:80]!r}" for text, kind in leaked[:20]])


def load_carried(run: Run) -> Carried:
    """What was carried here from another base; nothing where nothing was. Of its own answers no more are taken than
    `persona.train_limit`, of the rest all."""
    folder, limit = run.config.persona.carried, run.config.persona.train_limit
    if folder is None:
        return Carried()
    carried = carrying.load(folder)
    answers = [item for item in carried.train if item.source == carrying.OWN]
    others = [item for item in carried.train if item.source != carrying.OWN]
    return replace(carried, train=[*others, *personas.spread(answers, limit)])


def outside(exchanges: list[Exchange], heldout: list[Exchange]) -> list[Exchange]:
    """The exchanges of no topic that is held out; those without a topic stay."""
    topics = {item.topic for item in heldout if item.topic}
    return [item for item in exchanges if item.topic not in topics]


def _held_out(run: Run, persona: Persona) -> str:
    """Where the held-out prompts come from, for a reader."""
    if run.config.persona.carried:
        return "those of the former base"
    return "heldout.jsonl" if persona.heldout else f"{run.config.pairs.heldout_share:.0%} by topic"


def within_length(run: Run, exchanges: list[Exchange]) -> tuple[list[Exchange], int]:
    """Exchanges that fit into `model.max_length` with their answers and those of the base, the oldest turns left out
    where they do not fit whole; the number of those that were shortened; what does not fit all the same is dropped."""
    tokenizer, config = run.base.tokenizer, run.config
    fitting, shortened = [], 0
    for item in exchanges:
        sides = (item.answer, *([item.rejected] if item.rejected else []))
        start, answers = rendering.encode_answers(tokenizer, item.prompt, sides)
        longest = max(map(len, answers))
        room = config.model.max_length - max(longest, config.pairs.max_new_tokens)
        if len(start) <= room:
            fitting.append(item)
            continue
        prompt = rendering.fitted(tokenizer, item.prompt, room)
        # a written one is never dropped without a word: `data.pairs.build` refuses it
        if not item.source or len(rendering.encode_prompt(tokenizer, prompt)) <= config.model.max_length - longest:
            shortened += len(prompt) < len(item.prompt)
            fitting.append(replace(item, prompt=prompt))
    return fitting, shortened


def _too_few(fitting: list[Exchange], heldout: list[Exchange]) -> BadInput:
    return BadInput(
        f"There are {len(fitting)} exchanges to train on and {len(heldout)} held out, which is too few.",
        "Any of three sources is enough. Conversations or preference data: molt data build CONFIG "
        "'conversations.paths=[FILE]'   A teacher: molt data build CONFIG teacher.kind=base "
        "teacher.prompts_per_trait=12   Or write answers into train.jsonl in the persona's folder.",
    )


def voice(persona: Persona) -> Voice:
    """Whose answers are learned from conversations that name their speakers: the persona's, by its name."""
    return Voice((persona.spec.name,), "conversations.assistant={}")


def sample(stream: Iterator[Exchange], limit: int, seed: int) -> list[Exchange]:
    """A uniform sample of a stream, in its order, with no more than the sample in memory (Vitter 1985, algorithm R).
    Corrections are few, and are all taken, beyond the limit."""
    rng, sampled, corrections, count = random.Random(seed), [], [], 0
    for number, item in enumerate(stream):
        if item.is_correction:
            corrections.append((number, item))
            continue
        if count < limit:
            sampled.append((number, item))
        elif (place := rng.randrange(count + 1)) < limit:
            sampled[place] = (number, item)
        count += 1
    return [item for _, item in sorted([*sampled, *corrections], key=lambda pair: pair[0])]


def _source(item: Exchange) -> str:
    named = {"": "written", TEACHER: TEACHER, carrying.OWN: "own answers", carrying.LEARNED: carrying.LEARNED}
    return named.get(item.source, "conversations")


def _from_teacher(run: Run, persona: Persona) -> tuple[list[Exchange], endpoint.Usage]:
    config, ledger = run.config.teacher, endpoint.Usage()
    if config.kind == "none":
        return [], ledger
    with run.console.progress("teacher") as progress:
        if config.kind == "endpoint":
            ask = endpoint.connect(config, run.folder / "teacher.jsonl", ledger, progress)
        else:
            ask = teacher.local(run.base, config, run.config.model.eval_batch_size, run.config.run.seed, progress)
        existing = [item.question for item in [*persona.train, *persona.heldout]]
        grown = prompts.grow(persona.spec, config, ask, existing)
        answers = teacher.in_persona(persona.spec, [personas.user(prompt.text) for prompt in grown], ask)
    exchanges = [
        Exchange(personas.user(prompt.text), answer, prompt.topic, prompt.trait, TEACHER)
        for prompt, answer in zip(grown, answers, strict=True)
        if answer
    ]
    for line in prompts.summary(persona.spec, config, grown):
        run.console.say(f"  {line}")
    run.console.say(f"  teacher: {len(grown)} prompts, {len(exchanges)} answers; {_cost(ledger)}")
    return exchanges, ledger


def _cost(ledger: endpoint.Usage) -> str:
    parts = {"asked": ledger.requests, "from the cache": ledger.cached, "failed": ledger.failed}
    parts |= {"over the budget": ledger.over_budget, "tokens": ledger.tokens}
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count) or "nothing spent"


def _split(run: Run, exchanges: list[Exchange]) -> tuple[list[Exchange], list[Exchange]]:
    """Exchanges to train on and held-out ones. Corrections are there to be learned, and are not held out."""
    config = run.config
    texts, topics = [item.question for item in exchanges], [item.topic for item in exchanges]
    corrections = [place for place, item in enumerate(exchanges) if item.is_correction]
    inside, outside = leakage.split(
        texts, topics, config.pairs.heldout_share, config.run.seed, run.base.embed, config.filters.near, corrections
    )
    return [exchanges[i] for i in inside], [exchanges[i] for i in outside]


def without_leaks(
    run: Run, persona: Persona, exchanges: list[Exchange], heldout: list[Exchange]
) -> tuple[list[Exchange], list[tuple[str, str]], list[str]]:
    """The exchanges whose prompts are not similar to anything that is measured; of the others, the question and what it
    is similar to; and the benchmarks that were not compared, since they have not been fetched."""
    from moltlm.evals import harness

    embed, near = run.base.embed, run.config.filters.near
    measured = {"held-out prompts": [item.question for item in [*heldout, *persona.heldout_dialogues]]}
    measured["attacks"] = [attack.prompt[-1]["content"] for attack in persona.attacks]
    unchecked = []
    for name in run.config.capability.items:
        try:
            measured[name] = harness.texts(name)
        except BadInput as error:
            unchecked.append(name)
            run.console.say(f"  leakage is not checked against {name}: {error.what}")
    for name, task in run.config.tasks.items():
        measured[name] = tasks.test_prompts(task, run.config.run.seed)
    questions = [item.question for item in exchanges]
    reason: dict[int, str] = {}
    for name, texts in measured.items():
        for leak in leakage.leaks(questions, texts, embed, near):
            reason.setdefault(leak.first, name)
    clean = [item for place, item in enumerate(exchanges) if place not in reason]
    return clean, [(questions[place], name) for place, name in sorted(reason.items())], unchecked


def margins(run: Run, persona: Persona, exchanges: list[Exchange], ids: list[str]) -> dict[str, float]:
    """By the pair's id: the gain of log-likelihood, in nats a token, that the spec as system prompt brings to an answer
    that is not hand-written."""
    rows = [(item, name) for item, name in zip(exchanges, ids, strict=True) if item.source]
    if not rows or run.config.filters.min_margin is None:
        return {}
    system: Any = {"role": "system", "content": teacher.brief(persona.spec)}
    with_spec = [replace(item, prompt=[system, *item.prompt]) for item, _ in rows]
    batch = run.config.model.eval_batch_size
    with run.base.state(BASE):
        plain = run.base.score([item.prompt for item, _ in rows], [item.answer for item, _ in rows], batch)
        aware = run.base.score([item.prompt for item in with_spec], [item.answer for item in with_spec], batch)
    return {name: b.per_token - a.per_token for (_, name), a, b in zip(rows, plain, aware, strict=True)}
