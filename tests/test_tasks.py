"""Tasks: where examples come from, that none leaks, and what counts as right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moltlm.data import tasks
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import write_jsonl
from moltlm.evals import tasks as task_eval


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
        tasks.generate("shell", "test", 10_000, 0)


def own(folder: Path, **settings: Any) -> TaskConfig:
    rows = [{"q": f"question {i}", "tags": ["a", f"b{i}"], "a": f"answer {i}"} for i in range(30)]
    write_jsonl(folder / "train.jsonl", rows[:20])
    write_jsonl(folder / "test.jsonl", rows[18:])
    given = {"path": str(folder), "prompt": "Say: {q} ({tags})", "answer": "{a}", "train": 12, "test": 10, **settings}
    return TaskConfig.model_validate({"kind": "jsonl", **given})


def test_own_examples_fill_the_templates_and_none_is_on_both_sides(tmp_path: Path) -> None:
    task = own(tmp_path)
    train, test = tasks.examples(task, "train", 0), tasks.examples(task, "test", 0)
    assert (len(train), len(test)) == (12, 10)  # of twelve in the file two are trained on
    asked = {item.prompt[0]["content"] for item in train}
    assert "Say: question 3 (a, b3)" in {
        item.prompt[0]["content"] for item in tasks.examples(own(tmp_path, train=20), "train", 0)
    }
    assert not asked & {item.prompt[0]["content"] for item in test}
    assert train == tasks.examples(task, "train", 0) != tasks.examples(task, "train", 1)
    assert tasks.examples(own(tmp_path, seed=1), "train", 0) == tasks.examples(task, "train", 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "{question}"}, "no column question.*train.jsonl|train.jsonl, line 1: no column question"),
        ({"test": 11}, "has 10 different test examples, not 11"),
        ({"path": "nowhere"}, "does not exist"),
    ],
)
def test_what_is_wrong_with_own_examples_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task = own(tmp_path, **settings)
        tasks.examples(task, "train", 0)
        tasks.examples(task, "test", 0)


def test_files_need_a_path_and_generators_none(tmp_path: Path) -> None:
    for values in ({"kind": "jsonl"}, {"kind": "shell", "path": "x"}):
        with pytest.raises(ValidationError, match="go together"):
            TaskConfig.model_validate(values)


def test_json_metric() -> None:
    right = '{"what": "call Ana", "day": "friday", "time": "09:30"}'
    wrong = json.dumps({"what": "call Ana", "day": "friday", "time": "09:31"})
    given = [right, right.replace(" ", "").replace("callAna", "call Ana"), f"{right} there", wrong, "not json"]
    assert task_eval.score(TaskConfig(kind="reminders"), given, [right] * 5) == [1, 1, 0, 0, 0]


def test_command_metric() -> None:
    given = ["ls -l docs", "`ls -l  docs`", "```bash\nls -l docs\n```", "ls docs", ""]
    assert task_eval.score(TaskConfig(kind="shell"), given, ["ls -l docs"] * 5) == [1, 1, 1, 0, 0]


def test_text_metric_and_the_choice_of_one(tmp_path: Path) -> None:
    task = own(tmp_path)
    assert task_eval.score(task, ["Card  Lost", "card", ""], ["card lost"] * 3) == [1, 0, 0]
    assert task_eval.score(own(tmp_path, metric="json"), ['{"a":1}', "a"], ['{"a": 1}'] * 2) == [1, 0]


def test_a_command_template_ignores_arguments_only() -> None:
    task = TaskConfig(kind="shell", metric="template")
    right = "find . -name '*.txt' | xargs grep -l \"a b\" > out"
    given = [
        "find /tmp -name \"*.md\" | xargs grep -l 'c' > in",
        "find . -iname '*.txt' | xargs grep -l 'a' > out",
        "find . -name '*.txt' | grep -l 'a' > out",
        "find . -name '*.txt'",
        "",
    ]
    assert task_eval.score(task, given, [right] * 5) == [1, 0, 0, 0, 0]


WORDS = st.text("ab ,.A", max_size=12)


@given(WORDS, WORDS)
def test_token_f1_is_a_similarity(one: str, other: str) -> None:
    value = task_eval.token_f1(one, other)
    assert value == task_eval.token_f1(other, one)
    assert 0 <= value <= 1
    assert task_eval.token_f1(one, one) == 1


def test_token_f1_by_hand() -> None:
    assert task_eval.token_f1("ls docs", "wc notes") == 0
    assert task_eval.token_f1("", "ls") == 0
    assert task_eval.token_f1("The Cat, the dog!", "the cat") == pytest.approx(2 * 2 / (4 + 2))
    assert task_eval.token_f1("grep a x", "grep x") == pytest.approx(2 * 2 / (3 + 2))


def test_no_more_can_be_answered_than_there_are(tmp_path: Path) -> None:
    assert own(tmp_path).answered == 10
    assert own(tmp_path, test_generated=3).answered == 3
    with pytest.raises(ValidationError, match="test_generated=11 is more than test=10"):
        own(tmp_path, test_generated=11)


def test_texts_are_cut_into_passages_that_begin_differently(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(100)]
    write_jsonl(tmp_path / "train.jsonl", [{"t": " ".join(words[:70])}, {"t": " ".join(words[:70])}, {"t": "short"}])
    write_jsonl(tmp_path / "test.jsonl", [{"t": " ".join(words[50:])}, {"t": " ".join(words[:70])}])
    task = TaskConfig(kind="text", path=str(tmp_path), answer="{t}", passage_words=32, train=8, test=8)
    task = task.model_copy(update={"train": 2, "test": 1})
    found = tasks.examples(task, "train", 0)
    whole = {item.prompt[0]["content"] + item.answer for item in found}
    assert whole == {" ".join(words[:32]), " ".join(words[32:64])}  # six words are left over, and once is enough
    assert [item.prompt[0]["role"] for item in found] == ["text", "text"]
    test = tasks.examples(task, "test", 0)
    assert test[0].prompt[0]["content"].split()[0] in ("w50", "w82")
    with pytest.raises(BadInput, match="different test examples"):
        tasks.examples(task.model_copy(update={"test": 3}), "test", 0)
