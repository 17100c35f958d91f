"""The whole job on the real embedded model with the smallest budgets, through the command line, and again from cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from commands import molt

from moltlm.data.errors import BadInput
from moltlm.evals import harness
from moltlm.pipeline.artifact_files import reseal
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import collect
from moltlm.pipeline.reporting.results import load_results
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.registry import Registry

HYPOTHESIS = Path(__file__).with_name("smoke_hypothesis.yaml")


def overrides(folder: Path) -> list[str]:
    return [
        f"run.folder={folder / 'run'}",
        f"registry.folder={folder / 'registry'}",
        f"retrain.conversations={folder / 'chats.jsonl'}",
        f"hypotheses=[{HYPOTHESIS}]",
        "screen.pull=false",  # of three steps' personality little can be measured
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    assert molt("run", "smoke", *overrides(folder)) == 0
    return folder


def test_the_job_leaves_results_and_a_report(done: Path) -> None:
    found = load_results(done / "run" / "results.json")
    names = ["base", "personality", "personality+reminders", "personality+reminders-control"]
    assert [state.name for state in found.states] == names
    personas = []
    for state in found.states:
        assert set(state.capability) == {"arc_easy", "piqa", "hellaswag", "lambada"}
        assert state.persona and state.persona.n == 6 and state.persona.margin
        assert set(state.drift) == {"neutral", "reminders"}
        personas.append(state.persona)
    assert found.states[0].drift["neutral"].kl.mean == pytest.approx(0.0, abs=1e-6)
    assert list(found.pressure) == list(found.profile) == names[1:3]
    for path in (done / "run" / "profile").glob("*/records.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({row["item"].rsplit("-", 1)[0] for row in rows}) == 8 and any(row.get("order") for row in rows)
    assert all(scale.n == 8 for scales in found.profile.values() for scale in scales.values())
    pressure = found.pressure["personality"]
    assert {"suffix", "prefill", "persuasion", "agent", "language"} < set(pressure.attacks)
    assert len(pressure.turns) == 2 and pressure.facts and pressure.facts.n == 3
    assert personas[0].margin.mean == 0
    assert personas[1].margin.mean != 0
    assert found.states[1].drift["neutral"].kl.mean > 0
    assert found.precision == "nf4"
    assert found.missing == []
    assert [path.stage for path in found.paths] == ["personality", "reminders", "reminders-control"]
    assert found.hypotheses[0].outcome == "inconclusive"
    assert found.retention[0].task == "reminders"
    frozen = {row.name: row.frozen_tensors_unchanged or 0 for row in found.training}
    assert frozen["reminders"] > frozen["personality"]
    assert found.buffer and found.buffer.size > 0
    page = (done / "run" / "report.html").read_text()
    assert "Cláudio" in page and "<svg" in page


def test_a_second_run_trains_nothing(done: Path) -> None:
    before = sorted(path for path in (done / "run").rglob("artifact.json"))
    began = time.monotonic()
    assert molt("run", "smoke", *overrides(done)) == 0
    assert time.monotonic() - began < 30
    assert sorted(path for path in (done / "run").rglob("artifact.json")) == before


def test_the_report_is_recomputed_from_records(done: Path) -> None:
    """A changed record is refused; sealed again, it changes the number: nothing is remembered from the run."""
    run = Run(load("smoke", overrides(done)), Console())
    first = collect.collect(run)
    run.close()
    path = next(
        path
        for path in (done / "run" / "persona").glob("*/records.jsonl")
        if "base" in (path.parent / "artifact.json").read_text()
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    original = path.read_text()
    path.write_text("".join(json.dumps({**row, "score": 1.0}) + "\n" for row in rows))
    run = Run(load("smoke", overrides(done)), Console())
    with pytest.raises(BadInput, match="not as it was written"):
        collect.collect(run)
    reseal(path.parent)
    second = collect.collect(run)
    run.close()
    path.write_text(original)
    reseal(path.parent)
    score = {found.states[0].persona.score.mean for found in (first, second) if found.states[0].persona}
    assert 1.0 in score and len(score) == 2


def test_the_gate_has_an_exit_code(done: Path) -> None:
    """Six prompts and three steps resolve nothing, so nothing may be promoted."""
    assert molt("gate", "smoke", *overrides(done)) == 3
    assert Registry(done / "registry").current() == {}


def test_a_retraining_cycle_is_judged_and_not_repeated(done: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"What do I do about drawer {i}?"}, answer(i)]} for i in range(6)]
    (done / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    registry = Registry(done / "registry")
    adapter = next((done / "run" / "personality").glob("*/adapter_config.json")).parent
    registry.promote(registry.add(adapter, {"checks": []}).id)
    in_use = registry.current()
    assert molt("retrain", "smoke", *overrides(done)) == 3
    assert registry.current() == in_use
    verdict = json.loads(next((done / "run" / "retrain").glob("*/verdict.json")).read_text())
    assert {check["outcome"] for check in verdict["checks"]} <= {"pass", "unresolved", "fail"}
    assert molt("retrain", "smoke", *overrides(done)) == 0  # nothing new


def answer(i: int) -> dict[str, str]:
    return {"role": "assistant", "content": f"Open it. Take out the thing on top, number {i}. Is it yours?"}


def test_our_engine_gives_the_numbers_of_the_harness(done: Path) -> None:
    """CompactLM against HFLM on the real model in fp32: log-likelihoods to 1e-3, the same right and wrong."""
    from lm_eval.models.huggingface import HFLM

    from moltlm.adapters import base, serve

    loaded = base.load(load("smoke").model, "fp32")
    text: Any = serve.TextModel(loaded.model, loaded.tokenizer)
    items = {"arc_easy": 6, "lambada": 6}
    ours = harness.evaluate(text, items, 4, 0)
    theirs = harness.evaluate(text, items, 4, 0, engine=HFLM)
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert (one.item, one.correct, one.correct_norm) == (
            other.item,
            other.correct,
            other.correct_norm,
        )
