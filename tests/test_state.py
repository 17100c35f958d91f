"""What a state is, and how it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data import state as states
from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.pipeline import config

NAMES = st.sampled_from(["personality", "a", "b", "x_control", "shell"])
ADAPTERS = st.lists(st.builds(Adapter, NAMES, st.booleans()), max_size=3).map(tuple)


@given(ADAPTERS, ADAPTERS)
def test_what_is_written_is_read_again(adapters: tuple[Adapter, ...], routes: tuple[Adapter, ...]) -> None:
    state = State(adapters, routes)
    assert State.parse(str(state)) == state
    assert len(set(state.gated)) == len(set(adapters)) + bool(routes)  # the gated adapter has a name of its own
    assert {state.routed_to(route) for route in (*routes, None)} >= {State(adapters)}


@pytest.mark.parametrize(
    ("text", "adapters", "routes"),
    [
        ("base", [], []),
        ("personality+a+b", ["personality", "a", "b"], []),
        ("personality+a|", ["personality"], ["a"]),
        ("personality+a|b|", ["personality"], ["a", "b"]),
        ("personality+a-control", ["personality", "a-control"], []),
    ],
)
def test_a_state_names_its_adapters_and_its_routes(text: str, adapters: list[str], routes: list[str]) -> None:
    state = State.parse(text)
    assert (list(map(str, state.adapters)), list(map(str, state.routes))) == (adapters, routes)


@pytest.mark.parametrize("text", ["", "personality+", "+a", "a|b", "personality+|", "base+base-control-control", "a b"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="There is no state"):
        State.parse(text)


def test_only_a_control_is_one_whatever_a_task_is_called() -> None:
    assert State.parse("personality+x-control").is_control and states.of("x-control").top == Adapter("x", control=True)
    assert not states.of("personality", "x_control").is_control
    task = {"tasks.x_control": "{kind: shell, steps: 4}"}
    assert "x_control" in config.load("smoke", [f"{key}={value}" for key, value in task.items()]).tasks
    assert PERSONALITY.above(Adapter("a")) != PERSONALITY != BASE
