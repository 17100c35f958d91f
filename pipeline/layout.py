"""Which adapters make a state, by `protect.layout`: what a task is trained above, and what is served. Pure names."""

from __future__ import annotations

import re

from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.pipeline.run import Run

CONTROL = "_control"
SHARED = ("shared", "mixture")
"""Layouts in which one adapter learns all tasks."""


def beneath(run: Run, name: str) -> list[str]:
    """The adapters that are active and frozen beneath a task's, lowest first, by `protect.layout`."""
    return ["personality", *(earlier(run, name) if run.config.protect.layout == "stacked" else [])]


def seed_of(run: Run, task: TaskConfig) -> int:
    return run.config.run.seed if task.seed is None else task.seed


def state_of(run: Run, name: str) -> str:
    """The state in which a task is served."""
    return "+".join([*beneath(run, name), name])


def continued(run: Run, name: str) -> str | None:
    """The task whose adapter is trained further for this one."""
    before = earlier(run, name)
    return before[-1] if run.config.protect.layout in SHARED and before else None


def earlier(run: Run, name: str) -> list[str]:
    names = list(run.config.tasks)
    return names[: names.index(name.removesuffix(CONTROL))]


def states(run: Run) -> list[str]:
    """All states that the run compares: the base, the personality, and each task above it, controls last."""
    names = list(run.config.tasks)
    controls = [f"{name}{CONTROL}" for name in names if run.config.tasks[name].control]
    return ["base", "personality", *(state_of(run, name) for name in [*names, *controls])]


def candidates(run: Run) -> list[str]:
    """The states that could be used: neither the base nor a control."""
    return [state for state in states(run)[1:] if not state.endswith(CONTROL)]


def task_settings(run: Run, name: str) -> TaskConfig:
    """The settings of a task, or of its control. Raises BadInput for a task that the config does not have."""
    settings = run.config.tasks.get(name.removesuffix(CONTROL))
    if settings is None:
        known = ", ".join(run.config.tasks) or "none"
        raise BadInput(f"The config has no task {name}.", f"Its tasks are: {known}. Add one under `tasks:`.")
    return settings.model_copy(update={"replay_ratio": 0.0}) if name.endswith(CONTROL) else settings


def names_in(state: str) -> list[str]:
    """The adapters of a state, lowest first: none of `base`, three of `personality+a+b`, and of `personality+a|b|`,
    where a request goes to a, to b, or to the personality alone, or its tokens to some of both."""
    return [] if state == "base" else [name for name in re.split(r"[+|]", state) if name]


def routes(state: str) -> list[str]:
    """What there is to choose from in a routed state, nobody (`""`) included; nothing in any other."""
    return state.split("+")[-1].split("|") if "|" in state else []


def after(run: Run, names: list[str]) -> str:
    """The state that is served when these tasks have been learned, in this order."""
    layout = run.config.protect.layout
    if layout == "stacked":
        return "+".join(["personality", *names])
    return f"personality+{names[-1]}" if layout in SHARED else f"personality+{'|'.join(names)}|"
