"""Compressed files, archives, tables and encodings: each gives what the plain file gives, or an error whose command runs."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from moltlm.data.conversations import sources, streams
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, write

CHAT = [["My clock stopped.", "It sulks."], ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]]
TEXTS = CHAT[1]
MESSAGES = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, TEXTS, strict=True)]
LINE = json.dumps({"messages": MESSAGES}) + "\n"
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


PLAIN = LINE.encode()
CONTAINERS: dict[str, bytes] = {
    "a.jsonl.gz": gzip.compress(PLAIN),
    "a.jsonl.bz2": bz2.compress(PLAIN),
    "a.jsonl.xz": lzma.compress(PLAIN),
    "a.jsonl.zst": zstd(PLAIN),
    "a.zip": zipped({"x/a.jsonl": PLAIN}),
    "a.tar": tar({"x/a.jsonl": PLAIN}),
    "a.tar.gz": tar({"x/a.jsonl": PLAIN}, "w:gz"),
    "a.tgz": tar({"x/a.jsonl": PLAIN}, "w:gz"),
    "a.tar.xz": tar({"x/a.jsonl": PLAIN}, "w:xz"),
    "a.tar.zst": zstd(tar({"x/a.jsonl": PLAIN})),
    "b.zip": zipped({"x/a.jsonl.gz": gzip.compress(PLAIN)}),
    "c.zip": zipped({"a.zip": zipped({"a.jsonl": PLAIN})}),
    "d.tar.gz": tar({"a.zip": zipped({"a.jsonl": PLAIN})}, "w:gz"),
    "named otherwise": gzip.compress(PLAIN),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_gives_what_its_file_gives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTAINERS[name])
    found, _ = read(tmp_path / name)
    assert said(found) == CHAT
    if "." in name:
        assert {item.source for item in found} == {"a"}
    assert said(read(tmp_path)[0]) == CHAT


def test_members_have_no_way_out_of_the_archive(tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    (inside / "a.tar").write_bytes(tar({"../../a.jsonl": PLAIN, "/etc/b.jsonl": PLAIN.replace(b"clock", b"watch")}))
    with tarfile.open(inside / "a.tar", "a") as archive:
        link = tarfile.TarInfo("c.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = set(tmp_path.rglob("*"))
    found, _ = read(inside / "a.tar")
    assert len(found) == 3
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["gz", "zst", "tar.gz", "gz in a zip", "zip in a zip"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    zeros = b"[" + b" " * (40 << 20)
    content = {
        "gz": lambda: gzip.compress(zeros),
        "zst": lambda: zstd(zeros),
        "tar.gz": lambda: gzip.compress(tar({"a.json": zeros})),
        "gz in a zip": lambda: zipped({"a.json.gz": gzip.compress(zeros)}),
        "zip in a zip": lambda: zipped({"a.zip": zipped({"a.json": zeros})}),
    }[kind]()
    (tmp_path / "bomb").write_bytes(content)
    with pytest.raises(BadInput, match="no text does that"):
        read(tmp_path / "bomb")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_truncated_container_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTAINERS[name][: min(len(CONTAINERS[name]) // 2, 600)])
    with pytest.raises(BadInput) as error:
        read(tmp_path / name)
    assert error.value.fix


@FUZZ
@given(st.sampled_from(sorted(CONTAINERS)), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_damaged_container_is_an_error_or_a_result(
    tmp_path: Path, name: str, place: int, byte: int, alone: bool
) -> None:
    content = bytearray(CONTAINERS[name])
    content[place % len(content)] = byte
    (tmp_path / "damaged").write_bytes(content)
    write(tmp_path / "whole.jsonl", {"prompt": "hi", "answer": "hello"})
    try:
        read(tmp_path / "damaged" if alone else tmp_path)
    except BadInput as error:
        assert alone
        assert error.fix


def test_what_nobody_named_and_is_broken_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(PLAIN)[:60])
    (tmp_path / "b.zip").write_bytes(zipped({"x.jsonl": PLAIN})[:50])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "d.csv").write_text("x,y\n1,2\n")
    (tmp_path / "e.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    write(tmp_path / "z.jsonl", {"prompt": "hi", "answer": "hello"})
    found, report = read(tmp_path)
    assert said(found) == [["hi", "hello"]]
    assert {Path(name).name for name in report.skipped} == {"a.jsonl.gz", "b.zip", "c.parquet", "d.csv", "e.jsonl"}


EXPORT = {
    "conversations-000.json": json.dumps([{"mapping": {}}]),
    "conversations-001.json": json.dumps(
        [{"chat_messages": [{"sender": "human", "text": "hi"}, {"sender": "assistant", "text": "hello"}]}]
    ),
    "user.json": '{"prompt": "NEVER", "answer": "NEVER"}',
    "file-1-notes.md": "User: NEVER\nAssistant: NEVER\n",
    "uploads/chat.jsonl": LINE,
}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_uploads_in_an_export_are_no_conversations(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        for name, text in EXPORT.items():
            path = tmp_path / "export" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    else:
        members = {f"export/{name}": text.encode() for name, text in EXPORT.items()}
        (tmp_path / f"export.{kind}").write_bytes((zipped if kind == "zip" else tar)(members))
    write(tmp_path / "own.jsonl", {"prompt": "mine?", "answer": "yours"})
    found, report = read(tmp_path)
    assert sorted(said(found)) == [["hi", "hello"], ["mine?", "yours"]]
    assert sum("upload" in reason for reason in report.skipped.values()) == 3


def test_a_file_of_the_users_that_is_called_conversations_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path / "conversations.json", {"messages": MESSAGES})
    write(tmp_path / "more.jsonl", {"prompt": "hi", "answer": "hello"})
    assert len(read(tmp_path)[0]) == 3


# --- commands in errors


def run(fix: str, folder: Path) -> str:
    """What the command after the first colon prints."""
    command = fix.partition(": ")[2]
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout


BAD = json.dumps({"messages": 5}) + "\n"


@pytest.mark.parametrize("name", ["it's.jsonl", "a.jsonl.gz", "a.tar.gz", "a.tar", "utf16.jsonl", "d.jsonl.xz"])
def test_the_command_in_an_error_shows_the_line(tmp_path: Path, name: str) -> None:
    content = (LINE + BAD).encode()
    packed = {
        "it's.jsonl": content,
        "a.jsonl.gz": gzip.compress(content),
        "a.tar.gz": tar({"x y.jsonl": content}, "w:gz"),
        "a.tar": tar({"x y.jsonl": content}),
        "utf16.jsonl": (LINE + BAD).encode("utf-16"),
        "d.jsonl.xz": lzma.compress(content),
    }
    (tmp_path / name).write_bytes(packed[name])
    if ".tar" in name:
        _, report = read(tmp_path / name)
        fix = next(iter(report.fixes.values()))
    else:
        with pytest.raises(BadInput) as error:
            read(tmp_path / name)
        fix = error.value.fix
    assert run(fix, tmp_path) == BAD


def test_a_latin_1_file_can_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps({"prompt": "olá – né?", "answer": "“maré”"}, ensure_ascii=False).encode("cp1252"))
    with pytest.raises(BadInput, match="is not UTF-8") as error:
        read(path)
    run(error.value.fix.replace("&& molt", "&& true"), tmp_path)
    assert said(read(tmp_path / "fixed.jsonl")[0]) == [["olá – né?", "“maré”"]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("packed", [False, True])
def test_other_encodings_of_unicode_are_read(tmp_path: Path, encoding: str, packed: bool) -> None:
    text = json.dumps({"prompt": "olá 日本", "answer": "maré 😀"}, ensure_ascii=False) + "\r\n"
    content = text.encode(encoding)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(content) if packed else content)
    assert said(read(tmp_path / "a.jsonl")[0]) == [["olá 日本", "maré 😀"]]
    (tmp_path / "b.txt").write_bytes("User: olá\r\nAssistant: maré\r\n".encode(encoding))
    assert said(read(tmp_path / "b.txt")[0]) == [["olá", "maré"]]


def test_broken_utf_16(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE.encode("utf-16") + b"\x00\xd8{\0")
    with pytest.raises(BadInput, match="is not valid UTF-16"):
        read(tmp_path / "a.jsonl")


def test_breaks_of_windows_and_values_in_one_line(tmp_path: Path) -> None:
    text = "<|im_start|>user\r\nMy clock stopped.<|im_end|>\r\n<|im_start|>assistant\r\nIt sulks.<|im_end|>\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert said(read(tmp_path / "a.txt")[0]) == [["My clock stopped.", "It sulks."]]
    one = json.dumps({"messages": MESSAGES[:2]})
    (tmp_path / "b.json").write_text(one + json.dumps({"prompt": "And tea?", "answer": "Always."}))
    assert said(read(tmp_path / "b.json")[0]) == [["My clock stopped.", "It sulks."], ["And tea?", "Always."]]


# --- tables

ROWS: dict[str, tuple[list[str], list[list[Any]]]] = {
    "prompt and answer": (["prompt", "answer"], [["My clock stopped.", "It sulks."]]),
    "question and response": (["Id", "Question", "Response"], [["1", "My clock stopped.", "It sulks."]]),
    "user and assistant": (["user", "assistant"], [["My clock stopped.", "It sulks."]]),
    "messages": (["id", "messages"], [["1", json.dumps(MESSAGES[:2])]]),
    "turns": (["role", "content"], [["user", "My clock stopped."], ["assistant", "It sulks."]]),
    "named speakers": (
        ["AuthorID", "Author", "Date", "Content", "Attachments"],
        [["1", "Ana", "x", "My clock stopped.", ""], ["2", "Vex", "x", "It sulks.", ""]],
    ),
    "LibreChat": (
        ["sender", "text", "isCreatedByUser"],
        [["User", "My clock stopped.", "true"], ["GPT-4o", "It sulks.", "false"]],
    ),
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ROWS)
def test_csv(tmp_path: Path, name: str, delimiter: str) -> None:
    columns, rows = ROWS[name]
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    assert said(read(path, voice=Voice(("Vex",)))[0]) == CHAT[:1]


def test_csv_with_lines_in_cells_and_conversations_mixed(tmp_path: Path) -> None:
    rows = [("A", "user", 'one,\n"two"?'), ("B", "user", "b?"), ("A", "assistant", "three"), ("B", "assistant", "b!")]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("conversation_id", "role", "content"), *rows])
    found, report = read(tmp_path / "a.csv")
    assert said(found) == [['one,\n"two"?', "three"], ["b?", "b!"]]
    assert report.conversations == 2


def test_a_table_without_known_columns_says_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,amount\n1,2\n")
    with pytest.raises(BadInput, match="its columns are: date, amount") as error:
        read(tmp_path / "a.csv")
    assert "prompt and answer" in error.value.fix


@pytest.mark.parametrize("name", ROWS)
def test_parquet(tmp_path: Path, name: str) -> None:
    columns, rows = ROWS[name]
    table = pyarrow.table({column: [row[i] for row in rows] for i, column in enumerate(columns)})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert said(read(tmp_path / "a.parquet", voice=Voice(("Vex",)))[0]) == CHAT[:1]


def test_parquet_of_messages(tmp_path: Path) -> None:
    rows = [{"messages": [{**message, "name": None} for message in MESSAGES], "prompt": None, "image": b"\0\1"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert said(read(tmp_path / "a.parquet")[0]) == CHAT
    (tmp_path / "b.zip").write_bytes(zipped({"data/a.parquet": (tmp_path / "a.parquet").read_bytes()}))
    assert said(read(tmp_path / "b.zip")[0]) == CHAT


@FUZZ
@given(
    st.text(max_size=80), st.sampled_from(["prompt,answer\n", "role;content\n", "messages\n", "Author\tContent\n", ""])
)
def test_any_csv_is_an_error_or_a_result(tmp_path: Path, text: str, header: str) -> None:
    (tmp_path / "a.csv").write_text(header + text, encoding="utf-8", errors="replace", newline="")
    try:
        read(tmp_path / "a.csv", voice=Voice(("Vex",)))
    except BadInput as error:
        assert error.fix


@FUZZ
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_parquet_is_an_error_or_a_result(tmp_path: Path, place: int, byte: int) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": MESSAGES}]), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[place % len(content)] = byte
    (tmp_path / "a.parquet").write_bytes(content)
    try:
        read(tmp_path / "a.parquet")
    except BadInput as error:
        assert error.fix


def test_nothing_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LIMIT", 1 << 20)
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"prompt": "a", "answer": "b " * (1 << 20)}).encode())
    )
    with pytest.raises(BadInput, match="line 1: longer than 1 MiB"):
        read(tmp_path / "a.jsonl.gz")
    assert streams.RATIO_LIMIT > 100


@pytest.mark.parametrize(
    "table",
    [
        'sep=;\nprompt;answer\n"My clock stopped.";"It sulks."\n',
        'Frage;Antwort\n"My clock stopped.";"It sulks."\n',
        'Вопрос,Ответ\n"My clock stopped.","It sulks."\n',
        "messages\n\"[{'role': 'user', 'content': 'My clock stopped.'}, {'role': 'assistant', 'content': 'It sulks.'}]\"\n",
        'text\n"<|im_start|>user\nMy clock stopped.<|im_end|>\n<|im_start|>assistant\nIt sulks.<|im_end|>"\n',
        "Conversation,Time,Author,Message\nA,2026-01-01T10:01,AI,It sulks.\nA,2026-01-01T10:00,Human,My clock stopped.\n",
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, table: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table, encoding="utf-8")
    assert said(read(path)[0]) == [["My clock stopped.", "It sulks."]]


def test_a_web_page_in_an_archive_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("My Activity.html", '<html><body><div class="mdl-grid">Gemini</div></body></html>')
    with pytest.raises(BadInput, match="a web page of Gemini") as error:
        read(path)
    assert "JSON" in error.value.fix
