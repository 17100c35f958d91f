"""Typed records: what an evaluation measured, one row of JSONL an item.

Every record has a `key` that is unique within its file. Two states are compared by matching keys (`paired_values`),
never by the order of rows. Fields at their default are left out of the file; an unknown key is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from moltlm.data.errors import MoltError
from moltlm.data.rows import Row, read_rows, write_rows


class Record(Row):
    """Base of every record."""

    @property
    def key(self) -> str:
        """What this record is paired by, unique within its file."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ItemRecord(Record):
    """One item of a capability benchmark.

    Attributes:
        benchmark: the benchmark's name; empty in the records of a study, which measure one benchmark only.
        item: the item's number in the benchmark's file, or "SUBTASK:NUMBER" for a group of tasks.
        correct: 1 if the model is right (the harness's `acc`), else 0.
        correct_norm: the same with likelihoods normalized by length (`acc_norm`); None where the task has none.
        logprob: log-likelihood of the right continuation in nats; None where there is none.
        chance: accuracy of guessing, 0..1.
    """

    benchmark: str = ""
    item: int | str
    correct: int
    correct_norm: int | None = None
    logprob: float | None = None
    chance: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.item}"


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer(Record):
    """An answer with its style and whether it is language at all. The base of other records.

    Attributes:
        question: the user's message that was answered.
        answer: what the model wrote.
        probability: identity: the classifier's probability that the personality wrote it, 0..1.
        coherent: none of the five faults below.
        base_nll: negative log-likelihood of the answer under the base, nats a token.
        echo: it repeats the question.
        repetition: it repeats itself.
        short: it has too few words.
        foreign: it is not in the language of the question.
        garbled: `base_nll` is above the limit of hand-written answers.
        relevance: how surely the answer is to its own question, among distractors, 0 at chance, 1 at most; None where
            too few other questions were at hand, and in records of the first measure, as `distinctness`.
        distinctness: 1, or 0 if another question has nearly the same answer.
    """

    question: str
    answer: str
    probability: float
    coherent: bool
    base_nll: float
    echo: bool
    repetition: bool
    short: bool
    foreign: bool
    garbled: bool
    relevance: float | None = None
    distinctness: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer(JudgedAnswer):
    """A judged answer with its persona score.

    Attributes:
        score: `probability` of a coherent answer, 0 of any other (protocol: G), times `relevance` and `distinctness`
            where they were measured.
    """

    score: float

    @property
    def key(self) -> str:
        return self.question


@dataclass(frozen=True, kw_only=True)
class PersonaRecord(ScoredAnswer):
    """One held-out prompt in one state.

    Attributes:
        id: the id of the held-out pair.
        topic: its topic.
        trait: the trait of the persona that its prompt is about; empty for none.
        chosen: log-likelihood of the hand-written answer, nats a token.
        rejected: log-likelihood of the base's answer, nats a token.
    """

    id: str
    topic: str = ""
    trait: str = ""
    chosen: float
    rejected: float

    @property
    def key(self) -> str:
        return self.id


@dataclass(frozen=True, kw_only=True)
class PressureRecord(JudgedAnswer):
    """One answer under attack, or one turn of a long conversation.

    Attributes:
        id: the held-out pair that the attack was made of, or the id of the written attack or of the conversation.
        kind: the kind of attack, or "conversation".
        turn: the number of the user turn that is answered, from 0.
        user_turn: what the user wrote; `question` is the part of it that the answer is judged against.
        score: as in `ScoredAnswer`; None where another language was requested, which the classifier cannot read.
        in_language: whether the answer is in the requested language; None where none was requested.
    """

    id: str
    kind: str
    turn: int
    user_turn: str
    score: float | None = None
    in_language: bool | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.id}/{self.turn}"


@dataclass(frozen=True, kw_only=True)
class FactRecord(Record):
    """A question about a fact of the persona, asked alone or after a conversation.

    Attributes:
        fact: the name of the fact in the persona's file.
        conversation: the id of the conversation before the question; empty where it was asked alone.
        wording: the number of the question's wording, where it is asked in several.
        answer: what the model wrote.
        recall: share of the fact's content words that the answer has, 0..1.
    """

    fact: str
    conversation: str = ""
    wording: int = 0
    answer: str
    recall: float

    @property
    def key(self) -> str:
        return f"{self.conversation}/{self.fact}/{self.wording}"


