"""A job that runs by itself: it starts when it is due, says how it stands, and tells only whom its user named."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_retrain import in_use, opened, write
from test_schedule import config, molt

from moltlm.data.endpoint import ALLOWED_HOSTS
from moltlm.data.errors import BadInput
from moltlm.data.io import utc_now
from moltlm.pipeline.config import ScheduleConfig, load
from moltlm.pipeline.identity import identity
from moltlm.pipeline.service import after_cycle, cycles, loop, metrics, notices, schedule, timing
from moltlm.pipeline.service.notices import ALLOWED_COMMANDS

WEEKLY = ScheduleConfig()
NOW = datetime(2026, 11, 28, 12, 0)


@pytest.mark.parametrize("kind", schedule.KINDS)
@pytest.mark.parametrize("every", ["daily", "weekly", "monthly"])
def test_every_kind_runs_the_same_command_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, every: str
) -> None:
    """With the settings of the call, and a path that a shell would split."""
    folder = tmp_path / "my project"
    path = config(folder)
    monkeypatch.chdir(folder)
    settings = ScheduleConfig(every=every, at="23:50", jitter_minutes=90)  # type: ignore[arg-type]
    job = schedule.plan(path, settings, kind, ["retrain.steps=3"], "registry.example/molt:1")
    due = timing.next_time(settings, NOW, job.name)
    assert (due.hour, due.minute) >= (23, 50) and due == timing.next_time(settings, NOW, job.name)
    text = "\n".join([*job.files.values(), job.line])
    assert "retrain.steps=3" in text
    cron = f"{due.minute} {due.hour} " + {"daily": "* * *", "weekly": "* * 0", "monthly": "1 * *"}[every]
    match kind:
        case "kubernetes":
            document = yaml.safe_load(text)
            assert (document["apiVersion"], document["kind"]) == ("batch/v1", "CronJob")
            assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", document["metadata"]["name"])
            spec = document["spec"]
            assert (spec["schedule"], spec["concurrencyPolicy"]) == (cron, "Forbid")
            pod = spec["jobTemplate"]["spec"]["template"]["spec"]
            assert pod["restartPolicy"] == "Never" and pod["containers"][0]["image"] == "registry.example/molt:1"
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes
            script = pod["containers"][0]["command"][2].replace("molt retrain", "exit 3; echo")
            assert subprocess.run(
                ["/bin/sh", "-c", pod["containers"][0]["command"][2].replace("molt", "false", 1)]
            ).returncode
            assert subprocess.run(["/bin/sh", "-c", f"({script})"]).returncode == 3
        case "slurm":
            assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
            when = subprocess.run(
                ["bash", "-c", f"echo {timing.gnu_date(settings, job.name)}"], capture_output=True, text=True
            )
            at = datetime.fromisoformat(when.stdout.strip())
            assert at == timing.next_time(settings, at - timedelta(minutes=1), job.name) and at > datetime.now()
            assert "#SBATCH --dependency=singleton" in text.splitlines()
        case "hf-jobs":
            words = shlex.split(text)
            assert words[:4] == ["hf", "jobs", "scheduled", "run"] and cron in words and "--no-concurrency" in words
        case "cron":
            assert text.strip().startswith(cron)
        case "systemd":
            assert f"{due:%H:%M}:00" in text
        case _:
            assert shlex.split(text.strip())[:4] == ["molt", "schedule", "loop", "molt.yaml"]


def test_a_batch_file_submits_itself_before_it_retrains_and_forgives_a_candidate_that_is_kept_out(
    tmp_path: Path,
) -> None:
    """With programs of our own in place of SLURM's and molt's."""
    from moltlm.pipeline.service import elsewhere

    log, programs = tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    for name, code in (("sbatch", 0), ("molt", 3)):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexit {code}\n')
        (programs / name).chmod(0o755)
    file = tmp_path / "job.sbatch"
    file.write_text(elsewhere.slurm("job", WEEKLY, str(tmp_path), str(file), "molt retrain mine.yaml"))
    path = f"{programs}:{os.environ['PATH']}"
    assert subprocess.run(["bash", str(file)], env={"PATH": path}).returncode == 0
    said = log.read_text().splitlines()
    assert said[0].startswith("sbatch --begin=20") and said[1] == "molt retrain mine.yaml"


def test_jitter_spreads_jobs_within_its_window() -> None:
    settings = ScheduleConfig(at="03:30", jitter_minutes=60)
    times = [timing.time_of_day(settings, f"job-{number}") for number in range(200)]
    assert min(times) >= (3, 30) and max(times) <= (4, 30) and len(set(times)) > 30
    assert {timing.time_of_day(ScheduleConfig(at="03:30"), f"job-{number}") for number in range(9)} == {(3, 30)}


def test_a_loop_catches_up_a_missed_cycle_once_and_survives_a_clock_that_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is a list of times; the command notes that it ran."""
    monkeypatch.setattr(loop, "LOOK_S", 0.01)
    record = cycles.Cycle((datetime.now(UTC) - timedelta(days=40)).isoformat(), datetime.now(UTC).isoformat())
    with cycles.recorded(tmp_path) as cycle:
        cycle.outcome = cycles.NOTHING_NEW
    (tmp_path / cycles.RECORD).write_text(json.dumps({"began": record.began, "ended": record.ended}) + "\n")
    ran, stop = tmp_path / "ran", threading.Event()
    clock = iter([datetime.now(), *[datetime.now() + timedelta(seconds=number) for number in range(4)]])
    times: list[datetime] = []

    def now() -> datetime:
        times.append(next(clock, times[-1] - timedelta(days=100) if times else datetime.now()))
        if len(times) > 8:
            stop.set()
        return times[-1]

    command = [sys.executable, "-c", f"open({str(ran)!r}, 'a').write('x')"]
    said: list[str] = []
    loop.run(ScheduleConfig(every="monthly"), "job", tmp_path, command, stop, said.append, now)
    assert ran.read_text() == "x" and "exit code 0" in said[-1]


