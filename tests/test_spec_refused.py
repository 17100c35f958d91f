"""What is no persona is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from spec_files import SOUL, read_any, read_text

from moltlm.data.errors import BadInput
from moltlm.data.spec_formats import reader


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        (
            "package.json",
            {"name": "left-pad", "version": "1.3.0", "description": "String left pad"},
            "an npm package.json",
        ),
        ("package.json", {"name": "a", "private": True, "scripts": {}}, "an npm package.json"),
        ("package-lock.json", {"name": "a", "version": "1", "lockfileVersion": 3}, "package-lock"),
        ("composer.json", {"name": "a/b", "require": {}}, "Composer"),
        ("tsconfig.json", {"compilerOptions": {}}, "TypeScript"),
        ("manifest.json", {"name": "a", "manifest_version": 3}, "browser extension"),
        ("config.json", {"architectures": ["LlamaForCausalLM"]}, "model"),
        ("world.json", {"name": "w", "entries": {"0": {"key": ["a"], "content": "x"}}}, "a lorebook"),
        ("world.json", {"spec": "lorebook_v3", "data": {"entries": []}}, "a lorebook"),
        ("preset.json", {"temp": 1, "top_p": 1}, "SillyTavern"),
        ("compose.yaml", {"services": {"web": {"image": "x"}}}, "Docker Compose"),
        ("ci.yml", {"name": "CI", "on": "push", "jobs": {}}, "GitHub Actions"),
        ("molt.yaml", {"persona": {"spec": "p"}, "pairs": {}}, "configuration of molt"),
        ("chat.json", [{"role": "user", "content": "hi"}], "conversations"),
        ("chat.json", {"messages": [{"role": "user", "content": "hi"}]}, "conversations"),
        ("any.json", {"name": "left", "price": 3}, "no character card"),
        ("any.json", {"name": "left", "description": "A lamp.", "price": 3}, "no character card"),
    ],
)
def test_what_is_no_persona_is_refused_by_name(tmp_path: Path, name: str, value: Any, what: str) -> None:
    for text in (json.dumps(value), yaml.safe_dump(value)):
        file = name if text[0] in "[{" else f"{name}.yaml"
        with pytest.raises(BadInput, match=what) as error:
            read_text(tmp_path, text, file)
        assert str(tmp_path / file) in error.value.what and "molt " in error.value.fix


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<!DOCTYPE html>\n<html></html>", "a web page"),
        ("%PDF-1.7\n", "a PDF"),
        ("#!/bin/sh\necho hi\n", "a script"),
        ("# settings\n[package]\nname = 'a'\n", "a TOML file"),
        ("import os\nprint(1)\n", "a program"),
        ("**User:** hi\n\n**Assistant:** hello\n\n**User:** bye\n", "conversations"),
    ],
)
def test_texts_that_are_no_persona(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        read_text(tmp_path, text, "SOUL.md")


@pytest.mark.parametrize(
    "text",
    [
        "# Repository Guidelines\n\n## Build\n\n- Run `make test`\n",
        "# CLAUDE.md\n\nThis file provides guidance to Claude Code (claude.ai/code) when working with code in this repository.\n",
    ],
)
def test_a_file_about_a_repository_is_no_persona(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="about a repository, not a persona"):
        read_text(tmp_path, text)


@pytest.mark.parametrize("heading", ["Installation", "Usage", "License"])
def test_the_readme_of_a_program_is_no_persona(tmp_path: Path, heading: str) -> None:
    with pytest.raises(BadInput, match="README of a program, not a persona"):
        read_text(tmp_path, f"# clock\n\nA library for clocks.\n\n## {heading}\n\n- pip install clock\n")
    persona = f"# Vex\n\nYou are patient.\n\n## {heading}\n\n- Ask before you wind it.\n"
    assert read_text(tmp_path, persona).spec.name == "Vex"


@pytest.mark.parametrize(
    "value",
    [
        "",
        " _(pick something you like)_",
        "\n  _(pick something)_",
        " [Your name]",
        " {{name}}",
        " <name>",
        " TODO",
        " ___",
        " Your Name",
    ],
)
def test_an_unfilled_template_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "IDENTITY.md").write_text(
        f"# IDENTITY.md - Who Am I?\n\n_Fill this in._\n\n- **Name:**{value}\n- **Vibe:**\n  _(how?)_\n"
    )
    (tmp_path / "me" / "SOUL.md").write_text(SOUL)
    with pytest.raises(BadInput, match="unfilled template") as error:
        read_any(tmp_path / "me")
    assert "Fill in the name" in error.value.fix and "IDENTITY.md" in error.value.fix
    spec = read_any(tmp_path / "me", "Mo")
    assert spec.name == "Mo" and "vibe" not in spec.facts and "how?" not in spec.system_prompt
    assert value.strip() == "" or value.strip() not in spec.model_dump_json()


def test_a_template_without_traits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unfilled template") as error:
        read_text(tmp_path, "# Vex\n\n## Personality\n\n- [Trait 1]\n- TODO\n")
    assert "Fill in the traits" in error.value.fix


@pytest.mark.parametrize("answer", ["completion", "answer", "response", "output"])
def test_rows_of_questions_and_answers_are_no_persona(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"prompt": "Who are you?", answer: "Nobody."}]))
    with pytest.raises(BadInput, match="These are conversations"):
        reader.read(path, name="Vex")