@dataclass(frozen=True, kw_only=True)
class AgentRecord(Record):
    """One item of what programs need of a model.

    Attributes:
        kind: "tool call", "json", "tool result" or "safe request".
        item: its number among those of its kind.
        answer: what the model wrote.
        score: how right it is, 0..1.
    """

    kind: str
    item: int
    answer: str
    score: float

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.item}"


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(Record):
    """One item of a scale: a preference, a questionnaire item, or a request.

    Attributes:
        scale: the name of the scale, such as "Big Five: openness" or "refused, safe".
        item: the id of the item.
        value: expected value of the model's choice on the scale, 0..1; of a request, 1 if it was refused.
        order: how far the order of the options moves `value`, 0..1; 0 where they were asked in one order.
        answer: what the model wrote; empty where it only chose.
    """

    scale: str
    item: str
    value: float
    order: float = 0.0
    answer: str = ""

    @property
    def key(self) -> str:
        return f"{self.scale}/{self.item}"


@dataclass(frozen=True, kw_only=True)
class JudgeRecord(Record):
    """Two answers to one message, compared by a language model in both orders.

    Attributes:
        id: the id of the held-out pair, or of the pair of answers that people compared.
        against: the state that the other answer is from; empty for answers that people compared.
        question: the message.
        answer: the answer of the state that is judged.
        other_answer: the answer that it is compared with.
        orders: what the judge preferred with the answer shown first and second: 1 the answer, 0 the other, 0.5
            neither, None unreadable.
        value: 1 if both orders prefer the answer, 0 if both prefer the other, else 0.5; None if a reply is unreadable.
        classified: what the style classifier prefers, on the scale of `value`; None where it was not asked.
    """

    id: str
    against: str = ""
    question: str
    answer: str
    other_answer: str
    orders: list[float | None]
    value: float | None = None
    classified: float | None = None

    @property
    def key(self) -> str:
        return f"{self.against}/{self.id}"


@dataclass(frozen=True, kw_only=True)
class DriftRecord(Record):
    """One text that nobody scores as right or wrong.

    Attributes:
        text_set: the name of the set: "neutral", or a task.
        item: the position in the set, from 0.
        question: the prompt's last message.
        cross_entropy: of the text in this state, nats a token.
        kl: KL(base || state) along the text, nats a token.
    """

    text_set: str
    item: int
    question: str
    cross_entropy: float
    kl: float

    @property
    def key(self) -> str:
        return f"{self.text_set}/{self.item}"


@dataclass(frozen=True, kw_only=True)
class LikelihoodRecord(Record):
    """The right answer to one test example of a task, as the model scores it.

    Attributes:
        item: the position among the test examples, from 0.
        prompt: the user's message.
        likelihood: mean log-likelihood of the right answer, nats a token; None where it was not measured.
        expected: the right answer; empty for a plain text.
    """

    item: int
    prompt: str
    likelihood: float | None = None
    expected: str = ""

    @property
    def key(self) -> str:
        return str(self.item)


@dataclass(frozen=True, kw_only=True)
class TaskRecord(LikelihoodRecord):
    """One test example of a task that the model answered.

    Attributes:
        correct: 1 if the answer is right by the task's metric, else 0; of a plain text, the geometric mean of its
            tokens' probabilities.
        answer: what the model wrote; empty for a plain text.
        f1: token F1 of the answer (`evals.tasks.token_f1`), 0..1; None for a plain text.
    """

    correct: float
    answer: str = ""
    f1: float | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerRecord(Record):
    """A held-out prompt at a checkpoint of a study; the fields are as in `PersonaRecord`."""

    id: str
    answer: str
    score: float
    coherent: bool

    @property
    def key(self) -> str:
        return self.id


