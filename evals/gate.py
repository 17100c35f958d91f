"""The gate: a candidate is promoted only if nothing that matters got worse by more than its margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evals import stats
from evals.config import GateConfig
from evals.stats import Comparison, Outcome


@dataclass(frozen=True)
class Paired:
    """One measure in both states, item by item, on a scale of 0 to 1. `strata` (a benchmark's name for each item)
    weights strata equally, whatever their size."""

    before: Sequence[float]
    after: Sequence[float]
    strata: Sequence[str] = ()


@dataclass(frozen=True)
class GateCheck:
    """`difference`, `low`, `high` (one-sided bounds) and `margin` are in points of 100."""

    name: str
    n: int
    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    needed_n: int
    sentence: str


@dataclass(frozen=True)
class GateVerdict:
    promoted: bool
    checks: list[GateCheck]


def judge(
    capability: Paired, persona: Paired, coherence: Paired, config: GateConfig, improvement: Paired | None = None
) -> GateVerdict:
    """Non-inferiority of each measure, and, where the candidate exists to learn something, that it did.

    What cannot be resolved with these items counts as not promoted.
    """
    checks = [
        _noninferior("capability", capability, config.capability_margin, config.confidence),
        _noninferior("persona", persona, config.persona_margin, config.confidence),
        _noninferior("coherence", coherence, config.coherence_margin, config.confidence),
    ]
    if improvement is not None:
        checks.append(_improved(improvement, config.confidence))
    return GateVerdict(all(check.outcome == "pass" for check in checks), checks)


def compare(pair: Paired) -> Comparison:
    """The paired comparison; with strata, the mean of their differences and the error of that mean."""
    if not pair.strata:
        return stats.paired(pair.before, pair.after)
    before, after, strata = np.asarray(pair.before), np.asarray(pair.after), np.asarray(pair.strata)
    names = list(dict.fromkeys(pair.strata))
    return stats.stratified([stats.paired(before[strata == name], after[strata == name]) for name in names])


def _noninferior(name: str, pair: Paired, margin: float, confidence: float) -> GateCheck:
    found = compare(pair)
    outcome = stats.noninferior(found, margin / 100, confidence)
    needed = stats.needed_items(found, margin / 100, confidence)
    low, high = _bounds(found, confidence)
    words = {
        "pass": f"{name}: {_change(found)}, surely not worse by {margin:g} points",
        "fail": f"{name}: {_change(found)}, surely worse by more than {margin:g} points",
        "unresolved": f"{name}: {_change(found)}, which could be worse by {margin:g} points; about {needed} items "
        "would resolve it",
    }
    return GateCheck(name, found.n, found.difference * 100, low, high, margin, outcome, needed, words[outcome])


def _improved(pair: Paired, confidence: float) -> GateCheck:
    found = compare(pair)
    low, high = _bounds(found, confidence)
    outcome: Outcome = "pass" if low > 0 else "fail" if high < 0 else "unresolved"
    words = {"pass": "learned", "fail": "worse than before", "unresolved": "not surely better than before"}
    sentence = f"new skill: {_change(found)}, {words[outcome]}"
    return GateCheck("new skill", found.n, found.difference * 100, low, high, 0.0, outcome, 0, sentence)


def _bounds(found: Comparison, confidence: float) -> tuple[float, float]:
    half = found.bound(confidence)
    return (found.difference - half) * 100, (found.difference + half) * 100


def _change(found: Comparison) -> str:
    return f"{found.difference * 100:+.1f} points (n={found.n})"
