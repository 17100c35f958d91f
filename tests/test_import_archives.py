"""Folders, archives and exports, and what was uploaded to them."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
from moltlm.data.errors import BadInput
from tests.conversation_files import (
    CHAT,
    EVERYTHING,
    FUZZ,
    TRANSCRIPTS,
    archive,
    chatgpt,
    read,
    result_or_bad_input,
    said,
    turn,
    write,
)


def test_uploads_in_an_export_are_no_conversations(tmp_path: Path) -> None:
    upload = json.dumps({"prompt": "What is the capital?", "completion": "Paris."})
    members: dict[str, str | bytes] = {
        "export/conversations-000.json": json.dumps([chatgpt(current_node="a2")]),
        "export/file-1-train.jsonl": upload,
        "export/sub/file-2.txt": TRANSCRIPTS[0],
        "export/file-3.json": '{"type": "FeatureCollection", "features": [{',
        "mine.jsonl": json.dumps({"prompt": "x", "answer": "y"}),
    }
    exchanges, report = read(archive(tmp_path / "a.zip", members))
    assert said(exchanges) == [*CHAT, ["x", "y"]]
    assert len(report.skipped) == 3
    (tmp_path / "named.jsonl").write_text(upload)
    assert len(read(tmp_path / "named.jsonl")[0]) == 1


def thumbs_export() -> dict[str, str | bytes]:
    """An export with a thumb down on the first answer that is shown, and a thumb up on the second."""
    one = chatgpt(current_node="a2")
    for name, each in one["mapping"].items():
        each["message"] = each["message"] and {**each["message"], "id": name}
    thumbs = [
        {"message_id": "a1", "conversation_id": "c", "user_id": "u", "rating": "thumbsDown", "content": "{}"},
        {"id": "a2", "conversation_id": "c", "rating": "thumbs_up", "create_time": "2026-01-01"},
    ]
    return {"conversations.json": json.dumps([one]), "message_feedback.json": json.dumps(thumbs)}


@pytest.mark.parametrize("container", ["zip", "tar.gz", "folder", "file"])
def test_an_answer_with_a_thumb_down_in_the_export_is_not_learned(tmp_path: Path, container: str) -> None:
    (tmp_path / "export").mkdir()
    members = {f"export/{name}": text for name, text in thumbs_export().items()}
    for name, text in members.items():
        (tmp_path / name).write_text(str(text))
    path = tmp_path / "export"
    if container == "zip":
        path = archive(tmp_path / "a.zip", members)
    elif container == "tar.gz":
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz") as packed:
            packed.add(tmp_path / "export", "export")
    elif container == "file":
        path = tmp_path / "export" / "conversations.json"
    exchanges, report = read(path)
    assert said(exchanges) == [["and tea?", "always tea"]]
    assert report.dropped == {"alternative branch": 1, "marked thumbs down": 1}
    assert report.skipped == {}


def test_thumbs_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", thumbs_export() | {"message_feedback.json": "[{"})
    exchanges, report = read(source)
    assert said(exchanges) == CHAT
    (reason,) = report.skipped.values()
    assert reason == "the thumbs of the export, which cannot be read (not valid JSON)"


def test_a_broken_file_that_nobody_named_ends_nothing(tmp_path: Path) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    write(tmp_path / "a.jsonl", {"messages": [turn("user", "x"), turn("assistant", "y")]}, "{oops")
    (tmp_path / "b.txt").write_bytes("Vex: hi\nAna: ho\n".encode("utf-16"))
    write(tmp_path / "c.txt", "Vex: hi", "Ana: ho", "Vex: hi", "Ana: ho")
    write(tmp_path / "d.jsonl", good)
    exchanges, report = read(tmp_path)
    assert said(exchanges) == [["x", "y"], ["a", "b"]]
    reasons = {Path(name).name: why for name, why in report.skipped.items()}
    assert "line 2: not valid JSON" in reasons["a.jsonl"]
    assert reasons["c.txt"] == "Who is the persona: Vex or Ana?"
    assert set(reasons) == {"a.jsonl", "b.txt", "c.txt"}


def test_the_command_in_an_error_runs(tmp_path: Path) -> None:
    row = {"messages": [turn("user", 3)]}
    source = archive(tmp_path / "an export.zip", {"sub/a b.jsonl": "\n\n" + json.dumps(row)})
    report = ImportReport()
    with pytest.raises(BadInput, match=r"Passed over: .*a b\.jsonl: line 3: .*its text is a number") as error:
        list(importers.require_any(importers.read([source], EVERYTHING, report), report, [source]))
    command = error.value.fix.removeprefix("Look at it: ")
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == row


def test_a_folder_is_read_in_order_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name in ("b/z.jsonl", "b/a.ndjson", "a/1.jsonl", "c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, {"messages": [turn("user", name), turn("assistant", name)]})
    for name in ("photo.png", "readme.md", "empty.txt", "user.json", ".hidden.jsonl", "zip.zip"):
        (tmp_path / name).write_text('{"id": 1}' if name == "user.json" else "" if name == "empty.txt" else "# Words\n")
    exchanges, report = read(tmp_path)
    assert [item.answer for item in exchanges] == ["c.jsonl", "a/1.jsonl", "b/a.ndjson", "b/z.jsonl"]
    assert [item.source for item in exchanges] == ["c", "1", "a", "z"]
    assert {Path(name).name for name in report.skipped} == {
        "photo.png", "readme.md", "empty.txt", "user.json", ".hidden.jsonl", "zip.zip",
    }  # fmt: skip
    assert [row["exchanges"] for row in report.rows()] == [1, 1, 1, 1]


def test_an_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    members: dict[str, str | bytes] = {
        "../../chats.json": json.dumps([chatgpt(current_node="a2")]),
        "/etc/chat.md": TRANSCRIPTS[0].replace("tea", "rain"),
        "chat.html": "<html>",
        "__MACOSX/._a.json": b"\0\1\2",
        "user.json": '{"id": "x"}',
    }
    before = set(tmp_path.rglob("*"))
    exchanges, report = read(archive(inside / "export.zip", members))
    assert sorted(said(exchanges)) == sorted([*CHAT, ["hi", "hello", "and rain?", "always rain"]])
    assert {item.source for item in exchanges} == {"chats", "chat"}
    assert len(report.skipped) == 3
    assert report.dropped == {"alternative branch": 1, "duplicate": 1}
    assert set(tmp_path.rglob("*")) - before == {inside / "export.zip"}


def test_archives_that_cannot_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"would unpack from .* no text does that"):
        read(archive(tmp_path / "bomb.zip", {"a.json": b"[" + b" " * (12 << 20)}))
    whole = archive(tmp_path / "a.zip", {"a.md": TRANSCRIPTS[0] * 50}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="no whole zip archive"):
        read(tmp_path / "cut.zip")
    at = whole.index(b"a.md") + 20
    (tmp_path / "bad.zip").write_bytes(whole[:at] + bytes(255 - byte for byte in whole[at : at + 9]) + whole[at + 9 :])
    with pytest.raises(BadInput, match="damaged"):
        read(tmp_path / "bad.zip")
    marked = bytearray(whole)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        marked[whole.index(magic) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(marked)
    with pytest.raises(BadInput, match="encrypted"):
        read(tmp_path / "locked.zip")
    (tmp_path / "nameless.zip").write_bytes(whole.replace(b"a.md", b"\0.md"))
    with pytest.raises(BadInput, match="No conversations in"):
        read(tmp_path / "nameless.zip")
    with pytest.raises(BadInput, match=r"No conversations in .* Passed over: .*not \*.json"):
        read(archive(tmp_path / "none.zip", {"a.exe": "x"}))


@FUZZ
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_archive_is_an_error_or_a_result(tmp_path: Path, place: int, byte: int) -> None:
    whole = bytearray(
        archive(tmp_path / "a.zip", {"a.md": TRANSCRIPTS[0], "b.json": json.dumps([chatgpt()])}).read_bytes()
    )
    whole[place % len(whole)] = byte
    (tmp_path / "b.zip").write_bytes(whole)
    result_or_bad_input(tmp_path / "b.zip")
