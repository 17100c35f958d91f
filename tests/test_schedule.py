"""The schedule: other people's lines survive, paths may hold anything, and one can see how it stands."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from commands import molt

from moltlm.data.errors import BadInput, MoltError
from moltlm.pipeline.config import ScheduleConfig
from moltlm.pipeline.service import cycles, schedule, timing


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a crontab of our own on PATH; it fails while there is a file `down` beside it."""
    store, down = tmp_path / "table", tmp_path / "down"
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\n[ -e {down} ] && {{ echo 'cannot connect' >&2; exit 1; }}\n"
        f'if [ "$1" = -l ]; then cat {store} 2>/dev/null || {{ echo "no crontab for me" >&2; exit 1; }}; '
        f"else cat > {store}; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return store


def config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "molt.yaml"
    path.write_text(f"run: {{folder: {json.dumps(str(folder / 'run'))}}}\n")
    return path


@pytest.mark.parametrize("act", [schedule.install, schedule.remove])
def test_lines_survive_a_crontab_that_fails_for_a_moment(table: Path, tmp_path: Path, act: object) -> None:
    table.write_text("0 1 * * * backup\n")
    (tmp_path / "down").write_text("")
    job = schedule.plan(config(tmp_path / "mine"), ScheduleConfig(), "cron")
    with pytest.raises(MoltError, match="cannot connect"):
        act(job)  # type: ignore[operator]
    assert table.read_text() == "0 1 * * * backup\n"


def test_the_first_line_of_a_user_without_a_crontab(table: Path, tmp_path: Path) -> None:
    job = schedule.plan(config(tmp_path / "mine"), ScheduleConfig(), "cron")
    schedule.install(job)
    assert table.read_text().splitlines() == [job.line]


def test_any_character_of_a_path_reaches_the_command(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cron turns a bare % into the end of the line and `\\%` into %; a shell reads the rest."""
    folder = tmp_path / "100% mine $HOME 'quoted'"
    path = config(folder)
    monkeypatch.chdir(folder)
    job = schedule.plan(path, ScheduleConfig(), "cron")
    by_cron = job.line.split(" ", 5)[5].replace("\\%", "\0")
    assert "%" not in by_cron
    command = by_cron.replace("\0", "%").replace(job.command.split(" ", 1)[0], "printf '%s\\n'")
    said = subprocess.run(["/bin/sh", "-c", f"{command}"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["retrain", str(path)]
    units = schedule.plan(path, ScheduleConfig(), "systemd").files
    service = next(text for file, text in units.items() if file.suffix == ".service")
    assert "100%% mine $$HOME" in service and "100% " not in service


def test_the_status_says_what_is_installed_and_how_the_last_cycle_ended(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path / "mine")
    where = [str(path), "--kind", "cron"]
    assert molt("schedule", "status", *where) == 0
    assert "not installed" in capsys.readouterr().out
    molt("schedule", "install", *where)
    assert molt("retrain", str(path), f"registry.folder={tmp_path / 'none'}") == 2
    capsys.readouterr()
    assert molt("schedule", "status", *where) == 0
    said = capsys.readouterr().out
    assert "(cron): installed" in said and "next cycle: 20" in said
    assert "failed: No personality is in use yet" in said
    assert molt("schedule", "status", *where, "schedule.every=daily") == 0
    assert "has other settings" in capsys.readouterr().out


def test_a_job_whose_folder_was_moved_is_named_and_removed(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path / "50% old")
    molt("schedule", "install", str(path), "--kind", "cron")
    path.parent.rename(tmp_path / "new")
    moved = str(tmp_path / "new" / "molt.yaml")
    molt("schedule", "install", moved, "--kind", "cron")
    capsys.readouterr()
    molt("schedule", "status", moved, "--kind", "cron")
    assert f"molt schedule remove '{path}'" in capsys.readouterr().out
    assert molt("schedule", "remove", str(path), "--kind", "cron") == 0
    assert len(table.read_text().splitlines()) == 1 and moved in table.read_text()


@pytest.mark.parametrize(
    ("every", "expected"),
    [("daily", "2026-11-29 03:30"), ("weekly", "2026-11-29 03:30"), ("monthly", "2026-12-01 03:30")],
)
def test_the_next_time(every: str, expected: str) -> None:
    saturday = datetime(2026, 11, 28, 12, 0)
    due = timing.next_time(ScheduleConfig(every=every, at="03:30"), saturday)  # type: ignore[arg-type]
    assert f"{due:%Y-%m-%d %H:%M}" == expected
    assert timing.next_time(ScheduleConfig(every=every, at="03:30"), due) > due  # type: ignore[arg-type]


def test_cycles_are_recorded_however_they_end(tmp_path: Path) -> None:
    with cycles.recorded(tmp_path) as cycle:
        cycle.outcome = cycles.NOTHING_NEW
        cycle.passed_over["a.json"] = "no text"
    first = cycles.last(tmp_path)
    assert first and (first.outcome, first.passed_over) == (cycles.NOTHING_NEW, {"a.json": "no text"})
    with pytest.raises(BadInput), cycles.recorded(tmp_path):
        raise BadInput("It is wrong.", "Mend it.")
    with (tmp_path / cycles.RECORD).open("a") as out:
        out.write('{"began": "2026')
    second = cycles.last(tmp_path)
    assert second and (second.outcome, second.reason) == (cycles.FAILED, "It is wrong.")
    assert second.sentence().endswith("UTC, failed: It is wrong.")


def test_the_table_of_faults_names_tests_that_exist() -> None:
    root = Path(__file__).parent
    page = (root.parent / "docs" / "how-to" / "schedule-retraining.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = {
        name for file in root.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(named) > 10 and not named - written
