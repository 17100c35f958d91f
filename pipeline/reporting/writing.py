"""Writing results.json and the report of a run. Loads no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.pipeline.reporting import collect, report, story
from moltlm.pipeline.reporting.results import write_results
from moltlm.pipeline.run import Run


@dataclass(frozen=True)
class Outcome:
    """What the job leaves: two files, and lines for a terminal."""

    report: Path
    results: Path
    summary: list[str]


def write_report(run: Run) -> Outcome:
    """Write results.json, report.html and report.md from the existing records.

    Raises:
        BadInput: if nothing has been measured.
    """
    results = collect.collect(run)
    if results.empty:
        raise BadInput(
            f"Nothing has been measured in {run.folder} with these settings.",
            "Measure it: molt run CONFIG   or add the KEY=VALUE settings that it was run with.",
        )
    outcome = Outcome(run.folder / "report.html", run.folder / "results.json", story.summary(results))
    write_results(outcome.results, results)
    write_text(outcome.report, report.render(results))
    write_text(run.folder / "report.md", report.markdown(results))
    return outcome
