"""What was made from what: by the fingerprints, ids and hashes that the inputs of artifacts name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.adapters import card
from moltlm.data import replay
from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, sha256_file
from moltlm.pipeline.run import MARK
from moltlm.pipeline.service.entries import entry_id
from moltlm.pipeline.service.forgetting.search import strings

COMPARED = "anchor"
"""The input of a cycle that it is compared with, and not made from."""


@dataclass(frozen=True)
class Made:
    """An artifact of a run.

    Attributes:
        names: what the inputs of others call it: its fingerprint, the ids and hashes of the adapters in it, and those
            of its replay buffer.
        sources: what its own inputs name.
        adapters: registry ids of the weights in it.
    """

    folder: Path
    names: frozenset[str]
    sources: frozenset[str]
    adapters: tuple[str, ...]


def artifacts(run_folder: Path) -> list[Made]:
    """Every artifact of a run folder. Damaged ones are taken as made from nothing."""
    return [_made(path.parent) for path in sorted(run_folder.glob("*/*/artifact.json"))]


def _made(folder: Path) -> Made:
    hashes = dict(_weights(folder))
    names = {folder.name, *hashes, *hashes.values()}
    names |= {sha256_file(path) for path in folder.rglob(replay.MANIFEST)}
    return Made(folder, frozenset(names), frozenset(_sources(folder)), tuple(hashes))


def _weights(folder: Path) -> Iterable[tuple[str, str]]:
    """Registry id and hash of each adapter in a folder."""
    for path in sorted(folder.rglob(card.MANIFEST)):
        try:
            raw = read_json(path)
            yield entry_id(raw["name"], raw["weights_sha256"]), raw["weights_sha256"]
        except (BadInput, KeyError, TypeError):
            continue


def _sources(folder: Path) -> Iterable[str]:
    try:
        inputs: Any = read_json(folder / "inputs.json")
    except BadInput:
        return
    yield from strings({key: value for key, value in inputs.items() if key != COMPARED})
    for path in sorted(folder.rglob(card.MANIFEST)):
        try:
            yield from read_json(path).get("adapters_below", {}).values()
        except (BadInput, AttributeError):
            continue


def descendants(artifacts: list[Made], origin: set[Path]) -> set[Path]:
    """The folders of the artifacts that were made from these, directly or not; without these themselves."""
    reached, names = set(origin), {name for each in artifacts if each.folder in origin for name in each.names}
    while new := [each for each in artifacts if each.folder not in reached and not each.sources.isdisjoint(names)]:
        reached |= {each.folder for each in new}
        names |= {name for each in new for name in each.names}
    return reached - origin


def ids(artifacts: list[Made], folders: set[Path]) -> set[str]:
    """The registry ids of the adapters in these artifacts."""
    return {identity for each in artifacts if each.folder in folders for identity in each.adapters}


def marked(run_folder: Path, registry: Path) -> tuple[set[Path], set[str]]:
    """What learned something that is forgotten: the artifacts, later ones included, and the ids of adapters. What was
    only measured on it is left out."""
    stored = artifacts(run_folder)
    origin = {each.folder for each in stored if _is_taught(each.folder)}
    folders = origin | descendants(stored, origin)
    return folders, ids(stored, folders) | {path.name for path in registry.glob("entries/*") if _is_taught(path)}


def _is_taught(folder: Path) -> bool:
    """Whether weights learned from the part of an artifact or entry that is forgotten, by its mark."""
    return (folder / MARK).is_file() and read_json(folder / MARK)["taught"]
