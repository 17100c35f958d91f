"""Intervals that cover, tests by hand, nothing certain from a handful of items."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.evals import stats

RIGHT_OR_WRONG = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


def unchanged(n: int) -> stats.Comparison:
    return stats.paired([1.0] * n, [1.0] * n)


def drawn(rng: np.random.Generator, n: int, lost: float, gained: float) -> tuple[list[float], list[float]]:
    """n right/wrong items, half of them right before, of which these shares of n are lost and gained."""
    before, luck = rng.random(n) < 0.5, rng.random(n)
    after = np.where(before, luck >= 2 * lost, luck < 2 * gained)
    return before.astype(float).tolist(), after.astype(float).tolist()


def test_paired_intervals_cover_at_their_nominal_rate() -> None:
    """12% discordance, a true difference of -4 points, 1500 times: a standard error of .006."""
    rng = np.random.default_rng(1)
    found = [stats.paired(*drawn(rng, 200, 0.08, 0.04)) for _ in range(1500)]
    assert 0.93 <= np.mean([one.low <= -0.04 <= one.high for one in found]) <= 0.97


def test_intervals_over_seeds_cover_at_their_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    found = [stats.seed_difference(rng.normal(2, 3, 5).tolist()) for _ in range(2000)]
    assert 0.93 <= np.mean([one.low <= 2 <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("n", [2, 3, 8])
def test_what_is_detectable_is_seen_four_times_in_five(n: int) -> None:
    """statsmodels' own two-sided solution is silently wrong here for n=2 (10 for 57.7)."""
    values = np.random.default_rng(3).normal(stats.detectable(2.0, n, 0.99), 2.0, (40_000, n))
    t = values.mean(1) / values.std(1, ddof=1) * math.sqrt(n)
    critical = {2: 63.657, 3: 9.925, 8: 3.499}[n]  # Student's table, two-sided .01
    assert np.mean(np.abs(t) > critical) == pytest.approx(0.8, abs=0.01)


def test_what_eight_seeds_can_see_agrees_with_the_protocol() -> None:
    """8 x 250 items at sigma .02, discordance .12: about 3.3 points (the protocol's table, by simulation)."""
    spread = math.sqrt(0.02**2 + 0.12 / 250)
    assert 100 * stats.detectable(spread, 8) == pytest.approx(3.4, abs=0.2)


def test_a_paired_comparison_sees_what_its_spread_allows() -> None:
    found = stats.paired([0, 1, 1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 0, 0, 1])
    sd = float(np.std([1, 0, -1, 0, 0, -1, 0, 0], ddof=1))
    assert found.detectable == pytest.approx(stats.detectable(sd, 8))


def test_by_hand() -> None:
    half = stats.proportion(5, 10)
    assert (half.low, half.high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    three = stats.mean([1, 2, 3])
    assert (three.mean, three.high) == (2, pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4))
    found = stats.paired([1, 1, 0, 0, 1], [1, 0, 1, 1, 1])
    assert (found.lost, found.gained, found.difference) == (1, 2, pytest.approx(0.2))
    # differences 0 -1 1 1 0: sd sqrt(.7), t(4) = 2.7764
    assert found.bound(0.975) == pytest.approx(2.7764 * math.sqrt(0.7 / 5), abs=1e-4)
    assert (found.low, found.high) == (pytest.approx(0.2 - found.bound(0.975)), 1.0)  # no score changes by more


def test_p_values_by_hand() -> None:
    mcnemar = stats.paired([1] + [0] * 8 + [1] * 20, [0] + [1] * 28)
    assert mcnemar.p == pytest.approx(2 * (1 + 9) / 2**9)
    assert stats.paired([0.1] * 5, [0.2, 0.3, 0.4, 0.5, 0.6]).p == pytest.approx(2 / 32)
    assert unchanged(9).p == 1


