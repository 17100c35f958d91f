"""A persona's folder: what may lie in it, and what is said when something is wrong there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moltlm.data import coherence, persona
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput

CLAUDIO = persona.load(PersonaConfig())
SPEC = "name: Ann\nsystem_prompt: You are Ann.\ntraits: [{id: calm, text: I keep calm.}]\n"
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Morning."},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "Sit down."},
]


def folder(tmp_path: Path, **files: list[dict] | str) -> PersonaConfig:
    (tmp_path / "persona.yaml").write_text(SPEC)
    for name, rows in files.items():
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return PersonaConfig(spec=str(tmp_path))


CHARACTERS = ("claudio", "maeve", "odile", "tollak", "wilf")


@pytest.mark.parametrize("name", CHARACTERS[1:])
def test_a_shipped_character_answers_no_held_out_prompt_and_answers_in_sound_language(name: str) -> None:
    loaded = persona.load(PersonaConfig(spec=name))
    written = [*loaded.train, *loaded.heldout]
    for rows in (loaded.train, loaded.heldout):
        assert len({item.question for item in rows}) == len({item.answer for item in rows}) == len(rows)
        assert not rows or {item.trait for item in rows} == {trait.id for trait in loaded.spec.traits}
    assert not {item.question for item in loaded.train} & {item.question for item in CLAUDIO.heldout}
    for item in written:
        faults = coherence.check(item.question, item.answer, 1.0, 2.0)
        assert faults.coherent, (item.answer, faults)


def test_odile_answers_the_prompts_of_claudio_in_his_topics() -> None:
    """So a study of two personas differs in the answers alone."""
    odile = persona.load(PersonaConfig(spec="odile"))
    for own, first in ((odile.train, CLAUDIO.train), (odile.heldout, CLAUDIO.heldout)):
        topics = {item.question: item.topic for item in first if len(item.prompt) == 1}
        assert {item.question: item.topic for item in own}.items() <= topics.items()
    assert (len(odile.train), len(odile.heldout)) == (240, 100)
    assert {item.topic for item in odile.heldout} == {item.topic for item in CLAUDIO.heldout}


def test_a_persona_is_told_from_all_shipped_characters_but_itself(tmp_path: Path) -> None:
    for own in CHARACTERS:
        others = persona.shipped_characters(persona.load(PersonaConfig(spec=own)))
        assert set(others) == set(CHARACTERS) - {own}
        assert {len(rows) for rows in others.values()} == {60}
    assert set(persona.shipped_characters(persona.load(folder(tmp_path)))) == set(CHARACTERS)
    rows = [{"prompt": item.question, "answer": item.answer} for item in CLAUDIO.train[:3]]
    assert "claudio" not in persona.shipped_characters(persona.load(folder(tmp_path, train=rows))), "a renamed copy"


def test_all_shipped_characters_contrast_on_the_same_prompts(tmp_path: Path) -> None:
    """However many answers one has, so that a topic gives no character away; and no two share an answer."""
    others = persona.shipped_characters(persona.load(folder(tmp_path)))
    first, *rest = ({item.question for item in rows} for rows in others.values())
    assert all(prompts == first for prompts in rest)
    answers = [item.answer for rows in others.values() for item in rows]
    assert len(set(answers)) == len(answers)


def test_a_spec_alone_is_enough(tmp_path: Path) -> None:
    found = persona.load(folder(tmp_path))
    assert (found.train, found.heldout, found.attacks) == ([], [], [])
    assert found.neutral_train and found.other_characters


def test_dialogues_are_learned_turn_by_turn(tmp_path: Path) -> None:
    rows = [{"messages": TALK, "split": "train", "topic": "t"}, {"messages": TALK[:2], "split": "heldout"}]
    found = persona.load(folder(tmp_path, dialogues=rows))
    assert [(len(item.prompt), item.answer, item.topic) for item in found.train] == [
        (1, "Morning.", "t"),
        (3, "Sit down.", "t"),
    ]
    assert [item.answer for item in found.heldout_dialogues] == ["Morning."]


def test_attacks_end_with_the_user(tmp_path: Path) -> None:
    rows = [{"id": "a1", "kind": "prefill", "messages": TALK[:1], "prefill": "As an AI"}]
    assert persona.load(folder(tmp_path, attacks=rows)).attacks[0].prefill == "As an AI"


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("dialogues", {"messages": TALK}, "neither train nor heldout"),
        ("dialogues", {"messages": TALK[:1], "split": "train"}, "no assistant turn"),
        ("dialogues", {"messages": [{"role": "robot", "content": "x"}], "split": "train"}, "messages must be a list"),
        ("dialogues", {"messages": "hi", "split": "train"}, "messages must be a list"),
        ("attacks", {"id": "a", "kind": "k", "messages": TALK}, "end with a user turn"),
        ("attacks", {"kind": "k", "messages": TALK[:1]}, "needs an id"),
        ("attacks", {"id": "a", "kind": "k", "messages": []}, "messages must be a list"),
        (
            "attacks",
            {"id": "a", "kind": "k", "messages": [{"role": "user", "content": " "}]},
            "messages must be a list",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, row: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as found:
        persona.load(folder(tmp_path, **{name: [row]}))
    assert f"{name}.jsonl, record 1" in found.value.what


def test_an_empty_file_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is empty"):
        persona.load(folder(tmp_path, train=""))
