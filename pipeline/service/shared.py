"""A registry that machines share: its adapters and its history in object storage."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.pipeline.service import sealed
from moltlm.pipeline.service.bundles import Change
from moltlm.pipeline.service.entries import Entry
from moltlm.pipeline.service.registry import STATE, Registry
from moltlm.pipeline.storage import Storage, Version


class Diverged(BadInput):
    """A registry and its copy in the storage have both been changed."""


@dataclass(frozen=True)
class Snapshot:
    """All that changes in a registry: its history, and what is known of each adapter."""

    history: list[Change] = field(default_factory=list)
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
        """Store what the storage lacks: adapters first, then, in one write, the history and the verdicts.

        Returns:
            The ids of the adapters that were stored.

        Raises:
            Diverged: if the storage has changes that are not here.
            Changed: if another machine pushes at the same time.
        """
        with self._locked():
            history, (entries, _) = self.history(), self.entries()
            there, version = self._snapshot()
            if not _extends(history, there.history):
                raise Diverged(
                    f"{self._storage.url} has changes that {self.folder} does not have.",
                    f"Take them over first: molt registry pull {self._storage.url} CONFIG",
                )
            stored = [entry.id for entry in entries if self._storage.store(_name(entry.id), self.path(entry.id))]
            ids = {entry.id for entry in entries}
            merged = Snapshot(history, [*entries, *(each for each in there.entries if each.id not in ids)])
            if merged != there:
                self._storage.replace(STATE, sealed.to_text("registry", merged).encode(), version)
        return stored

    def pull(self) -> list[str]:
        """Take over what the storage has: adapters first, each checked by its hashes, then the history.

        Returns:
            The ids of the adapters that were fetched.

        Raises:
            BadInput: if nothing is stored there, or something damaged.
            Diverged: if this registry was changed on its own in the meantime.
        """
        with self._locked():
            history, intact = self.history(), {entry.id for entry in self.entries()[0]}
            there, version = self._snapshot()
            if version is None:
                raise BadInput(
                    f"{self._storage.url} has no registry.",
                    f"Push one first: molt registry push {self._storage.url} CONFIG",
                )
            if not _extends(there.history, history) and not _extends(history, there.history):
                raise Diverged(
                    f"{self.folder} and {self._storage.url} have both been changed since they were the same.",
                    f"See what the storage has, in another folder, then promote here or there: molt registry pull "
                    f"{self._storage.url} CONFIG registry.folder=OTHER",
                )
            missing = [entry for entry in there.entries if entry.id not in intact]
            for entry in missing:
                self._fetch(entry)
            if len(there.history) > len(history):
                for entry in there.entries:
                    self._write(entry)
                self._write_history(there.history)
        return [entry.id for entry in missing]

    def _snapshot(self) -> tuple[Snapshot, Version | None]:
        version = self._storage.read(STATE)
        if version is None:
            return Snapshot(), None
        try:
            return sealed.from_text(version.content.decode(), "registry", Snapshot), version
        except ValueError as error:
            raise BadInput(
                f"{self._storage.url}/{STATE} is damaged ({error}); nothing is changed.",
                "Delete it, and push again from a machine that has the registry.",
            ) from None

    def _fetch(self, entry: Entry) -> None:
        path = self.path(entry.id)
        shutil.rmtree(path, ignore_errors=True)  # a damaged copy
        if not self._storage.fetch(_name(entry.id), path) or self.changed_files(entry):
            shutil.rmtree(path, ignore_errors=True)
            raise BadInput(
                f"{entry.id} in {self._storage.url} is missing or not as it was written; the history is not changed.",
                f"Delete {_name(entry.id)}.tar there, and push again from a machine that has it.",
            )
        self._write(entry)


def _name(identity: str) -> str:
    return f"entries/{identity}"


def _extends(history: list[Change], other: list[Change]) -> bool:
    """Whether a history is another one, or goes on from it."""
    return history[: len(other)] == other
