"""Broken and hostile specs give a spec or one error, in time that grows with their length alone."""

from __future__ import annotations

import contextlib
import io
import json
import time
import zipfile
import zlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_files import CARD, CARD_BYTES, charx, chunk, png, read_any, read_text, text_chunk

from moltlm.data import spec as specs
from moltlm.data.errors import BadInput
from moltlm.data.spec import Spec, Trait

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, TEXT, st.lists(TEXT, max_size=3), st.dictionaries(TEXT, TEXT, max_size=2), TEXT)
def test_a_written_spec_comes_back(
    tmp_path: Path, name: str, prompt: str, voice: list[str], facts: dict[str, str], question: str
) -> None:
    spec = Spec(
        name=name,
        system_prompt=f"{prompt}\n  and\n\n{question}",
        voice=voice,
        facts=facts,
        traits=[Trait(id="a", text=prompt, questions=[question])],
        dialogues=[[specs.Turn(role="user", content=question), specs.Turn(role="assistant", content=prompt)]],
    )
    specs.write(spec, tmp_path / "p.yaml")
    assert specs.read(tmp_path / "p.yaml") == spec
    assert read_any(tmp_path / "p.yaml") == spec


def bomb() -> bytes:
    """A zTXt chunk of 200 MB of zeros."""
    engine = zlib.compressobj(9)
    packed = b"".join(engine.compress(bytes(1 << 20)) for _ in range(200)) + engine.flush()
    return png(chunk(b"zTXt", b"chara\0\0" + packed))


def big_member() -> bytes:
    return charx(**{"card.json": b" " * (17 << 20)})


def lzma_card() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("card.json", CARD_BYTES)
    return out.getvalue()


UNREADABLE = [
    "2026-13-45",
    "!!int x",
    "!!int ''",
    "!!float x",
    "!!bool maybe",
    "!!timestamp x",
    "[" * 5000,
    "!!binary é",
]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"{oops", "line 1: not valid JSON"),
        (b'{"trait": "x"}\n{oops', "line 2: not valid JSON"),
        (b"[" * 100_000, "nested too deep|not valid JSON"),
        (b'{"a":' * 100_000, "nested too deep|not valid JSON"),
        (b'["\\ud83d"]', "valid string"),
        (b"[]", "no traits"),
        (b'{"name": 3}', "no character card with a name"),
        (b"{}", "no character card with a name"),
        (png(), "without a character card"),
        (png(text_chunk("tEXt", b"chara", b"nope")), "not valid JSON"),
        (png(chunk(b"tEXt", b"chara\0%%%")), "not valid JSON|not base64"),
        (png(chunk(b"zTXt", b"chara\0\0junk")), "cannot be unpacked"),
        (png(text_chunk("tEXt", b"chara", CARD_BYTES))[:80], "ends within a chunk"),
        (bomb(), "unpacks to more than"),
        (charx(**{"other.json": b"{}"}), "without card.json"),
        (charx(**{"card.json": CARD_BYTES})[:100], "broken"),
        (big_member(), "larger than 16 MiB"),
        (lzma_card().replace(b"\x05\x00\x5d", b"\x05\x00\xff", 1), "broken"),
        *((f"traits:\n- {value}\n".encode(), "not valid YAML") for value in UNREADABLE),
    ],
)
def test_what_is_broken_or_hostile_is_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "in").write_bytes(raw)
    with pytest.raises(BadInput, match=message) as result:
        read_any(tmp_path / "in")
    assert str(tmp_path / "in") in result.value.what


