"""Faults, each made in the process of a command before it starts (`trials.Fault`), or in a project's files."""

from __future__ import annotations

import ctypes
import datetime
import mmap
import os
import random
import re
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials import Fault

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""Audit events that change files; `open` does so by its mode."""
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, CLONE_NEWNS = 1, 32, 4096, 1 << 14, 1 << 18, 0x20000
Kind = dict[str, Path]
"""Kinds of files, each with one file of it."""


def _at_changes(folder: Path, act: Callable[[int], None]) -> None:
    """Call `act` with the number of each change of a file in the folder, just before it."""
    inside, state = str(folder), {"count": 0, "is_acting": False}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_change = event in CHANGES or (event == "open" and _writes(arguments))
        if state["is_acting"] or not is_change or not isinstance(arguments[0], str | bytes):
            return
        if str(Path(os.fsdecode(arguments[0])).absolute()).startswith(inside):
            state["count"] += 1
            state["is_acting"] = True
            act(state["count"])
            state["is_acting"] = False

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


class Counting:
    """A fault that is none: it counts the changes of files."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        return struct.unpack("q", self._shared[:8])[0]

    def __call__(self, folder: Path) -> None:
        def note(number: int) -> None:
            self._shared[:8] = struct.pack("q", number)

        _at_changes(folder, note)


def killed(at: int) -> Fault:
    """SIGKILL before the `at`-th change of a file."""

    def fault(folder: Path) -> None:
        _at_changes(folder, lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == at else None)

    return fault


def power_cut(at: int) -> Fault:
    """At the `at`-th change of a file (0: after the command's end), all that was written since the start and not synced
    is lost: such files are empty. Then SIGKILL."""

    def fault(folder: Path) -> Callable[[], None]:
        before, synced, sync = _states(folder), dict[int, tuple[int, int]](), os.fsync

        def fsync(handle: Any) -> None:
            sync(handle)
            stat = os.fstat(handle if isinstance(handle, int) else handle.fileno())
            synced[stat.st_ino] = (stat.st_size, stat.st_mtime_ns)

        def lose() -> None:
            for path, (inode, *state) in _states(folder).items():
                if before.get(path) != (inode, *state) and synced.get(inode) != tuple(state):
                    os.truncate(path, 0)
            os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = fsync
        _at_changes(folder, lambda number: lose() if number == at else None)
        return lose if not at else lambda: None

    return fault


def _states(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Inode, size and time of change of every file."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in files}


def _mount(*arguments: Any) -> None:
    """mount(2): source, target, type, flags, data."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*(item.encode() if isinstance(item, str) else item for item in arguments)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), arguments[1])


def resize(disk: Path, size: str) -> None:
    """Give a disk in memory another size."""
    _mount("tmpfs", str(disk), "tmpfs", MS_REMOUNT, f"size={size}")


def full(disk: Path, at: int) -> Fault:
    """From the `at`-th change of a file on, the disk has no free block."""

    def fill(number: int) -> None:
        if number == at:
            stat = os.statvfs(disk)
            resize(disk, str((stat.f_blocks - stat.f_bfree) * stat.f_frsize))

    return lambda folder: _at_changes(folder, fill)


def read_only(name: str) -> Fault:
    """A folder of the project is read-only for this process, as on a disk that is mounted so."""

    def fault(folder: Path) -> None:
        place = str(folder / name)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        _mount("none", "/", None, MS_REC | MS_PRIVATE, None)
        _mount(place, place, None, MS_BIND, None)
        _mount(place, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
        os.chdir(folder)  # into what is mounted there now

    return fault


def clock(seconds: float) -> Fault:
    """The clock is wrong by so much."""

    def fault(folder: Path) -> None:
        real, real_time = datetime.datetime, time.time

        class Shifted(real):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return real.now(tz) + datetime.timedelta(seconds=seconds)

        for name, module in list(sys.modules.items()):
            if name.startswith("moltlm") and getattr(module, "datetime", None) is real:
                module.datetime = Shifted  # type: ignore[attr-defined]
        datetime.datetime = Shifted  # type: ignore[misc]
        time.time = lambda: real_time() + seconds

    return fault


def both(first: Fault, second: Fault) -> Fault:
    """Two faults in one."""

    def fault(folder: Path) -> None:
        first(folder)
        second(folder)

    return fault


def cut(file: Path) -> None:
    """Leave half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flipped(file: Path) -> None:
    """Flip one bit of a file; which one depends on its name."""
    content, rng = bytearray(file.read_bytes()), random.Random(file.name)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
    file.write_bytes(content)


def kinds(folder: Path, in_use: str) -> Kind:
    """Every kind of file of a folder: what differs in fingerprints alone is one kind. Of the registry's entries, those
    of what is in use are another."""
    found: Kind = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).replace(in_use, "IN USE")
        name = re.sub(r"[0-9a-f]{10,64}|\d{4}-\d\d-\d\dT\d+", "*", name)
        if path.is_file() and path.stat().st_size and not path.name.endswith(".lock") and path.name != "molt.yaml":
            found[name] = path
    return found


def not_finite(step: int) -> Fault:
    """The loss of one step of each training is not a number."""

    def fault(folder: Path) -> None:
        from moltlm.adapters import trainers

        original = trainers.StageTrainer.training_step

        def broken(self: Any, *arguments: Any, **options: Any) -> Any:
            loss = original(self, *arguments, **options)
            return loss * float("nan") if self.state.global_step == step - 1 else loss

        trainers.StageTrainer.training_step = broken  # type: ignore[method-assign]

    return fault


def out_of_memory_in_training(most: int) -> Fault:
    """A micro-batch of more examples than these does not fit."""

    def fault(folder: Path) -> None:
        import torch

        from moltlm.adapters import trainers

        original = trainers.StageTrainer.training_step

        def small(self: Any, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            if self.args.per_device_train_batch_size > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return original(self, model, inputs, *arguments, **options)

        trainers.StageTrainer.training_step = small  # type: ignore[method-assign]

    return fault


def out_of_memory_elsewhere(most: int) -> Fault:
    """More texts than these do not fit, when they are answered or scored."""

    def fault(folder: Path) -> None:
        import torch

        from moltlm.adapters import serve

        def small(original: Any) -> Any:
            def limited(self: Any, rows: Any, *arguments: Any) -> Any:
                if len(rows) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
                return original(self, rows, *arguments)

            return limited

        for name in ("_continued", "completion_logits"):
            setattr(serve.TextModel, name, small(getattr(serve.TextModel, name)))

    return fault


def impatient(folder: Path) -> None:
    """Wait a second for those who are told of a cycle, rather than as long as usual."""
    from moltlm.pipeline.service import notices

    notices.TIMEOUT_S = 1
