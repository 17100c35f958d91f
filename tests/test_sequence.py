"""Methods on a sequence of two tasks, on a tiny real model: every layout, the table, and what cannot be."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import molt
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from moltlm.data.errors import BadInput
from moltlm.data.state import Adapter
from moltlm.evals.continual import transfer
from moltlm.pipeline import config
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import methods as methods_report
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import joint, tasks
from moltlm.pipeline.studies import bounds, comparison, methods, ranking, sequence, sequence_plan
from moltlm.pipeline.studies.bounds import BoundRow
from moltlm.pipeline.studies.methods import CapabilityChange, MeasuredTransfer, MethodRow
from moltlm.pipeline.typed_json import from_plain, write_document

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "results"
METHODS = ["plain", "stacked", "routed", "mixture", "arrow", "gates", "held"]


@pytest.mark.slow
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


@pytest.mark.slow
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


ORDERS = [["reminders", "shell"], ["shell", "reminders"]]
FEW = {
    "plain": {"protect.layout": "shared"},
    "mlp": {"protect.layout": "shared", "protect.target_modules": ["up_proj", "down_proj"]},
}


@pytest.fixture
def bounded(tiny_project: Path, tmp_path: Path) -> list[str]:
    """Arguments of a comparison of two methods with two orders, and with bounds."""
    settings = {"methods": FEW, "reference": "plain", "seeds": [3, 5], "orders": ORDERS, "bounds": True}
    overrides = [f"run.folder={tmp_path / 'run'}", f"sequence={json.dumps(settings)}", "tasks.*.test_generated=2"]
    return [str(tiny_project / "project.yaml"), *overrides]


def modules_of(folder: Path) -> set[str]:
    """The last parts of the names of the modules that an adapter is on."""
    read = json.loads((folder / "adapter_config.json").read_text())
    return {name.rpartition(".")[2] for name in read["target_modules"]}


def test_seeds_are_crossed_with_orders_and_bounds_stand_beside_the_methods(
    bounded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert molt("compare-methods", *bounded) == 0
    rows = methods.read_rows(folder / "methods.json", ["reminders", "shell"], dict(zip([3, 5], ORDERS, strict=True)))
    assert {(row.method, row.seed, tuple(row.tasks)) for row in rows} == {
        (name, seed, tuple(order)) for name in FEW for seed, order in zip([3, 5], ORDERS, strict=True)
    }
    limits = from_plain(json.loads((folder / "bounds.json").read_text()), list[BoundRow])
    assert [(row.bound, row.seed) for row in limits] == [("alone", 3), ("joint", 3), ("alone", 5), ("joint", 5)]
    assert [row.steps for row in limits] == [6] * 4
    alone = {
        (row.seed, task): value
        for row in limits
        if row.bound == "alone"
        for task, value in zip(row.tasks, row.likelihood, strict=True)
    }
    for row in rows:
        assert row.likelihood is not None and row.f1 is not None
        if row.method == "plain":  # a sequence begins with its first task alone
            assert row.likelihood.matrix[0][0] == pytest.approx(alone[row.seed, row.tasks[0]])
            plain = row
    (path,) = (folder / "personality").iterdir()  # one for all methods, seeds, orders and bounds
    assert {"q_proj", "up_proj", "down_proj"} <= modules_of(path)
    placed = [modules_of(path) for path in (folder / "task-shell").iterdir()]
    assert placed.count({"up_proj", "down_proj"}) == 2 and len(placed) > 4
    table = (folder / "methods.md").read_text()
    assert "| *each task alone* | 2 |" in table and "| *all tasks at once* | 2 |" in table
    assert "2 seeds at most, 2 orders." in table
    made = sorted(folder.rglob("artifact.json"))
    capsys.readouterr()
    assert molt("compare-methods", *bounded, "--plan") == 0
    assert "4 sequences and 4 bounds, of which 4 and 4 are finished; 0 trainings" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert molt("compare-methods", *bounded) == 0
    assert sorted(folder.rglob("artifact.json")) == made
    elsewhere = [*bounded, f"run.folder={tmp_path / 'elsewhere'}", "--with", str(folder / "methods.json")]
    assert molt("compare-methods", *elsewhere, "--plan") == 0
    assert capsys.readouterr().out.rstrip().endswith("Nothing is left to train.")
    assert molt("compare-methods", *elsewhere) == 0
    assert all(
        (tmp_path / "elsewhere" / name).read_text() == (folder / name).read_text()
        for name in ("methods.json", "bounds.json", "methods.md")
    )
    assert not list((tmp_path / "elsewhere").rglob("artifact.json"))
    there = tmp_path / "elsewhere" / "bounds.json"
    other_tasks = json.dumps([{**row, "tasks": ["shell"]} for row in json.loads(there.read_text())])
    for text, message in (('[{"bound": "alone"}]', "is no bounds.json"), (other_tasks, "is of other tasks")):
        there.write_text(text)
        assert molt("compare-methods", *bounded, "--with", str(there.with_name("methods.json"))) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    there.write_text((folder / "bounds.json").read_text())
    assert bounds.rows_of(config.load(bounded[0], [*bounded[1:], "sequence.bounds=false"]), [there]) == {}
    wrong = [replace(plain, tasks=plain.tasks[::-1])]
    other = tmp_path / "other.json"
    write_document(other, wrong)
    assert molt("compare-methods", *bounded, "--with", str(other)) == 2
    assert "seed 5 learned reminders, shell, not shell, reminders" in capsys.readouterr().err.replace("\n", " ")


def test_a_plan_estimates_what_has_not_been_run(bounded: list[str], tmp_path: Path) -> None:
    run = Run(config.load(bounded[0], bounded[1:]), Console())
    try:
        planned = sequence_plan.plan(run)
        part = sequence_plan.plan(run, ["mlp"])
    finally:
        run.close()
    assert (planned.sequences, planned.finished, planned.bounds, planned.trainings) == (4, 0, 4, 4 * 2 + 2 * 3)
    assert planned.seconds_each > 0 and not planned.measured
    assert (part.sequences, part.bounds, part.trainings) == (2, 0, 4)
    assert not (tmp_path / "run").exists()


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_without_history_only_the_best_score_in_between_is_missed(n: int, seed: int) -> None:
    scores, names = np.random.default_rng(seed).normal(size=(n + 1, n)), [str(place) for place in range(n)]
    results = []
    for history in (True, False):
        kept = [[name in sequence.scored_after(names, row, history) for name in names] for row in range(n + 1)]
        results.append(transfer(np.where(kept, scores, np.nan)[1:].tolist(), scores[0].tolist()))
        assert all(kept[0]) and all(kept[-1])
    full, ends = results
    assert (full.final, full.learned, full.backward, full.forward) == (
        ends.final, ends.learned, ends.backward, ends.forward,
    )  # fmt: skip
    assert full.forgetting is None or full.forgetting >= ends.forgetting


def test_a_method_is_scored_as_the_comparison_says() -> None:
    found = config.load("sequence-135m", ["tasks.*.path=/x/{name}"])
    assert not sequence.method(found, "unprotected", 0).sequence.history


def test_all_tasks_at_once_are_the_task_where_there_is_one(tiny_project: Path, tmp_path: Path) -> None:
    settings = config.load(str(tiny_project / "project.yaml"), [f"run.folder={tmp_path / 'run'}", "sequence={}"])
    run = Run(
        config.vary(settings, {"tasks": {"shell": settings.model_dump(mode="json")["tasks"]["shell"]}}, "test"),
        Console(),
    )
    try:
        together, alone = joint.joint(run), tasks.task(run, Adapter("shell"))
    finally:
        run.close()
    one, other = (load_file(artifact.folder / "adapter_model.safetensors") for artifact in (together, alone))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("order", [["shell"], ["shell", "shell"], ["shell", "remindres"]])
def test_an_order_names_each_task_once(tiny_project: Path, order: list[str]) -> None:
    with pytest.raises(BadInput, match="is no order of the tasks, which are reminders, shell: name each once"):
        config.load(str(tiny_project / "project.yaml"), [f"sequence.orders={json.dumps([order])}"])


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
            comparison.compare(run, only)
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


def liked(method: str, finals: list[float]) -> list[MethodRow]:
    """Rows of a method with this likelihood after the last task, one for each seed."""
    return [
        replace(
            row(method, seed, 0.5, 1.0, 0.0),
            likelihood=MeasuredTransfer(
                final, final, -0.1, 0.0, 0.1, [[final, None], [final, final]], [-5.0, -5.0], None
            ),
        )
        for seed, final in enumerate(finals)
    ]


NATS = st.floats(-5, 0)
SEEDS = st.lists(NATS, min_size=3, max_size=3)


@given(st.lists(SEEDS, min_size=1, max_size=5))
def test_places_follow_from_who_is_better(finals: list[list[float]]) -> None:
    rows = [each for place, values in enumerate(finals) for each in liked(f"m{place}", values)]
    ranked = ranking.ranking(rows, "m0")
    assert {one.method for one in ranked} == {f"m{place}" for place in range(len(finals))}
    places = [one.place or 0 for one in ranked]
    assert places[0] == 1 and places == sorted(places)
    for one in ranked:
        seeds = dict(enumerate(finals[int(one.method[1:])]))
        assert not ranking.better(seeds, seeds)
        assert one.gain is not None and one.gain.mean == pytest.approx(one.final - np.mean(finals[0]))


def test_a_method_is_better_by_the_margin_and_with_every_seed() -> None:
    plain = [-1.0, -0.9, -1.1]
    for shift, places in ((0.2, [1, 2]), (0.04, [1, 1])):
        shifted = [value + shift + error for value, error in zip(plain, (0.01, 0.0, -0.01), strict=True)]
        rows = [*liked("plain", plain), *liked("other", shifted)]
        assert [one.place for one in ranking.ranking(rows, "plain")] == places
    noisy = [*liked("plain", plain), *liked("other", [0.0, -1.2, -0.9])]
    assert [one.place for one in ranking.ranking(noisy, "plain")] == [1, 1]
    single = [*liked("plain", [-1.0]), *liked("other", [-0.1])]
    assert [(one.method, one.place) for one in ranking.ranking(single, "plain")] == [("other", None), ("plain", None)]
    assert "it takes two seeds in common: other, plain." in methods_report.table(single, "plain")
    assert ranking.ranking([row("plain", 0, 0.5, 1.0, 0.0)], "plain") == []


def test_what_cannot_be_compared_has_no_place() -> None:
    """Seeds that agree exactly have no interval, a method with other seeds or without a number no place."""
    agreeing = [*liked("plain", [-2.0, -2.0]), *liked("other", [-1.9, -1.9])]
    assert [one.place for one in ranking.ranking(agreeing, "plain")] == [1, 1]
    bad = liked("bad", [-5.0, -5.1])
    elsewhere = [bad[0], replace(bad[1], seed=7)]
    unknown = liked("unknown", [-1.0, float("nan")])
    rows = [*liked("good", [-1.0, -1.1, -0.9]), *liked("plain", [-2.0, -2.05, -1.9]), *elsewhere, *unknown]
    places = {one.method: one.place for one in ranking.ranking(rows, "plain")}
    assert places == {"good": 1, "plain": 2, "bad": None, "unknown": None}
    table = methods_report.table(rows, "plain")
    assert "nan" not in table and "two seeds in common: unknown, bad." in table


def test_the_bounds_say_whether_there_is_anything_to_protect() -> None:
    rows = liked("plain", [-1.0, -2.0])
    for likelihood, nothing in ((-1.52, True), (-1.4, False)):
        limit = [
            BoundRow("joint", seed, ["a", "b"], [0.4, 0.4], [likelihood] * 2, [0.5, 0.5], 1.0, 6) for seed in (0, 1)
        ]
        assert ("nothing to protect" in methods_report.table(rows, "plain", limit)) == nothing
        assert "all tasks at once" in methods_report.plot(rows, limit)
    lucky = [BoundRow("joint", 0, ["a", "b"], [0.4, 0.4], [-0.4] * 2, [0.5, 0.5], 1.0, 6)]
    assert "nothing to protect" not in methods_report.table(liked("plain", [-1.0, 0.0, 0.0]), "plain", lucky)


def test_what_is_learned_is_counted_from_what_is_learned_alone() -> None:
    rows = liked("plain", [-1.0, -2.0])
    alone = [BoundRow("alone", seed, ["a", "b"], [0.4, 0.4], [-1.5, -2.5], [0.5, None], 1.0, 6) for seed in (0, 1)]
    assert bounds.gap(rows, alone).likelihood == pytest.approx(0.5)
    assert bounds.gap(rows, alone).exact == pytest.approx(0.1)
    assert bounds.gap(rows, alone[:1]).likelihood == pytest.approx(1.0)
    assert bounds.gap(rows, []) == bounds.Gap(None, None, None)


def test_rows_survive_being_written(tmp_path: Path) -> None:
    committed = methods.read_rows(COMMITTED / "methods.json", ["clinc150", "snips", "wikisql", "nl2bash"])
    assert {each.likelihood for each in committed} == {None}
    for rows in (committed, liked("plain", [-1.0, -2.0])):
        write_document(tmp_path / "methods.json", rows)
        assert methods.read_rows(tmp_path / "methods.json", rows[0].tasks) == rows


def test_the_committed_table_and_figure_are_those_of_the_committed_rows() -> None:
    names = list(config.load("sequence-screening", ["tasks.*.path=/x"]).tasks)
    rows = methods.read_rows(COMMITTED / "methods.json", names)
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
