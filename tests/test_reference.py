"""The generated pages are those of the program as it is, and nothing in it is without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from moltlm.evals.config import HypothesisConfig
from moltlm.pipeline import fields, reference
from moltlm.pipeline.config import Config


def test_the_generated_pages_are_fresh() -> None:
    stale = [
        str(path.relative_to(reference.ROOT))
        for path, text in reference.pages().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run: make reference"


@pytest.mark.parametrize("kind", [Config, HypothesisConfig])
def test_every_setting_has_a_description(kind: type) -> None:
    sections = list(reference.sections(kind))
    bare = {f"{one.key}.{each.key}".strip(".") for one in sections for each in one.settings if not each.description}
    bare |= {one.key for one in sections if not one.text}
    assert not bare


def test_every_command_and_option_has_a_help() -> None:
    commands = reference.commands()
    assert [one.name for one in commands if not one.help] == []
    assert [f"{one.name} {each.label}" for one in commands for each in one.parameters if not each.help] == []


def test_every_setting_is_on_the_page() -> None:
    """Every key that a configuration file may have is a section of the page or a row of one."""
    sections = list(reference.sections(Config))
    rows = {f"{one.key}.{each.key}".strip(".") for one in sections for each in one.settings}
    headings = {one.key.removesuffix(".NAME") for one in sections}
    keys = {key.replace("*", "NAME").removesuffix(".NAME") for key in fields.known_keys(Config)}
    assert keys <= rows | headings
    assert {"model.shape.layers", "tasks.NAME.kind"} <= rows


def test_the_generator_imports_no_torch() -> None:
    code = "import sys; from moltlm.pipeline import reference; reference.settings_page(); reference.cli_page(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
