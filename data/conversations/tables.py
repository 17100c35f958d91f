"""CSV and Parquet as JSON lines: a row is a conversation, a question and its answer, or a turn."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from moltlm.data.conversations.compared import STEMS, SUFFIXES
from moltlm.data.conversations.decoder import DECODER
from moltlm.data.conversations.marks import KEYS
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.streams import CHUNK, Blocks
from moltlm.data.conversations.turns import ROLES, inner_of
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
TIMES += ("createdat", "create_time", "created_time", "sent", "date_sent", "message_date")
TIMES += ("ts", "datum", "fecha", "zeit")
IS_USER = ("iscreatedbyuser", "is_created_by_user", "is_user", "is_human", "isuser", "ishuman", "from_user")
SAID = frozenset((*QUESTIONS, *ANSWERS, "chosen", "rejected", "context"))
SAID |= {stem + end for stem in STEMS for ends in SUFFIXES for end in ends}
"""Columns of what somebody says. A cell may hold messages there; any other JSON is what is said."""
AS_TEXT = r"""awk '{gsub(/"/, "\"\""); gsub(/\t/, "\"\t\""); print "\"" $0 "\""}'"""
"""A shell command by which the quotation marks of a table with tabs become a part of its texts."""
DOUBLED = """sed 's/\\\\"/""/g'"""
"""A shell command that doubles the quotation marks in a text that have a backslash before them."""
PYTHON_LIMIT = 1 << 20
"""Characters of a cell that is read as a Python value."""
PARTS = frozenset(("content", "value", "text", "parts", "tool_calls", "function_call"))
"""Fields of a message in a cell, one of which it has beside its role."""
DELIMITERS = ",;\t|"
WORDS = frozenset((*RECORDS, *SAID, *SPEAKERS, *TEXTS, *THREADS))
"""Columns of texts, whose cells stay texts where they are numbers."""
PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?|true|false")
"""Cells of other columns that are numbers or truth values: marks such as a rating, a label, a weight."""

TURN = ("table_speaker", "table_text", "table_thread", "table_is_user", "table_time")
"""The keys of a row that is a turn, as `rows.TABLE` reads it."""

Row = dict[str, Any]
Fit = Callable[[Row], Row]


def fit(columns: Iterable[str]) -> Fit | None:
    """How rows of these columns become records of a known format; None if the columns say nothing."""
    names = {_name(column): column for column in columns}

    def first(options: tuple[str, ...]) -> str | None:
        return next((names[name] for name in options if name in names), None)

    if any(name in names for name in RECORDS) and not ("conversation" in names and first(TEXTS)):
        return _cells(names)
    if any({stem + one, stem + two} <= set(names) for stem in STEMS for one, two in SUFFIXES):
        return _cells(names)
    question, answer = first(QUESTIONS), first(ANSWERS)
    speaker, text = first(SPEAKERS), first(TEXTS)
    if question and answer:
        if {"instruction", "output"} <= set(names) or ("prompt" in names and first(ANSWERS[:3])):
            return _cells(names)
        renamed = {question: "prompt", answer: "answer"}
        return _cells({renamed.get(column, name): column for name, column in names.items()})
    if text and speaker and text != speaker:
        parts = dict(zip(TURN[:4], (speaker, text, first(THREADS), first(IS_USER)), strict=True))
        times = [names[name] for name in ("date", "time") if name in names]
        times = times if len(times) == 2 else [time] if (time := first(TIMES)) else []
        marks = {name: column for name, column in names.items() if name in KEYS and column not in parts.values()}
        return _turns({key: part for key, part in {**marks, **parts}.items() if part}, times)
    return dict if names.keys() == {"text"} or {"text", "meta"} >= names.keys() > {"meta"} else None


def _name(column: str) -> str:
    """The name of a column in lower case, its words joined by underscores."""
    return re.sub(r"\W+", "_", column.strip().lower()).strip("_")


def _cells(names: dict[str, str]) -> Fit:
    """How the cells of these columns are read, each by its new name."""
    readers = {name: (column, messages_or_text if name in SAID else parsed) for name, column in names.items()}
    return lambda row: {name: read(row.get(column)) for name, (column, read) in readers.items()}


def _turns(columns: dict[str, str], times: list[str]) -> Fit:
    """How a row becomes a turn, which has a text also where the cell is empty; a date and a time are one time."""

    def turn(row: Row) -> Row:
        cells = {key: row.get(column) for key, column in columns.items()}
        cells["table_text"] = cells["table_text"] or ""
        cells["table_time"] = row.get(times[0]) if len(times) == 1 else " ".join(str(row.get(each)) for each in times)
        return cells

    return turn


def messages_or_text(value: Any) -> Any:
    """A cell of what somebody says: the messages that it holds, else its text, be it JSON or not."""
    decoded = parsed(value)
    return decoded if holds_messages(decoded) else value


def holds_messages(value: Any) -> bool:
    """Whether a value is a message, a list of messages, or the object around them of a request or a response."""
    if isinstance(value, dict):
        value = value.get("messages", value.get("choices", [value]))
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        return False
    messages = [{**inner_of(each), **each} for each in value]
    senders = [str(each.get("role", each.get("from"))).lower() for each in messages]
    return any(each in ROLES for each in senders) and not any(PARTS.isdisjoint(each) for each in messages)


def parsed(value: Any) -> Any:
    """A cell: JSON where it is an object or a list, else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return DECODER.decode(value)
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