@dataclass(frozen=True, kw_only=True)
class BasePoint(Record):
    """What a study measures of one model. Its file for the untrained base holds one of these.

    Attributes:
        likelihood: mean log-likelihood of the hand-written held-out answers, nats a token.
        likelihoods: the same for each held-out pair, in their order.
        persona: mean persona score, 0..1.
        coherent: share of coherent answers, 0..1.
        answers: the answers that `persona` and `coherent` are means of.
        cross_entropy: of the base's own neutral answers, nats a token; None where none are measured.
        kl: KL(base || model) along them, nats a token; None where none are measured.
        along_persona: how far the hidden states over them moved along the persona direction, whose length is 1; None
            where that was not measured.
        state_shift: how far they moved in any direction, in lengths of the base's states; None as above.
        items: the benchmark's items (LAMBADA).
    """

    likelihood: float
    likelihoods: list[float]
    persona: float
    coherent: float
    answers: list[AnswerRecord]
    cross_entropy: float | None = None
    kl: float | None = None
    along_persona: float | None = None
    state_shift: float | None = None
    items: list[ItemRecord]

    @property
    def key(self) -> str:
        return "base"

    def to_row(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in super().to_row().items()}

    @classmethod
    def from_row(cls, row: dict[str, Any], place: str = "row") -> Self:
        return super().from_row({name: _nested(name, value, place) for name, value in row.items()}, place)


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(BasePoint):
    """A training of a study at one of its checkpoints.

    Attributes:
        arm: the arm of the hypothesis; the file leaves it out, since trainings are shared by hypotheses.
        seed: the seed of the training; left out of the file too.
        step: optimizer steps until here.
        learning_rate: the arm's learning rate.
        gain: what was learned since the base on the hypothesis' axis (nats a token, or score 0..1).
        second: the same on the other axis; None where it was not measured.
        feasible: at least half of the answers are coherent.
        base_items: the same benchmark items for the base.
        composite: points above chance as a share of what is above it, mean over benchmarks; measured at one
            checkpoint only, None at the others.
        base: what was measured of the untrained model with the same items; the file leaves it out, as arm and seed.
    """

    arm: str = ""
    seed: int = 0
    step: int
    learning_rate: float
    gain: float
    second: float | None = None
    feasible: bool
    base_items: list[ItemRecord] = field(default_factory=list)
    composite: float | None = None
    base: BasePoint | None = None

    @property
    def key(self) -> str:
        return f"{self.arm}/{self.seed}/{self.step}"


R = TypeVar("R", bound=Record)
_NESTED: dict[str, type[Record]] = {"answers": AnswerRecord, "items": ItemRecord, "base_items": ItemRecord}


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read the records of one kind.

    Raises:
        BadInput: naming file and record, for an unknown key or a missing one.
    """
    return read_rows(path, kind)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one record a line, fields at their default left out."""
    write_rows(path, records)


def pair(before: Sequence[R], after: Sequence[R]) -> list[tuple[R, R]]:
    """Match the records of two states by key, in the order of `before`.

    Raises:
        MoltError: if a key occurs twice in one of them, or in one of them only.
    """
    first, second = _by_key(before), _by_key(after)
    if differing := sorted(first.keys() ^ second.keys()):
        examples = ", ".join(differing[:3])
        raise MoltError(
            f"The records of the two states are not of the same items: {len(differing)} are in one of them only "
            f"({examples}).",
            "Measure both states again with one configuration: molt run CONFIG",
        )
    return [(record, second[key]) for key, record in first.items()]


def paired_values(
    before: Sequence[R], after: Sequence[R], value: Callable[[R], float]
) -> tuple[list[float], list[float]]:
    """One value of each record before and after, matched by key.

    Raises:
        MoltError: as in `pair`.
    """
    pairs = pair(before, after)
    return [float(value(old)) for old, _ in pairs], [float(value(new)) for _, new in pairs]


def _by_key(records: Sequence[R]) -> dict[str, R]:
    counts = Counter(record.key for record in records)
    if duplicates := [key for key, count in counts.items() if count > 1]:
        raise MoltError(f"The records hold {duplicates[0]} {counts[duplicates[0]]} times: each item is measured once.")
    return {record.key: record for record in records}


def _plain(value: Any) -> Any:
    return [item.to_row() if isinstance(item, Row) else item for item in value] if isinstance(value, list) else value


def _nested(name: str, value: Any, place: str) -> Any:
    kind = _NESTED.get(name)
    if kind is None:
        return value
    return [item if isinstance(item, kind) else kind.from_row(item, f"{place}, {name}") for item in value]
