"""The identity of artifacts: which inputs make an artifact what it is, and the version of each stage's behaviour.

A setting at its default is the same as an absent one, so a new setting with a default leaves every artifact as it was.
What a stage does with the same inputs is versioned in `STAGES`, not by the version of the package.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from moltlm.adapters.config import KlOn, TrainSettings
from moltlm.data import prose
from moltlm.data.config import NO_PART, Section
from moltlm.data.io import fingerprint, sha256_tree

STAGES = {
    "pairs": 1,
    "personality": 1,
    "first-answers": 1,
    "introspection-samples": 1,
    "introspection": 3,
    "introspection-training": 1,
    "replay": 2,
    "replay-update": 3,
    "task": 1,
    "practice": 1,
    "joint": 1,
    "router": 1,
    "gates": 1,
    "capability": 1,
    "persona": 2,
    "pressure": 2,
    "profile": 2,
    "agent": 1,
    "judge": 1,
    "judge-labels": 1,
    "noise": 1,
    "drift": 1,
    "task-score": 2,
    "job-base": 1,
    "job": 1,
    "hypothesis": 6,
    "explored": 5,
    "knowledge-base": 1,
    "knowledge-job": 1,
    "knowledge": 2,
    "sequence": 2,
    "carried": 1,
    "self-facts": 1,
    "move": 1,
    "direction": 1,
    "screen": 1,
    "retrain": 7,
}
"""Raise a stage's number when it would make something else from the same inputs, or when the default of a setting that
it reads changes. Its artifacts, and those made from them, are then made anew."""


def _no_part(section: Section) -> list[str]:
    return [name for name, each in type(section).model_fields.items() if each.json_schema_extra == NO_PART]


def identity(
    section: Section, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, Any]:
    """The settings of a section that differ from their defaults, and those that have none; nested sections likewise.
    Settings that no artifact depends on (`NO_PART`) are left out.

    Args:
        include: the only settings to consider.
        exclude: settings to leave out.
    """
    return section.model_dump(
        mode="json",
        include=None if include is None else set(include),
        exclude={*(exclude or ()), *_no_part(section)},
        exclude_defaults=True,
    )


def prose_of(train: TrainSettings, compared: KlOn) -> list[list[str]] | None:
    """The hash of the prose that a KL compares; None where it compares none."""
    return None if compared == "chat" else sha256_tree(prose.source(train.prose))


def present(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that are there: no None, and no empty text or collection. Nested ones stay as they are."""
    return {name: value for name, value in inputs.items() if value is not None and value not in ("", [], {}, ())}


def key_of(stage: str, inputs: dict[str, Any], subject: str = "") -> str:
    """The fingerprint of an artifact, which is the name of its folder."""
    parts = {"stage": stage, "version": STAGES[stage], "subject": subject, "inputs": present(inputs)}
    return fingerprint(present(parts))
