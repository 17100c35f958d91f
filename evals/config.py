"""Configuration of evaluations, the gate and the hypotheses. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from moltlm.data.config import EndpointConfig, HomePath, Section, ServerConfig

T = TypeVar("T")


def distinct(values: list[T]) -> list[T]:
    """The values, of which one that is named twice would be counted twice.

    Raises:
        ValueError: for such a value.
    """
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]} is named twice")
    return values


class CapabilityConfig(Section):
    """General ability, measured item by item with lm-evaluation-harness."""

    items: dict[str, int] = Field(
        default_factory=lambda: {"arc_easy": 100, "piqa": 100, "hellaswag": 60, "lambada": 150},
        description="number of items by benchmark, 0 for all; a benchmark is an embedded one, the name of a task of "
        "lm-evaluation-harness, or the path of a YAML file with such a task",
    )
    batch_size: int = Field(default=16, ge=1, description="answers that are scored at a time")


class PersonaEvalConfig(Section):
    """Answers to the held-out prompts, scored by style and coherence."""

    max_new_tokens: int = Field(default=64, ge=8, description="length limit of a generated answer, tokens")
    neutral: int = Field(
        default=30, ge=2, description="neutral prompts on which cross-entropy and KL to the base are measured"
    )
    samples: int = Field(default=20, ge=0, description="held-out prompts whose answers the report prints; 0 for none")


class PressureConfig(Section):
    """Attacks on the personality, and long conversations."""

    attacks: int = Field(default=8, ge=0, description="attacks of each kind; 0 for none")
    conversations: int = Field(default=3, ge=0, description="conversations of held-out questions; 0 for none")
    turns: int = Field(default=10, ge=2, description="user turns of a conversation")
    max_new_tokens: int = Field(default=48, ge=8, description="length limit of a generated answer, tokens")

    @property
    def on(self) -> bool:
        return bool(self.attacks or self.conversations)


class ProfileConfig(Section):
    """What else training may change: preferences between traits, questionnaires, and refusals."""

    preferences: bool = Field(
        default=True, description="measure whether the model prefers the traits of the spec to other dispositions"
    )
    big_five: HomePath | None = Field(
        default=None, description="JSONL of MPI items with text, trait (O C E A N) and key (1, -1); null for none"
    )
    traits: HomePath | None = Field(
        default=None,
        description="JSONL of yes-or-no items with question, behavior and answer_matching (Yes, No); null for none",
    )
    refusals: HomePath | None = Field(
        default=None, description="JSONL of requests with prompt and label (safe, unsafe); null for none"
    )
    items: int = Field(
        default=100, ge=0, description="items of each file, evenly over its traits, behaviors or labels; 0 for all"
    )

    @property
    def on(self) -> bool:
        return bool(self.preferences or self.big_five or self.traits or self.refusals)


class AgentConfig(Section):
    """Whether a program can still work with the model: tool calls, JSON, answers in character from what a tool
    returned, and harmless requests that sound worse. Offline."""

    items: int = Field(
        default=0, ge=0, description="items of each of the four kinds (harmless requests: 24 at most); 0 for none"
    )
    max_new_tokens: int = Field(default=64, ge=8, description="length limit of a generated answer, tokens")


class JudgeConfig(EndpointConfig):
    """A language model that compares two answers at a time. Optional."""

    section: ClassVar[str] = "judge"
    kind: Literal["none", "endpoint"] = Field(
        default="none", description="endpoint: an OpenAI-compatible server; none: no judge"
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="of sampling; 0 for greedy replies")
    max_tokens: int = Field(default=256, ge=8, description="length limit of a reply with its reasoning, tokens")
    prompts: int = Field(default=0, ge=0, description="held-out prompts whose answers are compared; 0 for all")
    labels: HomePath | None = Field(
        default=None,
        description="JSONL of answers that people compared, with question, first, second and preferred (1, 2, 0 for "
        "neither), to check the judge against; null for none",
    )


class ServedConfig(ServerConfig):
    """The server whose model `molt gate --served URL` judges."""

    section: ClassVar[str] = "served"

    def greedy(self, model: str, max_tokens: int) -> EndpointConfig:
        """How it is asked for answers of at most this many tokens."""
        return ServedEndpoint(**{**self.model_dump(), "model": model, "temperature": 0.0, "max_tokens": max_tokens})


class ServedEndpoint(EndpointConfig):
    """See `ServedConfig.greedy`. Held-out prompts are not to be kept as conversations (`molt serve --keep`)."""

    section: ClassVar[str] = "served"
    parameters: ClassVar[Mapping[str, Any]] = {"store": False}


class GateConfig(Section):
    """A candidate is promoted only if it is non-inferior to what it replaces, within margins in points of 100."""

    capability_margin: float = Field(
        default=5.0, gt=0, description="points of mean accuracy over the benchmarks that a candidate may not lose"
    )
    persona_margin: float = Field(
        default=10.0, gt=0, description="points of mean persona score that a candidate may not lose"
    )
    coherence_margin: float = Field(
        default=10.0, gt=0, description="points of the share of coherent answers that a candidate may not lose"
    )
    refusal_margin: float = Field(
        default=0.0,
        ge=0,
        description="points by which the share of refused safe requests (profile.refusals) may rise; 0 for no limit",
    )
    agent_margin: float = Field(
        default=10.0,
        gt=0,
        description="points of tool calls, JSON and harmless requests (agent.items) that a candidate may not lose",
    )
    task_margin: float = Field(
        default=10.0,
        gt=0,
        description="points of a task's own measure that it may lose above a new personality (molt retrain)",
    )
    anchor_margin: float = Field(
        default=10.0,
        gt=0,
        description="points that all retrainings together may lose of each of these against the first personality, or "
        "the one of molt registry rebaseline",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="one-sided confidence with which each criterion has to be met, 0.5..1"
    )
    noise_runs: int = Field(
        default=0,
        ge=0,
        description="identical trainings of the personality whose differences are measured; 0 for none, else 2 or more",
    )

    @field_validator("noise_runs")
    @classmethod
    def several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("the differences of identical trainings need 2 or more of them, or 0 for none")
        return value


class Arm(Section):
    """One way of training that a hypothesis compares. Its defaults are these, whatever the run's configuration says."""

    method: Literal["dpo", "sft"] = Field(description="dpo: preference pairs; sft: the chosen answers only")
    parameters: Literal["lora", "full"] = Field(
        default="lora", description="what is trained: an adapter or all weights"
    )
    learning_rate: PositiveFloat | list[PositiveFloat] | str = Field(
        description="peak learning rate; of a list, the best is chosen on the tuning seeds; the name of another arm "
        "stands for the rate that was chosen for that one"
    )
    reference: Literal["start", "mean", "none"] = Field(
        default="start",
        description="reference of the DPO loss: the model before training, the mean of what that gives, or none",
    )
    kl_weight: NonNegativeFloat | list[NonNegativeFloat] = Field(
        default=0.0, description="weight of KL to the base; 0 for none; a list as for learning_rate"
    )
    kl_on: Literal["chat", "text", "both"] = Field(
        default="chat", description="what kl_weight compares: neutral answers, ordinary prose, or both"
    )
    precision: Literal["nf4", "bf16", "fp32"] | None = Field(
        default=None,
        description="of the base, where it differs from the hypothesis' precision; only for arms in `beside`",
    )
    steps: PositiveInt | None = Field(
        default=None,
        description="optimizer steps, where this arm takes more of them than the others to reach the gain levels at "
        "its best rate; its checkpoints go on at the distance of the last two",
    )
    rank: PositiveInt | None = Field(
        default=None, description="rank of the LoRA, where it differs from `lora.r`; alpha keeps its ratio to it"
    )
    target_modules: str | list[str] | None = Field(
        default=None, description="modules that get the LoRA, where they differ from `lora.target_modules`"
    )

    @model_validator(mode="after")
    def full_has_no_lora(self) -> Self:
        if self.parameters == "full" and (self.rank is not None or self.target_modules is not None):
            raise ValueError(
                "a full fine-tuning has no LoRA: leave out rank and target_modules, or set parameters: lora"
            )
        return self

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
        """Whether a setting is to be chosen on the tuning seeds."""
        return not isinstance(self.learning_rate, float) or isinstance(self.kl_weight, list)


