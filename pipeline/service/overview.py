"""How a service stands: what is in use, the last and the next cycle, what waits, and what needs a person."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.pipeline.run import Run, nearest
from moltlm.pipeline.service import bundles, cycles, new_conversations, origin, set_aside
from moltlm.pipeline.service.forgetting import lineage
from moltlm.pipeline.service.registry import Registry

LINES = 10


@dataclass
class Overview:
    """How a service stands.

    Attributes:
        in_use: sentences about what is in use.
        waiting: a sentence about new conversations.
        needs: what a person should look at, each with a command.
        disk: bytes of the run, of the registry, and free.
    """

    same: str
    in_use: list[str] = field(default_factory=list)
    last: str = "none yet"
    next: str = ""
    waiting: str = ""
    needs: list[str] = field(default_factory=list)
    disk: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """At most LINES lines for a terminal."""
        sizes = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in self.disk.items())
        fixed = [f"last cycle: {self.last}", f"next cycle: {self.next}", f"new: {self.waiting}", f"disk: {sizes}"]
        room = LINES - len(fixed) - len(self.in_use)
        needs = self.needs or ["nothing needs you"]
        more = len(needs) - room
        visible = needs if more <= 0 else [*needs[: room - 1], f"and {more + 1} more: molt status {self.same} --json"]
        return [*self.in_use, *fixed, *visible]


def overview(run: Run, same: str, next_cycle: str) -> Overview:
    """Look at a run and its registry; nothing is changed, and no model is loaded.

    Args:
        same: the arguments that name this run in another command.
        next_cycle: when the next cycle runs, for a reader.
    """
    config = run.config
    view = Overview(same, next=next_cycle)
    last = cycles.last(config.run.folder)
    if last:
        view.last = last.sentence()
        view.needs += [f"passed over: {file}: {reason}" for file, reason in last.passed_over.items()]
        view.needs += [f"the last cycle failed; try it: molt retrain {same}"] if last.outcome == cycles.FAILED else []
    registry = Registry(config.registry.folder)
    try:
        _registry(view, registry, same)
        view.waiting = _waiting(run, registry, view)
        if count := sum(not row.allow for row in set_aside.read(config).values()):
            view.needs.append(f"set aside, and not learned: {count} exchanges: molt screen list {same}")
    except BadInput as error:
        view.needs.insert(0, f"{error.what} {error.fix}")
        view.in_use = view.in_use or ["in use: not known, see below"]
        view.waiting = view.waiting or "not known, see below"
    learned = lineage.marked(config.run.folder, registry.folder)[1]
    if in_use := sorted(learned & set(_current(registry))):
        command = f"molt forget TEXT {same} --yes --retrain"
        view.needs.insert(0, f"{', '.join(in_use)} has learned what is forgotten: {command}")
    view.disk = {"run": _size(config.run.folder), "registry": _size(registry.folder)}
    view.disk["free"] = shutil.disk_usage(nearest(run.folder)).free
    return view


def _current(registry: Registry) -> list[str]:
    try:
        return list(registry.current().values())
    except BadInput:
        return []


def _registry(view: Overview, registry: Registry, same: str) -> None:
    history, (entries, damaged) = registry.history(), registry.entries()
    current, anchor = registry.current(), registry.anchor()
    if "personality" in current:
        identity = current["personality"]
        since = bundles.since(history, "personality")
        first = "the first one" if identity == anchor else f"compared with the first, {anchor}"
        view.in_use.append(f"in use: {identity} since {since.time[:10] if since else ''}, {first}")
    else:
        view.in_use.append(f"in use: no personality. Train one: molt run {same}")
    tasks = [identity for slot, identity in current.items() if slot != "personality"]
    view.in_use += [f"tasks: {', '.join(tasks)}"] if tasks else []
    change = bundles.since(history)
    latest = change.time if change else ""
    out = [entry.id for entry in entries if entry.added > latest and not entry.verdict.get("promoted", True)]
    if out:
        view.needs.append(f"kept out since: {', '.join(out[-3:])}: molt registry list {same}")
    view.needs += [f"damaged in the registry: {name}: molt registry list {same}" for name in damaged]


def _waiting(run: Run, registry: Registry, view: Overview) -> str:
    """How many exchanges no cycle has learned, before those are left out that are near to what is measured."""
    settings = run.config.retrain
    if not settings.conversations.exists() and not settings.sources:
        return f"{settings.conversations} does not exist"
    if current := registry.current().get("personality"):
        run.fixed = origin.origin(run, current)
    passed_over: dict[str, str] = {}
    count = len(new_conversations.unseen_exchanges(run, {}, passed_over, say=lambda line: None))
    listed = "".join(view.needs)
    view.needs += [f"cannot be read: {file}: {why}" for file, why in passed_over.items() if file not in listed]
    return f"{count} exchanges in {settings.conversations}; a cycle needs {settings.min_new}"


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
