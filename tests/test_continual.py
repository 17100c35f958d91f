"""Transfer and forgetting, against cases computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.evals.continual import transfer

R = [[0.8, 0.1, 0.0], [0.9, 0.7, 0.2], [0.5, 0.6, 0.9]]


def test_by_hand() -> None:
    found = transfer(R, [0.0, 0.05, 0.1])
    assert found.final == pytest.approx((0.5 + 0.6 + 0.9) / 3)
    assert found.learned == pytest.approx((0.8 + 0.7 + 0.9) / 3)
    assert found.backward == pytest.approx(((0.5 - 0.8) + (0.6 - 0.7)) / 2)  # lost: negative
    assert found.forward == pytest.approx(((0.1 - 0.05) + (0.2 - 0.1)) / 2)  # helped: positive
    # the best of the first task was reached after the second
    assert found.forgetting == pytest.approx(((0.9 - 0.5) + (0.7 - 0.6)) / 2)


def test_what_is_far_ahead_need_not_be_measured() -> None:
    holes = [[0.8, 0.1, math.nan], *R[1:]]
    assert transfer(holes, [0.0, 0.05, 0.1]) == transfer(R, [0.0, 0.05, 0.1])


def test_one_task_has_nothing_to_transfer() -> None:
    found = transfer([[0.6]], [0.1])
    assert (found.final, found.learned) == (0.6, 0.6)
    assert (found.backward, found.forward, found.forgetting) == (None, None, None)


UNIT = st.floats(0, 1)


@given(
    st.integers(2, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(UNIT, min_size=n, max_size=n), min_size=n, max_size=n),
            st.lists(UNIT, min_size=n, max_size=n),
        )
    )
)
def test_forgetting_is_at_least_what_backward_transfer_lost(case: tuple[list[list[float]], list[float]]) -> None:
    """The best is at least what a task had right after its training."""
    matrix, before = case
    found = transfer(matrix, before)
    assert found.forgetting is not None and found.backward is not None
    assert found.forgetting >= -found.backward - 1e-9


def test_shapes_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match="for 2 tasks"):
        transfer(R, [0.0, 0.0])
