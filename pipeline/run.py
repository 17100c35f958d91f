"""A run is a folder: the configurations that were run in it, and an artifact for each stage and its inputs."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from moltlm import __version__
from moltlm.adapters.config import CHECKPOINTS
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import GONE, append_line, discard, fingerprint, publish, utc_now, write_json, write_text
from moltlm.pipeline.artifact_files import (
    ARTIFACT,
    CYCLES,
    FETCHED,
    FINISHED,
    INPUTS,
    inputs_of,
    is_whole,
    read_record,
    seal,
)
from moltlm.pipeline.config import Config, dump
from moltlm.pipeline.console import Console
from moltlm.pipeline.identity import key_of, present
from moltlm.pipeline.storage import Storage

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "evaluate", "lm_eval")
DISK_NEEDED_GB = 1.0
MARK = "forgotten.json"
"""A file in an artifact that was made from something that is forgotten (`molt forget`)."""
Make = Callable[[Path], dict[str, Any]]
"""Makes an artifact's files in a folder and returns the facts worth keeping."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Artifact:
    """What a stage made: a folder, the fingerprint of everything that it was made from, and facts about it."""

    stage: str
    folder: Path
    fingerprint: str
    seconds: float
    facts: dict[str, Any]


class Missing(MoltError):
    """A stage has not been run, and the command runs none.

    Attributes:
        fingerprint: of the artifact that is missing.
    """

    def __init__(self, what: str, fix: str = "", fingerprint: str = "") -> None:
        super().__init__(what, fix)
        self.fingerprint = fingerprint


