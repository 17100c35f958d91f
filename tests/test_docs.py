"""What the documents say is so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from moltlm.pipeline import cli, config
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import report
from moltlm.pipeline.run import Run
from moltlm.pipeline.studies import archive as records
from moltlm.pipeline.studies import grid

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS, EVIDENCE = (
    json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))
    for name in ("demo.json", "evidence.json")
)
TRAININGS = ROOT / "docs" / "results" / "evidence"


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, list[Path]]]:
    """A run with the committed trainings, and the folders where they lie in it."""
    run = Run(config.load("evidence-135m", [f"run.folder={tmp_path_factory.mktemp('evidence')}"]), Console())
    yield run, records.import_trainings(run, TRAININGS)
    run.close()


def test_the_figures_of_the_readme_are_those_of_the_committed_results() -> None:
    """Each line of the summary, and each answer that is quoted, word for word."""
    said = " ".join(README.split())
    for line in [*report.summary(RESULTS), *report.summary(EVIDENCE)]:
        assert line in said
    quoted = re.findall(r"^> (.+)$", README, flags=re.MULTILINE)
    answers = {" ".join(sample["answers"]["personality"]["answer"].split()) for sample in RESULTS["samples"]}
    assert quoted and set(quoted) <= answers


def test_the_committed_verdicts_are_those_of_the_committed_trainings(
    brought: tuple[Run, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: a training that was missing would be an error."""
    run, _ = brought
    monkeypatch.setattr(grid.base, "load", None)
    for name, was in zip(run.config.hypotheses, EVIDENCE["hypotheses"], strict=True):
        found = json.loads((grid.verdict(run, name).folder / "verdict.json").read_text())
        assert (found["outcome"], found["reasons"]) == (was["outcome"], was["reasons"])
        for one, other in zip(found["comparisons"], was["comparisons"], strict=True):
            assert one["values"] == pytest.approx(other["values"])


def test_every_command_in_the_readme_exists() -> None:
    known: dict = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, sub in re.findall(r"`molt ([a-z-]+)(?: ([a-z]+))?", README):
        assert name in known
        if commands := getattr(known[name], "commands", None):
            assert sub in commands


def test_the_committed_trainings_are_those_that_their_names_say(brought: tuple[Run, list[Path]]) -> None:
    _, folders = brought
    assert len(folders) == len(list(TRAININGS.glob(f"*{records.SUFFIX}"))) > 0
    assert {folder.parent.name for folder in folders} == set(records.FILES)
