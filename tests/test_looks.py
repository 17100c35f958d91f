"""Many looks at one anchor set err together no more often than one look may."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from moltlm.evals import gate, stats
from moltlm.evals.gate import PairedValues
from moltlm.pipeline.config import load
from moltlm.pipeline.service import bundles
from moltlm.pipeline.service.bundles import Bundle, Change

GATE = load("demo").gate
CYCLES, LOSS, RUNS = 12, 2.0, 2000
SPREAD = 0.08
"""Share of answers that differ between two trainings of the demo's personality that are as good as each other."""


def passes(rng: np.random.Generator, loss: float, n: int, margin: float, confidence: float) -> bool:
    """Whether a candidate that truly loses so many points of right or wrong answers is non-inferior."""
    moved = max(SPREAD, loss / 100)
    lost, gained, _ = rng.multinomial(n, [(moved + loss / 100) / 2, (moved - loss / 100) / 2, 1 - moved])
    return decided(int(lost), int(gained), n, margin, confidence)


@cache
def decided(lost: int, gained: int, n: int, margin: float, confidence: float) -> bool:
    rest = [1] * (n - lost - gained)
    values = PairedValues([1] * lost + [0] * gained + rest, [0] * lost + [1] * gained + rest)
    return stats.noninferior(gate.compare(values, 2 * confidence - 1), margin / 100, confidence) == "pass"


def final_loss(rng: np.random.Generator, n: int, is_corrected: bool) -> float:
    """The true loss against the first after all cycles, each candidate of which truly loses `LOSS` points more than
    what is in use, with the margins of the demo."""
    settings, loss, look = GATE, 0.0, 1
    for _ in range(CYCLES):
        confidence = gate.confidence_at(look, settings.confidence) if is_corrected else settings.confidence
        is_like_current = passes(rng, LOSS, n, settings.persona_margin, settings.confidence)
        is_like_first = passes(rng, loss + LOSS, n, settings.anchor_margin, confidence)
        if is_like_current and is_like_first:
            loss += LOSS
        else:
            look += 1
    return loss


@pytest.mark.parametrize("n", [40, 200])
def test_slow_drift_stays_within_the_anchor_margin_over_a_year(n: int) -> None:
    """With 40 prompts as in the demo, and with 200, where candidates near the margin are tried again and again: without
    the correction too many of them come to pass."""
    margin = GATE.anchor_margin
    within = {
        is_corrected: np.mean([final_loss(np.random.default_rng(run), n, is_corrected) < margin for run in range(RUNS)])
        for is_corrected in (True, False)
    }
    assert within[True] >= 0.95
    assert within[True] >= within[False]
    assert n == 40 or within[False] < 0.95


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_all_looks_together_spend_what_one_may(confidence: float) -> None:
    spent = [1 - gate.confidence_at(look, confidence) for look in range(1, 10_000)]
    assert spent == sorted(spent, reverse=True) and spent[0] < 1 - confidence
    assert math.isclose(sum(spent), 1 - confidence, rel_tol=1e-3) and sum(spent) < 1 - confidence
    with pytest.raises(ValueError, match="counted from 1"):
        gate.confidence_at(0, confidence)


def test_a_look_that_was_passed_costs_nothing_and_a_rebaseline_begins_anew() -> None:
    kept_out = Change("t", "keep out", Bundle(), candidate=Bundle({"personality": "p"}))
    promoted = Change("t", "promote", Bundle({"personality": "q"}))
    anchored = Change("t", "rebaseline", Bundle({"personality": "q"}), anchor="q")
    assert bundles.look([]) == bundles.look([promoted]) == 1
    assert bundles.look([promoted, kept_out, promoted, kept_out]) == 3
    assert bundles.look([promoted, kept_out, anchored]) == 1
    assert bundles.look([kept_out, anchored, kept_out]) == 2
