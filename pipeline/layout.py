"""Which adapters make a state, by `protect.layout`: what a task is trained above, and what is served."""

from __future__ import annotations

from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter, State
from moltlm.pipeline.run import Run

JOINT = Adapter("joint")
"""An adapter of all tasks at once, which belongs to no task: it is served where `run.in_use` names it."""
SINGLE_ADAPTER = ("shared", "mixture")
"""Layouts in which one adapter learns all tasks."""


def adapters_below(run: Run, adapter: Adapter) -> tuple[Adapter, ...]:
    """The adapters that are active and frozen below a task's, lowest first."""
    stacked = run.config.protect.layout == "stacked"
    return (PERSONALITY_ADAPTER, *(map(Adapter, earlier_tasks(run, adapter)) if stacked else ()))


def state_of(run: Run, adapter: Adapter) -> State:
    """The state in which an adapter is served, no router being asked."""
    if adapter == PERSONALITY_ADAPTER:
        return PERSONALITY
    return State((*adapters_below(run, adapter), adapter))


def continued_from(run: Run, adapter: Adapter) -> Adapter | None:
    """The adapter that is trained further for this task."""
    earlier = earlier_tasks(run, adapter)
    return Adapter(earlier[-1]) if run.config.protect.layout in SINGLE_ADAPTER and earlier else None


def earlier_tasks(run: Run, adapter: Adapter) -> list[str]:
    names = list(run.config.tasks)
    return names[: names.index(adapter.name)]


def task_adapters(run: Run) -> list[Adapter]:
    """The adapters of all tasks, then their controls."""
    tasks = run.config.tasks
    return [*map(Adapter, tasks), *(Adapter(name, control=True) for name, task in tasks.items() if task.control)]


def states(run: Run) -> list[State]:
    """All states that the run compares: the base, the personality, and each task above it, controls last."""
    return [BASE, PERSONALITY, *(state_of(run, adapter) for adapter in task_adapters(run))]


def candidates(run: Run) -> list[State]:
    """The states that could be used: neither the base nor a control."""
    return [state for state in states(run)[1:] if not state.is_control]


def task_settings(run: Run, adapter: Adapter) -> TaskConfig:
    """The settings of a task, or of its control. Raises BadInput for a task that the config does not have."""
    settings = run.config.tasks.get(adapter.name)
    if settings is None:
        names = ", ".join(run.config.tasks) or "none"
        raise BadInput(f"The config has no task {adapter.name}.", f"Its tasks are: {names}. Add one under `tasks:`.")
    return settings.model_copy(update={"replay_ratio": 0.0}) if adapter.control else settings


def check_state(run: Run, state: State) -> None:
    """Raises BadInput if the config has no task for one of the state's adapters."""
    for adapter in state.members:
        if adapter not in (PERSONALITY_ADAPTER, JOINT):
            task_settings(run, adapter)


def seed_of(run: Run, task: TaskConfig) -> int:
    return run.config.run.seed if task.seed is None else task.seed


def state_after(run: Run, names: list[str]) -> State:
    """The state that is served when these tasks have been learned, in this order."""
    layout, adapters = run.config.protect.layout, tuple(map(Adapter, names))
    if layout == "stacked":
        return PERSONALITY.above(*adapters)
    return PERSONALITY.above(adapters[-1]) if layout in SINGLE_ADAPTER else State(PERSONALITY.adapters, adapters)
