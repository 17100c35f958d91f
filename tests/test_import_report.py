"""What an import says about what it read and what it left out."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from moltlm.data.config import ImportConfig
from moltlm.data.conversations.report import lines
from tests.conversation_files import read, turn, write


def run_import(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "moltlm.pipeline.cli", "data", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_that_names_the_persona_runs(tmp_path: Path) -> None:
    path, out = (
        write(tmp_path / "a {b}.txt", "Vex O'Hara: Mind.", "Ana: Dead?", "Vex O'Hara: Sulks.", "Ana: And?"),
        tmp_path / "o",
    )
    refused = run_import(path, "--out", out)
    assert refused.returncode == 2
    assert not out.exists()
    assert "Who is the persona: Vex O'Hara or Ana?" in refused.stderr
    command = refused.stderr.replace("\n", " ").partition(": molt ")[2]
    result = run_import(*shlex.split(command)[2:])
    assert result.returncode == 0
    assert [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()] == ["Sulks."]
    assert "persona: Vex O'Hara; user: Ana" in result.stdout


def test_nothing_learned_is_an_error_with_reasons(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "BAD", "label": False}), tmp_path / "o.jsonl"
    result = run_import(path, "--out", out)
    assert result.returncode == 2
    assert not out.exists()
    assert "of 1 answers none is left (1 marked label: false)" in " ".join(result.stderr.split())
    assert "next:" not in result.stdout + result.stderr


def test_everything_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    chat = [
        turn("user", "a"),
        turn("assistant", "<think>x</think>b"),
        turn("user", "c"),
        turn("assistant", "no", label=0),
    ]
    write(tmp_path / "a" / "one.jsonl", {"messages": chat}, {"unknown": 1})
    write(tmp_path / "a" / "two.txt", "User: mail ana@example.org?", "Vex: Done.", "Hob: hm", "User: and?", "Vex: Yes.")
    write(tmp_path / "a" / "three.jsonl", "{oops")
    _, report = read(tmp_path / "a", config=ImportConfig())
    text = "\n".join(lines(report.facts()))
    for part in (
        "one.jsonl: messages, 1 conversations, 1 exchanges",
        "1 marked label: 0",
        "1 row of no known format",
        "1 thinking",
        "persona: Vex; user: User; neither: Hob",
        "three.jsonl: passed over, line 1",
        "redacted: 1 EMAIL",
    ):
        assert part in text, part
