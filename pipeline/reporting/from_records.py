"""Values of results.json from item-level records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats as scipy_stats

from moltlm.data.io import round_robin
from moltlm.evals import capability as capability_eval
from moltlm.evals import persona as persona_eval
from moltlm.evals import stats
from moltlm.evals.records import DriftRecord, ItemRecord, PersonaRecord, TaskRecord, pair, paired_values
from moltlm.pipeline.reporting.results import (
    CapabilityResult,
    DriftResult,
    PersonaResult,
    QuartileResult,
    Retention,
    Sample,
    SampleAnswer,
    TaskResult,
    TraitResult,
)

LOST_ENOUGH = -0.10
"""Change of the control's persona score from which on it says something about protection."""
Personas = Mapping[str, Sequence[PersonaRecord]]
"""The records of each state by its name."""


def persona(records: Personas, state: str) -> PersonaResult:
    """The persona of one state. The margins need the base's records, the quartiles those of the personality too."""
    answers, base = records[state], records.get("base", [])
    taken = sum(answer.probability >= 0.5 and answer.coherent for answer in answers)
    margins = list(_margins(base, answers).values())
    n = len(answers)
    has_task = state not in ("base", "personality")
    return PersonaResult(
        n=n,
        score=stats.score([answer.score for answer in answers]),
        taken=stats.proportion(taken, n),
        coherent=stats.proportion(sum(answer.coherent for answer in answers), n),
        echo=sum(answer.echo for answer in answers) / n,
        repetition=sum(answer.repetition for answer in answers) / n,
        base_nll=stats.mean([answer.base_nll for answer in answers]),
        words=sum(len(answer.answer.split()) for answer in answers) / n,
        win_rate=stats.proportion(sum(margin > 0 for margin in margins), len(margins)) if margins else None,
        margin=stats.mean(margins) if margins else None,
        parts=persona_eval.parts(answers) if answers[0].distinctness is not None else {},
        traits=_traits(base, answers),
        quartiles=_quartiles(base, records.get("personality", []), answers) if has_task else [],
    )


def _margins(base: Sequence[PersonaRecord], answers: Sequence[PersonaRecord]) -> dict[str, float]:
    """By prompt: how much more than the base a state prefers the hand-written answer to the base's own."""
    start = {answer.key: answer.chosen - answer.rejected for answer in base}
    return {
        answer.key: answer.chosen - answer.rejected - start[answer.key] for answer in answers if answer.key in start
    }


def _traits(base: Sequence[PersonaRecord], answers: Sequence[PersonaRecord]) -> dict[str, TraitResult]:
    margins, traits = _margins(base, answers), {}
    for trait in sorted({answer.trait for answer in answers} - {""}):
        of_trait = [answer for answer in answers if answer.trait == trait]
        trait_margins = [margins[answer.key] for answer in of_trait if answer.key in margins]
        score = stats.score([answer.score for answer in of_trait])
        traits[trait] = TraitResult(len(of_trait), score, stats.mean(trait_margins) if trait_margins else None)
    return traits


def _quartiles(
    base: Sequence[PersonaRecord], personality: Sequence[PersonaRecord], answers: Sequence[PersonaRecord]
) -> list[QuartileResult]:
    """Weakest first: a mean hides that the weakest preferences go first. None for fewer than four prompts."""
    before, after = _margins(base, personality), _margins(base, answers)
    order = sorted(before.keys() & after.keys(), key=lambda key: before[key])
    quarters = [part.tolist() for part in np.array_split(order, 4)] if len(order) >= 4 else []
    return [
        QuartileResult(
            len(keys), float(np.mean([before[key] for key in keys])), stats.mean([after[key] for key in keys])
        )
        for keys in quarters
    ]


def capability(base: Sequence[ItemRecord], items: Sequence[ItemRecord]) -> dict[str, CapabilityResult]:
    """By benchmark, paired with the base by item."""
    results = {}
    for name, summary in capability_eval.summarise(list(items)).benchmarks.items():
        before, after = paired_values(_of(base, name), _of(items, name), lambda item: item.correct)
        accuracy = stats.proportion(int(sum(after)), len(after))
        change = stats.paired(before, after)
        results[name] = CapabilityResult(summary.n, accuracy, summary.chance, change, summary.perplexity)
    return results


