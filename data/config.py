"""Configuration of what goes in: the persona, conversations, the teacher, pairs, replay, tasks. Imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A frozen part of the configuration. An unknown key is an error."""

    # defaults become what a file would make of them, so a setting has the same fingerprint either way
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PersonaConfig(Section):
    spec: str = Field(default="claudio", description="a shipped persona, or a folder with persona.yaml")
    train_limit: int | None = Field(default=None, ge=2, description="use only N training prompts, spread over topics")
    heldout_limit: int | None = Field(default=None, ge=2, description="use only N held-out prompts, spread over topics")


class ImportConfig(Section):
    """Conversations to learn the personality from, and how they are read, whatever they were exported from."""

    paths: list[str] = Field(
        default_factory=list, description="files, folders or exports; what the assistant says there becomes `chosen`"
    )
    limit: int = Field(default=5000, ge=1, description="learn from at most so many exchanges, drawn while reading")
    redact: bool = Field(default=True, description="replace secrets, e-mail addresses, phone and card numbers by marks")
    near_duplicate: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="drop an exchange that shares this much of its pairs of neighbouring words with an earlier one",
    )
    max_context_turns: int = Field(default=8, ge=1, description="turns before an answer that are kept, the last ones")
    max_answer_chars: int = Field(default=8000, ge=1, description="an answer longer than this is dropped")


class EndpointConfig(Section):
    """A server that speaks OpenAI's chat completions."""

    section: ClassVar[str]
    url: str = Field(default="http://localhost:8000/v1", description="of the endpoint, up to and with /v1")
    model: str = Field(default="", description="name of the model at the endpoint")
    api_key_env: str = Field(default="OPENAI_API_KEY", description="environment variable that holds the key, if any")
    temperature: float = Field(default=0.7, ge=0, le=2)
    max_tokens: int = Field(default=192, ge=8, description="length of an answer")
    budget_tokens: int = Field(default=1_000_000, ge=1, description="stop asking when this many are used, both ways")
    retries: int = Field(default=5, ge=0, description="for a busy or failing endpoint, with growing pauses")
    timeout_s: float = Field(default=60, gt=0)
    concurrency: int = Field(default=4, ge=1, description="requests at a time")


class TeacherConfig(EndpointConfig):
    """Who answers in persona where nobody has written an answer: an OpenAI-compatible endpoint, or the local base."""

    section: ClassVar[str] = "teacher"
    kind: Literal["none", "endpoint", "base"] = Field(
        default="none",
        description="endpoint: any OpenAI-compatible server; base: the local model with the spec as its system prompt",
    )
    prompts_per_trait: int = Field(default=0, ge=0, description="prompts to grow for each trait, over all topics")
    topics: list[str] = Field(default_factory=list, description="grow prompts about these; empty: everyday ones")


class PairsConfig(Section):
    """How the rejected side is sampled from the bare base model, and what is held out where nobody has said so."""

    max_new_tokens: int = Field(default=64, ge=8, description="length of a rejected answer")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the rejected answer; 0: greedy")
    max_prompt_tokens: int = Field(default=256, ge=16, description="a prompt longer than this is an error")
    heldout_share: float = Field(
        default=0.2, gt=0, lt=0.9, description="of the exchanges, if the persona has no heldout.jsonl; whole topics"
    )


class FiltersConfig(Section):
    """What a pair must pass to be trained on. What fails is counted, and shown by `molt data lint`."""

    min_length_ratio: float = Field(default=0.2, gt=0, le=1, description="least ratio of the lengths of both sides")
    language: bool = Field(default=True, description="drop answers that are surely in another language than the prompt")
    min_margin: float | None = Field(
        default=None,
        description="least gain of an answer's log-likelihood, nats a token, with the spec as a system prompt; asked "
        "of answers from a teacher or from conversations, never of hand-written ones",
    )
    near: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="prompts of this cosine or more are the same: never on both sides of a split",
    )


