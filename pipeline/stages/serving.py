"""A state of a run, ready to answer, and what it is made of."""

from __future__ import annotations

from typing import Any

from moltlm.adapters import router as routers
from moltlm.data.state import State
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages.pairs import pairs
from moltlm.pipeline.stages.personality import load_adapters
from moltlm.pipeline.stages.routing import router
from moltlm.pipeline.stages.tasks import trained


def lineage(run: Run, state: State) -> dict[str, Any]:
    """What a state is made of: the pairs' fingerprint (which names the base) and those of its adapters."""
    parts = {"pairs": pairs(run).fingerprint}
    for adapter in state.members:
        parts[adapter.name] = trained(run, adapter).fingerprint
    if state.routes:
        parts["router"] = router(run, state.routes).fingerprint
    return parts


def serve(run: Run, state: State) -> Any:
    """The served base with the adapters of a state loaded (`data.types.ChatModel`)."""
    artifacts = {adapter: trained(run, adapter) for adapter in state.adapters}
    if not state.routes:
        return load_adapters(run, artifacts)
    if run.config.router.gated:
        return load_adapters(run, {**artifacts, state.gated[-1]: router(run, state.routes)})
    model = load_adapters(run, {**artifacts, **{adapter: trained(run, adapter) for adapter in state.routes}})
    return routers.Routed(model, routers.load(router(run, state.routes).folder))
