"""Tables with one turn a row, as `tables` makes them of CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.table_times import falls
from moltlm.data.conversations.tables import TURN
from moltlm.data.conversations.turns import OTHER, ROLES, Fail, FileReport, Record, Turn, turn_of

SPEAKER, TEXT, THREAD, IS_USER, TIME = TURN
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


def _conversations(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """Rows by conversation, the oldest first; all of them are one without a column for it. A conversation whose times
    say nothing of its order has that of the others."""
    threads: dict[str, tuple[str, list[Record]]] = {}
    for place, record in records:
        if isinstance(record, dict):
            threads.setdefault(str(record.get(THREAD, "")), (place, []))[1].append(record)
    verdicts = [falls([row.get(TIME) for row in rows]) for _, rows in threads.values()]
    unknown = True in verdicts and False not in verdicts
    for (place, rows), verdict in zip(threads.values(), verdicts, strict=True):
        is_newest_first = unknown if verdict is None else verdict
        yield place, {"rows": rows[::-1] if is_newest_first else rows}


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    for row in record["rows"]:
        name, flag = str(row.get(SPEAKER) or "").strip(), str(row.get(IS_USER, "")).lower()
        role = ROLES.get(name.lower(), "" if name else None)
        role = "user" if flag in TRUE else "assistant" if flag in FALSE and not role else role
        if role is None:
            report.noise["row without a speaker"] += 1
            if row.get(TEXT):
                yield Turn(OTHER, "")  # whoever it is, what follows answers them
            continue
        text = row.get(TEXT)
        mark = mark_of(row, report.scales)
        for turn in turn_of(role, text if isinstance(text, str | list) else "", report, fail):
            unwanted = mark.unwanted if role != "user" else ""
            yield turn._replace(speaker="" if role else name, context_only=mark.context_only, unwanted=unwanted)


TABLE = Format(
    "table of turns",
    "CSV and Parquet (`prompt` and `answer`, `messages`, or `role` and `content`)",
    lambda record: TEXT in record,
    _read,
    gather=_conversations,
)
