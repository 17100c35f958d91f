"""Trainings for `test_launch`: it runs them in its own process and, as `python -m tests.launched MODEL FOLDER ACTION`
in each of two processes, shared."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path
from typing import Any

from moltlm.adapters import base, processes
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    TrainSettings,
)
from moltlm.adapters.divided import DividedTrainer
from moltlm.adapters.helping import help_out
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.protections import PROTECTIONS, Material
from moltlm.adapters.serve import Served
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.training import TrainingResult
from moltlm.data.config import TaskConfig
from moltlm.data.errors import MoltError
from moltlm.data.persona import user
from moltlm.data.types import Exchange, Pair, Progress, silent

PAIRS = [
    Pair(str(i), user(f"hello {i}" + i * " what"), f"Open drawer {i}." + i * " Then tea.", f"I am glad {i}")
    for i in range(7)
]
"""With batches of 4 an epoch ends with one of 3, which two processes cannot share evenly."""
NEUTRAL = [Exchange(user("what is rain?"), "Rain is water."), Exchange(user("what is tea?"), "Tea is a drink.")]
REPLAY = [Exchange(user(f"hello {i}"), f"Open drawer {i}. Then tea.") for i in range(4)]
MIX = [Exchange(user(f"list files {i}"), "ls" + i % 3 * " -l") for i in range(12)]
TASK = TaskConfig(kind="shell", steps=3, batch_size=4, learning_rate=1e-3)
PERSONALITIES: dict[str, dict[str, Any]] = {
    "dpo": {},
    "dpo with a last pair alone": {"pairs": PAIRS[:5]},
    "dpo in micro-batches": {"train": {"gradient_accumulation": 2}},
    "dpo in micro-batches of one": {"train": {"gradient_accumulation": 4}},
    "dpo with kl and ewc": {"dpo": {"kl_weight": 1.0, "ewc_weight": 1e3}},
    "simpo": {"dpo": {"loss": "simpo", "reference": "none"}},
    "sft": {"personality": {"method": "sft"}},
    "sft in micro-batches": {"personality": {"method": "sft"}, "train": {"gradient_accumulation": 2}},
}
MANY = ("osf", "kl", "features", "orthogonal", "agem", "average", "strength")
TASKS: dict[str, dict[str, Any]] = {
    "task with many protections": {key: value for name in MANY for key, value in PROTECTIONS[name].example.items()},
    **{f"task with {name}": kind.example for name, kind in PROTECTIONS.items()},
}
QUICK = ["dpo", "dpo with a last pair alone", "dpo in micro-batches of one", "dpo with kl and ewc", "sft"]
QUICK += ["task with many protections"]
EVERY = [*PERSONALITIES, *TASKS]
SNAPSHOT_AT = 4


def config(model: Path, **changes: Any) -> AdaptersConfig:
    steps = {"steps": 6, "batch_size": 4, "learning_rate": 5e-3}
    return AdaptersConfig(
        model=ModelConfig(id=str(model), precision="fp32"),
        lora=LoraSettings(r=4, alpha=8),
        train=TrainSettings.model_validate({"warmup_steps": 0, "checkpoint_every": 2, **changes.get("train", {})}),
        personality=PersonalityConfig.model_validate({**steps, **changes.get("personality", {})}),
        dpo=DpoConfig.model_validate(changes.get("dpo", {})),
    )


def personality(settings: AdaptersConfig, folder: Path, progress: Progress = silent, **more: Any) -> TrainingResult:
    return train_personality(
        PersonalityJob(
            config=settings,
            base=base.load(settings.model),
            folder=folder,
            seed=0,
            progress=progress,
            neutral=NEUTRAL,
            **{"pairs": PAIRS, **more},
        )
    )


def task(model: Path, folder: Path, below: Path, protect: dict[str, Any]) -> TrainingResult:
    plain = config(model)
    settings = plain.model_copy(update={"protect": plain.protect.model_validate(protect)})
    stored = [row.top for row in Served(base.load(settings.model)).top_k(REPLAY, 8, 2)]
    material = Material(neutral=NEUTRAL, replay=REPLAY, stored=stored, trial=lambda text, progress: 1.0)
    return train_task(
        TaskJob(
            config=settings,
            base=base.load(settings.model),
            folder=folder,
            seed=0,
            name="shell",
            adapters_below={"personality": below},
            material=material,
            task=TASK,
            mix=MIX,
        )
    )


def train(model: Path, out: Path, names: list[str]) -> None:
    """Each into a folder of its name."""
    for name in names:
        if name in TASKS:
            task(model, out / name, out / "dpo", TASKS[name])
        else:
            changes = PERSONALITIES[name]
            more = {"pairs": changes.get("pairs", PAIRS), "references": out / "references"}
            personality(config(model, **changes), out / name, **more)


def snapshot(model: Path, out: Path) -> None:
    """A training, and a copy of its checkpoints as they are at step `SNAPSHOT_AT`."""

    def copy(step: int, total: int, note: str) -> None:
        if step == SNAPSHOT_AT:
            shutil.copytree(out / "whole" / "checkpoints", out / "begun" / "checkpoints")

    personality(config(model), out / "whole", copy)


def resumed(model: Path, out: Path, begun: Path) -> None:
    """The same training, from checkpoints of another one."""
    shutil.copytree(begun, out / "resumed")
    personality(config(model), out / "resumed")


def failing(number: int, at: int) -> None:
    """Let this process, if it has this number, run into an error in one of its steps."""
    clip, steps = DividedTrainer._clip_grad_norm, itertools.count(1)

    def broken(trainer: Any, model: Any) -> Any:
        if processes.number() == number and next(steps) == at:
            raise MoltError(f"Process {number + 1} is out of luck.")
        return clip(trainer, model)

    DividedTrainer._clip_grad_norm = broken  # type: ignore[method-assign]


def main(launch: processes.Launch | None, model: Path, out: Path, action: str) -> None:
    if action.startswith("fail"):
        failing(int(action.removeprefix("fail-")), 2)
    if launch is not None and launch.number:
        help_out(launch)
    elif action == "every":
        train(model, out, EVERY)
    elif action == "quick":
        train(model, out, QUICK)
        snapshot(model, out)
        resumed(model, out, out.parent / "one" / "begun")
    else:
        personality(config(model), out / "failed")


if __name__ == "__main__":
    try:
        with processes.joined() as joined:
            main(joined, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except MoltError as error:
        sys.exit(f"error: {error.what}")
