"""Character cards in every picture, wrapping and language."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from spec_files import CARD, CARD_BYTES, charx, chunk, png, read_any, read_text, talks, text_chunk, texts

from moltlm.data.errors import BadInput
from moltlm.data.spec import Spec
from moltlm.data.spec_formats import reader


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


def read_card(tmp_path: Path, **fields: Any) -> reader.SpecReading:
    return read_text(
        tmp_path, json.dumps({"name": "Ada Brill", "description": "Ada mends clocks.", **fields}), "card.json"
    )


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


def test_a_card_that_says_nothing_is_refused(tmp_path: Path) -> None:
    for fields in (
        {"spec": "chara_card_v2", "data": {"name": "Ada"}},
        {"name": "Ada", "first_mes": "", "personality": ""},
    ):
        with pytest.raises(BadInput, match="says nothing of the character"):
            read_text(tmp_path, json.dumps(fields), "card.json")


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


def test_one_of_several_cards_is_chosen_by_name(tmp_path: Path) -> None:
    cards = json.dumps([CARD, {"name": "Bo", "description": "A baker.", "first_mes": "Hm?"}])
    with pytest.raises(BadInput, match="holds 2 personas") as error:
        read_text(tmp_path, cards, "cards.json")
    assert "Ada, Bo" in error.value.fix
    assert read_text(tmp_path, cards, "cards.json", "Bo").spec.system_prompt == "You are Bo.\n\nA baker."
