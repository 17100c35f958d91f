"""What this machine has, and what is missing for which stage."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from moltlm.data import assets
from moltlm.pipeline.run import PACKAGES
from moltlm.pipeline.service import schedule


@dataclass(frozen=True)
class Check:
    """One fact about the machine. `mark` is `ok`, `--` (optional) or `no` (the demo cannot run without it)."""

    mark: str
    name: str
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Check Python, packages, device, memory, disk, assets and scheduler."""
    return [
        _python(),
        *(_package(name) for name in PACKAGES),
        _four_bit(),
        _device(),
        _memory(),
        _disk(),
        *_assets(),
        _schedule(),
    ]


def _python() -> Check:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check(
        "ok" if good else "no", "python", platform.python_version(), "" if good else "Use Python 3.11 to 3.13."
    )


def _package(name: str) -> Check:
    try:
        return Check("ok", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check("no", name, "missing", f"pip install {name}")


def _four_bit() -> Check:
    """Quantise and restore a small matrix as the NF4 base does."""
    try:
        import torch
        from bitsandbytes import functional as four

        weight = torch.linspace(-1, 1, 4096).reshape(64, 64)
        packed, state = four.quantize_4bit(weight, quant_type="nf4")
        error = float((four.dequantize_4bit(packed, state) - weight).abs().max())
    except Exception as problem:  # whatever is wrong with a native library, the user should read it here
        return Check("no", "4-bit base", f"{type(problem).__name__}: {problem}", "Use model.precision=bf16")
    good = error < 0.2
    return Check("ok" if good else "no", "4-bit base", f"NF4 works, largest error {error:.2f} on values in -1..1")


def _device() -> Check:
    try:
        import torch
    except ImportError as problem:
        return Check("no", "device", f"torch cannot be imported: {problem}", "pip install torch")
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("ok", "device", f"{torch.cuda.get_device_name(0)}, {total:.0f} GiB")
    from moltlm.adapters import cpu

    detail = f"CPU only, {os.cpu_count()} cores, bf16 " + ("through fp32" if cpu.speed_bf16() else "as it is")
    return Check("--", "device", detail, "Enough for the demo; an 8B model needs a GPU.")


def _memory() -> Check:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0.0
    good = pages >= 6
    return Check("ok" if good else "--", "memory", f"{pages:.0f} GiB", "" if good else "The demo needs up to 6 GiB.")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check("ok" if free > 2 else "no", "disk", f"{free:.0f} GB free", "" if free > 2 else "Free at least 2 GB.")


def _assets() -> list[Check]:
    return [
        Check("ok" if state.present else "--", state.name, state.detail, "" if state.present else "molt assets pull")
        for state in assets.status()
    ]


def _schedule() -> Check:
    if schedule.has_systemd():
        return Check("ok", "schedule", "systemd user timers")
    if shutil.which("crontab"):
        return Check("ok", "schedule", "cron")
    return Check("--", "schedule", "neither systemd nor cron", "molt schedule install CONFIG --print shows the line")
