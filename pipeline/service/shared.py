"""A registry that machines share: its adapters and its history in object storage."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.pipeline.service import bundles, sealed
from moltlm.pipeline.service.bundles import History
from moltlm.pipeline.service.entries import REPAIR, Entry, changed
from moltlm.pipeline.service.registry import STATE, Registry
from moltlm.pipeline.storage import Changed, Storage, Version, is_plain


class Diverged(BadInput):
    """A registry lacks what its copy in the storage has, or both have been changed."""


@dataclass(frozen=True)
class Snapshot:
    """All that changes in a registry: its history, and what is noted about each adapter."""

    history: History = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


class SharedRegistry(Registry):
    """A registry with a copy in a storage. Either goes on from the other, or nothing is written.

    Args:
        folder: of the registry on this machine.
        url: of the storage, such as s3://bucket/path.
    """

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._storage = Storage(url)

    def push(self) -> list[str]:
        """Store what the storage lacks: adapters first, then, in one write, the history and what is noted about them.
        Adapters that were forgotten are removed there.

        Returns:
            The ids of the adapters that were stored.

        Raises:
            BadInput: if an adapter is damaged, or there is none.
            Diverged: if the storage has changes that are not here.
            Changed: if another command changes the registry or the storage at the same time.
        """
        history, entries = self.history(), self._undamaged()
        remote, version = self._snapshot()
        if not _goes_on(history, remote.history):
            raise Diverged(
                f"{self._storage.url} has changes that {self.folder} does not have.",
                f"Take them over first: molt registry pull {self._storage.url} CONFIG",
            )
        stored = [entry.id for entry in entries if not self._storage.has(_name(entry.id))]
        for identity in stored:
            self._storage.store(_name(identity), self.path(identity))
        gone = bundles.forgotten(history)
        for identity in gone & {entry.id for entry in remote.entries}:
            self._storage.forget(_name(identity))
        with self._unchanged_since(history):
            merged = [entry for entry in _merged(entries, remote.entries) if entry.id not in gone]
            snapshot = Snapshot(history, merged)
            if snapshot != remote:
                self._storage.replace(STATE, sealed.to_text("registry", snapshot).encode(), version)
        return stored

    def pull(self) -> list[str]:
        """Take over what the storage has: adapters first, each checked by its hashes, then the history.

        Returns:
            The ids of the adapters that were fetched.

        Raises:
            BadInput: if nothing is stored there, or something damaged.
            Diverged: if this registry and the storage have both been changed.
            Changed: if another command changes this registry at the same time.
        """
        history, (entries, _) = self.history(), self.entries()
        remote, version = self._snapshot()
        if version is None:
            raise BadInput(
                f"{self._storage.url} has no registry.",
                f"Push one first: molt registry push {self._storage.url} CONFIG",
            )
        if not _goes_on(remote.history, history) and not _goes_on(history, remote.history):
            folder, aside = (shlex.quote(str(path)) for path in (self.folder, self.folder / "aside"))
            raise Diverged(
                f"{self.folder} and {self._storage.url} have both been changed since they were the same.",
                f"Put the history of this one aside, pull, and promote its adapters again: mkdir -p {aside} && "
                f"mv {folder}/registry*.json {aside} && molt registry pull {self._storage.url} CONFIG",
            )
        intact = {entry.id for entry in entries if not self.changed_files(entry)} | bundles.forgotten(history)
        missing = [entry for entry in remote.entries if entry.id not in intact]
        for entry in missing:
            self._fetch(entry)
        with self._unchanged_since(history):
            if len(remote.history) > len(history):
                gone = bundles.forgotten(remote.history)
                for entry in _merged(remote.entries, entries):
                    if entry.id not in gone:
                        self._write(entry)
                self._write_history(remote.history)
                for identity in gone:
                    shutil.rmtree(self.path(identity), ignore_errors=True)
        return [entry.id for entry in missing]

    def _undamaged(self) -> list[Entry]:
        entries, _ = self.entries()
        if damaged := self.damaged():
            raise BadInput(f"{', '.join(damaged)} in {self.folder} is damaged; nothing is stored.", REPAIR)
        if not entries:
            raise BadInput(f"{self.folder} has no adapters to store.", "Train and judge some: molt run CONFIG")
        return entries

    def _snapshot(self) -> tuple[Snapshot, Version | None]:
        version = self._storage.read(STATE)
        if version is None:
            return Snapshot(), None
        try:
            return _checked(sealed.from_text(version.content.decode(), "registry", Snapshot)), version
        except ValueError as error:
            raise BadInput(
                f"{self._storage.url}/{STATE} is damaged ({error}); nothing is changed.",
                f"Delete it, then push from a machine that has the registry: {self._storage.deleting(STATE)}",
            ) from None

    def _fetch(self, entry: Entry) -> None:
        """Put an adapter in place as it was written; a damaged one here gives way to it."""
        path = self.path(entry.id)
        damaged = path.with_name(f".{entry.id}.gone")
        if path.exists():
            shutil.rmtree(damaged, ignore_errors=True)
            path.rename(damaged)
        try:
            fetched = self._storage.fetch(_name(entry.id), path, lambda folder: not changed(folder, entry.files))
        finally:
            if damaged.exists() and not path.exists():
                damaged.rename(path)
        if not fetched:
            raise BadInput(
                f"{self._storage.url} lacks {entry.id}; what is in use here stays.",
                f"Push it from a machine that has it: molt registry push {self._storage.url} CONFIG",
            )
        shutil.rmtree(damaged, ignore_errors=True)
        self._write(entry)

    @contextmanager
    def _unchanged_since(self, history: History) -> Iterator[None]:
        """Lock the registry, which is free while adapters are on their way. Raises Changed if it was changed."""
        with self._locked():
            if self.history() != history:
                raise Changed(f"Another command has changed {self.folder} in the meantime.", "Run the same one again.")
            yield


def _checked(snapshot: Snapshot) -> Snapshot:
    """Raises ValueError for ids that lead out of the folder of adapters, in which they are replaced and removed."""
    ids = {entry.id for entry in snapshot.entries} | bundles.forgotten(snapshot.history)
    if wrong := sorted(identity for identity in ids if not is_plain(identity)):
        raise ValueError(f"{wrong[0]!r} is no id of an adapter")
    return snapshot


def _merged(entries: list[Entry], others: list[Entry]) -> list[Entry]:
    """Both, with the verdict of the first and all measurements, where both have an entry."""
    by_id = {entry.id: entry for entry in others}
    same = [_with_measured(entry, by_id[entry.id]) if entry.id in by_id else entry for entry in entries]
    ids = {entry.id for entry in entries}
    return [*same, *(entry for entry in others if entry.id not in ids)]


def _with_measured(entry: Entry, other: Entry) -> Entry:
    above = [each.above for each in entry.measured]
    return replace(entry, measured=[*entry.measured, *(each for each in other.measured if each.above not in above)])


def _name(identity: str) -> str:
    return f"entries/{identity}"


def _goes_on(history: History, other: History) -> bool:
    """Whether a history is another one, or goes on from it."""
    return history[: len(other)] == other
