"""When cycles are due: by day and time, moved by a jitter that is the same for a job on a machine."""

from __future__ import annotations

import platform
from datetime import datetime, timedelta

from moltlm.data.io import fingerprint
from moltlm.pipeline.config import ScheduleConfig

DAY_MINUTES = 24 * 60


def time_of_day(schedule: ScheduleConfig, name: str = "") -> tuple[int, int]:
    """Hour and minute, local time.

    Args:
        name: of the job. Jobs and machines are spread over `schedule.jitter_minutes` after the time, within the day.
    """
    hour, minute = map(int, schedule.at.split(":"))
    start = hour * 60 + minute
    if schedule.jitter_minutes:
        start += int(fingerprint([name, platform.node()]), 16) % (schedule.jitter_minutes + 1)
    return divmod(min(start, DAY_MINUTES - 1), 60)


def next_time(schedule: ScheduleConfig, now: datetime, name: str = "") -> datetime:
    """When a cycle is due next after `now`, in local time."""
    hour, minute = time_of_day(schedule, name)
    day = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    due = {"daily": lambda at: True, "weekly": lambda at: at.isoweekday() == 7, "monthly": lambda at: at.day == 1}
    while day <= now or not due[schedule.every](day):
        day += timedelta(days=1)
    return day


def calendar(schedule: ScheduleConfig, name: str) -> str:
    """The time as systemd writes it."""
    hour, minute = time_of_day(schedule, name)
    days = {"daily": "*-*-*", "weekly": "Sun *-*-*", "monthly": "*-*-01"}
    return f"{days[schedule.every]} {hour:02}:{minute:02}:00"


def cron_time(schedule: ScheduleConfig, name: str) -> str:
    """The time as cron writes it."""
    hour, minute = time_of_day(schedule, name)
    days = {"daily": "* * *", "weekly": "* * 0", "monthly": "1 * *"}
    return f"{minute} {hour} {days[schedule.every]}"


def gnu_date(schedule: ScheduleConfig, name: str) -> str:
    """A shell expression for the next time, by GNU date."""
    hour, minute = time_of_day(schedule, name)
    at = f"{hour:02}:{minute:02}"
    when = {"daily": f"tomorrow {at}", "weekly": f"next Sunday {at}", "monthly": f"$(date +%Y-%m-01) next month {at}"}
    return f'$(date -d "{when[schedule.every]}" +%Y-%m-%dT%H:%M:%S)'
