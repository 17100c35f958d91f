"""What is in use is one bundle: it is shown, compared, verified, named and collected as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import molt
from test_pipeline import adapter

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.pipeline.service import bundles, entries, registry_page
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.entries import Lineage
from moltlm.pipeline.service.registry import Registry

PASS = {"name": "persona", "outcome": "pass", "sentence": "persona: -1.0 points (n=40), not worse by 10 points"}
FAIL = {"name": "persona", "outcome": "fail", "sentence": "persona: -30.0 points (n=40), worse by more than 10 points"}


def verdict(*checks: dict[str, str], of_first: bool = False) -> dict[str, Any]:
    name = f"persona {registry_page.SINCE_FIRST}" if of_first else "persona"
    return {
        "promoted": all(each["outcome"] == "pass" for each in checks),
        "checks": [{**each, "name": name} for each in checks],
    }


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two personalities after the first; a task above the first, measured above the second; the third was kept out."""
    made = Registry(tmp_path / "registry")
    folders = [adapter(tmp_path / name, "personality", name.encode()) for name in ("one", "two", "three")]
    digests = [card.weights_hash(folder) for folder in folders]
    shell = adapter(tmp_path / "shell", "shell", b"task", {"personality": digests[0]})
    one = made.add(folders[0], {}, lineage=Lineage("personality aa", "", "d0", "c0", "1")).id
    task = made.add(shell, {}).id
    made.promote(one, buffer="buffer-1")
    made.promote(task)
    two = made.add(folders[1], verdict(PASS), one, lineage=Lineage("retrain bb", one, "d1", "c0", "1")).id
    made.note_measured(task, {"personality": digests[1]}, verdict(PASS))
    made.switch({"personality": two, "shell": task}, made.current(), "retrain bb", "buffer-2")
    three = made.add(folders[2], verdict(FAIL, of_first=True), two, one, Lineage("retrain cc", two, "d2", "c0", "1")).id
    made.keep_out({"personality": three}, "keep out retrain cc", FAIL["sentence"])
    made.keep_out({"personality": three}, "keep out retrain cc", FAIL["sentence"])
    return made


def ids(registry: Registry) -> dict[str, str]:
    """The ids of the adapters by the names of their folders."""
    one, task, two, three = (entry.id for entry in registry.entries()[0])
    return {"one": one, "shell": task, "two": two, "three": three}


def aged(registry: Registry) -> None:
    """As if everything had been added a year ago."""
    for entry in registry.entries()[0]:
        registry._write(replace(entry, added=entry.added.replace("202", "192", 1)))


def test_personality_tasks_and_buffer_are_switched_and_rolled_back_as_one(registry: Registry) -> None:
    name = ids(registry)
    current = registry.bundle()
    assert current.adapters == {"personality": name["two"], "shell": name["shell"]}
    assert (current.buffer, current.base, current.base_digest) == ("buffer-2", "base", "digest")
    assert len(registry.history()) == 4
    registry.rollback()
    assert registry.bundle() == Bundle(
        {"personality": name["one"], "shell": name["shell"]}, "buffer-1", "base", "digest"
    )
    registry.promote(current.id)
    assert registry.bundle() == current
    registry.rollback()
    registry.promote(name["two"])
    assert registry.bundle() == current  # its buffer is that of the bundle with the same personality


def test_aliases_stand_for_bundles_and_entries(registry: Registry) -> None:
    name = ids(registry)
    assert registry.resolve("current") == registry.bundle()
    former = registry.resolve("previous")
    assert isinstance(former, Bundle) and former.get("personality") == name["one"]
    assert registry.resolve("candidate").id != registry.bundle().id
    assert registry.resolve("anchor").id == name["one"]
    registry.alias("spring", "current")
    registry.rollback()
    spring = registry.resolve("spring")
    assert isinstance(spring, Bundle) and spring.get("personality") == name["two"]
    registry.promote("spring")
    assert registry.current()["personality"] == name["two"]
    registry.alias("spring", name["three"])
    assert registry.resolve("spring").id == name["three"]
    registry.alias("spring", "")
    for wrong in ("spring", "nobody"):
        with pytest.raises(BadInput, match=f"has no {wrong}"):
            registry.resolve(wrong)
    for bad, target in (("current", "anchor"), ("a b", "anchor"), ("spring", ""), ("mine", "nobody")):
        with pytest.raises(BadInput):
            registry.alias(bad, target)
    with pytest.raises(BadInput, match="no previous bundle"):
        Registry(registry.folder / "empty").resolve("previous")


@pytest.mark.parametrize(
    ("which", "answer", "words"),
    [
        ("one", "it is", "all later personalities"),
        ("two", "yes", "-1.0 points"),
        ("three", "no", "-30.0 points"),
    ],
)
def test_the_page_says_whether_it_is_still_the_first_one(
    registry: Registry, which: str, answer: str, words: str
) -> None:
    entry = registry.entry(ids(registry)[which])
    likeness = registry_page.likeness(registry, entry)
    assert likeness.answer == answer and words in likeness.reason
    page = "\n".join(registry_page.page(registry, registry._bundle({"personality": entry.id}, "", [])))
    assert f"still the first one? {answer}" in page


