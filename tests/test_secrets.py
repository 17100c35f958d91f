"""Keys go only where the user of this machine lets them; strangers' texts steer no terminal and run no code."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from moltlm.adapters import base
from moltlm.adapters.config import ModelConfig
from moltlm.data import endpoint, io
from moltlm.data.config import TeacherConfig
from moltlm.data.errors import BadInput
from moltlm.data.rows import write_rows
from moltlm.data.types import Exchange
from moltlm.pipeline import cli, config, console


@pytest.mark.parametrize(
    ("url", "variable", "allowed", "sent"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY", "", True),
        ("https://api.openai.com.evil.com/v1", "OPENAI_API_KEY", "", False),
        ("https://evil.com/v1", "OPENAI_API_KEY", "", False),
        ("https://api.openai.com/v1", "HOME_SECRET", "", False),
        ("https://mine.example/v1", "HOME_SECRET", "other.example, MINE.example", True),
        ("http://mine.example/v1", "HOME_SECRET", "mine.example", False),
        ("http://localhost:8000/v1", "HOME_SECRET", "", True),
        ("http://127.0.0.1:8000/v1", "HOME_SECRET", "", True),
        ("http://[::1]:8000/v1", "HOME_SECRET", "", True),
        ("http://127.0.0.1.evil.com/v1", "HOME_SECRET", "", False),
    ],
)
def test_a_key_goes_only_to_hosts_that_were_named_here(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, allowed: str, sent: bool
) -> None:
    monkeypatch.setenv(variable, "s3cret")
    monkeypatch.setenv(endpoint.ALLOWED_HOSTS, allowed)
    settings = TeacherConfig(url=url, api_key_env=variable, model="m")
    if sent:
        assert endpoint.key_for(settings) == "s3cret"
        return
    with pytest.raises(BadInput) as refused:
        endpoint.key_for(settings)
    assert "s3cret" not in refused.value.what + refused.value.fix
    without = TeacherConfig(url=url, api_key_env="", model="m")
    assert endpoint.key_for(without) == ""


@pytest.mark.parametrize("url", ["https://me:hunter2@host/v1", "https://host/v1?key=hunter2"])
def test_a_password_in_a_url_stands_nowhere(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput) as refused:
        config.load("demo", [f"teacher.url={url}"])
    console.Console().error(refused.value.what, refused.value.fix)
    assert "environment variable" in refused.value.what
    if "@" in url:
        assert "hunter2" not in capsys.readouterr().err


def test_what_people_said_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_rows(tmp_path / "rows.jsonl", [Exchange([{"role": "user", "content": "hi"}], "Hello.")])
        io.append_line(tmp_path / "cache.jsonl", "{}")
        io.write_text(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"rows.jsonl": 0o600, "cache.jsonl": 0o600, "report.html": 0o666}


def test_half_a_line_of_a_killed_process_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text('{"a": 1}\n{"b"')
    io.append_line(tmp_path / "cache", '{"c": 3}')
    assert (tmp_path / "cache").read_text() == '{"a": 1}\n{"b"\n{"c": 3}\n'


def test_no_output_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    foreign = "a\x1b[31mb\x1b]0;owned\x07c\x9b2Jd\re\u202ef\x7f\ttab\nline [bold]x[/bold] é 👩‍🚀"
    for json_output in (False, True):
        out = console.Console(json_output)
        out.say(foreign)
        out.stage(foreign, foreign)
        out.error(foreign, foreign)
        out.result({"text": foreign}, foreign)
        with out.progress(foreign) as progress:
            progress._every = -1.0  # type: ignore[attr-defined]
            progress(1, 2, foreign)
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert not [char for char in text if char in "\x1b\x07\x9b\r\u202e\x7f"]
        assert "tab\nline [bold]x[/bold] é 👩‍🚀" in captured.err
        if json_output:
            assert json.loads(captured.out) == {"text": foreign}


def test_a_models_own_code_is_not_run(tiny: Path, tmp_path: Path) -> None:
    """Also where `y` stands on a pipe."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    program = (
        "from moltlm.adapters import base; from moltlm.adapters.config import ModelConfig;"
        f"base.load(ModelConfig(id={str(folder)!r}, precision='fp32'))"
    )
    done = subprocess.run([sys.executable, "-c", program], input="y\ny\n", capture_output=True, text=True, timeout=300)
    assert done.returncode and "BadInput" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_template_that_does_not_end_is_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    loop = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(loop)
    monkeypatch.setattr(base, "TEMPLATE_S", 1.0)
    with pytest.raises(BadInput, match="does not end"):
        base.load_text(ModelConfig(id=str(tmp_path), precision="fp32"))


def test_what_a_killed_process_left_in_the_temporary_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in (ended.pid, os.getpid()):
        (tmp_path / f"{base.TEMPORARY}{number}-x").mkdir()
    base.quiet_libraries()
    assert [path.name for path in tmp_path.iterdir()] == [f"{base.TEMPORARY}{os.getpid()}-x"]


@pytest.mark.parametrize(
    ("number", "message"), [(28, "The disk is full"), (30, "cannot be used"), (13, "cannot be used")]
)
def test_a_full_disk_and_a_read_only_folder_are_no_tracebacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, message: str
) -> None:
    def failing(**options: object) -> None:
        raise OSError(number, os.strerror(number), "/somewhere/file")

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and "Traceback" not in error
