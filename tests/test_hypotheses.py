"""Verdicts with known truth, at equal gain, never beyond what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from checkpoints import NATS, checkpoint
from pydantic import ValidationError

from moltlm.data.errors import MoltError
from moltlm.evals import hypotheses, stats
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.records import AnswerRecord, BasePoint, CheckpointRecord, ItemRecord
from moltlm.evals.trajectories import trajectories


def hypothesis(**changes: object) -> HypothesisConfig:
    arm = {"method": "sft", "learning_rate": 1e-4}
    return HypothesisConfig.model_validate(
        {
            "id": "H0",
            "claim": "a keeps more than b",
            "arms": {"a": arm, "b": arm, "c": arm, "k": arm},
            "better": "a",
            "than": ["b"],
            "seeds": list(range(8)),
            "steps": 10,
            "checkpoints": [5, 10],
            "gain_levels": [0.3, 0.5],
            **changes,
        }
    )


def row(
    arm: str, seed: int, step: int, gain: float, correct: Any, base: Any, feasible: bool = True
) -> CheckpointRecord:
    return checkpoint(
        arm=arm,
        seed=seed,
        step=step,
        gain=gain,
        feasible=feasible,
        correct=correct,
        base_correct=base,
        kl=None,
        cross_entropy=None,
    )


def grid(
    truth: dict[str, float], gain: float | dict[str, float] = 0.8, seeds: int = 8, noise: float = 0.01
) -> list[CheckpointRecord]:
    """Arms that lose `truth` points by gain 1, along a straight line, and reach `gain` at the last step."""
    rng, rows = np.random.default_rng(5), []
    for seed in range(seeds):
        draw = rng.random(120)
        for arm, slope in truth.items():
            own = rng.normal(0, noise)
            for step in (5, 10):
                at = (gain[arm] if isinstance(gain, dict) else gain) * step / 10
                rows.append(row(arm, seed, step, at, draw < 0.4 - slope / 100 * at + own, draw < 0.4))
    return rows


def two_items(gains: list[float], scores: list[tuple[int, int]], arm: str = "a") -> list[CheckpointRecord]:
    """One seed, two items, both right in the base; steps 5, 10, ..."""
    return [row(arm, 0, 5 * (i + 1), *each, [1, 1]) for i, each in enumerate(zip(gains, scores, strict=True))]


@pytest.mark.parametrize(
    ("truth", "outcome", "words"),
    [
        ({"a": 0.0, "b": 40.0}, "supported", "better"),
        ({"a": 10.0, "b": 10.0}, "refuted", "any advantage is below 0.3"),
        ({"a": 40.0, "b": 0.0}, "refuted", "any advantage is below 0.3"),
    ],
)
def test_verdicts_with_known_truth(truth: dict[str, float], outcome: str, words: str) -> None:
    verdict = hypotheses.judge(hypothesis(), grid(truth))
    assert verdict.outcome == outcome
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(
    ("measured", "sentence"),
    [
        ([], "The records have no second axis and no composite, which could have contradicted this."),
        (["second"], "The records have no composite, which could have contradicted this."),
        (["second", "composite"], None),
    ],
)
def test_a_support_says_which_measures_could_not_contradict_it(measured: list[str], sentence: str | None) -> None:
    rows = []
    for each in grid({"a": 0.0, "b": 40.0}):
        several = (1 + each.seed / 100 if each.arm == "a" else 0.0) if each.step == 10 else None
        values = {"second": each.gain, "composite": several}
        rows.append(replace(each, **{name: values[name] for name in measured}))
    verdict = hypotheses.judge(hypothesis(), rows)
    lacking = [reason for reason in verdict.reasons if reason.startswith("The records have no")]
    assert (verdict.outcome, lacking) == ("supported", [sentence] if sentence else [])


def test_noisy_seeds_are_inconclusive_and_say_what_could_be_seen() -> None:
    verdict = hypotheses.judge(hypothesis(), grid({"a": 5.0, "b": 10.0}, noise=0.06))
    found = verdict.comparisons[0]
    assert verdict.outcome == "inconclusive"
    assert found.detectable == pytest.approx(stats.detectable(float(np.std(found.values, ddof=1)), 8))
    assert f"not decided. With 80% power {found.detectable:.2f} could have been seen" in verdict.reasons[0]


def test_the_margin_and_confidence_of_the_file_decide() -> None:
    rows = grid({"a": 0.0, "b": 15.0})
    assert [hypotheses.judge(hypothesis(margin=m), rows).outcome for m in (0.3, 0.9)] == ["supported", "refuted"]
    narrow, wide = (hypotheses.judge(hypothesis(confidence=c), rows).comparisons[0] for c in (0.8, 0.99))
    assert wide.low < narrow.low


def test_the_interval_is_students_over_seeds() -> None:
    found = hypotheses.judge(hypothesis(), grid({"a": 5.0, "b": 10.0}, noise=0.03)).comparisons[0]
    expected = stats.mean(found.values)
    assert (found.difference, found.low, found.high) == (expected.mean, expected.low, expected.high)
    assert (found.items, found.seeds, found.detectable_from) == (120, list(range(8)), "seeds")


def test_scores_are_interpolated_in_gain_item_by_item() -> None:
    """At gain .3, half-way from .2 to .4: a is (1, .5), b at its checkpoint (0, 1)."""
    rows = two_items([0.2, 0.4], [(1, 1), (1, 0)]) + two_items([0.3, 0.6], [(0, 1), (0, 0)], "b")
    found = hypotheses.judge(hypothesis(seeds=[0], gain_levels=[0.3]), rows).comparisons[0]
    assert found.values == [pytest.approx(NATS * (0.75 - 0.5))]
    assert found.naive.difference == pytest.approx(NATS * (0.5 - 0.0))
    # and at .1, half-way from the base
    found = hypotheses.judge(hypothesis(seeds=[0], gain_levels=[0.1, 0.3]), rows).comparisons[0]
    assert found.values == [pytest.approx(NATS * (1 + 0.75 - (1 - 0.5 / 3) - 0.5) / 2)]


def test_gain_that_falls_back_is_made_monotone_and_its_checkpoints_averaged() -> None:
    """Gains .5 then .3 are .4 twice: scores (1, 1) and (0, 0) average to a half."""
    rows = two_items([0.5, 0.3, 0.8], [(1, 1), (0, 0), (0, 0)]) + two_items([0.4, 0.6, 0.8], [(1, 1)] * 3, "b")
    verdict = hypotheses.judge(hypothesis(seeds=[0], gain_levels=[0.4], checkpoints=[5], steps=15), rows)
    assert verdict.comparisons[0].values == [pytest.approx(-NATS / 2)]


def test_matching_gain_undoes_what_the_naive_comparison_credits_to_learning_less() -> None:
    """Both arms lose 20 points a unit of gain, but a ends at half the gain of b."""
    verdict = hypotheses.judge(hypothesis(), grid({"a": 20.0, "b": 20.0}, {"a": 0.6, "b": 1.2}))
    assert verdict.comparisons[0].naive.low > 0.3
    assert verdict.outcome == "refuted"


def test_gain_is_never_extrapolated() -> None:
    verdict = hypotheses.judge(hypothesis(), grid({"a": 0.0, "b": 40.0}, gain=0.1))
    assert (verdict.outcome, verdict.gain_levels) == ("inconclusive", [])
    assert "no common support" in verdict.reasons[0]
    found = verdict.comparisons[0]
    assert (found.values, found.low, found.high) == ([], -math.inf, math.inf)
    assert math.isfinite(found.naive.difference)


def test_a_level_that_one_run_misses_is_dropped_from_its_comparison() -> None:
    rows = [replace(each, gain=0.04 * each.step) if each.seed == 2 else each for each in grid({"a": 0.0, "b": 40.0})]
    verdict = hypotheses.judge(hypothesis(), rows)
    assert (verdict.outcome, verdict.gain_levels) == ("supported", [0.3])
    assert "Gain 0.5 is left out: a seed 2 reaches only 0.40." in verdict.reasons[0]


def test_an_arm_that_learns_nothing_voids_no_other_comparison() -> None:
    rows = grid({"a": 0.0, "b": 40.0, "c": 40.0}, {"a": 0.8, "b": 0.8, "c": 0.1})
    verdict = hypotheses.judge(hypothesis(than=["b", "c"]), rows)
    assert [found.gain_levels for found in verdict.comparisons] == [[0.3, 0.5], []]
    assert [found.outcome for found in verdict.comparisons] == ["supported", "inconclusive"]
    assert verdict.outcome == "inconclusive"
    assert "a - c: no common support" in verdict.reasons[1]


def test_what_is_reached_incoherently_is_not_reached() -> None:
    rows = grid({"a": 0.0, "b": 40.0})
    rows = [replace(each, feasible=(each.arm, each.seed, each.step) != ("b", 1, 10)) for each in rows]
    verdict = hypotheses.judge(hypothesis(), rows)
    assert verdict.gain_levels == [0.3]
    assert any("incoherent" in reason and "b seed 1 at step 10" in reason for reason in verdict.reasons)


def test_missing_runs_and_checkpoints_are_named() -> None:
    rows = grid({"a": 0.0, "b": 40.0})
    gone = [each for each in rows if (each.arm, each.seed) != ("b", 3) and (each.seed, each.step) != (4, 10)]
    verdict = hypotheses.judge(hypothesis(), gone)
    assert (verdict.outcome, verdict.comparisons) == ("inconclusive", [])
    assert verdict.reasons == ["Runs are missing: a seed 4 at step 10, b seed 3, b seed 4 at step 10."]
    assert hypotheses.judge(hypothesis(), []).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("slope", "outcome", "words"), [(10.0, "inconclusive", "not sensitive"), (-30.0, "refuted", "stands out")]
)
def test_a_control_must_stand_out_for_a_refutation(slope: float, outcome: str, words: str) -> None:
    verdict = hypotheses.judge(hypothesis(positive_control="k"), grid({"a": 10.0, "b": 10.0, "k": slope}))
    assert verdict.outcome == outcome
    assert any(words in reason for reason in verdict.reasons)
    assert verdict.control and (verdict.control.better, verdict.control.than) == ("k", "b")


def test_a_control_that_learns_too_little_lets_nothing_be_refuted() -> None:
    rows = grid({"a": 10.0, "b": 10.0, "k": 0.0}, gain={"a": 0.8, "b": 0.8, "k": 0.2})
    verdict = hypotheses.judge(hypothesis(positive_control="k"), rows)
    assert verdict.outcome == "inconclusive" and "nan" not in " ".join(verdict.reasons)
    assert "The positive control, k - b, has no common support, so nothing can be refuted." in verdict.reasons[0]


def test_without_runs_of_the_control_nothing_is_refuted_but_may_be_supported() -> None:
    even, apart = grid({"a": 10.0, "b": 10.0}), grid({"a": 0.0, "b": 40.0})
    refuted, supported = (hypotheses.judge(hypothesis(positive_control="k"), rows) for rows in (even, apart))
    assert refuted.outcome == "inconclusive"
    assert "control lacks runs (k seed 0" in refuted.reasons[0]
    assert supported.outcome == "supported"


@pytest.mark.parametrize(("c", "outcome"), [(40.0, "supported"), (0.0, "refuted")])
def test_a_claim_against_several_needs_all_and_falls_with_any(c: float, outcome: str) -> None:
    verdict = hypotheses.judge(hypothesis(than=["b", "c"]), grid({"a": 0.0, "b": 40.0, "c": c}))
    assert [found.than for found in verdict.comparisons] == ["b", "c"]
    assert verdict.comparisons[0].outcome == "supported"
    assert verdict.outcome == outcome


def test_an_arm_beside_is_compared_by_what_its_own_base_lost_and_decides_nothing() -> None:
    """Its base is ten points worse, and it forgets twenty points more."""
    whole = grid({"a": 10.0, "b": 40.0, "k": 30.0})
    rows, own = ([row for row in whole if (row.arm == "k") is beside] for beside in (False, True))

    def wrong(items: list[ItemRecord]) -> list[ItemRecord]:
        right = [item.correct if place % 10 else 0 for place, item in enumerate(items)]
        return [replace(item, correct=one, logprob=NATS * one) for item, one in zip(items, right, strict=True)]

    own = [replace(each, items=wrong(each.items), base_items=wrong(each.base_items)) for each in own]
    alone, both = hypotheses.judge(hypothesis(), rows), hypotheses.judge(hypothesis(beside=["k"]), [*rows, *own])
    assert (alone.outcome, alone.comparisons) == (both.outcome, both.comparisons)
    found = both.beside[0]
    # at a gain of .4, and without the tenth of the items, which its base fails too
    assert found.low < NATS / 100 * 0.4 * (0.9 * 30 - 10) < found.high < 1
    assert any("deciding nothing: a - k" in reason for reason in both.reasons)
    assert hypotheses.judge(hypothesis(beside=["k"]), rows).beside == []


def test_one_seed_decides_nothing_and_says_what_its_items_could_have_seen() -> None:
    verdict = hypotheses.judge(hypothesis(seeds=[0]), grid({"a": 0.0, "b": 40.0}))
    found = verdict.comparisons[0]
    assert (verdict.outcome, found.low, found.high) == ("inconclusive", -math.inf, math.inf)
    assert found.detectable_from == "items"
    assert 0 < found.detectable < 3
    assert "one seed of 120 items, no interval" in verdict.reasons[0] and "too few seeds" in verdict.reasons[0]


def test_seeds_that_agree_exactly_are_not_certain() -> None:
    """Two seeds whose 20 items never change differ by 0 twice: that is no proof that nothing can."""
    rows = [row(arm, seed, step, step / 10, [1] * 20, [1] * 20) for arm in "ab" for seed in (0, 1) for step in (5, 10)]
    verdict = hypotheses.judge(hypothesis(seeds=[0, 1]), rows)
    found = verdict.comparisons[0]
    assert (verdict.outcome, found.values, found.detectable_from) == ("inconclusive", [0, 0], "items")
    assert found.high > 0.3


@pytest.mark.parametrize(("seeds", "outcome"), [(2, "inconclusive"), (3, "inconclusive"), (8, "supported")])
def test_identical_seeds_are_as_uncertain_as_their_items_and_few_decide_nothing(seeds: int, outcome: str) -> None:
    """Every seed says the same of 120 items: b loses a tenth of them. Seeds show no spread, so the items' own counts."""
    right, lost = [1] * 120, [0] * 12 + [1] * 108
    rows = [
        row(arm, seed, step, step / 10, lost if arm == "b" else right, right)
        for arm in "ab"
        for seed in range(seeds)
        for step in (5, 10)
    ]
    rows = [_of_items_of_their_own(each) for each in rows]
    verdict = hypotheses.judge(hypothesis(seeds=list(range(seeds)), gain_levels=[0.5]), rows)
    found = verdict.comparisons[0]
    assert (verdict.outcome, found.detectable_from) == (outcome, "items")
    assert found.values == pytest.approx([NATS / 10] * seeds)
    spread = NATS * math.sqrt(0.1 * 0.9 / (120 * seeds))
    assert found.high - found.difference > spread and found.detectable > 2 * spread
    assert ("too few seeds" in verdict.reasons[0]) is (seeds < 4)


