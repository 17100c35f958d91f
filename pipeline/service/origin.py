"""Where the personality in use comes from: its pairs, its first training and its replay buffer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from moltlm.adapters import card
from moltlm.data import replay
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file
from moltlm.data.rows import read_rows
from moltlm.data.types import Exchange
from moltlm.pipeline.artifact_files import ARTIFACT, inputs_of, intact
from moltlm.pipeline.config import Config, dump
from moltlm.pipeline.run import Artifact, Run, environment, read_artifact
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.cycles import all_finished, finished
from moltlm.pipeline.service.entries import Lineage, entry_id
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import buffer as buffers
from moltlm.pipeline.stages import replay as replay_stage

NEW = "new.jsonl"
"""File of a cycle with the exchanges that it learned."""


def origin(run: Run, current: str) -> dict[str, Artifact]:
    """The run's pairs, personality and replay buffer that the active personality began with, by stage; none where it
    comes from another folder. New files in `conversations.paths` would otherwise mean another personality, from
    scratch."""
    ids = descent(run.config, current)
    for folder in run.stored("personality"):
        if entry_id("personality", read_json(intact(folder, card.MANIFEST))["weights_sha256"]) in ids:
            data = run.folder / "pairs" / inputs_of(folder)["pairs"]
            origin = {"pairs": data, "personality": folder}
            replays = [path for path in run.stored("replay") if inputs_of(path)["personality"] == folder.name]
            origin |= {"replay": replays[-1]} if replays else {}
            return {stage: read_artifact(path) for stage, path in origin.items() if path.is_dir()}
    return {}


def descent(config: Config, current: str) -> list[str]:
    """The personality and those that it was trained further from, as the registry has them, or else the run's
    cycles."""
    registry, ids = Registry(config.registry.folder), [current]
    with suppress(BadInput):  # of one that is damaged, or not there any more
        while (current := registry.entry(current).lineage.continues) and current not in ids:
            ids.append(current)
    return [*ids, *(cycle.facts["current"] for cycle in _cycles_to(config, ids[0]))]


def _cycles_to(config: Config, current: str) -> list[Artifact]:
    """The retrainings that led to a personality, oldest first."""
    cycles: dict[str, Artifact] = {}
    for folder in all_finished(config.run.folder):
        names = finished(folder)
        cycles |= dict.fromkeys([names["candidate"], *names.get("before_it", [])], read_artifact(folder))
    path: list[Artifact] = []
    while current in cycles:
        path.insert(0, cycles.pop(current))
        current = path[0].facts["current"]
    return path


def learned_since(run: Run, current: str) -> list[Exchange]:
    """What the retrainings that led to a personality have learned, oldest first."""
    folders = [cycle.folder for cycle in _cycles_to(run.config, current)]
    return [item for folder in folders if (folder / NEW).is_file() for item in read_rows(intact(folder, NEW), Exchange)]


def buffer_of(run: Run, bundle: Bundle) -> Path:
    """The replay buffer that a bundle names; or else the last one of the cycles that led to its personality, of which
    one that was kept out has none; or else the run's."""
    folders = sorted(run.folder.glob("replay/*")) + sorted(run.folder.glob("retrain/*/replay"))
    stored = [folder for folder in folders if (folder / replay.MANIFEST).is_file()]
    for folder in stored if bundle.buffer else []:
        if buffer_id(folder) == bundle.buffer:
            return folder
    if bundle.buffer:
        for folder in stored:  # that it is none of them may be since it is damaged
            artifact = run.folder.joinpath(*folder.relative_to(run.folder).parts[:2])
            if (artifact / ARTIFACT).is_file():
                intact(artifact, str((folder / replay.MANIFEST).relative_to(artifact)))
        run.console.say(f"{bundle.buffer}, of what is in use, is not in {run.folder}: that of the run is taken.")
    for cycle in reversed(_cycles_to(run.config, bundle.get("personality"))):
        if cycle.folder / "replay" in stored:
            return cycle.folder / "replay"
    return replay_stage.buffer(run).folder


def buffer_id(folder: Path) -> str:
    """What identifies a replay buffer: the start of the hash of its manifest, which has the hashes of its files."""
    return f"buffer-{sha256_file(folder / replay.MANIFEST)[:10]}"


def lineage_of(run: Run, artifact: Artifact, data: str, continues: str = "", moved_from: str = "") -> Lineage:
    """Where an adapter comes from: the artifact that made it, what identifies its data, and the adapter before it, on
    this base or on another."""
    code = environment()
    revision = f", {code['revision']}" if code["revision"] else ""
    config = fingerprint(dump(run.config))
    made_by, version = f"{artifact.stage} {artifact.fingerprint}", f"{code['moltlm']}{revision}"
    return Lineage(made_by, continues, data, config, version, moved_from)


def next_buffer(run: Run, before: Path, new_exchanges: list[Exchange], candidate: Path, folder: Path) -> None:
    """The former buffer and the new exchanges, weighted by the personality that is about to be activated."""
    from moltlm.adapters import base
    from moltlm.adapters.serve import Served

    config = run.config
    run.release()
    served = Served(base.load(config.model))
    served.load("personality", candidate)
    former, batch = replay.load(before), config.model.eval_batch_size
    with run.console.progress("replay buffer") as progress:
        buffers.build(served, new_exchanges, config.replay, config.run.seed, batch, folder, progress, former)