@settings(max_examples=60, deadline=None)
@given(RIGHT_OR_WRONG, st.randoms(use_true_random=False))
def test_order_changes_nothing_and_swapping_flips_the_sign(items: list[tuple[int, int]], random: Random) -> None:
    shuffled = random.sample(items, len(items))
    one = stats.paired([a for a, _ in items], [b for _, b in items])
    other = stats.paired([a for a, _ in shuffled], [b for _, b in shuffled])
    flipped = stats.paired([b for _, b in items], [a for a, _ in items])
    assert asdict(other) == pytest.approx(asdict(one))
    assert (flipped.difference, flipped.low, flipped.p) == pytest.approx((-one.difference, -one.high, one.p))
    assert (flipped.lost, flipped.gained) == (one.gained, one.lost)


def test_order_changes_no_permutation_p_value() -> None:
    rng = np.random.default_rng(4)
    before, after, order = rng.random(40), rng.random(40), rng.permutation(40)
    one, other = (
        stats.paired(before.tolist(), after.tolist()),
        stats.paired(before[order].tolist(), after[order].tolist()),
    )
    assert one.p == other.p


@settings(max_examples=60, deadline=None)
@given(RIGHT_OR_WRONG, st.integers(2, 4))
def test_copies_of_an_item_in_one_cluster_add_nothing(items: list[tuple[int, int]], copies: int) -> None:
    before, after = [a for a, _ in items], [b for _, b in items]
    labels = [str(i) for i in range(len(items))] * copies
    clustered = stats.paired(before * copies, after * copies, clusters=labels)
    assert asdict(clustered) == pytest.approx(asdict(stats.paired(before, after)))


def test_clusters_are_averaged() -> None:
    found = stats.paired([1, 1, 1, 1], [1, 0, 0, 0], clusters=["a", "a", "a", "b"])
    assert (found.n, found.difference) == (2, pytest.approx((-2 / 3 - 1) / 2))


@pytest.mark.parametrize("n", [1, 5, 60, 500])
def test_no_change_in_n_items_bounds_the_change_there_may_be(n: int) -> None:
    """The true share of changed items for which seeing none has a chance of 2.5%; one-sided, the rule of three."""
    assert unchanged(n).high == pytest.approx(1 - 0.025 ** (1 / n))
    assert unchanged(n).low == -unchanged(n).high
    assert stats.paired([1.0] * n, [1.0] * n, 0.9).bound(0.95) == pytest.approx(1 - 0.05 ** (1 / n))


def test_a_few_items_without_change_resolve_nothing() -> None:
    assert stats.noninferior(unchanged(5), 0.05) == "unresolved"
    assert stats.noninferior(unchanged(500), 0.05) == "pass"
    rounding = stats.paired([0.8, 0.9, 0.7], [0.7, 0.8, 0.6])  # equal but for the last bit
    assert rounding.high - rounding.low > 0.5


@pytest.mark.parametrize("jitter", [0.0, 0.001, 0.008])
def test_slight_changes_do_not_show_that_large_ones_are_rare(jitter: float) -> None:
    """A twentieth and more of the prompts loses .8: items that happen to hold none of these, or one, pass no gate."""
    slight = [jitter * (-1) ** k for k in range(20)]
    for lost in (0, 1):
        before = [0.8] * 20
        after = [score - 0.8 if k < lost else score + slight[k] for k, score in enumerate(before)]
        assert stats.noninferior(stats.paired(before, after), 0.05) != "pass"


def test_a_slight_change_of_every_item_is_seen() -> None:
    assert stats.paired([0.5] * 30, [0.52 + 0.001 * (k % 3) for k in range(30)]).low > 0.02


def test_a_measure_without_bounds_that_does_not_move_tells_nothing() -> None:
    """Nats have no largest change, so nothing follows from seeing none."""
    still = [np.zeros(8)] * 4
    assert stats.seed_or_item_error(still, range(32), bounded=False)[0] == math.inf
    assert stats.seed_or_item_error(still, range(32))[0] < 1


