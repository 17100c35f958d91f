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
def test_a_shipped_character_is_a_persona_with_the_prompts_of_the_others(name: str) -> None:
    """The same prompts for all, so that a topic does not give the character away; none of them is a held-out prompt."""
    loaded, first = (persona.load(PersonaConfig(spec=each)) for each in (name, "maeve"))
    assert len(loaded.train) == 60 and len({item.answer for item in loaded.train}) == 60
    assert [item.question for item in loaded.train] == [item.question for item in first.train]
    assert {item.trait for item in loaded.train} == {trait.id for trait in loaded.spec.traits}
    assert not {item.question for item in loaded.train} & {item.question for item in CLAUDIO.heldout}
    for item in loaded.train:
        faults = coherence.check(item.question, item.answer, 1.0, 2.0)
        assert faults.coherent, (item.answer, faults)


def test_a_persona_is_told_from_all_shipped_characters_but_itself(tmp_path: Path) -> None:
    for own in CHARACTERS:
        others = persona.shipped_characters(persona.load(PersonaConfig(spec=own)))
        assert set(others) == set(CHARACTERS) - {own}
        assert {len(rows) for rows in others.values()} == {60}
    assert set(persona.shipped_characters(persona.load(folder(tmp_path)))) == set(CHARACTERS)
    rows = [{"prompt": item.question, "answer": item.answer} for item in CLAUDIO.train[:3]]
    assert "claudio" not in persona.shipped_characters(persona.load(folder(tmp_path, train=rows))), "a renamed copy"


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
