"""The file of conversations that a retraining does not take, each with its reasons, which a person may overrule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, utc_now, write_text
from moltlm.data.rows import Row, read_rows
from moltlm.data.types import Exchange
from moltlm.pipeline.config import Config

FILE = "set_aside.jsonl"
BY_HAND = "left out by hand"


@dataclass(frozen=True)
class SetAside(Row):
    """An exchange that is not learned.

    Attributes:
        id: of what would be learned of it (`id_of`).
        reasons: why.
        margin: nats a token that its answer gains from the base to the personality in use; None: not measured.
        projection: its place along the persona direction; None: not measured.
        time: UTC, ISO 8601.
        allow: whether a person has overruled it: it is learned then.
    """

    id: str
    reasons: list[str]
    question: str
    answer: str
    source: str = ""
    margin: float | None = None
    projection: float | None = None
    time: str = field(default_factory=utc_now)
    allow: bool = False


def path(config: Config) -> Path:
    """The file of a run."""
    return config.run.folder / FILE


def id_of(item: Exchange) -> str:
    """What identifies what is learned of an exchange, whatever earlier turns were left out of its prompt to fit."""
    return fingerprint([item.question, item.answer, item.rejected])


def read(config: Config) -> dict[str, SetAside]:
    """The rows by id. Raises BadInput, naming file and record, for a row that a hand has spoiled."""
    file = path(config)
    rows = read_rows(file, SetAside) if file.is_file() else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.allow, bool):
            raise BadInput(f"{file}, record {number}: allow is neither true nor false.", 'Write "allow": true')
    return {row.id: row for row in rows}


def add(config: Config, rows: Iterable[SetAside]) -> None:
    """Add rows; what a person has decided on the same exchanges stands."""
    before = read(config)
    _write(config, {**{row.id: row for row in rows}, **before})


def allow(config: Config, ids: Sequence[str], same: str) -> list[SetAside]:
    """Overrule: the next cycle learns these. "all" stands for every row. Raises BadInput for an unknown id.

    Args:
        same: the arguments that name this run in another command.
    """
    rows = read(config)
    chosen = [row for row in rows.values() if not row.allow] if list(ids) == ["all"] else _chosen(rows, ids, same)
    changed = [replace(row, allow=True) for row in chosen]
    if changed:
        _write(config, rows | {row.id: row for row in changed})
    return changed


def refuse(config: Config, items: Iterable[Exchange], reason: str = BY_HAND) -> list[SetAside]:
    """Leave exchanges out from now on, whatever was decided before."""
    rows = [SetAside(id_of(item), [reason], item.question, item.answer, item.source) for item in items]
    _write(config, read(config) | {row.id: row for row in rows})
    return rows


def _chosen(rows: dict[str, SetAside], ids: Sequence[str], same: str) -> list[SetAside]:
    if missing := [each for each in ids if each not in rows]:
        raise BadInput(f"{missing[0]} is not set aside.", f"See what is: molt screen list {same}")
    return [rows[each] for each in ids]


def _write(config: Config, rows: dict[str, SetAside]) -> None:
    lines = [json.dumps(row.to_row(), ensure_ascii=False) for row in rows.values()]
    write_text(path(config), "".join(f"{line}\n" for line in lines), private=True)
