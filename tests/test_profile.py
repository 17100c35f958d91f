"""What a model says of itself: worth of answers, both orders, files of one's own."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moltlm.adapters import base, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import load
from moltlm.data.state import BASE
from moltlm.evals import profile
from moltlm.evals.config import ProfileConfig
from moltlm.evals.records import ProfileRecord

TRAITS = load(PersonaConfig()).spec.traits
SHARED = Path(__file__).parents[2] / "shared" / "data"


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_both_orders_are_asked_and_own_is_worth_one() -> None:
    choices = profile.preferences(TRAITS)
    assert len(choices) == 2 * len(TRAITS) * len(profile.CONTRASTS)
    for choice in choices:
        own = next(trait.text for trait in TRAITS if choice.item.startswith(trait.id + "-"))
        letter = choice.answers[choice.worth.index(1.0)]
        assert f"({letter}) {own}\n" in choice.prompt[0]["content"] and sum(choice.worth) == 1
    assert set(Counter(choice.item for choice in choices).values()) == {2}


def test_big_five_turns_with_its_key_and_draws_evenly(tmp_path: Path) -> None:
    rows = [{"text": "Trust others", "trait": trait, "key": key} for trait in "OCEAN" for key in (1, -1, 1)]
    path = written(tmp_path, "mpi.jsonl", rows)
    choices = profile.big_five(path, 10, 0)
    assert Counter(choice.scale for choice in choices) == {f"Big Five: {name}": 4 for name in profile.BIG_FIVE.values()}
    for choice in profile.big_five(path, 0, 0):
        key = rows[int(choice.item.split("-")[1])]["key"]
        for answer, worth in zip(choice.answers, choice.worth, strict=True):
            very = f"({answer}). Very Accurate" in choice.prompt[0]["content"]
            assert not very or worth == (key == 1)


def test_values_are_what_the_likelihoods_say(tiny: Path, tmp_path: Path) -> None:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    rows = [{"question": "Rain?", "behavior": "wet", "answer_matching": match} for match in ("Yes", "No")]
    choices = profile.yes_or_no(written(tmp_path, "t.jsonl", rows), 0, 0)
    asked = profile.read_requests(written(tmp_path, "x.jsonl", [{"prompt": "Tea?", "label": "safe"}]), 0, 0)
    first, second, refused = profile.evaluate(served, BASE, choices, asked, 4, 2)
    yes, no = (math.exp(s.logprob) for s in served.score([choices[0].prompt] * 2, ["Yes", "No"], 1))
    assert first.value == pytest.approx(yes / (yes + no), rel=1e-4)
    assert first.value + second.value == pytest.approx(1, rel=1e-4)
    assert (refused.scale, refused.value) == ("refused, safe", 0.0)
    same = profile.summarise([first, second, refused], [first, second, refused])
    assert {row.difference for row in same.values()} == {0.0} and same["yes or no: wet"].n == 2


def test_a_trait_counts_once_however_many_others_it_met() -> None:
    def rows(value: float) -> list[ProfileRecord]:
        scale = "own traits preferred"
        return [ProfileRecord(scale=scale, item=f"{t}-{n}", value=value + n / 100) for t in "ab" for n in range(6)]

    assert profile.summarise(rows(0.5), rows(0.7))["own traits preferred"].n == 2


def test_a_scale_that_is_answered_by_the_order_of_the_options_is_left_out() -> None:
    """Always the first: a half on average, and the order is all. By what they say: the order is nothing."""

    def rows(value: float, order: float) -> list[ProfileRecord]:
        return [ProfileRecord(scale="s", item=str(n), value=value, order=order) for n in range(6)]

    first, content, mostly = rows(0.49, 0.9), rows(0.8, 0.0), rows(0.7, 0.3)
    assert [profile.by_content(each) for each in (first, content, mostly)] == [False, True, True]
    assert profile.summarise(first, content) == profile.summarise(content, first) == {}
    assert profile.summarise(content, mostly)["s"].difference == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("setting", "row", "what"),
    [
        ("big_five", {"text": "x", "trait": "X", "key": 1}, "trait must be one of O, C, E, A, N"),
        ("traits", {"question": " ", "behavior": "b", "answer_matching": "Yes"}, "question must be a text"),
        ("refusals", {"prompt": "x", "label": "maybe"}, "label must be one of safe, unsafe"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, setting: str, row: dict[str, Any], what: str) -> None:
    config = ProfileConfig(**{setting: written(tmp_path, "bad.jsonl", [row])})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=f"record 1: {what}"):
        profile.material(config, TRAITS, 0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not beside this checkout")
def test_public_files_are_read() -> None:
    names = {"big_five": "mpi_bigfive/mpi_120", "traits": "anthropic_persona_traits/test", "refusals": "xstest/test"}
    files = {key: SHARED / f"{name}.jsonl" for key, name in names.items()}
    choices, asked = profile.material(ProfileConfig(**files, items=40), TRAITS, 0)  # type: ignore[arg-type]
    scales = Counter(choice.scale for choice in choices)
    assert (scales["Big Five: openness"], scales["yes or no: openness"], len(scales)) == (16, 5, 14)
    assert sum(item.safe for item in asked) == 20
