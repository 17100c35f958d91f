"""Rows and fingerprints: a round trip is the identity, and a new field with a default changes neither."""

from __future__ import annotations

import json
import tarfile
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from moltlm.data import persona, spec
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import write_jsonl
from moltlm.data.persona import Attack, Persona
from moltlm.data.replay import Candidate
from moltlm.data.rows import Row, fingerprint_rows, read_rows, write_rows
from moltlm.data.types import Exchange, Pair

TEXTS = st.text(max_size=20)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}), max_size=3
)
EXCHANGES = st.builds(Exchange, MESSAGES, TEXTS, TEXTS, TEXTS, TEXTS)
PAIRS = st.builds(Pair, TEXTS, MESSAGES, TEXTS, TEXTS, TEXTS, TEXTS)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
CANDIDATES = st.builds(Candidate, EXCHANGES, NUMBERS, st.integers(0, 99), st.integers(0, 99), NUMBERS)
ATTACKS = st.builds(Attack, TEXTS, TEXTS, MESSAGES, TEXTS, TEXTS)
CLAUDIO = persona.load(PersonaConfig())


@dataclass(frozen=True)
class LongerExchange(Exchange):
    language: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LongerPair(Pair):
    weight: float = 1.0


@dataclass(frozen=True)
class LongerCandidate(Candidate):
    uses: int = 0


@dataclass(frozen=True)
class LongerAttack(Attack):
    severity: int = 1


@dataclass(frozen=True)
class LongerPersona(Persona):
    motto: str = ""


class LongerSpec(spec.Spec):
    motto: str = ""
    songs: list[str] = Field(default_factory=list)


LONGER: list[type[Row]] = [LongerExchange, LongerPair, LongerCandidate, LongerAttack]


def values(item: Any) -> dict[str, Any]:
    return {one.name: getattr(item, one.name) for one in fields(item)}


@given(st.lists(EXCHANGES | PAIRS | CANDIDATES | ATTACKS))
def test_a_round_trip_is_the_identity(items: list[Row]) -> None:
    for item in items:
        assert type(item).from_row(item.to_row()) == item


@given(st.one_of(*(st.lists(rows, min_size=1) for rows in (EXCHANGES, PAIRS, CANDIDATES, ATTACKS))))
def test_files_give_the_rows_back(items: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.jsonl", items)
        assert read_rows(Path(folder) / "rows.jsonl", type(items[0])) == items


@given(st.lists(EXCHANGES | PAIRS | CANDIDATES | ATTACKS))
def test_a_new_field_with_a_default_changes_neither_rows_nor_fingerprints(items: list[Row]) -> None:
    kinds = {kind.__base__: kind for kind in LONGER}
    longer = [kinds[type(item)](**values(item)) for item in items]
    assert [item.to_row() for item in longer] == [item.to_row() for item in items]
    assert fingerprint_rows(longer) == fingerprint_rows(items)
    assert [type(item).from_row(item.to_row()) for item in longer] == longer


def test_a_new_field_counts_where_it_differs_from_its_default() -> None:
    item = LongerExchange([], "Tea.", language="en")
    assert item.to_row() == {"prompt": [], "answer": "Tea.", "language": "en"}
    assert fingerprint_rows([item]) != fingerprint_rows([replace(item, language="")])


@pytest.mark.parametrize(
    ("kind", "row", "problem"),
    [
        (Exchange, {"prompt": [], "answer": "Tea.", "mood": "dry"}, "unknown key mood"),
        (Exchange, {"prompt": []}, "answer is missing"),
        (Pair, {"id": "a", "prompt": [], "chosen": "Tea."}, "rejected is missing"),
        (Candidate, {"exchange": {"prompt": [], "text": ""}, "importance": 1, "tokens": 2}, "unknown key text"),
        (Candidate, {"exchange": "Tea.", "importance": 1, "tokens": 2}, "not an object"),
    ],
)
def test_an_unknown_or_missing_key_names_file_and_record(
    tmp_path: Path, kind: type[Row], row: dict[str, Any], problem: str
) -> None:
    good = {Exchange: Exchange([], ""), Pair: Pair("a", [], "", ""), Candidate: Candidate(Exchange([], ""), 1.0, 2)}
    write_jsonl(tmp_path / "rows.jsonl", [good[kind].to_row(), row])
    with pytest.raises(BadInput, match=f"rows.jsonl, record 2: .*{problem}"):
        read_rows(tmp_path / "rows.jsonl", kind)


def test_the_fingerprint_of_a_persona_depends_on_all_content_and_on_new_fields_only_where_they_are_set() -> None:
    before = CLAUDIO.fingerprint
    item, attack = CLAUDIO.train[0], CLAUDIO.attacks[0]
    same = {
        "folder": Path("elsewhere"),
        "spec": LongerSpec.model_validate(CLAUDIO.spec.model_dump()),
        "train": [LongerExchange(**values(one)) for one in CLAUDIO.train],
        "attacks": [LongerAttack(**values(one)) for one in CLAUDIO.attacks],
    }
    for name, value in same.items():
        assert replace(CLAUDIO, **{name: value}).fingerprint == before
    assert LongerPersona(**values(CLAUDIO)).fingerprint == before
    changed = {
        "spec": CLAUDIO.spec.model_copy(update={"summary": "Another."}),
        "train": [replace(item, topic="another"), *CLAUDIO.train[1:]],
        "heldout": CLAUDIO.heldout[1:],
        "heldout_dialogues": CLAUDIO.heldout_dialogues[1:],
        "attacks": [replace(attack, prefill="Another"), *CLAUDIO.attacks[1:]],
        "other_characters": CLAUDIO.other_characters[1:],
        "neutral_train": CLAUDIO.neutral_train[1:],
        "neutral_eval": CLAUDIO.neutral_eval[1:],
    }
    assert changed.keys() | {"folder"} == values(CLAUDIO).keys()
    changed_ones = [replace(CLAUDIO, **{name: value}) for name, value in changed.items()]
    changed_ones += [
        replace(CLAUDIO, spec=LongerSpec(**CLAUDIO.spec.model_dump(), motto="Molt.")),
        replace(CLAUDIO, train=[LongerExchange(**values(item), language="en"), *CLAUDIO.train[1:]]),
        LongerPersona(**values(CLAUDIO), motto="Molt."),
    ]
    assert len({before, *(one.fingerprint for one in changed_ones)}) == len(changed_ones) + 1


def test_the_committed_evidence_has_the_fingerprint_of_its_persona() -> None:
    (archive,) = (Path(__file__).resolve().parent.parent / "docs" / "results" / "evidence").glob("pairs-*.tar.xz")
    with tarfile.open(archive) as files:
        inputs = json.load(files.extractfile("inputs.json"))  # type: ignore[arg-type]
    assert persona.load(PersonaConfig(heldout_limit=80)).fingerprint == inputs["persona"]
