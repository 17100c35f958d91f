"""A language model as the judge of who speaks more in character: blinded, asked in both orders, and itself judged
against the classifier and against people. Entirely optional."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import cohen_kappa_score

from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl
from moltlm.data.types import Message
from moltlm.evals import stats

Record = dict[str, Any]
Ask = Callable[[list[list[Message]]], list[str | None]]
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
"""What a reply is worth to the first answer."""


@dataclass(frozen=True)
class Duel:
    """Two answers to one question, of which `ours` is the state that is judged."""

    id: str
    question: str
    ours: str
    theirs: str
    classified: float | None = None


def duels(records: Sequence[Record], against: Sequence[Record]) -> list[Duel]:
    """The persona records of two states, by prompt; `classified` is the classifier's preference, by score."""
    other = {row["id"]: row for row in against}
    return [
        Duel(row["id"], row["question"], row["answer"], other[row["id"]]["answer"], _sign(row, other[row["id"]]))
        for row in records
        if row["id"] in other
    ]


def labelled(path: Path) -> tuple[list[Duel], list[int]]:
    """What people preferred. Lines of `{"question", "first", "second", "preferred": 1, 2, or 0}`. Raises BadInput for
    anything else."""
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


def evaluate(pairs: Sequence[Duel], brief: str, ask: Ask) -> list[Record]:
    """Each duel in both orders. `value` is 1 where both orders prefer ours, 0 where both prefer theirs, else one half;
    None where a reply is missing or cannot be read."""
    prompts = [_prompt(brief, duel, swapped) for duel in pairs for swapped in (False, True)]
    replies = iter(ask(prompts))
    records = []
    for duel in pairs:
        orders = [VALUES.get(read(next(replies))), _turned(VALUES.get(read(next(replies))))]
        first, second = orders
        value = None if first is None or second is None else first if first == second else 0.5
        records.append({**asdict(duel), "orders": orders, "value": value})
    return records


def read(reply: str | None) -> int | None:
    """The last 0, 1 or 2 that stands alone; a judge may think aloud before it."""
    found = re.findall(r"(?<![\w.])[012](?![\w]|\.\d)", reply or "")
    return int(found[-1]) if found else None


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Win-rate of ours with its interval, how often the order decided, and agreement with the classifier."""
    read_ = [row for row in records if row["value"] is not None]
    found: dict[str, Any] = {"n": len(read_), "unread": len(records) - len(read_)}
    if not read_:
        return found
    classified = [row for row in read_ if row["classified"] is not None]
    return {
        **found,
        "win_rate": asdict(stats.mean([row["value"] for row in read_])),
        "disagreement": asdict(stats.proportion(sum(len(set(row["orders"])) > 1 for row in read_), len(read_))),
        "kappa": kappa([row["value"] for row in classified], [row["classified"] for row in classified]),
    }


def agreement(records: Sequence[Record], labels: Sequence[int]) -> dict[str, Any]:
    """The judge against people, on answers that people have compared."""
    both = [
        (row["value"], VALUES[label]) for row, label in zip(records, labels, strict=True) if row["value"] is not None
    ]
    same = sum(ours == theirs for ours, theirs in both)
    return {
        "n": len(both),
        "same": asdict(stats.proportion(same, len(both))) if both else None,
        "kappa": kappa([ours for ours, _ in both], [theirs for _, theirs in both]),
    }


def kappa(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Cohen's (1960), over the three verdicts; None where it is not defined, as when all verdicts are one."""
    if not ours:
        return None
    names = {0.0: "theirs", 0.5: "neither", 1.0: "ours"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = float(cohen_kappa_score([names[v] for v in ours], [names[v] for v in theirs]))
    return found if math.isfinite(found) else None


def _prompt(brief: str, duel: Duel, swapped: bool) -> list[Message]:
    first, second = (duel.theirs, duel.ours) if swapped else (duel.ours, duel.theirs)
    text = TASK.format(brief=brief, question=duel.question, first=first, second=second)
    return [{"role": "user", "content": text}]


def _turned(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _sign(ours: Record, theirs: Record) -> float:
    """What the classifier, with coherence, would say: 1, one half, or 0."""
    difference = ours["score"] - theirs["score"]
    return 0.5 + 0.5 * ((difference > 0) - (difference < 0))