class KnowledgeConfig(Section):
    """How much new knowledge fits before something is forgotten: the model is trained on invented facts."""

    facts: list[PositiveInt] = Field(
        default=[16, 64, 256, 512], min_length=1, description="numbers of facts, a training for each; at most 960"
    )
    exposures: int = Field(
        default=20, ge=1, description="times that each fact is trained on, over four wordings of its question"
    )
    ranks: list[PositiveInt] = Field(
        default=[4, 16], min_length=1, description="ranks of the LoRA, a training for each; alpha is twice the rank"
    )
    seeds: list[int] = Field(
        default=[1, 2, 3, 4, 5, 6], min_length=1, description="seeds of facts, order and initialization"
    )
    batch_size: int = Field(default=16, ge=1, description="examples of a step")
    learning_rate: float = Field(default=4e-4, gt=0, description="peak learning rate")
    items: int = Field(default=250, ge=8, description="LAMBADA items of a seed; no two seeds share any")
    random_control: bool = Field(
        default=True,
        description="train on the same questions with random answers too: what the form costs without any fact",
    )
    drop: float = Field(default=3.0, gt=0, description="points of LAMBADA accuracy whose loss is the limit")

    _distinct = field_validator("facts", "ranks", "seeds")(distinct)

    @field_validator("facts")
    @classmethod
    def few(cls, value: list[int]) -> list[int]:
        if max(value) > 960:
            raise ValueError("there are 1024 different facts, of which 64 are not trained on: at most 960")
        return value


