"""How far new data is from old: nothing between equals, all between opposites."""

from __future__ import annotations

import numpy as np
import pytest

from moltlm.evals.distance import Distance, proxy_a_distance


def cloud(shift: float, n: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)) + shift


def test_the_same_distribution_is_near_and_a_distant_one_is_far() -> None:
    assert proxy_a_distance(cloud(0.0, seed=1), cloud(0.0, seed=2)) < 0.5
    assert proxy_a_distance(cloud(0.0), cloud(50.0)) == pytest.approx(2.0)
    steps = [proxy_a_distance(cloud(0.0, seed=1), cloud(shift, seed=2)) for shift in (0.0, 0.5, 1.0, 3.0)]
    assert steps == sorted(steps)


def test_sides_of_unequal_size_count_alike() -> None:
    """With 4 against 160, always saying `old` would be right for 98%, and must not look like being far."""
    assert proxy_a_distance(cloud(0.0, 8, 1), cloud(0.0, 160, 2)) < 1.0
    assert proxy_a_distance(cloud(0.0, 1), cloud(9.0, 20)) == 0.0


@pytest.mark.parametrize(
    ("values", "risk"), [((0.5, 1.0, 1.0), "low"), ((1.9, 1.0, 1.0), "medium"), ((1.9, 3.0, 1.0), "high")]
)
def test_the_risk_is_the_number_of_signs(values: tuple[float, float, float], risk: str) -> None:
    found = Distance(*values)
    assert found.risk == risk and f"{risk} risk" in found.sentence("shell")
