"""How a task is taught on a tiny real model: from files, as a stream, with memory, and further from its own answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moltlm.adapters.protections import strength
from moltlm.data import coherence
from moltlm.data import replay as buffers
from moltlm.data import state as states
from moltlm.data.errors import MoltError
from moltlm.data.io import read_json, read_jsonl, write_jsonl
from moltlm.data.persona import user
from moltlm.data.state import PERSONALITY, Adapter
from moltlm.evals.records import LikelihoodRecord, TaskRecord
from moltlm.pipeline import layout
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import measures, replay, serving, tasks, teaching

Made = Callable[..., Run]
LEARNED = ["personality", "own"]


@pytest.fixture
def made(tiny_project: Path, tmp_path: Path) -> Iterator[Made]:
    """A run with one task, `own`, of which every answer is `ls`, beside what the project's config says."""
    rows = [{"q": f"list files {i}", "a": "ls"} for i in range(60)]
    write_jsonl(tmp_path / "train.jsonl", rows[:40])
    write_jsonl(tmp_path / "test.jsonl", rows[40:])
    task = {
        "kind": "jsonl", "path": str(tmp_path), "prompt": "{q}", "answer": "{a}", "train": 40, "test": 10, "steps": 30,
        "batch_size": 4, "learning_rate": 1e-3, "replay_ratio": 0.0, "max_new_tokens": 4,
    }  # fmt: skip
    runs: list[Run] = []

    def make(**changes: Any) -> Run:
        given = {"own": {**task, **changes.pop("own", {})}, **changes.pop("others", {})}
        overrides = [f"{key}={value}" for key, value in changes.items()]
        config = load(str(tiny_project / "project.yaml"), [f"tasks={json.dumps(given)}", "sequence={}", *overrides])
        runs.append(Run(config, Console()))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def test_own_answers_that_are_right_are_learned_in_rounds(made: Made) -> None:
    run = made(own={"on_policy": "regenerate", "on_policy_steps": 6, "on_policy_rounds": 2})
    first, then = tasks.task(run, Adapter("own")), tasks.practice(run, Adapter("own"))
    assert first.facts["prompts"] >= 0 and first.facts["risk"] in ("low", "medium", "high")
    assert len(then.facts["right"]) == 2 and min(then.facts["right"]) >= 4
    assert tasks.trained(run, Adapter("own")).fingerprint == then.fingerprint != first.fingerprint
    assert measures.task_score(run, "own", states.of("personality", "own")).facts["exact_match"] > 0.5
    assert (then.folder / "round-0" / "adapter_model.safetensors").is_file()


def test_training_on_a_task_makes_its_right_answers_likelier(made: Made) -> None:
    run = made(own={"test_generated": 4})
    before, after = (measures.task_score(run, "own", states.of(*names)) for names in (["personality"], LEARNED))
    assert after.facts["likelihood"] > before.facts["likelihood"] + 1
    assert after.facts["likelihood"] <= 0 and after.facts["f1"] >= after.facts["exact_match"]
    answered = measures.load(after, TaskRecord)
    others = measures.load(after, LikelihoodRecord, measures.SCORED)
    assert [row.item for row in answered] == [0, 1, 2, 3] and [row.item for row in others] == [4, 5, 6, 7, 8, 9]
    values = [row.likelihood for row in [*answered, *others] if row.likelihood is not None]
    assert after.facts["likelihood"] == pytest.approx(sum(values) / 10)


def test_how_many_examples_are_answered_does_not_change_their_likelihood(made: Made) -> None:
    values = []
    for count in (1, 8):
        run = made(own={"test_generated": count, "test": 8})
        values.append(measures.task_score(run, "own", PERSONALITY).facts["likelihood"])
        run.close()
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_too_few_right_answers_to_learn_from_are_an_error(made: Made) -> None:
    run = made(own={"on_policy": "regenerate", "steps": 2, "learning_rate": 1e-5})
    with pytest.raises(MoltError, match="too few to learn from"):
        tasks.practice(run, Adapter("own"))


def test_a_stream_is_trained_on_once_and_in_order(made: Made) -> None:
    found = tasks.task(made(own={"arrival": "stream", "steps": 10}), Adapter("own"))
    assert found.facts["examples"] == 40 and found.facts["replayed"] == 0


