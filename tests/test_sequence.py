"""Methods on a sequence of two tasks, on a tiny real model: every layout, the table, and what cannot be."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import molt

from moltlm.data.errors import BadInput
from moltlm.pipeline import config
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import methods as methods_report
from moltlm.pipeline.run import Run
from moltlm.pipeline.studies import methods, sequence
from moltlm.pipeline.studies.methods import CapabilityChange, MethodRow

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "results"
METHODS = ["plain", "stacked", "routed", "mixture", "arrow", "gates", "held"]


def test_every_method_is_measured_in_the_state_it_is_served_in(tiny_project: Path) -> None:
    assert molt("compare-methods", str(tiny_project / "project.yaml"), "--best", "1") == 0
    found = json.loads((tiny_project / "run" / "methods.json").read_text())
    first = [row for row in found if row["seed"] == 0]
    assert [row["method"] for row in first] == METHODS
    second = [row["method"] for row in found if row["seed"] == 1]
    assert second[0] == "plain" and len(second) == 2
    for row in found:
        assert row["accuracy"][0][1] is not None and row["backward"] is not None
        assert row["seconds"] > 0 and row["peak_gib"] > 0 and row["kl"] >= 0
    states = {
        json.loads(path.read_text())["facts"]["state"]
        for path in (tiny_project / "run" / "persona").glob("*/artifact.json")
    }
    assert {"base", "personality+shell", "personality+reminders+shell", "personality+reminders|shell|"} <= states
    routers = [
        json.loads(path.read_text())["facts"] for path in (tiny_project / "run" / "router").glob("*/artifact.json")
    ]
    assert max(router["accuracy"] for router in routers) > 0.8
    table = (tiny_project / "run" / "methods.md").read_text()
    assert all(f"| {name} |" in table for name in METHODS)
    assert "an oracle router, which knows the task of each request, would gain: routed " in table
    assert "<svg" in (tiny_project / "run" / "methods.svg").read_text()
    made = {path.name for path in (tiny_project / "run" / "personality").iterdir()}
    assert len(made) == 1  # one for all methods and seeds


def test_a_second_time_nothing_is_trained(tiny_project: Path) -> None:
    molt("compare-methods", str(tiny_project / "project.yaml"), "--best", "1")
    before = sorted((tiny_project / "run").rglob("artifact.json"))
    assert molt("compare-methods", str(tiny_project / "project.yaml"), "--best", "1") == 0
    assert sorted((tiny_project / "run").rglob("artifact.json")) == before


def test_rows_of_another_run_stand_for_its_trainings(
    tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [str(tiny_project / "project.yaml"), "--best", "1"]
    molt("compare-methods", *settings)
    rows = tiny_project / "run" / "methods.json"
    elsewhere = [*settings, f"run.folder={tmp_path / 'run'}", "--with"]
    assert molt("compare-methods", *elsewhere, str(rows)) == 0
    assert (tmp_path / "run" / "methods.json").read_text() == rows.read_text()
    assert not list((tmp_path / "run").rglob("artifact.json"))
    part, other = tmp_path / "part.json", tmp_path / "other.json"
    part.write_text('[{"method": "plain"}]')
    other.write_text(json.dumps([{**row, "tasks": ["shell"]} for row in json.loads(rows.read_text())]))
    for file, message in ((part, "is no methods.json"), (other, "is of other tasks than reminders, shell")):
        assert molt("compare-methods", *elsewhere, str(file)) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ({"plain": {"lora.r": 4}}, [], "changes lora.r"),
        ({"plain": {"protect.layuot": "shared"}}, [], "unknown setting protect.layuot"),
        ({"plain": {}}, ["fancy"], "no method fancy"),
        ({}, [], "names no methods"),
    ],
)
def test_what_cannot_be_compared_is_told_before_training(
    tmp_path: Path, changes: dict[str, Any], only: list[str], message: str
) -> None:
    found = config.load("smoke", [f"run.folder={tmp_path / 'run'}"])
    found = config.vary(found, {"sequence.methods": changes, "sequence.reference": "plain"}, "test")
    run = Run(found, Console())
    try:
        with pytest.raises(BadInput, match=message):
            sequence.compare(run, only)
    finally:
        run.close()


def test_a_star_reaches_all_tasks_and_name_stands_for_each() -> None:
    found = config.load("sequence-135m", ["tasks.*.path=/x/{name}", "tasks.*.steps=7"])
    assert {name: task.path for name, task in found.tasks.items()} == {name: f"/x/{name}" for name in found.tasks}
    assert {task.steps for task in found.tasks.values()} == {7}


def row(method: str, seed: int, final: float, kept: float, capability: float) -> MethodRow:
    return MethodRow(
        method=method, seed=seed, layout="shared", tasks=["a", "b"], accuracy=[[0.5, None], [0.5, 0.5]],
        before=[0.0, 0.0], final=final, learned=0.5, backward=-0.1, forward=None, forgetting=0.1, oracle=None,
        persona=0.5, persona_kept=kept, coherent=1.0, capability=CapabilityChange(capability, -9.0, 9.0, 40), kl=0.1,
        seconds=1.0, steps=[3, 3], peak_gib=1.0,
    )  # fmt: skip


def passing(rows: list[MethodRow]) -> list[str]:
    return [one.method for one in methods.verdict(methods.means(rows, "plain"), "plain").passing]


def sentence(rows: list[MethodRow]) -> str:
    return methods_report.verdict(methods.means(rows, "plain"), "plain")


def test_the_verdict_follows_the_three_demands() -> None:
    plain = [row("plain", seed, 0.8, 0.2, -3.0) for seed in (0, 1)]
    good = row("good", 0, 0.77, 0.96, -0.5)
    assert passing([*plain, good]) == ["good"]
    assert "by these means: good." in sentence([*plain, good])
    for bad in (row("bad", 0, 0.7, 0.96, 0.0), row("bad", 0, 0.8, 0.9, 0.0), row("bad", 0, 0.8, 1.0, -2.0)):
        assert passing([*plain, bad]) == []
        assert sentence([*plain, bad]).endswith("by these means: none.")
    means = methods.means([*plain, good, row("bad", 0, 0.8, 0.9, 0.0)], "plain")
    assert methods.best(means, 1, "plain") == ["good"]
    assert [one.seeds for one in means] == [2, 1, 1]
    assert passing([good]) == [] and "has not been run" in sentence([good])
    idle = [row("plain", 0, 0.0, 0.2, 0.0), good]
    assert passing(idle) == [] and "learned nothing" in sentence(idle)


def test_a_method_is_compared_with_the_reference_of_its_own_seeds() -> None:
    plain = [row("plain", 0, 0.8, 0.2, 0.0), row("plain", 1, 0.4, 0.2, 0.0)]
    first, second = (row("other", seed, 0.7, 1.0, 0.0) for seed in (0, 1))
    shares = [methods.means([*plain, *rows], "plain")[1].share for rows in ([first], [second], [first, second])]
    assert shares == pytest.approx([0.7 / 0.8, 0.7 / 0.4, 1.4 / 1.2])
    assert passing([*plain, first]) == []
    failing = methods_report.table([*plain, first], "plain")
    assert "before it forgot" not in failing
    good = methods_report.table([*plain, second], "plain")
    assert "had learned before it forgot that they reach: other 140%." in good  # 0.7 of 0.5
    nothing = [replace(one, learned=0.0) for one in plain]
    assert sentence([*nothing, second]).endswith("by these means: other.")
    assert "| plain | 1 | 40.0 | 50.0 | 10.0 | 20.0 | 100.0 | +0.0 (-9.0 to +9.0) |" in failing
    assert "| other | 0 |" not in failing


def test_the_committed_table_and_figure_are_those_of_the_committed_rows() -> None:
    tasks = list(config.load("sequence-135m", ["tasks.*.path=/x"]).tasks)
    rows = methods.read_rows(COMMITTED / "methods.json", tasks)
    assert methods_report.table(rows, "unprotected") in (COMMITTED / "methods.md").read_text(encoding="utf-8")
    label = re.findall(r'aria-label="[^"]*"', methods_report.plot(rows))
    assert len(label) == 1 and label[0] in (COMMITTED / "methods.svg").read_text(encoding="utf-8")


def test_a_varied_configuration_is_the_same_but_for_what_it_changes(tiny_project: Path) -> None:
    """60 and 60.0 would be two fingerprints, and what is there would be made again."""
    for name in ("sequence-135m", str(tiny_project / "project.yaml")):
        found = config.load(name, ["tasks.*.path=/x"] if name == "sequence-135m" else [])
        varied = config.vary(found, {"run.seed": 7}, "test")
        assert json.dumps(varied.model_dump(mode="json")) == json.dumps(
            {**found.model_dump(mode="json"), "run": {**found.run.model_dump(mode="json"), "seed": 7}}
        )


@pytest.mark.parametrize("place", [(50.0, 50.0), (395.0, 195.0), (1.0, 2.0)])
def test_labels_of_points_that_coincide_cover_neither_each_other_nor_the_frame(place: tuple[float, float]) -> None:
    dots, widths, frame = np.array([place] * 6), [10.0 * n for n in range(3, 9)], np.array([0.0, 0, 400, 200])
    left, middle = methods_report.spots(dots, widths, frame).T
    half = methods_report.LINE / 2
    assert left.min() >= 0
    assert (left + widths).max() <= 400
    assert middle.min() >= half
    assert middle.max() <= 200 - half
    for i in range(6):
        for j in range(i):
            beside = left[i] >= left[j] + widths[j] or left[j] >= left[i] + widths[i]
            assert beside or abs(middle[i] - middle[j]) >= 2 * half