def _of_items_of_their_own(record: CheckpointRecord) -> CheckpointRecord:
    def renamed(items: list[ItemRecord]) -> list[ItemRecord]:
        return [replace(one, item=f"{record.seed}:{one.item}") for one in items]

    return replace(record, items=renamed(record.items), base_items=renamed(record.base_items))


def test_the_interval_over_few_seeds_and_items_covers_the_truth() -> None:
    """Four seeds of 40 items, with and without an effect of the seed: 95 in 100 intervals hold the truth, less the chance of 400."""
    rng = np.random.default_rng(2)
    for of_seed in (0.0, 0.3):
        covered = 0
        for _ in range(400):
            blocks = [1.0 + rng.normal(0, of_seed) + rng.normal(0, 1, 40) for _ in range(4)]
            error, _ = stats.seed_or_item_error(blocks, list(range(160)))
            found = stats.seed_interval([float(block.mean()) for block in blocks], error)
            covered += found.low <= 1.0 <= found.high
        assert covered / 400 > 0.93


def test_prompts_that_disagree_widen_the_interval() -> None:
    """Seeds agree, but where gains are equal hangs on a few of the prompts that all of them share."""
    file = hypothesis(gain_levels=[0.3], axis="persona")
    alike, apart = (_with_prompts(scores) for scores in ([0.5] * 20, [1.0] * 5 + [1 / 3] * 15))
    steady, hung = (hypotheses.judge(file, rows).comparisons[0] for rows in (alike, apart))
    assert steady.difference == pytest.approx(hung.difference)
    assert hung.high - hung.low > 1.05 * (steady.high - steady.low)


