"""Corrections: what a user writes in place of an answer becomes one line of preference data, and is learned."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import molt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import corrections, importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.types import EDITED, Exchange
from moltlm.pipeline.commands import correct
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages.personality import personality

PLAIN = ImportConfig(redact=False, near_duplicate=1)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def read(path: Path) -> list[Exchange]:
    return list(importers.read([path], PLAIN, ImportReport()))


# --- the file


def test_a_correction_is_one_line_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / corrections.FILE
    assert corrections.append(path, user("tea?"), "No.", "Tea,\nthen.", "personality-1")
    assert not corrections.append(path, user("tea?"), "No.", " No.\n")
    (row,) = lines(path)
    assert row["prompt"] == user("tea?") and row["provenance"] == "edited" and row["said_by"] == "personality-1"
    assert row["chosen"] == [{"role": "assistant", "content": "Tea,\nthen."}]
    assert row["rejected"] == [{"role": "assistant", "content": "No."}] and row["time"].endswith("+00:00")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(path) == [Exchange(user("tea?"), "Tea,\nthen.", "", "", "corrections", "No.", EDITED)]


TEXT = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_whatever_is_corrected_is_read_as_it_was_written(tmp_path: Path, texts: list[tuple[str, str, str]]) -> None:
    path = tmp_path / corrections.FILE
    path.unlink(missing_ok=True)
    texts = [(asked.strip(), said.strip(), better.strip()) for asked, said, better in dict.fromkeys(texts)]
    written = [text for text in texts if corrections.append(path, user(text[0]), text[1], text[2])]
    assert all(said == better for _, said, better in texts if (_, said, better) not in written)
    assert len(lines(path)) == len(written) if written else not path.exists()


@pytest.mark.parametrize("texts", [("", "a", "b"), ("q", " ", "b"), ("q", "a", "\n")])
def test_a_correction_with_an_empty_text_is_refused(tmp_path: Path, texts: tuple[str, str, str]) -> None:
    with pytest.raises(BadInput, match="one of them is empty"):
        corrections.append(tmp_path / "c.jsonl", user(texts[0]), *texts[1:])
    assert not (tmp_path / "c.jsonl").exists()


def test_a_line_that_was_left_open_is_closed_first(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"messages": []}')
    assert corrections.append(path, user("q"), "a", "b")
    assert len(lines(path)) == 2


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.jsonl"
    corrections.append(path, user("q"), "a", "b")
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(BadInput, match="only a part"):
        corrections.append(path, user("q"), "a", "c")
    monkeypatch.undo()
    assert path.read_bytes() == before
    with pytest.raises(BadInput, match="not written"):
        corrections.append(tmp_path, user("q"), "a", "c")


# --- the command


@pytest.fixture(scope="module")
def project(tiny_project: Path) -> str:
    name = str(tiny_project / "project.yaml")
    run = Run(load(name), Console())
    personality(run)
    run.close()
    return name


def places(tmp_path: Path) -> list[str]:
    return [f"retrain.conversations={tmp_path}/chats", f"registry.folder={tmp_path}/registry"]


def test_an_exchange_is_corrected_without_a_model(
    project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correct, "running", None)  # no run is opened
    given_ = ["--prompt", "tea?", "--answer", "No."]
    path = tmp_path / "chats" / corrections.FILE
    assert molt("data", "correct", project, *places(tmp_path), *given_, "--edited", "No.") == 0
    assert "unchanged" in capsys.readouterr().err and not path.exists()
    assert molt("data", "correct", project, *places(tmp_path), *given_, "--edited", "Tea.", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(path), "written": 1, "unchanged": 0}
    monkeypatch.setattr(sys, "stdin", io.StringIO("Always tea.\n"))
    assert molt("data", "correct", project, *places(tmp_path), *given_) == 0
    assert "conversations.paths=[" in capsys.readouterr().out
    assert [row["chosen"][0]["content"] for row in lines(path)] == ["Tea.", "Always tea."]


def test_the_personality_answers_and_the_talk_goes_on_from_the_better_version(
    project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = "hello\nTea, said Ann.\n\nrain?\n\n/help\n/reset\nlist files\n/edit\nNothing here.\nnow\n/quit\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert molt("data", "correct", project, *places(tmp_path), "--max-new-tokens", "8") == 0
    printed = capsys.readouterr()
    assert "2 written, 1 unchanged" in printed.out and "An editor needs a terminal." in printed.err
    first, second = lines(tmp_path / "chats" / corrections.FILE)
    assert first["prompt"] == user("hello") and first["said_by"] == "personality"
    assert second["prompt"] == user("list files")  # after /reset
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nTea.\nand now?\nRain.\n"))
    out = tmp_path / "more.jsonl"
    assert molt("data", "correct", project, *places(tmp_path), "--out", str(out), "--max-new-tokens", "8") == 0
    assert [turn["content"] for turn in lines(out)[1]["prompt"]] == ["hello", "Tea.", "and now?"]


def test_the_personality_in_use_answers(
    project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(load(project), Console())
    entry = Registry(tmp_path / "registry").add(personality(run).folder, {"promoted": True, "checks": []})
    run.close()
    Registry(tmp_path / "registry").promote(entry.id)
    arguments = ["--prompt", "hello", "--edited", "Tea.", "--max-new-tokens", "8"]
    # what is in use answers, whatever the settings of the run are by now
    assert molt("data", "correct", project, *places(tmp_path), "personality.steps=77", *arguments) == 0
    assert lines(tmp_path / "chats" / corrections.FILE)[0]["said_by"] == entry.id
    assert molt("data", "correct", project, *places(tmp_path), "personality.steps=77", *arguments, "--use", "base") == 0
    assert molt("data", "correct", project, f"registry.folder={tmp_path}/none", "personality.steps=77", *arguments) == 1
    assert "Run it: molt run" in capsys.readouterr().err


def test_the_answers_of_conversations_are_gone_through(
    project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = tmp_path / "chat.txt"
    chats.write_text("User: tea?\nAssistant: No.\nUser: rain?\nAssistant: Yes.\nUser: list?\nAssistant: Of what?\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Tea.\n\n"))
    assert molt("data", "correct", project, *places(tmp_path), "--from", str(chats)) == 0
    printed = capsys.readouterr()
    assert "1 written, 1 unchanged" in printed.out and "> rain?" in printed.err
    (row,) = lines(tmp_path / "chats" / corrections.FILE)
    assert row["said_by"] == str(chats) and row["rejected"][0]["content"] == "No."
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\nc\n"))
    assert molt("data", "correct", project, *places(tmp_path), "--from", str(chats), "-n", "2") == 0
    assert len(lines(tmp_path / "chats" / corrections.FILE)) == 3


def test_an_editor_takes_the_answer_and_a_broken_one_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncat "$1" > "$0.saw"\nprintf "Tea, in two\\nlines." > "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("VISUAL", str(editor))
    assert correct._edit("No.") == "Tea, in two\nlines."
    assert editor.with_name("editor.saw").read_text() == "No."
    monkeypatch.setenv("VISUAL", str(tmp_path / "missing"))
    with pytest.raises(BadInput, match="does not work"):
        correct._edit("No.")


def test_a_held_out_prompt_is_said(project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from moltlm.data import persona

    question = persona.load(load(project).persona).heldout[0].question
    arguments = ["--prompt", question, "--answer", "No.", "--edited", "Tea."]
    assert molt("data", "correct", project, *places(tmp_path), *arguments) == 0
    assert "too near to a held-out one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--edited", "x"], ["--answer", "x"], ["--prompt", "q", "--answer", "a", "--edited", ""], ["--prompt", " "]],
)
def test_what_does_not_go_together_is_refused(project: str, tmp_path: Path, arguments: list[str]) -> None:
    assert molt("data", "correct", project, *places(tmp_path), *arguments) == 2
    assert molt("data", "correct", project, *places(tmp_path), "--from", "chats", *arguments) == 2
