"""A language model as the judge of which answer is more in character. Optional.

It sees no names, compares every two answers in both orders, and is itself compared with the style classifier and with
people's labels.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sklearn.metrics import cohen_kappa_score

from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl
from moltlm.data.types import Message
from moltlm.evals import stats
from moltlm.evals.records import JudgeRecord, PersonaRecord, pair

Ask = Callable[[list[list[Message]]], list[str | None]]
"""Sends prompts to the judge; None for a prompt without a reply."""
TASK = """You compare two answers to the same message, and say which of them this character wrote.

{brief}

Message:
{question}

Answer 1:
{first}

Answer 2:
{second}

Which answer is more in character? How right or how long an answer is does not matter.
Reply with 1, 2, or 0 if you cannot tell."""
VALUES: dict[int | None, float] = {1: 1.0, 2: 0.0, 0: 0.5}
"""What a reply is worth to the answer that is shown first."""


@dataclass(frozen=True)
class Duel:
    """Two answers to one message.

    Attributes:
        id: of the held-out pair or of the labelled pair.
        question: the message.
        answer: the answer of the state that is judged.
        other_answer: the answer that it is compared with.
        classified: the style classifier's preference: 1 for `answer`, 0 for `other_answer`, 0.5 for neither.
    """

    id: str
    question: str
    answer: str
    other_answer: str
    classified: float | None = None


@dataclass(frozen=True)
class JudgeSummary:
    """A state against another, by the judge.

    Attributes:
        n: duels with two readable replies; `unread` counts the rest.
        win_rate: mean value of the judged state's answers; None where n is 0, as the next two.
        disagreement: share of duels in which the two orders led to different preferences.
        kappa: Cohen's kappa with the style classifier; None where it is not defined.
    """

    n: int
    unread: int
    win_rate: stats.Estimate | None = None
    disagreement: stats.Estimate | None = None
    kappa: float | None = None


@dataclass(frozen=True)
class Agreement:
    """The judge against people: `same` is the share of equal preferences over `n` labelled pairs that it could read."""

    n: int
    same: stats.Estimate | None
    kappa: float | None


def duels(records: Sequence[PersonaRecord], others: Sequence[PersonaRecord]) -> list[Duel]:
    """The answers of two states to the same prompts, with the classifier's preference by score."""
    return [
        Duel(record.id, record.question, record.answer, other.answer, _preference(record.score - other.score))
        for record, other in pair(records, others)
    ]


def labelled(path: Path) -> tuple[list[Duel], list[int]]:
    """Read answers that people compared, and what they preferred (1, 2, or 0 for neither).

    Raises:
        BadInput: for a line that is not `{"question", "first", "second", "preferred": 1, 2, or 0}`.
    """
    rows = read_jsonl(path, "labelled answers")
    for number, row in enumerate(rows, start=1):
        texts = all(isinstance(row.get(key), str) and row[key].strip() for key in ("question", "first", "second"))
        if not texts or row.get("preferred") not in (0, 1, 2):
            raise BadInput(
                f"{path}, record {number}: it needs a question, first, second, and preferred (0, 1 or 2).",
                f"Look at it: sed -n {number}p {path}",
            )
    pairs = [Duel(f"label-{i}", row["question"], row["first"], row["second"]) for i, row in enumerate(rows)]
    return pairs, [int(row["preferred"]) for row in rows]


def evaluate(pairs: Sequence[Duel], brief: str, ask: Ask, against: str = "") -> list[JudgeRecord]:
    """Ask the judge about each duel in both orders.

    Args:
        brief: the description of the character.
        against: the state that `other_answer` is from.
    """
    prompts = [_prompt(brief, duel, swapped) for duel in pairs for swapped in (False, True)]
    replies = iter(ask(prompts))
    records = []
    for duel in pairs:
        first, second = VALUES.get(read(next(replies))), _swapped(VALUES.get(read(next(replies))))
        value = None if first is None or second is None else first if first == second else 0.5
        records.append(JudgeRecord(against=against, orders=[first, second], value=value, **asdict(duel)))
    return records


def read(reply: str | None) -> int | None:
    """The last 0, 1 or 2 that stands alone; a judge may reason aloud before it."""
    numbers = re.findall(r"(?<![\w.])[012](?![\w]|\.\d)", reply or "")
    return int(numbers[-1]) if numbers else None


def summarise(records: Sequence[JudgeRecord]) -> JudgeSummary:
    """Win rate with its interval, how often the order decided, and agreement with the classifier."""
    values = {record.key: record.value for record in records if record.value is not None}
    readable = [record for record in records if record.key in values]
    if not readable:
        return JudgeSummary(0, len(records))
    classified = [(values[record.key], record.classified) for record in readable if record.classified is not None]
    return JudgeSummary(
        n=len(readable),
        unread=len(records) - len(readable),
        win_rate=stats.score(list(values.values())),
        disagreement=stats.proportion(sum(len(set(record.orders)) > 1 for record in readable), len(readable)),
        kappa=kappa([value for value, _ in classified], [preference for _, preference in classified]),
    )


def agreement(records: Sequence[JudgeRecord], labels: Sequence[int]) -> Agreement:
    """The judge against people, on answers that people have compared, in their order."""
    pairs = [
        (record.value, VALUES[label]) for record, label in zip(records, labels, strict=True) if record.value is not None
    ]
    equal = sum(judged == labelled for judged, labelled in pairs)
    return Agreement(
        n=len(pairs),
        same=stats.proportion(equal, len(pairs)) if pairs else None,
        kappa=kappa([judged for judged, _ in pairs], [label for _, label in pairs]),
    )


def kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's kappa (1960) over the three preferences; None where it is not defined, as when all are the same."""
    if not first:
        return None
    names = {0.0: "other answer", 0.5: "neither", 1.0: "answer"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(cohen_kappa_score([names[v] for v in first], [names[v] for v in second]))
    return value if math.isfinite(value) else None


def _prompt(brief: str, duel: Duel, swapped: bool) -> list[Message]:
    first, second = (duel.other_answer, duel.answer) if swapped else (duel.answer, duel.other_answer)
    text = TASK.format(brief=brief, question=duel.question, first=first, second=second)
    return [{"role": "user", "content": text}]


def _swapped(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _preference(difference: float) -> float:
    """1, one half, or 0, by the sign of a difference in score."""
    return 0.5 + 0.5 * ((difference > 0) - (difference < 0))
