"""What every training shares: the job's description, the trainer's arguments, checkpoints, and the checks around it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from bitsandbytes.optim import GlobalOptimManager
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import PrinterCallback

from moltlm.adapters import frozen, processes, targets
from moltlm.adapters.base import Base, load
from moltlm.adapters.callbacks import MetricsLog, StopOnDivergence
from moltlm.adapters.config import CHECKPOINTS, AdaptersConfig, LoraSettings
from moltlm.adapters.protections.base import Context, Material, Stage
from moltlm.adapters.serve import TextModel
from moltlm.adapters.trainers import TRAINED
from moltlm.data import memory
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import fingerprint, read_json, write_json
from moltlm.data.types import Progress, silent

logger = logging.getLogger("moltlm")

SATURATES = 1e-2
"""A learning rate above which tensors that did not move had lost their gradient, rather than never had one."""
_LOGS = os.environ.get("TENSORBOARD_LOGGING_DIR", "")
Measure = Callable[[int, TextModel], None]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What every training is given. Each consumes `base` and writes to `folder`."""

    config: AdaptersConfig
    base: Base
    folder: Path
    seed: int
    progress: Progress = silent

    @property
    def divisible(self) -> bool:
        """Whether several processes can share its steps."""
        return True

    def for_helpers(self) -> Self:
        """The job as the processes other than the first get it: without its base, which each loads, and without what
        the first alone does."""
        return replace(self, base=None, progress=silent)


