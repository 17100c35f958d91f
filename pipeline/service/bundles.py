"""What is in use is a bundle. The history of a registry is the list of changes of it, from which all else follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from moltlm.data.io import fingerprint

BUILT_IN = ("current", "previous", "candidate", "anchor")
"""Aliases that every registry has."""


@dataclass(frozen=True)
class Bundle:
    """What is promoted and rolled back as one.

    Attributes:
        adapters: ids by slot: the personality and the tasks above it.
        buffer: identifies the replay buffer that the next retraining goes on from; empty for that of the run.
        base: the model of all adapters; `base_digest` identifies its weights.
    """

    adapters: dict[str, str] = field(default_factory=dict)
    buffer: str = ""
    base: str = ""
    base_digest: str = ""

    @property
    def id(self) -> str:
        """The same for the same contents."""
        return f"bundle-{fingerprint(asdict(self))}"

    def get(self, slot: str, default: str = "") -> str:
        """The id in a slot."""
        return self.adapters.get(slot, default)


@dataclass(frozen=True)
class Change:
    """One line of the history.

    Attributes:
        action: what was done, such as "promote ID".
        after: what is in use after it.
        is_rollback: whether it undid an earlier change.
        anchor: the id that later retrainings are compared with, where that changed.
        alias: the names that were given, and to which id; an empty id takes the name away.
        candidate: what was judged and kept out, and the `reason`.
        forgotten: ids of adapters that were removed, since they had learned what is forgotten.
    """

    time: str
    action: str
    after: Bundle
    is_rollback: bool = False
    anchor: str = ""
    alias: dict[str, str] = field(default_factory=dict)
    candidate: Bundle | None = None
    reason: str = ""
    forgotten: list[str] = field(default_factory=list)


History = list[Change]


def current(history: History) -> Bundle:
    """What is in use."""
    return history[-1].after if history else Bundle()


def undoable(history: History) -> list[Bundle]:
    """What was in use before each change that was not undone, oldest first."""
    before, former = Bundle(), []
    for change in history:
        if change.is_rollback:
            former.pop()
        elif change.after != before:
            former.append(before)
        before = change.after
    return former


def previous(history: History) -> Bundle | None:
    """What a rollback returns to."""
    return (undoable(history) or [None])[-1]


def candidate(history: History) -> Bundle | None:
    """What was judged and kept out last."""
    return next((change.candidate for change in reversed(history) if change.candidate), None)


def anchor(history: History) -> str:
    """The id of the personality that retrainings may not drift from: of the last rebaseline on the base in use, or else
    the first that was in use on it; empty if none was."""
    changes = _on_base(history, _digest(history))
    set_by_hand = [change.anchor for change in changes if change.anchor]
    in_use = [change.after.get("personality") for change in changes if change.after.get("personality")]
    return next(iter([*set_by_hand[-1:], *in_use]), "")


def anchors(history: History) -> list[str]:
    """The anchor of each base that was in use."""
    last = {change.after.base_digest: change for change in history if change.after.adapters}
    return [anchor([*history, replace(change, anchor="")]) for change in last.values()]


def look(history: History, digest: str = "") -> int:
    """The number of the next candidate among those judged against the anchor, but for those that passed.

    Args:
        digest: of another base that the candidate is moved to; empty: of the base in use.
    """
    digest = digest or _digest(history)
    set_by_hand = [
        place for place, change in enumerate(history) if change.anchor and change.after.base_digest == digest
    ]
    begun = max(set_by_hand, default=-1)
    candidates = [change.candidate for change in history[begun + 1 :] if change.candidate]
    return 1 + sum(candidate.base_digest == digest for candidate in candidates)


def _digest(history: History) -> str:
    """The digest of the base in use, or of the last that was."""
    return next((change.after.base_digest for change in reversed(history) if change.after.adapters), "")


def _on_base(history: History, digest: str) -> History:
    """The changes after which a base was in use."""
    return [change for change in history if change.after.base_digest == digest]


def aliases(history: History) -> dict[str, str]:
    """The names that a person gave, and the ids that they stand for."""
    names: dict[str, str] = {}
    for change in history:
        names |= change.alias
    return {name: identity for name, identity in names.items() if identity}


def forgotten(history: History) -> set[str]:
    """The adapters that were removed, since they had learned what is forgotten."""
    return {identity for change in history for identity in change.forgotten}


def all_bundles(history: History) -> dict[str, Bundle]:
    """Everything that was in use or a candidate, by id, latest first."""
    both = [each for change in reversed(history) for each in (change.after, change.candidate) if each]
    return {bundle.id: bundle for bundle in both if bundle.adapters}


def since(history: History, slot: str = "") -> Change | None:
    """The change that put into use what a slot has now; without a slot, the whole bundle."""

    def value(bundle: Bundle) -> object:
        return bundle.get(slot) if slot else bundle

    change = None
    for each in reversed(history):
        if value(each.after) != value(current(history)):
            break
        change = each
    return change