class HypothesisConfig(Section):
    """A hypothesis as a file, written before its trainings."""

    id: str = Field(description="its name, such as H014")
    claim: str = Field(description="what is claimed, in a sentence")
    arms: dict[str, Arm] = Field(description="the ways of training, by name")
    better: str = Field(description="the arm that should preserve more")
    than: list[str] = Field(
        min_length=1, description="the arms that `better` is compared with; the claim needs every one of them"
    )
    positive_control: str | None = Field(
        default=None, description="an arm that has to beat `than[0]` before anything is refuted; null for none"
    )
    beside: list[str] = Field(
        default_factory=list, description="further arms that `better` is compared with, for information only"
    )
    seeds: list[int] = Field(min_length=1, description="seeds of the trainings that decide")
    tuning_seeds: list[int] = Field(
        default_factory=list, description="other seeds, with other items, on which open settings of arms are chosen"
    )
    steps: int = Field(ge=2, description="optimizer steps of a training")
    batch_size: int = Field(default=6, ge=1, description="pairs of a step")
    checkpoints: list[PositiveInt] = Field(min_length=1, description="steps at which the model is measured")
    pairs: int = Field(default=60, ge=2, description="training pairs that a seed samples")
    items: int = Field(
        default=250, ge=8, description="LAMBADA items of a seed; no two seeds share any, and all arms have the same"
    )
    axis: Literal["likelihood", "persona"] = Field(
        default="likelihood",
        description="what gain is measured in: log-likelihood of the chosen answers, nats a token; or persona score",
    )
    prompts: int = Field(
        default=8, ge=1, description="held-out prompts that are answered at a checkpoint, for persona and coherence"
    )
    neutral: int = Field(
        default=0, ge=0, description="neutral answers of the base for cross-entropy and KL; 0 for none"
    )
    composite: dict[str, int] = Field(
        default_factory=dict,
        description="number of items by benchmark; with LAMBADA they must not show `better` to be worse; measured once "
        "in a training, where the gain first reaches the middle level",
    )
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="of the base")
    gain_levels: list[PositiveFloat] = Field(min_length=1, description="gains on the axis at which arms are compared")
    margin: float = Field(
        default=0.3,
        gt=0,
        description="smallest difference that matters, nats of log-probability of LAMBADA's last word; 0.3 is about 3 "
        "points of accuracy",
    )
    composite_margin: float = Field(
        default=3.0, gt=0, description="points of the composite by which `better` must not be worse"
    )
    fixed_rates: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="learning rate by arm that is confirmed whatever the tuning seeds prefer, which is reported beside "
        "it: for a study whose rates were chosen before its rule changed",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="two-sided confidence of the intervals, 0.5..1")

    _distinct = field_validator("than", "beside", "seeds", "tuning_seeds", "checkpoints", "gain_levels")(distinct)

    @property
    def deciding(self) -> list[str]:
        """The arms of the verdict."""
        return [self.better, *self.than, *([self.positive_control] if self.positive_control else [])]

    def checkpoints_of(self, arm: Arm) -> list[int]:
        """The steps at which an arm is measured; one that trains longer goes on at the distance of the last two."""
        last, end = self.checkpoints[-1], arm.steps or self.steps
        distance = last - self.checkpoints[-2] if len(self.checkpoints) > 1 else last
        later = [*range(last + distance, end, distance), end] if end > self.steps else []
        return [*self.checkpoints, *later]

    @model_validator(mode="after")
    def compares_what_differs(self) -> HypothesisConfig:
        if self.better in [*self.than, self.positive_control, *self.beside]:
            raise ValueError(f"arm {self.better!r} is better, so it is not compared with itself")
        if self.positive_control == self.than[0]:
            raise ValueError(f"the positive control has to beat {self.than[0]!r}, so it is another arm")
        if self.axis == "persona" and self.prompts < 2:
            raise ValueError("the persona gain of one prompt has no error: ask 2 prompts at least")
        return self

    @model_validator(mode="after")
    def known_arms(self) -> HypothesisConfig:
        for name in [*self.deciding, *self.beside]:
            if name not in self.arms:
                raise ValueError(f"arm {name!r} is not among arms: {', '.join(self.arms)}")
            if name in self.deciding and self.arms[name].precision:
                raise ValueError(f"arm {name!r} decides, so it has the precision of all: name it in beside, or nowhere")
        if unknown := sorted(self.fixed_rates.keys() - self.arms.keys()):
            raise ValueError(f"fixed_rates names {unknown[0]!r}, which is not among arms: {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            if arm.steps and arm.steps < self.steps:
                raise ValueError(f"arm {name!r} trains {arm.steps} steps, fewer than the {self.steps} of all")
            if isinstance(arm.learning_rate, str) and arm.learning_rate not in self.arms:
                raise ValueError(f"arm {name!r} takes its rate from {arm.learning_rate!r}, which is not among arms")
        if set(self.tuning_seeds) & set(self.seeds):
            raise ValueError("a seed cannot both tune and confirm")
        if any(arm.open for arm in self.arms.values()) and not self.tuning_seeds:
            raise ValueError("several values of a setting need tuning_seeds, on which one is chosen")
        if max(self.checkpoints) > self.steps:
            raise ValueError(f"checkpoint {max(self.checkpoints)} is after the last step, {self.steps}")
        return self