def test_a_personality_that_was_never_compared_with_the_first_is_not_called_the_same(registry: Registry) -> None:
    two, three = (registry.entry(ids(registry)[name]) for name in ("two", "three"))
    registry.promote(three.id)
    registry.rebaseline()
    assert registry_page.likeness(registry, three).answer == "it is"
    likeness = registry_page.likeness(registry, two)
    assert likeness.answer == "not shown" and three.id in likeness.reason


def test_the_page_of_what_is_in_use_says_what_it_is_and_where_it_comes_from(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    name, setting = ids(registry), f"registry.folder={registry.folder}"
    assert molt("registry", "show", "current", "demo", setting) == 0
    page = capsys.readouterr().out
    for words in (
        f"{registry.bundle().id} (current)",
        "by: retrain bb",
        "base: base, digest digest",
        f"personality: {name['two']}",
        f"trained further from {name['one']}",
        "data d1, configuration c0, moltlm 1",
        "still the first one? yes",
        "replay buffer: buffer-2",
        f"shell: {name['shell']}",
        f"as it is, above {name['two']}",
        "registry diff previous current",
    ):
        assert words in page
    assert molt("registry", "show", "current", "demo", setting, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["aliases"] == ["current"] and value["still_the_first"]["answer"] == "yes"
    assert molt("registry", "show", "candidate", "demo", setting) == 0
    page = capsys.readouterr().out
    assert "kept out" in page and f"why: {FAIL['sentence']}" in page
    assert molt("registry", "show", "mine.yaml") == 2
    assert "molt registry show current mine.yaml" in capsys.readouterr().err


def test_a_difference_names_what_changed(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    name, setting = ids(registry), f"registry.folder={registry.folder}"
    assert molt("registry", "diff", "previous", "current", "demo", setting) == 0
    text = capsys.readouterr().out
    assert f"personality: {name['one']} -> {name['two']}" in text and "data: d0 -> d1" in text
    assert "buffer: buffer-1 -> buffer-2" in text and f"shell: {name['shell']}, the same" in text
    assert "config:" not in text


def test_a_changed_file_is_found(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    name, setting = ids(registry), f"registry.folder={registry.folder}"
    assert molt("registry", "verify", "demo", setting) == 0
    assert "4 adapters and the history are as they were written" in capsys.readouterr().out
    readme = registry.path(name["one"]) / "README.md"
    readme.write_text(readme.read_text() + "x")
    (registry.path(name["three"]) / "adapter_model.safetensors").unlink()
    entry = registry.path(name["shell"]) / entries.ENTRY
    entry.write_text(entry.read_text().replace(name["shell"], name["shell"][:-1] + "x", 1))
    assert molt("registry", "verify", "demo", setting, "--json") == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems[name["one"]] == ["README.md is missing or not as it was written"]
    assert problems[name["three"]] == ["adapter_model.safetensors is missing or not as it was written"]
    assert problems[name["shell"]] == ["entry.json is damaged"]
    assert any(each.startswith("current") for each in problems)


def test_only_what_nothing_needs_is_collected(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, setting = ids(registry), f"registry.folder={registry.folder}"
    more = [registry.add(adapter(tmp_path / f"x{n}", "personality", bytes([n])), {}).id for n in range(3)]
    assert registry.unused() == []  # all were added today
    aged(registry)
    assert registry.unused() == more
    registry.alias("mine", more[0])
    assert molt("registry", "gc", "demo", setting) == 0
    assert more[1] in capsys.readouterr().out and len(registry.entries()[0]) == 7
    with (registry.path(more[1]) / "adapter_model.safetensors").open("rb") as opened:
        assert molt("registry", "gc", "demo", setting, "--yes") == 0
        assert opened.read() == bytes([1])
    assert {entry.id for entry in registry.entries()[0]} == {*name.values(), more[0]}
    before = registry.current()
    registry.rollback()
    registry.promote("candidate")
    assert registry.current() != before
    assert not list(registry.folder.glob("entries/.*"))


def test_what_came_into_use_after_the_list_was_made_is_not_collected(registry: Registry, tmp_path: Path) -> None:
    late = registry.add(adapter(tmp_path / "late", "personality", b"late"), {}).id
    aged(registry)
    listed = registry.unused()
    assert listed == [late]
    registry.promote(late)
    assert registry.collect(listed) == []


def test_adapters_of_two_bases_are_no_bundle(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "other", "shell", b"other", {"personality": card.weights_hash(tmp_path / "two")})
    manifest = card.Manifest(**json.loads((folder / card.MANIFEST).read_text()))
    card.write(folder, replace(manifest, base_digest="another"))
    other = registry.add(folder, {}).id
    before = registry.history()
    with pytest.raises(BadInput, match="trained on different bases"):
        registry.promote(other)
    assert registry.history() == before


def test_readers_need_no_lock(registry: Registry) -> None:
    with registry._locked():
        assert Registry(registry.folder).current() == registry.current()
        assert registry_page.page(registry, registry.bundle())
        assert registry_page.problems(registry) == {}


def test_since_is_the_change_that_put_it_there(registry: Registry) -> None:
    history = registry.history()
    assert bundles.since(history) == history[2] and bundles.since(history, "shell") == history[1]
