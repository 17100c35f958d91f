"""A bundle or an adapter on one page: what it is, where it comes from, and whether it is still the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.pipeline.service import bundles
from moltlm.pipeline.service.bundles import BUILT_IN, Bundle
from moltlm.pipeline.service.entries import Entry, entry_ids
from moltlm.pipeline.service.registry import Registry

SINCE_FIRST = "since the first personality"
"""Ends the names of the criteria against the anchor (`gate.judge_evidence`)."""


@dataclass(frozen=True)
class Likeness:
    """Whether a personality is still the first one, or the one of the last rebaseline.

    Attributes:
        answer: "it is", "yes", "no" or "not shown".
        reason: for a reader.
    """

    answer: str
    reason: str

    def sentence(self) -> str:
        return f"still the first one? {self.answer}: {self.reason}"


def page(registry: Registry, target: Bundle | Entry) -> list[str]:
    """Lines for a reader."""
    if isinstance(target, Entry):
        return [_named(registry, target.id), *_entry_lines(registry, target)]
    history = registry.history()
    lines = [_named(registry, target.id), f"  {_use(registry, target)}"]
    lines.append(f"  base: {target.base}, digest {target.base_digest}")
    if personality := target.get("personality"):
        lines.append(f"  {likeness(registry, registry.entry(personality)).sentence()}")
    lines.append(f"  replay buffer: {target.buffer or 'that of the run'}")
    former = bundles.previous(history)
    if target == bundles.current(history) and former and former.adapters:
        lines.append(f"  before it: {former.id} (molt registry diff previous current; molt registry rollback)")
    for slot, identity in target.adapters.items():
        lines += ["", f"{slot}: {identity}", *_entry_lines(registry, registry.entry(identity), target)]
    return lines


def likeness(registry: Registry, entry: Entry) -> Likeness:
    """Whether a personality is still the first one, by the verdict on it."""
    anchor, judgement = registry.anchor(), entry.judgement
    if origin := entry.lineage.moved_from:
        words = "; ".join(check["sentence"] for check in judgement.verdict.get("checks", []))
        answer = "yes" if judgement.verdict.get("promoted") else "not shown"
        return Likeness(answer, f"moved from {_with_base(registry, origin)}: {words}")
    if entry.id == anchor:
        return Likeness("it is", "all later personalities are compared with this one")
    checks = judgement.verdict.get("checks", [])
    if judgement.anchor == anchor:
        checks = [check for check in checks if check["name"].endswith(SINCE_FIRST)]
    elif judgement.against != anchor:
        checks = []
    if not checks:
        against = judgement.against or "the base"
        return Likeness("not shown", f"it was compared with {against} only, and never with {anchor or 'any first one'}")
    words = "; ".join(check["sentence"].replace(f" {SINCE_FIRST}", "") for check in checks)
    is_alike = all(check["outcome"] == "pass" for check in checks)
    return Likeness("yes" if is_alike else "no", f"against {anchor}, {words}")


def differences(registry: Registry, before: Bundle | Entry, after: Bundle | Entry) -> list[str]:
    """What differs between two bundles or adapters, for a reader."""
    lines = [f"{_named(registry, before.id)} -> {_named(registry, after.id)}"]
    if isinstance(before, Bundle) and isinstance(after, Bundle):
        for name in ("base", "base_digest", "buffer"):
            lines += _changed(name, getattr(before, name), getattr(after, name))
    sides = [_by_slot(each) for each in (before, after)]
    for slot in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(slot, "") for side in sides)
        lines += _changed(slot, old, new) or [f"{slot}: {new}, the same"]
        if old and new and old != new:
            lines += _entry_differences(registry, registry.entry(old), registry.entry(new))
    return lines


def problems(registry: Registry) -> dict[str, list[str]]:
    """What is wrong in a registry, by id: files that are not as they were written, and bundles that do not hold
    together. Raises BadInput if its state is damaged."""
    history, (entries, damaged) = registry.history(), registry.entries()
    reasons_by_id = {name: ["entry.json is damaged"] for name in damaged}
    for entry in entries:
        if files := registry.changed_files(entry):
            reasons_by_id[entry.id] = [f"{name} is missing or not as it was written" for name in files]
    for name in ("current", "previous"):
        try:
            bundle = registry.resolve(name, history)
        except BadInput:
            continue  # there is none
        if isinstance(bundle, Bundle) and (reasons := _unfit(registry, bundle)):
            reasons_by_id[f"{name} ({bundle.id})"] = reasons
    return reasons_by_id


def names_of(registry: Registry, identity: str) -> list[str]:
    """The aliases of a bundle or an entry, those that are built in first."""
    history = registry.history()
    aliases = [name for name, target in bundles.aliases(history).items() if target == identity]
    built_in = []
    for name in BUILT_IN:
        try:
            built_in += [name] if registry.resolve(name, history).id == identity else []
        except BadInput:
            continue  # there is none, or it is damaged
    return [*built_in, *aliases]


def _named(registry: Registry, identity: str) -> str:
    names = ", ".join(names_of(registry, identity))
    return f"{identity}{f' ({names})' if names else ''}"


def _use(registry: Registry, bundle: Bundle) -> str:
    history = registry.history()
    if bundle == bundles.current(history) and (change := bundles.since(history)):
        return f"in use since {_minute(change.time)}, by: {change.action}"
    for change in reversed(history):
        if change.after == bundle:
            return f"was in use until after {_minute(change.time)}"
        if change.candidate == bundle:
            by = change.action.removeprefix("keep out ")
            return f"kept out {_minute(change.time)}, by: {by}\n  why: {change.reason}"
    return "was never in use"


def _entry_lines(registry: Registry, entry: Entry, bundle: Bundle | None = None) -> list[str]:
    """Where an adapter comes from, and its verdicts."""
    lineage, manifest = entry.lineage, card.read(registry.path(entry.id))
    above = " and ".join(entry_ids(entry.parents))
    start = f"trained further from {lineage.continues}" if lineage.continues else "trained anew"
    start = f"moved from {_with_base(registry, lineage.moved_from)}, trained anew" if lineage.moved_from else start
    start += f", above {above}" if above else f", on {entry.base}"
    lines = [f"  {start}", f"  registered {_minute(entry.added)}, made by {lineage.made_by or 'an unknown command'}"]
    if lineage.data:
        lines.append(f"  data {lineage.data}, configuration {lineage.config}, moltlm {lineage.code}")
    settings = {key: value for key, value in manifest.training.items() if value is not None}
    training = ", ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
    lines += [f"  training: {training}"] if training else []
    if lineage.continues or lineage.moved_from:
        lines.append(f"  descent: {' <- '.join(_descent(registry, entry))}")
    lines += _verdict_lines(entry.verdict, f"against {entry.judged_against or 'what it was trained from'}")
    for each in entry.measured:
        others = " and ".join(entry_ids(each.above))
        lines += _verdict_lines(each.verdict, f"as it is, above {others}")
    if bundle and not entry.fits(bundle.adapters):
        lines.append("  it was neither trained nor measured above the rest of this bundle")
    return lines


def _verdict_lines(verdict: dict[str, Any], words: str) -> list[str]:
    checks = verdict.get("checks", [])
    if not checks:
        return ["  not judged"]
    passed = "passed" if verdict["promoted"] else "did not pass"
    return [f"  {passed} the gate {words}", *(f"    {check['outcome']:<10} {check['sentence']}" for check in checks)]


def _descent(registry: Registry, entry: Entry) -> list[str]:
    """The ids that an adapter was trained further or moved from, latest first, as long as the registry has them."""
    ids = [entry.id]
    while (former := entry.lineage.continues or entry.lineage.moved_from) and former not in ids:
        ids.append(former)
        try:
            entry = registry.entry(ids[-1])
        except BadInput:
            return [*ids, "(not in the registry any more)"]
    return ids


def _with_base(registry: Registry, identity: str) -> str:
    """The id of an entry, and the base that it is of."""
    try:
        return f"{identity} on {registry.entry(identity).base}"
    except BadInput:
        return f"{identity}, which is not in the registry any more"


def _entry_differences(registry: Registry, old: Entry, new: Entry) -> list[str]:
    lines = ["  the new one was trained further from the old one"] if new.lineage.continues == old.id else []
    lines += ["  the new one was moved from the old one"] if new.lineage.moved_from == old.id else []
    for name in ("base", "base_digest"):
        lines += _changed(f"  {name}", getattr(old, name), getattr(new, name))
    for name in ("data", "config", "code"):
        lines += _changed(f"  {name}", getattr(old.lineage, name), getattr(new.lineage, name))
    first, second = (card.read(registry.path(each.id)).training for each in (old, new))
    for key in dict.fromkeys([*first, *second]):
        lines += _changed(f"  {key}", first.get(key, "none"), second.get(key, "none"))
    if new.judged_against == old.id:
        lines += _verdict_lines(new.verdict, "against the old one")
    return lines


def _unfit(registry: Registry, bundle: Bundle) -> list[str]:
    reasons = []
    for identity in bundle.adapters.values():
        try:
            fits = registry.entry(identity).fits(bundle.adapters)
        except BadInput as error:
            reasons.append(error.what)
            continue
        reasons += [] if fits else [f"{identity} was neither trained nor measured above the rest of it"]
    return reasons


def _by_slot(target: Bundle | Entry) -> dict[str, str]:
    return target.adapters if isinstance(target, Bundle) else {target.slot: target.id}


def _changed(name: str, before: Any, after: Any) -> list[str]:
    return [f"{name}: {before or 'none'} -> {after or 'none'}"] if before != after else []


def _minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"
