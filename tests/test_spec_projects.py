"""A project is made of a spec of any kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from spec_files import CARD, CARD_BYTES, ELIZA, INSTRUCTIONS, SOUL, png, read_any, text_chunk

from moltlm.data import persona
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.pipeline import cli
from moltlm.pipeline.config import load
from moltlm.pipeline.setup import init


def write_source(tmp_path: Path, kind: str) -> Path:
    soul = "# Vex\n\n## Traits\n\n- Vex is slow.\n"
    files: dict[str, bytes] = {
        "card.json": CARD_BYTES,
        "card.png": png(text_chunk("tEXt", b"chara", CARD_BYTES)),
        "eliza.json": json.dumps(ELIZA).encode(),
        "assistant.json": json.dumps({"name": "Vex", "instructions": INSTRUCTIONS}).encode(),
        "soul.md": soul.encode(),
        "mine.json": b'["I am calm."]',
        "Modelfile": f"FROM x\nSYSTEM {INSTRUCTIONS}\n".encode(),
        "persona.yaml": yaml.safe_dump(
            {"name": "Vex", "system_prompt": "You are Vex.", "traits": [{"id": "a", "text": "I am slow."}]}
        ).encode(),
    }
    (tmp_path / kind).write_bytes(files[kind])
    return tmp_path / kind


@pytest.mark.parametrize(
    "kind",
    ["card.json", "card.png", "eliza.json", "assistant.json", "soul.md", "mine.json", "Modelfile", "persona.yaml"],
)
def test_a_name_can_be_given_to_every_source(tmp_path: Path, kind: str) -> None:
    spec = read_any(write_source(tmp_path, kind), "Quill")
    assert spec.name == "Quill" and "Vex" not in spec.system_prompt
    assert spec.traits and spec.system_prompt


@pytest.mark.parametrize("source", ["SOUL.md", "card.png", "none"])
def test_a_project_is_made_and_its_config_loads(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "none":
        answers = iter(["Ann", "A calm one.", "Briefly.", "I am calm.", "", "I joke: often.", "I never lie."])
        spec = init.ask_for_spec(lambda question, default: next(answers)).spec
        assert [trait.text for trait in spec.traits] == ["I am calm.", "I joke: often."]
    else:
        raw = SOUL.encode() if source == "SOUL.md" else png(text_chunk("tEXt", b"chara", CARD_BYTES))
        (tmp_path / source).write_bytes(raw)
        spec = read_any(tmp_path / source, "Mo" if source == "SOUL.md" else None)
    folder = tmp_path / "new" / "project"
    paths = init.create(folder, spec, "smollm2-135m-instruct")
    assert all(path.is_file() for path in paths)
    monkeypatch.chdir(folder)
    config = load("molt.yaml")
    assert config.teacher.kind == "base" and config.teacher.prompts_per_trait > 0
    assert persona.load(PersonaConfig(spec=config.persona.spec)).spec == spec
    before = {path: path.read_text() for path in paths}
    with pytest.raises(BadInput, match="exists already"):
        init.create(folder, spec, "other")
    assert before == {path: path.read_text() for path in paths}


def test_init_says_what_it_read_and_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "card.json").write_text(json.dumps({**CARD["data"], "tags": ["a", "b"]}))
    with pytest.raises(SystemExit):
        cli.main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "card.json")])
    out = " ".join(capsys.readouterr().out.split())
    assert "Ada, read from character card V1: 3 traits" in out and "tags (2)" in out
    with pytest.raises(SystemExit):
        cli.main(["init", str(tmp_path / "q"), "--from", str(tmp_path / "card.json"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["left_out"]["tags"] == 2 and result["format"] == "character card V1"


def test_init_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    with pytest.raises(SystemExit) as exited:
        cli.main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "SOUL.md"), "--name", "Mo"])
    assert exited.value.code == 0
    assert "next: cd" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exited:
        cli.main(["init", str(tmp_path / "q"), "--from", str(tmp_path / "nothing")])
    assert exited.value.code == 2
    assert not (tmp_path / "q").exists()