@dataclass(frozen=True, kw_only=True)
class AdapterJob(TrainingJob):
    """A training above frozen adapters.

    Attributes:
        name: of the adapter that is trained.
        adapters_below: folders of the adapters that are active and frozen, lowest first, the personality among them.
        start: folder of the adapter to train further; None for a new one.
        material: what the protections of `config.protect` compare with.
    """

    name: str
    adapters_below: dict[str, Path]
    start: Path | None = None
    material: Material = field(default_factory=Material)

    def for_helpers(self) -> Self:
        trial = _not_tried if self.material.trial else None
        return replace(super().for_helpers(), material=replace(self.material, trial=trial))

    def context(
        self, model: Any, stage: Stage, reference: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> Context:
        return Context(
            text=TextModel(model, self.base.tokenizer),
            config=self.config,
            settings=self.config.protect,
            stage=stage,
            adapter=self.name,
            adapters_below=list(self.adapters_below),
            start=self.start,
            seed=self.seed,
            material=self.material,
            progress=self.progress,
            reference=reference,
        )


Job = TypeVar("Job", bound=TrainingJob)


def _not_tried(model: TextModel, progress: Progress) -> float:
    raise AssertionError("only the first process finishes a training")


@dataclass(frozen=True)
class Schedule:
    """`steps` optimizer steps of `batch_size` examples, over all micro-batches."""

    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Measurements:
    """`measure` is called with the step and the model in eval mode after the steps `at`; such a training is not
    resumable."""

    measure: Measure
    at: tuple[int, ...]


@dataclass(frozen=True)
class TrainingResult:
    """What a training made.

    Attributes:
        parameters: number of trained parameters.
        frozen_tensors: how many tensors were checked to be bit-identical afterwards.
        changed_tensors: how many trained tensors were checked to have changed.
        peak_gib: peak memory of the GPU, or of the process without one.
        records: what the protections recorded at the end.
    """

    folder: Path
    seconds: float
    parameters: int
    frozen_tensors: int
    changed_tensors: int
    steps: int
    peak_gib: float
    records: dict[str, Any] = field(default_factory=dict)


def run_training(
    job: TrainingJob, trainer: Any, label: str, measurements: Measurements | None = None
) -> TrainingResult:
    """Train between hash checks: frozen tensors stayed as they were, trained ones changed. Continues from the newest
    complete checkpoint of an interrupted attempt, and lets the protections finish.

    Raises:
        MoltError: the training diverged, a frozen tensor changed, or a trained one did not.
    """
    model, folder = trainer.model, job.folder
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    checkpoints = folder / CHECKPOINTS
    trainer.remove_callback(PrinterCallback)
    advice = _lower_rate(label, trainer.args.learning_rate)
    trainer.add_callback(StopOnDivergence(trainer, advice, lambda batches: _examples(batches, job.base.tokenizer)))
    if not processes.is_first():
        _take_steps(trainer, checkpoints, names)
        raise processes.PartDone
    frozen_before, trained_before = frozen.hash_frozen(model, names), frozen.hash_trained(model, names)
    trainer.add_callback(_metrics_log(job, checkpoints, measurements))
    _reset_peak()
    began = time.monotonic()
    _take_steps(trainer, checkpoints, names)
    seconds, peak = time.monotonic() - began, _peak_gib()
    frozen.check_finite(model, names, label, advice)
    moved_too_far = {"fix": advice} if trainer.args.learning_rate > SATURATES else {}
    changed = frozen.check_changed(trained_before, frozen.hash_trained(model, names), label, **moved_too_far)
    records = trainer.protections.finish(model, folder)
    unchanged = frozen.check(frozen_before, frozen.hash_frozen(model, names), label)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shutil.copyfile(checkpoints / "metrics.jsonl", folder / "metrics.jsonl")
    shutil.rmtree(checkpoints.rename(folder / f"{CHECKPOINTS}.old"))  # renamed, so that no half of them is ever found
    return TrainingResult(folder, seconds, count, unchanged, changed, trainer.state.global_step, peak, records)


def _take_steps(trainer: Any, checkpoints: Path, names: set[str]) -> None:
    """Train from the newest checkpoint, or from the start, as all processes do that share the training.

    Raises:
        MoltError: the processes have come to different weights.
    """
    start = processes.from_first(lambda: newest(checkpoints))
    processes.copy_from_first([value for _, value in frozen.trainable(trainer.model)])
    trainer.train(resume_from_checkpoint=start)
    _release_embeddings()
    if processes.count() > 1:
        weights = processes.gathered(frozen.hash_trained(trainer.model, names))
        if any(each != weights[0] for each in weights):
            raise MoltError(
                f"The {len(weights)} processes have come to different weights. The result is not kept.",
                "Train on devices of one kind, or in one process.",
            )


def within_memory(job: Job, batch: int, train: Callable[[Job], TrainingResult]) -> TrainingResult:
    """Train; where memory runs out, again from the start in more and smaller micro-batches. That is the same training
    but for rounding, and with GRPO and ORPO but for how a step's answers are weighed.

    Args:
        batch: examples of a step, over all micro-batches.

    Raises:
        MoltError: not even one example at a time fits.
    """
    if processes.count() > 1:  # the others do not know that it starts again
        return train(job)
    for count in memory.accumulations(batch, job.config.train.gradient_accumulation):
        settings = job.config.train.model_copy(update={"gradient_accumulation": count})
        job = replace(job, config=job.config.model_copy(update={"train": settings}))
        try:
            return train(job)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
        logger.warning("Memory does not suffice for %d examples at a time.", batch // count)
        shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
        memory.drop(job.base.model)
        if count < batch:
            job = replace(job, base=load(job.config.model))
    raise memory.too_small("a single example of the training")


def _metrics_log(job: TrainingJob, checkpoints: Path, measurements: Measurements | None) -> MetricsLog:
    log, tokenizer = checkpoints / "metrics.jsonl", job.base.tokenizer
    if measurements is None:
        return MetricsLog(log, job.progress)
    measure = measurements.measure
    return MetricsLog(
        log, job.progress, lambda step, model: measure(step, TextModel(model, tokenizer)), measurements.at
    )


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux; elsewhere the peak is the whole process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_gib() -> float:
    """Of the GPU's memory if there is one, else of this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    high_water = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if high_water:
        return int(high_water.group(1)) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def _release_embeddings() -> None:
    """Transformers registers with bitsandbytes the embeddings of each model that an 8-bit optimizer trains, and never
    removes them: 1 GiB for each training of an 8B model."""
    GlobalOptimManager.get_instance().module_weight_config_triple.clear()


def newest(folder: Path) -> str | None:
    """The latest checkpoint that can be read. Broken ones, half written or half removed, are removed with a word."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    readable = None
    for path in checkpoints:
        if fault := _fault(path):
            logger.warning("The checkpoint %s is broken (%s) and passed over.", path, fault)
            shutil.rmtree(path)
        else:
            readable = readable or str(path)
    return readable


def _fault(checkpoint: Path) -> str:
    """What is wrong with a checkpoint; empty if nothing is."""
    try:
        if not isinstance(json.loads((checkpoint / "trainer_state.json").read_text()), dict):
            return "trainer_state.json holds no state"
        with safe_open(str(checkpoint / TRAINED), "pt"):  # which compares the file's length with its header
            pass
        archives = {checkpoint / name for name in ("optimizer.pt", "scheduler.pt")} | set(checkpoint.glob("rng_*.pth"))
        for archive in archives:
            with zipfile.ZipFile(archive) as opened:
                if damaged := opened.testzip():
                    return f"{archive.name}: {damaged} is damaged"
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        return str(error)
    return ""


def _lower_rate(label: str, rate: float) -> str:
    setting = "personality.learning_rate" if label == "personality" else f"tasks.{label}.learning_rate"
    return (
        f"Lower the learning rate, which is {rate:g}, for example to a tenth: {setting}={rate / 10:g} (in a retraining "
        f"retrain.learning_rate={rate / 10:g})"
    )


def _examples(batches: list[Any], tokenizer: Any) -> str:
    """The fingerprints of a step's examples and how each begins."""
    rows = [row for batch in batches if isinstance(batch, dict) for row in batch.get("input_ids", [])]
    if not rows:
        return "samples of its own"
    texts = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
    return f"{len(rows)} rows: " + "; ".join(f"{fingerprint(text)} {text[:50]!r}" for text in texts[:8])


def lora_config(settings: LoraSettings, model: Any, setting: str = "lora.target_modules") -> LoraConfig:
    """PEFT's configuration of a new adapter on a model that has none yet (`adapters.targets`); `setting` is the one
    that names its modules."""
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=targets.targets(model, settings.target_modules, setting),
        task_type="CAUSAL_LM",
    )


def trainer_arguments(job: TrainingJob, schedule: Schedule, resumable: bool = True) -> dict[str, Any]:
    """Arguments for TRL's configurations. `resumable`: write checkpoints where the settings ask for them."""
    config, steps = job.config, schedule.steps
    train = config.train
    save = train.checkpoint_every if resumable and processes.is_first() else 0
    if processes.count() > 1:
        processes.check_divides(schedule.batch_size, "batch_size")
    return {
        "output_dir": str(job.folder / CHECKPOINTS),
        "per_device_train_batch_size": config.micro_batch(schedule.batch_size),
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        # the first step of a warm-up has rate 0, and LoRA's A only moves once its B has
        "warmup_steps": max(0, min(train.warmup_steps, steps - 2)),
        "max_steps": steps,
        "max_grad_norm": train.max_grad_norm,
        "weight_decay": 0.0,
        "optim": train.optimizer,
        "gradient_checkpointing": train.gradient_checkpointing,
        "max_length": config.model.max_length,
        "bf16": config.mixed_precision,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": job.seed,
        "data_seed": job.seed,
        "logging_steps": 1,
        "save_strategy": "steps" if save else "no",
        "save_steps": save or 1,
        "save_total_limit": 2,  # the one before it, if a kill or a power cut breaks the last
        "logging_nan_inf_filter": False,
        "report_to": _reporters(train.report_to, job.folder) if processes.is_first() else [],
        "disable_tqdm": True,
    }


def _reporters(names: Sequence[str], folder: Path) -> list[str]:
    """The trackers, once their packages are there. TensorBoard's files go beside the weights, unless the user has named
    another folder.

    Raises:
        BadInput: for one that is not installed.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise BadInput(
            f"train.report_to names {missing[0]}, which is not installed.",
            f"pip install {missing[0]}   or leave it out: train.report_to=[]",
        )
    if "tensorboard" in names:
        os.environ["TENSORBOARD_LOGGING_DIR"] = _LOGS or str(folder / "logs")
    return list(names)


def save(model: Any, folder: Path, adapter: str) -> None:
    """Write the adapter, or all weights of a model without adapters, to `folder`. Raises MoltError if what is written
    is not finite."""
    if isinstance(model, PeftModel):
        save_adapter(model, folder, adapter)
    else:
        model.to(torch.bfloat16).save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        with safe_open(str(file), "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, not a dict
                if not bool(torch.isfinite(tensors.get_tensor(name)).all()):
                    raise MoltError(f"{file}: the tensor {name} is not finite. The adapter is not kept.")


def save_adapter(model: PeftModel, folder: Path, adapter: str) -> None:
    """Write the adapter's files directly into `folder`, whatever its name."""
    model.save_pretrained(str(folder), selected_adapters=[adapter])
    if adapter != "default":  # PEFT writes a named adapter one folder down
        for file in (folder / adapter).iterdir():
            file.replace(folder / file.name)
        (folder / adapter).rmdir()
    file = folder / "adapter_config.json"
    settings = read_json(file)
    if isinstance(settings["target_modules"], list):  # PEFT writes a set, in whatever order
        write_json(file, {**settings, "target_modules": sorted(settings["target_modules"])})
