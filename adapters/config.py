"""Configuration of the base model and of training. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moltlm.data.config import Section

GROUP = 4
"""Answers to one prompt that the personality's GRPO compares."""
CHECKPOINTS = "checkpoints"
"""Folder beside what is trained; it outlives an interruption and goes when the training is done."""


class ShapeConfig(Section):
    """The architecture, for estimates before the weights are there. Nothing else reads it."""

    hidden_size: int = Field(default=576, ge=1)
    intermediate_size: int = Field(default=1536, ge=1)
    layers: int = Field(default=30, ge=1)
    heads: int = Field(default=9, ge=1)
    kv_heads: int = Field(default=3, ge=1)
    vocab_size: int = Field(default=49152, ge=1)
    tied_embeddings: bool = True


class ModelConfig(Section):
    id: str = Field(default="smollm2-135m-instruct", description="the embedded model, a hub id, or a local folder")
    revision: str | None = Field(default=None, description="commit or tag of a hub model")
    precision: Literal["nf4", "bf16", "fp32"] = Field(
        default="nf4",
        description="of the frozen base, for all that one table compares",
    )
    double_quant: bool = Field(default=True, description="quantise the NF4 scales too (0.4 bits a weight less)")
    compute_dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="of products on an NF4 base")
    attention: Literal["eager", "sdpa", "flash_attention_2"] = Field(
        default="eager", description="eager is fastest on a CPU"
    )
    max_length: int = Field(default=512, ge=32, description="longest training sequence in tokens; longer ones are cut")
    eval_batch_size: int = Field(default=16, ge=1, description="sequences at once when generating and scoring")
    shape: ShapeConfig = ShapeConfig()


