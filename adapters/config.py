"""Settings of the base model and of training. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moltlm.data.config import NO_PART, HomeText, Section

GROUP = 4
"""Number of answers to one prompt that the personality's GRPO compares."""
KlOn = Literal["chat", "text", "both"]
CHECKPOINTS = "checkpoints"
"""Folder for checkpoints of a training in progress; it is deleted when the training ends."""


class ShapeConfig(Section):
    """The architecture, from which memory is estimated before the weights are there. Nothing else reads it."""

    hidden_size: int = Field(default=576, ge=1, description="width of the hidden states")
    intermediate_size: int = Field(default=1536, ge=1, description="width of the feed-forward layers")
    layers: int = Field(default=30, ge=1, description="number of transformer layers")
    heads: int = Field(default=9, ge=1, description="attention heads in each layer")
    kv_heads: int = Field(default=3, ge=1, description="key and value heads in each layer")
    vocab_size: int = Field(default=49152, ge=1, description="number of tokens in the vocabulary")
    tied_embeddings: bool = Field(default=True, description="whether the LM head shares the input embeddings")


class ModelConfig(Section):
    """The base model, and how it is loaded."""

    id: str = Field(
        default="smollm2-135m-instruct",
        description="the base model: the name of the embedded one, a hub id, or a local folder",
    )
    revision: str | None = Field(default=None, description="commit or tag of a hub model; null: the newest")
    precision: Literal["nf4", "bf16", "fp32"] = Field(
        default="nf4",
        description="how the frozen base is loaded: 4-bit NF4, or 16 or 32 bits; one for all results that are compared",
    )
    double_quant: bool = Field(default=True, description="quantise the NF4 scales too, which saves 0.4 bits a weight")
    compute_dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="type in which an NF4 base computes its matrix products"
    )
    attention: Literal["eager", "sdpa", "flash_attention_2"] = Field(
        default="eager", description="implementation of attention; eager is the fastest one on a CPU"
    )
    max_length: int = Field(
        default=512,
        ge=32,
        description="longest training sequence, in tokens; a longer conversation loses its oldest turns",
    )
    chat_template: HomeText = Field(
        default="", description="file of a Jinja chat template in place of the tokenizer's; empty: the tokenizer's own"
    )
    thinking: Literal["off", "on", "template"] = Field(
        default="off",
        description="of a model that can think before it answers. off: it answers at once, in training as when it is "
        "served; on: it is asked to think; template: as its chat template does by itself",
    )
    eval_batch_size: int = Field(
        default=16, ge=1, description="sequences in a batch when the model generates or scores"
    )
    shape: ShapeConfig = ShapeConfig()


class LoraSettings(Section):
    """The size of the adapters."""

    r: int = Field(default=16, ge=1, description="rank of each adapter")
    alpha: float = Field(default=32, gt=0, description="scale of the adapter's output, as alpha / r")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of an adapter's inputs that is dropped in training; 0: none"
    )
    target_modules: str | list[str] = Field(
        default="all-linear",
        description="modules that get an adapter: a list of names, a regular expression for whole names, or all-linear",
    )


class TrainSettings(Section):
    """Settings that every training shares."""

    warmup_steps: int = Field(
        default=2, ge=0, description="steps over which the learning rate rises from 0; 0: it starts at its full value"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="norm to which larger gradients are clipped")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, about a third slower"
    )
    gradient_accumulation: int = Field(
        default=1,
        ge=1,
        description="micro-batches in each step, which have the memory of one; batch_size counts all of them",
    )
    optimizer: Literal["adamw_torch", "paged_adamw_8bit"] = Field(
        default="adamw_torch", description="paged_adamw_8bit keeps its states in 8 bits, a quarter of the memory"
    )
    prose: HomeText = Field(
        default="",
        description="text that kl_on=text compares: a file of plain text, or of lines with a `text`; empty: the prose "
        "that comes with the project",
    )
    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = Field(
        default_factory=list,
        description="trackers that get the metrics of each training by their own reporters; the package of each has to "
        "be installed, and some send to a server",
        json_schema_extra=NO_PART,
    )
    checkpoint_every: int = Field(
        default=50, ge=0, description="steps between checkpoints, from which an interrupted training continues; 0: none"
    )


