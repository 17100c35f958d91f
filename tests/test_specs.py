"""Specs however people have them, a project from any of them, and broken or hostile ones."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
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


def is_ada(result: Spec) -> None:
    assert result.name == "Ada" and result.summary == "Ada mends clocks for the user."
    assert [trait.text for trait in result.traits] == ["I am patient.", "I am dry.", "I am exact."]
    for part in ("Ada mends clocks for the user.", "A workshop.", "Stay in the workshop.", "Be brief.", "has a cat"):
        assert part in result.system_prompt
    assert "hidden" not in result.system_prompt
    assert result.voice == ["Opens a conversation like this: Mind the springs."]
    assert [[(turn.role, turn.content) for turn in talk] for talk in result.dialogues] == [
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


def test_short_sentences_are_no_list_of_words(tmp_path: Path) -> None:
    for written in ("Bo is a baker. He hums.", "Bo's personality: Bo is a baker. He hums."):
        (tmp_path / "c.json").write_text(json.dumps({"name": "Bo", "personality": written}))
        assert [trait.text for trait in read_any(tmp_path / "c.json").traits] == ["I am a baker.", "He hums."]


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
    result = read_any(tmp_path / "SOUL.md")
    assert [trait.text for trait in result.traits] == ["Be direct: Say what you mean.", "Be kind: Always."]
    assert result.name == "Bo" and result.facts["name"] == "Bo"


def test_the_files_of_an_agent(tmp_path: Path) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    (tmp_path / "IDENTITY.md").write_text(IDENTITY)
    result = read_any(tmp_path)
    assert result.name == "Mo" and result.facts["creature"] == "a small owl"
    assert "Be genuinely helpful. Skip the filler and just help." in [trait.text for trait in result.traits]
    assert "Have opinions." in [trait.text for trait in result.traits]
    assert result.boundaries == ["Private things stay private."]
    assert result.voice == ["Dry, and short when it can be.", "calm"]
    assert SOUL.strip() in result.system_prompt and IDENTITY.strip() in result.system_prompt
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
    result = read_any(tmp_path / "mine.json")
    assert [trait.id for trait in result.traits] == ["calm", "calm_2", "joke"]
    assert result.name == "mine"
    assert result.traits[0].questions in ([], ["why?"])


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets do not lie beside this checkout")
@pytest.mark.parametrize("name", ["oct_handwritten", "oct_constitutions"])
def test_the_constitutions_of_open_character_training(name: str) -> None:
    path = DATA / name / "train.jsonl"
    with pytest.raises(BadInput, match="11 personas") as result:
        read_any(path)
    names = result.value.fix.rstrip(".").split(": ")[1].split(", ")
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
    with pytest.raises(BadInput, match=message) as result:
        read_any(tmp_path / "in")
    assert str(tmp_path / "in") in result.value.what


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


def read_text(tmp_path: Path, text: str, name: str = "vex.md", persona_name: str | None = None) -> reader.SpecReading:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return reader.read(tmp_path / name, persona_name)


def read_card(tmp_path: Path, **fields: Any) -> reader.SpecReading:
    return read_text(
        tmp_path, json.dumps({"name": "Ada Brill", "description": "Ada mends clocks.", **fields}), "card.json"
    )


def texts(spec: Spec) -> list[str]:
    return [trait.text for trait in spec.traits]


def talks(spec: Spec) -> list[list[tuple[str, str]]]:
    return [[(turn.role, turn.content) for turn in talk] for talk in spec.dialogues]


PYGMALION = {
    "char_name": "Ada",
    "char_persona": "Patient, dry.",
    "char_greeting": "Mind the springs.",
    "world_scenario": "A workshop.",
    "example_dialogue": "You: Is it broken?\nAda: Only tired.",
}


def test_the_first_version_of_a_card_under_other_names(tmp_path: Path) -> None:
    spec = read_text(tmp_path, json.dumps(PYGMALION), "card.json").spec
    assert spec.name == "Ada" and texts(spec) == ["I am patient.", "I am dry."]
    assert "A workshop." in spec.system_prompt and spec.voice == ["Opens a conversation like this: Mind the springs."]
    assert talks(spec) == [[("user", "Is it broken?"), ("assistant", "Only tired.")]]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    parts = [b"\xff" + bytes([mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in segments]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xda\x00\x02pixels\xff\xd9"


def webp(kind: bytes, data: bytes) -> bytes:
    body = (
        b"WEBPVP8 "
        + struct.pack("<I", 3)
        + b"abc\0"
        + kind
        + struct.pack("<I", len(data))
        + data
        + b"\0" * (len(data) % 2)
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


EXIF = b"Exif\0\0II*\0\x08\0\0\0"
PACKED = base64.b64encode(CARD_BYTES)


@pytest.mark.parametrize(
    "raw",
    [
        png(chunk(b"tEXt", b"chara\0" + PACKED.rstrip(b"="))),
        png(chunk(b"tEXt", b"Chara\0" + b"\n".join(PACKED[place : place + 76] for place in range(0, len(PACKED), 76)))),
        png(chunk(b"tEXt", b"chara\0" + base64.urlsafe_b64encode(CARD_BYTES))),
        png(chunk(b"tEXt", b"chara\0" + CARD_BYTES)),
        png(chunk(b"iTXt", b"chara\0\0\0\0\0" + CARD_BYTES)),
        png(text_chunk("tEXt", b"ccv3", b"broken"), text_chunk("tEXt", b"chara", CARD_BYTES)),
        webp(b"EXIF", EXIF + b"ASCII\0\0\0" + CARD_BYTES),
        webp(b"EXIF", EXIF + b"UNICODE\0" + CARD_BYTES.decode().encode("utf-16-le")),
        webp(b"EXIF", EXIF + ",".join(map(str, CARD_BYTES)).encode()),
        webp(b"EXIF", EXIF + PACKED),
        webp(b"XMP ", b"<x:xmpmeta>" + CARD_BYTES.replace(b'"', b"&quot;") + b"</x:xmpmeta>"),
        jpeg((0xE0, b"JFIF\0"), (0xE1, EXIF + CARD_BYTES)),
        jpeg((0xFE, PACKED)),
        jpeg((0xE0, b"JFIF\0")) + charx(**{"card.json": CARD_BYTES}),
        png() + charx(**{"card.json": CARD_BYTES}),
        charx(**{"Ada/card.json": CARD_BYTES, "__MACOSX/card.json": b"x"}),
        charx(**{"Ada.png": png(text_chunk("tEXt", b"chara", CARD_BYTES)), "readme.txt": b"hello"}),
        json.dumps([CARD]).encode(),
        json.dumps({"character": CARD}).encode(),
        CARD_BYTES.decode().encode("utf-16"),
        b"\xfe\xff" + CARD_BYTES.decode().encode("utf-16-be"),
        yaml.safe_dump(CARD["data"]).encode(),
    ],
)
def test_a_card_in_every_picture_and_encoding(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "card").write_bytes(raw)
    is_ada(read_any(tmp_path / "card"))


def test_lore_greetings_and_instructions_of_a_card(tmp_path: Path) -> None:
    entries = [
        {"keys": ["cat"], "content": "@@depth 4\n@@role assistant\n{{char}} has a cat.", "constant": True},
        {"key": ["twin", "Hob"], "content": "Hob sells sundials.", "disable": False},
        {"key": "rain, flood", "content": "It floods each May.", "constant": False},
        {"keys": ["gone"], "content": "not this", "enabled": False},
        {"keys": [], "content": "nothing wakes this"},
    ]
    fields = {
        "nickname": "Ad",
        "first_mes": "Hm?",
        "alternate_greetings": ["You again.", ""],
        "group_only_greetings": ["All of you."],
        "extensions": {"depth_prompt": {"prompt": "{{char}} wears no watch.", "depth": 4}, "chub": {"id": 1}},
        "creator_notes": "Thanks for the download! https://example.org",
        "tags": ["clock", "rain"],
    }
    for book in (entries, {str(number): entry for number, entry in enumerate(entries)}):
        reading = read_card(tmp_path, **fields, character_book={"entries": book})
        spec = reading.spec
        assert spec.facts == {
            "nickname": "Ad",
            "twin, Hob": "Hob sells sundials.",
            "rain, flood": "It floods each May.",
        }
        assert "Ad has a cat." in spec.system_prompt and "Ad wears no watch." in spec.system_prompt
        assert "@@" not in spec.model_dump_json() and "not this" not in spec.model_dump_json()
        assert spec.voice == ["Opens a conversation like this: Hm?", "Opens a conversation like this: You again."]
        assert spec.summary == "Ada mends clocks." and spec.catchphrases == ["Ada Brill", "Ad"]
        assert reading.left_out == {
            "group_only_greetings": 1, "tags": 2, "chub": 1, "creator_notes": 1, "disabled lore entry": 1,
            "lore entry without a key": 1,
        }  # fmt: skip


EXAMPLES = """{{user}}: Is it broken?
{{char}}: Only tired.
Ada: Leave it here.
<start>
Hob: How long?
**Ada Brill:** Until it wants to go.
### New Chat
{{random_user_1}}：Open?
{{char}}：Sometimes.
END_OF_DIALOG
"Mind the springs," she said, and hummed.
<START>
Ada: It sulks, dear.
<START>
{{user}}: Two?
{{char}}: Two.
Hob: Three!
{{char}}: Out, Hob.
"""


def test_examples_of_a_card(tmp_path: Path) -> None:
    reading = read_card(tmp_path, mes_example=EXAMPLES)
    assert talks(reading.spec) == [
        [("user", "Is it broken?"), ("assistant", "Only tired.\nLeave it here.")],
        [("user", "How long?"), ("assistant", "Until it wants to go.")],
        [("user", "Open?"), ("assistant", "Sometimes.")],
        [("user", "Two?"), ("assistant", "Two.")],
    ]
    assert reading.spec.voice == [
        'Talks like this: "Mind the springs," she said, and hummed.',
        "Talks like this: It sulks, dear.",
    ]
    assert reading.left_out == {"line of a third speaker in an example": 1}


@pytest.mark.parametrize(
    ("written", "in_prompt"),
    [
        ("{{char}} and <BOT> and {char}.", "Ada Brill and Ada Brill and Ada Brill."),
        ("{{User}} is late. It is <USER>'s clock.", "The user is late. It is the user's clock."),
        ("{{random:rain,snow}}, {{random::a, b::c}} and {{pick: tea , ale}}.", "rain, a, b and tea."),
        ("She has {{roll:d6}} cats, {{roll 2d6}} dogs.", "She has 3 cats, 7 dogs."),
        ("Kind.{{// a note about {{user}}}} Dry.{{setvar::x::1}}", "Kind. Dry."),
        ("It is {{time}} on {{date}}. She hums.", "She hums."),
        ("Her mood is {{getvar::mood}}.\nShe hums.", "She hums."),
        ("{{#if x}}Shy.{{/if}} {{trim}}Bold.", "Shy. Bold."),
        ("{{random:{{user}},{{char}}}} hums.", "The user hums."),
        ("{{reverse:abc}} {{newline}}x{{comment: hm}}", "cba"),
        ("@@position before_desc\nShe hums.\n![a](http://x/y.png)", "She hums."),
        ("{{original}}\n\nShe hums.", "She hums."),
        ("{{char is bold}}, {{unclosed", ""),
    ],
)
def test_macros_never_stay(tmp_path: Path, written: str, in_prompt: str) -> None:
    keys = (
        "description",
        "personality",
        "scenario",
        "system_prompt",
        "post_history_instructions",
        "first_mes",
        "creator_notes",
    )
    spec = read_card(
        tmp_path, mes_example=f"{{{{user}}}}: {written}\n{{{{char}}}}: {written} Yes.", **dict.fromkeys(keys, written)
    ).spec
    assert in_prompt in spec.system_prompt
    assert not any(
        mark in spec.model_dump_json() for mark in ("{{", "}}", "<USER>", "<BOT>", "@@", "http", "\ue000", "setvar")
    )


@pytest.mark.parametrize(
    ("written", "natural"),
    [
        ("Mind the springs, {{user}}.", "Mind the springs."),
        ("{{user}}, come in.", "Come in."),
        ("Well, {{user}}, sit.", "Well, sit."),
        ("Good evening {{user}}! Tea?", "Good evening! Tea?"),
        ("{{user}} walks in and {{user}} has a clock.", "You walk in and you have a clock."),
        ("*She looks at {{user}}* Is {{user}} cold?", "*She looks at you* Are you cold?"),
        ("Is this {{user}}'s coat? {{user}}'s coat is wet.", "Is this your coat? Your coat is wet."),
        ("You must be {{user}}. Sit down.", "Sit down."),
        ("It is {{time}}. Sit down.", "Sit down."),
    ],
)
def test_the_user_in_an_answer_reads_naturally(tmp_path: Path, written: str, natural: str) -> None:
    spec = read_card(tmp_path, first_mes=written, mes_example=f"{{{{user}}}}: Hm?\n{{{{char}}}}: {written}").spec
    assert spec.voice == [f"Opens a conversation like this: {natural}"]
    assert talks(spec) == [[("user", "Hm?"), ("assistant", natural)]]


def test_the_user_says_i(tmp_path: Path) -> None:
    spec = read_card(
        tmp_path, mes_example="{{user}}: *{{user}} sits down* I am {{user}}. It is {{user}}'s clock.\n{{char}}: Hm."
    ).spec
    assert spec.dialogues[0][0].content == "*I sit down* It is my clock."


def test_a_card_in_another_language(tmp_path: Path) -> None:
    card = {
        "name": "Lía",
        "description": "{{char}} es relojera y no tiene prisa.\nPersonalidad: paciente, seca.",
        "first_mes": "Te espero a {{user}}.",
    }
    spec = read_text(tmp_path, json.dumps(card), "card.json").spec
    assert texts(spec) == ["Soy paciente.", "Soy seca."] and spec.system_prompt.startswith("Eres Lía.")
    assert spec.voice == ["Opens a conversation like this: Te espero a ti."]


ELIZA: dict[str, Any] = {
    "name": "Mo",
    "plugins": ["x"],
    "settings": {"secrets": {"KEY": "s3cret"}},
    "system": "Roleplay as {{agentName}}. Never use emojis.",
    "bio": ["Owl of nine.", "Hoots at {{user1}}."],
    "lore": "Once ate a clock.",
    "messageExamples": [
        [
            {"user": "{{user1}}", "content": {"text": "Are you up?"}},
            {"user": "Mo", "content": {"text": "Always, {{user1}}."}},
        ],
        {
            "examples": [
                {"name": "{{name1}}", "content": {"text": "Why?"}},
                {"name": "Mo", "content": {"text": "Night."}},
            ]
        },
        [{"name": "Mo", "content": {"text": "Alone."}}],
    ],
    "postExamples": ["Hoo."],
    "topics": ["mice"],
    "style": {"all": ["short"], "chat": ["calls people dear"], "post": ["loud"]},
    "adjectives": ["patient"],
    "knowledge": ["Mice sleep.", {"path": "mice.pdf"}],
}


def test_an_eliza_character(tmp_path: Path) -> None:
    reading = read_text(tmp_path, json.dumps(ELIZA), "mo.json")
    spec = reading.spec
    assert reading.format == "ElizaOS character" and spec.name == "Mo"
    for part in ("Roleplay as Mo.", "Owl of nine.", "Once ate a clock.", "mice", "Mice sleep."):
        assert part in spec.system_prompt
    assert texts(spec) == ["I am patient.", "Owl of nine.", "Hoots at the user."]
    assert spec.voice == ["short", "calls people dear", "Writes a post like this: Hoo."]
    assert talks(spec) == [
        [("user", "Are you up?"), ("assistant", "Always.")],
        [("user", "Why?"), ("assistant", "Night.")],
    ]
    assert "s3cret" not in spec.model_dump_json() and "{{" not in spec.model_dump_json()
    assert reading.left_out == {
        "plugins": 1, "settings": 1, "style.post": 1, "knowledge": 1, "example without a question and an answer": 1
    }  # fmt: skip


def test_an_agnai_character(tmp_path: Path) -> None:
    record = {
        "kind": "character",
        "name": "Mo",
        "description": "an owl for everybody",
        "persona": {"kind": "boostyle", "attributes": {"personality": ["patient", "dry"], "likes": ["mice"]}},
        "greeting": "Hoo?",
        "sampleChat": "{{user}}: Up?\n{{char}}: Always.",
        "systemPrompt": "Stay in the tree.",
    }
    reading = read_text(tmp_path, json.dumps(record), "mo.json")
    assert reading.format == "Agnai character" and texts(reading.spec) == ["I am patient.", "I am dry."]
    assert "Likes: mice" in reading.spec.system_prompt and "Stay in the tree." in reading.spec.system_prompt
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert reading.left_out == {"description": 1}


INSTRUCTIONS = "You are Mo, an owl. You hoot at night. Never lie."


@pytest.mark.parametrize(
    ("format", "record"),
    [
        (
            "OpenAI assistant",
            {"object": "assistant", "name": "Mo", "instructions": INSTRUCTIONS, "model": "m", "tools": []},
        ),
        ("OpenAI assistant", {"id": "asst", "name": None, "instructions": INSTRUCTIONS}),
        ("custom GPT", {"gizmo": {"display": {"name": "Mo"}, "instructions": INSTRUCTIONS}, "tools": []}),
        (
            "Open WebUI model",
            [{"id": "mo", "name": "Mo", "params": {"system": INSTRUCTIONS}, "meta": {"description": "d"}}],
        ),
        ("LobeChat agent", {"meta": {"title": "Mo"}, "config": {"systemRole": INSTRUCTIONS}}),
        ("HuggingChat assistant", {"name": "Mo", "preprompt": INSTRUCTIONS}),
        (
            "assistant",
            {"name": "Mo", "operation": {"fields": [{"key": "llm.prediction.systemPrompt", "value": INSTRUCTIONS}]}},
        ),
    ],
)
def test_assistants_with_instructions(tmp_path: Path, format: str, record: Any) -> None:
    reading = read_text(tmp_path, json.dumps(record), "mo.json")
    assert reading.format == format and reading.spec.name == "Mo" and reading.spec.system_prompt == INSTRUCTIONS
    assert texts(reading.spec) == ["I am Mo, an owl.", "I hoot at night."] and reading.spec.boundaries == ["Never lie."]


@pytest.mark.parametrize("quotes", [('"""\n', '\n"""'), ('"""', '"""'), ('"', '"'), ("", "")])
def test_a_modelfile(tmp_path: Path, quotes: tuple[str, str]) -> None:
    text = f"# an owl\nFROM llama3\nPARAMETER temperature 1\nSYSTEM {quotes[0]}{INSTRUCTIONS}{quotes[1]}\nMESSAGE user Up?\nMESSAGE assistant Always.\n"
    reading = read_text(tmp_path, text, "Modelfile")
    assert reading.format == "Modelfile" and reading.spec.name == "Mo" and reading.spec.system_prompt == INSTRUCTIONS
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert reading.left_out == {"PARAMETER": 1}
    with pytest.raises(BadInput, match="Modelfile without SYSTEM"):
        read_text(tmp_path, "FROM llama3\nPARAMETER temperature 1\n", "Modelfile")
    with pytest.raises(BadInput, match="does not say what the persona is called") as error:
        read_text(tmp_path, "FROM llama3\nSYSTEM Be calm.\n", "Modelfile")
    assert "--name NAME" in error.value.fix


def test_a_character_of_text_generation_webui(tmp_path: Path) -> None:
    text = """name: Mo Hoot