class Run:
    """Stages ask it for an artifact; it makes the artifact, or returns the stored one for the same inputs.

    A stage writes into a `.partial` folder that is renamed when it is complete, so an interrupted stage leaves nothing
    that looks finished. Other inputs give another folder, so nothing is overwritten. A run locks its folder when it
    first makes an artifact; reading what is stored needs no lock, so one can chat while a job goes on.

    Attributes:
        only_read: raise `Missing` rather than make an artifact.
        fixed: the artifacts that stages give whatever their inputs are now, by stage: a retraining goes on from the
            data that the personality in use was made from, though there are new conversations.
        in_use: adapters that stand in for the run's own, by name (`service.in_use`).
        tasks_stand_alone: whether the run's own tasks may be served: not where another personality stands in.
    """

    def __init__(self, config: Config, console: Console) -> None:
        self.console = console
        self.folder = config.run.folder
        self.artifacts: dict[str, Artifact] = {}
        self.only_read = False
        self.fixed: dict[str, Artifact] = {}
        self.in_use: dict[str, Artifact] = {}
        self.tasks_stand_alone = True
        self._served: Any = None
        self._results: dict[str, dict[Any, Any]] = {}  # of functions under `once_per_config`, by configuration
        self.config = config
        self._storage = Storage(config.run.storage) if config.run.storage else None
        self._lock = FileLock(str(self.folder / ".lock"), timeout=0)
        _check_is_folder(self.folder)

    @property
    def config(self) -> Config:
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config = config
        self.results = self._results.setdefault(fingerprint(config.model_dump(mode="json")), {})

    @property
    def references(self) -> Path:
        """Folder of reference values, which all trainings of the run share."""
        return self.folder / "references"

    def close(self) -> None:
        self.release()
        self._lock.release()

    def do(self, stage: str, inputs: dict[str, Any], make: Make, label: str = "", subject: str = "") -> Artifact:
        """The artifact of a stage for these inputs, stored or made now.

        Args:
            stage: one of `identity.STAGES`.
            inputs: everything that the artifact depends on, JSON-able; None and empty values are left out.
            label: what the console calls it; the stage and subject by default.
            subject: what it is made for, where a stage keeps a folder for each, such as the task of an adapter.

        Raises:
            Missing: if it is not stored and `only_read` is set.
        """
        inputs, name = present(inputs), f"{stage}-{subject}" if subject else stage
        if name in self.fixed:
            return self.fixed[name]
        key, label = key_of(stage, inputs, subject), label or name
        if key not in self.artifacts:
            folder = self.folder / name / key
            if not _is_usable(folder) and not self._fetch(folder, label):
                if self.only_read:
                    raise Missing(f"{label} has not been run with these settings.", "Run it: molt run CONFIG", key)
                self.start_writing()
            if _is_usable(folder):  # if not before, then another command has made it until the lock was free
                self.artifacts[key] = read_artifact(folder)
                if not self.only_read:
                    self.console.stage(label, f"reused ({self.artifacts[key].seconds:.0f} s saved)")
            else:
                self.artifacts[key] = self._make(name, folder, inputs, make, label)
            self._share(folder, label)
        return self.artifacts[key]

    def start_writing(self) -> None:
        """Lock the folder for this process, once, and record the configuration.

        Raises:
            BadInput: if the folder cannot be written, is short of space, or another process is writing in it.
        """
        if self._lock.is_locked:
            return
        _check_disk(self.folder)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)  # what people said is in it
            self._lock.acquire()
        except Timeout:
            raise BadInput(
                f"Another molt command is working in {self.folder}.",
                "Wait for it to end, or use another folder: run.folder=FOLDER",
            ) from None
        except OSError as error:
            raise BadInput(
                f"The run folder {self.folder} cannot be written: {error}.", "Set another one: run.folder=FOLDER"
            ) from None
        for gone in self.folder.glob(f"*/{GONE}"):  # of a deletion that was killed
            shutil.rmtree(gone)
        self._record()

    def _make(self, name: str, folder: Path, inputs: dict[str, Any], make: Make, label: str) -> Artifact:
        self.console.stage(label, "...")
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        for leftover in partial.iterdir():  # of an interrupted attempt; a training resumes from its checkpoints
            if leftover.name != CHECKPOINTS:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        start = time.monotonic()
        facts = make(partial)
        seconds = time.monotonic() - start
        write_json(partial / INPUTS, inputs)
        seal(partial, {"stage": name, "fingerprint": folder.name, "seconds": round(seconds, 1), "facts": facts})
        if not _is_usable(folder):
            discard(folder)
        publish(partial, folder)
        self.console.stage(label, f"done in {seconds:.0f} s")
        return read_artifact(folder)

    def fetch_all(self) -> None:
        """Take everything from the storage that is not here."""
        for name in self._storage.names() if self._storage else []:
            self._fetch(self.folder / name, name)

    def forget(self, folder: Path) -> None:
        """Delete an artifact from the storage, where no machine stores it again."""
        if self._storage and (folder / ARTIFACT).is_file():
            self._storage.forget(_object_name(folder))

    def _fetch(self, folder: Path, label: str) -> bool:
        """Take an artifact from the storage, where the folder has none of this name. Returns whether it is there."""
        if self._storage is None or folder.exists():
            return False
        if not self.only_read:
            self.start_writing()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetched = self._storage.fetch(_object_name(folder), folder, lambda content: _is_of(content, folder))
        if fetched:
            if folder.parent.name == CYCLES:
                write_json(folder / FETCHED, {"from": self._storage.url, "time": utc_now()})
            self.console.stage(label, f"fetched from {self._storage.url}")
        return fetched

    def _share(self, folder: Path, label: str) -> None:
        """Put an artifact into the storage, if it is not there. Where that fails, it is offered again by the next
        command."""
        if self._storage is None or self.only_read:
            return
        try:
            if self._storage.has(_object_name(folder)):
                return
            if _is_of(folder, folder):
                self._storage.store(_object_name(folder), folder, leave_out=[FINISHED, FETCHED])
            else:
                self.console.stage(label, f"not stored in {self._storage.url}: files of it are missing or changed")
        except BadInput as error:
            self.console.error(error.what, f"{label} is only on this machine. {error.fix}")

    def stored(self, stage: str) -> list[Path]:
        """The folders of a stage's artifacts, sorted; those of another version of the stage are left out."""
        folders = (path.parent for path in sorted((self.folder / stage).glob(f"*/{ARTIFACT}")))
        return [folder for folder in folders if key_of(stage, inputs_of(folder)) == folder.name]

    @contextmanager
    def varied(self, config: Config) -> Iterator[None]:
        """Use another configuration inside the `with`. The served model is released, since its adapters belong to the
        former configuration."""
        before, self.config = self.config, config
        self.release()
        try:
            yield
        finally:
            self.config = before
            self.release()

    @contextmanager
    def reading(self, only: bool = True) -> Iterator[None]:
        """Make nothing inside the `with`: what is not stored raises `Missing`.

        Args:
            only: False to make what is not stored.
        """
        before, self.only_read = self.only_read, only
        try:
            yield
        finally:
            self.only_read = before

    def reader(self) -> Run:
        """Another run of this folder, which makes nothing and has read nothing yet."""
        reader = Run(self.config, self.console)
        reader.only_read, reader.fixed, reader.in_use = True, self.fixed, self.in_use
        return reader

    @property
    def base(self) -> Any:
        """The base model of the configuration, loaded once, to serve adapters from (`adapters.serve.Served`)."""
        if self._served is None:
            from moltlm.adapters import base, serve

            self._served = serve.Served(base.load(self.config.model))
        return self._served

    def release(self) -> None:
        """Free the served model, before another is loaded for training."""
        if self._served is not None:
            self._served = None
            gc.collect()
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _record(self) -> None:
        """Store the configuration, once for each, and log this invocation with versions and revision."""
        text = dump(self.config)
        target = self.folder / "configs" / f"{fingerprint(text)}.yaml"
        if not target.is_file():
            write_text(target, text)
        line = {
            "time": utc_now(),
            "config": target.name,
            "seed": self.config.run.seed,
            **environment(),
        }
        append_line(self.folder / "invocations.jsonl", json.dumps(line))


