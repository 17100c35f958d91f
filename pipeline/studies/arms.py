"""The arms of a hypothesis: which there are, which settings are tried for each, and the configuration of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from moltlm.adapters.config import AdaptersConfig, LoraSettings
from moltlm.data.errors import BadInput
from moltlm.evals.config import Arm, HypothesisConfig
from moltlm.pipeline.config import Config, load_hypothesis
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs

ANY_RATE = 0.0001
"""Stands for a learning rate that is not chosen yet, where its value does not matter."""


def check(run: Run, name: str) -> HypothesisConfig:
    """Load a hypothesis and check that it can be run with this configuration and its pairs. Trains nothing.

    Raises:
        BadInput: if it cannot.
    """
    hypothesis = load_hypothesis(name)
    for arm in arm_names(hypothesis):
        for candidate in candidates(hypothesis.arms[arm], dict.fromkeys(hypothesis.arms, ANY_RATE)):
            arm_config(run.config, hypothesis, candidate)
    available = pairs.pairs(run).facts["pairs"]
    if available < hypothesis.pairs:
        raise BadInput(
            f"{hypothesis.id} samples {hypothesis.pairs} pairs for each seed, and there are {available}.",
            f"Write more prompts, set pairs: {available} in a copy of its file, or run without it: hypotheses=[]",
        )
    return hypothesis


def arm_names(hypothesis: HypothesisConfig) -> list[str]:
    """The arms that decide, then those for information."""
    return [*hypothesis.deciding, *hypothesis.beside]


def in_order(hypothesis: HypothesisConfig, names: Sequence[str]) -> list[str]:
    """Each arm once, after the arm whose learning rate it takes, which is added if it is not named."""
    rates = {name: hypothesis.arms[name].learning_rate for name in names}
    return list(dict.fromkeys(one for name in names for one in (rates[name], name) if isinstance(one, str)))


def candidates(arm: Arm, rates: Mapping[str, Any]) -> list[Arm]:
    """The arm with each of its learning rates and KL weights.

    Args:
        rates: by arm, the learning rates that other arms can take over.
    """
    rate = rates[arm.learning_rate] if isinstance(arm.learning_rate, str) else arm.learning_rate
    options = [value if isinstance(value, list) else [value] for value in (rate, arm.kl_weight)]
    return [arm.model_copy(update={"learning_rate": rate, "kl_weight": weight}) for rate, weight in product(*options)]


def fixed(options: Sequence[Arm], rate: float | None) -> list[int]:
    """Places of the options with a learning rate that the hypothesis fixes; all of them where it fixes none."""
    places = [place for place, option in enumerate(options) if rate in (None, option.learning_rate)]
    if not places:
        tried = ", ".join(f"{option.learning_rate:g}" for option in options)
        raise BadInput(
            f"fixed_rates has {rate:g}, which is not among the rates of its arm: {tried}.", "Name one of them."
        )
    return places


def beyond(arm: Arm, best: Arm) -> Arm | None:
    """The arm with one learning rate more, where the best is the smallest or the largest of several."""
    if not isinstance(arm.learning_rate, list) or len(arm.learning_rate) < 2:
        return None
    rates = sorted(arm.learning_rate)
    next_rates = {rates[0]: rates[0] ** 2 / rates[1], rates[-1]: rates[-1] ** 2 / rates[-2]}
    rate = next_rates.get(best.learning_rate)  # type: ignore[arg-type]
    return None if rate is None else best.model_copy(update={"learning_rate": rate})


def _lora(settings: LoraSettings, arm: Arm) -> LoraSettings:
    changes: dict[str, Any] = {}
    if arm.rank is not None:
        changes |= {"r": arm.rank, "alpha": settings.alpha * arm.rank / settings.r}
    if arm.target_modules is not None:
        changes["target_modules"] = arm.target_modules
    return settings.model_copy(update=changes)


def arm_config(config: Config, hypothesis: HypothesisConfig, arm: Arm) -> AdaptersConfig:
    """The run's configuration with what the arm and the hypothesis fix.

    Raises:
        BadInput: if they do not fit together.
    """
    changes = {
        "method": arm.method,
        "parameters": arm.parameters,
        "learning_rate": arm.learning_rate,
        "steps": arm.steps or hypothesis.steps,
        "batch_size": hypothesis.batch_size,
    }
    try:
        return AdaptersConfig(
            model=config.model.model_copy(update={"precision": arm.precision or hypothesis.precision}),
            lora=_lora(config.lora, arm),
            train=config.train,
            personality=config.personality.model_copy(update=changes),
            dpo=config.dpo.model_copy(
                update={name: getattr(arm, name) for name in ("reference", "kl_weight", "kl_on")}
            ),
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadInput(f"{hypothesis.id}: {why}.", "For example with: train.gradient_accumulation=1") from None
