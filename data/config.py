"""Settings of the data: persona, conversations, teacher, pairs, filters, replay, tasks. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

NO_PART: JsonDict = {"identity": False}
"""Extra of a setting that no artifact depends on, such as where something is reported."""


def _from_home(path: Path) -> Path:
    """The path, with the home folder of the user, or of the one it names, in place of a `~` at its beginning."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"nobody here has the home folder {path.parts[0]}; write the path in full") from None


HomePath = Annotated[Path, AfterValidator(_from_home)]
"""A path that may begin with `~`."""
HomeText = Annotated[str, AfterValidator(lambda text: str(_from_home(Path(text))) if text[:1] == "~" else text)]
"""Likewise a text that may be a path, or a name of something else."""


class Section(BaseModel):
    """A frozen part of the configuration. An unknown key is an error."""

    # a default is converted as a value from a file is, so that both give the same fingerprint
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PersonaConfig(Section):
    """Which personality is trained."""

    spec: HomeText = Field(default="claudio", description="name of a shipped persona, or a folder with persona.yaml")
    train_limit: int | None = Field(
        default=None, ge=2, description="use only this many training prompts, spread over topics; None: all"
    )
    heldout_limit: int | None = Field(
        default=None, ge=2, description="use only this many held-out prompts, spread over topics; None: all"
    )
    carried: HomePath | None = Field(
        default=None,
        description="folder with what `molt move` carried here from another base, which is learned besides the written "
        "answers; its held-out prompts take the place of the persona's; null: none",
    )


class ImportConfig(Section):
    """Conversations to learn the personality from, and how they are cleaned."""

    paths: list[HomeText] = Field(
        default_factory=list,
        description="files, folders or zip archives of chat exports; the assistant's answers become the chosen side",
    )
    assistant: str = Field(
        default="",
        description="the persona's name in chats that name their speakers; empty: the name in the persona's spec",
    )
    limit: int = Field(
        default=5000, ge=1, description="maximum number of exchanges; more are sampled at random down to it"
    )
    redact: bool = Field(
        default=True,
        description="replace secrets, e-mail and street addresses, numbers of phones, cards, accounts and documents, "
        "addresses of machines and positions by marks",
    )
    near_duplicate: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="drop an exchange with this Jaccard similarity, in pairs of neighbouring words, to an earlier one; "
        "1: drop only equal exchanges",
    )
    max_context_turns: int = Field(
        default=8, ge=1, description="maximum number of turns before an answer; the last ones are used"
    )
    max_answer_chars: int = Field(default=8000, ge=1, description="drop an answer of more characters than this")
    forgotten: HomePath = Field(
        default=Path("runs/forgotten.json"),
        description="the file in which `molt forget` remembers by hash what it removed; that is never imported again",
        json_schema_extra=NO_PART,
    )


class MoveConfig(Section):
    """What `molt move` carries to another base: the personality's own best answers."""

    samples: int = Field(
        default=4,
        ge=1,
        description="answers to each training prompt among which the best is carried; the first is greedy",
    )
    temperature: float = Field(default=0.7, gt=0, le=2, description="sampling temperature of the others")
    min_score: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="persona score that an answer needs to be carried; it has to be coherent, too",
    )
    distill_weight: float = Field(
        default=1.0,
        ge=0,
        description="dpo.distill_weight on the new base, where both bases have the same vocabulary; 0: off",
    )