class LoraSettings(Section):
    r: int = Field(default=16, ge=1, description="rank")
    alpha: float = Field(default=32, gt=0, description="scale is alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = Field(default="all-linear", description="PEFT's name or a list of module names")


class TrainSettings(Section):
    """What the two training stages share."""

    warmup_steps: int = Field(default=2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = Field(default=False, description="less memory, about a third slower")
    gradient_accumulation: int = Field(default=1, ge=1, description="micro-batches a step")
    optimizer: Literal["adamw_torch", "paged_adamw_8bit"] = "adamw_torch"
    checkpoint_every: int = Field(
        default=50, ge=0, description="steps; an interrupted training goes on from there. 0: from the start"
    )


class Monitored(Section):
    """A training that is watched for drift."""

    stop_kl: float | None = Field(
        default=None,
        gt=0,
        description="watch KL to the start on neutral answers, and stop when it is above this many nats a token",
    )
    stop_every: int = Field(default=5, ge=1, description="steps between two such looks")


class PersonalityConfig(Monitored):
    repeat: int = Field(
        default=0, ge=0, description="the same training once more, to see how far it comes out the same"
    )
    method: Literal["dpo", "sft", "sdft", "grpo"] = Field(
        default="dpo",
        description="dpo: pairs; sft: the chosen side only; sdft: no answers, the model learns to say without the spec "
        "what it says with it; grpo: from its own answers, by how much they are in character",
    )
    sample_tokens: int = Field(default=48, ge=1, description="sdft, grpo: length of what it says while it learns")
    parameters: Literal["lora", "full"] = Field(default="lora", description="full needs a 16- or 32-bit base")
    steps: int = Field(default=60, ge=2, description="optimizer steps; with one, LoRA cannot move its A")
    batch_size: int = Field(default=6, ge=1, description="pairs a step, over all micro-batches")
    learning_rate: float = Field(default=4e-4, gt=0, description="constant after warm-up")


class DpoConfig(Section):
    """The personality's loss: a preference loss + nll_weight * NLL(chosen) + kl_weight * KL(reference || model)."""

    loss: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "apo_zero",
        "apo_down",
        "simpo",
        "orpo",
    ] = Field(
        default="sigmoid",
        description="sigmoid is DPO, sigmoid_norm the same per token; simpo and orpo know no reference",
    )
    divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = Field(
        default="reverse_kl", description="that the loss's implicit constraint to the reference measures (f-DPO)"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="robust, exo_pair: share of pairs that may be the wrong way round"
    )
    margin: float = Field(default=0.5, ge=0, description="simpo: by which the chosen side has to win, times beta")
    beta: float = Field(default=0.1, gt=0, description="strength of DPO's implicit KL to the reference")
    nll_weight: float = Field(default=1.0, ge=0, description="without it DPO collapses into echoing at this size")
    kl_weight: float = Field(default=0.0, ge=0, description="explicit KL on neutral prompts, per token")
    kl_batch: int = Field(default=2, ge=1, description="neutral answers a step for the explicit KL")
    ewc_weight: float = Field(
        default=0.0,
        ge=0,
        description="keeps those of the trained weights that neutral answers depend on",
    )
    reference: Literal["start", "none"] = Field(
        default="start", description="start: the model as it was before this stage; none: reference-free (for H015)"
    )

    @model_validator(mode="after")
    def possible(self) -> DpoConfig:
        if self.loss in ("simpo", "orpo") and self.reference != "none":
            raise ValueError(f"dpo.loss={self.loss} has no reference; set dpo.reference=none")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("dpo.loss=exo_pair needs dpo.label_smoothing above 0, such as 1e-3")
        if self.divergence != "reverse_kl" and self.loss in ("nca_pair", "apo_zero", "apo_down", "simpo", "orpo"):
            raise ValueError(f"dpo.loss={self.loss} knows no divergence but reverse_kl")
        return self


class ProtectConfig(Monitored):
    """What keeps the personality, and earlier tasks, while a task is learned, besides replay and the learning rate. A
    weight of 0 is off."""

    layout: Literal["routed", "stacked", "shared", "mixture"] = Field(
        default="routed",
        description="routed: an adapter for each task, above the personality alone; stacked: above all earlier tasks "
        "too; shared: one adapter that all tasks train further; mixture: the same, cut into experts that each request "
        "chooses from",
    )
    experts: int = Field(default=4, ge=2, description="mixture: in each of its two blocks, sharing the LoRA's rank")
    top_experts: int = Field(default=2, ge=1, description="mixture: that a request uses of each block")
    task_memory: int = Field(default=0, ge=0, description="examples of each earlier task that count as replay, too")
    anchor_batch: int = Field(default=2, ge=1, description="answers a step for each term that compares answers")
    kl_weight: float = Field(default=0.0, ge=0, description="KL to the model before the task, on neutral answers")
    distill_weight: float = Field(default=0.0, ge=0, description="the same KL, on replayed answers")
    distill: Literal["live", "stored"] = Field(
        default="live", description="live: whole distributions, made anew; stored: the buffer's likeliest tokens"
    )
    temperature: float = Field(default=1.0, gt=0, description="of both sides of a live KL")
    feature_weight: float = Field(default=0.0, ge=0, description="keeps hidden states, on replayed answers")
    feature_layers: list[int] = Field(default_factory=list, description="after these layers; empty: every fourth part")
    ewc_weight: float = Field(default=0.0, ge=0, description="keeps weights that replayed answers depend on")
    ewc_decay: float = Field(default=1.0, gt=0, le=1, description="of earlier tasks' share; shared layout")
    l2_weight: float = Field(default=0.0, ge=0, description="keeps all weights near where they started")
    orthogonal_weight: float = Field(default=0.0, ge=0, description="against reading what adapters beneath read")
    agem: bool = Field(
        default=False,
        description="remove from each step's gradient what would raise the loss on anchor_batch replayed answers",
    )
    subspace: Literal["none", "osf", "corda"] = Field(
        default="none",
        description="osf: the adapter neither reads nor writes along the strongest directions of the weights beneath; "
        "corda: it begins where those matter least for replayed answers, and is twice the rank in the end",
    )
    subspace_directions: int = Field(default=64, ge=1, description="osf: of each weight, at most half of all")
    average_decay: float | None = Field(
        default=None, gt=0, lt=1, description="serve a running average of the weights along the path"
    )
    interpolation: float = Field(
        default=1.0, gt=0, le=1, description="between the weights before the task, 0, and after it, 1"
    )
    scales: list[float] = Field(
        default_factory=list,
        description="try the trained adapter at these strengths, and 1, on training examples that are held out for it, "
        "and keep the weakest that is about as good as the best",
    )


class RouterConfig(Section):
    """Who answers, where each task has an adapter of its own and nobody says which task it is."""

    method: Literal["centroid", "learned", "arrow", "token"] = Field(
        default="learned",
        description="who decides. For each request one adapter, centroid: the nearest mean embedding; learned: "
        "logistic regression on them. For each token and layer some of all, arrow: by what each adapter reads; token: "
        "by gates that are trained",
    )
    quantile: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="centroid, learned: share of a task's own requests that may go to the personality alone",
    )
    top: int = Field(default=2, ge=1, description="arrow: adapters that a token uses")
    examples: int = Field(default=64, ge=8, description="token: of each task, and of chat, that the gates learn from")
    steps: int = Field(default=40, ge=2, description="token: optimizer steps of 8 examples")
    learning_rate: float = Field(default=5e-3, gt=0, description="token")

    @property
    def gated(self) -> bool:
        return self.method in ("arrow", "token")