def test_equal_scores_leave_room_for_others() -> None:
    none, all_of_it, half = (stats.score([value] * 8) for value in (0.0, 1.0, 0.5))
    unseen = stats.proportion_confint(0, 8, method="beta")[1]
    assert (none.low, none.high) == (0.0, pytest.approx(unseen)) and (all_of_it.low, all_of_it.high) == (
        pytest.approx(1 - unseen),
        1.0,
    )
    assert half.high - 0.5 == pytest.approx(0.5 - half.low) == pytest.approx(unseen / 2)


def test_all_items_changed_alike_is_no_certainty_either() -> None:
    found = stats.paired([0.0] * 10, [1.0] * 10)
    assert found.difference == 1
    assert found.low < 0.5


def test_right_or_wrong_items_that_move_one_way_get_the_exact_bound() -> None:
    """3 of 30 lost: Clopper and Pearson's upper end solves P(X <= 3) = .025, which is .2653."""
    found = stats.paired([1.0] * 30, [0.0] * 3 + [1.0] * 27)
    assert found.low == pytest.approx(-0.2653, abs=1e-4)
    both = stats.paired([1.0] * 30 + [0.0], [0.0] * 3 + [1.0] * 28)
    assert both.error == pytest.approx(float(np.std([-1] * 3 + [0] * 27 + [1], ddof=1)) / math.sqrt(31))


def test_bounds_of_scores_stay_between_nothing_and_all() -> None:
    """Six scores near the top: Student's interval reaches beyond 1, and no score can."""
    values = [1.0, 0.98, 0.97, 0.6, 0.95, 0.25]
    assert (
        stats.mean(values).high > 1 >= stats.score(values).high and stats.score(values).mean == stats.mean(values).mean
    )
    assert stats.score(values).low == stats.mean(values).low
    assert (stats.score([0.5]).low, stats.score([0.5]).high) == (0.0, 1.0)


def test_one_value_has_no_interval() -> None:
    assert (stats.mean([1.0]).low, stats.seed_difference([1.0], item_error=0.1).high) == (-math.inf, math.inf)
    assert stats.detectable(1.0, 1) == unchanged(1).detectable == math.inf


def test_seeds_that_agree_exactly_are_as_uncertain_as_their_items() -> None:
    assert stats.seed_difference([0.0, 0.0]).low == -math.inf
    found = stats.seed_difference([1.0, 1.0, 1.0], item_error=0.5)
    assert found.high == pytest.approx(1 + 4.3027 * 0.5, abs=1e-3)
    assert stats.seed_difference([1.0, 2.0], item_error=99) == stats.mean([1.0, 2.0])


def test_strata_weigh_the_same_and_their_errors_add_in_squares() -> None:
    parts = [stats.paired([1, 1, 0, 0, 1], [1, 0, 1, 1, 1]), stats.paired([1] * 6 + [0] * 6, [0] + [1] * 6 + [0] * 5)]
    found = stats.stratified(parts)
    assert found.difference == pytest.approx((0.2 + 0) / 2)
    first, second = (part.error**2 for part in parts)
    assert found.error == pytest.approx(math.sqrt(first + second) / 2)
    assert found.df == pytest.approx((first + second) ** 2 / (first**2 / 4 + second**2 / 11))
    assert asdict(stats.stratified(parts[:1])) == pytest.approx(
        {**asdict(parts[0]), "p": stats.stratified(parts[:1]).p}
    )


@settings(max_examples=60, deadline=None)
@given(RIGHT_OR_WRONG, st.floats(0.01, 0.5), st.floats(1, 3))
def test_a_wider_margin_is_never_harder(items: list[tuple[int, int]], margin: float, wider: float) -> None:
    found = stats.paired([a for a, _ in items], [b for _, b in items])
    rank = ["fail", "unresolved", "pass"]
    outcomes = [stats.noninferior(found, each) for each in (margin, margin * wider)]
    assert rank.index(outcomes[0]) <= rank.index(outcomes[1])