class ServerConfig(Section):
    """A server with OpenAI's interface."""

    section: ClassVar[str]
    url: str = Field(default="http://localhost:8000/v1", description="URL of the server, up to and including /v1")
    model: str = Field(default="", description="name of the model at the server")
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        description="environment variable that holds the key, which is sent over https to the vendor's own host and to "
        "those in MOLTLM_ALLOWED_HOSTS; unset or empty: send no key",
    )
    retries: int = Field(
        default=5, ge=0, description="times a request to a busy or failing server is repeated, with growing pauses"
    )
    timeout_s: float = Field(default=60, gt=0, description="seconds to wait for an answer")
    concurrency: int = Field(default=4, ge=1, description="number of requests at the same time")

    @field_validator("url")
    @classmethod
    def has_no_secret(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc or urlsplit(url).query:
            raise ValueError(
                "a URL with a password or a query would stand in configurations, results and reports; put the key into "
                "the environment variable that api_key_env names"
            )
        return url


class EndpointConfig(ServerConfig):
    """A server with OpenAI's chat completions, and how much it answers.

    Attributes:
        parameters: further ones of every request.
    """

    parameters: ClassVar[Mapping[str, Any]] = {}
    temperature: float = Field(default=0.7, ge=0, le=2, description="sampling temperature; 0: greedy")
    max_tokens: int = Field(default=192, ge=8, description="maximum length of an answer in tokens")
    budget_tokens: int = Field(
        default=1_000_000, ge=1, description="send no request after this many tokens of prompts and answers together"
    )


class TeacherConfig(EndpointConfig):
    """The teacher, which answers in persona where there is no written answer."""

    section: ClassVar[str] = "teacher"
    kind: Literal["none", "endpoint", "base"] = Field(
        default="none",
        description="endpoint: a server with OpenAI's chat completions; base: the local base model with the spec as "
        "its system prompt; none: no teacher",
    )
    prompts_per_trait: int = Field(
        default=0, ge=0, description="number of prompts to generate for each trait, over all topics; 0: none"
    )
    topics: list[str] = Field(
        default_factory=list, description="topics of the generated prompts; empty: 24 everyday topics"
    )


class PairsConfig(Section):
    """How the base is asked for its own answers, which are the rejected sides unless the data gives others; and what is
    held out."""

    max_new_tokens: int = Field(default=64, ge=8, description="maximum length of an answer of the base in tokens")
    temperature: float = Field(
        default=0.7, ge=0, le=2, description="sampling temperature of the base's answers; 0: greedy"
    )
    max_prompt_tokens: int = Field(
        default=256,
        ge=16,
        description="maximum length of the last user turn in tokens: a longer written prompt is an error, a longer one "
        "from a teacher or a conversation is dropped",
    )
    heldout_share: float = Field(
        default=0.2,
        gt=0,
        lt=0.9,
        description="share of the exchanges to hold out, by whole topics where possible; used only if the persona has "
        "no heldout.jsonl",
    )


class FiltersConfig(Section):
    """Filters of preference pairs. `molt data lint` shows what they dropped."""

    min_length_ratio: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="drop a pair whose shorter side has less than this share of the words of the longer side",
    )
    language: bool = Field(
        default=True, description="drop an answer that is clearly in another language than its prompt"
    )
    min_margin: float | None = Field(
        default=None,
        description="drop an answer whose log-likelihood, in nats a token, rises by less than this when the spec is "
        "the system prompt; applies to answers from a teacher or from conversations, never to written ones; None: off",
    )
    near: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="embedding cosine from which two prompts count as the same, and are never on both sides of a split",
    )


class IntrospectionConfig(Section):
    """Further training of a personality on what it writes, with its spec before it, about itself and in talks with
    itself; the spec is not in the training (Maiya et al. 2025, arXiv:2511.01689)."""

    reflections: int = Field(
        default=0, ge=0, description="number of answers that are sampled for each reflection prompt; 0: none"
    )
    dialogues: int = Field(
        default=0, ge=0, description="number of conversations of the personality with itself; 0: none"
    )
    turns: int = Field(default=10, ge=2, description="turns of each conversation, of both sides together")
    guided: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the conversations that begin with a question about themselves; the others are free",
    )
    prompts: list[str] = Field(default_factory=list, description="reflection prompts; empty: ten that are shipped")
    max_new_tokens: int = Field(default=160, ge=8, description="maximum length of a reflection in tokens")
    turn_tokens: int = Field(default=64, ge=8, description="maximum length of a turn of a conversation in tokens")
    temperature: float = Field(default=0.8, gt=0, le=2, description="sampling temperature")
    min_voice: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="drop a text that the style classifier gives a lower probability of being the personality's",
    )
    min_overlap: int = Field(
        default=2, ge=0, description="drop a text that shares fewer different content words with the spec; 0: off"
    )
    near_duplicate: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="drop a text with this Jaccard similarity, in pairs of neighbouring words, to an earlier one",
    )
    min_new: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="drop a text of whose three-word sequences a smaller share is new among the texts before it",
    )
    per_prompt: int = Field(
        default=12, ge=1, description="maximum number of texts from one reflection prompt, or one conversation"
    )
    steps: int = Field(default=30, ge=2, description="optimizer steps of the further training")
    learning_rate: float = Field(default=2e-4, gt=0, description="learning rate of the further training")
    pairs_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the training examples that are chosen answers of the pairs, beside the texts; 1: no text "
        "is trained on, as a control",
    )

    @property
    def on(self) -> bool:
        return bool(self.reflections or self.dialogues)


class ReplayConfig(Section):
    """The replay buffer: which exchanges protect the personality while tasks are trained, and what it stores."""

    select: Literal[
        "combined", "importance", "facility_location", "k_center", "herding", "uniform", "reservoir", "recency"
    ] = Field(
        default="uniform",
        description="how exchanges are selected. combined: by coverage and importance as one objective; importance: "
        "the most important; facility_location, k_center: by coverage alone; the others are baselines. In measurements "
        "none is clearly better than uniform, and combined is worse (docs/results/replay.md)",
    )
    importance: Literal["kl", "margin", "gradient"] = Field(
        default="kl",
        description="how the importance of an exchange is measured. kl: KL(personality || base) over the answer; "
        "margin: gain of the answer's log-likelihood from base to personality; gradient: cosine of the answer's "
        "gradient with the mean gradient of all others",
    )
    importance_weight: float = Field(
        default=0.5, ge=0, description="combined: weight of importance relative to coverage; 0: coverage alone"
    )
    strata: Literal["topic", "trait", "both"] = Field(
        default="both", description="the groups over which importance is spread"
    )
    stratify: bool = Field(default=False, description="give every group the same share of the budget")
    budget_tokens: int = Field(
        default=5000, ge=50, description="size of the buffer in tokens of prompts and answers together"
    )
    max_tokens: int = Field(
        default=512,
        ge=16,
        description="maximum length of an exchange in tokens: a longer one loses its earliest turns, and is left out "
        "if its last user turn and answer alone are longer",
    )
    answers: Literal["given", "own"] = Field(
        default="given",
        description="given: replay the answers of the pairs; own: replay what the trained personality answers to the "
        "same prompts",
    )
    neutral_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the replayed examples that are neutral: the base's answers to neutral prompts, or "
        "exchanges of `instructions`; 0: none",
    )
    instructions: HomeText = Field(
        default="",
        description="file or folder of conversations to replay as the neutral share; empty: the base's answers",
    )
    distribution: Literal["none", "fp16", "int8"] = Field(
        default="int8",
        description="precision in which the personality's likeliest tokens over each answer are stored, to distil from "
        "them; none: they are not stored",
    )
    top_k: int = Field(default=32, ge=1, description="number of tokens stored of each distribution")


