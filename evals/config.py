"""Configuration of evaluation, the gate and the hypotheses. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from moltlm.data.config import EndpointConfig, Section


class CapabilityConfig(Section):
    items: dict[str, int] = Field(
        default_factory=lambda: {"arc_easy": 100, "piqa": 100, "hellaswag": 60, "lambada": 150},
        description="benchmark: number of items (0 = all); an embedded one, any task of lm-evaluation-harness by name, "
        "or a YAML file of yours, as the harness has them",
    )
    batch_size: int = Field(default=16, ge=1)


class PersonaEvalConfig(Section):
    max_new_tokens: int = Field(default=64, ge=8, description="length of a generated answer")
    neutral: int = Field(default=30, ge=2, description="neutral prompts for KL to the base")
    samples: int = Field(default=20, ge=0, description="unselected answers printed in the report")


class PressureConfig(Section):
    """Attacks on the personality, and long conversations."""

    attacks: int = Field(default=8, ge=0, description="of each kind; 0 = none")
    conversations: int = Field(default=3, ge=0, description="of held-out questions; 0 = none")
    turns: int = Field(default=10, ge=2, description="of a conversation")
    max_new_tokens: int = Field(default=48, ge=8, description="length of a generated answer")

    @property
    def on(self) -> bool:
        return bool(self.attacks or self.conversations)


class ProfileConfig(Section):
    """What else a personality may change: which traits the model says are its own, and off-target drift."""

    preferences: bool = Field(default=True, description="the spec's traits against other dispositions")
    big_five: Path | None = Field(default=None, description="MPI items as JSONL: text, trait (O C E A N), key (1, -1)")
    traits: Path | None = Field(default=None, description="JSONL: question, behavior, answer_matching (Yes, No)")
    refusals: Path | None = Field(default=None, description="requests as JSONL: prompt, label (safe, unsafe)")
    items: int = Field(default=100, ge=0, description="of each file, evenly over its scales; 0 = all")

    @property
    def on(self) -> bool:
        return bool(self.preferences or self.big_five or self.traits or self.refusals)


class JudgeConfig(EndpointConfig):
    """A language model that compares answers, two by two. Optional."""

    section: ClassVar[str] = "judge"
    kind: Literal["none", "endpoint"] = Field(default="none", description="endpoint: any OpenAI-compatible server")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=256, ge=8, description="length of a reply, its reasoning included")
    prompts: int = Field(default=0, ge=0, description="held-out prompts whose answers are compared; 0 = all")
    labels: Path | None = Field(
        default=None, description="JSONL of what people preferred: question, first, second, preferred (1, 2, 0)"
    )


class GateConfig(Section):
    """A candidate is promoted only if it is non-inferior to what it replaces, each margin in points of a score."""

    capability_margin: float = Field(default=5.0, gt=0, description="points of mean accuracy over the benchmarks")
    persona_margin: float = Field(default=10.0, gt=0, description="points of persona score")
    coherence_margin: float = Field(default=10.0, gt=0, description="points of coherent answers")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="one-sided")
    noise_runs: int = Field(
        default=0, ge=0, description="identical trainings of the personality, to see how far they are apart; 0 = none"
    )

    @field_validator("noise_runs")
    @classmethod
    def several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("how far runs are apart takes two or more, or 0 for none")
        return value


class Arm(Section):
    """One way of training that a hypothesis compares. What is not set here has the default here, not the config's."""

    method: Literal["dpo", "sft"]
    parameters: Literal["lora", "full"] = "lora"
    learning_rate: PositiveFloat | list[PositiveFloat] | str = Field(
        description="several: the best is chosen on the tuning seeds; an arm's name: what was chosen for that one"
    )
    reference: Literal["start", "none"] = "start"
    kl_weight: NonNegativeFloat | list[NonNegativeFloat] = Field(default=0.0, description="several: likewise")
    precision: Literal["nf4", "bf16", "fp32"] | None = Field(
        default=None, description="of the base, where it is not the hypothesis' own; for an arm that stands `beside`"
    )

    @field_validator("learning_rate", mode="before")
    @classmethod
    def number(cls, value: Any) -> Any:
        """YAML reads 8e-4 as text."""
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value

    @property
    def open(self) -> bool:
        """Whether something has still to be chosen."""
        return not isinstance(self.learning_rate, float) or isinstance(self.kl_weight, list)