def test_the_least_strength_that_will_do_is_kept(made: Made) -> None:
    first = made()
    whole = tasks.task(first, Adapter("own"))
    first.close()
    run = made(**{"protect.scales": "[0.0, 0.6]"})
    found = tasks.task(run, Adapter("own"))
    assert whole.facts["strength"] == 1 and found.facts["strength"] in (0.6, 1.0)
    assert found.facts["strength"] == read_json(found.folder / "moltlm.json")["training"].get("strength", 1.0)
    assert measures.task_score(run, "own", states.of("personality", "own")).facts["exact_match"] > 0.5
    assert {item["step"] for item in read_jsonl(found.folder / "metrics.jsonl")} == set(range(1, 31))


def test_a_weakened_adapter_is_as_if_it_were_served_so(made: Made) -> None:
    run = made()
    plain = tasks.task(run, Adapter("own")).folder
    model = serving.serve(run, states.of("personality", "own"))
    model.load("weak", plain)
    strength.weaken(model.model, "weak", 0.25)
    model.scale("own", 0.25)
    prompts, answers = [user("list files 3")], ["ls"]
    found = []
    for name in ("own", "weak"):
        with model.state(states.of("personality", name)):
            found.append(model.score(prompts, answers, 1)[0].logprob)
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    run.release()


def test_plain_texts_are_pretrained_on_beside_conversations(made: Made, tmp_path: Path) -> None:
    words = [
        "tea",
        "rain",
        "drawer",
        "window",
        "clock",
        "list",
        "files",
        "today",
        "what",
        "should",
        "i",
        "do",
        "hello",
        "please",
        "remind",
        "me",
    ]
    for split, n in (("train", 24), ("test", 8)):
        texts = [" ".join(random.Random(f"{split} {i}").choices(words, k=40)) for i in range(n)]
        (tmp_path / f"{split}.txt").write_text("\n\n".join(texts))
    text = {
        "kind": "text",
        "train": 20,
        "test": 8,
        "steps": 20,
        "passage_words": 20,
        "prompt": "{prompt}",
        "answer": "{answer}",
    }
    run = made(own={**text, "replay_ratio": 0.25})
    done = tasks.task(run, Adapter("own"))
    assert done.facts["replayed"] == 20
    before, after = (
        measures.task_score(run, "own", state).facts["exact_match"]
        for state in (PERSONALITY, states.of("personality", "own"))
    )
    assert 0 < before < after < 1
    with pytest.raises(MoltError, match="no right answers"):
        made(own={**text, "on_policy": "regenerate"})


def test_a_share_of_what_is_replayed_is_neutral_or_instructions(made: Made, tmp_path: Path) -> None:
    own = {"replay_ratio": 0.5, "steps": 4}
    rows = [{"prompt": f"What is number {i}?", "response": f"A number, {i}."} for i in range(6)]
    write_jsonl(tmp_path / "instructions.jsonl", rows)
    run = made(own=own, **{"replay.neutral_share": 0.25, "replay.instructions": str(tmp_path / "instructions.jsonl")})
    lesson = tasks.lesson_of(run, Adapter("own"), None)
    assert len(lesson.instructions) == 6
    given = (lesson.examples, lesson.buffer.exchanges if lesson.buffer else [], lesson.instructions)
    for share, counts in ((0.0, [8, 8, 0]), (0.25, [8, 6, 2]), (1.0, [8, 0, 8])):
        found = teaching.mixture(lesson, share)
        assert [sum(item in rows for item in found) for rows in given] == counts
    plain = teaching.mixture(replace(lesson, instructions=[]), 1.0)
    assert sum(item in lesson.neutral for item in plain) == 8
    before = tasks.task(run, Adapter("own"))
    run.close()
    assert tasks.task(made(own=own), Adapter("own")).fingerprint != before.fingerprint


def test_the_buffer_can_hold_what_the_personality_says_itself(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(**{"replay.answers": "own", "replay.distribution": "none"})
    monkeypatch.setattr(coherence, "check", lambda *_: SimpleNamespace(coherent=True))  # a tiny model has no language
    kept = buffers.load(replay.buffer(run).folder).exchanges
    model = serving.serve(run, PERSONALITY)
    with model.state(PERSONALITY):
        said = model.generate([item.prompt for item in kept], run.config.pairs.max_new_tokens, 8)
    assert [item.answer for item in kept] == said


def test_earlier_tasks_are_replayed_from_memory(made: Made) -> None:
    second = {"kind": "shell", "train": 24, "test": 8, "steps": 4, "batch_size": 4, "replay_ratio": 0.5}
    run = made(**{"protect.layout": "shared", "protect.task_memory": 6}, others={"shell": second}, own={"steps": 4})
    found = tasks.task(run, Adapter("shell"))
    assert found.facts["replayed"] == 8
    assert layout.continued_from(run, Adapter("shell")) == Adapter("own")
    assert layout.state_after(run, ["own", "shell"]) == states.of("personality", "shell")
