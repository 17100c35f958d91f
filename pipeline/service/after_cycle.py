"""What follows a cycle, however it ended: its figures go into its record, its metrics are written, a notice is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moltlm.data.io import read_jsonl
from moltlm.evals.stats import mean
from moltlm.pipeline.config import Config
from moltlm.pipeline.run import Artifact
from moltlm.pipeline.service import metrics, notices
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


def _persona_score(folder: Path, state: str) -> float | None:
    """The mean score of the persona records of a state in the folder of a cycle."""
    file = folder / f"persona_{state}.jsonl"
    return mean([float(row["score"]) for row in read_jsonl(file)]).mean if file.is_file() else None


def after(config: Config, name: str, say: Callable[[str], None], record: Cycle) -> None:
    """Write the metrics and send the notice. What goes wrong is said, and changes nothing.

    Args:
        name: of the configuration.
    """
    settings = config.schedule
    if settings.metrics_file:
        try:
            metrics.write(settings.metrics_file, config)
        except Exception as error:  # a full disk, or a damaged registry, which the cycle itself has named
            say(f"{settings.metrics_file} was not written: {error}")
    if settings.notify and record.outcome in settings.notify_on:
        notices.send(settings.notify, record, name, say)
