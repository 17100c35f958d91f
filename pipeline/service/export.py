"""Export one state of a run for use elsewhere."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from moltlm.adapters import compose
from moltlm.adapters import export as exports
from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, State
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs, tasks

PROMPTS = 8
"""Held-out prompts on which the export is compared with the trained adapters."""


@dataclass(frozen=True)
class Exported:
    """An export that was loaded again and compared.

    Attributes:
        check: the comparison with the trained adapters.
        composition: how several adapters became one; None for merged weights.
    """

    check: exports.Check
    composition: compose.Composition | None

    def sentences(self, out: Path, to: str) -> list[str]:
        """Lines for a reader: how exact the export is, and the next command."""
        lines = [f"loaded again: KL {self.check.kl:.5f} nats a token from what was trained"]
        if self.composition and not self.composition.exact:
            lines.append(f"the single adapter differs from the exact stack by {self.composition.error:.0%}")
        if self.check.shift is not None:
            lines.append(f"on the original 16-bit weights it would be {self.check.shift:.4f} nats a token away")
        following = {"ollama": f"cd {out} && ollama create NAME -f Modelfile", "vllm": f"sh {out}/serve.sh"}
        return [*lines, *([f"next: {following[to]}"] if to in following else [])]


def export(run: Run, out: Path, to: str, state: State, method: str, rank: int | None) -> Exported:
    """Export a state into the folder `out`, which exists only if the export agrees with what was trained.
    `molt export CONFIG --to adapter`

    Args:
        to: adapter, merged, ollama or vllm.
        method: how several adapters become one.
        rank: of the one adapter; None for what the method needs.

    Raises:
        BadInput: for a state without a fixed stack of adapters, or an unknown method.
    """
    if state.routes or state == BASE:
        raise BadInput(f"The state {state} cannot be exported.", "Name another: --state personality+TASK")
    if method not in get_args(compose.Method):
        raise BadInput(f"Unknown method {method}.", f"Use one of: {', '.join(get_args(compose.Method))}.")
    layout.check_state(run, state)
    model, heldout = run.config.model, pairs.load_pairs(pairs.pairs(run), "heldout")[:PROMPTS]
    folders = [tasks.trained(run, adapter).folder for adapter in state.adapters]
    run.release()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    composition = None
    if to == "merged":
        exports.merged(model, folders, partial)
    else:
        composition = exports.adapter(model, folders, partial, method, rank)  # type: ignore[arg-type]
    if to == "ollama":
        exports.ollama(model.id, partial)
    if to == "vllm" and composition:
        exports.vllm(model.id, out.name, composition.rank, partial)
    # an approximation is reported, not refused
    limit = exports.AGREES if not composition or composition.exact else math.inf
    answers = [pair.chosen for pair in heldout]
    check = exports.check(model, folders, partial, [pair.prompt for pair in heldout], answers, limit)
    partial.rename(out)
    return Exported(check, composition)