def once_per_config(
    function: Callable[Concatenate[Run, Arguments], Result],
) -> Callable[Concatenate[Run, Arguments], Result]:
    """Call a function of a run once for each configuration and arguments (which are hashable), and keep its result.

    A stage asks for the same few artifacts upstream again and again, and each time would hash the files behind them.
    """

    @functools.wraps(function)
    def cached(run: Run, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        key = (function.__module__, function.__qualname__, args, tuple(sorted(kwargs.items())))
        results = run.results  # before the call, which may vary the configuration
        if key not in results:
            results[key] = function(run, *args, **kwargs)
        return results[key]

    return cached


def environment() -> dict[str, Any]:
    """Versions of the package, Python, the libraries and the code, for records."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {
        "moltlm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "versions": versions,
        "revision": _revision(),
    }


def _revision() -> str | None:
    """What git says of the code, if it lies in a repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    try:
        description = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return description.stdout.strip() or None


def read_artifact(folder: Path) -> Artifact:
    """The artifact that is stored in a folder. Raises BadInput if its record is damaged."""
    raw = read_record(folder)
    return Artifact(raw["stage"], folder, raw["fingerprint"], raw["seconds"], raw["facts"])


def _object_name(folder: Path) -> str:
    """The name of an artifact in a storage."""
    return f"{folder.parent.name}/{folder.name}"


def _is_of(content: Path, folder: Path) -> bool:
    """Whether a folder has the whole artifact that belongs into another, or itself."""
    return is_whole(content, folder.parent.name, folder.name)


def _is_usable(folder: Path) -> bool:
    """Whether an artifact is complete, and not made from something that is forgotten."""
    return (folder / ARTIFACT).is_file() and not (folder / MARK).is_file()


def _check_is_folder(folder: Path) -> None:
    """Raises BadInput for a file, or a folder within one."""
    if not nearest(folder).is_dir():
        raise BadInput(f"{nearest(folder)} is a file, not a folder.", "Set another run folder: run.folder=FOLDER")


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(nearest(folder)).free / 1e9
    if free < DISK_NEEDED_GB:
        raise BadInput(
            f"Only {free:.1f} GB are free for {folder}; a run needs {DISK_NEEDED_GB:.0f} GB.",
            "Free some space, or use a folder on another disk: run.folder=FOLDER",
        )


def nearest(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