def csv_lines(source: Source, suffix: str) -> BinaryIO:
    """A CSV as JSON lines, each on the line on which its row begins.

    Args:
        suffix: of the name of the CSV, which is read by it.

    Raises:
        BadInput: for columns that say nothing, for a text that is not UTF-8, and for a quotation mark that is missing.
    """
    return io.BufferedReader(Blocks(_encoded(_csv_rows(source, suffix))), CHUNK)


def _csv_rows(source: Source, suffix: str) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV, each with the line on which it begins."""
    csv.field_size_limit(1 << 26)
    with source.open() as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        try:
            first = text.readline(1 << 16)
            above = int(first.startswith("sep="))  # as Excel marks the delimiter
            first = text.readline(1 << 16) if above else first
            header, delimiter, fitted = _header(source.name, first)
            rows = csv.reader(chain([first], _unbroken(text)), delimiter=delimiter, strict=True)
            line = 1 + above
            try:
                next(rows)
                line += rows.line_num
                marks = {column for column in header if _name(column) not in WORDS}
                for row in rows:
                    if any(row[len(header) :]):
                        yield line, {"cells": row}  # a quotation mark is missing: nobody knows which cell is which
                    elif any(row):
                        cells = {column: cell for column, cell in zip(header, row, strict=False) if cell}
                        yield line, fitted({key: _plain(cell) if key in marks else cell for key, cell in cells.items()})
                    line = 1 + above + rows.line_num
            except csv.Error:
                raise _unquoted(source, suffix, range(line, 1 + above + rows.line_num), delimiter) from None
        except UnicodeDecodeError:
            raise _undecodable(source, suffix) from None


def _undecodable(source: Source, suffix: str) -> BadInput:
    """The error for a text that is not UTF-8."""
    at = 0
    with source.open() as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return source.undecodable(f", line {number}", at + error.start, suffix)
            at += len(line)
    return source.bad(" is not UTF-8.")


def _unquoted(source: Source, suffix: str, lines: range, delimiter: str) -> BadInput:
    """The error for a row on these lines whose quotation marks do not say where its cells end. Where tabs separate the
    cells, the marks are often a part of the text; elsewhere, a backslash may stand before those that are."""
    what = f", line {lines[0]}: a quotation mark of this row is missing, or one in its text is not doubled."
    if delimiter == "\t":
        as_text = source.convert(AS_TEXT, suffix)
        return source.bad(what, f"If the quotation marks of the file are a part of its texts: {as_text}")
    with source.open() as file:
        row = b"".join(islice(file, lines[0] - 1, lines[-1]))
    if b'\\"' in row:
        return source.bad(what, f"Double those after a backslash: {source.convert(DOUBLED, suffix)}")
    return source.bad(what, f"Look at the row, and correct it: {source.piped(f'sed -n {lines[0]}p')}")


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


def _plain(cell: str) -> Any:
    """A number or a truth value, where a cell is one."""
    word = cell.strip().lower()
    return json.loads(word) if PLAIN.fullmatch(word) else cell


def parquet_lines(name: str, open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """A Parquet file as JSON lines. Raises BadInput for columns that say nothing, and for a damaged file."""
    return io.BufferedReader(Blocks(_encoded(_parquet_rows(name, open_file))), CHUNK)


def _parquet_rows(name: str, open_file: Callable[[], BinaryIO]) -> Iterator[tuple[int, Row]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with open_file() as file:
            table = parquet.ParquetFile(file)
            fitted = fit(table.schema_arrow.names)
            if fitted is None:
                raise unknown_columns(name, ", ".join(table.schema_arrow.names[:8])[:200])
            batches = table.iter_batches(batch_size=64)
            yield from enumerate((fitted(row) for batch in batches for row in batch.to_pylist()), 1)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{name} is no Parquet file that can be read ({reason}).", "Fetch it again.") from None


def _encoded(rows: Iterator[tuple[int, Row]]) -> Iterator[bytes]:
    """Each row as JSON on its line; the lines between are blank."""
    written = 0
    for line, row in rows:
        text = json.dumps(_without_nulls(row, top=True), ensure_ascii=False, default=_as_text)
        yield ("\n" * (line - written - 1) + text + "\n").encode("utf-8", "replace")
        written = line


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