def _with_prompts(scores: list[float]) -> list[CheckpointRecord]:
    """Arm a gains the same on all prompts and b by `scores`, both 0.5 in the mean at the last step."""
    rows = []
    for each in grid({"a": 0.0, "b": 40.0}, gain=0.5):
        gains = [each.step / 10 * (0.5 if each.arm == "a" else score) for score in scores]
        answers = [
            AnswerRecord(id=str(place), answer="", score=gain, coherent=True) for place, gain in enumerate(gains)
        ]
        plain = {name: getattr(each, name) for name in ("likelihood", "likelihoods", "persona", "coherent")}
        base = BasePoint(**plain, answers=[replace(one, score=0.0) for one in answers], items=each.base_items)
        rows.append(replace(each, answers=answers, base=base))
    return rows


def test_the_other_axis_is_compared_where_it_rises() -> None:
    """Held-out likelihood rises to .6 and falls to -.2, while a loses twice as much on the way. Pooled over the whole
    training, both arms would sit on one level and look alike."""
    rows = []
    for arm, slope in (("a", 0.2), ("b", 0.1)):
        for seed in range(8):
            for step, second in ((5, 0.6), (10, -0.2)):
                right = [place >= slope * step * 10 / 10 * 10 for place in range(100)]
                rows.append(replace(row(arm, seed, step, step / 10, right, [1] * 100), second=second))
    found = hypotheses.judge(hypothesis(axis="persona"), rows).comparisons[0].second
    assert found is not None
    # at a half of .6 on average, a has lost 5 of 100 items and b 2.5
    assert found.difference == pytest.approx(-NATS * 0.025)


