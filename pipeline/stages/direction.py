"""The persona direction of a run, from the hidden states of the base over its pairs: forward passes alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moltlm.data.state import BASE
from moltlm.data.types import Exchange
from moltlm.evals import direction as directions
from moltlm.evals.direction import Direction
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages.pairs import load_pairs, pairs

if TYPE_CHECKING:
    from moltlm.adapters.reading import AnswerReading

FILE = "direction.npz"
MOST = 200
"""Pairs that it is fitted on, at most; evenly spread."""


@once_per_config
def direction(run: Run) -> Artifact:
    """Fit the persona direction on the chosen answers of the training pairs, against the base's to the same prompts."""
    data = pairs(run)

    def make(folder: Path) -> dict[str, Any]:
        answered = [pair for pair in load_pairs(data, "train") if pair.base_answer.strip()]
        places = np.linspace(0, len(answered), min(len(answered), MOST), endpoint=False).astype(int)
        used = [answered[place] for place in places]
        sides = [[Exchange(pair.prompt, getattr(pair, side)) for pair in used] for side in ("chosen", "base_answer")]
        inside, outside = (stacked(_read(run, side)) for side in sides)
        fitted = directions.fit(inside, outside)
        directions.save(fitted, folder / FILE)
        return {"layer": fitted.layer, "auroc": fitted.auroc, "pairs": len(used)}

    return run.do("direction", {"pairs": data.fingerprint}, make, "persona direction")


def load(run: Run) -> Direction:
    """The persona direction of the run."""
    return directions.load(intact(direction(run).folder, FILE))


def project(run: Run, exchanges: list[Exchange]) -> list[float]:
    """How far the answers lie in character as the base reads them: 0 as the base's own, 1 as the spec's, on average.
    What is trained moves neither, so the same text has the same place for years."""
    return [place for _, place in read_by_base(run, exchanges)]


def read_by_base(run: Run, exchanges: list[Exchange]) -> list[tuple[AnswerReading, float]]:
    """How the base reads the answers, and their places along the direction."""
    if not exchanges:
        return []
    fitted, readings = load(run), _read(run, exchanges)
    return list(zip(readings, fitted.project(stacked(readings)).tolist(), strict=True))


def _read(run: Run, exchanges: list[Exchange]) -> list[AnswerReading]:
    from moltlm.adapters import reading

    model = run.base
    with run.console.progress("persona direction") as progress, model.state(BASE):
        return reading.read(model, exchanges, run.config.model.eval_batch_size, progress, states=True)


def stacked(readings: list[AnswerReading]) -> np.ndarray:
    """(n, layers + 1, width)."""
    return np.stack([each.states for each in readings if each.states is not None])