class TaskConfig(Section):
    """A task that is trained above the personality."""

    kind: Literal["reminders", "shell", "jsonl", "text"] = Field(
        description="reminders, shell: generated examples; jsonl: your questions and answers from `path`; text: your "
        "plain texts from `path`, to continue pretraining"
    )
    path: HomeText = Field(
        default="",
        description="jsonl, text: folder with train.jsonl and test.jsonl; for text also with train.txt and test.txt",
    )
    prompt: str = Field(
        default="{prompt}", description="jsonl: template of the prompt; {NAME} stands for the row's column NAME"
    )
    answer: str = Field(
        default="{answer}", description="jsonl: template of the correct answer; text: template of a row's text"
    )
    passage_words: int = Field(default=120, ge=16, description="text: length of an example in words")
    metric: Literal["text", "json", "command", "template"] | None = Field(
        default=None,
        description="when an answer is correct. text: same words; json: same value; command: same command; template: "
        "same command except for its arguments; None: the metric of the kind, or text",
    )
    train: int = Field(default=240, ge=8, description="number of training examples")
    test: int = Field(default=60, ge=8, description="number of test examples; none of them is in training")
    test_generated: int | None = Field(
        default=None,
        ge=1,
        description="number of test examples that are answered, to see which answers are right; on the others only the "
        "likelihood of the right answer is measured, which takes much less time; None: all",
    )
    steps: int = Field(
        default=60, ge=2, description="number of optimizer steps; at least 2, since LoRA's A does not move in the first"
    )
    batch_size: int = Field(default=8, ge=1, description="examples per optimizer step, replayed ones included")
    learning_rate: float = Field(default=4e-4, gt=0, description="learning rate, constant after warm-up")
    replay_ratio: float = Field(
        default=0.25, ge=0, lt=1, description="share of all training examples that are replayed; 0: no replay"
    )
    arrival: Literal["batch", "stream"] = Field(
        default="batch",
        description="batch: examples are reshuffled as often as needed; stream: each example comes once, in order, and "
        "only a memory of them can be replayed",
    )
    stream_memory: int = Field(
        default=64, ge=1, description="stream: number of earlier examples in memory, which can be replayed"
    )
    max_new_tokens: int = Field(
        default=48, ge=1, description="maximum length of an answer in tokens, in evaluation and in on-policy training"
    )
    on_policy: Literal["none", "regenerate", "grpo"] = Field(
        default="none",
        description="further training on the model's own answers. regenerate: on those that are correct; grpo: on "
        "samples, rewarded if they are correct; none: no further training",
    )
    on_policy_steps: int = Field(default=20, ge=2, description="optimizer steps in each round of on-policy training")
    on_policy_rounds: int = Field(
        default=1, ge=1, description="regenerate: number of rounds, each with newly generated answers"
    )
    on_policy_learning_rate: float = Field(default=1e-4, gt=0, description="learning rate of on-policy training")
    generations: int = Field(default=4, ge=2, description="grpo: number of samples for each prompt")
    control: bool = Field(default=False, description="also train the task without replay, as the unprotected control")
    floor: float = Field(default=0.5, ge=0, le=1, description="exact match below which the task counts as not learned")
    seed: int | None = Field(
        default=None, ge=0, description="seed of examples, order and initial weights; None: the seed of the run"
    )

    @model_validator(mode="after")
    def has_path(self) -> TaskConfig:
        if (self.kind in ("jsonl", "text")) != bool(self.path):
            raise ValueError("kind=jsonl or text and path go together: path names the folder of the examples")
        if self.kind == "text" and (self.metric or self.on_policy != "none"):
            raise ValueError("kind=text has no right answers: leave metric and on_policy alone")
        if self.test_generated is not None and self.test_generated > self.test:
            raise ValueError(f"test_generated={self.test_generated} is more than test={self.test}")
        return self

    @property
    def answered(self) -> int:
        """Number of test examples that are answered, the first ones."""
        return self.test if self.test_generated is None else self.test_generated

    @property
    def replayed(self) -> int:
        """Number of replayed examples in the whole training: 0 without replay, else at least 1."""
        if not self.replay_ratio:
            return 0
        return max(1, round(self.steps * self.batch_size * self.replay_ratio))
