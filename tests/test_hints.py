"""What an error tells a user to run: it names their own configuration, and it is a command that there is."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from commands import molt

from moltlm.pipeline import cli
from moltlm.pipeline.console import named

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "adapters", "data", "evals")
COMMAND = re.compile(r"\bmolt ((?:[a-z-]+ )[^\n`]*?\bCONFIG\b[^\n`]*)")
END = re.compile(r"   |\)|,|;|\. |: | and | shows | says |\.$")

PROVOKED = [
    ["retrain"],
    ["registry", "rollback"],
    ["registry", "rebaseline"],
    ["registry", "retire", "shell"],
    ["registry", "repair"],
    ["registry", "show", "candidate"],
    ["blame", "last"],
    ["screen", "allow", "0"],
    ["report"],
    ["data", "correct"],
    ["forget", ""],
]


@pytest.mark.parametrize("words", PROVOKED, ids=" ".join)
def test_a_hint_names_the_users_own_configuration(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a project"  # whose name a shell would split
    settings = [f"run.folder={folder}/run", f"registry.folder={folder}/registry"]
    assert molt(*words, "smoke", *settings) != 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "CONFIG" not in printed
    assert f"smoke {shlex.join(settings)}" in printed or "molt" not in printed.partition("error ")[2]


def test_the_configuration_of_an_earlier_command_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    molt("registry", "rollback", "smoke", "registry.folder=nowhere")
    molt("data", "import", "nowhere.jsonl", "--out", "out.jsonl")
    assert "nowhere/" not in capsys.readouterr().err and cli.Console.same == ()


def test_settings_come_after_the_model_of_a_move() -> None:
    text = "Name another: molt move CONFIG MODEL   or look: molt registry list CONFIG"
    assert named(text, ["my.yaml", "a=[1, 2]"]) == (
        "Name another: molt move my.yaml MODEL 'a=[1, 2]'   or look: molt registry list my.yaml 'a=[1, 2]'"
    )
    assert named("A CONFIG of which nobody speaks.", ["my.yaml"]) == "A CONFIG of which nobody speaks."


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the code, and where it stands; a value in it is X."""
    for path in sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in ast.walk(tree):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield place, "".join(v.value if isinstance(v, ast.Constant) else "X" for v in node.values)  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                yield place, node.value


def test_each_command_in_a_hint_is_one_that_there_is() -> None:
    """Its words are parsed as they would be typed; only placeholders in capitals are filled in."""
    commands = [
        (place, END.split(match.group(1).replace("'", ""))[0])
        for place, text in texts()
        for match in COMMAND.finditer(" ".join(text.split()) if "\n" in text else text)
    ]
    assert len(commands) > 60
    for place, words in commands:
        try:
            parse(words.split())
        except click.UsageError as error:
            pytest.fail(f"{place}: molt {words}: {error.format_message()}")


def parse(words: list[str]) -> None:
    """Raises UsageError for words that are no command."""
    command: Any = typer.main.get_command(cli.app)
    name: str | None = "molt"
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(click.Context(command), words)
    filled = [{"N": "3", "STATE": "base"}.get(word, word) for word in words]
    command.make_context(name, filled)
