"""What answers a user: the personality in use, or a state of the run."""

from __future__ import annotations

from collections.abc import Callable

from moltlm.adapters import card
from moltlm.data.state import PERSONALITY, PERSONALITY_ADAPTER, State
from moltlm.data.types import Message
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import serving

Answer = Callable[[list[Message]], str]


def answering(run: Run, state: State, max_new_tokens: int) -> tuple[Answer, str]:
    """A function that answers in a state, and the name of what answers. The personality is the one in use; where none
    is, it is that of the run. Nothing is trained.

    Raises:
        Missing: if the state has not been trained.
    """
    current = Registry(run.config.registry.folder).current().get(PERSONALITY_ADAPTER.name)
    if state == PERSONALITY and current:
        folder = Registry(run.config.registry.folder).path(current)
        card.check_base(folder, run.base.digest)
        run.base.load(str(PERSONALITY_ADAPTER), folder)
        model = run.base
    else:
        model, current = serving.serve(run, state), str(state)

    def answer(prompt: list[Message]) -> str:
        with model.state(state):
            return model.generate([prompt], max_new_tokens, 1)[0]

    return answer, current