class Monitored(Section):
    """A training whose drift can be measured."""

    stop_kl: float | None = Field(
        default=None,
        gt=0,
        description="stop when the KL to the model before the training, on neutral answers, exceeds this many nats a "
        "token; null: never",
    )
    stop_every: int = Field(default=5, ge=1, description="stop_kl: steps between two measurements")


class PersonalityConfig(Monitored):
    """How the personality is trained."""

    repeat: int = Field(
        default=0, ge=0, description="number of this repetition of the same training, to measure how results vary"
    )
    method: Literal["dpo", "sft", "sdft", "grpo"] = Field(
        default="dpo",
        description="dpo: preference pairs; sft: the chosen side alone; sdft: the model learns to answer without the "
        "spec as it does with it; grpo: from its own answers, rewarded for being in character",
    )
    sample_tokens: int = Field(
        default=48, ge=1, description="sdft, grpo: longest answer that is sampled in training, in tokens"
    )
    parameters: Literal["lora", "full"] = Field(
        default="lora", description="lora: train an adapter; full: train all weights, of a 16- or 32-bit base"
    )
    steps: int = Field(
        default=60, ge=2, description="optimizer steps; at least 2, since LoRA's A only moves in the second"
    )
    batch_size: int = Field(default=6, ge=1, description="pairs in each step, over all micro-batches")
    learning_rate: float = Field(default=4e-4, gt=0, description="learning rate, constant after the warm-up")


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
        description="preference loss; sigmoid is DPO, sigmoid_norm the same per token; simpo, orpo have no reference",
    )
    divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = Field(
        default="reverse_kl", description="divergence from the reference that the loss implicitly constrains (f-DPO)"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="robust, exo_pair: share of pairs whose sides may be swapped"
    )
    margin: float = Field(
        default=0.5, ge=0, description="simpo: margin by which the chosen side has to win, times beta"
    )
    beta: float = Field(
        default=0.1, gt=0, description="strength of the implicit KL to the reference; a higher one allows less change"
    )
    nll_weight: float = Field(
        default=1.0,
        ge=0,
        description="weight of the NLL of the chosen side; at 0, DPO of small models collapses into echoing",
    )
    kl_weight: float = Field(
        default=0.0, ge=0, description="weight of the KL to the reference on neutral answers, per token; 0: off"
    )
    kl_batch: int = Field(default=2, ge=1, description="neutral answers in each step for kl_weight")
    kl_on: KlOn = Field(
        default="chat", description="what kl_weight compares. chat: neutral answers; text: ordinary prose; both: each"
    )
    ewc_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the pull of weights that neutral answers depend on back to the start (EWC); 0: off",
    )
    reference: Literal["start", "mean", "none"] = Field(
        default="start",
        description="reference of the loss. start: the model before this stage; mean: the mean over all pairs of what "
        "that gives; none: no reference (both for H015)",
    )
    distill_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the KL to the distributions over its own answers that the personality had on its former "
        "base (persona.carried), per token; 0: off; `molt move` turns it on where the bases share a vocabulary",
    )

    @model_validator(mode="after")
    def possible(self) -> DpoConfig:
        if self.loss in ("simpo", "orpo") and self.reference != "none":
            raise ValueError(f"dpo.loss={self.loss} has no reference; set dpo.reference=none")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("dpo.loss=exo_pair needs dpo.label_smoothing above 0, such as 1e-3")
        if self.divergence != "reverse_kl" and self.loss in ("nca_pair", "apo_zero", "apo_down", "simpo", "orpo"):
            raise ValueError(f"dpo.loss={self.loss} has no divergence other than reverse_kl")
        return self