def test_drift_starts_at_the_base_and_nothing_is_clamped() -> None:
    """KL grows by .4 and .2 a unit of gain from 0 at the base: at .3 and .5 that is .16 and .08."""
    rows = []
    for each in grid({"a": 0.0, "b": 0.0}):
        kl = (0.4 if each.arm == "a" else 0.2) * each.gain
        plain = {name: getattr(each, name) for name in ("likelihood", "likelihoods", "persona", "coherent", "answers")}
        base = BasePoint(**plain, items=each.base_items, kl=0.0, cross_entropy=1.0)
        rows.append(replace(each, kl=kl, cross_entropy=1.0 + 2 * kl, base=base))
    found = {one.measure: one for one in hypotheses.judge(hypothesis(), rows).comparisons[0].others}
    assert found["kl"].difference == pytest.approx(0.4 * 0.4 - 0.2 * 0.4)
    assert found["cross_entropy"].difference == pytest.approx(2 * (0.4 * 0.4 - 0.2 * 0.4))
    run = next(iter(trajectories(rows, "likelihood").values()))
    with pytest.raises(ValueError, match="does not reach"):
        run.change("kl", [run.top + 0.1])


def test_a_level_that_is_left_out_is_named_wherever_its_comparison_is() -> None:
    rows = grid({"a": 0.0, "b": 40.0, "c": 40.0, "k": -40.0}, {"a": 0.8, "b": 0.8, "c": 0.4, "k": 0.4})
    verdict = hypotheses.judge(hypothesis(positive_control="k", beside=["c"]), rows)
    named = [reason for reason in verdict.reasons if "Gain 0.5 is left out" in reason]
    assert len(named) == 2 and any("k seed" in one for one in named) and any("c seed" in one for one in named)


