"""The registry: copies of judged adapters, which of them are active, and a history that can be rolled back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.data.io import publish, read_json, write_json, write_text
from moltlm.pipeline.typed_json import from_plain, read_document

STATE, BEFORE = "registry.json", "registry.before.json"
WAIT_S = 20.0


class Outdated(BadInput):
    """A candidate was judged against another adapter than the active one."""


@dataclass(frozen=True)
class Measurement:
    """A verdict on an adapter above others than those that it was trained above, whose hashes are `above`, by slot."""

    above: dict[str, str]
    verdict: dict[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.verdict["promoted"])


@dataclass(frozen=True)
class Entry:
    """A registered adapter.

    Attributes:
        id: the slot and the start of the hash of its weights.
        slot: `personality` or the name of a task.
        base: the model that it was trained on.
        parents: hashes of the adapters that it was trained above, by slot.
        added: time of registration (UTC, ISO 8601).
        verdict: of the gate; empty if it was not judged.
        judged_against: the id of the entry that it was compared with; empty for none, such as the base.
        measured: verdicts on it above other adapters than its parents.
    """

    id: str
    slot: str
    base: str
    parents: dict[str, str]
    added: str
    verdict: dict[str, Any] = field(default_factory=dict)
    judged_against: str = ""
    measured: list[Measurement] = field(default_factory=list)

    def fits(self, current: dict[str, str]) -> bool:
        """Whether all adapters that it was trained above are active, or all of others above which it was measured and
        passed. `current` maps slots to ids."""
        stacks = [self.parents, *(each.above for each in self.measured if each.passed)]
        return any(
            all(current.get(slot, "").endswith(digest[:10]) for slot, digest in stack.items()) for stack in stacks
        )


@dataclass(frozen=True)
class Change:
    """A change of what is active: the ids by slot before and after it.

    Attributes:
        action: what was done, such as "promote ID", and on what ground.
        is_rollback: whether it undid an earlier change.
        anchor: the id that later retrainings are compared with, where that changed.
    """

    time: str
    action: str
    before: dict[str, str]
    after: dict[str, str]
    is_rollback: bool = False
    anchor: str = ""


class Registry:
    """A folder: `entries/ID/`, and `registry.json`, every change of what is active, the last of which holds.

    A change is one rename of that file, under a lock; so it has happened or it has not. The file carries a checksum,
    and `registry.before.json` is the one before it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, adapter: Path, verdict: dict[str, Any], judged_against: str = "") -> Entry:
        """Copy an adapter into the registry, with the latest verdict on it. Promoting it is a separate step."""
        manifest = card.read(adapter)
        identity = f"{manifest.name}-{manifest.weights_sha256[:10]}"
        target = self.path(identity)
        entry = Entry(identity, manifest.name, manifest.base, manifest.adapters_below, _now(), verdict, judged_against)
        with self._locked():
            if intact := self._intact(identity):
                entry = replace(entry, added=intact.added, measured=intact.measured)
                write_json(target / "entry.json", asdict(entry))
                return entry
            shutil.rmtree(target, ignore_errors=True)  # a damaged copy
            partial = target.with_name(f".{identity}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            files = ["adapter_config.json", "adapter_model.safetensors", card.MANIFEST, "README.md"]
            for name in [*files, *([card.MIXTURE] if (adapter / card.MIXTURE).is_file() else [])]:
                shutil.copy2(adapter / name, partial / name)
            write_json(partial / "entry.json", asdict(entry))
            publish(partial, target)
        return entry

    def note_measured(self, identity: str, above: dict[str, str], verdict: dict[str, Any]) -> None:
        """Note a verdict on an entry above other adapters than those that it was trained above, in place of an earlier
        one above the same. `above` holds the hashes of their weights by slot."""
        with self._locked():
            entry = self.entry(identity)
            others = [each for each in entry.measured if each.above != above]
            entry = replace(entry, measured=[*others, Measurement(above, verdict)])
            write_json(self.path(identity) / "entry.json", asdict(entry))

    def switch(self, adapters: dict[str, str], replaces: dict[str, str], action: str) -> None:
        """Activate these entries, and nothing else, as one change.

        Args:
            adapters: ids by slot.
            replaces: the ids by slot that they were judged against.

        Raises:
            BadInput: for an unknown or damaged entry, or one that was neither trained nor measured above the others.
            Outdated: what they were judged against is not active.
        """
        with self._locked():
            history = self.history()
            before = _current(history)
            if before != replaces:
                raise Outdated(
                    f"{adapters['personality']} was judged against {_listed(replaces)}, but {_listed(before)} is "
                    "active now.",
                    "Nothing is lost: its conversations are learned again by the next: molt retrain CONFIG",
                )
            for identity in adapters.values():
                self._check_fits(self.entry(identity), adapters)
                card.read(self.path(identity))
            self._append_change(history, adapters, action)

    def retire(self, slot: str) -> list[str]:
        """Take a task out of use, and those that were trained above it.

        Returns:
            The ids that are not active any more.

        Raises:
            BadInput: if no such task is active.
        """
        with self._locked():
            history = self.history()
            before = _current(history)
            if slot not in before or slot == "personality":
                names = ", ".join(name for name in before if name != "personality") or "none"
                raise BadInput(f"No task {slot} is in use.", f"In use: {names}. See: molt registry list")
            current = self._fitting({name: each for name, each in before.items() if name != slot})
            self._append_change(history, current, f"retire {slot}")
        return [each for name, each in before.items() if name not in current]

    def _fitting(self, adapters: dict[str, str]) -> dict[str, str]:
        """Those of these adapters, ids by slot, that fit the others."""
        current = dict(adapters)
        while left := [slot for slot, identity in current.items() if not self.entry(identity).fits(current)]:
            del current[left[0]]
        return current

    def promote(self, identity: str, replaces: str | None = None) -> list[str]:
        """Activate an entry.

        Args:
            replaces: the id that it was judged against, "" where nothing may be active; None: whatever is active.

        Returns:
            The ids of tasks that are deactivated by this: they were trained above what it replaces, and never measured
            above it, or did not pass there.

        Raises:
            BadInput: for an unknown or damaged entry, or one that was trained above adapters that are not active.
            Outdated: what it was judged against is not active.
        """
        with self._locked():
            entry, history = self.entry(identity), self.history()
            before = _current(history)
            self._check_fits(entry, before)
            if replaces is not None and before.get(entry.slot, "") != replaces:
                raise Outdated(
                    f"{identity} was judged against {replaces or 'nothing'}, but {before.get(entry.slot, 'nothing')} "
                    "is active now.",
                    f"Judge it against that first, or decide by hand: molt registry promote {identity} CONFIG",
                )
            card.read(self.path(identity))
            current = self._fitting({**before, entry.slot: identity})
            self._append_change(history, current, f"promote {identity}")
        return [other for slot, other in before.items() if slot not in current]

    def _check_fits(self, entry: Entry, current: dict[str, str]) -> None:
        if not entry.fits(current):
            now = ", ".join(current.get(slot, f"no {slot}") for slot in entry.parents)
            raise BadInput(
                f"{entry.id} was trained above other adapters than the active ones ({now}).",
                "Activate those first: molt registry rollback, or molt registry promote ID",
            )

    def rollback(self) -> dict[str, str]:
        """Undo the last promotion that was not undone yet. The history only grows.

        Returns:
            The active ids by slot.

        Raises:
            BadInput: when there is nothing to undo.
        """
        with self._locked():
            history = self.history()
            standing: list[Change] = []
            for change in history:
                if change.is_rollback:
                    standing.pop()
                elif change.after != change.before:
                    standing.append(change)
            if not standing:
                raise BadInput("There is no promotion to roll back.", "See: molt registry list")
            after = standing[-1].before
            for identity in after.values():
                card.read(self.path(self.entry(identity).id))
            self._append_change(history, after, "rollback", is_rollback=True)
        return after

    def current(self) -> dict[str, str]:
        """The active ids by slot."""
        return _current(self.history())

    def active_entries(self) -> dict[str, Entry]:
        """The active entries by slot."""
        return {slot: self.entry(identity) for slot, identity in self.current().items()}

    def anchor(self) -> str:
        """The id of the personality that retrainings may not drift from: of the last rebaseline, or else the first that
        was active; empty if none was."""
        history = self.history()
        set_by_hand = [change.anchor for change in history if change.anchor]
        active = [change.after["personality"] for change in history if "personality" in change.after]
        return next(iter([*set_by_hand[-1:], *active]), "")

    def rebaseline(self) -> str:
        """Compare later retrainings with the active personality instead of the first, on record.

        Returns:
            Its id.

        Raises:
            BadInput: if no personality is active.
        """
        with self._locked():
            history = self.history()
            current = _current(history)
            if "personality" not in current:
                raise BadInput("No personality is active.", "Activate one: molt registry promote ID")
            anchor = current["personality"]
            self._append(history, Change(_now(), f"rebaseline {anchor}", current, current, anchor=anchor))
        return anchor

    def was_in_use(self, identity: str) -> bool:
        """Whether an entry is or has been active."""
        return any(identity in change.after.values() for change in self.history())

    def entry(self, identity: str) -> Entry:
        """The entry with this id. Raises BadInput for an unknown or damaged one."""
        path = self.path(identity) / "entry.json"
        if not path.is_file():
            ids = ", ".join(entry.id for entry in self.entries()[0]) or "none yet"
            raise BadInput(f"The registry has no {identity}.", f"It has: {ids}.")
        return read_document(path, Entry)

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All entries, oldest first, and the names of the damaged ones, which cannot be read."""
        folders = sorted(self.folder.glob("entries/[!.]*"))
        by_name = {folder.name: self._intact(folder.name) for folder in folders}
        intact = sorted((entry for entry in by_name.values() if entry), key=lambda entry: entry.added)
        return intact, [name for name, entry in by_name.items() if entry is None]

    def _intact(self, identity: str) -> Entry | None:
        try:
            return read_document(self.path(identity) / "entry.json", Entry)
        except BadInput:
            return None

    def path(self, identity: str) -> Path:
        """The folder of an entry's adapter."""
        return self.folder / "entries" / identity

    def history(self) -> list[Change]:
        """Every change, oldest first. Raises BadInput if the file is damaged."""
        path = self.folder / STATE
        if not path.is_file() and not (self.folder / BEFORE).is_file():
            return []
        try:
            return _read(path)
        except (BadInput, ValueError) as error:
            raise BadInput(
                f"The registry's state {path} is damaged ({error}); nothing is changed.",
                "Take the state before the last change, which is checked first: molt registry repair CONFIG",
            ) from None

    def repair(self) -> dict[str, str]:
        """Replace a damaged state by the one before the last change; the damaged file is kept beside it.

        Returns:
            The active ids by slot.

        Raises:
            BadInput: if the state is not damaged, or that before it is, too.
        """
        with self._locked():
            path, before = self.folder / STATE, self.folder / BEFORE
            try:
                self.history()
            except BadInput:
                try:
                    history = _read(before) if before.is_file() else []
                except (BadInput, ValueError):
                    raise BadInput(
                        f"{before} is damaged, too, so what was active is not known.",
                        f"Start a new history with the same adapters: rm {path} {before}",
                    ) from None
                if path.is_file():
                    shutil.copy2(path, path.with_name(f"{STATE}.damaged"))
                self._write(history)
                return _current(history)
        raise BadInput("The registry's state is not damaged.", "See: molt registry list CONFIG")

    def _append_change(
        self, history: list[Change], current: dict[str, str], action: str, is_rollback: bool = False
    ) -> None:
        before = _current(history)
        if current == before:
            return
        self._append(history, Change(_now(), action, before, current, is_rollback))

    def _append(self, history: list[Change], change: Change) -> None:
        state = self.folder / STATE
        if state.is_file():
            write_text(self.folder / BEFORE, state.read_text(encoding="utf-8"))
        self._write([*history, change])

    def _write(self, history: list[Change]) -> None:
        changes = [asdict(change) for change in history]
        write_json(self.folder / STATE, {"sha256": _checksum(changes), "changes": changes})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process changes the registry at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
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


def _listed(adapters: dict[str, str]) -> str:
    return " with ".join(adapters.values()) or "nothing"


def _current(history: list[Change]) -> dict[str, str]:
    return history[-1].after if history else {}


def _read(path: Path) -> list[Change]:
    """The changes of a state file. Raises BadInput or ValueError for one that is damaged."""
    raw = read_json(path)
    changes = raw.get("changes") if isinstance(raw, dict) else None
    if changes is None or raw.get("sha256") != _checksum(changes):
        raise ValueError("its checksum does not match")
    try:
        return from_plain(changes, list[Change])
    except ValidationError:
        raise ValueError("it is of another form") from None


def _checksum(changes: Any) -> str:

    return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
