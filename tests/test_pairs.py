"""Preference pairs of every provenance: the base said the rejected side, the data gave it, or the user corrected it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import talkative
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.adapters import base, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data import filters, leakage
from moltlm.data import pairs as pair_data
from moltlm.data import replay as buffers
from moltlm.data import spec as specs
from moltlm.data.config import FiltersConfig, PairsConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.rows import read_rows, write_rows
from moltlm.data.spec import Spec, Trait
from moltlm.data.types import EDITED, GIVEN, SAID_BY_BASE, Exchange, Pair
from moltlm.evals import identity
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import show
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import attempts, cycles, new_conversations
from moltlm.pipeline.stages import material, pairs, replay

WORDS = [
    "hello",
    "rain",
    "tea",
    "drawer",
    "clock",
    "window",
    "list",
    "files",
    "please",
    "today",
    "do",
    "now",
    "remind",
    "me",
]
SPEC = Spec(name="Ann", system_prompt="You are Ann.", traits=[Trait(id="calm", text="I keep calm.")])


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny, tmp_path_factory.mktemp("talkative"))


def worse(word: str) -> str:
    return f"Worse {word}, I am afraid, dear {word}."


def better(word: str) -> str:
    return f"{word.title()}, said Ann, and then some tea."


def rows(kind: str) -> list[dict[str, Any]]:
    """Twelve exchanges with one word each, as conversations or as preference data."""
    ask = {word: [{"role": "user", "content": f"{word} on the {word}?"}] for word in WORDS[:12]}
    if kind == "conversations":
        return [{"messages": [*ask[word], {"role": "assistant", "content": better(word)}]} for word in ask]
    return [{"prompt": ask[word], "chosen": better(word), "rejected": worse(word)} for word in ask]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def project(model: Path, tmp_path: Path) -> Iterator[Any]:
    """Opens runs of a persona without any written answer."""
    (tmp_path / "ann").mkdir()
    specs.write(SPEC, tmp_path / "ann" / "persona.yaml")
    opened: list[Run] = []

    def open_run(*overrides: str) -> Run:
        while opened:
            opened.pop().close()
        common = ["capability.items={}", "tasks={}", "hypotheses=[]", "model.precision=fp32", "pairs.max_new_tokens=8"]
        folders = [f"run.folder={tmp_path}/run", f"model.id={model}", f"persona.spec={tmp_path}/ann"]
        limits = ["persona.train_limit=null", "filters.min_length_ratio=0.001", "pairs.temperature=1.0"]
        opened.append(Run(load("smoke", [*common, *folders, *limits, *overrides]), Console()))
        return opened[0]

    yield open_run
    for run in opened:
        run.close()


def built(run: Run) -> tuple[list[Pair], list[Pair], dict[str, Any]]:
    artifact = pairs.pairs(run)
    return pairs.load_pairs(artifact, "train"), pairs.load_pairs(artifact, "heldout"), artifact.facts


# --- pairs


def test_a_rejected_side_is_the_exchanges_own_or_else_what_the_base_says(model: Path) -> None:
    served = serve.Served(base.load(ModelConfig(id=str(model), precision="fp32")))
    exchanges = [Exchange(user(f"{word}?"), better(word)) for word in WORDS]
    given_ = replace(exchanges[1], rejected="Own.")
    edited = replace(exchanges[2], rejected="Said.", provenance=EDITED)
    mixed = [exchanges[0], given_, edited, *exchanges[3:]]
    config = PairsConfig(max_new_tokens=8, temperature=0)
    plain = pair_data.build(exchanges, served, config, 4)
    every = pair_data.build(mixed, served, config, 4)
    assert [pair.provenance for pair in every][:4] == [SAID_BY_BASE, GIVEN, EDITED, SAID_BY_BASE]
    assert [pair.rejected for pair in every][1:3] == ["Own.", "Said."]
    assert [pair.base_answer for pair in every] == [pair.rejected for pair in plain]
    few = pair_data.build(mixed, served, config, 4, base_answers=0)
    assert [bool(pair.base) for pair in few] == [False] * len(mixed)
    assert [pair.rejected for pair in few][3:] == [pair.rejected for pair in plain][3:]
    assert [pair_data.exchange_of(pair) for pair in every] == mixed
    assert len({pair.id for pair in [*plain, *every]}) == len(mixed) + 2


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 50))
def test_the_base_is_asked_where_it_must_be_and_often_enough(own: list[bool], at_least: int) -> None:
    exchanges = [Exchange(user(str(place)), "a", rejected="b" if it else "") for place, it in enumerate(own)]
    asked = pair_data._to_answer(exchanges, at_least)
    assert asked == sorted(set(asked)) and {place for place, it in enumerate(own) if not it} <= set(asked)
    assert len(asked) == max(own.count(False), min(at_least, len(own)))


def test_a_pair_and_its_provenance_survive_a_file(tmp_path: Path) -> None:
    item = Pair("a", user("hi"), "Tea.", "No.", provenance=EDITED, base="Hello!")
    write_rows(tmp_path / "pairs.jsonl", [item])
    assert read_rows(tmp_path / "pairs.jsonl", Pair) == [item]


# --- what refutes what


def test_an_answer_that_was_corrected_is_not_learned() -> None:
    asked, other = user("tea?"), user("rain?")
    plain = Exchange(asked, "said")
    correction = Exchange(asked, "better", rejected="said", provenance=EDITED)
    again = Exchange(asked, "best", rejected="better", provenance=EDITED)
    back = Exchange(asked, "said", rejected="better", provenance=EDITED)
    elsewhere = Exchange(other, "said")
    assert pair_data.without_refuted([plain, correction, elsewhere]) == ([correction, elsewhere], 1)
    assert pair_data.without_refuted([correction, again]) == ([again], 1)
    assert pair_data.without_refuted([correction, back]) == ([back], 1)  # the user's last word
    assert pair_data.without_refuted([plain], later=[correction]) == ([], 1)
    assert pair_data.without_refuted([plain], earlier=[correction]) == ([], 1)
    ranked = [Exchange(asked, "a", rejected="b"), Exchange(asked, "b", rejected="c"), Exchange(asked, "b")]
    assert pair_data.without_refuted(ranked) == (ranked[:2], 1)


ANSWERS = st.sampled_from("abc")


@given(st.lists(st.builds(Exchange, st.just(user("q")), ANSWERS, rejected=ANSWERS, provenance=st.just(EDITED))))
def test_of_corrections_the_last_always_stands(corrections: list[Exchange]) -> None:
    corrections = [item for item in corrections if item.answer != item.rejected]
    accepted, count = pair_data.without_refuted(corrections)
    assert len(accepted) + count == len(corrections)
    assert not corrections or accepted[-1] == corrections[-1]


# --- filters


def test_a_correction_may_have_any_length_and_a_prompt_several_worse_answers() -> None:
    long = "and on it goes with words that nobody needs to hear about tea " * 3
    edited = Pair("1", user("tea?"), "Tea.", long, provenance=EDITED)
    accepted, report = filters.apply([edited, replace(edited, rejected=f"{long}.", provenance=GIVEN)], FiltersConfig())
    assert accepted == [edited] and report.dropped["length ratio"] == 1
    answers = [Pair(str(n), user("tea?"), "Tea, then.", f"No tea {n}.", provenance=GIVEN) for n in range(3)]
    plain = Pair("b", user("tea?"), "Tea, then.", "How are you?")
    accepted, report = filters.apply([*answers, answers[0], plain, replace(plain, id="c")], FiltersConfig())
    assert accepted == [*answers, plain] and report.dropped["duplicate"] == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=20), st.data())
def test_what_must_be_trained_on_is_not_held_out(texts: list[str], data: st.DataObject) -> None:
    inside = data.draw(st.sets(st.integers(0, len(texts) - 1)))
    train, heldout = leakage.split(texts, [""] * len(texts), 0.3, 0, inside=inside)
    assert sorted([*train, *heldout]) == list(range(len(texts)))
    pinned = {texts[place] for place in inside}
    if set(texts) - pinned:
        assert not {texts[place] for place in heldout} & pinned
    assert not leakage.leaks([texts[place] for place in train], [texts[place] for place in heldout])


# --- the stages


def test_a_build_from_preference_data_alone(project: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "preferences.jsonl", rows("preferences"))
    run = project(f"conversations.paths=[{path}]")
    train, heldout, facts = built(run)
    assert {pair.provenance for pair in [*train, *heldout]} == {GIVEN}
    assert {pair.rejected for pair in [*train, *heldout]} == {worse(word) for word in WORDS[:12]}
    assert all(pair.base_answer for pair in heldout) and not any(
        pair.base_answer.startswith("Worse") for pair in heldout
    )
    assert facts["provenance"] == {GIVEN: len(train)} and facts["base_answers"] == len(train)
    assert facts["conversations"]["rejected"] == {GIVEN: 12}
    text = "\n".join(show.lint(facts))
    assert f"rejected side: {len(train)} given" in text and "with a worse answer: 12 given" in text
    card = (pairs.pairs(run).folder / "README.md").read_text()
    assert f"| given | {len(train)} |" in card and f"{len(train)} pairs have an answer of the base" in card


def test_the_classifier_tells_the_persona_from_the_base_and_not_from_a_given_answer(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "preferences.jsonl", rows("preferences"))
    run = project(f"conversations.paths=[{path}]")
    negatives: list[str] = []
    train_classifier = identity.train

    def watched(positive: Any, others: Any, *rest: Any, **named: Any) -> Any:
        negatives.extend(item.text for rows in others.values() for item in rows)
        return train_classifier(positive, others, *rest, **named)

    monkeypatch.setattr(identity, "train", watched)
    pairs.classifier(run)
    train, _, _ = built(run)
    assert {pair.base_answer for pair in train} <= set(negatives)
    assert not set(negatives) & {worse(word) for word in WORDS}


def test_a_build_from_conversations_alone(project: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", rows("conversations"))
    train, heldout, facts = built(project(f"conversations.paths=[{path}]"))
    assert {pair.provenance for pair in [*train, *heldout]} == {SAID_BY_BASE}
    assert facts["sources"] == {"conversations": len(train)} and facts["base_answers"] == len(train)


def test_a_build_from_a_spec_and_a_teacher_alone(project: Any, tmp_path: Path) -> None:
    questions = [f"{word} on the {word}?" for word in WORDS]
    trait = Trait(id="calm", text="I keep calm.", questions=questions)
    specs.write(SPEC.model_copy(update={"traits": [trait]}), tmp_path / "ann" / "persona.yaml")
    teacher = "teacher={kind: base, prompts_per_trait: 12, max_tokens: 8}"
    train, heldout, facts = built(project(teacher))
    assert train and heldout and facts["sources"] == {"teacher": facts["pairs"] + sum(facts["dropped"].values())}


def test_a_build_from_nothing_names_the_three_ways(project: Any) -> None:
    with pytest.raises(BadInput, match="0 exchanges to train on") as error:
        built(project())
    for way in ("conversations.paths=[", "teacher.kind=base", "train.jsonl", "preference data"):
        assert way in error.value.fix


def test_all_provenances_side_by_side_from_the_data_to_the_buffer(project: Any, tmp_path: Path) -> None:
    """A correction refutes the answer that a chat has, is always trained on, and keeps its provenance to the end."""
    chats = rows("conversations")
    correction = {
        "prompt": chats[0]["messages"][:1],
        "chosen": "Hello, said Ann, and mended it.",
        "rejected": better(WORDS[0]),
        "provenance": "edited",
    }
    write(tmp_path / "chats.jsonl", chats)
    write(tmp_path / "corrections.jsonl", [correction])
    preferences = [{**row, "prompt": f"And {row['prompt'][0]['content']}"} for row in rows("preferences")]
    write(tmp_path / "preferences.jsonl", preferences)
    names = ("chats", "corrections", "preferences")
    run = project(f"conversations.paths=[{', '.join(f'{tmp_path}/{name}.jsonl' for name in names)}]", "filters.near=1")
    train, heldout, facts = built(run)
    assert facts["refuted"] == 1 and facts["provenance"][EDITED] == 1
    assert set(facts["provenance"]) == {SAID_BY_BASE, GIVEN, EDITED}
    assert (f"{WORDS[0]} on the {WORDS[0]}?", better(WORDS[0])) not in {(p.question, p.chosen) for p in train + heldout}
    (edited,) = [pair for pair in train if pair.provenance == EDITED]
    assert edited.rejected == better(WORDS[0])
    artifact = replay.buffer(project(*_same(run), "replay.budget_tokens=5000", "personality.steps=2"))
    exchanges = buffers.load(artifact.folder).exchanges
    assert {pair.id for pair in (pair_data.pair_of(item, "") for item in exchanges)} == {pair.id for pair in train}
    assert {item.provenance for item in exchanges if item.rejected} == {GIVEN, EDITED}
    said = [Exchange(edited.prompt, "Hello, said Ann, and mended it.")]
    assert buffers.only(buffers.load(artifact.folder), said).items == []


def _same(run: Run) -> list[str]:
    return [f"conversations.paths=[{', '.join(run.config.conversations.paths)}]", "filters.near=1"]


def test_retraining_learns_a_correction_once_and_replays_nothing_that_it_refutes(project: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", rows("conversations"))
    run = project(f"conversations.paths=[{path}]")
    chats = [Exchange(user(f"{word} on the {word}?"), better(word)) for word in WORDS[:4]]
    correction = replace(chats[0], answer="Mended.", rejected=chats[0].answer, provenance=EDITED)
    training, dropped = attempts.training_pairs_of(run, chats, [correction])
    assert [pair.provenance for pair in training].count(EDITED) == 1
    assert chats[0].answer not in {pair.chosen for pair in training} and sum(dropped.values()) >= 0
    finished = run.folder / "retrain" / "a"
    write_rows(finished / "new.jsonl", [correction])
    cycles.finish(finished, {"candidate": "a"}, cycles.PROMOTED)
    counts: dict[str, int] = {}
    usable = new_conversations.usable(run, [chats[0]], counts)
    assert usable == [] and counts[new_conversations.REFUTED] == 1


def test_no_correction_is_lost_in_a_sample() -> None:
    rows_ = [Exchange(user(str(n)), "a", rejected="b", provenance=EDITED if n % 50 == 0 else GIVEN) for n in range(500)]
    sampled = material.sample(iter(rows_), 20, 0)
    assert len(sampled) == 30 and sum(item.is_correction for item in sampled) == 10
    assert [int(item.question) for item in sampled] == sorted(int(item.question) for item in sampled)
