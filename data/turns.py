"""The turns of a conversation that is too long: one rule for training, replay and chat."""

from __future__ import annotations

from collections.abc import Callable

from moltlm.data.types import Message


def fitted(prompt: list[Message], tokens: Callable[[list[Message]], int], room: int) -> list[Message]:
    """A conversation with as few of its oldest turns left out as bring it to `room` tokens. It then begins with a user
    turn. A system message and the last user turn stay, so the result can still be too long.

    Args:
        tokens: returns how many tokens a conversation has.
    """
    system = [turn for turn in prompt[:1] if turn["role"] == "system"]
    turns = prompt[len(system) :]
    while len(turns) > 1 and tokens([*system, *turns]) > room:
        following = [place for place, turn in enumerate(turns) if place and turn["role"] == "user"]
        if not following:
            break
        turns = turns[following[0] :]
    return [*system, *turns]
