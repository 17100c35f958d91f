"""What follows a cycle, however it ended: its figures go into its record, a page and metrics are
written, a notice is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from moltlm.data.io import read_jsonl
from moltlm.data.rows import read_rows
from moltlm.data.types import Exchange
from moltlm.evals.stats import mean
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.config import Config
from moltlm.pipeline.run import Artifact
from moltlm.pipeline.service import cycle_page, metrics, notices
from moltlm.pipeline.service.cycles import CheckFigures, Cycle


def note(record: Cycle, artifact: Artifact) -> None:
    """Take the figures of a cycle into its record."""
    facts = artifact.facts
    record.new_exchanges = facts["new_exchanges"]
    record.checks = {
        check["name"]: CheckFigures(check["difference"], check["low"], check["margin"])
        for check in facts["verdict"]["checks"]
        if all(isinstance(check[key], int | float) for key in ("difference", "low", "margin"))
    }
    record.persona = _persona_score(artifact.folder, "candidate" if facts["promoted"] else "current")
    first = _persona_score(artifact.folder, "anchor")  # absent where the first one is in use
    record.first = _persona_score(artifact.folder, "current") if first is None else first
    record.remedy = facts["attempts"][-1]["name"] if len(facts["attempts"]) > 1 else ""
    record.name = artifact.fingerprint
    learned = read_rows(intact(artifact.folder, "new.jsonl"), Exchange)
    record.sources = dict(Counter(item.source or "unnamed" for item in learned))


def _persona_score(folder: Path, state: str) -> float | None:
    """The mean score of the persona records of a state in the folder of a cycle."""
    file = folder / f"persona_{state}.jsonl"
    return mean([float(row["score"]) for row in read_jsonl(file)]).mean if file.is_file() else None


def after(config: Config, name: str, say: Callable[[str], None], record: Cycle) -> None:
    """Write the page and the metrics, and send the notice. What goes wrong is said, and changes nothing.

    Args:
        name: of the configuration.
    """
    settings = config.schedule
    try:
        if page := cycle_page.write(config, name):
            say(f"page: {page}")
    except OSError as error:  # a full disk, or a read-only folder
        say(f"The page of this cycle was not written: {error}")
    if settings.metrics_file:
        try:
            metrics.write(settings.metrics_file, config)
        except Exception as error:  # a full disk, or a damaged registry, which the cycle itself has named
            say(f"{settings.metrics_file} was not written: {error}")
    if settings.notify and record.outcome in settings.notify_on:
        notices.send(settings.notify, record, name, say)
