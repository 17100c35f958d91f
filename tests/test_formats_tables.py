"""Tables as people and programs write them: quotation marks, cells of JSON, empty cells, and rows with the newest first."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from moltlm.data.conversations.table_times import falls
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, turn

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAIRS = [["My clock stopped.", "It sulks."], ["Is it raining?", "Upwards."], ["Who are you?", "Vex."]]


def table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    return path


def run_fix(error: BadInput, folder: Path) -> None:
    """Run the command that an error gives, without the import at its end."""
    command = error.fix.partition(": ")[2].partition(" && molt data import ")[0]
    subprocess.run(command, shell=True, check=True, cwd=folder, timeout=30)


# --- quotation marks

CHATS = st.lists(st.text("ab ,", min_size=1, max_size=8).map(lambda text: f"x{text}x"), min_size=2, max_size=6)


@FUZZ
@given(CHATS, st.integers(0, 10**6))
def test_no_quotation_mark_is_missed_in_silence(tmp_path: Path, texts: list[str], place: int) -> None:
    """Whatever mark at the edge of a cell is missing, no answer is learned that is none."""
    answers = [f"{text}{i}" for i, text in enumerate(texts)]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"q{i}", answer] for i, answer in enumerate(answers)]
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["prompt", "answer"], *rows])
    whole = (tmp_path / "a.csv").read_text(encoding="utf-8")
    edges = [i for i, sign in enumerate(whole) if sign == '"' and '""' not in whole[i - 1 : i + 2]]
    edge = edges[place % len(edges)]
    (tmp_path / "a.csv").write_text(whole[:edge] + whole[edge + 1 :], encoding="utf-8", newline="")
    try:
        found, _ = read(tmp_path / "a.csv")
    except BadInput as error:
        assert error.fix
        return
    assert {each.answer for each in found} <= {part for answer in answers for part in (answer, f'{answer}"')}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('My clock stopped.,"It sulks.\nIs it raining?,Upwards.\nWho are you?,Vex.\n', 2),
        ('Is it raining?,Upwards.\nMy clock stopped.,"It sulks.\nWho are you?,"Vex."\n', 3),
        ('"Is it\nraining?",Upwards.\n"Who are you?,Vex.\n', 4),
        ('Who are you?,"I am "Vex" the clock"\n', 2),
    ],
)
def test_a_missing_quotation_mark_is_an_error_with_its_line(tmp_path: Path, rows: str, line: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,answer\n" + rows, encoding="utf-8")
    with pytest.raises(BadInput, match=f"line {line}: a quotation mark of this row is missing") as error:
        read(path)
    command = error.value.fix.partition(": ")[2]
    shown = subprocess.run(command, shell=True, check=True, capture_output=True, text=True, timeout=30).stdout
    assert shown == path.read_text(encoding="utf-8").splitlines(keepends=True)[line - 1]


def test_quotation_marks_after_a_backslash_are_doubled_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,answer\n"Is the \\"clock\\" dead?","It \\"sulks\\", dear."\n')
    with pytest.raises(BadInput, match="line 2: a quotation mark") as error:
        read(tmp_path / "a.csv")
    run_fix(error.value, tmp_path)
    assert said(read(tmp_path / "fixed.csv")[0]) == [['Is the "clock" dead?', 'It "sulks", dear.']]


def test_quotation_marks_of_a_table_with_tabs_become_text_by_the_command(tmp_path: Path) -> None:
    rows = [['"Rain?', "Upwards."], ["Who?", '"Vex", of course.'], ["And?", 'It sulks, "dear".']]
    text = "".join("\t".join(row) + "\r\n" for row in [["prompt", "answer"], *rows])
    (tmp_path / "a.tsv").write_text(text, newline="")
    with pytest.raises(BadInput, match="line 2: a quotation mark") as error:
        read(tmp_path / "a.tsv")
    run_fix(error.value, tmp_path)
    assert said(read(tmp_path / "fixed.tsv")[0]) == rows


# --- encodings and lines


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_table_in_another_encoding_is_converted_by_the_command(tmp_path: Path, name: str) -> None:
    delimiter = "\t" if ".tsv" in name else ";"
    text = f"Frage{delimiter}Antwort\r\nRegnet es?{delimiter}Aufwärts – ja.\r\n"
    plain = tmp_path / name.removesuffix(".gz")
    plain.write_bytes(text.encode("cp1252"))
    if name.endswith(".gz"):
        subprocess.run(["gzip", plain], check=True)
    with pytest.raises(BadInput, match=r"line 2 is not UTF-8: byte \d+ cannot be read") as error:
        read(tmp_path / name)
    run_fix(error.value, tmp_path)
    assert said(read(tmp_path / f"fixed{plain.suffix}")[0]) == [["Regnet es?", "Aufwärts – ja."]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_error_in_a_row_has_the_line_of_the_file(tmp_path: Path, encoding: str) -> None:
    good = json.dumps([{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c"}], indent=1)
    path = table(tmp_path / "a.csv", ["id", "messages"], [["1", good], ["2", '["no message"]']])
    text = "sep=,\n" + path.read_text(encoding="utf-8")
    path.write_bytes(text.encode(encoding))
    line = text.splitlines().index('2,"[""no message""]"') + 1
    with pytest.raises(BadInput, match=f"line {line}: a message is a text") as error:
        read(path)
    command = error.value.fix.removeprefix("Look at it: ")
    shown = subprocess.run(command, shell=True, check=True, capture_output=True, text=True, timeout=30).stdout
    assert shown.strip() == '2,"[""no message""]"'


# --- cells that hold JSON

JSON_CELLS = ["[1, 2, 3]", '{"kind": "Cuckoo", "age": 90}', '{"text": "a bird", "legs": 2}', '["a", "b"]', "[]", "{}"]
JSON_CELLS += ['[{"role": "admin", "name": "Ana"}]', '[{"from": "Berlin", "to": "Rome"}]', "[None, 'x']", "42", "true"]
JSON_CELLS += [
    '{"question": "Which?", "choices": ["a", "b"]}',
    '{"content": "x", "title": "y"}',
    "[smiles] Both, dear.",
]


@pytest.mark.parametrize("cell", JSON_CELLS)
@pytest.mark.parametrize("columns", [("prompt", "answer"), ("Question", "Model Response"), ("instruction", "output")])
def test_json_that_is_said_stays_text(tmp_path: Path, cell: str, columns: tuple[str, str]) -> None:
    rows = [["Write it as JSON.", cell], [cell, "Why do you say that?"]]
    assert said(read(table(tmp_path / "a.csv", columns, rows))[0]) == rows
    columns_of_rows = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
    parquet.write_table(pyarrow.table(columns_of_rows), tmp_path / "a.parquet")
    assert said(read(tmp_path / "a.parquet")[0]) == rows


@pytest.mark.parametrize("cell", [cell for cell in JSON_CELLS if not cell.startswith('["')])
def test_json_in_preferences_stays_text(tmp_path: Path, cell: str) -> None:
    for columns in (("prompt", "chosen", "rejected"), ("prompt", "response_a", "response_b", "winner")):
        row = ["Write it.", cell, "No.", "a"][: len(columns)]
        found, _ = read(table(tmp_path / "a.csv", columns, [row]))
        assert [(each.answer, each.rejected) for each in found] == [(cell, "No.")]


@pytest.mark.parametrize("write", [json.dumps, str])
def test_messages_in_a_cell_are_messages(tmp_path: Path, write: Any) -> None:
    user, assistant = {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Upwards."}
    for prompt, answer in [([user], "Upwards."), ([user], assistant), ([user], [assistant]), ("Rain?", [assistant])]:
        row = [each if isinstance(each, str) else write(each) for each in (prompt, answer)]
        assert said(read(table(tmp_path / "a.csv", ["prompt", "completion"], [row]))[0]) == [["Rain?", "Upwards."]]
    row = [write([user]), write({"choices": [{"message": assistant}]})]
    assert said(read(table(tmp_path / "b.csv", ["messages", "response"], [row]))[0]) == [["Rain?", "Upwards."]]


# --- empty cells


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("gone", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("cell", ["role", "content"])
def test_no_answer_moves_to_another_question(tmp_path: Path, kind: str, gone: int, cell: str) -> None:
    texts = [text for pair in PAIRS for text in pair]
    rows: list[dict[str, Any]] = [turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    rows[gone] |= {cell: None}
    if kind == "csv":
        path = table(tmp_path / "a.csv", ["role", "content"], [[row["role"], row["content"]] for row in rows])
    else:
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found, report = read(path)
    learned = [pair for i, pair in enumerate(PAIRS) if i != gone // 2]
    for each, (question, answer) in zip(found, learned, strict=True):
        assert each.question.endswith(question) and each.answer == answer
    assert report.turns == 3 - (cell == "role" and gone % 2)


# --- the order of rows

FORMATS = ["%m/%d/%Y %H:%M", "%m/%d/%y, %I:%M %p", "%d.%m.%Y %H:%M", "%d.%m.%y, %H:%M:%S", "%d/%m/%Y %H:%M", "%s"]
FORMATS += ["%b %d, %Y %I:%M:%S %p", "%a, %d %b %Y %H:%M:%S +0000", "%a %b %d %Y %H:%M:%S GMT+0100 (CET)", "%H:%M"]
FORMATS += [
    "%Y/%m/%d %H:%M",
    "%Y-%m-%d %I:%M %p",
    "%Y年%m月%d日 %H:%M",
    "%Y%m%d%H%M%S",
    "%Y-%m-%dT%H:%M:%S.%f0Z",
    "%I:%M %p",
]
FORMATS += [
    "%d. Dezember %Y um %H:%M Uhr",
    "%d %b %Y",
    "%Y/%m/%d %H.%M.%S",
    "%s000",
    "%d.%m. %H:%M",
    "%d грудня %Y %H:%M",
]


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("newest_first", [False, True])
def test_the_newest_row_may_come_first(tmp_path: Path, style: str, newest_first: bool) -> None:
    step = timedelta(days=1) if "%H" not in style and "%I" not in style else timedelta(minutes=61)
    start = datetime(2025, 12, 22, 9, 41)
    rows = [
        [(start + i * step).strftime(style), ("user", "assistant")[i % 2], text]
        for i, text in enumerate(text for pair in PAIRS for text in pair)
    ]
    path = table(tmp_path / "a.csv", ["timestamp", "role", "content"], rows[::-1] if newest_first else rows)
    assert [each[-2:] for each in said(read(path)[0])] == PAIRS


def test_a_date_and_a_time_are_one_time(tmp_path: Path) -> None:
    rows = [
        [f"{20 + i}.12.2025", f"{23 - 7 * (i % 2)}:00", ("Ana", "Vex")[i % 2], text]
        for i, text in enumerate(text for pair in PAIRS for text in pair)
    ]
    for order in (rows, rows[::-1]):
        path = table(tmp_path / "a.csv", ["Date", "Time", "From", "Text"], order)
        assert [each[-2:] for each in said(read(path, voice=Voice(("Vex",)))[0])] == PAIRS


def test_a_conversation_without_an_order_has_that_of_the_others(tmp_path: Path) -> None:
    rows = [
        [i // 2, "1/2/2026 9:00" if i < 2 else f"1/2/2026 9:0{i}", ("user", "assistant")[i % 2], text]
        for i, text in enumerate(text for pair in PAIRS for text in pair)
    ]
    for order in (rows, rows[::-1]):
        path = table(tmp_path / "a.csv", ["conversation_id", "date", "role", "content"], order)
        assert sorted(said(read(path)[0])) == sorted(PAIRS)


TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2029, 1, 1))


@FUZZ
@given(TIMES, st.lists(st.integers(0, 500_000), min_size=1, max_size=6), st.sampled_from(FORMATS[:6] + FORMATS[10:15]))
def test_rising_times_never_fall_and_falling_ones_never_rise(start: datetime, minutes: list[int], style: str) -> None:
    """Where the day may be the month, times that fall in one order and rise in the other have none."""
    times = [start]
    for each in minutes:
        times.append(times[-1] + timedelta(minutes=each))
    texts = [time.strftime(style) for time in times]
    assert falls(texts) is not True
    assert falls(texts[::-1]) is not False
    if len(set(texts)) > 1 and ("/" not in style or times[0].day > 12) and "%y" not in style:
        assert falls(texts[::-1])


@FUZZ
@given(st.lists(st.text(max_size=20) | st.integers() | st.floats() | st.none() | st.booleans(), max_size=5))
def test_any_times_have_an_order_or_none(times: list[Any]) -> None:
    assert falls(times) in (True, False, None)
