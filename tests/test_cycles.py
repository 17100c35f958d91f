"""How a cycle ends: whatever fails on the way, its outcome is what the registry has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_pipeline import adapter

from moltlm.adapters import card
from moltlm.data import replay
from moltlm.data.errors import BadInput
from moltlm.data.io import write_json
from moltlm.data.rows import write_rows
from moltlm.data.types import Exchange
from moltlm.pipeline.artifact_files import FINISHED, INPUTS, seal
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.identity import key_of
from moltlm.pipeline.run import Run, read_artifact
from moltlm.pipeline.service import blame, mending, new_conversations, origin, retrain
from moltlm.pipeline.service import registry as registries
from moltlm.pipeline.service.cycles import finished
from moltlm.pipeline.service.registry import Registry


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield from opened(tmp_path / "here")


def opened(folder: Path, storage: str = "") -> Iterator[Run]:
    """A run whose registry has a first personality in use."""
    places = {"run.folder": "run", "registry.folder": "registry", "retrain.conversations": "conversations"}
    settings = [f"{key}={folder / name}" for key, name in places.items()]
    with closing(Run(load("demo", [*settings, *([f"run.storage={storage}"] if storage else [])]), Console())) as run:
        registry = Registry(run.config.registry.folder)
        first = registry.add(adapter(folder / "first", "personality", b"first"), {}).id
        registry.promote(first)
        yield run


def in_use(run: Run) -> str:
    return Registry(run.config.registry.folder).current()["personality"]


def judged(run: Run, name: str, promoted: bool = True) -> Path:
    """The folder of a cycle whose candidate was judged, and of which nothing else has happened yet."""
    registry = Registry(run.config.registry.folder)
    current, inputs = registry.current()["personality"], {"new": name}
    folder = run.folder / "retrain" / key_of("retrain", inputs)
    adapter(folder / "candidate", "personality", name.encode())
    write_rows(folder / "new.jsonl", [Exchange([{"role": "user", "content": f"What of {name}?"}], f"{name} is well.")])
    if promoted:
        (folder / "replay").mkdir()
        (folder / "replay" / replay.MANIFEST).write_text(json.dumps({"of": name}))
    write_json(folder / INPUTS, inputs)
    verdict = {"promoted": promoted, "checks": []}
    attempt = {"name": "as configured", "folder": "candidate", "look": 1, "provenance": {}, "dropped": {}}
    facts = {
        **{"active": registry.current(), "current": current, "anchor": registry.anchor(), "data": name, "tasks": []},
        **{"new_exchanges": 1, "provenance": {}, "dropped": {}, "verdict": verdict, "promoted": promoted},
        "attempts": [{**attempt, "verdict": verdict}],
    }
    seal(folder, {"stage": "retrain", "fingerprint": folder.name, "seconds": 1.0, "facts": facts})
    return folder


def conclude(run: Run, folder: Path) -> None:
    retrain._conclude(run, Registry(run.config.registry.folder), read_artifact(folder))  # pyright: ignore[reportPrivateUsage]


def conclude_interrupted(run: Run) -> None:
    retrain._conclude_interrupted(run, Registry(run.config.registry.folder))  # pyright: ignore[reportPrivateUsage]


def learned(run: Run) -> list[str]:
    return [item.question for item in new_conversations._finished(run)]  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("fault", [BadInput("Another molt command is changing the registry."), OSError(28, "full")])
def test_a_promotion_that_fails_is_made_by_the_next_cycle(
    run: Run, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, folder = in_use(run), judged(run, "new")

    def fails(*arguments: object, **named: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "switch", fails)
        with pytest.raises(type(fault)):
            conclude(run, folder)
    assert in_use(run) == before and not (folder / FINISHED).exists() and learned(run) == []
    conclude_interrupted(run)
    assert in_use(run) != before and finished(folder)["outcome"] == "promoted" and learned(run) == ["What of new?"]


def test_a_candidate_that_comes_too_late_is_outdated(run: Run) -> None:
    late, other = judged(run, "late"), judged(run, "other")
    conclude(run, other)
    with pytest.raises(retrain.Outdated):
        conclude(run, late)
    assert finished(late)["outcome"] == "outdated" and learned(run) == ["What of other?"]


def test_a_cycle_of_another_machine_is_not_concluded_here(tmp_path: Path) -> None:
    """A listing of what to forget fetches everything; what another machine promoted, and rolled back, is not put into
    use by it."""
    storage = f"file://{tmp_path / 'storage'}"
    for there, here in zip(opened(tmp_path / "there", storage), opened(tmp_path / "here", storage), strict=True):
        folder = judged(there, "theirs")
        there._share(folder, "retrain")  # pyright: ignore[reportPrivateUsage]
        before = in_use(here)
        here.fetch_all()
        assert (here.folder / "retrain" / folder.name / "new.jsonl").is_file()
        conclude_interrupted(here)
        assert in_use(here) == before and learned(here) == []
        there.folder.joinpath("retrain", folder.name, FINISHED).unlink(missing_ok=True)


def test_what_is_in_use_descends_from_cycles_whose_entries_were_collected(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "YOUNG", timedelta(0))
    ids = [in_use(run)]
    for name in ("one", "two", "three", "four", "five", "six"):
        conclude(run, judged(run, name))
        ids.append(in_use(run))
    registry = Registry(run.config.registry.folder)
    registry.collect(registry.unused())
    assert len(registry.entries()[0]) < len(ids)
    assert set(blame.lineage(run.config)) >= set(ids)


def test_another_outcome_of_a_cycle_is_no_later_end(run: Run) -> None:
    first, second = judged(run, "one"), judged(run, "two", promoted=False)
    for folder in (first, second):
        conclude(run, folder)
    blame.finish(first, finished(first), "outdated")
    assert blame.find(run.config, "last") == second and finished(first)["outcome"] == "outdated"


def test_a_kept_out_candidate_that_is_promoted_by_hand_keeps_the_replay_of_former_cycles(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin.replay_stage, "buffer", lambda run: SimpleNamespace(folder=run.folder / "replay" / "0"))
    registry = Registry(run.config.registry.folder)
    promoted = judged(run, "one")
    conclude(run, promoted)
    conclude(run, judged(run, "two", promoted=False))
    registry.promote("candidate")
    assert registry.bundle().buffer == "" and origin.buffer_of(run, registry.bundle()) == promoted / "replay"


def test_an_entry_in_use_whose_folder_is_gone_is_copied_again(run: Run) -> None:
    registry = Registry(run.config.registry.folder)
    folder = judged(run, "one")
    conclude(run, folder)
    identity = in_use(run)
    for path in sorted(registry.path(identity).rglob("*"), reverse=True):
        path.unlink()
    registry.path(identity).rmdir()
    assert mending.mend(registry, run.folder) == ([identity], [])
    assert card.read(registry.adapter(identity)).name == "personality"
