"""What answers a user."""

from __future__ import annotations

from collections.abc import Callable

from moltlm.data.state import State
from moltlm.data.types import Message
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import in_use
from moltlm.pipeline.stages import serving

Answer = Callable[[list[Message]], str]


def answering(run: Run, state: State, max_new_tokens: int, own: bool = False) -> tuple[Answer, str]:
    """A function that answers in a state, with the adapters in use, and the name of what answers. Nothing is trained.

    Args:
        own: take the run's own adapters, whatever is in use.

    Raises:
        BadInput: for a state that the configuration does not have.
        Missing: if the state has not been trained.
    """
    run.only_read = True
    layout.check_state(run, state)
    for line in in_use.take(run, own):
        run.console.say(line)
    in_use.check(run, state)
    model = serving.serve(run, state)

    def answer(prompt: list[Message]) -> str:
        with model.state(state):
            return model.generate([prompt], max_new_tokens, 1)[0]

    names = [run.in_use[str(each)].fingerprint if str(each) in run.in_use else str(each) for each in state.adapters]
    return answer, "+".join(names) if run.in_use and names else str(state)