def test_a_rate_is_not_passed_over_for_a_level_that_it_does_not_reach() -> None:
    """The low rate stops at .6 and keeps all; the high rate reaches .9 and loses. They meet at .3 and .5."""
    low, high = (grid({"a": slope}, gain) for slope, gain in ((0.0, 0.6), (40.0, 0.9)))
    file = hypothesis(gain_levels=[0.3, 0.5, 0.8])
    results = hypotheses.tuning_results(file, [low, high])
    assert [one.gain_levels for one in results] == [[0.3, 0.5], [0.3, 0.5, 0.8]]
    assert hypotheses.best(results) == 0
    values = hypotheses.at_common_levels(results)
    assert values[1] == pytest.approx(np.mean(results[1].logprob[:2])) and values[0] is not None
    short = hypotheses.tuning_results(file, [grid({"a": 0.0}, 0.1), high])
    assert hypotheses.best(short) == 1 and hypotheses.at_common_levels(short)[0] is None


def test_the_order_of_records_and_items_changes_nothing() -> None:
    rows, rng = grid({"a": 0.0, "b": 12.0}), np.random.default_rng(9)
    mixed = [replace(each, items=[each.items[i] for i in rng.permutation(120)]) for each in rows]
    shuffled = [mixed[i] for i in rng.permutation(len(mixed))]
    assert asdict(hypotheses.judge(hypothesis(), shuffled)) == asdict(hypotheses.judge(hypothesis(), rows))


def test_swapping_the_arms_flips_the_sign() -> None:
    rows = grid({"a": 0.0, "b": 40.0})
    one = hypotheses.judge(hypothesis(), rows).comparisons[0]
    other = hypotheses.judge(hypothesis(better="b", than=["a"]), rows).comparisons[0]
    assert (one.difference, one.low) == pytest.approx((-other.difference, -other.high))


