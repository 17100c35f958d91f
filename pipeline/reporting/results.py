"""results.json: every number of the report as a tree of values. `load_results` reads it, `write_results` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moltlm.data.filters import Variety
from moltlm.evals.distance import Distance
from moltlm.evals.gate import GateVerdict
from moltlm.evals.judge import Agreement, JudgeSummary
from moltlm.evals.knowledge import Capacity
from moltlm.evals.pressure import PressureSummary
from moltlm.evals.records import TaskRecord
from moltlm.evals.stats import Comparison, Estimate, Noise
from moltlm.evals.style import CrossValidation
from moltlm.pipeline.service.gate import Colour
from moltlm.pipeline.studies.verdict import Explored, GridVerdict
from moltlm.pipeline.typed_json import read_document, write_document


@dataclass(frozen=True)
class Environment:
    """The versions and the machine that a run was made with."""

    moltlm: str = ""
    python: str = ""
    platform: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    revision: str | None = None


@dataclass(frozen=True)
class PairFacts:
    """What is known of the preference pairs: counts, lengths and variety.

    Attributes:
        pairs: how many there are to train on.
        dropped: by filter, how many it dropped; `examples` are a few of them.
        chosen_words: mean words of the chosen answers; `rejected_words` of the rejected ones.
        chosen_longer: share of pairs whose chosen answer is longer.
        auroc: of length as a classifier of the two sides.
        heldout: how many held-out prompts there are, from `held_out`.
        nll_limit: nats a token above which an answer is garbled.
        sources: where the exchanges are from.
        leaked: dropped as too near to what is measured, by measurement; `not_checked` are those that could not be read.
        too_long: exchanges that did not fit; `shortened` fit without their oldest turns.
        provenance: pairs by where their rejected side is from (`data.types`).
        base_answers: pairs to train on that have an answer of the base.
        refuted: answers dropped as worse than another to the same prompt.
    """

    pairs: int
    chosen_words: float
    rejected_words: float
    chosen_longer: float
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    auroc: float | None = None
    heldout: int | None = None
    nll_limit: float | None = None
    variety: Variety | None = None
    sources: dict[str, int] = field(default_factory=dict)
    conversations: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    leaked: dict[str, int] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)
    too_long: int = 0
    shortened: int = 0
    held_out: str = ""
    provenance: dict[str, int] = field(default_factory=dict)
    base_answers: int | None = None
    refuted: int = 0


@dataclass(frozen=True)
class IntrospectionFacts:
    """What the personality wrote about itself, and what of it was trained on.

    Attributes:
        samples: how many texts were sampled; `texts` of them passed the filters.
        reflections: how many of the texts are answers to reflection prompts; `turns` are turns of conversations.
        dropped: by filter, how many it dropped; `examples` are a few of them.
        variety: of the texts.
    """

    samples: int
    texts: int
    reflections: int
    turns: int
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    variety: Variety | None = None


@dataclass(frozen=True)
class StyleWords:
    """The words that speak most for and against the personality, for the style classifier."""

    positive: list[str]
    negative: list[str]


@dataclass(frozen=True)
class ClassifierResult:
    """The style classifier: cross-validation over topics, the share of right held-out texts, its words."""

    cross_validation: CrossValidation
    heldout: Estimate
    weights: StyleWords


@dataclass(frozen=True)
class TraitResult:
    """Fidelity to one trait of the spec, on its `n` prompts; the margin is as in `PersonaResult`."""

    n: int
    score: Estimate
    margin: Estimate | None = None


@dataclass(frozen=True)
class QuartileResult:
    """A quarter of the prompts by the margin that the personality alone has there, and what a state has of it."""

    n: int
    before: float
    after: Estimate


@dataclass(frozen=True)
class PersonaResult:
    """The persona of one state on `n` held-out prompts. Shares and scores are 0..1.

    Attributes:
        score: the classifier's probability of a coherent answer, 0 of any other; from the second measure on, times
            relevance and distinctness.
        taken: share of answers that are coherent and that the classifier takes for the persona's.
        coherent: share of coherent answers; `echo` and `repetition` are shares of two faults.
        base_nll: cross-entropy of the answers under the base, nats a token.
        words: mean words of an answer.
        win_rate: share of prompts with a margin above 0; None without the base's records, as `margin`.
        margin: by how much more than the base the state prefers the hand-written answer to the base's own, nats a
            token (DPO's implicit reward over beta: Rafailov et al. 2023, section 4).
        parts: the mean of each part of the score, by name; empty for records of the first measure.
        traits: by trait.
        quartiles: the margin in quarters of the prompts, weakest first; only of states with a task.
    """

    n: int
    score: Estimate
    taken: Estimate
    coherent: Estimate
    echo: float
    repetition: float
    base_nll: Estimate
    words: float
    win_rate: Estimate | None = None
    margin: Estimate | None = None
    parts: dict[str, float] = field(default_factory=dict)
    traits: dict[str, TraitResult] = field(default_factory=dict)
    quartiles: list[QuartileResult] = field(default_factory=list)


@dataclass(frozen=True)
class DriftResult:
    """One set of `n` texts in one state: KL to the base, cross-entropy and its change, paired by text; nats a token."""

    n: int
    kl: Estimate
    cross_entropy: Estimate
    change: Estimate


@dataclass(frozen=True)
class CapabilityResult:
    """One benchmark in one state, 0..1, and the change against the base, paired by item."""

    n: int
    accuracy: Estimate
    chance: float
    change: Comparison
    perplexity: float | None = None


@dataclass(frozen=True)
class StateResult:
    """What was measured of one state; empty parts were not."""

    name: str
    persona: PersonaResult | None = None
    capability: dict[str, CapabilityResult] = field(default_factory=dict)
    drift: dict[str, DriftResult] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """Exact match of a task (0..1): the personality alone, with the task, and with its control, trained without
    replay. A task is learned from `floor` on."""

    name: str
    n: int
    floor: float
    before: Estimate
    after: Estimate
    change: Comparison
    control: Estimate | None = None
    examples: list[TaskRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Retention:
    """How much of the persona score's loss replay prevents while a task is learned.

    Attributes:
        control_change: of the persona score without replay.
        replay_change: with replay.
        retained: 1 - loss with replay / loss without: 1 keeps everything, 0 protects nothing; over prompts.
        control_reached_floor: the control learned the task.
        control_lost_enough: it lost at least 10 points of persona score, and the interval of the loss excludes 0; the
            protection is tested only where both hold.
    """

    task: str
    n: int
    control_change: Comparison
    replay_change: Comparison
    retained: Estimate
    control_reached_floor: bool
    control_lost_enough: bool


@dataclass(frozen=True)
class PathResult:
    """The path of one stage by its colour (`text.PATHS`), and why."""

    stage: str
    colour: Colour
    reason: str


@dataclass(frozen=True)
class SampleAnswer:
    """A state's answer, with its style (probability 0..1) and persona score."""

    answer: str
    probability: float
    coherent: bool
    score: float


@dataclass(frozen=True)
class Sample:
    """A held-out prompt with the answer of each state."""

    question: str
    topic: str
    answers: dict[str, SampleAnswer]


@dataclass(frozen=True)
class LossPoint:
    """The training loss at one step."""

    step: int
    loss: float


@dataclass(frozen=True)
class TrainingResult:
    """One trained adapter. What a kind of training does not count is None.

    Attributes:
        distance: of a task's examples from what is replayed, with the `risk` of forgetting that it means.
        strength: by which the adapter is served, 1 as it was trained.
    """

    name: str
    seconds: float
    curve: list[LossPoint]
    steps: int | None = None
    peak_gib: float | None = None
    trainable_parameters: int | None = None
    frozen_tensors_unchanged: int | None = None
    trainable_tensors_moved: int | None = None
    examples: int | None = None
    replayed: int | None = None
    distance: Distance | None = None
    risk: str | None = None
    strength: float | None = None


@dataclass(frozen=True)
class BufferResult:
    """The replay buffer: `size` of the candidates are in it, `new` of them for the first time.

    Attributes:
        too_long: exchanges that did not fit, and are no candidates.
        importance: the kind of importance; the means are over the buffer and over all candidates.
        kl_error: KL of the stored distributions to the personality's, nats a token; None where none are stored, as
            `kl_rounding`, the part of it that is due to rounding.
        bytes_per_exchange: by part.
    """

    candidates: int
    too_long: int
    size: int
    new: int
    tokens: int
    importance: str
    mean_importance: float
    mean_importance_all: float | None
    kl_error: float | None = None
    kl_rounding: float | None = None
    bytes_per_exchange: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeResult:
    """A language model as the judge: by state, then by the state that it is compared with; its agreement with
    people."""

    model: str
    states: dict[str, dict[str, JudgeSummary]] = field(default_factory=dict)
    labels: Agreement | None = None


@dataclass(frozen=True)
class NoiseResult:
    """Identical trainings of the personality: are they the same to the last answer, and how much do they differ?"""

    identical: bool
    persona: Noise
    capability: Noise


@dataclass(frozen=True)
class Results:
    """Everything that the report is made of. A run that is not complete has empty parts, and says under `missing` what
    has not been measured."""

    model: str
    precision: str
    persona: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    pairs: PairFacts | None = None
    introspection: IntrospectionFacts | None = None
    classifier: ClassifierResult | None = None
    states: list[StateResult] = field(default_factory=list)
    pressure: dict[str, PressureSummary] = field(default_factory=dict)
    profile: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    judge: JudgeResult | None = None
    tasks: list[TaskResult] = field(default_factory=list)
    retention: list[Retention] = field(default_factory=list)
    gates: dict[str, GateVerdict] = field(default_factory=dict)
    noise: NoiseResult | None = None
    paths: list[PathResult] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    training: list[TrainingResult] = field(default_factory=list)
    buffer: BufferResult | None = None
    hypotheses: list[GridVerdict] = field(default_factory=list)
    explored: Explored | None = None
    knowledge: list[Capacity] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing has been measured."""
        return not (self.states or self.hypotheses or self.explored or self.knowledge)

    @property
    def capability_margin(self) -> float:
        """The gate's margin for capability, in points."""
        return self.config.get("gate", {}).get("capability_margin", 5.0)


def load_results(path: Path) -> Results:
    """Read results.json. Parts that are absent are empty; types are not coerced.

    Raises:
        BadInput: naming the first value that is of a wrong type.
    """
    return read_document(path, Results)


def write_results(path: Path, results: Results) -> None:
    """Write results.json; null stands for what is absent or unknown."""
    write_document(path, results)
