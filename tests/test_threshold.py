"""A threshold is told from a line and from a sigmoid, on simulated doses of known truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from moltlm.evals import threshold


def doses(truth: Callable[[float], float], seeds: int = 8, noise: float = 0.5) -> list[threshold.Dose]:
    rng = np.random.default_rng(4)
    return [
        threshold.Dose(seed, float(x), truth(float(x)) + float(rng.normal(0, noise)))
        for seed in range(seeds)
        for x in np.linspace(0, 2, 12)
    ]


def test_a_broken_stick_is_found_where_it_breaks() -> None:
    found = threshold.find(doses(lambda x: 8 * max(0.0, x - 1.2)))
    assert found is not None and found.shown
    assert found.low <= 1.2 <= found.high and found.at == pytest.approx(1.2, abs=0.15)
    assert found.over_line.low > 0 and found.over_sigmoid.low > 0
    assert found.stick[1] == pytest.approx(0, abs=0.5) and found.stick[2] == pytest.approx(6.4, abs=0.6)


@pytest.mark.parametrize(
    "truth", [lambda x: 4 * x, lambda x: 0.0, lambda x: 8 / (1 + np.exp(-6 * (x - 1)))], ids=["line", "flat", "sigmoid"]
)
def test_what_is_no_threshold_is_not_called_one(truth: Callable[[float], float]) -> None:
    found = threshold.find(doses(truth))
    assert found is not None and not found.shown


@pytest.mark.parametrize(
    "truth",
    [lambda x: -8 * max(0.0, x - 1.2), lambda x: 8 * (1 - abs(x - 1)), lambda x: 10 * min(x, 1) + 3 * max(0, x - 1)],
    ids=["improves", "recovers", "slows down"],
)
def test_a_break_beyond_which_capability_does_not_fall_faster_is_none(truth: Callable[[float], float]) -> None:
    found = threshold.find(doses(truth, noise=0.3))
    assert found is not None and found.over_line.low > 0 and not found.shown


def test_seeds_that_agree_exactly_show_nothing_and_a_place_is_no_finer_than_the_search() -> None:
    same = doses(lambda x: 8 * max(0.0, x - 1.2), seeds=1)
    found = threshold.find([threshold.Dose(seed, row.dose, row.cost) for seed in range(4) for row in same])
    assert found is not None and not found.shown and found.low < found.at < found.high
    three = threshold.find(doses(lambda x: 8 * max(0.0, x - 1.2), seeds=3))
    assert three is not None and not three.shown


def test_a_dose_that_is_no_number_is_left_out() -> None:
    rows = doses(lambda x: 4 * x)
    found = threshold.find([*rows, threshold.Dose(0, float("nan"), 1.0), threshold.Dose(1, 1.0, float("nan"))])
    assert found is not None and (found.n, found.left_out) == (len(rows), 2)


def test_too_few_seeds_or_doses_tell_nothing() -> None:
    assert threshold.find(doses(lambda x: x, seeds=2)) is None
    assert threshold.find([threshold.Dose(seed, dose, 0.0) for seed in range(5) for dose in (1.0, 2.0)]) is None
    assert threshold.find([]) is None


def test_a_few_doses_far_out_do_not_tear_the_stick() -> None:
    """One seed went much further than the others: what they teach is not stretched to where they never were."""
    near = [threshold.Dose(seed, x, 4 * x) for seed in range(4) for x in np.linspace(0, 1, 12).tolist()]
    noisy = [threshold.Dose(row.seed, row.dose, row.cost + 0.3 * (-1) ** place) for place, row in enumerate(near)]
    far = [threshold.Dose(9, x, 4 * x) for x in np.linspace(0.9, 3.1999, 12).tolist()]  # 1 is just beyond a place
    found = threshold.find([*noisy, *far])
    assert found is not None and not found.shown
    assert found.over_line.mean > -100
