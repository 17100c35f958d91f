"""What is in use: the registry's adapters stand in for the run's own, once a retraining or a command replaced those."""

from __future__ import annotations

from moltlm.adapters import card
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import read_json
from moltlm.data.state import PERSONALITY_ADAPTER, Adapter, State
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import bundles
from moltlm.pipeline.service.entries import entry_id
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import tasks


def take(run: Run, only_own: bool = False) -> list[str]:
    """Let the run serve, export and measure the adapters that are in use in the registry.

    The run's own stay where the registry has the same weights, is empty, or is of another base. Where another
    personality is in use, tasks are left out but for those in use above it.

    Args:
        only_own: take the run's own adapters, whatever is in use.

    Returns:
        Lines for a reader: which adapters are taken; none where there was no choice.
    """
    registry = Registry(run.config.registry.folder)
    current = registry.current()
    if only_own:
        return ["the run's own adapters, not those in use"] if current else []
    if "personality" not in current:
        return []
    entries = {slot: registry.entry(identity) for slot, identity in current.items()}
    if (base := entries["personality"].base) != run.config.model.id:
        return [
            f"{registry.folder} is in use on another base ({base}): the run's own adapters are taken",
            f"those in use instead: model.id={base}, or the configuration that molt move wrote",
        ]
    replaced = put(run, registry, current)
    lines = [f"{slot}: {each}, in use since {_since(registry, slot)}" for slot, each in replaced.items()]
    return [*lines, "the run's own instead: --own"] if lines else []


def put(run: Run, registry: Registry, adapters: dict[str, str]) -> dict[str, str]:
    """Let adapters of the registry, by slot, stand in for the run's own.

    Returns:
        Those of them that are not the run's own.
    """
    trained = {slot: _own_id(run, slot) for slot in adapters}
    replaced = {slot: identity for slot, identity in adapters.items() if trained[slot] != identity}
    run.tasks_stand_alone = "personality" not in replaced
    taken = replaced if run.tasks_stand_alone else adapters  # a task may be the run's own, above another personality
    run.in_use = {slot: Artifact("registry", registry.adapter(each), each, 0.0, {}) for slot, each in taken.items()}
    return replaced


def check(run: Run, state: State) -> None:
    """Raises BadInput for a state that cannot be had above the personality in use."""
    taken = all(str(adapter) in run.in_use for adapter in state.members)
    if state.routes and not run.tasks_stand_alone and (run.config.router.gated or not taken):
        raise BadInput(
            f"{state} has a router, which was trained above the run's own personality, and another one is in use.",
            "Take the run's own adapters: --own",
        )


def _since(registry: Registry, slot: str) -> str:
    """The day since when a slot has what it has now."""
    change = bundles.since(registry.history(), slot)
    return change.time[:10] if change else ""


def _own_id(run: Run, slot: str) -> str:
    """The id that the run's own adapter has in a registry; empty where it is not trained with these settings."""
    try:
        with run.reading():
            adapter = PERSONALITY_ADAPTER if slot == str(PERSONALITY_ADAPTER) else Adapter.parse(slot)
            manifest = read_json(tasks.trained(run, adapter).folder / card.MANIFEST)
            return entry_id(slot, manifest["weights_sha256"])
    except MoltError:
        return ""
