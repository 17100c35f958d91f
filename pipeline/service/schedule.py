"""Schedule `molt retrain`: a systemd user timer, a cron line, or a file or line for another scheduler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from moltlm.data.endpoint import ALLOWED_HOSTS
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import fingerprint, write_text
from moltlm.pipeline.config import ScheduleConfig
from moltlm.pipeline.service import elsewhere, timing
from moltlm.pipeline.service.notices import ALLOWED_COMMANDS

MARK = "# moltlm"
KINDS = ("systemd", "cron", "loop", "kubernetes", "slurm", "hf-jobs")
FILES = ("kubernetes", "slurm")
"""Kinds that are a file, which the user hands to a scheduler."""
IMAGE = "moltlm:latest"
PASSED_ON = (ALLOWED_HOSTS, ALLOWED_COMMANDS)
"""What was allowed in the shell that installs a job holds for the job, too."""


@dataclass(frozen=True)
class Job:
    """A scheduled job.

    Attributes:
        kind: one of KINDS.
        name: unique for a config file.
        command: what is run.
        files: contents of the systemd units, or of the file for another scheduler, by path.
        line: of the crontab, or to be typed.
    """

    kind: str
    name: str
    command: str
    files: dict[Path, str]
    line: str


def plan(
    config_path: Path,
    schedule: ScheduleConfig,
    kind: str | None = None,
    overrides: list[str] | None = None,
    image: str = IMAGE,
) -> Job:
    """The job for a config file and its overrides.

    Args:
        kind: one of KINDS; None for systemd or cron, whichever the machine has.
        image: of a container, where the kind needs one.
    """
    kind = kind or ("systemd" if has_systemd() else "cron")
    config_path = config_path.resolve()
    name = f"moltlm-{config_path.stem}-{fingerprint(str(config_path))[:6]}"
    program = Path(sys.executable).with_name("molt")
    folder = shlex.quote(str(Path.cwd()))
    command = shlex.join([str(program), "retrain", str(config_path), *(overrides or [])])
    # cron takes a bare % for the end of the line, systemd for one of its own variables
    escaped = f"cd {folder} && {command}".replace("%", "\\%")
    allowed = {variable: os.environ[variable] for variable in PASSED_ON if os.environ.get(variable)}
    exports = "".join(f"export {variable}={shlex.quote(value)}; " for variable, value in allowed.items())
    line = f"{timing.cron_time(schedule, name)} {exports.replace('%', chr(92) + '%')}{escaped} {MARK} {name}"
    if kind == "cron":
        return Job(kind, name, command, {}, line)
    if kind != "systemd":
        return _elsewhere(kind, name, schedule, config_path, command, exports, overrides or [], image)
    units = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    service = (
        f"[Unit]\nDescription=moltlm: retrain, judge, promote or keep ({config_path.name})\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={_unit(str(Path.cwd()))}\nExecStart={_unit(command)}\n"
        + "".join(f'Environment="{variable}={_unit(value)}"\n' for variable, value in allowed.items())
        + "# 3: judged and not promoted, which is not a failure\nSuccessExitStatus=3\nNice=10\n"
    )
    timer = (
        f"[Unit]\nDescription=moltlm: {schedule.every} retraining\n\n"
        f"[Timer]\nOnCalendar={timing.calendar(schedule, name)}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )
    files = {units / f"{name}.service": service, units / f"{name}.timer": timer}
    return Job(kind, name, command, files, line)


def _elsewhere(
    kind: str,
    name: str,
    schedule: ScheduleConfig,
    config_path: Path,
    command: str,
    exports: str,
    overrides: list[str],
    image: str,
) -> Job:
    """The job of a kind that this machine does not run by itself."""
    folder = Path.cwd()
    arguments = ["retrain", os.path.relpath(config_path, folder), *overrides]
    if kind == "kubernetes":
        text = elsewhere.kubernetes(name, schedule, arguments, image)
        return Job(kind, name, command, {folder / f"{name}.yaml": text}, "")
    if kind == "slurm":
        file = folder / f"{name}.sbatch"
        text = elsewhere.slurm(name, schedule, str(folder), str(file), f"{exports}{command}")
        return Job(kind, name, command, {file: text}, "")
    if kind == "hf-jobs":
        return Job(kind, name, command, {}, elsewhere.hf_jobs(name, schedule, arguments, image))
    return Job(kind, name, command, {}, shlex.join(["molt", "schedule", "loop", *arguments[1:]]))


def install(job: Job) -> str:
    """Install the job, replacing an older one for the same config. Returns the commands that show and remove it.

    Raises:
        BadInput: for a kind that is only a line to type.
    """
    if job.kind in FILES:
        for path, text in job.files.items():
            write_text(path, text)
        (path,) = job.files
        start = {"kubernetes": "kubectl apply -f", "slurm": "sbatch"}[job.kind]
        return f"Start it: {start} {shlex.quote(str(path))}   Remove: molt schedule remove CONFIG --kind {job.kind}"
    if job.kind in ("loop", "hf-jobs"):
        raise BadInput(f"--kind {job.kind} is a command to run, and nothing to install.", f"Run it: {job.line}")
    if job.kind == "systemd":
        for path, text in job.files.items():
            write_text(path, text)
        _call(["systemctl", "--user", "daemon-reload"])
        _call(["systemctl", "--user", "enable", "--now", f"{job.name}.timer"])
        return f"Look: systemctl --user list-timers {job.name}.timer   Remove: molt schedule remove CONFIG"
    _write_crontab([*_other_lines(job.name), job.line])
    return "Look: crontab -l   Remove: molt schedule remove CONFIG"


def remove(job: Job) -> bool:
    """Remove the job, or its file. False when there was none."""
    if job.kind in FILES:
        written = [path for path in job.files if path.is_file()]
        for path in written:
            path.unlink()
        return bool(written)
    if job.kind in ("loop", "hf-jobs"):
        return False
    if job.kind == "systemd":
        units = [path for path in job.files if path.is_file()]
        if units:
            _call(["systemctl", "--user", "disable", "--now", f"{job.name}.timer"])
            for path in units:
                path.unlink()
            _call(["systemctl", "--user", "daemon-reload"])
        return bool(units)
    before = _crontab()
    after = _other_lines(job.name)
    if after != before:
        _write_crontab(after)
    return after != before


@dataclass(frozen=True)
class Status:
    """How a schedule stands.

    Attributes:
        installed: the job is there, as the configuration has it now.
        outdated: it is there with other settings.
        next_run: local time; None if nothing is installed.
        left_behind: configurations of other jobs that do not exist any more: their folder was moved or removed.
    """

    installed: bool
    outdated: bool
    next_run: datetime | None
    left_behind: list[Path]


def status(job: Job, schedule: ScheduleConfig, now: datetime | None = None) -> Status:
    """Whether the job is installed, when it runs next, and which jobs have lost their configuration."""
    if job.kind in FILES:
        present = all(path.is_file() for path in job.files)
        same, commands = present and all(path.read_text() == text for path, text in job.files.items()), []
    elif job.kind in ("loop", "hf-jobs"):
        present, same, commands = False, False, []
    elif job.kind == "systemd":
        present = all(path.is_file() for path in job.files)
        files = {path: path.read_text(encoding="utf-8") for path in job.files} if present else {}
        same = present and all(_anywhere(text) == _anywhere(job.files[path]) for path, text in files.items())
        units = next(iter(job.files)).parent.glob("moltlm-*.service")
        texts = [unit.read_text(encoding="utf-8", errors="replace") for unit in units]
        commands = [text.partition("ExecStart=")[2].partition("\n")[0] for text in texts]
        commands = [command.replace("%%", "%").replace("$$", "$") for command in commands]
    else:
        table = _crontab()
        own = [line for line in table if line.endswith(f"{MARK} {job.name}")]
        present, same = bool(own), [_anywhere(line) for line in own] == [_anywhere(job.line)]
        commands = [line.partition(" && ")[2].replace("\\%", "%") for line in table if f"{MARK} moltlm-" in line]
    missing = [path for command in commands if (path := _config_of(command)) and not path.is_file()]
    next_run = timing.next_time(schedule, now or datetime.now(), job.name) if same else None
    return Status(same, present and not same, next_run, missing)


def _anywhere(text: str) -> str:
    """A cron line or a unit without the folder that it was installed from."""
    return re.sub(r"(?m) cd .* && (?=\S+ retrain )|^WorkingDirectory=.*$", " ", text)


def _config_of(command: str) -> Path | None:
    """The configuration that a scheduled command retrains."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    return Path(words[words.index("retrain") + 1]) if "retrain" in words[:-1] else None


