"""The entries of a registry: copies of judged adapters, each with its verdict and where it comes from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.data.io import publish, sha256_file, utc_now
from moltlm.pipeline.service import sealed

WAIT_S = 20.0
ENTRY = "entry.json"
REPAIR = "Take the adapter again from the run that trained it: molt registry repair CONFIG"


@dataclass(frozen=True)
class Lineage:
    """Where an adapter comes from.

    Attributes:
        made_by: the stage and fingerprint of the artifact.
        continues: the id of the adapter that it was trained further from; empty if it was new.
        data: fingerprint of what it was trained on.
        config: fingerprint of the configuration, which is its name in `configs/` of the run folder.
        code: version of the package and revision of the code that registered it.
        moved_from: the id of the personality on another base that it was carried from; empty if it was not.
    """

    made_by: str = ""
    continues: str = ""
    data: str = ""
    config: str = ""
    code: str = ""
    moved_from: str = ""


@dataclass(frozen=True)
class Measurement:
    """A verdict on an adapter above others than those that it was trained above, whose hashes are `above`, by slot."""

    above: dict[str, str]
    verdict: dict[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.verdict["promoted"])


@dataclass(frozen=True)
class Judgement:
    """A verdict of the gate on an adapter above its parents.

    Attributes:
        verdict: empty if it was not judged.
        against: the id of the entry that it was compared with; empty for none, such as the base.
        anchor: the id of the first personality, where it was compared with that, too.
    """

    verdict: dict[str, Any] = field(default_factory=dict)
    against: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Entry:
    """A registered adapter.

    Attributes:
        id: the slot and the start of the hash of its weights.
        slot: `personality` or the name of a task.
        base: the model that it was trained on; `base_digest` identifies its weights.
        parents: hashes of the adapters that it was trained above, by slot.
        added: time of registration (UTC, ISO 8601).
        files: the SHA-256 of each of its files, by name.
        measured: verdicts on it above other adapters than its parents.
    """

    id: str
    slot: str
    base: str
    base_digest: str
    parents: dict[str, str]
    added: str
    files: dict[str, str]
    judgement: Judgement = field(default_factory=Judgement)
    lineage: Lineage = field(default_factory=Lineage)
    measured: list[Measurement] = field(default_factory=list)

    @property
    def verdict(self) -> dict[str, Any]:
        return self.judgement.verdict

    @property
    def judged_against(self) -> str:
        return self.judgement.against

    def fits(self, current: dict[str, str]) -> bool:
        """Whether all adapters that it was trained above are active, or all of others above which it was measured and
        passed. `current` maps slots to ids."""
        stacks = [self.parents, *(each.above for each in self.measured if each.passed)]
        return any(
            all(current.get(slot, "").endswith(digest[:10]) for slot, digest in stack.items()) for stack in stacks
        )


def entry_id(slot: str, weights_sha256: str) -> str:
    """What an adapter is called in a registry: its slot and the start of the hash of its weights."""
    return f"{slot}-{weights_sha256[:10]}"


def entry_ids(stack: dict[str, str]) -> list[str]:
    """The ids of adapters whose hashes are given by slot."""
    return [entry_id(slot, digest) for slot, digest in stack.items()]


class Entries:
    """A folder of entries, `entries/ID/`. Each is an immutable copy of an adapter, but for what is noted about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        adapter: Path,
        verdict: dict[str, Any],
        judged_against: str = "",
        anchor: str = "",
        lineage: Lineage | None = None,
    ) -> Entry:
        """Copy an adapter into the registry, with the latest verdict on it. Promoting it is a separate step.

        Args:
            judged_against: the id that the verdict compares it with.
            anchor: the id of the first personality, if the verdict compares it with that, too.
            lineage: where it comes from; None for what is known of it.
        """
        manifest = card.read(adapter)
        identity = entry_id(manifest.name, manifest.weights_sha256)
        judgement = Judgement(verdict, judged_against, anchor)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            former = self._intact(identity)
            if former and not self.changed_files(former):
                return self._write(replace(former, judgement=judgement, lineage=lineage or former.lineage))
            lineage = lineage or (former.lineage if former else Lineage())
            return self._copy(adapter, manifest, judgement, lineage, former.measured if former else [])

    def _copy(
        self,
        adapter: Path,
        manifest: card.Manifest,
        judgement: Judgement,
        lineage: Lineage,
        measured: list[Measurement],
    ) -> Entry:
        """Copy an adapter into its folder, in place of a damaged copy."""
        identity = entry_id(manifest.name, manifest.weights_sha256)
        target = self.path(identity)
        partial = target.with_name(f".{identity}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        names = ["adapter_config.json", "adapter_model.safetensors", card.MANIFEST, "README.md"]
        names += [card.MIXTURE] if (adapter / card.MIXTURE).is_file() else []
        for name in names:
            shutil.copy2(adapter / name, partial / name)
        entry = Entry(
            id=identity,
            slot=manifest.name,
            base=manifest.base,
            base_digest=manifest.base_digest,
            parents=manifest.adapters_below,
            added=now(),
            files={name: sha256_file(partial / name) for name in names},
            judgement=judgement,
            lineage=lineage,
            measured=measured,
        )
        sealed.write(partial / ENTRY, "entry", entry)
        shutil.rmtree(target, ignore_errors=True)
        publish(partial, target)
        return entry

    def note_measured(self, identity: str, above: dict[str, str], verdict: dict[str, Any]) -> None:
        """Note a verdict on an entry above other adapters than those that it was trained above, in place of an earlier
        one above the same. `above` holds the hashes of their weights by slot."""
        with self._locked():
            entry = self.entry(identity)
            others = [each for each in entry.measured if each.above != above]
            self._write(replace(entry, measured=[*others, Measurement(above, verdict)]))

    def entry(self, identity: str) -> Entry:
        """The entry with this id. Raises BadInput for an unknown or damaged one."""
        path = self.path(identity) / ENTRY
        if not path.is_file():
            ids = ", ".join(entry.id for entry in self.entries()[0]) or "none yet"
            raise BadInput(f"The registry has no {identity}.", f"It has: {ids}.")
        try:
            return sealed.read(path, "entry", Entry)
        except (BadInput, ValueError) as error:
            raise BadInput(f"{path} is damaged ({error}).", REPAIR) from None

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All entries, oldest first, and the names of the damaged ones, which cannot be read."""
        folders = sorted(self.folder.glob("entries/[!.]*"))
        by_name = {folder.name: self._intact(folder.name) for folder in folders}
        intact = sorted((entry for entry in by_name.values() if entry), key=lambda entry: entry.added)
        return intact, [name for name, entry in by_name.items() if entry is None]

    def changed_files(self, entry: Entry) -> list[str]:
        """The files of an entry that are missing or not as they were written."""
        return changed(self.path(entry.id), entry.files)

    def path(self, identity: str) -> Path:
        """The folder of an entry's adapter."""
        return self.folder / "entries" / identity

    def adapter(self, identity: str) -> Path:
        """The folder of an entry's adapter, which is as it was written. Raises BadInput if it is not."""
        entry = self.entry(identity)
        try:
            card.read(self.path(identity))
        except BadInput as error:
            raise BadInput(error.what, REPAIR) from None
        if changed := [name for name in self.changed_files(entry) if name != "README.md"]:
            raise BadInput(f"{self.path(identity) / changed[0]} is not as it was written.", REPAIR)
        return self.path(identity)

    def damaged(self) -> list[str]:
        """The ids of the entries that cannot be read, or of which a file is not as it was written."""
        entries, unreadable = self.entries()
        return [*unreadable, *(entry.id for entry in entries if self.changed_files(entry))]

    def _intact(self, identity: str) -> Entry | None:
        try:
            return self.entry(identity) if (self.path(identity) / ENTRY).is_file() else None
        except BadInput:
            return None

    def _write(self, entry: Entry) -> Entry:
        sealed.write(self.path(entry.id) / ENTRY, "entry", entry)
        return entry

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process changes the registry at a time; readers need no lock. A folder that is not there has nothing
        to change, and is not made."""
        if not self.folder.is_dir():
            yield
            return
        lock = FileLock(str(self.folder / ".lock"), timeout=WAIT_S)
        try:
            lock.acquire()
        except Timeout:
            raise BadInput(
                f"Another molt command is changing the registry {self.folder}.", "Run the same command again."
            ) from None
        try:
            yield
        finally:
            lock.release()


def changed(folder: Path, files: dict[str, str]) -> list[str]:
    """Which of these files, with their SHA-256, are missing in a folder or not as they were written."""
    return [
        name for name, digest in files.items() if not (folder / name).is_file() or sha256_file(folder / name) != digest
    ]


def now() -> str:
    """The time of a change: fine enough to order changes that follow each other."""
    return utc_now("milliseconds")
