"""The registry: copies of judged adapters, which of them are active, and a history that can be rolled back."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, read_jsonl, write_json


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
    """

    id: str
    slot: str
    base: str
    parents: dict[str, str]
    added: str
    verdict: dict[str, Any] = field(default_factory=dict)

    def fits(self, current: dict[str, str]) -> bool:
        """Whether all adapters that it was trained above are active. `current` maps slots to ids."""
        return all(current.get(slot, "").endswith(digest[:10]) for slot, digest in self.parents.items())


class Registry:
    """A folder: `entries/ID/`, `current.json` (active id by slot), `history.jsonl` (every change of it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, adapter: Path, verdict: dict[str, Any]) -> Entry:
        """Copy an adapter into the registry, with the latest verdict on it. Promoting it is a separate step."""
        manifest = card.read(adapter)
        identity = f"{manifest.name}-{manifest.weights_sha256[:10]}"
        target = self.folder / "entries" / identity
        entry = Entry(identity, manifest.name, manifest.base, manifest.adapters_below, _now(), verdict)
        if target.is_dir():
            entry = replace(entry, added=self.entry(identity).added)
            write_json(target / "entry.json", asdict(entry))
        else:
            partial = target.with_name(f".{identity}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name in ("adapter_config.json", "adapter_model.safetensors", card.MANIFEST, "README.md"):
                shutil.copy2(adapter / name, partial / name)
            write_json(partial / "entry.json", asdict(entry))
            partial.rename(target)
        return entry

    def promote(self, identity: str) -> list[str]:
        """Activate an entry.

        Returns:
            The ids of tasks that are deactivated by this: they were trained above what it replaces, and never measured
            above it.

        Raises:
            BadInput: for an unknown entry, or one that was trained above adapters that are not active.
        """
        entry, before = self.entry(identity), self.current()
        if not entry.fits(before):
            now = ", ".join(before.get(slot, f"no {slot}") for slot in entry.parents)
            raise BadInput(
                f"{identity} was trained above other adapters than the active ones ({now}).",
                "Activate those first: molt registry rollback, or molt registry promote ID",
            )
        current = {**before, entry.slot: identity}
        while left := [slot for slot, other in current.items() if not self.entry(other).fits(current)]:
            del current[left[0]]
        self._switch(current, f"promote {identity}")
        return [other for slot, other in before.items() if slot not in current]

    def rollback(self) -> dict[str, str]:
        """Undo the last promotion that was not undone yet. The history only grows.

        Returns:
            The active ids by slot.

        Raises:
            BadInput: when there is nothing to undo.
        """
        standing: list[dict[str, Any]] = []
        for line in self.history():
            if line["action"] == "rollback":
                standing.pop()
            else:
                standing.append(line)
        if not standing:
            raise BadInput("There is no promotion to roll back.", "See: molt registry list")
        self._switch(standing[-1]["before"], "rollback")
        return standing[-1]["before"]

    def current(self) -> dict[str, str]:
        """The active ids by slot."""
        path = self.folder / "current.json"
        return read_json(path) if path.is_file() else {}

    def was_in_use(self, identity: str) -> bool:
        """Whether an entry is or has been active."""
        return any(identity in line["after"].values() for line in self.history())

    def entry(self, identity: str) -> Entry:
        """The entry with this id. Raises BadInput for an unknown one."""
        path = self.folder / "entries" / identity / "entry.json"
        if not path.is_file():
            ids = ", ".join(entry.id for entry in self.entries()) or "none yet"
            raise BadInput(f"The registry has no {identity}.", f"It has: {ids}.")
        return Entry(**read_json(path))

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        entries = [Entry(**read_json(path)) for path in self.folder.glob("entries/[!.]*/entry.json")]
        return sorted(entries, key=lambda entry: entry.added)

    def path(self, identity: str) -> Path:
        """The folder of an entry's adapter."""
        return self.folder / "entries" / identity

    def history(self) -> list[dict[str, Any]]:
        """Every change, oldest first: time, action, and the active ids before and after."""
        path = self.folder / "history.jsonl"
        return read_jsonl(path) if path.is_file() and path.read_text().strip() else []

    def _switch(self, current: dict[str, str], action: str) -> None:
        before = self.current()
        if current == before:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"time": _now(), "action": action, "before": before, "after": current}) + "\n")
        write_json(self.folder / "current.json", current)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
