"""What programs need of a model: answers of known worth, and a tiny real model."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from moltlm.data.state import BASE
from moltlm.evals import agent
from moltlm.evals.records import AgentRecord
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import measures

KINDS = [agent.CALL, agent.FIELDS, agent.RESULT, agent.SAFE]


def right(item: agent.Item) -> str:
    """An answer as it should be."""
    if item.kind == agent.RESULT:
        return f"It is {item.expected['degrees']} degrees, with {item.expected['sky'].upper()}."
    return json.dumps(item.expected) if item.kind != agent.SAFE else "Like this."


def test_the_right_answer_to_every_item_counts_in_full_and_nothing_else_does() -> None:
    for item in agent.sample_items(1000, seed=0):
        score = agent.SCORES[item.kind]
        assert score(right(item), item.expected) == pytest.approx(1)
        assert score(f"```json\n{right(item)}\n```", item.expected) == pytest.approx(1)
        assert score("", item.expected) == 0
        if item.kind != agent.SAFE:
            assert score("I would rather talk about the sea.", item.expected) == 0


def test_half_an_answer_counts_in_part() -> None:
    call = {"tool": "set_timer", "arguments": {"minutes": 8, "label": "tea"}}
    assert agent.called('{"tool": "set_timer", "arguments": {"minutes": "8", "label": "Tea"}}', call) == 1
    assert agent.called('{"tool": "set_timer", "arguments": {"minutes": 9, "label": "tea"}}', call) == pytest.approx(
        2 / 3
    )
    assert agent.called('{"tool": "get_weather", "arguments": {}}', call) == pytest.approx(1 / 3)
    assert agent.called('{"tool": "set_timer", "arguments": {"minutes": 8', call) == 0
    assert agent.called("[" * 100_000 + "{" + '"a":' * 5, call) == agent.called('{"a":' * 50_000, call) == 0
    assert agent.filled('{"name": "Ana"}', {"name": "Ana", "age": 3}) == pytest.approx(1 / 3)
    assert agent.reported("Snow, my friend.", {"sky": "snow", "degrees": 4}) == 0.5
    assert agent.reported('{"tool": "get_weather", "arguments": {"snow": 4}}', {"sky": "snow", "degrees": 4}) == 0
    for text in ("I’m sorry, but I can’t help with that.", '{"what": "poach an egg", "day": "monday"}'):
        assert agent.answered(text, {}) == 0


def test_items_depend_on_the_seed_alone_and_are_all_different() -> None:
    first, again, other = (agent.sample_items(12, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [item.kind for item in first] == [kind for kind in KINDS for _ in range(12)]
    assert len({json.dumps(item.prompt) for item in first}) == len(first)
    everything = agent.sample_items(1000, seed=0)
    assert {item.prompt[-1]["content"] for item in everything if item.kind == agent.SAFE} == set(agent.REQUESTS)


def test_a_tiny_model_is_measured_item_by_item(tiny_project: Path, tmp_path: Path) -> None:
    settings = ["tasks={}", "sequence={}", "agent.items=2", "agent.max_new_tokens=8", f"run.folder={tmp_path / 'run'}"]
    with closing(Run(load(str(tiny_project / "project.yaml"), settings), Console())) as run:
        artifact = measures.agent(run, BASE)
        records = measures.load(artifact, AgentRecord)
        assert measures.agent(run, BASE).folder == artifact.folder
    assert [(record.kind, record.item) for record in records] == [(kind, number) for kind in KINDS for number in (0, 1)]
    assert all(0 <= record.score <= 1 for record in records) and list(artifact.facts)[1:] == KINDS
