"""A state of a run, ready to answer, and what it is made of."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from moltlm.adapters import router as routers
from moltlm.data.state import PERSONALITY_ADAPTER, State
from moltlm.pipeline import layout
from moltlm.pipeline.identity import present
from moltlm.pipeline.run import Missing, Run, once_per_config
from moltlm.pipeline.stages.pairs import pairs
from moltlm.pipeline.stages.personality import load_adapters
from moltlm.pipeline.stages.routing import router
from moltlm.pipeline.stages.tasks import trained


@once_per_config
def lineage(run: Run, state: State) -> dict[str, Any]:
    """What a state is made of: the fingerprints of the pairs (which identify the base), its adapters and its router.
    Raises BadInput for a state that the config cannot have, before anything is made."""
    layout.check_state(run, state)
    return present(
        {
            "pairs": pairs(run).fingerprint,
            "adapters": {str(adapter): trained(run, adapter).fingerprint for adapter in state.adapters},
            "routes": {str(adapter): trained(run, adapter).fingerprint for adapter in state.routes},
            "router": router(run, state.routes).fingerprint if state.routes else None,
        }
    )


def trained_states(run: Run) -> list[State]:
    """The states whose adapters are stored, without controls, of a run that only reads. They grow while a job goes on.

    Raises:
        Missing: if not even the personality is trained.
    """
    trained(run, PERSONALITY_ADAPTER)
    states = []
    for state in layout.states(run):
        with suppress(Missing):
            for adapter in state.adapters:
                trained(run, adapter)
            states += [] if state.is_control else [state]
    return states


def serve(run: Run, state: State) -> Any:
    """The served base with the adapters of a state loaded (`data.types.ChatModel`)."""
    artifacts = {adapter: trained(run, adapter) for adapter in state.adapters}
    if not state.routes:
        return load_adapters(run, artifacts)
    if run.config.router.gated:
        return load_adapters(run, {**artifacts, state.gated[-1]: router(run, state.routes)})
    model = load_adapters(run, {**artifacts, **{adapter: trained(run, adapter) for adapter in state.routes}})
    return routers.Routed(model, routers.load(router(run, state.routes).folder))