def test_a_loop_stops_on_sigterm_and_so_does_its_cycle(tmp_path: Path) -> None:
    path = config(tmp_path / "mine")
    process = subprocess.Popen(
        [sys.executable, "-m", "moltlm.pipeline.cli", "schedule", "loop", str(path)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "A cycle runs weekly" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    assert loop._cycle([sys.executable, "-c", "import time; time.sleep(60)"], stop) == -signal.SIGTERM
    assert time.monotonic() - began < 30


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a server on this machine, and what was posted to it; `/away` leads elsewhere."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(302 if self.path == "/away" else 200)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Keep the log of the tests clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()


def test_a_cycle_is_told_to_whom_its_user_named(
    tmp_path: Path, webhook: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By URL, by the name of a variable, and by a command; however the notice fails, the cycle ends as it did."""
    path, out = config(tmp_path / "mine"), tmp_path / "notice.json"
    (url, posted), empty = webhook, f"registry.folder={tmp_path / 'none'}"
    assert molt("retrain", str(path), empty, f"schedule.notify={url}") == 2
    assert posted[0]["outcome"] == "failed" and posted[0]["config"] == str(path)
    monkeypatch.setenv("MY_HOOK", url)
    assert molt("schedule", "notify", str(path), "schedule.notify=$MY_HOOK") == 0 and len(posted) == 2
    assert molt("retrain", str(path), empty, f"schedule.notify={url}", "schedule.notify_on=[promoted]") == 2
    assert len(posted) == 2
    command = f"schedule.notify=tee {shlex.quote(str(out))}"
    capsys.readouterr()
    assert molt("retrain", str(path), empty, command) == 2
    assert "tee is none" in capsys.readouterr().err and not out.exists()
    monkeypatch.setenv(ALLOWED_COMMANDS, "cat tee false")
    assert molt("retrain", str(path), empty, command) == 2
    assert json.loads(out.read_text())["outcome"] == "failed"
    assert molt("schedule", "notify", str(path), "schedule.notify=false") == 2
    assert molt("schedule", "notify", str(path), f"schedule.notify={url}/away") == 2


@pytest.mark.parametrize(
    ("url", "allowed", "told"),
    [
        ("https://hooks.example/x", "", False),
        ("https://hooks.example/x", "hooks.example", True),
        ("http://hooks.example/x", "hooks.example", False),
        ("https://hooks.example.evil.com/x", "hooks.example", False),
        ("http://localhost:1/x", "", True),
    ],
)
def test_a_notice_goes_only_to_hosts_that_were_named_here(
    monkeypatch: pytest.MonkeyPatch, url: str, allowed: str, told: bool
) -> None:
    monkeypatch.setenv(ALLOWED_HOSTS, allowed)
    if told:
        notices.check_host(url)
    else:
        with pytest.raises(BadInput):
            notices.check_host(url)


@pytest.mark.parametrize("kind", ["cron", "systemd", "slurm"])
def test_what_was_allowed_holds_for_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv(ALLOWED_HOSTS, "a.example 100%.example")
    monkeypatch.delenv(ALLOWED_COMMANDS, raising=False)
    job = schedule.plan(config(tmp_path / "mine"), WEEKLY, kind)
    text = "\n".join([*job.files.values(), *([job.line] if kind == "cron" else [])])
    escaped = {"cron": r"100\%.example", "systemd": "100%%.example", "slurm": "100%.example"}[kind]
    assert f"a.example {escaped}" in text and ALLOWED_COMMANDS not in text


@pytest.fixture
def arguments(tiny_project: Path, tmp_path: Path) -> list[str]:
    write(
        tmp_path / "conversations" / "first.jsonl", [f"What do I do about drawer {n} by the window?" for n in range(6)]
    )
    settings = ["tasks={}", "sequence={}", "hypotheses=[]", "retrain.min_new=1"]
    settings += [f"conversations.paths=[{tmp_path / 'conversations'}]", f"registry.folder={tmp_path / 'registry'}"]
    settings += [f"retrain.conversations={tmp_path / 'conversations'}", f"run.folder={tmp_path / 'run'}"]
    return [str(tiny_project / "project.yaml"), *settings, f"schedule.metrics_file={tmp_path / 'molt.prom'}"]


def test_ten_lines_say_how_it_stands_and_metrics_say_the_same(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything; with something in use, a new conversation and half a file; after a cycle that is kept out; and
    with more that needs a person than there are lines."""
    molt("status", *arguments)
    assert "no personality. Train one: molt run" in capsys.readouterr().out
    current = in_use(arguments)
    write(tmp_path / "conversations" / "second.jsonl", ["Is there rain in the garden tonight?"])
    (tmp_path / "conversations" / "half.jsonl").write_text('{"messages": [{"role": "us')
    capsys.readouterr()
    assert molt("status", *arguments) == 0
    said = capsys.readouterr().out
    assert f"in use: {current} since {datetime.now(UTC):%Y-%m-%d}, the first one" in said
    assert "new: 1 exchanges" in said and "cannot be read" in said and "half.jsonl" in said
    assert molt("retrain", *arguments) == 3
    capsys.readouterr()
    molt("status", *arguments)
    said = capsys.readouterr().out
    assert "not promoted" in said and "kept out since: personality-" in said and "new: 0 exchanges" in said
    rows = dict(line.rsplit(" ", 1) for line in (tmp_path / "molt.prom").read_text().splitlines() if line[0] != "#")
    assert rows['molt_cycles_total{outcome="not promoted"}'] == rows["molt_last_cycle_new_exchanges"] == "1"
    assert rows['molt_last_cycle_outcome{outcome="not promoted"}'] == "1"
    assert 0 <= float(rows["molt_persona_score"]) <= 1 and float(rows['molt_gate_margin_points{check="persona"}']) > 0
    for number in range(12):
        (tmp_path / "conversations" / f"bad{number}.jsonl").write_text("{")
    capsys.readouterr()
    molt("status", *arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and "more: molt status" in lines[-1]
    (tmp_path / "registry" / "registry.json").write_text("{}")
    molt("status", *arguments)
    assert "registry repair" in capsys.readouterr().out


def test_metrics_that_cannot_be_written_change_nothing(tmp_path: Path) -> None:
    settings = load("demo", [f"run.folder={tmp_path}", f"registry.folder={tmp_path / 'r'}"])
    (tmp_path / "folder").mkdir()
    schedule = settings.schedule.model_copy(update={"metrics_file": tmp_path / "folder"})
    said: list[str] = []
    record = cycles.Cycle(utc_now(), utc_now())
    after_cycle.after(settings.model_copy(update={"schedule": schedule}), "demo", said.append, record)
    assert len(said) == 1 and "was not written" in said[0]
    assert metrics.text([("a", {"b": 'c"\n\\'}, 1.0)]).splitlines() == ["# TYPE a gauge", 'a{b="c\\"\\n\\\\"} 1']


def test_trackers_get_the_metrics_and_are_no_part_of_what_is_trained(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tracker that is not installed is named before anything is trained; one that is gets the losses. Neither makes
    another adapter."""
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    from moltlm.data.state import PERSONALITY_ADAPTER
    from moltlm.pipeline.stages import tasks

    seen: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(self, arguments: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            seen.append(logs)

    reporting = [*arguments, "train.report_to=[trackio]"]
    assert identity(load(reporting[0], reporting[1:]).train) == identity(load(arguments[0], arguments[1:]).train)
    find = "moltlm.adapters.training.importlib.util.find_spec"
    with opened(reporting) as run, monkeypatch.context() as patched:
        patched.setattr(find, lambda name: None)
        with pytest.raises(BadInput, match="trackio, which is not installed"):
            tasks.trained(run, PERSONALITY_ADAPTER)
    monkeypatch.setattr(find, lambda name: object())
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    with opened(reporting) as run:
        folder = tasks.trained(run, PERSONALITY_ADAPTER).folder
    assert any("loss" in logs for logs in seen)
    with opened(arguments) as run:
        assert tasks.trained(run, PERSONALITY_ADAPTER).folder == folder