class ReplayConfig(Section):
    """Which exchanges are kept to protect the personality while tasks are learned, and what is kept of them."""

    select: Literal[
        "combined", "importance", "facility_location", "k_center", "herding", "uniform", "reservoir", "recency"
    ] = Field(
        default="uniform",
        description="combined: coverage and importance as one objective; importance: the most important; "
        "facility_location, k_center: coverage alone; the others are baselines. Measured, none is clearly better than "
        "uniform, and combined is worse (docs/results/replay.md)",
    )
    importance: Literal["kl", "margin", "gradient"] = Field(
        default="kl",
        description="how far the personality departs from the base on an answer: by KL, by the answer's "
        "log-likelihood, or how well the answer's gradient agrees with that of all others",
    )
    importance_weight: float = Field(default=0.5, ge=0, description="combined: weight of importance against coverage")
    strata: Literal["topic", "trait", "both"] = Field(default="both", description="what importance is spread over")
    stratify: bool = Field(default=False, description="the same share of the budget for every stratum")
    budget_tokens: int = Field(default=5000, ge=50, description="size of the buffer in tokens, prompt and answer")
    max_tokens: int = Field(
        default=512,
        ge=16,
        description="a longer exchange loses its earliest turns; one turn that is longer is left out",
    )
    answers: Literal["given", "own"] = Field(
        default="given", description="own: what the trained personality says to the same prompts"
    )
    neutral_share: float = Field(
        default=0.0, ge=0, le=1, description="of what is replayed; answers of the base, or `instructions`"
    )
    instructions: str = Field(
        default="", description="conversations of any kind that is read, to be replayed as the neutral share"
    )
    distribution: Literal["none", "fp16", "int8"] = Field(
        default="int8", description="keep the personality's likeliest tokens over each answer, to distil from"
    )
    top_k: int = Field(default=32, ge=1, description="so many tokens of each distribution")


class TaskConfig(Section):
    """A task that the model is taught on top of its personality, and how."""

    kind: Literal["reminders", "shell", "jsonl", "text"] = Field(
        description="a generator of examples; or your own from `path`: questions and answers (jsonl), or plain texts "
        "to go on with pretraining (text)"
    )
    path: str = Field(
        default="", description="jsonl, text: a folder with train.jsonl and test.jsonl; text: or train.txt and test.txt"
    )
    prompt: str = Field(default="{prompt}", description="jsonl: how a row is asked; {NAME} stands for its column NAME")
    answer: str = Field(default="{answer}", description="jsonl: the right answer, likewise; text: the text of a row")
    passage_words: int = Field(default=120, ge=16, description="text: length of a training or test example")
    metric: Literal["text", "json", "command", "template"] | None = Field(
        default=None,
        description="what counts as right. text: the same words; json: the same value; command: the same command; "
        "template: the same command but for its arguments. The default is the kind's own, or text",
    )
    train: int = Field(default=240, ge=8, description="training examples")
    test: int = Field(default=60, ge=8, description="test examples; none of what they name is in training")
    steps: int = Field(default=60, ge=2, description="optimizer steps; with one, LoRA cannot move its A")
    batch_size: int = Field(default=8, ge=1, description="examples a step, replayed ones included")
    learning_rate: float = Field(default=4e-4, gt=0, description="constant after warm-up")
    replay_ratio: float = Field(default=0.25, ge=0, lt=1, description="share of the final mix that is replay")
    arrival: Literal["batch", "stream"] = Field(
        default="batch", description="stream: each example comes once, in order, and only a memory of them is kept"
    )
    stream_memory: int = Field(default=64, ge=1, description="stream: examples that are kept to be replayed")
    max_new_tokens: int = Field(default=48, ge=1, description="length of an answer, when it is measured or sampled")
    on_policy: Literal["none", "regenerate", "grpo"] = Field(
        default="none",
        description="afterwards. regenerate: train on the model's own right answers; grpo: on samples, by whether they "
        "are right",
    )
    on_policy_steps: int = Field(default=20, ge=2, description="of that, in each round")
    on_policy_rounds: int = Field(default=1, ge=1, description="regenerate: each with new answers")
    on_policy_learning_rate: float = Field(default=1e-4, gt=0)
    generations: int = Field(default=4, ge=2, description="grpo: samples of each prompt")
    control: bool = Field(default=False, description="also train without replay, as the unprotected control")
    floor: float = Field(default=0.5, ge=0, le=1, description="exact match below which the task counts as not learned")
    seed: int | None = Field(default=None, ge=0, description="of examples, order and start; the run's, unless given")

    @model_validator(mode="after")
    def has_path(self) -> TaskConfig:
        if (self.kind in ("jsonl", "text")) != bool(self.path):
            raise ValueError("kind=jsonl or text and path go together: path names the folder of the examples")
        if self.kind == "text" and (self.metric or self.on_policy != "none"):
            raise ValueError("kind=text has no right answers: leave metric and on_policy alone")
        return self

    @property
    def replayed(self) -> int:
        """Replayed examples in the whole training; at least one if there are any."""
        if not self.replay_ratio:
            return 0
        return max(1, round(self.steps * self.batch_size * self.replay_ratio))
