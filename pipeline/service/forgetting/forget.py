"""Carrying a plan out: what is forgotten is remembered by hash, what was made from it is marked, and texts go."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from moltlm.data import forgotten
from moltlm.data.io import discard
from moltlm.pipeline.artifact_files import ARTIFACT, FINISHED, reseal
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.forgetting import lineage, removal
from moltlm.pipeline.service.forgetting import plan as plans
from moltlm.pipeline.service.forgetting.plan import Place, Plan
from moltlm.pipeline.service.registry import Registry

REPORT = ("report.html", "report.md", "results.json")


def remove(run: Run, plan: Plan, with_sources: bool) -> list[Place]:
    """Remove what a plan names. Interrupted, it is repeated with the same result.

    Args:
        with_sources: also remove rows of the user's own files, where they have rows.

    Returns:
        What was changed.
    """
    run.start_writing()
    for folder in sorted(plan.artifacts):
        run.forget(folder)  # while nothing is changed here, since a storage can be out of reach
    questions = [(item.question, item.answer) for item in plan.exchanges]
    forgotten.remember(run.config.conversations.forgotten, plan.turns, questions, plan.files)
    for folder in sorted(plan.artifacts):
        _mark(folder, folder in plan.taught)
    registry = Registry(run.config.registry.folder)
    for identity in sorted(plan.adapters):
        if registry.path(identity).is_dir():
            removal.mark(registry.path(identity), taught=True)
    if plan.artifacts:  # before the texts go, by which a repeated call finds those that were only measured
        shutil.rmtree(run.references, ignore_errors=True)  # values computed from its texts
        for partial in run.folder.glob("*/*.partial"):
            shutil.rmtree(partial)
    changed = list(plan.removable)
    for place in changed:
        _apply(place, plan, run.folder)
        artifact = plans.artifact_of(place.path, run.folder)
        if artifact is not None and (artifact / ARTIFACT).is_file():
            reseal(artifact)
    if with_sources:
        for place in (each for each in plan.sources if not each.reason):
            removal.drop_rows(place.path, plan.target)
            changed.append(place)
    return changed


def _mark(folder: Path, taught: bool) -> None:
    """Mark an artifact; a cycle that was not concluded would be, and is removed."""
    is_open_cycle = folder.parent.name == "retrain" and not (folder / FINISHED).is_file()
    if folder.is_dir() and not is_open_cycle and (folder / ARTIFACT).is_file():
        removal.mark(folder, taught)
    else:
        discard(folder)


def _apply(place: Place, plan: Plan, run_folder: Path) -> None:
    path = place.path
    if not path.is_file():
        return  # it went with its folder
    artifact = plans.artifact_of(path, run_folder)
    if artifact is not None and not plans.is_history(artifact):
        discard(artifact)
    elif place.action == plans.ROWS_GO:
        removal.drop_rows(path, plan.target)
    elif place.action == plans.ENDS:
        removal.end_before(path, plan.target)
    elif place.action == plans.SHRINKS:
        removal.shrink_buffer(path.parent, plan.target)
    elif place.action == plans.MARKED:
        removal.scrub(path, plan.target)
    else:
        for each in _together(path):
            each.unlink(missing_ok=True)


def _together(path: Path) -> Iterator[Path]:
    """A report goes in all its forms."""
    yield path
    if path.name in REPORT:
        yield from (path.with_name(name) for name in REPORT)


def clean_start(run: Run, adapters: set[str]) -> str:
    """The registry id of the last personality in use that has not learned it; empty if there is none."""
    registry = Registry(run.config.registry.folder)
    intact = {entry.id for entry in registry.entries()[0]}
    active = [change.after.get("personality", "") for change in registry.history()]
    return next((each for each in reversed(active) if each in intact and each not in adapters), "")


def drop_cycles(run: Run) -> None:
    """Remove the cycles that learned what is forgotten, so that the rest of their conversations is new again."""
    for folder in lineage.marked(run.folder, run.config.registry.folder)[0]:
        if folder.parent.name == "retrain":
            run.forget(folder)
            discard(folder)


def drop_weights(run: Run) -> list[str]:
    """Remove all adapters that have learned what is forgotten, and what was made from them, once none is in use.

    Returns:
        The registry ids of the removed ones.
    """
    registry = Registry(run.config.registry.folder)
    folders, adapters = lineage.marked(run.folder, registry.folder)
    if adapters & set(registry.current().values()):
        return []
    for folder in folders:
        run.forget(folder)
        discard(folder)
    gone = sorted(each for each in adapters if registry.path(each).is_dir())
    if registry.anchor() in adapters and "personality" in registry.current():
        registry.rebaseline()
    if gone:
        registry.forget(gone)
    return gone
