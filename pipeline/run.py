"""A run is a folder: what was asked for, and one cached artifact for each stage and its inputs."""

from __future__ import annotations

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moltlm import __version__
from moltlm.adapters.config import CHECKPOINTS
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import fingerprint, read_json, write_json, write_text
from moltlm.pipeline.config import Config, dump
from moltlm.pipeline.console import Console

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "evaluate", "lm_eval")
DISK_NEEDED_GB = 1.0


@dataclass(frozen=True)
class Artifact:
    """What a stage left behind: a folder, the fingerprint of everything that went in, and some facts about it."""

    stage: str
    folder: Path
    fingerprint: str
    seconds: float
    facts: dict[str, Any]


class Missing(MoltError):
    """A stage has not been run, and this command runs none."""


class Run:
    """Stages ask it to make an artifact, or get the one that is there already for the same inputs.

    A stage writes into a `.partial` folder that is renamed once it is whole, so an interrupted stage leaves nothing
    that looks finished, and other inputs give another folder, so nothing is overwritten.
    """

    def __init__(self, config: Config, console: Console) -> None:
        self.config = config
        self.console = console
        self.folder = config.run.folder
        self.artifacts: dict[str, Artifact] = {}
        self.only_read = False
        self._served: Any = None
        _check_disk(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.folder} cannot be made: {error}.", "Set run.folder to one of your own.") from None
        self._lock = FileLock(str(self.folder / ".lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise BadInput(
                f"Another molt command is working in {self.folder}.", "Wait for it, or use run.folder=another/folder"
            ) from None
        self._record()

    def close(self) -> None:
        self.release()
        self._lock.release()

    def do(
        self, stage: str, inputs: dict[str, Any], make: Callable[[Path], dict[str, Any]], label: str = ""
    ) -> Artifact:
        """The artifact of `stage` for `inputs`: made by `make(folder)`, which returns facts worth keeping, or found."""
        key = key_of(stage, inputs)
        if key not in self.artifacts:
            folder = self.folder / stage / key
            if (folder / "artifact.json").is_file():
                self.artifacts[key] = _read(folder)
                if not self.only_read:
                    self.console.stage(label or stage, f"already there ({self.artifacts[key].seconds:.0f} s saved)")
            elif self.only_read:
                raise Missing(f"{label or stage} has not been run with these settings.", "Run it: molt run CONFIG")
            else:
                self.artifacts[key] = self._make(stage, key, folder, inputs, make, label or stage)
        return self.artifacts[key]

    def _make(
        self,
        stage: str,
        key: str,
        folder: Path,
        inputs: dict[str, Any],
        make: Callable[[Path], dict[str, Any]],
        label: str,
    ) -> Artifact:
        self.console.stage(label, "...")
        partial = folder.with_name(f"{key}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        for left in partial.iterdir():  # of an interrupted try: a training goes on from its checkpoints
            if left.name != CHECKPOINTS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        began = time.monotonic()
        facts = make(partial)
        seconds = time.monotonic() - began
        write_json(partial / "inputs.json", inputs)
        write_json(
            partial / "artifact.json",
            {"stage": stage, "fingerprint": key, "seconds": round(seconds, 1), "facts": facts},
        )
        partial.rename(folder)
        self.console.stage(label, f"done in {seconds:.0f} s")
        return _read(folder)

    @contextmanager
    def varied(self, config: Config) -> Iterator[None]:
        """Work with another configuration inside the `with`. The served model goes: its adapters are the other's."""
        before, self.config = self.config, config
        self.release()
        try:
            yield
        finally:
            self.config = before
            self.release()

    @property
    def base(self) -> Any:
        """The base model as configured, loaded once, to serve adapters from (`adapters.serve.Served`)."""
        if self._served is None:
            from moltlm.adapters import base, serve

            self._served = serve.Served(base.load(self.config.model))
        return self._served

    def release(self) -> None:
        """Let go of the served model before another is loaded for training."""
        if self._served is not None:
            self._served = None
            gc.collect()
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _record(self) -> None:
        """What was asked for, once for each configuration, with versions and revision."""
        text = dump(self.config)
        target = self.folder / "configs" / f"{fingerprint(text)}.yaml"
        if not target.is_file():
            write_text(target, text)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": target.name,
            "seed": self.config.run.seed,
            **environment(),
        }
        with (self.folder / "invocations.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def key_of(stage: str, inputs: dict[str, Any]) -> str:
    """The fingerprint of an artifact, and the name of its folder."""
    return fingerprint({"molting": __version__, "stage": stage, "inputs": inputs})


def environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {
        "molting": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "versions": versions,
        "revision": _revision(),
    }


def _revision() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _read(folder: Path) -> Artifact:
    raw = read_json(folder / "artifact.json")
    return Artifact(raw["stage"], folder, raw["fingerprint"], raw["seconds"], raw["facts"])


def _check_disk(folder: Path) -> None:
    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    if not there.is_dir():
        raise BadInput(f"{there} is a file, not a folder.", "Set run.folder to a folder.")
    free = shutil.disk_usage(there).free / 1e9
    if free < DISK_NEEDED_GB:
        raise BadInput(
            f"Only {free:.1f} GB are free for {folder}; a run needs {DISK_NEEDED_GB:.0f} GB.",
            "Free some space, or set run.folder to another disk.",
        )