def test_the_items_that_are_needed_resolve_it_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    needed = stats.needed_n(stats.paired(*drawn(rng, 5000, 0.06, 0.06)), 0.05)
    assert needed is not None
    passed = [stats.noninferior(stats.paired(*drawn(rng, needed, 0.06, 0.06)), 0.05) == "pass" for _ in range(600)]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.05)


def test_no_number_of_items_resolves_a_truth_on_the_margin() -> None:
    found = stats.paired([1, 1, 0, 0, 1], [1, 0, 1, 1, 1])
    assert stats.needed_n(found, 0.05, truth=-0.05) is None


@pytest.mark.parametrize("before, after", [([], []), ([1.0], [1.0, 0.0]), ([math.nan], [1.0])])
def test_what_cannot_be_paired_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError):
        stats.paired(before, after)


def test_results_survive_json() -> None:
    found = stats.paired([1, 1, 0, 0, 1], [1, 0, 1, 1, 1])
    assert stats.Comparison(**json.loads(json.dumps(asdict(found)))) == found


def test_one_pair_tells_nothing() -> None:
    found = stats.paired([0.4], [0.9])
    assert found.p == 1.0 and found.low < 0 and found.high == 1.0


def test_equivalence_errs_at_its_nominal_rate() -> None:
    """A true difference on the margin may pass in 5% of runs; one of 0 must pass in most."""
    rng = np.random.default_rng(5)

    def passes(truth: float) -> float:
        found = [stats.paired([0.5] * 60, (0.5 + truth + rng.normal(0, 0.1, 60)).tolist()) for _ in range(400)]
        return float(np.mean([stats.equivalent(one, 0.05) == "pass" for one in found]))

    assert passes(0.05) == pytest.approx(0.05, abs=0.03) and passes(0.0) > 0.9


def test_gates_err_at_their_nominal_rate() -> None:
    """Of candidates that lost just the margin 5% pass, and 5% of those that are called worse are not."""
    rng = np.random.default_rng(6)
    found = [stats.noninferior(stats.paired(*drawn(rng, 300, 0.08, 0.03)), 0.05) for _ in range(1500)]
    assert found.count("pass") / 1500 == pytest.approx(0.05, abs=0.02)
    assert found.count("fail") / 1500 == pytest.approx(0.05, abs=0.02)


def test_holm_by_hand() -> None:
    """The least is multiplied by their number, so that one false among them is as rare as for one."""
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.02]) == pytest.approx([0.5, 0.04]) and stats.holm([]) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_mixed_model_covers_where_seeds_are_many(shared: bool) -> None:
    rng, inside = np.random.default_rng(8), []
    seeds, items = (12, 6) if shared else (20, 30)
    for _ in range(60 if shared else 200):
        common = rng.normal(0, 1, items)
        values = 2 + rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 2, (seeds, items)) + (common if shared else 0)
        labels = [(s, i if shared else (s, i)) for s in range(seeds) for i in range(items)]
        found = stats.mixed(values.ravel().tolist(), [s for s, _ in labels], [str(i) for _, i in labels])
        inside.append(found.low <= 2 <= found.high)
    assert np.mean(inside) > (0.8 if shared else 0.91)


def test_signs_by_hand() -> None:
    assert stats.sign_flip([1.0] * 5) == 2 / 32
    assert stats.sign_flip([1.0, -1.0]) == 1.0
    assert stats.sign_flip([3.0, 1.0]) == 0.5


def test_the_noise_floor_is_the_spread_of_equal_runs() -> None:
    rng = np.random.default_rng(9)
    found = stats.noise_floor(rng.normal(5, 0.2, (4, 500)).tolist())
    assert found.sd == pytest.approx(0.2, rel=0.05) and found.sd < found.high < 0.22
    assert stats.noise_floor([[0.4, 0.5], [0.4, 0.5]]).largest == 0
    with pytest.raises(ValueError, match="two or more"):
        stats.noise_floor([[0.4, 0.5]])
