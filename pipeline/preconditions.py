"""What a measure needs of the configuration: commands check it before torch is imported, and measures do again."""

from __future__ import annotations

from collections.abc import Callable

from moltlm.data.errors import BadInput
from moltlm.pipeline.config import Config


def pressure(config: Config) -> None:
    """Raises BadInput if nothing is to be measured under pressure."""
    if not config.pressure.on:
        raise BadInput("pressure.attacks and pressure.conversations are both 0.", "Set one: pressure.attacks=8")


def profile(config: Config) -> None:
    """Raises BadInput if all parts of the profile are off."""
    if not config.profile.on:
        raise BadInput("All parts of the profile are off.", "Turn one on: profile.preferences=true")


def judge(config: Config) -> None:
    """Raises BadInput if no judge is configured."""
    if config.judge.kind == "none":
        raise BadInput("There is no judge.", "Name one: judge.kind=endpoint judge.url=... judge.model=...")


def noise(config: Config) -> None:
    """Raises BadInput if there are not at least two identical runs to compare."""
    if config.gate.noise_runs < 2:
        raise BadInput("A noise floor takes two runs or more.", "Set their number: gate.noise_runs=3")


def introspection(config: Config) -> None:
    """Raises BadInput if introspection is off."""
    if not config.introspection.on:
        raise BadInput(
            "introspection.reflections and introspection.dialogues are both 0.",
            "Set them: introspection.reflections=8 introspection.dialogues=8",
        )


def agent(config: Config) -> None:
    """Raises BadInput if no item is asked for."""
    if not config.agent.items:
        raise BadInput("No item of what programs need is asked for.", "Ask for some of each kind: agent.items=20")


OF_MEASURES: dict[str, Callable[[Config], None]] = {"pressure": pressure, "profile": profile, "agent": agent}
"""By the name of a function of `stages.measures`."""
