"""What a helper does: its part in the trainings of the first process."""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace

import torch

from moltlm.adapters import base
from moltlm.adapters.callbacks import Diverged
from moltlm.adapters.processes import Launch, PartDone


def help_out(launch: Launch) -> None:
    """Take part in each training of the first process, until it lets the helpers go."""
    base.quiet_libraries()
    while (message := launch.receive()) is not None:
        train, job = message
        with suppress(PartDone, Diverged):
            train(replace(job, base=base.load(job.config.model)))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
