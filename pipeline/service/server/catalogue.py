"""The states that can be served now: their names, the adapters that they need, and which of them is the default."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moltlm.adapters import router as routers
from moltlm.data.errors import BadInput
from moltlm.data.state import PERSONALITY, PERSONALITY_ADAPTER, Adapter, State
from moltlm.pipeline import layout
from moltlm.pipeline.config import Config
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service import in_use
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import serving
from moltlm.pipeline.stages.routing import router as router_stage
from moltlm.pipeline.stages.tasks import trained

AUTO = "auto"
"""The name of the state that a router completes."""


@dataclass(frozen=True)
class Catalogue:
    """What can be asked for.

    Attributes:
        states: by the names that clients use; AUTO is there if a router was trained.
        adapters: the artifacts of their adapters, and of the gates of AUTO, by name.
        router: picks the adapter of AUTO; None where gates within the model do, or without AUTO.
        default: the name of what is in use.
    """

    states: dict[str, State]
    adapters: dict[str, Artifact]
    router: routers.Router | None
    default: str

    def fingerprint(self, state: State) -> str:
        """Of the adapters of a state; `base` for none."""
        return "+".join(self.adapters[str(each)].fingerprint for each in state.gated) or str(state)


def read(config: Config, console: Console, own: bool) -> Catalogue:
    """What the registry and the run folder hold at this moment. Nothing is trained.

    Args:
        own: take the run's own adapters, whatever is in use.

    Raises:
        Missing: if not even the personality is trained.
    """
    run = Run(config, console)
    run.only_read = True
    for line in in_use.take(run, own):
        console.say(line)
    states = {str(state): state for state in serving.trained_states(run)}
    adapters = {str(each): trained(run, each) for state in states.values() for each in state.adapters}
    router = None
    if routed := _routed(run, states):
        with suppress(Missing):  # a router is trained by comparisons of methods alone
            artifact = router_stage(run, routed.routes)
            if config.router.gated:
                adapters[str(routed.gated[-1])] = artifact
            else:
                router = routers.load(artifact.folder)
            states[AUTO] = routed
    return Catalogue(states, adapters, router, _default(run, states, own))


def _routed(run: Run, states: dict[str, State]) -> State | None:
    """The personality with all tasks that are served as routes; None where that is impossible."""
    tasks = tuple(each for each in map(Adapter, run.config.tasks) if _is_served(each, states))
    routed = State(PERSONALITY.adapters, tasks)
    if not tasks or layout.state_after(run, [each.name for each in tasks]) != routed:
        return None
    try:
        in_use.check(run, routed)
    except BadInput:
        return None
    return routed


def _is_served(adapter: Adapter, states: dict[str, State]) -> bool:
    return any(adapter in state.adapters for state in states.values())


def _default(run: Run, states: dict[str, State], own: bool) -> str:
    """The state of all that is in use in the registry; the personality where several tasks are and nothing routes."""
    current = {} if own else Registry(run.config.registry.folder).current()
    names = [name for name in run.config.tasks if name in current]
    if str(PERSONALITY_ADAPTER) not in current or not names:
        return str(PERSONALITY)
    state = layout.state_after(run, names)
    state = PERSONALITY.above(*state.routes) if len(state.routes) == 1 else state
    return next((name for name, each in states.items() if each == state), str(PERSONALITY))


def stamp(folder: Path) -> list[tuple[str, int, int]]:
    """Changes whenever the registry's files are written."""
    files = [(path, path.stat()) for path in sorted(folder.glob("*.json"))]
    return [(path.name, stat.st_mtime_ns, stat.st_size) for path, stat in files]
