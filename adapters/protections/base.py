"""A protection keeps something of the model while something else is learned. It acts at the moments of a training that
`Protection` lists; `Context` says what it may use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from peft import LoraConfig

from moltlm.adapters.config import AdaptersConfig, ProtectConfig
from moltlm.adapters.serve import TextModel
from moltlm.data.errors import BadInput
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange, Progress, silent

Need = Literal["neutral", "replay", "stored", "trial"]
Stage = Literal["personality", "task", "grpo", "token gates"]
Trial = Callable[[TextModel, Progress], float]

WEIGHT_STAGES: tuple[Stage, ...] = ("personality", "task", "grpo")
"""Those that train an adapter's matrices, and not only gates upon them."""
PERSONALITY_SETTINGS = {
    "kl_weight": "dpo.kl_weight",
    "ewc_weight": "dpo.ewc_weight",
    "distill_weight": "dpo.distill_weight",
    "stop_kl": "personality.stop_kl",
}
"""Where the personality stage has the settings that `protect` has for all other stages."""
MISSING: dict[Need, tuple[str, str]] = {
    "neutral": ("neutral answers", "Add prompts to the persona's neutral.jsonl"),
    "replay": ("replayed exchanges", "Build the buffer: molt replay build CONFIG"),
    "stored": ("distributions in the buffer", "Store them: replay.distribution=int8"),
    "trial": ("training examples that are held out", "Give the task more examples"),
}


@dataclass(frozen=True, kw_only=True)
class Material:
    """What protections compare with.

    Attributes:
        neutral: the base's own answers to neutral prompts.
        replay: exchanges whose answers are to be retained.
        stored: the personality's distributions over the answers of `distilled`, from the buffer or from another base.
        distilled: exchanges; empty: the first of `replay`.
        trial: counts how many held-out examples a model gets right.
    """

    neutral: list[Exchange] = field(default_factory=list)
    replay: list[Exchange] = field(default_factory=list)
    stored: list[TopK] = field(default_factory=list)
    distilled: list[Exchange] = field(default_factory=list)
    trial: Trial | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a protection may use when the training begins.

    Attributes:
        text: the model, with the adapter that is trained in place, and its tokenizer.
        settings: the weights and switches of all protections in this stage.
        adapter: PEFT's name of the adapter that is trained.
        adapters_below: names of the active, frozen adapters under it, lowest first.
        start: folder of the adapter that is trained further; None for a new one.
        reference: within it the model is the one to be retained. By default that is the model as the training begins.
    """

    text: TextModel
    config: AdaptersConfig
    settings: ProtectConfig
    stage: Stage
    adapter: str
    seed: int
    adapters_below: list[str] = field(default_factory=list)
    start: Path | None = None
    material: Material = Material()
    progress: Progress = silent
    reference: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def anchor_batch(self) -> int:
        """Reference answers in each micro-batch."""
        return self.config.micro_batch(self.settings.anchor_batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision in which the trainer computes its loss. Only `penalty` is called within it."""
        device = self.text.model.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.mixed_precision)


@dataclass(frozen=True)
class StepReport:
    """What a protection says after a step: numbers for the training log, and whether to stop."""

    metrics: dict[str, float] = field(default_factory=dict)
    stop: bool = False


class Protection:
    """One way of keeping what the model can do. Each moment does nothing unless a subclass says otherwise.

    Class attributes describe it:
        switch: the setting of `protect` that turns it on; its default is off.
        needs: the material that it cannot do without.
        stages: the stages that it acts in. In any other what it promises has to hold by itself.
        example: settings that turn it on with a visible effect; the generic tests train with them.
    """

    switch: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ()
    stages: ClassVar[tuple[Stage, ...]] = get_args(Stage)
    example: ClassVar[dict[str, Any]]

    @classmethod
    def from_settings(cls, settings: ProtectConfig) -> Self | None:
        """The protection as configured, or None where it is off."""
        default = ProtectConfig.model_fields[cls.switch].get_default(call_default_factory=True)
        return None if getattr(settings, cls.switch) == default else cls()

    def label(self, stage: Stage) -> str:
        """The setting's full name in messages."""
        return PERSONALITY_SETTINGS[self.switch] if stage == "personality" else f"protect.{self.switch}"

    def shape(self, lora: LoraConfig) -> LoraConfig:
        """Before the adapter exists: the rank it has to have."""
        return lora

    def start(self, context: Context) -> None:
        """Before the first step, and before a checkpoint is loaded. The adapter may be moved to where it begins."""

    def penalty(self, model: Any, call: int) -> torch.Tensor | None:
        """A weighted scalar to add to the loss, the `call`-th (from 0) of this training, or None."""

    def before_step(self, model: Any, step: int) -> None:
        """Gradients are accumulated and clipped; they may be changed before the optimizer uses them. Steps count from
        1."""

    def after_step(self, model: Any, step: int) -> StepReport | None:
        """The optimizer has moved the weights; they may be put elsewhere."""

    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        """After the last step: the weights may be replaced and files written beside them. Returns what the adapter's
        manifest records."""
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint has to carry."""
        return {}

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` returned when the checkpoint was written."""


class ActiveProtections:
    """Those that a configuration turns on, by name, in the order of the list."""

    def __init__(self, members: dict[str, Protection]) -> None:
        self.members = members

    @property
    def needs(self) -> set[Need]:
        return {need for member in self.members.values() for need in member.needs}

    def shape(self, lora: LoraConfig) -> LoraConfig:
        for member in self.members.values():
            lora = member.shape(lora)
        return lora

    def start(self, context: Context) -> ActiveProtections:
        """Raises BadInput when a protection lacks its material or cannot work in this stage."""
        for member in self.members.values():
            for need in member.needs:
                if not getattr(context.material, need):
                    _refuse(member, context.stage, need)
        for member in self.members.values():
            member.start(context)
        return self

    def penalty(self, model: Any, call: int) -> torch.Tensor | None:
        """The sum of all penalties, or None where there is none."""
        parts = [member.penalty(model, call) for member in self.members.values()]
        present = [part for part in parts if part is not None]
        return torch.stack(present).sum() if present else None

    def before_step(self, model: Any, step: int) -> None:
        for member in self.members.values():
            member.before_step(model, step)

    def after_step(self, model: Any, step: int) -> StepReport:
        reports = [member.after_step(model, step) for member in self.members.values()]
        present = [report for report in reports if report is not None]
        metrics = {name: value for report in present for name, value in report.metrics.items()}
        return StepReport(metrics, any(report.stop for report in present))

    def finish(self, model: Any, folder: Path) -> dict[str, Any]:
        records: dict[str, Any] = {}
        for member in self.members.values():
            records |= member.finish(model, folder)
        return records

    def state(self) -> dict[str, torch.Tensor]:
        return {
            f"{name}/{key}": value for name, member in self.members.items() for key, value in member.state().items()
        }

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, member in self.members.items():
            prefix = f"{name}/"
            carried = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            member.load_state(carried)


def _refuse(member: Protection, stage: Stage, need: Need) -> None:
    what, fix = MISSING[need]
    setting, default = member.label(stage), ProtectConfig.model_fields[member.switch].default
    raise BadInput(
        f"{setting} needs {what}, and there are none.",
        f"{fix}, or turn it off: {setting.split('=')[0]}={'null' if default is None else default}",
    )


def cyclic(call: int, batch: int, n: int) -> list[int]:
    """Indices of the `call`-th batch out of `n` rows that are gone through again and again."""
    return [(call * batch + i) % n for i in range(batch)]
