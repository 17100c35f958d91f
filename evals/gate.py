"""The gate: a candidate is promoted only if nothing that matters got worse by more than its margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moltlm.evals import stats
from moltlm.evals.config import GateConfig
from moltlm.evals.stats import Comparison, Outcome


@dataclass(frozen=True)
class Paired:
    """One measure in both states, item by item, on a scale of 0 to 1. `strata` (a benchmark's name for each item)
    weights strata equally, whatever their size."""

    before: Sequence[float]
    after: Sequence[float]
    strata: Sequence[str] = ()


@dataclass(frozen=True)
class GateCheck:
    """`difference`, `low`, `high` (one-sided bounds) and `margin` are in points of 100.

    `needed_n` is about how many items resolve the check with 80% power at this spread: if nothing was truly lost, or,
    where these items already were enough for that, if the difference is truly this one. None where no number does.
    """

    name: str
    n: int
    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    needed_n: int | None
    sentence: str


@dataclass(frozen=True)
class GateVerdict:
    promoted: bool
    checks: list[GateCheck]


def judge(
    capability: Paired, persona: Paired, coherence: Paired, config: GateConfig, improvement: Paired | None = None
) -> GateVerdict:
    """Non-inferiority of each measure, and, where the candidate exists to learn something, that it did.

    What cannot be resolved with these items counts as not promoted. Each check errs at 1 - confidence, one-sided; since
    all must pass, a candidate that is worse in any of them is promoted no more often than that, and no correction for
    their number is due (intersection-union test, Berger 1982).
    """
    checks = [
        _noninferior("capability", capability, config.capability_margin, config.confidence),
        _noninferior("persona", persona, config.persona_margin, config.confidence),
        _noninferior("coherence", coherence, config.coherence_margin, config.confidence),
    ]
    if improvement is not None:
        checks.append(_improved(improvement, config.confidence))
    return GateVerdict(all(check.outcome == "pass" for check in checks), checks)


def compare(pair: Paired, confidence: float = 0.95) -> Comparison:
    """The paired comparison; with strata, the mean of their differences and the error of that mean."""
    if not pair.strata:
        return stats.paired(pair.before, pair.after, confidence)
    if not len(pair.before) == len(pair.after) == len(pair.strata):
        raise ValueError("strata needs one label for each item of both sides")
    before, after, strata = np.asarray(pair.before), np.asarray(pair.after), np.asarray(pair.strata)
    parts = [
        stats.paired(before[strata == name].tolist(), after[strata == name].tolist(), confidence)
        for name in dict.fromkeys(pair.strata)
    ]
    return stats.stratified(parts, confidence)


def _noninferior(name: str, pair: Paired, margin: float, confidence: float) -> GateCheck:
    found = compare(pair, _two_sided(confidence))
    outcome = stats.noninferior(found, margin / 100, confidence)
    needed, case = stats.needed_n(found, margin / 100, confidence), "nothing was truly lost"
    if outcome == "unresolved" and (needed or 0) <= found.n:
        # so many items mostly pass a candidate that lost nothing: take the loss as it looks
        needed, case = _more_than(found, margin / 100, confidence), "the change is truly this"
    words = {
        "pass": f"not worse by {margin:g} points or more, at {confidence:.0%} confidence",
        "fail": f"worse by more than {margin:g} points, at {confidence:.0%} confidence",
        "unresolved": f"which may be worse by {margin:g} points or not; {_remedy(needed, case)}",
    }
    return _check(name, found, margin, outcome, needed, words[outcome], confidence)


def _improved(pair: Paired, confidence: float) -> GateCheck:
    """The new skill must be better than before, by whatever amount."""
    found = compare(pair, _two_sided(confidence))
    outcome: Outcome = "unresolved"
    if abs(found.difference) > found.bound(confidence):
        outcome = "pass" if found.difference > 0 else "fail"
    needed = _more_than(found, 0.0, confidence) if outcome == "unresolved" and found.difference > 0 else None
    words = {
        "pass": f"better than before, at {confidence:.0%} confidence",
        "fail": f"worse than before, at {confidence:.0%} confidence",
        "unresolved": f"which may be no gain; {_remedy(needed, 'the gain is truly this')}",
    }
    return _check("new skill", found, 0.0, outcome, needed, words[outcome], confidence)


def _more_than(found: Comparison, margin: float, confidence: float) -> int | None:
    """Items needed if the true difference is the one found; more than there are, which did not do."""
    needed = stats.needed_n(found, margin, confidence, truth=found.difference)
    return None if needed is None else max(needed, found.n + 1)


def _remedy(needed: int | None, case: str) -> str:
    if needed is None:
        return "as it stands, more items are not expected to resolve it"
    return f"about {needed} items would resolve it if {case}"


def _check(
    name: str, found: Comparison, margin: float, outcome: Outcome, needed: int | None, words: str, confidence: float
) -> GateCheck:
    low, high = ((found.difference + side * found.bound(confidence)) * 100 for side in (-1, 1))
    sentence = f"{name}: {found.difference * 100:+z.1f} points (n={found.n}), {words}"
    return GateCheck(name, found.n, found.difference * 100, low, high, margin, outcome, needed, sentence)


def _two_sided(confidence: float) -> float:
    """The two-sided confidence whose bounds are the one-sided ones of this."""
    return 2 * confidence - 1
