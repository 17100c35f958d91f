"""Independent jobs on one machine or on many. A job makes one artifact; which machine made it does not show in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moltlm.pipeline.run import Artifact, Missing, Run


@dataclass(frozen=True)
class Job:
    """A call that makes artifacts. The first that it asks for are those that it shares with other jobs.

    Attributes:
        label: what the console calls it.
        function: takes a run, then the arguments; importable by name on every node.
        arguments: picklable.
    """

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self, run: Run) -> Any:
        return self.function(run, *self.arguments)


Engine = Callable[[Run, Sequence[Job]], None]
"""Sees to it that the artifacts of these jobs are stored in the run, or leaves that to whoever asks for them."""


def local(run: Run, jobs: Sequence[Job]) -> None:
    """Leave every job to this process, which makes an artifact when it is asked for."""


def awaits(run: Run, job: Job) -> tuple[str | None, list[Artifact]]:
    """What a job has to make first, and the stored artifacts that it reads until then. Makes nothing.

    Returns:
        The fingerprint of the first artifact that is missing, None where the job's own is stored; and the artifacts.
    """
    reader = run.reader()
    try:
        job(reader)
    except Missing as missing:
        return missing.fingerprint, list(reader.artifacts.values())
    return None, list(reader.artifacts.values())
