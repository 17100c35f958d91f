"""What the documents say is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.main

from pipeline import cli, config, grid, records, report
from pipeline.console import Console
from pipeline.run import Run

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))


def test_the_figures_of_the_readme_are_those_of_the_committed_results() -> None:
    """Each line of the summary, and each answer that is quoted, word for word."""
    said = " ".join(README.split())
    for line in report.summary(RESULTS):
        assert line in said
    quoted = re.findall(r"^> (.+)$", README, flags=re.MULTILINE)
    answers = {" ".join(sample["answers"]["personality"]["answer"].split()) for sample in RESULTS["samples"]}
    assert quoted and set(quoted) <= answers


def test_the_committed_verdicts_are_those_of_the_committed_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: a training that was missing would be an error. And the README has each verdict's words."""
    committed = json.loads((ROOT / "docs" / "results" / "evidence.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(grid.base, "load", None)
    run = Run(config.load("evidence-135m", [f"run.folder={tmp_path}"]), Console())
    try:
        records.bring(run, ROOT / "docs" / "results" / "evidence")
        for name, was in zip(run.config.hypotheses, committed["hypotheses"], strict=True):
            found = json.loads((grid.verdict(run, name).folder / "verdict.json").read_text())
            assert (found["outcome"], found["reasons"]) == (was["outcome"], was["reasons"])
            for one, other in zip(found["comparisons"], was["comparisons"], strict=True):
                assert one["values"] == pytest.approx(other["values"])
    finally:
        run.close()
    said = " ".join(README.split())
    assert [line for line in report.summary(committed) if line not in said] == []


def test_every_command_in_the_readme_exists() -> None:
    known: dict = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, sub in re.findall(r"`molt ([a-z-]+)(?: ([a-z]+))?", README):
        assert name in known
        if commands := getattr(known[name], "commands", None):
            assert sub in commands


def test_the_committed_trainings_are_those_that_their_names_say(tmp_path: Path) -> None:
    committed = ROOT / "docs" / "results" / "evidence"
    run = Run(config.load("evidence-135m", [f"run.folder={tmp_path}"]), Console())
    try:
        brought = records.bring(run, committed)
    finally:
        run.close()
    assert len(brought) == len(list(committed.glob(f"*{records.END}"))) > 0
    assert {folder.parent.name for folder in brought} == {"pairs", "job-base", "job"}