def has_systemd() -> bool:
    """Whether this machine has a systemd user session."""
    return (
        shutil.which("systemctl") is not None and Path(os.environ.get("XDG_RUNTIME_DIR", "/none"), "systemd").is_dir()
    )


def _unit(text: str) -> str:
    """Text for a systemd unit, in which % and $ begin variables."""
    return text.replace("%", "%%").replace("$", "$$")


def _crontab() -> list[str]:
    if shutil.which("crontab") is None:
        raise MoltError(
            "This machine has neither a systemd user session nor crontab.",
            "Print the line for your own scheduler: molt schedule install CONFIG --print",
        )
    listed = subprocess.run(["crontab", "-l"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if listed.returncode and "no crontab for" not in listed.stderr:
        # an empty list here would be written back, and the user's other lines would be lost
        raise MoltError(
            f"crontab -l failed, so nothing is changed: {listed.stderr.strip() or f'exit code {listed.returncode}'}",
            "Run the same command again once this works: crontab -l",
        )
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def _other_lines(name: str) -> list[str]:
    return [line for line in _crontab() if not line.endswith(f"{MARK} {name}")]


def _write_crontab(lines: list[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    written = subprocess.run(["crontab", "-"], input=text, capture_output=True, text=True)
    if written.returncode:
        raise MoltError(f"crontab refused the line: {written.stderr.strip()}", "molt schedule install CONFIG --print")


def _call(command: list[str]) -> None:
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        raise MoltError(
            f"{shlex.join(command)} failed: {completed.stderr.strip()}", "molt schedule install CONFIG --kind cron"
        )