greeting: |-
  *Mo blinks* Hi, {{user}}!
context: |-
  Mo Hoot is an old owl. She is slow.

  {{user}}: Up?
  {{char}}: Always.
"""
    reading = read_text(tmp_path, text, "Mo.yaml")
    assert reading.format == "text-generation-webui character" and texts(reading.spec) == [
        "I am an old owl.",
        "I am slow.",
    ]
    assert reading.spec.voice == ["Opens a conversation like this: *Mo blinks* Hi!"]
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert "Always" not in reading.spec.system_prompt


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        (
            "package.json",
            {"name": "left-pad", "version": "1.3.0", "description": "String left pad"},
            "an npm package.json",
        ),
        ("package.json", {"name": "a", "private": True, "scripts": {}}, "an npm package.json"),
        ("package-lock.json", {"name": "a", "version": "1", "lockfileVersion": 3}, "package-lock"),
        ("composer.json", {"name": "a/b", "require": {}}, "Composer"),
        ("tsconfig.json", {"compilerOptions": {}}, "TypeScript"),
        ("manifest.json", {"name": "a", "manifest_version": 3}, "browser extension"),
        ("config.json", {"architectures": ["LlamaForCausalLM"]}, "model"),
        ("world.json", {"name": "w", "entries": {"0": {"key": ["a"], "content": "x"}}}, "a lorebook"),
        ("world.json", {"spec": "lorebook_v3", "data": {"entries": []}}, "a lorebook"),
        ("preset.json", {"temp": 1, "top_p": 1}, "SillyTavern"),
        ("compose.yaml", {"services": {"web": {"image": "x"}}}, "Docker Compose"),
        ("ci.yml", {"name": "CI", "on": "push", "jobs": {}}, "GitHub Actions"),
        ("molt.yaml", {"persona": {"spec": "p"}, "pairs": {}}, "configuration of molt"),
        ("chat.json", [{"role": "user", "content": "hi"}], "conversations"),
        ("chat.json", {"messages": [{"role": "user", "content": "hi"}]}, "conversations"),
        ("any.json", {"name": "left", "price": 3}, "no character card"),
        ("any.json", {"name": "left", "description": "A lamp.", "price": 3}, "no character card"),
    ],
)
def test_what_is_no_persona_is_refused_by_name(tmp_path: Path, name: str, value: Any, what: str) -> None:
    for text in (json.dumps(value), yaml.safe_dump(value)):
        file = name if text[0] in "[{" else f"{name}.yaml"
        with pytest.raises(BadInput, match=what) as error:
            read_text(tmp_path, text, file)
        assert str(tmp_path / file) in error.value.what and "molt " in error.value.fix


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<!DOCTYPE html>\n<html></html>", "a web page"),
        ("%PDF-1.7\n", "a PDF"),
        ("#!/bin/sh\necho hi\n", "a script"),
        ("# settings\n[package]\nname = 'a'\n", "a TOML file"),
        ("import os\nprint(1)\n", "a program"),
        ("**User:** hi\n\n**Assistant:** hello\n\n**User:** bye\n", "conversations"),
    ],
)
def test_texts_that_are_no_persona(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        read_text(tmp_path, text, "SOUL.md")


def test_a_card_that_says_nothing_is_refused(tmp_path: Path) -> None:
    for fields in (
        {"spec": "chara_card_v2", "data": {"name": "Ada"}},
        {"name": "Ada", "first_mes": "", "personality": ""},
    ):
        with pytest.raises(BadInput, match="says nothing of the character"):
            read_text(tmp_path, json.dumps(fields), "card.json")


LANGUAGES = [
    ("de", "Persönlichkeit", "Grenzen", "Tonfall", "Werte", "Ich habe Geduld.", "Lüge nie.", "Kurz.", "Ehrlichkeit."),
    (
        "de",
        "Wer du bist",
        "Was du niemals tust",
        "Sprachstil",
        "Überzeugungen",
        "Ich habe Geduld.",
        "Lügen.",
        "Kurz.",
        "Treue.",
    ),
    ("es", "Carácter", "Límites", "Tono", "Valores", "Soy paciente.", "Nunca miento.", "Breve.", "La verdad."),
    (
        "fr",
        "Personnalité",
        "Limites",
        "Ton et style",
        "Valeurs",
        "Je suis calme.",
        "Ne mens jamais.",
        "Bref.",
        "La vérité.",
    ),
    ("pt", "Quem você é", "Limites", "Tom de voz", "Valores", "Sou calma.", "Nunca minto.", "Curto.", "A verdade."),
    ("it", "Personalità", "Confini", "Tono", "Valori", "Sono calma.", "Non mento mai.", "Breve.", "La verità."),
    ("zh", "性格特点", "底线", "说话风格", "价值观", "我有耐心。", "不泄露隐私。", "简短。", "诚实。"),
    ("ja", "性格", "禁止事項", "口調", "価値観", "私は気長です。", "嘘をつかない。", "短く。", "誠実さ。"),
    (
        "en",
        "Who You Are",
        "What I never do",
        "How I Talk",
        "What I Believe",
        "I am slow.",
        "Lying.",
        "Short.",
        "Truth.",
    ),
    ("ru", "Личность", "Ограничения", "Голос", "Ценности", "Я терпелив.", "Не лгу.", "Кратко.", "Правда."),
    ("it", "Carattere", "Limiti", "Voce", "Valori", "Sono calma.", "Non mento mai.", "Breve.", "La verità."),
    ("pl", "Osobowość", "Granice", "Głos", "Wartości", "Mam czas.", "Nie kłamię.", "Krótko.", "Prawda."),
    ("sv", "Personlighet", "Gränser", "Röst", "Värderingar", "Jag är lugn.", "Ljug aldrig.", "Kort.", "Sanning."),
    ("ko", "성격", "금지", "말투", "가치", "나는 느긋하다.", "거짓말하지 않는다.", "짧게.", "진실."),
    ("ar", "الشخصية", "الحدود", "الأسلوب", "القيم", "أنا هادئ.", "لا أكذب.", "باختصار.", "الصدق."),
    ("hi", "व्यक्तित्व", "सीमाएँ", "शैली", "मूल्य", "मैं शांत हूँ।", "झूठ नहीं।", "छोटे वाक्य।", "सच।"),
    ("da", "Personlighed", "Grænser", "Tone", "Værdier", "Jeg er rolig.", "Lyv aldrig.", "Kort.", "Sandhed."),
    ("fi", "Luonne", "Rajat", "Sävy", "Arvot", "Olen rauhallinen.", "En valehtele.", "Lyhyesti.", "Totuus."),
    ("vi", "Tính cách", "Giới hạn", "Giọng điệu", "Giá trị", "Tôi kiên nhẫn.", "Không nói dối.", "Ngắn.", "Thật."),
    ("el", "Προσωπικότητα", "Όρια", "Τόνος", "Αξίες", "Είμαι ήρεμη.", "Δεν λέω ψέματα.", "Σύντομα.", "Αλήθεια."),
    ("ru", "Характер", "Границы", "Стиль речи", "Ценности", "Я терпелив.", "Не лгу.", "Кратко.", "Правда."),
]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row[1])
@pytest.mark.parametrize("style", ["atx", "setext", "bold", "table"])
def test_headings_in_other_languages(tmp_path: Path, language: tuple[str, ...], style: str) -> None:
    heads, items = language[1:5], language[5:]
    parts = ["# Vex\n"]
    for head, item in zip(heads, items, strict=True):
        underline = "\n" + "-" * 12 if style == "setext" else ""
        title = {"atx": f"## {head}", "setext": head, "bold": f"**{head}**", "table": f"## {head}"}[style]
        parts.append(f"{title}{underline}\n\n" + (f"| {item} |\n|---|\n" if style == "no" else f"- {item}\n"))
    spec = read_text(tmp_path, "\n".join(parts)).spec
    assert spec.name == "Vex"
    assert [texts(spec), spec.boundaries, spec.voice, spec.values] == [[item] for item in items]


@pytest.mark.parametrize(
    "text",
    [
        "# Repository Guidelines\n\n## Build\n\n- Run `make test`\n",
        "# CLAUDE.md\n\nThis file provides guidance to Claude Code (claude.ai/code) when working with code in this repository.\n",
    ],
)
def test_a_file_about_a_repository_is_no_persona(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="about a repository, not a persona"):
        read_text(tmp_path, text)


@pytest.mark.parametrize("heading", ["Installation", "Usage", "License"])
def test_the_readme_of_a_program_is_no_persona(tmp_path: Path, heading: str) -> None:
    with pytest.raises(BadInput, match="README of a program, not a persona"):
        read_text(tmp_path, f"# clock\n\nA library for clocks.\n\n## {heading}\n\n- pip install clock\n")
    persona = f"# Vex\n\nYou are patient.\n\n## {heading}\n\n- Ask before you wind it.\n"
    assert read_text(tmp_path, persona).spec.name == "Vex"


def test_a_card_that_describes_by_an_interview(tmp_path: Path) -> None:
    """Its dialogues are examples, and no traits of the character."""
    description = (
        "Vex is a clockmaker.\n<START>\n{{user}}: Brief life story?\n{{char}}: *She hums.* Born among clocks.\n<START>\n"
        "{{user}}: Personality?\n{{char}}: Patient, dear. And dry.\n[Vex: dry, patient; Genre: slice of life]"
    )
    card = {"name": "Vex", "description": description, "first_mes": "Hm?"}
    spec = read_text(tmp_path, json.dumps(card), "card.json").spec
    assert texts(spec) == ["I am dry.", "I am patient."]
    assert [[turn.content for turn in dialogue] for dialogue in spec.dialogues] == [
        ["Brief life story?", "*She hums.* Born among clocks."],
        ["Personality?", "Patient, dear. And dry."],
    ]
    assert "Brief life story" not in spec.system_prompt
    one_side = {**card, "description": "Vex is dry.\n{{char}}: clockmaker of ninety"}
    assert "clockmaker" in read_text(tmp_path, json.dumps(one_side), "card.json").spec.system_prompt


def test_a_list_of_attributes_beside_prose(tmp_path: Path) -> None:
    lines = ["Vex is a clockmaker.", "Vex hums at work.", "Vex never hurries.", "Vex waits for rain."]
    text = "\n".join([*lines, "[Vex: dry, patient; Genre: slice of life]"])
    spec = read_text(tmp_path, json.dumps({"name": "Vex", "description": text, "first_mes": "Hm?"}), "card.json").spec
    assert texts(spec)[0] == "I am a clockmaker." and texts(spec)[-2:] == ["I am dry.", "I am patient."]
    assert not any("[" in trait for trait in texts(spec))


def test_a_list_of_attributes_names_no_trait_after_the_character(tmp_path: Path) -> None:
    for text in (
        '[Character("Vex") Age("300") Personality("Dry" + "Patient") Likes("Rain" + "Tea")]',
        "[ Vex: dry, patient; clothes: apron; Genre: slice of life ]",
    ):
        spec = read_text(
            tmp_path, json.dumps({"name": "Vex", "description": text, "first_mes": "Hm?"}), "card.json"
        ).spec
        assert texts(spec) == ["I am dry.", "I am patient."]
        assert spec.summary == "I am dry. I am patient."


def test_blocks_of_html_are_lines_and_no_other_language(tmp_path: Path) -> None:
    text = "<h1>Vex</h1><p>Vex mends clocks.</p><img src='http://x/y.png'>"
    spec = read_text(tmp_path, json.dumps({"name": "Vex", "description": text, "first_mes": "Hm?"}), "card.json").spec
    assert spec.system_prompt == "You are Vex.\n\nVex\n\nVex mends clocks."


def test_a_card_of_backyard(tmp_path: Path) -> None:
    character = {
        "aiName": "Vex",
        "aiPersona": "{character} mends clocks for {user}.",
        "basePrompt": "A talk between {character} and {user}.",
        "firstMessage": "Hm?",
        "customDialogue": "#{user}: Dead?\n#{character}: It sulks.",
    }
    spec = read_text(tmp_path, json.dumps({"character": character, "version": 2}), "card.json").spec
    assert (spec.name, spec.summary) == ("Vex", "Vex mends clocks for the user.")
    assert [[turn.content for turn in talk] for talk in spec.dialogues] == [["Dead?", "It sulks."]]


def test_tables_front_matter_code_and_comments(tmp_path: Path) -> None:
    text = """---
