"""What a disk or a hand has changed since it was made is named with the command that mends it, and is not used."""

from __future__ import annotations

import random
import shlex
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import molt
from test_pipeline import adapter

from moltlm.adapters import card
from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.pipeline.artifact_files import ARTIFACT, INPUTS, inputs_of, intact, read_record, reseal
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import cycles
from moltlm.pipeline.service.registry import Registry


def made(folder: Path) -> Artifact:
    """An artifact of one file."""

    def make(inside: Path) -> dict[str, Any]:
        write_text(inside / "rows.jsonl", '{"a": 1}\n')
        return {"rows": 1, "share": float("nan")}

    with closing(Run(load("smoke", [f"run.folder={folder}"]), Console())) as run:
        return run.do("pairs", {"seed": 1}, make)


def damage(path: Path, how: str | int) -> None:
    """Leave half or nothing of a file, or flip one bit, which the number chooses."""
    content, rng = bytearray(path.read_bytes()), random.Random(how)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
    path.write_bytes({"half": path.read_bytes()[: len(content) // 2], "empty": b""}.get(str(how), bytes(content)))


@pytest.mark.parametrize("how", ["half", "empty", *range(8)])
@pytest.mark.parametrize("name", ["rows.jsonl", INPUTS, ARTIFACT])
def test_a_damaged_file_of_an_artifact_is_named_and_made_again(tmp_path: Path, name: str, how: str | int) -> None:
    artifact = made(tmp_path)
    before = {path.name: path.read_bytes() for path in artifact.folder.iterdir()}
    damage(artifact.folder / name, how)
    with pytest.raises(BadInput, match="not as it was written") as raised:
        inputs_of(artifact.folder)
        intact(artifact.folder, "rows.jsonl")
    subprocess.run(raised.value.fix.partition(": ")[2], shell=True, check=True)
    again = made(tmp_path)
    assert again.folder == artifact.folder
    assert {path.name: path.read_bytes() for path in again.folder.iterdir() if path.name != ARTIFACT} == {
        path: content for path, content in before.items() if path != ARTIFACT
    }


def test_a_file_that_was_changed_on_purpose_is_sealed_anew(tmp_path: Path) -> None:
    artifact = made(tmp_path)
    write_text(artifact.folder / "rows.jsonl", '{"a": 2}\n')
    with pytest.raises(BadInput):
        intact(artifact.folder, "rows.jsonl")
    facts = read_record(artifact.folder)["facts"]
    reseal(artifact.folder)
    assert intact(artifact.folder, "rows.jsonl").read_text() == '{"a": 2}\n'
    assert read_record(artifact.folder)["facts"] == facts == {"rows": 1, "share": None}


@pytest.mark.parametrize("how", ["half", "empty", 1])
def test_a_damaged_note_of_a_finished_cycle_is_named_with_what_writes_it_again(tmp_path: Path, how: str | int) -> None:
    folder = tmp_path / "run" / "retrain" / "x y"
    folder.mkdir(parents=True)
    cycles.finish(folder, {"candidate": "personality-1", "before_it": []}, cycles.PROMOTED)
    assert cycles.finished(folder)["candidate"] == "personality-1"
    damage(folder / cycles.FINISHED, how)
    with pytest.raises(BadInput, match="not as it was written") as raised:
        cycles.finished(folder)
    assert shlex.quote(str(folder / cycles.FINISHED)) in raised.value.fix


@pytest.mark.parametrize("name", ["entry.json", "adapter_model.safetensors", "adapter_config.json", "moltlm.json"])
@pytest.mark.parametrize("how", ["half", 1])
def test_a_damaged_adapter_is_copied_again_from_the_run(
    tmp_path: Path, name: str, how: str | int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapter(tmp_path / "run" / "personality" / "a", "personality", b"some weights")
    manifest = card.read(folder)
    registry, settings = (
        Registry(tmp_path / "registry"),
        [f"{key}.folder={tmp_path}/{key}" for key in ("run", "registry")],
    )
    entry = registry.add(folder, {"promoted": True, "checks": []})
    registry.promote(entry.id)
    damage(registry.path(entry.id) / name, how)
    with pytest.raises(BadInput) as raised:
        registry.adapter(entry.id)
    assert "molt registry repair" in raised.value.fix and registry.damaged() == [entry.id]
    assert molt("registry", "repair", "smoke", *settings) == 0
    assert registry.damaged() == [] and card.read(registry.adapter(entry.id)) == manifest
    assert registry.entry(entry.id).verdict == ({} if name == "entry.json" else entry.verdict)
    assert molt("registry", "repair", "smoke", *settings) == 2
    assert "Nothing in the registry is damaged" in capsys.readouterr().err
    for place in (folder, registry.path(entry.id)):
        damage(place / "adapter_model.safetensors", how)
    assert molt("registry", "repair", "smoke", *settings) == 2
    assert f"no intact copy of {entry.id}" in capsys.readouterr().err
