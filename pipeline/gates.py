"""The gate over a run: each adapter against what it replaces; what passes is promoted, what does not stays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.registry import Registry
from data.io import read_jsonl
from evals import gate, stats
from evals.config import GateConfig
from pipeline import stages
from pipeline.run import Artifact, Missing, Run

Record = dict[str, Any]


def judge_all(run: Run) -> dict[str, gate.GateVerdict]:
    """Judge the personality against the base and each task against the personality, and promote what passes.
    Controls are never candidates. `molt gate CONFIG`"""
    registry = Registry(run.config.registry.folder)
    verdicts: dict[str, gate.GateVerdict] = {}
    for name in ["personality", *run.config.tasks]:
        verdicts[name] = _judge(run, name)
        below_is_in_use = name == "personality" or verdicts["personality"].promoted
        if verdicts[name].promoted and below_is_in_use:
            from dataclasses import asdict

            registry.promote(registry.add(stages.adapter(run, name).folder, asdict(verdicts[name])).id)
    return verdicts


def judge_present(run: Run) -> dict[str, gate.GateVerdict]:
    """The verdicts that the records there are enough for; promotes nothing."""
    found = {}
    for name in ["personality", *run.config.tasks]:
        try:
            found[name] = _judge(run, name)
        except Missing:
            continue
    return found