class ProtectConfig(Monitored):
    """What keeps the personality and earlier tasks while a task is learned, besides replay and the learning rate. The
    methods are in `adapters/protections`. A weight of 0 is off."""

    layout: Literal["routed", "stacked", "shared", "mixture"] = Field(
        default="routed",
        description="routed: an adapter for each task, above the personality alone; stacked: above all earlier tasks "
        "too; shared: one adapter that all tasks train further; mixture: a shared adapter cut into experts, some of "
        "which are active for each request",
    )
    target_modules: str | list[str] | None = Field(
        default=None,
        description="modules that get an adapter in tasks, as in lora.target_modules; None: the same as there",
    )
    experts: int = Field(
        default=4, ge=2, description="mixture: experts in each of its two blocks; they share the LoRA's rank"
    )
    top_experts: int = Field(
        default=2, ge=1, description="mixture: experts of each block that are active for a request"
    )
    task_memory: int = Field(
        default=0, ge=0, description="examples of each earlier task that are replayed too; 0: none"
    )
    anchor_batch: int = Field(
        default=2, ge=1, description="answers in each step for every protection that compares answers"
    )
    kl_weight: float = Field(
        default=0.0, ge=0, description="weight of the KL to the model before the task, on neutral answers; 0: off"
    )
    kl_on: KlOn = Field(
        default="chat", description="what kl_weight compares. chat: neutral answers; text: ordinary prose; both: each"
    )
    distill_weight: float = Field(default=0.0, ge=0, description="weight of the same KL on replayed answers; 0: off")
    distill: Literal["live", "stored"] = Field(
        default="live",
        description="target of distill_weight. live: whole distributions; stored: the likeliest tokens in the buffer",
    )
    temperature: float = Field(default=1.0, gt=0, description="temperature of both sides of a live KL")
    feature_weight: float = Field(
        default=0.0, ge=0, description="weight of the squared change of hidden states on replayed answers; 0: off"
    )
    feature_layers: list[int] = Field(
        default_factory=list,
        description="layers whose hidden states feature_weight compares; empty: one at every fourth of the depth",
    )
    ewc_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the pull of weights that replayed answers depend on back to the start (EWC); 0: off",
    )
    ewc_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="ewc_weight in the shared layout: factor of earlier tasks' Fisher information; 1: no decay",
    )
    l2_weight: float = Field(
        default=0.0, ge=0, description="weight of the pull of all trained weights back to the start (L2); 0: off"
    )
    orthogonal_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the overlap of what the adapter and those below it read (O-LoRA); 0: off",
    )
    agem: bool = Field(
        default=False,
        description="remove from each step's gradient what would raise the loss on replayed answers (A-GEM)",
    )
    subspace: Literal["none", "osf", "corda"] = Field(
        default="none",
        description="osf: the adapter neither reads nor writes along the strongest directions of the weights below it; "
        "corda: it begins where those matter least for replayed answers, and has twice the rank; none: off",
    )
    subspace_directions: int = Field(
        default=64,
        ge=1,
        description="osf: strongest directions of each weight that are left alone, at most half of all",
    )
    average_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of the running average of the weights that replaces the last ones; null: off",
    )
    interpolation: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="position of the final weights between those before the task (0) and after it (1); 1: off",
    )
    scales: list[float] = Field(
        default_factory=list,
        description="strengths at which the trained adapter is tried, besides 1, on held-out training examples; the "
        "weakest that is about as good as the best is kept; empty: off",
    )

    @property
    def compares_replay(self) -> bool:
        """Whether a protection of a task compares with replayed answers (`Protection.needs`)."""
        live = self.distill_weight > 0 and self.distill == "live"
        return live or self.agem or self.feature_weight > 0 or self.ewc_weight > 0 or self.subspace == "corda"


class RouterConfig(Section):
    """Which adapter answers where each task has its own and a request does not say which task it is for."""

    method: Literal["centroid", "learned", "arrow", "token"] = Field(
        default="learned",
        description="centroid, learned: one adapter for each request, by the nearest mean embedding or by logistic "
        "regression on embeddings; arrow, token: a mixture of all for each token and layer, by what each adapter reads "
        "or by trained gates",
    )
    quantile: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="centroid, learned: share of a task's requests that may be routed to the personality alone",
    )
    top: int = Field(default=2, ge=1, description="arrow: number of adapters that are active for a token")
    examples: int = Field(
        default=64, ge=8, description="token: examples of each task, and of chat, that the gates are trained on"
    )
    steps: int = Field(default=40, ge=2, description="token: optimizer steps of the gates, of 8 examples each")
    learning_rate: float = Field(default=5e-3, gt=0, description="token: learning rate of the gates")

    @property
    def gated(self) -> bool:
        """Whether gates mix adapters at each token."""
        return self.method in ("arrow", "token")


class AdaptersConfig(Section):
    """All settings that `adapters` reads."""

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
            kl_on=self.dpo.kl_on,
            anchor_batch=self.dpo.kl_batch,
            ewc_weight=self.dpo.ewc_weight,
            distill_weight=self.dpo.distill_weight,
            distill="stored",
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
                raise ValueError("protect.layout=mixture cannot be combined with a subspace; set protect.subspace=none")
        return self
