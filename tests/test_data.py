"""What goes in: personas, tasks, replay, conversations, and every way in which they can be wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data import filters, leakage, persona
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl, write_json, write_jsonl

CLAUDIO = persona.load(PersonaConfig())


def test_claudio_is_whole() -> None:
    train, heldout = (persona.exchanges(CLAUDIO.folder / f"{name}.jsonl") for name in ("train", "heldout"))
    assert len(train) >= 480 and len({row.topic for row in train}) >= 24
    assert len(heldout) >= 120 and len(CLAUDIO.attacks) >= 60
    assert Counter(attack.kind for attack in CLAUDIO.attacks).most_common()[-1][1] >= 15
    assert len(read_jsonl(CLAUDIO.folder / "dialogues.jsonl")) >= 40
    assert not {row.topic for row in CLAUDIO.train} & {row.topic for row in CLAUDIO.heldout}
    known = {trait.id for trait in CLAUDIO.spec.traits}
    assert {row.trait for row in [*CLAUDIO.train, *CLAUDIO.heldout] if row.trait} <= known
    for row in [*train, *heldout]:
        assert 20 <= len(row.answer.split()) <= 60, row.answer
    for row in [*CLAUDIO.train, *CLAUDIO.heldout, *CLAUDIO.heldout_dialogues]:
        assert "!" not in row.answer


def test_no_prompt_of_claudio_is_on_both_sides() -> None:
    measured = [item.question for item in [*CLAUDIO.heldout, *CLAUDIO.heldout_dialogues]]
    measured += [attack.prompt[-1]["content"] for attack in CLAUDIO.attacks]
    assert not leakage.leaks([item.question for item in CLAUDIO.train], measured)


def test_claudio_has_no_template_feel() -> None:
    """Openings and closings vary, and hardly any five words in a row stand twice."""
    for rows in (CLAUDIO.train, CLAUDIO.heldout):
        found = filters.variety([row.answer for row in rows])
        assert found.opening < 0.03 and found.closing < 0.04 and found.repeated < 0.02
        assert found.distinct_2 > 0.7 and found.distinct_3 > 0.95
        assert 0.4 < found.questions < 0.65


@given(st.lists(st.text(max_size=30), max_size=5))
def test_jsonl_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Whatever a model says, line separators of Unicode included."""
    path = tmp_path_factory.mktemp("j") / "rows.jsonl"
    rows = [{"text": "first"}, *({"text": text} for text in texts), {"text": "a\u2028b\x85c\x0bd\r"}]
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


def test_json_has_no_word_for_what_is_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"low": -math.inf, "rows": [(math.nan, 1.5)]})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "low": None,
        "rows": [[None, 1.5]],
    }


def persona_folder(tmp_path: Path, train: str = '{"prompt": "hi", "answer": "yes"}') -> Path:
    source = persona.locate("claudio")
    for name in ("persona.yaml", "heldout.jsonl"):
        (tmp_path / name).write_text((source / name).read_text())
    (tmp_path / "train.jsonl").write_text(train)
    return tmp_path


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", "is empty"),
        ('{"prompt": "hi", "answer": ""}', "answer is missing or empty"),
        ('{"answer": "x"}', "prompt is missing or empty"),
        ('{"prompt": "hi", "answer": "yes"}\n{oops', "line 2: not valid JSON"),
    ],
)
def test_a_bad_persona_file_is_named(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        persona.load(PersonaConfig(spec=str(persona_folder(tmp_path, train))))


def test_a_persona_of_ones_own(tmp_path: Path) -> None:
    found = persona.load(PersonaConfig(spec=str(persona_folder(tmp_path))))
    assert found.train[0].answer == "yes"
    (tmp_path / "persona.yaml").write_text("name: [")
    with pytest.raises(BadInput, match="not valid YAML"):
        persona.load(PersonaConfig(spec=str(tmp_path)))
    (tmp_path / "persona.yaml").write_text("name: Ann")
    with pytest.raises(BadInput, match="system_prompt"):
        persona.load(PersonaConfig(spec=str(tmp_path)))
    with pytest.raises(BadInput, match="No persona nobody"):
        persona.load(PersonaConfig(spec="nobody"))
