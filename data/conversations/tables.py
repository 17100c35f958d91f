"""CSV and Parquet as JSON lines: a row is a conversation, a question and its answer, or a turn."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from moltlm.data.conversations.compared import STEMS, SUFFIXES
from moltlm.data.conversations.marks import KEYS
from moltlm.data.conversations.streams import CHUNK, Blocks
from moltlm.data.errors import BadInput

RECORDS = ("messages", "conversations", "conversation", "chosen", "mapping", "chat_messages", "turns")
"""Columns whose rows are conversations."""
QUESTIONS = (
    "prompt",
    "text_input",
    "input_text",
    "frage",
    "pregunta",
    "pergunta",
    "domanda",
    "вопрос",
    "问题",
    "問題",
    "質問",
    "question",
    "instruction",
    "query",
    "input",
    "user",
    "human",
    "user_message",
    "q",
    "request",
)
ANSWERS = ("answer", "response", "completion", "output", "reply", "assistant", "bot", "ai", "model_response", "a")
ANSWERS += ("assistant_message", "bot_response", "gpt", "output_text", "antwort", "respuesta", "réponse", "reponse")
ANSWERS += ("resposta", "risposta", "ответ", "回答", "答案")
SPEAKERS = ("role", "speaker", "author", "sender", "from", "user", "username", "name", "author_name", "sender_name")
TEXTS = ("content", "text", "message", "body", "mes", "value", "utterance", "contents")
THREADS = ("conversation_id", "session_id", "thread_id", "chat_id", "dialog_id", "dialogue_id", "conversationid")
THREADS += ("sessionid", "threadid", "conv_id", "conversation", "session", "thread", "channel_id")
TIMES = ("time", "timestamp", "date", "datetime", "created_at", "created", "send_date", "sent_at")
IS_USER = ("iscreatedbyuser", "is_created_by_user", "is_user", "is_human", "isuser", "ishuman", "from_user")
PYTHON_LIMIT = 1 << 20
"""Characters of a cell that is read as a Python value."""
DELIMITERS = ",;\t|"
PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?|true|false")
"""Cells of other columns that are numbers or truth values: marks such as a rating, a label, a weight."""

TURN = ("table_speaker", "table_text", "table_thread", "table_is_user", "table_time")
"""The keys of a row that is a turn, as `rows.TABLE` reads it."""

Row = dict[str, Any]
Fit = Callable[[Row], Row]


def fit(columns: Iterable[str]) -> Fit | None:
    """How rows of these columns become records of a known format; None if the columns say nothing."""
    names = {re.sub(r"\W+", "_", column.strip().lower()).strip("_"): column for column in columns}

    def first(options: tuple[str, ...]) -> str | None:
        return next((names[name] for name in options if name in names), None)

    if any(name in names for name in RECORDS) and not ("conversation" in names and first(TEXTS)):
        return lambda row: {name: parsed(row.get(column)) for name, column in names.items()}
    if any({stem + one, stem + two} <= set(names) for stem in STEMS for one, two in SUFFIXES):
        return lambda row: {name: parsed(row.get(column)) for name, column in names.items()}
    question, answer = first(QUESTIONS), first(ANSWERS)
    speaker, text = first(SPEAKERS), first(TEXTS)
    if question and answer:
        if {"instruction", "output"} <= set(names) or ("prompt" in names and first(ANSWERS[:3])):
            return lambda row: {name: parsed(row.get(column)) for name, column in names.items()}
        renamed = {question: "prompt", answer: "answer"}
        return lambda row: {renamed.get(column, name): parsed(row.get(column)) for name, column in names.items()}
    if text and speaker and text != speaker:
        parts = dict(zip(TURN, (speaker, text, first(THREADS), first(IS_USER), first(TIMES)), strict=True))
        marks = {name: column for name, column in names.items() if name in KEYS and column not in parts.values()}
        columns = {key: part for key, part in {**marks, **parts}.items() if part}
        return lambda row: {key: row.get(column) for key, column in columns.items()}
    return dict if names.keys() == {"text"} or {"text", "meta"} >= names.keys() > {"meta"} else None


def parsed(value: Any) -> Any:
    """A cell: JSON where it is an object or a list, else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return _python_value(value)
    return value


