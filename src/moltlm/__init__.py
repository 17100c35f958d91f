"""Teach a local language model new tasks without losing who it is, and prove it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Torch's threads read these once, when it is imported. By default they spin while they wait for each other, and so take
# the processors from those they wait for as soon as any other program runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

if TYPE_CHECKING:
    from moltlm.pipeline.api import Project

# Hugging Face's libraries report their use to servers unless these say otherwise when they are first imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")

__version__ = "0.1.0"
__all__ = ["Project", "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for, so that the command line starts at once."""
    if name == "Project":
        from moltlm.pipeline.api import Project

        return Project
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
