"""The rows of the report's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from moltlm.data.state import CONTROL
from moltlm.evals import stats
from moltlm.evals.comparisons import Difference
from moltlm.evals.hypotheses import Verdict
from moltlm.evals.stats import Comparison, Estimate
from moltlm.pipeline.reporting.results import PersonaResult, Results

T = TypeVar("T")


@dataclass(frozen=True)
class StateRow(Generic[T]):
    """What one state has under the name that a group of rows shares."""

    state: str
    value: T


@dataclass(frozen=True)
class PersonaRow:
    """The persona of one state; the shares of echo and repetition with their intervals."""

    state: str
    value: PersonaResult
    echo: Estimate
    repetition: Estimate


@dataclass(frozen=True)
class CapabilityRow:
    """One benchmark in one state, or the mean of the changes over benchmarks, which has no accuracy.

    Attributes:
        within: a margin in points, for the mean only.
        equivalent: is it shown that the change lies within it? Empty where it was not asked.
    """

    state: str
    n: int
    change: Comparison
    accuracy: Estimate | None = None
    chance: float | None = None
    perplexity: float | None = None
    within: float | None = None
    equivalent: str = ""


@dataclass(frozen=True)
class ChangeCounts:
    """The comparisons with the base, and how many have an interval below and above zero."""

    total: int
    down: int
    up: int


def persona_rows(results: Results) -> list[PersonaRow]:
    """The states whose persona was measured."""
    return [
        PersonaRow(state.name, state.persona, *(_share(state.persona, fault) for fault in ("echo", "repetition")))
        for state in results.states
        if state.persona
    ]


def _share(persona: PersonaResult, fault: str) -> Estimate:
    return stats.proportion(round(getattr(persona, fault) * persona.n), persona.n)


def capability_rows(results: Results) -> dict[str, list[CapabilityRow]]:
    """By benchmark, each state; last the mean of the changes over benchmarks, where there are several."""
    rows: dict[str, list[CapabilityRow]] = {}
    for state in results.states:
        for name, one in state.capability.items():
            row = CapabilityRow(state.name, one.n, one.change, one.accuracy, one.chance, one.perplexity)
            rows.setdefault(name, []).append(row)
    changes = mean_changes(results)
    if changes and len(rows) > 1:
        margin = results.capability_margin
        rows["mean of the changes"] = [
            CapabilityRow(name, change.n, change, within=margin, equivalent=_equivalent(change, margin))
            for name, change in changes.items()
        ]
    return rows


def _equivalent(change: Comparison, margin: float) -> str:
    """Two one-sided tests: is it shown that the change lies within the margin, in points?"""
    outcome = stats.equivalent(change, margin / 100)
    return {"pass": "shown", "fail": "no", "unresolved": "not resolved"}[outcome]


def mean_changes(results: Results) -> dict[str, Comparison]:
    """By state: the mean of its changes against the base, each benchmark weighted equally."""
    return {
        state.name: stats.stratified([one.change for one in state.capability.values()])
        for state in results.states
        if state.capability and state.name != "base"
    }


def candidate_changes(results: Results) -> dict[str, Comparison]:
    """The mean changes of the states that could be used; controls never are."""
    return {name: change for name, change in mean_changes(results).items() if not name.endswith(CONTROL)}


def change_counts(results: Results) -> ChangeCounts:
    """How many comparisons with the base exclude zero."""
    changes = [one.change for state in results.states if state.name != "base" for one in state.capability.values()]
    down, up = sum(change.high < 0 for change in changes), sum(change.low > 0 for change in changes)
    return ChangeCounts(len(changes), down, up)


def by_name(states: Iterable[tuple[str, Mapping[str, T]]]) -> dict[str, list[StateRow[T]]]:
    """What the states have under each name, name by name."""
    rows: dict[str, list[StateRow[T]]] = {}
    for state, values in states:
        for name, value in values.items():
            rows.setdefault(name, []).append(StateRow(state, value))
    return rows


def comparisons(verdict: Verdict) -> list[Difference]:
    """All comparisons of a verdict: those that decide, those for information, the positive control last."""
    return [*verdict.comparisons, *verdict.beside, *([verdict.control] if verdict.control else [])]


def standing(results: Results) -> dict[str, str]:
    """What became of each candidate at the gate. A task that passes is activated only above its personality."""
    words = {}
    for name, verdict in results.gates.items():
        failed = [f"{check.name} {check.outcome}" for check in verdict.checks if check.outcome != "pass"]
        waiting = not results.gates.get("personality", verdict).promoted
        passed = "passed, but waits for the personality" if waiting else "promoted"
        words[name] = passed if verdict.promoted else f"not promoted ({', '.join(failed)})"
    return words