def _python_value(text: str) -> Any:
    """A list or an object as Python prints it (pandas writes such cells); the text, if it is none."""
    if len(text) > PYTHON_LIMIT:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def csv_lines(name: str, open_text: Callable[[], BinaryIO]) -> BinaryIO:
    """A CSV as JSON lines. Raises BadInput for columns that say nothing and for a malformed row."""
    return io.BufferedReader(Blocks(_encoded(_csv_rows(name, open_text))), CHUNK)


def _csv_rows(name: str, open_text: Callable[[], BinaryIO]) -> Iterator[Row]:
    csv.field_size_limit(1 << 26)
    with open_text() as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        try:
            first = text.readline(1 << 16)
            if first.startswith("sep="):  # as Excel marks the delimiter
                first = text.readline(1 << 16)
            header, delimiter, fitted = _header(name, first)
            rest = csv.reader(chain([first], _unbroken(text)), delimiter=delimiter)
            next(rest)
            for row in rest:
                if any(row[len(header) :]):
                    yield {"cells": row}  # a quotation mark is missing: nobody knows which cell is which
                elif any(row):
                    cells = dict(zip(header, row, strict=False))
                    yield fitted({key: _plain(key, cell) for key, cell in cells.items() if cell})
        except (csv.Error, UnicodeDecodeError) as error:
            what = f"{name} is no CSV in UTF-8 that can be read ({error})."
            raise BadInput(what, "Save it as CSV in UTF-8 with commas, and import that.") from None


def _unbroken(text: io.TextIOWrapper) -> Iterator[str]:
    """Lines, none of which is longer than a field may be."""
    while line := text.readline(1 << 26):
        yield line.replace("\0", "")


def _header(name: str, line: str) -> tuple[list[str], str, Fit]:
    """The columns of a CSV, its delimiter, and how its rows are read."""
    options = [(next(csv.reader([line], delimiter=sign), []), sign) for sign in DELIMITERS]
    for columns, delimiter in sorted(options, key=lambda option: -len(option[0])):
        fitted = fit(columns)
        if fitted:
            return columns, delimiter, fitted
    columns = max((columns for columns, _ in options), key=len)
    listed = ", ".join(columns[:8])[:200] or "none"
    raise unknown_columns(name, listed)


def unknown_columns(name: str, listed: str) -> BadInput:
    """The error for a table whose columns say nothing."""
    return BadInput(
        f"{name} is a table without columns of conversations; its columns are: {listed}.",
        "Name them prompt and answer; or messages (JSON); or role and content, with conversation_id.",
    )


def _plain(column: str, cell: str) -> Any:
    text_columns = (*RECORDS, *QUESTIONS, *ANSWERS, *SPEAKERS, *TEXTS, *THREADS, "rejected")
    if column.strip().lower() not in text_columns and PLAIN.fullmatch(cell.strip().lower()):
        return json.loads(cell.strip().lower())
    return cell


def parquet_lines(name: str, open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """A Parquet file as JSON lines. Raises BadInput for columns that say nothing, and for a damaged file."""
    return io.BufferedReader(Blocks(_encoded(_parquet_rows(name, open_file))), CHUNK)


def _parquet_rows(name: str, open_file: Callable[[], BinaryIO]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with open_file() as file:
            table = parquet.ParquetFile(file)
            fitted = fit(table.schema_arrow.names)
            if fitted is None:
                raise unknown_columns(name, ", ".join(table.schema_arrow.names[:8])[:200])
            for batch in table.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield fitted(row)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{name} is no Parquet file that can be read ({reason}).", "Fetch it again.") from None


def _encoded(rows: Iterator[Row]) -> Iterator[bytes]:
    for row in rows:
        yield (json.dumps(_without_nulls(row, top=True), ensure_ascii=False, default=_as_text) + "\n").encode(
            "utf-8", "replace"
        )


def _as_text(value: Any) -> str | None:
    """Dates as text; images and other bytes are left out."""
    return None if isinstance(value, bytes) else str(value)


def _without_nulls(value: Any, top: bool = False) -> Any:
    """A table has every column in every row: those without a value are left out. A message's content stays."""
    if isinstance(value, dict):
        nullable = () if top else TEXTS
        return {str(key): _without_nulls(item) for key, item in value.items() if item is not None or key in nullable}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
