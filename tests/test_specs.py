"""Specs however people have them, a project from any of them, and broken or hostile ones."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moltlm.data import persona
from moltlm.data import spec as specs
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.spec import Spec, Trait
from moltlm.data.spec_formats import reader
from moltlm.pipeline import cli
from moltlm.pipeline.config import load
from moltlm.pipeline.setup import init

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

SOUL = """# SOUL.md - Who You Are

_You are becoming someone._

## Core Truths

**Be genuinely helpful.** Skip the filler
and just help.

1. Have opinions.

## Boundaries

- Private things stay private.

## Vibe

Dry, and short when it can be.
"""
IDENTITY = "# IDENTITY.md\n\n- **Name:** Mo\n- **Creature:** a small owl\n- **Vibe:** calm\n"
CARD: dict[str, Any] = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Ada",
        "description": "{{char}} mends clocks for {{user}}.",
        "personality": "patient, dry, exact",
        "scenario": "A workshop.",
        "first_mes": "Mind the springs.",
        "mes_example": "<START>\n{{user}}: Is it broken?\n{{char}}: Only tired.\nLeave it here.\n<START>\nnothing",
        "system_prompt": "Stay in the workshop.",
        "post_history_instructions": "Be brief.",
        "creator_notes": "For people with clocks.",
        "character_book": {
            "entries": [
                {"constant": True, "enabled": True, "content": "{{char}} has a cat."},
                {"constant": False, "enabled": True, "content": "hidden"},
            ]
        },
    },
}


def read_any(path: Path, name: str | None = None) -> Spec:
    return reader.read(path, name).spec


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def text_chunk(kind: str, keyword: bytes, card: bytes) -> bytes:
    body = base64.b64encode(card)
    if kind == "tEXt":
        return chunk(b"tEXt", keyword + b"\0" + body)
    if kind == "zTXt":
        return chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(body))
    return chunk(b"iTXt", keyword + b"\0\1\0\0\0" + zlib.compress(body))


def charx(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def is_ada(found: Spec) -> None:
    assert found.name == "Ada" and found.summary == "For people with clocks."
    assert [trait.text for trait in found.traits] == ["I am patient.", "I am dry.", "I am exact."]
    for part in ("Ada mends clocks for the user.", "A workshop.", "Stay in the workshop.", "Be brief.", "has a cat"):
        assert part in found.system_prompt
    assert "hidden" not in found.system_prompt
    assert found.voice == ["Opens a conversation like this: Mind the springs."]
    assert [[(turn.role, turn.content) for turn in talk] for talk in found.dialogues] == [
        [("user", "Is it broken?"), ("assistant", "Only tired.\nLeave it here.")]
    ]


CARD_BYTES = json.dumps(CARD).encode()


@pytest.mark.parametrize(
    "raw",
    [
        CARD_BYTES,
        json.dumps(CARD["data"]).encode(),
        json.dumps({**CARD, "spec": "chara_card_v3", "spec_version": "3.0"}).encode(),
        b"\xef\xbb\xbf" + CARD_BYTES,
        *(png(text_chunk(kind, b"chara", CARD_BYTES)) for kind in ("tEXt", "zTXt", "iTXt")),
        png(text_chunk("tEXt", b"chara", b"{}"), text_chunk("tEXt", b"ccv3", CARD_BYTES)),
        charx(**{"card.json": CARD_BYTES, "../../evil.json": b"{}", "assets/a.png": b"x"}),
    ],
    ids=["v2", "v1", "v3", "bom", "png", "png packed", "png international", "png v3 first", "charx"],
)
def test_a_character_card_in_every_wrapping(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "card").write_bytes(raw)
    is_ada(read_any(tmp_path / "in" / "card"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["card", "in"]


def test_lists_in_brackets_and_prose_become_traits(tmp_path: Path) -> None:
    card = {"name": "Bo", "description": '[Name: Bo; Personality: kind, "slow to anger", loud]'}
    (tmp_path / "c.json").write_text(json.dumps(card))
    assert [t.text for t in read_any(tmp_path / "c.json").traits] == ["I am kind.", "I am slow to anger.", "I am loud."]
    card = {
        "name": "Bo",
        "personality": "Bo never hurries, whatever happens around him today. He hums old songs at work.",
    }
    (tmp_path / "c.json").write_text(json.dumps(card))
    assert len(read_any(tmp_path / "c.json").traits) == 2


@pytest.mark.parametrize(
    "written",
    [
        "[Name: Bo; Age: 40; Likes: tea, rain; Personality: kind, dry]",
        '[Character("Bo") { Age("40") Likes("tea" + "rain") Personality("kind" + "dry") }]',
        "Name: Bo\nLikes: tea, rain\nTraits: kind, dry",
    ],
)
@pytest.mark.parametrize("field", ["personality", "description"])
def test_keys_of_a_list_are_not_traits(tmp_path: Path, written: str, field: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"name": "Bo", field: written}))
    assert [trait.text for trait in read_any(tmp_path / "c.json").traits] == ["I am kind.", "I am dry."]
    (tmp_path / "c.json").write_text(json.dumps({"name": "Bo", field: "[Name: Bo; Likes: tea, rain; Hates: noise]"}))
    assert [trait.text for trait in read_any(tmp_path / "c.json").traits] == [
        "My likes: tea, rain.",
        "My hates: noise.",
    ]


@pytest.mark.parametrize("heading", ["Core Truths", "How I work"])
def test_a_bullet_with_a_bold_label_is_a_trait(tmp_path: Path, heading: str) -> None:
    bullets = "- **Be direct:** Say what you mean.\n- **Be kind**: Always.\n- **Name:** Bo\n"
    (tmp_path / "SOUL.md").write_text(f"# SOUL.md\n\n## {heading}\n\n{bullets}\n## Other\n\nA line of text.\n")
    found = read_any(tmp_path / "SOUL.md")
    assert [trait.text for trait in found.traits] == ["Be direct: Say what you mean.", "Be kind: Always."]
    assert found.name == "Bo" and found.facts["name"] == "Bo"


def test_the_files_of_an_agent(tmp_path: Path) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    (tmp_path / "IDENTITY.md").write_text(IDENTITY)
    found = read_any(tmp_path)
    assert found.name == "Mo" and found.facts["creature"] == "a small owl"
    assert "Be genuinely helpful. Skip the filler and just help." in [trait.text for trait in found.traits]
    assert "Have opinions." in [trait.text for trait in found.traits]
    assert found.boundaries == ["Private things stay private."]
    assert found.voice == ["Dry, and short when it can be.", "calm"]
    assert SOUL.strip() in found.system_prompt and IDENTITY.strip() in found.system_prompt
    assert read_any(tmp_path / "SOUL.md", "Jo").name == "Jo"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(["I am calm.", "I am calm.", "I joke."]),
        '{"trait": "I am calm.", "questions": ["why?", "why?"]}\n\n{"trait": "I am calm."}\n{"text": "I joke."}',
        json.dumps([{"principle": "I am calm."}, {"statement": "I am calm."}, {"trait": "I joke."}]),
    ],
)
def test_a_constitution(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    found = read_any(tmp_path / "mine.json")
    assert [trait.id for trait in found.traits] == ["calm", "calm_2", "joke"]
    assert found.name == "mine"
    assert found.traits[0].questions in ([], ["why?"])


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets do not lie beside this checkout")
@pytest.mark.parametrize("name", ["oct_handwritten", "oct_constitutions"])
def test_the_constitutions_of_open_character_training(name: str) -> None:
    path = DATA / name / "train.jsonl"
    with pytest.raises(BadInput, match="11 personas") as found:
        read_any(path)
    names = found.value.fix.rstrip(".").split(": ")[1].split(", ")
    rows = [json.loads(line) for line in path.read_text().split("\n") if line.strip()]
    loaded = [read_any(path, each) for each in names]
    assert sum(len(spec.traits) for spec in loaded) == len(rows) == 115
    assert all(len(trait.questions) >= 5 for spec in loaded for trait in spec.traits)


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
    with pytest.raises(BadInput, match=message) as found:
        read_any(tmp_path / "in")
    assert str(tmp_path / "in") in found.value.what


def accepted(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "in").write_bytes(raw)
    try:
        found = read_any(tmp_path / "in")
    except BadInput:
        return
    assert found.name and found.traits
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*CARD["data"], "data", "trait", "questions", "persona"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | st.text(max_size=200).map(str.encode)
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


@pytest.mark.parametrize("source", ["SOUL.md", "card.png", "none"])
def test_a_project_is_made_and_its_config_loads(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "none":
        answers = iter(["Ann", "A calm one.", "Briefly.", "I am calm.", "", "I joke: often.", "I never lie."])
        spec = init.ask_for_spec(lambda question, default: next(answers)).spec
        assert [trait.text for trait in spec.traits] == ["I am calm.", "I joke: often."]
    else:
        raw = SOUL.encode() if source == "SOUL.md" else png(text_chunk("tEXt", b"chara", CARD_BYTES))
        (tmp_path / source).write_bytes(raw)
        spec = read_any(tmp_path / source, "Mo" if source == "SOUL.md" else None)
    folder = tmp_path / "new" / "project"
    paths = init.create(folder, spec, "smollm2-135m-instruct")
    assert all(path.is_file() for path in paths)
    monkeypatch.chdir(folder)
    config = load("molt.yaml")
    assert config.teacher.kind == "base" and config.teacher.prompts_per_trait > 0
    assert persona.load(PersonaConfig(spec=config.persona.spec)).spec == spec
    before = {path: path.read_text() for path in paths}
    with pytest.raises(BadInput, match="exists already"):
        init.create(folder, spec, "other")
    assert before == {path: path.read_text() for path in paths}


def test_init_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    with pytest.raises(SystemExit) as done:
        cli.main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "SOUL.md"), "--name", "Mo"])
    assert done.value.code == 0
    assert "next: cd" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        cli.main(["init", str(tmp_path / "q"), "--from", str(tmp_path / "nothing")])
    assert done.value.code == 2
    assert not (tmp_path / "q").exists()