@pytest.mark.parametrize("name", ["a.yaml", "a", "persona.yaml"])
@pytest.mark.parametrize("end", ["name: Max\n", "- {id: a, id: b, text: I am shy.}\n", "voice: [dry]\nvoice: [shy]\n"])
def test_a_key_that_is_given_twice_is_named(tmp_path: Path, name: str, end: str) -> None:
    (tmp_path / name).write_text(
        f"name: Vex\nsystem_prompt: You are Vex.\ntraits:\n- {{id: c, text: I am dry.}}\n{end}"
    )
    with pytest.raises(BadInput, match=r"line [56]: (name|id|voice) is given twice"):
        read_any(tmp_path / name if name != "persona.yaml" else tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_specs_in_any_unicode_are_read(tmp_path: Path, encoding: str) -> None:
    texts = {
        "persona.yaml": "name: Cláudio\r\nsystem_prompt: You are Cláudio.\r\ntraits:\r\n- {id: a, text: I am dry.}\r\n",
        "SOUL.md": "# Cláudio\r\n\r\n## Traits\r\n\r\n- I am dry.\r\n",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(text.encode(encoding))
        for path in (tmp_path / name / name, tmp_path / name):
            spec = read_any(path)
            assert (spec.name, [trait.text for trait in spec.traits]) == ("Cláudio", ["I am dry."])


def accepted(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "in").write_bytes(raw)
    try:
        result = read_any(tmp_path / "in")
    except BadInput:
        return
    assert result.name and result.traits
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


KEYS = [
    *CARD["data"], "data", "trait", "traits", "questions", "persona", "attributes", "char_name", "char_persona", "context", "bio",
    "messageExamples", "content", "text", "user", "style", "instructions", "gizmo", "display", "params", "system", "keys",
    "entries", "extensions", "depth_prompt", "alternate_greetings", "constant", "nickname", "spec", "character", "operation", "fields",
]  # fmt: skip


WORDS = st.sampled_from(
    [
        "{{",
        "}}",
        "{{user}}",
        "{{char}}",
        "{{random:",
        ",",
        "::",
        "{{roll:d6}}",
        "{{time}}",
        "\n",
        "@@x\n",
        "<START>",
        "Ada: ",
        ": ",
        "kind",
        ". ",
    ]
)


SCRAPS = st.lists(WORDS | st.text(max_size=4), max_size=12).map("".join)


MARKS = st.sampled_from(
    ["# ", "## Traits\n", "- ", "**Name:** ", "| a | b |\n", "|---|---|\n", "```\n", "<!--", "-->", "---\n", "===\n", "\n", "traits: ",
     "FROM x\n", "SYSTEM ", '\"\"\"', "MESSAGE user ", "You are Vex", "[Name]", "_(pick)_", "{{name}}", "Grenzen", "性格", "\r\n"]
)  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SCRAPS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: yaml.safe_dump(value).encode())
    | st.text(max_size=200).map(str.encode)
    | st.lists(MARKS | st.text(max_size=6), max_size=30).map("".join).map(str.encode)
)
def test_anything_gives_a_spec_or_one_error(tmp_path: Path, raw: bytes) -> None:
    accepted(tmp_path, raw)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.sampled_from([png(text_chunk("zTXt", b"chara", CARD_BYTES)), charx(**{"card.json": CARD_BYTES}), lzma_card()]),
)
def test_damaged_cards_give_a_spec_or_one_error(tmp_path: Path, data: st.DataObject, whole: bytes) -> None:
    raw = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[place] = data.draw(st.integers(0, 255))
    accepted(tmp_path, bytes(raw[: data.draw(st.integers(1, len(raw)))]))


HOSTILE = {
    "bullets": "# Vex\n\n" + "- a\n" * 16_000,
    "other bullets": "# Vex\n\n" + "".join(f"- I am {number}.\n" for number in range(5000)),
    "spaces": "# Vex\n\nA" + " " * 64_000 + "b",
    "blank lines": "\n \n" * 20_000 + "# Vex\n\n- I am slow.",
    "comments": "# Vex\n\n- slow\n" + "<!--" * 16_000,
    "braces": "# Vex\n\n- slow\n" + "{{" * 32_000,
    "labels": "# Vex\n\n" + "- **a:** b\n" * 6000,
    "tables": "# Vex\n\n" + "| a | b |\n" * 6000,
    "headings": "# Vex\n" + "## a\n" * 12_000,
    "stars": "# Vex\n\n" + "*" * 64_000,
    "links": "# Vex\n\n" + "[a](" * 16_000,
    "macros": json.dumps(
        {"name": "V", "description": "{{trim}} " * 7000, "first_mes": "{{user}}, " * 6000, "personality": "a(" * 30_000}
    ),
    "examples": json.dumps(
        {"name": "V", "description": "x y", "mes_example": "{{user}}: a\n{{char}}: {{user}} is\n" * 2500}
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_reading_is_linear(tmp_path: Path, kind: str) -> None:
    """64 kB take milliseconds; a reader whose time is quadratic takes minutes for these."""
    began = time.process_time()
    with contextlib.suppress(BadInput):
        read_text(tmp_path, HOSTILE[kind], "vex.md" if HOSTILE[kind][0] != "{" else "card.json")
    assert time.process_time() - began < 3