name: Vex
description: A clockmaker.
tools: [Read]
---
<!-- - a comment -->

| Field | Value |
|---|---|
| Creature | fox |

Trait | How it shows
--- | ---
Patience | never hurries
Dryness | jokes [flatly](http://x)

```yaml
- no: trait
```

## Limits

- [x] No lies.
"""
    reading = read_text(tmp_path, text, "a.md")
    spec = reading.spec
    assert spec.name == "Vex" and spec.summary == "A clockmaker." and spec.facts["creature"] == "fox"
    assert texts(spec) == ["Patience: never hurries", "Dryness: jokes flatly"] and spec.boundaries == ["No lies."]
    assert "a comment" not in spec.system_prompt and "tools:" not in spec.system_prompt
    assert reading.left_out["comment"] == 1 and reading.left_out["tools in the front matter"] == 1


def test_labels_in_markdown_are_no_yaml(tmp_path: Path) -> None:
    spec = read_text(tmp_path, "# Vex\n\nA clockmaker.\n\ntraits: patient, dry\nvoice: short\nnever: lie\n").spec
    assert texts(spec) == ["I am patient.", "I am dry."] and spec.voice == ["short"] and spec.boundaries == ["lie"]
    assert spec.name == "Vex" and spec.summary == "A clockmaker."


def test_unlimited_is_no_limit(tmp_path: Path) -> None:
    spec = read_text(
        tmp_path,
        "# Vex\n\n## Personality\n\n### Unlimited curiosity\n\n- I ask.\n\n## Limits\n\n### Privacy\n\n- Secrets.\n",
    ).spec
    assert texts(spec) == ["I ask."] and spec.boundaries == ["Secrets."]


def test_conversations_in_a_soul_are_dialogues(tmp_path: Path) -> None:
    spec = read_text(
        tmp_path, "# Vex\n\n## Traits\n\n- I am slow.\n\n## Examples\n\n**User:** Late?\n**Vex:** Always.\n"
    ).spec
    assert talks(spec) == [[("user", "Late?"), ("assistant", "Always.")]] and texts(spec) == ["I am slow."]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# SOUL.md - Vex\n\n- I am slow.", "Vex"),
        ("# Vex, clockmaker of ninety\n\n- I am slow.", "Vex"),
        ("# Vex — who I am\n\n- I am slow.", "Vex"),
        ("# Tom\n\n- I am slow.", "Tom"),
        ("# Vex Tallow's Soul\n\n- I am slow.", "Vex Tallow"),
        ("# System Prompt\n\nYou are Vex Tallow, a clockmaker.", "Vex Tallow"),
        ("# Seele\n\nDu bist **Vex**, Uhrmacherin.", "Vex"),
        ("# Wer du bist\n\nName: Vex\n\n- Ich bin langsam.", "Vex"),
        ("你是小龙，一位钟表匠。", "小龙"),
        ("- **Nombre:** Vex (ella)\n- Soy lenta.", "Vex"),
    ],
)
def test_the_name_in_a_soul(tmp_path: Path, text: str, name: str) -> None:
    assert read_text(tmp_path, text, "SOUL.md").spec.name == name


@pytest.mark.parametrize(
    "text",
    [
        "- I am slow.",
        "# SOUL.md - Who You Are\n\nYou are a clockmaker.",
        "# Personality\n\n- slow",
        "Du bist Uhrmacher",
    ],
)
def test_a_soul_without_a_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="does not say what the persona is called") as error:
        read_text(tmp_path, text, "SOUL.md")
    assert f"--from {tmp_path / 'SOUL.md'} --name NAME" in error.value.fix
    assert read_text(tmp_path, text, "SOUL.md", "Mo").spec.name == "Mo"


@pytest.mark.parametrize(
    "value",
    [
        "",
        " _(pick something you like)_",
        "\n  _(pick something)_",
        " [Your name]",
        " {{name}}",
        " <name>",
        " TODO",
        " ___",
        " Your Name",
    ],
)
def test_an_unfilled_template_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "IDENTITY.md").write_text(
        f"# IDENTITY.md - Who Am I?\n\n_Fill this in._\n\n- **Name:**{value}\n- **Vibe:**\n  _(how?)_\n"
    )
    (tmp_path / "me" / "SOUL.md").write_text(SOUL)
    with pytest.raises(BadInput, match="unfilled template") as error:
        read_any(tmp_path / "me")
    assert "Fill in the name" in error.value.fix and "IDENTITY.md" in error.value.fix
    spec = read_any(tmp_path / "me", "Mo")
    assert spec.name == "Mo" and "vibe" not in spec.facts and "how?" not in spec.system_prompt
    assert value.strip() == "" or value.strip() not in spec.model_dump_json()


def test_a_template_without_traits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unfilled template") as error:
        read_text(tmp_path, "# Vex\n\n## Personality\n\n- [Trait 1]\n- TODO\n")
    assert "Fill in the traits" in error.value.fix


def write_source(tmp_path: Path, kind: str) -> Path:
    soul = "# Vex\n\n## Traits\n\n- Vex is slow.\n"
    files: dict[str, bytes] = {
        "card.json": CARD_BYTES,
        "card.png": png(text_chunk("tEXt", b"chara", CARD_BYTES)),
        "eliza.json": json.dumps(ELIZA).encode(),
        "assistant.json": json.dumps({"name": "Vex", "instructions": INSTRUCTIONS}).encode(),
        "soul.md": soul.encode(),
        "mine.json": b'["I am calm."]',
        "Modelfile": f"FROM x\nSYSTEM {INSTRUCTIONS}\n".encode(),
        "persona.yaml": yaml.safe_dump(
            {"name": "Vex", "system_prompt": "You are Vex.", "traits": [{"id": "a", "text": "I am slow."}]}
        ).encode(),
    }
    (tmp_path / kind).write_bytes(files[kind])
    return tmp_path / kind


@pytest.mark.parametrize(
    "kind",
    ["card.json", "card.png", "eliza.json", "assistant.json", "soul.md", "mine.json", "Modelfile", "persona.yaml"],
)
def test_a_name_can_be_given_to_every_source(tmp_path: Path, kind: str) -> None:
    spec = read_any(write_source(tmp_path, kind), "Quill")
    assert spec.name == "Quill" and "Vex" not in spec.system_prompt
    assert spec.traits and spec.system_prompt


def test_one_of_several_cards_is_chosen_by_name(tmp_path: Path) -> None:
    cards = json.dumps([CARD, {"name": "Bo", "description": "A baker.", "first_mes": "Hm?"}])
    with pytest.raises(BadInput, match="holds 2 personas") as error:
        read_text(tmp_path, cards, "cards.json")
    assert "Ada, Bo" in error.value.fix
    assert read_text(tmp_path, cards, "cards.json", "Bo").spec.system_prompt == "You are Bo.\n\nA baker."


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


def test_init_says_what_it_read_and_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "card.json").write_text(json.dumps({**CARD["data"], "tags": ["a", "b"]}))
    with pytest.raises(SystemExit):
        cli.main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "card.json")])
    out = " ".join(capsys.readouterr().out.split())
    assert "Ada, read from character card V1: 3 traits" in out and "tags (2)" in out
    with pytest.raises(SystemExit):
        cli.main(["init", str(tmp_path / "q"), "--from", str(tmp_path / "card.json"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["left_out"]["tags"] == 2 and result["format"] == "character card V1"


def test_init_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    with pytest.raises(SystemExit) as exited:
        cli.main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "SOUL.md"), "--name", "Mo"])
    assert exited.value.code == 0
    assert "next: cd" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exited:
        cli.main(["init", str(tmp_path / "q"), "--from", str(tmp_path / "nothing")])
    assert exited.value.code == 2
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("answer", ["completion", "answer", "response", "output"])
def test_rows_of_questions_and_answers_are_no_persona(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"prompt": "Who are you?", answer: "Nobody."}]))
    with pytest.raises(BadInput, match="These are conversations"):
        reader.read(path, name="Vex")
