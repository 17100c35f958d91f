"""Every way in which a file can be broken or too large: an error, and nothing lost silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moltlm.data.conversations import importers, marks, sources
from moltlm.data.conversations.report import lines
from moltlm.data.errors import BadInput
from moltlm.pipeline.console import printable
from tests.conversation_files import (
    EVENTS,
    FUZZ,
    TRANSCRIPTS,
    chatgpt,
    conversations,
    node,
    read,
    result_or_bad_input,
    said,
    turn,
    write,
)

BAD_LINES = [
    ("{not json", "line 1, conversation 1: not valid JSON"),
    ("[1, 2]", "no conversation of a known format. It begins with: '\\[1, 2\\]'"),
    ({"text": "x"}, "no conversation of a known format"),
    ({"type": "ping"}, "No conversations in"),
    ({"messages": "x"}, "line 1: `messages` is a text, not a list"),
    ({"messages": [turn("robot", "x")]}, "needs a role .* found robot"),
    ({"messages": [{"role": "user"}]}, "needs a role"),
    ({"messages": [turn("user", 3)]}, "needs a role and a text; its text is a number"),
    ({"messages": [turn("user", [3])]}, "a block .* is a number"),
    ({"messages": ["x"]}, "a message is a text"),
    ({"mapping": {"a": 1}}, "a node of `mapping`"),
    ({"mapping": {"a": {"message": {"x": 1}}}}, "has no author"),
    ({"chat_messages": [1]}, "one of `chat_messages`"),
    ("[]", "no conversation of a known format"),
    ("  ", "It is empty"),
    ('[{"messages": []}', "conversation 1: .*cut off: the array does not end"),
    ('[{"messages": []}, ', "conversation 2: .*cut off: Expecting value"),
    ('[{"messages": []} {"messages": []}]', "a comma is missing"),
    ('[{"messages": []},]', "a comma before the end"),
    ('[{"messages": []}] x', "something after the end"),
    ('[{"messages": []},\n{"messages": [}]', "line 2, conversation 2: not valid JSON"),
    ('[{"messages": "', "not valid JSON \\(cut off: "),
    ('[{"a": ' + "9" * 5000 + "}]", "conversation 1: not valid JSON"),
    ('[{"a":' * 10**5, "nested too deep"),
    ('{"a":' * 10**5, "nested too deep"),
    ("[" * 10**5 + "]" * 10**5, "no conversation of a known format"),
    ('{"messages": []}\n' + "[" * 10**5, "line 2: not valid JSON \\(nested too deep"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_conversation_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        conversations(write(tmp_path / "a.jsonl", line))
    assert str(tmp_path / "a.jsonl") in error.value.what
    assert error.value.fix


def test_a_broken_line_amid_good_ones_is_an_error(tmp_path: Path) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    with pytest.raises(BadInput, match="line 3: not valid JSON") as error:
        read(write(tmp_path / "a.jsonl", good, "", '{"messages": [', good))
    assert error.value.fix == f"Look at it: sed -n 3p '{tmp_path / 'a.jsonl'}'"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        conversations(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="No conversations in"):
        conversations(tmp_path)
    with pytest.raises(BadInput, match="is no file"):
        conversations(Path("/dev/null"))
    with pytest.raises(BadInput, match="No conversations to read"):
        read()


def test_encodings(tmp_path: Path) -> None:
    text = json.dumps({"messages": [turn("user", "olá"), turn("assistant", "maré")]}, ensure_ascii=False)
    path = tmp_path / "a.jsonl"
    for lead in ("", "["):
        body = lead + text + ("]" if lead else "")
        path.write_text(body, encoding="utf-8-sig")
        assert said(read(path)[0]) == [["olá", "maré"]]
        path.write_text(body, encoding="latin-1")
        with pytest.raises(BadInput, match=r"not UTF-8: byte 4[0-9] ") as error:
            read(path)
        assert "iconv" in error.value.fix
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            path.write_text(body, encoding=encoding)
            assert said(read(path)[0]) == [["olá", "maré"]]


def test_half_characters_become_whole_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "\\ud83d\\ude00 \\ud83d", "answer": "a\\ude00"}')
    exchanges, _ = read(path)
    assert said(exchanges) == [["\U0001f600 \ufffd", "a\ufffd"]]
    assert importers.write(exchanges, tmp_path / "b.jsonl") == 1


def test_what_is_too_large_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LIMIT", 1 << 20)
    row = {"messages": [turn("user", "a"), turn("assistant", "b" * (5 << 20))]}
    with pytest.raises(BadInput, match="line 1: longer than 1 MiB"):
        read(write(tmp_path / "a.jsonl", row))
    with pytest.raises(BadInput, match=r"conversation 2: .*larger than 1 MiB"):
        read(write(tmp_path / "a.json", [{"messages": []}, row]))


def test_one_turn_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importers, "LIMIT", 1000)
    events = [turn("user", "a"), *[turn("assistant", "b" * 300)] * 4]
    with pytest.raises(BadInput, match="the session: one turn is larger"):
        read(write(tmp_path / "a.jsonl", *events))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


KEYS = st.from_regex(
    "messages|conversations|chat_messages|mapping|current_node|parent|children|message|author|role|content|parts|text|type"
    "|sender|from|value|prompt|answer|weight|uuid|parent_message_uuid|payload|content_type|metadata|create_time|files"
    "|chosen|rejected|label|rating|feedback|deleted|loss|id|parentId|session_id|history|instruction|output|completions"
    "|rank|score|input|preferred_output|currNode|requests|response|actions|gamestarted|msgs|src|is_human|data|msg|handle"
    "|speakers|dialogue|replies|ancestors|fragments|part|contents|responses|winner|response_a|response_b|preference|status"
    "|generations|ratings|finish_reason|channel|recipient|candidates|turns|state|item|say",
    fullmatch=True,
)


anything = st.recursive(
    scalars | st.sampled_from(["user", "assistant", "a", "message", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.just("a"), inner, max_size=5),
    max_leaves=25,
)


@settings(FUZZ, max_examples=150)
@given(st.lists(st.dictionaries(KEYS, anything, max_size=6), min_size=1, max_size=3), st.booleans())
@example([{"messages": [{"responses": 1}]}], False)
def test_any_json_is_an_error_or_a_result(tmp_path: Path, rows: list[Any], as_lines: bool) -> None:
    path = tmp_path / "a.json"
    result_or_bad_input(write(path, *rows) if as_lines else write(path, json.dumps(rows, indent=1)))


@settings(FUZZ, max_examples=150)
@given(
    st.binary(max_size=300) | st.text(max_size=200).map(str.encode),
    st.sampled_from([b"", b"[", b"{", b"[{", b"PK\3\4", b"User: "]),
)
def test_any_bytes_are_an_error_or_a_result(tmp_path: Path, blob: bytes, lead: bytes) -> None:
    (tmp_path / "a.json").write_bytes(lead + blob)
    result_or_bad_input(tmp_path / "a.json")


WHOLE = [
    json.dumps([chatgpt(current_node="a2")] * 2),
    json.dumps([chatgpt(current_node="a2")], indent=1),
    "\n".join(map(json.dumps, EVENTS)),
    TRANSCRIPTS[0],
]


@settings(FUZZ, max_examples=150)
@given(st.sampled_from(WHOLE), st.integers(0, 10**6))
def test_a_truncated_file_is_an_error_or_a_result(tmp_path: Path, whole: str, cut: int) -> None:
    (tmp_path / "a.json").write_text(whole[: cut % len(whole)])
    result_or_bad_input(tmp_path / "a.json")
    if whole[0] == "[":
        with pytest.raises(BadInput):
            read(tmp_path / "a.json")


STREAM = """
import json, resource, sys
from pathlib import Path
from data.conversations import importers
from data.conversations.report import ImportReport
from data.config import ImportConfig
report = ImportReport()
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in importers.read([Path(sys.argv[1])], ImportConfig(near_duplicate=float(sys.argv[2])), report):
    pass