class AdaptersConfig(Section):
    """Everything that `adapters` reads, gathered for its functions."""

    model: ModelConfig
    lora: LoraSettings
    train: TrainSettings
    personality: PersonalityConfig
    dpo: DpoConfig
    protect: ProtectConfig = ProtectConfig()
    router: RouterConfig = RouterConfig()

    @property
    def mixed_precision(self) -> bool:
        """Whether losses are computed in bf16, which is so wherever the base computes in it. Trained tensors stay
        fp32."""
        model = self.model
        return model.precision == "bf16" or (model.precision == "nf4" and model.compute_dtype == "bfloat16")

    @property
    def personality_protection(self) -> ProtectConfig:
        """The protections of the personality stage, whose settings lie in `dpo` and `personality`."""
        return ProtectConfig(
            kl_weight=self.dpo.kl_weight,
            anchor_batch=self.dpo.kl_batch,
            ewc_weight=self.dpo.ewc_weight,
            stop_kl=self.personality.stop_kl,
            stop_every=self.personality.stop_every,
        )

    def micro_batch(self, batch: int) -> int:
        """How many of a step's `batch` examples are in each micro-batch."""
        return max(1, batch // self.train.gradient_accumulation)

    @model_validator(mode="after")
    def possible(self) -> AdaptersConfig:
        if self.personality.parameters == "full" and self.model.precision == "nf4":
            raise ValueError("personality.parameters=full cannot train 4-bit weights; set model.precision=bf16")
        if self.personality.method == "grpo" and self.personality.batch_size % GROUP:
            raise ValueError(f"personality.method=grpo needs personality.batch_size to be a multiple of {GROUP}")
        if self.personality.batch_size % self.train.gradient_accumulation:
            raise ValueError("personality.batch_size must be a multiple of train.gradient_accumulation")
        if self.protect.layout == "mixture":
            if self.lora.r % (2 * self.protect.experts):
                raise ValueError("protect.layout=mixture needs lora.r to be a multiple of 2 * protect.experts")
            if self.train.gradient_checkpointing:
                raise ValueError("protect.layout=mixture cannot be trained with train.gradient_checkpointing")
            if self.protect.subspace != "none":
                raise ValueError("protect.layout=mixture cannot be kept to a subspace; set protect.subspace=none")
        return self
