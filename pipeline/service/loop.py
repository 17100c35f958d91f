"""A loop that runs a cycle whenever one is due: for containers, which have no timer of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Event

from moltlm.pipeline.config import ScheduleConfig
from moltlm.pipeline.service import cycles, timing

LOOK_S = 30.0
"""So often the clock is read, which may be set meanwhile."""
GRACE_S = 30.0


def run(
    schedule: ScheduleConfig,
    name: str,
    folder: Path,
    command: list[str],
    stop: Event,
    say: Callable[[str], None],
    now: Callable[[], datetime] = datetime.now,
) -> None:
    """Run cycles one after another until `stop` is set. One that was missed since the last record is run at once.

    Args:
        folder: of the run, whose record of cycles says when the last one was.
        command: what runs a cycle.
        now: local time.
    """
    start, attempt = now(), None
    while not stop.is_set():
        began = [time for time in (_recorded(folder), attempt) if time]
        since = min(max(began, default=start), now())  # not in the future, if the clock was set back
        due = timing.next_time(schedule, since, name)
        if due <= now():
            attempt = now()
            say(f"The cycle that was due at {due:%Y-%m-%d %H:%M} begins.")
            say(f"It ended with exit code {_cycle(command, stop)}.")
        else:
            stop.wait(min(LOOK_S, (due - now()).total_seconds()))


def _recorded(folder: Path) -> datetime | None:
    """When the last recorded cycle began, in local time."""
    last = cycles.last(folder)
    return datetime.fromisoformat(last.began).astimezone().replace(tzinfo=None) if last else None


def _cycle(command: list[str], stop: Event) -> int:
    """Run a cycle; when the loop is to stop, so is it. What it has trained is continued by the next one."""
    process = subprocess.Popen(command)
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()