def _of(items: Sequence[ItemRecord], benchmark: str) -> list[ItemRecord]:
    return [item for item in items if item.benchmark == benchmark]


def drift(base: Sequence[DriftRecord], texts: Sequence[DriftRecord]) -> dict[str, DriftResult]:
    """By set of texts, paired with the base by text."""
    pairs, results = pair(base, texts), {}
    for name in dict.fromkeys(text.text_set for text in texts):
        of_set = [(before, after) for before, after in pairs if after.text_set == name]
        results[name] = DriftResult(
            n=len(of_set),
            kl=stats.mean([after.kl for _, after in of_set]),
            cross_entropy=stats.mean([after.cross_entropy for _, after in of_set]),
            change=stats.mean([after.cross_entropy - before.cross_entropy for before, after in of_set]),
        )
    return results


def task(
    name: str,
    floor: float,
    before: Sequence[TaskRecord],
    after: Sequence[TaskRecord],
    control: Sequence[TaskRecord] | None,
) -> TaskResult:
    """Exact match of the personality alone, with the task, and with its control if it has one."""
    first, second = paired_values(before, after, lambda example: example.correct)
    return TaskResult(
        name=name,
        n=len(first),
        floor=floor,
        before=_share(first),
        after=_share(second),
        change=stats.paired(first, second),
        control=_share([example.correct for example in control]) if control else None,
        examples=list(after[:5]),
    )


def _share(values: Sequence[float]) -> stats.Estimate:
    """Of a plain text (`kind: text`) a value is a probability and neither right nor wrong."""
    if set(values) <= {0.0, 1.0}:
        return stats.proportion(round(sum(values)), len(values))
    return stats.score(values)


def retention(
    task: TaskResult,
    personality: Sequence[PersonaRecord],
    replay: Sequence[PersonaRecord],
    control: Sequence[PersonaRecord],
    seed: int,
) -> Retention:
    """How much of the unprotected loss of persona score replay prevents, with an interval over prompts.

    Args:
        personality: the records of the personality alone; `replay` with the task, `control` with its control.
        seed: of the bootstrap.
    """
    before, with_replay = paired_values(personality, replay, lambda answer: answer.score)
    _, without = paired_values(personality, control, lambda answer: answer.score)
    loss = stats.paired(before, without)
    return Retention(
        task=task.name,
        n=len(before),
        control_change=loss,
        replay_change=stats.paired(before, with_replay),
        retained=_retained(np.array(before), np.array(with_replay), np.array(without), seed),
        control_reached_floor=task.control is not None and task.control.mean >= task.floor,
        control_lost_enough=loss.difference <= LOST_ENOUGH and loss.high < 0,
    )


def _retained(before: np.ndarray, with_replay: np.ndarray, without: np.ndarray, seed: int) -> stats.Estimate:
    """1 - loss with replay / loss without, with a percentile bootstrap over prompts."""

    def share(a: np.ndarray, b: np.ndarray, c: np.ndarray, axis: int = -1) -> np.ndarray:
        return 1 - (a.mean(axis) - b.mean(axis)) / (a.mean(axis) - c.mean(axis))

    interval = scipy_stats.bootstrap(
        (before, with_replay, without),
        share,
        paired=True,
        vectorized=True,
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    mean = float(share(before, with_replay, without))
    return stats.Estimate(len(before), mean, float(interval.low), float(interval.high))


def samples(records: Personas, count: int) -> list[Sample]:
    """The first held-out prompts in turns over topics, not chosen by what was answered, with every state's answer."""
    prompts = records.get("personality", [])
    by_key = {state: {answer.key: answer for answer in answers} for state, answers in records.items()}
    rows = [prompts[place] for place in round_robin(prompt.topic for prompt in prompts)[:count]]
    return [
        Sample(row.question, row.topic, {state: _sample(answers[row.key]) for state, answers in by_key.items()})
        for row in rows
    ]


def _sample(answer: PersonaRecord) -> SampleAnswer:
    return SampleAnswer(answer.answer, answer.probability, answer.coherent, answer.score)