print(json.dumps([report.turns, report.exchanges, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start]))
"""


def export(path: Path, megabytes: int) -> int:
    """A ChatGPT export of about this size, and how many answers are in it: all different, in conversations of forty."""
    filler = "tea and rain and a clock in the drawer " * 90
    count = megabytes * 1_000_000 // 80_000
    with path.open("w") as out:
        for number in range(count):
            nodes = {"0": node("0", None, "user", "start")}
            for i in range(1, 41):
                role = "assistant" if i % 2 else "user"
                nodes[str(i)] = node(str(i), str(i - 1), role, f"{role} {number}x{i} {filler if i % 2 else ''}")
            out.write(("[" if not number else ",") + json.dumps({"mapping": nodes, "current_node": "40"}))
        out.write("]")
    return count * 20


def streamed(path: Path, megabytes: int, near_duplicate: float) -> tuple[int, int, float]:
    count = export(path, megabytes)
    assert path.stat().st_size > megabytes * 900_000
    run = [sys.executable, "-c", STREAM, str(path), str(near_duplicate)]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    turns, exchanges, kibibytes = json.loads(shown.stdout)
    assert turns == count
    return turns, exchanges, kibibytes / 1024


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    turns, exchanges, grown_mib = streamed(tmp_path / "conversations.json", 30, 1.0)
    assert exchanges == turns
    assert grown_mib < 25


@pytest.mark.slow
def test_memory_stays_bounded_over_a_large_file(tmp_path: Path) -> None:
    _, _, grown_mib = streamed(tmp_path / "conversations.json", 600, 0.85)
    assert grown_mib < 300


NULLABLE = sorted({*marks.KEYS, "answer", "prompt", "name", "tool_calls", "source", "history", "rejected", "input"})


@pytest.mark.parametrize("lines", [True, False])
def test_nan_is_null(tmp_path: Path, lines: bool) -> None:
    """`json.dumps(frame.to_dict("records"))` writes NaN wherever a row has no value in a column."""
    good = {"prompt": "Rain?", "answer": "Upwards."}
    for key in NULLABLE:
        message = {"messages": [turn("user", "And now?"), {**turn("assistant", "Tea."), key: float("nan")}]}
        for rows in ([{**good, key: float("nan")}, {"prompt": "Who?", "answer": "Vex.", key: "x"}], [message, good]):
            found = []
            for text in (json.dumps(rows), json.dumps(rows).replace("NaN", "null")):
                values = [json.dumps(json.loads(text)[0]), json.dumps(json.loads(text)[1])]
                path = write(tmp_path / "a.json", *(values if lines else [text]))
                exchanges, report = read(path)
                found.append((said(exchanges), report.dropped, report.noise))
            assert found[0] == found[1], key


@pytest.mark.parametrize("ending", [",", ", ", ",\r"])
@pytest.mark.parametrize("from_line", [0, 1])
def test_commas_between_lines_are_removed_by_the_command(tmp_path: Path, ending: str, from_line: int) -> None:
    rows = [{"prompt": f"question {i}", "answer": f"answer, {i}"} for i in range(3)]
    texts = [json.dumps(row) + ("" if i < from_line else ending) for i, row in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(texts), newline="")
    with pytest.raises(BadInput, match=f"line {from_line + 1}: a comma after the value") as error:
        read(tmp_path / "a.jsonl")
    command = error.value.fix.partition(": ")[2].partition(" && molt data import ")[0]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=30)
    assert said(read(tmp_path / "fixed.jsonl")[0]) == [[row["prompt"], row["answer"]] for row in rows]


HALF = "Vex \ud83d"


@pytest.mark.parametrize("key", ["source", "topic", "trait"])
@pytest.mark.parametrize("answered", ["answer", "chosen"])
def test_half_characters_of_labels_are_written(tmp_path: Path, key: str, answered: str) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Rain?", answered: "Upwards.", "rejected": "No.", key: HALF})
    exchanges, _ = read(path)
    importers.write(exchanges, tmp_path / "b.jsonl")
    assert getattr(read(tmp_path / "b.jsonl")[0][0], key) == "Vex \ufffd"


def test_half_characters_of_names_are_told(tmp_path: Path) -> None:
    rows = [{"speaker": name, "text": text} for name, text in (("Ana \udc00", "Rain?"), (HALF, "Upwards."))]
    path = write(tmp_path / "a.json", {"dialogue": rows})
    exchanges, report = read(path, voice=importers.Voice(("Vex",)))
    assert said(exchanges) == [["Rain?", "Upwards."]]
    told = "\n".join(lines(report.facts()))
    assert "persona: Vex \ufffd; user: Ana \ufffd" in told and told.encode()
    with pytest.raises(BadInput, match="Who is the persona") as error:
        read(path)
    assert printable(error.value.what).encode()


@pytest.mark.parametrize("name", [b"g\xfcnther.jsonl", b"g\xfcnther.csv", b"g\xfcnther.txt"])
def test_a_name_that_is_no_utf_8(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    texts = {
        ".jsonl": json.dumps({"prompt": "Rain?", "answer": "Upwards."}),
        ".csv": "prompt,answer\nRain?,Upwards.\n",
        ".txt": "User: Rain?\nAssistant: Upwards.\n",
    }
    path.write_text(texts[path.suffix])
    for each in (path, tmp_path):
        exchanges, report = read(each)
        importers.write(exchanges, tmp_path.parent / f"{tmp_path.name}.jsonl")
        assert said(exchanges) == [["Rain?", "Upwards."]] and exchanges[0].source == "g\ufffdnther"
        assert json.dumps(report.facts(), ensure_ascii=False).encode()
    path.write_bytes(texts[path.suffix].replace("Upwards", "Aufwärts").encode("cp1252"))
    with pytest.raises(BadInput, match="is not UTF-8") as error:
        read(path)
    command = printable(error.value.fix).partition(": ")[2].partition(" && molt data import ")[0]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=30)
    assert said(read(tmp_path / f"fixed{path.suffix}")[0]) == [["Rain?", "Aufwärts."]]
    assert read(tmp_path)[1].facts()["skipped"].keys() == {str(tmp_path / "g\ufffdnther") + path.suffix}
