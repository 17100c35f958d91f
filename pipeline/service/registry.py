"""The registry: judged adapters, which bundle of them is in use, and a history that can be rolled back."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.pipeline.service import bundles, sealed
from moltlm.pipeline.service.bundles import BUILT_IN, Bundle, Change, History
from moltlm.pipeline.service.entries import ENTRY, Entries, Entry, now

STATE, BEFORE = "registry.json", "registry.before.json"
YOUNG = timedelta(days=1)
"""What was added since is not collected: a command may be about to use it."""


class Outdated(BadInput):
    """A candidate was judged against another bundle than the one in use."""


class Registry(Entries):
    """A folder: `entries/ID/`, and `registry.json`, every change of the bundle in use, the last of which holds.

    A change is one rename of that file, under a lock; so it has happened or it has not. The file carries a checksum,
    and `registry.before.json` is the one before it. Readers need no lock.
    """

    def promote(self, name: str, replaces: str | None = None, buffer: str | None = None) -> list[str]:
        """Put an entry into its slot, or a bundle into use, by its id or alias.

        Args:
            replaces: the id that an entry was judged against, "" where nothing may be in use; None: whatever is in use.
            buffer: identifies the replay buffer that belongs with it; None for that of a bundle with the same
                personality.

        Returns:
            The ids of tasks that this takes out of use: they were trained above what it replaces, and never measured
            above it, or did not pass there.

        Raises:
            BadInput: for an unknown or damaged entry, or one that was trained above adapters that are not in use.
            Outdated: what it was judged against is not in use.
        """
        with self._locked():
            history = self.history()
            before, target = bundles.current(history).adapters, self.resolve(name, history)
            if isinstance(target, Bundle):
                self._check(target.adapters)
                self._append(history, f"promote {target.id}", target)
                return [each for each in before.values() if each not in target.adapters.values()]
            self._check_fits(target, before)
            if replaces is not None and before.get(target.slot, "") != replaces:
                raise Outdated(
                    f"{target.id} was judged against {replaces or 'nothing'}, but "
                    f"{before.get(target.slot, 'nothing')} is in use now.",
                    f"Judge it against that first, or decide by hand: molt registry promote {target.id} CONFIG",
                )
            after = self._fitting({**before, target.slot: target.id})
            self._check(after)
            self._append(history, f"promote {target.id}", self._bundle(after, buffer, history))
        return [other for slot, other in before.items() if slot not in after]

    def switch(
        self,
        adapters: dict[str, str],
        replaces: dict[str, str],
        action: str,
        buffer: str = "",
        fix: str = "Nothing is lost: its conversations are learned again by the next: molt retrain CONFIG",
    ) -> None:
        """Put these entries into use, and nothing else, as one change.

        Args:
            adapters: ids by slot.
            replaces: the ids by slot that they were judged against.
            buffer: identifies the replay buffer that belongs with them.
            fix: what to do where something else is in use.

        Raises:
            BadInput: for an unknown or damaged entry, or one that was neither trained nor measured above the others.
            Outdated: what they were judged against is not in use.
        """
        with self._locked():
            history = self.history()
            before = bundles.current(history).adapters
            if before != replaces:
                raise Outdated(
                    f"{adapters['personality']} was judged against {_listed(replaces)}, but {_listed(before)} is in "
                    "use now.",
                    fix,
                )
            self._check(adapters)
            self._append(history, action, self._bundle(adapters, buffer, history))

    def keep_out(self, adapters: dict[str, str], action: str, reason: str) -> Bundle:
        """Note a candidate that was judged and is not promoted, and why. A second call changes nothing."""
        with self._locked():
            history = self.history()
            bundle = self._bundle(adapters, "", history)
            if not any((change.candidate, change.action) == (bundle, action) for change in history):
                change = Change(now(), action, bundles.current(history), candidate=bundle, reason=reason)
                self._write_history([*history, change])
        return bundle

    def retire(self, slot: str) -> list[str]:
        """Take a task out of use, and those that were trained above it.

        Returns:
            The ids that are not in use any more.

        Raises:
            BadInput: if no such task is in use.
        """
        with self._locked():
            history = self.history()
            bundle = bundles.current(history)
            if slot not in bundle.adapters or slot == "personality":
                names = ", ".join(name for name in bundle.adapters if name != "personality") or "none"
                raise BadInput(f"No task {slot} is in use.", f"In use: {names}. See: molt registry list CONFIG")
            after = self._fitting({name: each for name, each in bundle.adapters.items() if name != slot})
            self._append(history, f"retire {slot}", replace(bundle, adapters=after))
        return [each for name, each in bundle.adapters.items() if name not in after]

    def rollback(self) -> dict[str, str]:
        """Undo the last promotion that was not undone yet. The history only grows.

        Returns:
            The ids in use by slot.

        Raises:
            BadInput: when there is nothing to undo.
        """
        with self._locked():
            history = self.history()
            bundle = bundles.previous(history)
            if bundle is None:
                raise BadInput("There is no promotion to roll back.", "See: molt registry list CONFIG")
            self._check(bundle.adapters)
            self._append(history, "rollback", bundle, is_rollback=True)
        return bundle.adapters

    def rebaseline(self) -> str:
        """Compare later retrainings with the personality in use instead of the first, on record.

        Returns:
            Its id.

        Raises:
            BadInput: if no personality is in use.
        """
        with self._locked():
            history = self.history()
            bundle = bundles.current(history)
            identity = bundle.get("personality")
            if not identity:
                raise BadInput("No personality is in use.", "Put one into use: molt registry promote ID CONFIG")
            self._write_history([*history, Change(now(), f"rebaseline {identity}", bundle, anchor=identity)])
        return identity

    def alias(self, name: str, identity: str) -> None:
        """Give a name to a bundle or an entry; with an empty `identity`, take the name away. What has a name is not
        collected.

        Raises:
            BadInput: for a name that is built in or no identifier, or an unknown id.
        """
        if name in BUILT_IN or not name.isidentifier():
            raise BadInput(
                f"{name} cannot be an alias.",
                f"Use letters, digits and underscores, but none of: {', '.join(BUILT_IN)}",
            )
        with self._locked():
            history = self.history()
            if not identity and name not in bundles.aliases(history):
                raise BadInput(f"There is no alias {name}.", "See: molt registry list CONFIG")
            target = self.resolve(identity, history).id if identity else ""
            change = Change(now(), f"alias {name} {target}".strip(), bundles.current(history), alias={name: target})
            self._write_history([*history, change])

    def forget(self, identities: list[str]) -> None:
        """Remove entries that have learned what is forgotten, on record, so that they go wherever the registry is
        shared."""
        with self._locked():
            history = self.history()
            action = f"forget {', '.join(identities)}"
            self._write_history([*history, Change(now(), action, bundles.current(history), forgotten=identities)])
            for identity in identities:
                shutil.rmtree(self.path(identity))

    def resolve(self, name: str, history: History | None = None) -> Bundle | Entry:
        """The bundle or entry that an id or alias stands for. Raises BadInput for an unknown one."""
        history = self.history() if history is None else history
        built_in = {
            "current": bundles.current(history),
            "previous": bundles.previous(history),
            "candidate": bundles.candidate(history),
            "anchor": bundles.anchor(history),
        }
        target = built_in.get(name, bundles.aliases(history).get(name, name))
        if isinstance(target, str) and target:
            by_id = bundles.all_bundles(history)
            return by_id[target] if target in by_id else self.entry(target)
        if not isinstance(target, Bundle) or not target.adapters:
            raise BadInput(f"There is no {name} bundle yet.", "See: molt registry list CONFIG")
        return target

    def bundle(self) -> Bundle:
        """What is in use."""
        return bundles.current(self.history())

    def current(self) -> dict[str, str]:
        """The ids in use by slot."""
        return self.bundle().adapters

    def active_entries(self) -> dict[str, Entry]:
        """The entries in use by slot."""
        return {slot: self.entry(identity) for slot, identity in self.current().items()}

    def anchor(self) -> str:
        """The id of the personality that retrainings may not drift from: of the last rebaseline, or else the first that
        was in use; empty if none was."""
        return bundles.anchor(self.history())

    def missing(self) -> list[str]:
        """The ids of what is in use, what a rollback returns to and the anchor, of which there is no entry."""
        history = self.history()
        before = bundles.previous(history)
        ids = [*bundles.current(history).adapters.values(), *(before.adapters.values() if before else ())]
        needed = dict.fromkeys([*ids, bundles.anchor(history)])
        return [identity for identity in needed if identity and not (self.path(identity) / ENTRY).is_file()]

    def look(self, digest: str = "") -> int:
        """The number of the next candidate among those judged against the anchor, but for those that passed.

        Args:
            digest: of another base that the candidate is moved to; empty: of the base in use.
        """
        return bundles.look(self.history(), digest)

    def was_in_use(self, identity: str) -> bool:
        """Whether an entry is or has been in use."""
        return any(identity in change.after.adapters.values() for change in self.history())

    def unused(self) -> list[str]:
        """The ids of entries, damaged ones too, that nothing needs: not what is in use, what a rollback returns to, the
        last candidate, the anchor, what has an alias, and what those were trained above; nor what was added within a
        day."""
        history, (entries, damaged) = self.history(), self.entries()
        names = [*BUILT_IN, *bundles.aliases(history)]
        needed = {each for name in names for each in self._adapters_of(name, history)} | {*bundles.anchors(history)}
        digests = {digest[:10] for entry in entries if entry.id in needed for digest in entry.parents.values()}
        young = (datetime.now(UTC) - YOUNG).isoformat()
        return [
            *(
                entry.id
                for entry in entries
                if entry.id not in needed and entry.id[-10:] not in digests and entry.added < young
            ),
            *(name for name in damaged if name not in needed),
        ]

    def collect(self, identities: Iterable[str]) -> list[str]:
        """Remove those of these entries that nothing needs; a reader that has opened one keeps it.

        Returns:
            The ids that were removed.
        """
        with self._locked():
            unused = [identity for identity in self.unused() if identity in set(identities)]
            for identity in unused:
                gone = self.path(identity).with_name(f".{identity}.gone")
                self.path(identity).rename(gone)
            for gone in self.folder.glob("entries/.*.gone"):  # also those of a collection that was killed
                shutil.rmtree(gone)
        return unused

    def history(self) -> History:
        """Every change, oldest first. Raises BadInput if the file is damaged."""
        path = self.folder / STATE
        if not path.is_file() and not (self.folder / BEFORE).is_file():
            return []
        try:
            return sealed.read(path, "changes", History)
        except (BadInput, ValueError) as error:
            raise BadInput(
                f"The registry's state {path} is damaged ({error}); nothing is changed.",
                "Take the state before the last change, which is checked first: molt registry repair CONFIG",
            ) from None

    def is_damaged(self) -> bool:
        """Whether the state, which says what is in use, cannot be read."""
        try:
            self.history()
        except BadInput:
            return True
        return False

    def repair(self) -> dict[str, str]:
        """Replace a damaged state by the one before the last change; the damaged file is kept beside it.

        Returns:
            The ids in use by slot.

        Raises:
            BadInput: if the state is not damaged, or that before it is, too.
        """
        with self._locked():
            path, before = self.folder / STATE, self.folder / BEFORE
            if not self.is_damaged():
                raise BadInput("The registry's state is not damaged.", "See: molt registry list CONFIG")
            try:
                history = sealed.read(before, "changes", History) if before.is_file() else []
            except (BadInput, ValueError):
                raise BadInput(
                    f"{before} is damaged, too, so what was in use is not known.",
                    f"Start a new history with the same adapters: rm {path} {before}",
                ) from None
            if path.is_file():
                shutil.copy2(path, path.with_name(f"{STATE}.damaged"))
            sealed.write(path, "changes", history)
        return bundles.current(history).adapters

    def _adapters_of(self, name: str, history: History) -> Collection[str]:
        try:
            target = self.resolve(name, history)
        except BadInput:  # there is none, or it is damaged
            return [bundles.anchor(history)] if name == "anchor" else [bundles.aliases(history).get(name, "")]
        return target.adapters.values() if isinstance(target, Bundle) else [target.id]

    def _bundle(self, adapters: dict[str, str], buffer: str | None, history: History) -> Bundle:
        """A bundle of these entries. Without a buffer, with that of the last bundle with the same personality."""
        if buffer is None:
            same = [
                each.buffer
                for each in bundles.all_bundles(history).values()
                if each.get("personality") == adapters.get("personality")
            ]
            buffer = next((each for each in same if each), "")
        first = self.entry(next(iter(adapters.values())))
        return Bundle(adapters, buffer, first.base, first.base_digest)

    def _fitting(self, adapters: dict[str, str]) -> dict[str, str]:
        """Those of these adapters, ids by slot, that fit the others."""
        current = dict(adapters)
        while left := [slot for slot, identity in current.items() if not self.entry(identity).fits(current)]:
            del current[left[0]]
        return current

    def _check(self, adapters: dict[str, str]) -> None:
        """Raises BadInput unless these entries are intact, of one base, and fit each other."""
        entries = [self.entry(identity) for identity in adapters.values()]
        for entry in entries:
            self._check_fits(entry, adapters)
            self.adapter(entry.id)
        if len({entry.base_digest for entry in entries}) > 1:
            raise BadInput(
                f"{' and '.join(adapters.values())} were trained on different bases.",
                "Use adapters of one base: molt registry list CONFIG",
            )

    def _check_fits(self, entry: Entry, current: dict[str, str]) -> None:
        if not entry.fits(current):
            current_ids = ", ".join(current.get(slot, f"no {slot}") for slot in entry.parents)
            raise BadInput(
                f"{entry.id} was trained above other adapters than those in use ({current_ids}).",
                "Put those into use first: molt registry promote ID CONFIG",
            )

    def _append(self, history: History, action: str, after: Bundle, is_rollback: bool = False) -> None:
        if after != bundles.current(history):
            self._write_history([*history, Change(now(), action, after, is_rollback)])

    def _write_history(self, history: History) -> None:
        state = self.folder / STATE
        if state.is_file():
            write_text(self.folder / BEFORE, state.read_text(encoding="utf-8"))
        sealed.write(state, "changes", history)


def _listed(adapters: dict[str, str]) -> str:
    return " with ".join(adapters.values()) or "nothing"