def test_arms_that_saw_other_items_are_not_compared() -> None:
    other = [replace(each, items=each.items[1:], base_items=each.base_items[1:]) for each in grid({"b": 1.0})]
    with pytest.raises(MoltError, match="same items"):
        hypotheses.judge(hypothesis(), grid({"a": 1.0}) + other)
    with pytest.raises(MoltError, match="base's items"):
        hypotheses.judge(hypothesis(), [replace(each, items=each.items[1:]) for each in grid({"a": 1.0, "b": 1.0})])


def test_the_verdict_is_plain_json_with_every_curve_from_the_base() -> None:
    verdict = hypotheses.judge(hypothesis(positive_control="k"), grid({"a": 0.0, "b": 40.0, "k": 0.0}))
    assert json.loads(json.dumps(asdict(verdict), allow_nan=False)) == asdict(verdict)
    assert [(curve.arm, curve.seed) for curve in verdict.curves] == [(arm, seed) for arm in "abk" for seed in range(8)]
    assert [(at.step, at.gain) for at in verdict.curves[0].points] == [(0, 0), (5, 0.4), (10, 0.8)]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seeds": [1, 1, 1, 1]}, "1 is named twice"),
        ({"gain_levels": [0.0, 0.3]}, "greater than 0"),
        ({"gain_levels": [0.3, 0.3]}, "0.3 is named twice"),
        ({"than": ["a"]}, "not compared with itself"),
        ({"than": ["b"], "positive_control": "b"}, "it is another arm"),
        ({"axis": "persona", "prompts": 1}, "has no error"),
    ],
)
def test_a_hypothesis_that_would_count_or_compare_nothing_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        hypothesis(**changes)


def overfitted(a: int, b: int) -> list[CheckpointRecord]:
    """Likelihood that rises to .6 and falls to .3, in arms that have lost `a` and `b` items of 120 at the first step; both
    have lost 40 at the second."""
    rng, rows = np.random.default_rng(7), []
    for seed in range(8):
        for arm, lost in (("a", a), ("b", b)):
            for step, gain, gone in ((5, 0.6, lost), (10, 0.3, 40)):
                right = np.ones(120, int)
                right[rng.choice(120, gone, replace=False)] = 0
                rows.append(row(arm, seed, step, gain, right, [1] * 120))
    return rows


def test_what_comes_after_the_peak_of_likelihood_says_nothing() -> None:
    verdict = hypotheses.judge(hypothesis(), overfitted(0, 20))
    assert verdict.outcome == "supported" and "at equal gain of likelihood" in verdict.reasons[0]
    (item,) = verdict.comparisons
    assert item.difference == pytest.approx(NATS * 20 / 120 * np.mean([0.3, 0.5]) / 0.6)


def test_a_measure_that_does_not_move_decides_nothing() -> None:
    still = [
        row(arm, seed, step, 0.8 * step / 10, [0] * 20, [0] * 20)
        for arm in "ab"
        for seed in range(8)
        for step in (5, 10)
    ]
    verdict = hypotheses.judge(hypothesis(), still)
    assert verdict.outcome == "inconclusive" and "hardly any item changed" in verdict.reasons[0]
    assert not any(word in " ".join(verdict.reasons) for word in ("inf", "nan"))


def test_a_checkpoint_with_a_measure_that_is_no_number_is_infeasible() -> None:
    rows = grid({"a": 0.0, "b": 40.0})
    broken = replace(rows[0], items=[replace(item, logprob=math.nan) for item in rows[0].items])
    verdict = hypotheses.judge(hypothesis(), [broken, *rows[1:]])
    assert verdict.outcome == "supported"
    assert "something that was measured is no number: a seed 0 at step 5." in verdict.reasons[-1]
    assert not any(word in " ".join(verdict.reasons) for word in ("inf ", "nan"))


def test_an_arm_beside_that_lacks_runs_is_named() -> None:
    rows = [each for each in grid({"a": 0.0, "b": 40.0, "c": 10.0}) if (each.arm, each.seed) != ("c", 2)]
    verdict = hypotheses.judge(hypothesis(beside=["c"]), rows)
    assert "For information, runs are missing: c seed 2." in verdict.reasons


def test_an_unusual_confidence_is_said() -> None:
    rows = grid({"a": 5.0, "b": 13.0}, noise=0.08)
    assert "60% interval" in hypotheses.judge(hypothesis(confidence=0.6), rows).reasons[0]
    assert "interval" not in hypotheses.judge(hypothesis(), rows).reasons[0]
