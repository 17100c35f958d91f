"""How much new knowledge fits: facts and bits by hand, and a run on a tiny real model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moltlm.data import facts
from moltlm.data.io import to_json
from moltlm.evals import knowledge as judge
from moltlm.pipeline import config
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import collect, story
from moltlm.pipeline.run import Run
from moltlm.pipeline.studies import archive as records
from moltlm.pipeline.studies import knowledge
from moltlm.pipeline.typed_json import read_document, to_plain


def test_every_fact_is_taught_as_often_and_asked_for_in_other_words() -> None:
    drawn = facts.sample(12, seed=3)
    assert len({fact.name for fact in drawn}) == 12 and drawn == facts.sample(12, seed=3) != facts.sample(12, seed=4)
    rows = facts.training_exchanges(drawn, 8, seed=0)
    said = Counter((row.prompt[-1]["content"], row.answer) for row in rows)
    assert len(rows) == 96 and len(said) == 48 and set(said.values()) == {2}
    prompts, answers = facts.test_questions(drawn)
    assert len(prompts) == len(answers) == 24
    assert not {prompt[-1]["content"] for prompt in prompts} & {question for question, _ in said}
    assert len({fact.name for fact in facts.sample(1024, seed=0)}) == 1024


def test_bits_are_renormalised_over_the_answers_and_never_exceed_them() -> None:
    """By hand: chance is worth nothing, certainty six bits, half of it five; the form of the answer counts for nothing,
    and confidence in a wrong answer is worth less than nothing."""
    chance = np.full((10, 64), -30.0)
    certain, half, wrong = chance.copy(), chance.copy(), chance.copy()
    certain[:, 3] = half[:, 3] = half[:, 4] = wrong[:, 4] = 0.0
    assert judge.bits(chance.tolist(), [3] * 10) == pytest.approx(0)
    assert judge.bits(certain.tolist(), [3] * 10) == pytest.approx(6) and judge.limit(10, 64) == 60
    assert judge.bits(half.tolist(), [3] * 10) == pytest.approx(5)
    assert judge.bits((half - 20).tolist(), [3] * 10) == pytest.approx(5)
    assert judge.bits(wrong.tolist(), [3] * 10) < -30
    assert [judge.upper_bound(bits, 10, 64) for bits in (128.0, 40.0, -3.0)] == [60.0, 40.0, -3.0]


def test_random_answers_ask_the_same_and_teach_nothing() -> None:
    drawn = facts.sample(4, seed=3)
    taught, random = (make(drawn, 200, seed=0) for make in (facts.training_exchanges, facts.random_exchanges))
    assert [row.prompt for row in taught] == [row.prompt for row in random]
    for fact in drawn:
        answers = {row.answer for row in random if fact.name in row.prompt[-1]["content"]}
        assert len(answers) > 40 and answers <= set(facts.ANIMALS.split())


def rows(costs: dict[int, float], seed: int = 0, rank: int = 4) -> list[judge.KnowledgeRun]:
    return [judge.KnowledgeRun(rank, count, seed, 5.0 * count, 6.0 * count, cost, 0.5) for count, cost in costs.items()]


def test_bounds_of_what_is_stored_lie_between_nothing_and_all() -> None:
    spread = [replace(one, bits=bits) for bits in (10.0, 100.0, 178.0) for one in rows({30: 9.0}, seed=int(bits))]
    found = judge.capacities(spread, 3.0)[0].points[0]
    assert (found.bits.low, found.bits.high) == (0.0, 180.0) and found.limit == 180.0


def test_confidence_in_wrong_answers_is_no_storage_and_seeds_that_agree_no_certainty() -> None:
    wrong = [replace(one, bits=bits) for bits in (-30.0, -20.0, -45.0) for one in rows({30: 9.0}, seed=int(-bits))]
    point = judge.capacities(wrong, 3.0)[0].points[0]
    assert point.bits.low <= point.bits.mean == 0.0 <= point.bits.high
    agreeing = judge.capacities([*rows({30: 9.0}), *rows({30: 9.0}, seed=1)], 3.0)[0]
    assert agreeing.at_drop is not None and (agreeing.at_drop.low, agreeing.at_drop.high) == (0.0, 180.0)
    assert not np.isfinite(agreeing.points[0].cost.low)


def test_the_limit_is_interpolated_between_numbers_of_facts() -> None:
    both = [*rows({10: 1.0, 30: 5.0}), *rows({10: 6.0, 30: 8.0}, seed=1)]
    found = judge.capacities(both, drop=3.0)[0]
    assert found.reached == found.seeds == 2 and [point.facts for point in found.points] == [10, 30]
    assert found.at_drop is not None and found.at_drop.mean == pytest.approx(
        (100 + 25) / 2
    )  # 50 + half of 100; half of 50
    assert found.points[0].cost.mean == pytest.approx(3.5) and found.points[1].bits.mean == pytest.approx(150)


def test_no_limit_where_too_few_seeds_lose_as_much() -> None:
    found = judge.capacities([*rows({10: 1.0, 30: 2.0}), *rows({10: -4.0, 30: 9.0}, seed=1)], drop=3.0)[0]
    assert (found.reached, found.seeds, found.at_drop) == (1, 2, None)
    assert [one.rank for one in judge.capacities([*rows({1: 0.0}, rank=16), *rows({1: 0.0}, rank=2)], 3.0)] == [2, 16]


def test_noise_that_falls_with_the_number_of_facts_is_no_limit() -> None:
    """Made monotone, 4 and then -4 points are nothing."""
    found = judge.capacities([*rows({10: 4.0, 30: -4.0}), *rows({10: 4.0, 30: -4.0}, seed=1)], drop=3.0)[0]
    assert found.reached == 0


@pytest.fixture
def run(tiny_project: Path, tmp_path: Path) -> Iterator[Run]:
    small = ["knowledge.facts=[4,8]", "knowledge.exposures=6", "knowledge.ranks=[4]", "knowledge.seeds=[0,1]"]
    settings = [*small, "knowledge.items=8", "knowledge.learning_rate=5e-3", "tasks={}", "sequence={}"]
    found = Run(config.load(str(tiny_project / "project.yaml"), settings), Console())
    yield found
    found.close()


@pytest.mark.slow
def test_a_small_model_learns_facts_and_its_control_does_not(run: Run, tmp_path: Path) -> None:
    artifact = knowledge.answer(run)
    (capacity,) = read_document(artifact.folder / "knowledge.json", list[judge.Capacity])
    assert [point.facts for point in capacity.points] == [4, 8] and capacity.seeds == 2
    jobs = [
        json.loads((path.parent / "inputs.json").read_text()) | json.loads(path.read_text())["facts"]
        for path in run.folder.glob("knowledge-job/*/artifact.json")
    ]
    assert len(jobs) == 12
    taught = [job["stored"] for job in jobs if not (job.get("control") or job.get("random"))]
    own, random = ([job["stored"] for job in jobs if job.get(kind)] for kind in ("control", "random"))
    assert len(taught) == len(own) == len(random) == 4
    assert sum(taught) > max(sum(own), sum(random)) and all(job["stored"] <= 6 * job["facts"] for job in jobs)
    assert not capacity.bound and all(point.random for point in capacity.points)
    assert not list(run.folder.glob("knowledge-job/*/*.safetensors"))
    collected = collect.collect(run)
    assert to_json(to_plain(collected.knowledge)) == to_json(to_plain([capacity]))
    assert any(line.startswith("new knowledge, rank 4, stored where 3 points") for line in story.summary(collected))
    records.export_trainings(run, tmp_path / "records")
    elsewhere = {"run": run.config.run.model_copy(update={"folder": tmp_path / "other"})}
    other = Run(run.config.model_copy(update=elsewhere), Console())
    try:
        records.import_trainings(other, tmp_path / "records")
        brought = {path: path.stat().st_mtime_ns for path in other.folder.glob("knowledge-*/*/artifact.json")}
        assert len(brought) == 14 and knowledge.answer(other).facts == artifact.facts
        assert all(path.stat().st_mtime_ns == written for path, written in brought.items())
    finally:
        other.close()
