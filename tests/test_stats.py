"""Intervals that cover, gates that err at their nominal rate, verdicts with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evals import gate, hypotheses, stats
from evals.config import GateConfig, HypothesisConfig


def test_paired_intervals_cover_at_their_nominal_rate() -> None:
    """Right/wrong items of two states with 12% discordance and a true difference of -4 points."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1500):
        before = rng.random(200) < 0.5
        lost, gained = before & (rng.random(200) < 0.16), ~before & (rng.random(200) < 0.08)
        after = (before & ~lost) | gained
        found = stats.paired(before.astype(float).tolist(), after.astype(float).tolist())
        covered += found.low <= -0.04 <= found.high
    assert 0.93 <= covered / 1500 <= 0.97


def test_a_gate_at_its_margin_passes_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    passed = sum(
        stats.noninferior(stats.paired(np.zeros(60).tolist(), rng.normal(-0.1, 0.3, 60).tolist()), 0.1) == "pass"
        for _ in range(800)
    )
    assert 0.03 <= passed / 800 <= 0.07


def test_paired_by_hand() -> None:
    found = stats.paired([1, 1, 0, 0, 1], [1, 0, 1, 1, 1])
    assert (found.lost, found.gained, found.difference) == (1, 2, pytest.approx(0.2))
    assert found.p == 1.0  # McNemar, 1 against 2
    assert found.low < found.difference < found.high


def test_order_of_items_changes_nothing_and_swapping_flips_the_sign() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random(40), rng.random(40)
    order = rng.permutation(40)
    one = stats.paired(before.tolist(), after.tolist())
    other = stats.paired(before[order].tolist(), after[order].tolist())
    flipped = stats.paired(after.tolist(), before.tolist())
    assert one.difference == pytest.approx(other.difference)
    assert one.low == pytest.approx(-flipped.high)


def test_no_change_in_a_few_items_is_not_certainty() -> None:
    few, many = stats.paired([1.0] * 5, [1.0] * 5), stats.paired([1.0] * 500, [1.0] * 500)
    assert few.low < -0.1
    assert stats.noninferior(few, 0.05) == "unresolved"
    assert stats.noninferior(many, 0.05) == "pass"


def test_one_value_has_no_interval() -> None:
    assert stats.mean([1.0]).low == -math.inf
    assert stats.detectable(1.0, 1) == math.inf


def test_what_eight_seeds_can_see_agrees_with_the_protocol() -> None:
    """8 x 250 items at sigma .02, discordance .12: about 3.3 points (the protocol's table, by simulation)."""
    spread = math.sqrt(0.02**2 + 0.12 / 250)
    assert 100 * stats.detectable(spread, 8) == pytest.approx(3.4, abs=0.2)


def judged(shift: float, n: int) -> gate.GateVerdict:
    rng = np.random.default_rng(4)
    before = rng.random(n) * 0.2 + 0.7
    after = before + rng.normal(shift, 0.05, n)
    pair = gate.Paired(before.tolist(), after.tolist())
    return gate.judge(pair, pair, pair, GateConfig())


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, "pass"), (-0.3, "fail")])
def test_the_gate_knows_same_from_worse(shift: float, outcome: str) -> None:
    verdict = judged(shift, 100)
    assert {check.outcome for check in verdict.checks} == {outcome}
    assert verdict.promoted == (outcome == "pass")


def test_an_unresolved_gate_does_not_promote_and_says_how_many_items_it_needs() -> None:
    pair = gate.Paired([1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1])
    verdict = gate.judge(pair, pair, pair, GateConfig())
    assert not verdict.promoted
    assert all(check.outcome == "unresolved" and check.needed_n > 6 for check in verdict.checks)
    assert "would resolve it" in verdict.checks[0].sentence


def test_benchmarks_weigh_the_same_whatever_their_size() -> None:
    pair = gate.Paired([1.0] * 110, [1.0] * 100 + [0.0] * 10, ["large"] * 100 + ["small"] * 10)
    assert gate.compare(pair).difference == pytest.approx(-0.5)


def hypothesis(**changes: object) -> HypothesisConfig:
    arm = {"method": "sft", "learning_rate": 1e-4}
    return HypothesisConfig.model_validate(
        {
            "id": "H0",
            "claim": "a keeps more than b",
            "arms": {"a": arm, "b": arm, "k": arm},
            "better": "a",
            "than": ["b"],
            "seeds": list(range(8)),
            "steps": 10,
            "checkpoints": [5, 10],
            "gain_levels": [0.3, 0.5],
            "items": 250,
            **changes,
        }
    )


def grid(truth: dict[str, float], gain: float = 0.8, seeds: int = 8) -> list[dict]:
    """Arms whose accuracy falls by `truth` (points at gain 1) along a straight line, with the noise of 250 items."""
    rng = np.random.default_rng(5)
    rows = []
    for seed in range(seeds):
        draw = rng.random(250)
        for arm, slope in truth.items():
            for step in (5, 10):
                at = gain * step / 10
                level = 0.4 - slope / 100 * at + rng.normal(0, 0.003)
                items = [{"item": i, "correct": int(u < level)} for i, u in enumerate(draw)]
                base = [{"item": i, "correct": int(u < 0.4)} for i, u in enumerate(draw)]
                row = {"arm": arm, "seed": seed, "step": step, "gain": at, "items": items, "base_items": base}
                rows.append({**row, "feasible": True, "learning_rate": 1e-4})
    return rows


@pytest.mark.parametrize(
    ("truth", "outcome"), [({"a": 0.0, "b": 40.0}, "supported"), ({"a": 10.0, "b": 10.0}, "refuted")]
)
def test_verdicts_with_known_truth(truth: dict[str, float], outcome: str) -> None:
    assert hypotheses.judge(hypothesis(), grid(truth)).outcome == outcome


def test_two_seeds_are_inconclusive_and_say_what_could_be_seen() -> None:
    verdict = hypotheses.judge(hypothesis(seeds=[0, 1]), grid({"a": 5.0, "b": 12.0}, seeds=2))
    assert verdict.outcome == "inconclusive"
    assert "could have seen" in verdict.reasons[0]


def test_gain_is_never_extrapolated() -> None:
    verdict = hypotheses.judge(hypothesis(), grid({"a": 0.0, "b": 40.0}, gain=0.1))
    assert verdict.outcome == "inconclusive"
    assert "no common support" in verdict.reasons[0]


def test_a_missing_run_is_named() -> None:
    rows = [row for row in grid({"a": 0.0, "b": 40.0}) if (row["arm"], row["seed"]) != ("b", 3)]
    verdict = hypotheses.judge(hypothesis(), rows)
    assert verdict.outcome == "inconclusive"
    assert "b seed 3" in verdict.reasons[0]


def test_a_control_that_does_not_stand_out_forbids_a_refutation() -> None:
    truth = {"a": 10.0, "b": 10.0, "k": 14.0}
    verdict = hypotheses.judge(hypothesis(positive_control="k"), grid(truth))
    assert verdict.outcome == "inconclusive"
    assert "not sensitive" in verdict.reasons[-1]
    truth["k"] = -30.0
    assert hypotheses.judge(hypothesis(positive_control="k"), grid(truth)).outcome == "refuted"


def test_swapping_the_arms_flips_the_sign() -> None:
    rows = grid({"a": 0.0, "b": 40.0})
    one = hypotheses.judge(hypothesis(), rows).comparisons[0]
    other = hypotheses.judge(hypothesis(better="b", than=["a"]), rows).comparisons[0]
    assert one.difference == pytest.approx(-other.difference)
