"""One state of a run, taken elsewhere."""

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


@dataclass(frozen=True)
class Exported:
    """`made` is how several adapters became one; None of merged weights."""

    check: exports.Check
    made: compose.Composition | None

    def told(self, out: Path, to: str) -> list[str]:
        lines = [f"loaded again: KL {self.check.kl:.5f} nats a token from what was trained"]
        if self.made and not self.made.exact:
            lines.append(f"the one adapter is {self.made.error:.0%} away from the exact stack")
        if self.check.shift is not None:
            lines.append(f"on the original 16-bit weights it would be {self.check.shift:.4f} nats a token away")
        following = {"ollama": f"cd {out} && ollama create NAME -f Modelfile", "vllm": f"sh {out}/serve.sh"}
        return [*lines, *([f"next: {following[to]}"] if to in following else [])]


def export(run: Run, out: Path, to: str, state: State, method: str, rank: int | None) -> Exported:
    """Into `out`, which is only there when the export gives what was trained. `molt export CONFIG --to adapter`"""
    if state.routes or state == BASE:
        raise BadInput(f"The state {state} is nothing to export.", "Name one: --state personality+TASK")
    if method not in get_args(compose.Method):
        raise BadInput(f"There is no method {method}.", f"Use one of: {', '.join(get_args(compose.Method))}.")
    layout.check_state(run, state)
    model, heldout = run.config.model, pairs.load_pairs(pairs.pairs(run), "heldout")[:PROMPTS]
    folders = [tasks.trained(run, adapter).folder for adapter in state.adapters]
    run.release()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    made = None
    if to == "merged":
        exports.merged(model, folders, partial)
    else:
        made = exports.adapter(model, folders, partial, method, rank)  # type: ignore[arg-type]
    if to == "ollama":
        exports.ollama(model.id, partial)
    if to == "vllm" and made:
        exports.vllm(model.id, out.name, made.rank, partial)
    limit = exports.AGREES if not made or made.exact else math.inf  # an approximation is told, and not refused
    answers = [pair.chosen for pair in heldout]
    check = exports.check(model, folders, partial, [pair.prompt for pair in heldout], answers, limit)
    partial.rename(out)
    return Exported(check, made)
