"""What goes in: personas, tasks, replay, conversations, and every way in which they can be wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import importers, pairs, persona, replay, tasks
from data.config import PairsConfig, PersonaConfig, ReplayConfig, TaskConfig
from data.errors import BadInput
from data.io import read_jsonl, write_json, write_jsonl
from data.types import Exchange, Pair

CLAUDIO = persona.load(PersonaConfig())


def test_claudio_is_whole() -> None:
    assert len(CLAUDIO.train) >= 120
    assert len(CLAUDIO.heldout) >= 40
    assert not {row.topic for row in CLAUDIO.train} & {row.topic for row in CLAUDIO.heldout}
    assert not {row.question.lower() for row in CLAUDIO.train} & {row.question.lower() for row in CLAUDIO.heldout}
    known = {trait.id for trait in CLAUDIO.spec.traits}
    assert {row.trait for row in [*CLAUDIO.train, *CLAUDIO.heldout] if row.trait} <= known
    for row in [*CLAUDIO.train, *CLAUDIO.heldout]:
        assert "!" not in row.answer
        assert row.topic == "dialogue" or 20 <= len(row.answer.split()) <= 60


def test_claudio_has_no_template_feel() -> None:
    """Openings and closings vary: no two-word opening and no closing sentence is used often."""
    answers = [row.answer for row in CLAUDIO.train]
    openings = Counter(" ".join(answer.split()[:2]).lower() for answer in answers)
    closings = Counter(answer.rstrip("?.").split(". ")[-1].lower() for answer in answers)
    assert openings.most_common(1)[0][1] <= 5
    assert closings.most_common(1)[0][1] <= 3


@pytest.mark.parametrize("kind", tasks.KINDS)
def test_task_splits_share_no_prompt_and_no_slot_value(kind: str) -> None:
    train, test = tasks.generate(kind, "train", 240, 0), tasks.generate(kind, "test", 60, 0)
    prompts = [item.prompt[0]["content"] for item in [*train, *test]]
    assert len(set(prompts)) == 300
    assert tasks.generate(kind, "train", 240, 0) == train
    if kind == "reminders":
        assert not {json.loads(i.answer)["what"] for i in train} & {json.loads(i.answer)["what"] for i in test}
        for item in train:
            assert set(json.loads(item.answer)) == {"what", "day", "time"}
    else:
        for group in (tasks.FILES, tasks.FOLDERS, tasks.WORDS, tasks.NUMBERS):
            assert not set(group["train"]) & set(group["test"])


def test_task_errors() -> None:
    with pytest.raises(BadInput, match="No task kind"):
        tasks.generate("poems", "train", 8, 0)
    with pytest.raises(BadInput, match="different test examples"):
        tasks.generate("shell", "test", 100_000, 0)


def exchange(i: int, topic: str = "t") -> Exchange:
    return Exchange(persona.user(f"question {i}"), f"answer {i}", topic)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), min_size=1, max_size=40), st.integers(50, 400))
def test_replay_keeps_to_its_budget_and_is_deterministic(rows: list[tuple[float, int]], budget: int) -> None:
    candidates = [replay.Candidate(exchange(i, f"t{i % 3}"), kl, n) for i, (kl, n) in enumerate(rows)]
    config = ReplayConfig(budget_tokens=budget)
    kept = replay.select(candidates, config, 1)
    assert sum(item.tokens for item in kept) <= budget
    assert kept == replay.select(candidates, config, 1)
    assert len({item.exchange.question for item in kept}) == len(kept)


def test_replay_prefers_what_matters() -> None:
    candidates = [replay.Candidate(exchange(i), float(i), 10) for i in range(20)]
    kept = replay.select(candidates, ReplayConfig(budget_tokens=50, per_topic=False), 0)
    assert {item.importance for item in kept} == {15.0, 16.0, 17.0, 18.0, 19.0}
    by_chance = replay.select(candidates, ReplayConfig(budget_tokens=50, per_topic=False, select="uniform"), 0)
    assert {item.importance for item in by_chance} != {15.0, 16.0, 17.0, 18.0, 19.0}


def test_replay_takes_turns_over_topics() -> None:
    candidates = [replay.Candidate(exchange(i, "loud" if i < 18 else "quiet"), 20.0 - i, 10) for i in range(20)]
    kept = replay.select(candidates, ReplayConfig(budget_tokens=50, per_topic=True), 0)
    assert Counter(item.exchange.topic for item in kept) == {"loud": 3, "quiet": 2}


def test_a_replay_budget_that_fits_nothing_says_so() -> None:
    with pytest.raises(BadInput, match="No exchange fits"):
        replay.select([replay.Candidate(exchange(0), 1.0, 500)], ReplayConfig(budget_tokens=50), 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.8))
def test_every_batch_of_a_mix_has_the_same_share_of_replay(steps: int, batch: int, ratio: float) -> None:
    taught = [Exchange(persona.user(str(i)), "x", source="task") for i in range(7)]
    settings = TaskConfig(kind="shell", batch_size=batch, replay_ratio=ratio)
    mix = replay.mix(taught, [exchange(i) for i in range(5)], steps, batch, settings.replayed, 0)
    size = batch + settings.replayed
    assert size * steps == len(mix)
    for start in range(0, len(mix), size):
        assert sum(bool(item.source) for item in mix[start : start + size]) == batch
    if ratio > 0.1:
        assert abs(sum(not item.source for item in mix) / len(mix) - ratio) < 0.5 / size + 0.5 / batch


def test_replay_asked_for_without_a_buffer() -> None:
    with pytest.raises(BadInput, match="buffer is empty"):
        replay.mix([exchange(0)], [], 2, 2, 1, 0)


def pair(chosen: str, rejected: str, prompt: str = "hello") -> Pair:
    return Pair(f"{prompt}{chosen}", persona.user(prompt), chosen, rejected)


def test_lint_counts_what_it_drops() -> None:
    rows = [
        pair("one two three", "four five six"),
        pair("one two three", "four five six"),
        pair("same words", "same words"),
        pair("some words", ""),
        pair("one", "a b c d e f g h i j k"),
    ]
    kept, report = pairs.lint(rows, PairsConfig())
    assert len(kept) == report.pairs == 1
    assert set(report.dropped.values()) == {1}
    assert report.chosen_words == 3


def test_lint_refuses_an_empty_result() -> None:
    with pytest.raises(BadInput, match="No pair can be trained on \\(1 chosen equals rejected\\)"):
        pairs.lint([pair("same words", "same words")], PairsConfig())


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


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


def test_conversations_lose_no_turn_silently(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "unasked"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": " "},
    ]
    path = write(tmp_path / "a.jsonl", {"messages": turns}, {"messages": turns})
    found = importers.conversations(path)
    assert [item.answer for item in found.exchanges] == ["hello"]
    assert len(found.exchanges) + sum(found.dropped.values()) == 6
    assert found.dropped == {"empty": 2, "no user turn before": 2, "duplicate": 1}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20)), min_size=1, max_size=8))
def test_conversations_account_for_every_assistant_turn(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    messages = [turn for a, b in rows for turn in ({"role": "user", "content": a}, {"role": "assistant", "content": b})]
    path = write(tmp_path_factory.mktemp("c") / "a.jsonl", {"messages": messages})
    found = importers.conversations(path)
    assert len(found.exchanges) + sum(found.dropped.values()) == len(rows)


BAD_LINES = [
    ("{not json", "line 1: not valid JSON"),
    ("[1, 2]", "expected an object"),
    ({"text": "x"}, "no `messages` list"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "needs a role"),
    ({"messages": [{"role": "user", "content": 3}]}, "needs a role"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_conversation_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        importers.conversations(write(tmp_path / "a.jsonl", line))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        importers.conversations(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="No conversations"):
        importers.conversations(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"messages": "\xe9"}')
    with pytest.raises(BadInput, match="not UTF-8"):
        importers.conversations(tmp_path / "latin.jsonl")


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
