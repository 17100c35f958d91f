"""Damaged entries of a registry are copied again from the run that trained them."""

from __future__ import annotations

from pathlib import Path

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.pipeline.artifact_files import read_record
from moltlm.pipeline.service.entries import Judgement, Lineage, entry_id
from moltlm.pipeline.service.registry import Registry


def mend(registry: Registry, run_folder: Path) -> tuple[list[str], list[str]]:
    """Copy what is damaged again. A verdict that cannot be read any more is taken from the cycle that judged it.

    Returns:
        The ids of those that are mended, and of those of which the run has no intact copy.
    """
    damaged, copies = registry.damaged() + registry.missing(), _copies(run_folder)
    for identity in damaged:
        if identity in copies:
            judgement, lineage = _known(registry, identity, copies[identity], run_folder)
            registry.add(copies[identity], judgement.verdict, judgement.against, judgement.anchor, lineage)
    return [each for each in damaged if each in copies], [each for each in damaged if each not in copies]


def _copies(run_folder: Path) -> dict[str, Path]:
    """The folders of the intact adapters of a run, by the id that each has in a registry."""
    copies = {}
    for path in sorted(run_folder.rglob(card.MANIFEST)):
        try:
            manifest = card.read(path.parent)
        except BadInput:
            continue
        copies[entry_id(manifest.name, manifest.weights_sha256)] = path.parent
    return copies


def _known(registry: Registry, identity: str, adapter: Path, run_folder: Path) -> tuple[Judgement, Lineage]:
    """The verdict on an adapter and where it comes from: by its entry, or else by the cycle that trained it."""
    try:
        entry = registry.entry(identity)
        return entry.judgement, entry.lineage
    except BadInput:
        pass
    cycle = run_folder.joinpath(*adapter.relative_to(run_folder).parts[:2])
    try:
        facts = read_record(cycle)["facts"]
        tried = {each["folder"]: each["verdict"] for each in facts.get("attempts", [])}
        verdict = tried[str(adapter.relative_to(cycle))]
    except (BadInput, KeyError):
        return Judgement(), Lineage()
    lineage = Lineage(f"{cycle.parent.name} {cycle.name}", facts["current"], facts["data"])
    return Judgement(verdict, facts["current"], facts["anchor"]), lineage
