"""The registry survives kills, damage and two writers: what is active is one file, switched by one rename."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from test_pipeline import adapter

from moltlm.data import io
from moltlm.data.errors import BadInput
from moltlm.pipeline.service import entries
from moltlm.pipeline.service.registry import BEFORE, STATE, Outdated, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With three personalities, the first two promoted in turn."""
    made = Registry(tmp_path / "registry")
    for name in ("one", "two", "three"):
        made.add(adapter(tmp_path / name, "personality", name.encode()), {})
    one, two, _ = names(made)
    made.promote(one)
    made.promote(two)
    return made


def names(registry: Registry) -> list[str]:
    return [entry.id for entry in sorted(registry.entries()[0], key=lambda entry: entry.added)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("at", range(6))
def test_a_switch_that_is_killed_anywhere_and_repeated_is_one_switch(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, action: str, at: int
) -> None:
    """Killed at each of its syncs and renames in turn, then repeated if it had not happened."""
    one, two, three = names(registry)
    calls = 0

    def killing(call: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise Killed
            return call(*arguments)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(io.os, "fsync", killing(io.os.fsync))
        patched.setattr(Path, "replace", killing(Path.replace))
        with contextlib.suppress(Killed):
            registry.promote(three) if action == "promote" else registry.rollback()
    before, after = {"personality": two}, {"personality": three if action == "promote" else one}
    assert registry.current() in (before, after)
    if registry.current() == before:
        registry.promote(three) if action == "promote" else registry.rollback()
    assert registry.current() == after
    back = [registry.rollback().get("personality", "") for _ in range(2 if action == "promote" else 1)]
    assert back == ([two, one] if action == "promote" else [""])


def test_a_candidate_replaces_only_what_it_was_judged_against(registry: Registry) -> None:
    one, two, three = names(registry)
    with pytest.raises(Outdated, match=f"judged against {one}, but {two} is in use"):
        registry.promote(three, replaces=one)
    assert registry.current() == {"personality": two}
    registry.promote(three, replaces=two)
    assert registry.current() == {"personality": three}


def test_of_many_candidates_at_once_one_is_promoted(registry: Registry, tmp_path: Path) -> None:
    _, two, _ = names(registry)
    ids = [registry.add(adapter(tmp_path / f"c{n}", "personality", bytes([n])), {}).id for n in range(8)]
    outcomes: list[str] = []

    def promote(identity: str) -> None:
        try:
            Registry(registry.folder).promote(identity, replaces=two)
            outcomes.append(identity)
        except Outdated:
            outcomes.append("")

    threads = [threading.Thread(target=promote, args=(identity,)) for identity in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8 and outcomes.count("") == 7
    assert registry.current()["personality"] in outcomes
    assert len(registry.history()) == 3


@pytest.mark.parametrize("fault", ["half", "flipped", "empty", "gone", "other"])
def test_a_damaged_state_is_refused_and_repaired(registry: Registry, fault: str) -> None:
    one, _, three = names(registry)
    path = registry.folder / STATE
    raw = path.read_bytes()
    place = raw.rindex(b"two") if b"two" in raw else len(raw) // 2
    flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
    damaged = {"half": raw[: len(raw) // 2], "flipped": flipped, "empty": b"", "other": b"[1]"}
    path.unlink() if fault == "gone" else path.write_bytes(damaged[fault])
    for use in (registry.current, registry.rollback, lambda: registry.promote(three)):
        with pytest.raises(BadInput, match="damaged"):
            use()
    assert registry.repair() == {"personality": one} == registry.current()
    registry.promote(three)
    assert registry.current() == {"personality": three}
    with pytest.raises(BadInput, match="not damaged"):
        registry.repair()
    path.write_bytes(b"{")
    (registry.folder / BEFORE).write_bytes(b"{")
    with pytest.raises(BadInput, match="too, so what was in use is not known"):
        registry.repair()


def test_a_damaged_entry_is_named_and_locks_nothing_up(registry: Registry, tmp_path: Path) -> None:
    one, two, three = names(registry)
    (registry.path(three) / "entry.json").write_text('{"id": 3')
    assert registry.entries()[1] == [three]
    with pytest.raises(BadInput):
        registry.promote(three)
    assert registry.current() == {"personality": two}
    assert registry.add(tmp_path / "three", {}).id == three and registry.entries()[1] == []
    weights = registry.path(one) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(BadInput, match="not those that were written"):
        registry.rollback()
    assert registry.current() == {"personality": two}


def test_a_full_disk_leaves_the_registry_as_it_was(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    before, history = registry.current(), registry.history()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(io.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            registry.promote(names(registry)[2])
    assert (registry.current(), registry.history()) == (before, history)
    registry.promote(names(registry)[2])
    assert len(registry.history()) == len(history) + 1


def test_a_writer_that_hangs_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "WAIT_S", 0.1)
    with registry._locked(), pytest.raises(BadInput, match="is changing the registry"):
        Registry(registry.folder).promote(names(registry)[2])


def test_a_registry_that_is_not_there_is_not_made_by_what_changes_nothing(tmp_path: Path) -> None:
    missing = Registry(tmp_path / "missing")
    for change in (missing.rollback, missing.rebaseline, missing.repair, lambda: missing.promote("one")):
        with pytest.raises(BadInput):
            change()
    assert missing.collect([]) == [] and not missing.folder.exists()


def test_the_anchor_is_the_first_personality_until_it_is_set_anew(registry: Registry) -> None:
    """A rebaseline is on record, and no rollback undoes it."""
    one, two, three = names(registry)
    assert registry.anchor() == one
    assert registry.rebaseline() == two == registry.anchor()
    registry.promote(three)
    assert registry.anchor() == two
    assert [registry.rollback().get("personality") for _ in range(3)] == [two, one, None]
    assert registry.anchor() == two
    assert [change.anchor for change in registry.history() if change.anchor] == [two]
    with pytest.raises(BadInput, match="No personality is in use"):
        registry.rebaseline()
