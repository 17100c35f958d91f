"""Where the personality in use comes from: its pairs, its first training and its replay buffer."""

from __future__ import annotations

from pathlib import Path

from moltlm.adapters import base, card
from moltlm.adapters.serve import Served
from moltlm.data import replay
from moltlm.data.io import read_json
from moltlm.data.types import Exchange
from moltlm.pipeline.run import Artifact, Run, read_artifact
from moltlm.pipeline.service.cycles import FINISHED
from moltlm.pipeline.stages import buffer as buffers
from moltlm.pipeline.stages import replay as replay_stage


def origin(run: Run, current: str) -> dict[str, Artifact]:
    """The run's pairs, personality and replay buffer that the active personality began with, by stage; none where it
    comes from another folder. New files in `conversations.paths` would otherwise mean another personality, from
    scratch."""
    before = {}
    for finished in run.folder.glob(f"retrain/*/{FINISHED}"):
        before[read_json(finished)["candidate"]] = read_artifact(finished.parent).facts["current"]
    first = current
    while first in before:
        first = before.pop(first)
    for folder in run.stored("personality"):
        if f"personality-{read_json(folder / card.MANIFEST)['weights_sha256'][:10]}" == first:
            data = run.folder / "pairs" / read_json(folder / "inputs.json")["pairs"]
            origin = {"pairs": data, "personality": folder}
            replays = [
                path for path in run.stored("replay") if read_json(path / "inputs.json")["personality"] == folder.name
            ]
            origin |= {"replay": replays[-1]} if replays else {}
            return {stage: read_artifact(path) for stage, path in origin.items() if path.is_dir()}
    return {}


def buffer_of(run: Run, current: str) -> Path:
    """The replay buffer of the active personality: of the cycle that trained it, or else of the run."""
    for finished in run.folder.glob(f"retrain/*/{FINISHED}"):
        if read_json(finished)["candidate"] == current and (finished.parent / "replay").is_dir():
            return finished.parent / "replay"
    return replay_stage.buffer(run).folder


def next_buffer(run: Run, before: Path, new_exchanges: list[Exchange], candidate: Path, folder: Path) -> None:
    """The former buffer and the new exchanges, weighted by the personality that is about to be activated."""
    config = run.config
    run.release()
    served = Served(base.load(config.model))
    served.load("personality", candidate)
    former, batch = replay.load(before), config.model.eval_batch_size
    with run.console.progress("replay buffer") as progress:
        buffers.build(served, new_exchanges, config.replay, config.run.seed, batch, folder, progress, former)