class KnowledgeConfig(Section):
    """How much new knowledge fits before something is forgotten: facts that nobody can know are taught."""

    facts: list[PositiveInt] = Field(default=[16, 64, 256, 512], min_length=1, description="numbers of facts to try")
    exposures: int = Field(default=20, ge=1, description="times that each is taught, in four ways of asking")
    ranks: list[PositiveInt] = Field(default=[4, 16], min_length=1, description="of the LoRA; alpha is twice the rank")
    seeds: list[int] = Field(default=[1, 2, 3, 4, 5, 6], min_length=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=4e-4, gt=0)
    items: int = Field(default=250, ge=8, description="LAMBADA items of a seed, no two seeds the same")
    drop: float = Field(default=3.0, gt=0, description="points of LAMBADA accuracy whose loss is the limit")

    @field_validator("facts")
    @classmethod
    def few(cls, value: list[int]) -> list[int]:
        if max(value) > 960:
            raise ValueError("there are 1024 different facts, of which 64 are kept untaught: at most 960")
        return value


class HypothesisConfig(Section):
    """A hypothesis as a file, written before the run."""

    id: str
    claim: str
    arms: dict[str, Arm]
    better: str = Field(description="the arm that should preserve more")
    than: list[str] = Field(min_length=1, description="the arms that it is compared with; the claim needs all")
    positive_control: str | None = Field(
        default=None, description="an arm that must beat `than[0]` before anything is refuted"
    )
    beside: list[str] = Field(
        default_factory=list, description="arms that `better` is compared with, too, and that decide nothing"
    )
    seeds: list[int] = Field(min_length=1, description="that confirm")
    tuning_seeds: list[int] = Field(default_factory=list, description="others, with other items, for what is chosen")
    steps: int = Field(ge=2)
    batch_size: int = Field(default=6, ge=1)
    checkpoints: list[int] = Field(min_length=1, description="steps at which the model is measured")
    pairs: int = Field(default=60, ge=2, description="training pairs a seed draws")
    items: int = Field(default=250, ge=8, description="LAMBADA items of a seed, no two seeds the same; arms share them")
    axis: Literal["likelihood", "persona"] = Field(
        default="likelihood",
        description="gain in nats a token of the chosen answers, or in the mean of classifier probability x coherent",
    )
    prompts: int = Field(default=8, ge=1, description="held-out prompts that are answered, for persona and coherence")
    neutral: int = Field(default=0, ge=0, description="neutral answers of the base for cross-entropy and KL")
    composite: dict[str, int] = Field(
        default_factory=dict,
        description="benchmarks and items which, with LAMBADA, must not show the better arm to be worse; measured "
        "once, where the gain first reaches the middle level",
    )
    precision: Literal["bf16", "fp32"] = "bf16"
    gain_levels: list[float] = Field(
        min_length=1, description="persona gain (nats a token of the chosen answer over the base) to compare at"
    )
    margin: float = Field(default=3.0, gt=0, description="smallest difference that matters, points of LAMBADA")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    @property
    def deciding(self) -> list[str]:
        """The arms of the verdict."""
        return [self.better, *self.than, *([self.positive_control] if self.positive_control else [])]

    @model_validator(mode="after")
    def known_arms(self) -> HypothesisConfig:
        for name in [*self.deciding, *self.beside]:
            if name not in self.arms:
                raise ValueError(f"arm {name!r} is not among arms: {', '.join(self.arms)}")
            if name in self.deciding and self.arms[name].precision:
                raise ValueError(f"arm {name!r} decides, so it takes the precision of all: set it beside, or outside")
        for name, arm in self.arms.items():
            if isinstance(arm.learning_rate, str) and arm.learning_rate not in self.arms:
                raise ValueError(f"arm {name!r} takes its rate from {arm.learning_rate!r}, which is not among arms")
        if set(self.tuning_seeds) & set(self.seeds):
            raise ValueError("a seed cannot both tune and confirm")
        if any(arm.open for arm in self.arms.values()) and not self.tuning_seeds:
            raise ValueError("to choose among several values takes tuning_seeds")
        if max(self.checkpoints) > self.steps:
            raise ValueError(f"checkpoint {max(self.checkpoints)} lies after the last step, {self.steps}")
        return self
