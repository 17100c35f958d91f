"""The grid of a hypothesis on a tiny real model: what is tuned, what is measured, what is shared and kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from moltlm.data.errors import BadInput
from moltlm.evals.config import HypothesisConfig
from moltlm.pipeline import config
from moltlm.pipeline.cli import app
from moltlm.pipeline.commands.studies import HYPOTHESIS
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting.writing import write_report
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import pairs
from moltlm.pipeline.studies import archive as records
from moltlm.pipeline.studies import arms, explore, grid
from moltlm.pipeline.studies.authorship import by_authorship

FILE: dict[str, Any] = {
    "id": "H1",
    "claim": "one way keeps more than another",
    "better": "lora",
    "than": ["full"],
    "positive_control": "kl",
    "arms": {
        "lora": {"method": "sft", "learning_rate": [1e-3, 4e-3]},
        "full": {"method": "sft", "parameters": "full", "learning_rate": 1e-4},
        "kl": {"method": "sft", "learning_rate": "lora", "kl_weight": [0.1, 1.0]},
    },
    "tuning_seeds": [11],
    "seeds": [1, 2],
    "steps": 3,
    "batch_size": 2,
    "checkpoints": [2, 3],
    "pairs": 4,
    "items": 8,
    "precision": "fp32",
    "axis": "persona",
    "prompts": 4,
    "neutral": 2,
    "composite": {"arc_easy": 4},
    "gain_levels": [0.001],
}


@pytest.fixture
def run(tiny_project: Path) -> Iterator[Run]:
    found = Run(config.load(str(tiny_project / "project.yaml"), ["tasks={}", "sequence={}"]), Console())
    yield found
    found.close()


def test_what_is_open_is_tuned_on_other_seeds_and_the_rest_confirmed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "h1.yaml"
    file.write_text(yaml.safe_dump(FILE))
    found = grid.verdict(run, str(file))
    told = json.loads((found.folder / "verdict.json").read_text())
    arms = told["arms"]
    assert arms["lora"]["learning_rate"] in (1e-3 / 4, 1e-3, 4e-3, 1.6e-2)
    assert arms["kl"]["learning_rate"] == arms["lora"]["learning_rate"] and arms["kl"]["kl_weight"] in (0.1, 1.0)
    jobs = [json.loads(path.read_text()) for path in run.folder.glob("job/*/inputs.json")]
    seeds = {
        name: {job["seed"] for job in jobs if job["arm"].get("parameters", "lora") == name} for name in ("lora", "full")
    }
    assert seeds == {"lora": {1, 2, 11}, "full": {1, 2}}
    rows = [json.loads(line) for line in next(run.folder.glob("job/*/records.jsonl")).read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    assert {"gain", "second", "likelihood", "persona", "coherent", "cross_entropy", "kl", "items"} <= rows[0].keys()
    states = {row["step"]: (row["along_persona"], row["state_shift"]) for row in rows}
    base_row = json.loads(next(run.folder.glob("job-base/*/records.jsonl")).read_text())
    assert (base_row["along_persona"], base_row["state_shift"]) == (0.0, 0.0)
    assert all(shift > 0 and along != 0 for along, shift in states.values())
    assert sum("composite" in row for row in rows) == 1
    assert len(told["comparisons"]) == 1 and told["outcome"] in ("supported", "refuted", "inconclusive")
    seen = explore.explore(run).facts
    assert seen["trainings"] == len(jobs) and seen["early sign"] is seen["threshold"] is None
    before = sorted(run.folder.glob("job/*"))
    assert grid.verdict(run, str(file)).fingerprint == found.fingerprint
    assert sorted(run.folder.glob("job/*")) == before


def test_an_arm_beside_the_others_has_a_base_of_its_own_precision_and_decides_nothing(run: Run, tmp_path: Path) -> None:
    alone, beside = tmp_path / "alone.yaml", tmp_path / "beside.yaml"
    alone.write_text(yaml.safe_dump(FILE))
    arms = {**FILE["arms"], "nf4": {"method": "sft", "learning_rate": "lora", "precision": "nf4"}}
    beside.write_text(yaml.safe_dump({**FILE, "arms": arms, "beside": ["nf4"]}))
    one, both = (json.loads((grid.verdict(run, str(f)).folder / "verdict.json").read_text()) for f in (alone, beside))
    assert (one["outcome"], one["comparisons"], one["beside"]) == (both["outcome"], both["comparisons"], [])
    assert [item["than"] for item in both["beside"]] == ["nf4"]
    assert both["arms"]["nf4"]["learning_rate"] == both["arms"]["lora"]["learning_rate"]
    for stage in ("job", "job-base"):
        inputs = [json.loads(path.read_text()) for path in run.folder.glob(f"{stage}/*/inputs.json")]
        assert {each["hypothesis"]["precision"] for each in inputs} == {"fp32", "nf4"}


def test_one_sentence_for_every_prompt_is_no_gain_by_authorship(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "h1.yaml"
    file.write_text(yaml.safe_dump({**FILE, "seeds": [1]}))
    hypothesis = arms.check(run, str(file))
    (arm,) = arms.candidates(hypothesis.arms["full"], {})
    row, *_ = grid.records_of(run, hypothesis, grid.job(run, hypothesis, "full", arm, 1), "full", arm, 1)
    written = {pair.id: pair.chosen for pair in pairs.load_pairs(pairs.pairs(run), "heldout")}
    one = written[row.answers[0].id]

    def gain(texts: dict[str, str]) -> float:
        answers = [replace(each, answer=texts[each.id], coherent=True, score=1.0) for each in row.answers]
        return by_authorship(run, [replace(row, answers=answers)])[0].gain

    assert gain(dict.fromkeys(written, one)) <= 0 < gain(written)
    (base,) = by_authorship(run, [replace(row, answers=row.base.answers)] if row.base else [])
    assert base.gain == 0


def test_an_arm_has_a_rank_and_a_place_of_its_own(run: Run, tmp_path: Path) -> None:
    file, modules = tmp_path / "h1.yaml", ["down_proj", "up_proj"]
    ways = {
        "lora": {"method": "sft", "learning_rate": 1e-3},
        "small": {"method": "sft", "learning_rate": 1e-3, "rank": 2},
        "mlp": {"method": "sft", "learning_rate": 1e-3, "target_modules": modules},
    }
    settings = {**FILE, "arms": ways, "than": ["small", "mlp"], "positive_control": None, "tuning_seeds": []}
    file.write_text(yaml.safe_dump({**settings, "seeds": [1]}))
    alone = _elsewhere(run, tmp_path / "alone")
    try:
        grid.verdict(alone, str(file))
    finally:
        alone.close()
    own = run.config.lora
    made = [json.loads(path.read_text()) for path in alone.folder.glob("job/*/weights/adapter_config.json")]
    assert sorted(each["r"] for each in made) == sorted([2, own.r, own.r])
    assert {each["lora_alpha"] / each["r"] for each in made} == {own.alpha / own.r}
    places = [{name.rpartition(".")[2] for name in each["target_modules"]} for each in made]
    assert places.count({*modules}) == 1 and sum("q_proj" in place for place in places) == 2
    full = {"full": {"method": "sft", "parameters": "full", "learning_rate": 1e-4, "rank": 2}}
    file.write_text(yaml.safe_dump({**settings, "arms": {**ways, **full}}))
    with pytest.raises(BadInput, match="a full fine-tuning has no LoRA"):
        grid.verdict(run, str(file))


def test_trainings_are_exported_without_weights_and_judged_alike_elsewhere(run: Run, tmp_path: Path) -> None:
    file, there = tmp_path / "h1.yaml", tmp_path / "records"
    file.write_text(yaml.safe_dump(FILE))
    found = grid.verdict(run, str(file))
    written = records.export_trainings(run, there)
    assert {path.name.rpartition("-")[0] for path in written} >= {"pairs", "job-base", "job"}
    assert records.export_trainings(run, there) == []
    other = _elsewhere(run, tmp_path / "other")
    try:
        assert (
            len(records.import_trainings(other, there)) == len(written) and records.import_trainings(other, there) == []
        )
        again = grid.verdict(other, str(file))
    finally:
        other.close()
    assert again.fingerprint == found.fingerprint and again.facts == found.facts
    for name in ("job/*/artifact.json", "job/*/records.jsonl"):  # with the seconds that it took: not trained again
        assert _contents(run.folder, name) == _contents(other.folder, name)


def _elsewhere(run: Run, folder: Path, **settings: Any) -> Run:
    there = {"run": run.config.run.model_copy(update={"folder": folder}), **settings}
    return Run(run.config.model_copy(update=there), Console())


def _contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern)}


def test_a_study_alone_has_a_report_without_what_it_has_not_measured(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "h1.yaml"
    file.write_text(yaml.safe_dump(FILE))
    grid.verdict(run, str(file))
    records.export_trainings(run, tmp_path / "records")
    other = _elsewhere(run, tmp_path / "other", hypotheses=[str(file)])
    try:
        records.import_trainings(other, tmp_path / "records")
        with pytest.raises(BadInput, match="Nothing has been measured"):
            write_report(other)
        other.only_read = False
        grid.verdict(other, str(file))
        explore.explore(other)
        written = write_report(other)
    finally:
        other.close()
    page = written.report.read_text()
    trainings = len(list(other.folder.glob("job/*")))
    assert [line.split(": ")[0] for line in written.summary] == ["H1", f"explored, {trainings} trainings"]
    assert f"molt hypothesis run {file}" in page
    assert 'id="persona"' in page and not any(f'id="{part}"' in page for part in ("tasks", "answers", "missing"))


def test_a_study_is_recomputed_from_its_trainings_alone(run: Run, tiny_project: Path, tmp_path: Path) -> None:
    """Another one has been recomputed with the same configuration before, and its trainings do not count."""
    project, explored = str(tiny_project / "project.yaml"), {}
    for name, seeds in (("three", [1, 2, 3]), ("two", [1, 2])):
        file, folder = tmp_path / f"{name}.yaml", tmp_path / name
        arms = {"lora": {**FILE["arms"]["lora"], "learning_rate": 1e-3}, "full": FILE["arms"]["full"]}
        content = {**FILE, "id": name, "arms": arms, "positive_control": None, "tuning_seeds": [], "seeds": seeds}
        file.write_text(yaml.safe_dump(content))
        study = _elsewhere(run, tmp_path / f"run-{name}")
        try:
            grid.verdict(study, str(file))
            records.export_trainings(study, folder)
        finally:
            study.close()
        settings = ["tasks={}", "sequence={}", f"hypotheses=[{file}]", f"run.folder={tmp_path / 'shared'}"]
        result = CliRunner().invoke(app, ["hypothesis", "recompute", str(folder), project, *settings])
        assert result.exit_code == 0, result.output
        explored[name] = json.loads((tmp_path / f"{name}.json").read_text())["explored"]["early"]["n"]
    assert explored == {"three": 6, "two": 4}
    result = CliRunner().invoke(
        app, ["hypothesis", "recompute", str(folder), project, *settings, "pairs.max_new_tokens=9"]
    )
    assert isinstance(result.exception, BadInput) and "does not have the pairs" in str(result.exception)


def test_records_that_are_not_whole_or_of_another_name_are_refused(run: Run, tmp_path: Path) -> None:
    file, there = tmp_path / "h1.yaml", tmp_path / "records"
    file.write_text(yaml.safe_dump(FILE))
    grid.verdict(run, str(file))
    written = {path.name.rpartition("-")[0]: path for path in records.export_trainings(run, there)}
    whole = written["job"].read_bytes()
    other = _elsewhere(run, tmp_path / "other")
    try:
        with pytest.raises(BadInput, match="No training of a study"):
            records.export_trainings(other, there)
        with pytest.raises(BadInput, match=f"No {records.SUFFIX} file"):
            records.import_trainings(other, tmp_path)
        bad = tmp_path / "bad" / f"job-123456789abc{records.SUFFIX}"
        bad.parent.mkdir()
        for content, message in ((whole, "altered"), (whole[:-40], "truncated"), (b"", "truncated")):
            bad.write_bytes(content)
            with pytest.raises(BadInput, match=message):
                records.import_trainings(other, bad.parent)
        assert not list(other.folder.glob("job*/*"))
    finally:
        other.close()


def test_the_plan_counts_what_is_trained(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "h1.yaml"
    file.write_text(yaml.safe_dump({**FILE, "seeds": [1, 2, 3], "tuning_seeds": [11, 12]}))
    other = _elsewhere(run, tmp_path / "other")
    try:
        before = grid.planned(other, str(file))
    finally:
        other.close()
    # two rates and two weights of KL, on two seeds; three arms of three seeds; one rate more on each tuning seed
    assert (before.tuning, before.confirming, before.beyond, before.left) == (8, 9, 2, 17)
    assert before.seconds_each is None and "known after the first" in str(before)
    file.write_text(yaml.safe_dump(FILE))
    grid.verdict(run, str(file))
    count = len(list(run.folder.glob("job/*")))
    after = grid.planned(run, str(file))
    assert after.left == 0 and "all are finished" in str(after)
    more = {**FILE, "seeds": [*FILE["seeds"], 8, 9]}
    file.write_text(yaml.safe_dump(more))
    begun = grid.planned(run, str(file))
    assert begun.confirming - len(more["arms"]) * 2 == after.confirming and begun.left == len(more["arms"]) * 2
    assert begun.seconds_each is not None and begun.seconds_each > 0 and "are finished; about" in str(begun)
    assert begun.gib > grid.planned(run, str(_lora_alone(file))).gib > 0  # a full fine-tuning needs more
    assert count == len(list(run.folder.glob("job/*")))


def test_the_help_names_every_shipped_hypothesis() -> None:
    named = set(re.findall(r"h01[0-9a-z-]+", HYPOTHESIS))
    assert {file.stem for file in config.shipped("hypotheses").glob("*.yaml")} == named


def _lora_alone(file: Path) -> Path:
    arms = {name: arm for name, arm in FILE["arms"].items() if name != "full"}
    file.write_text(yaml.safe_dump({**FILE, "arms": arms, "than": ["kl"], "positive_control": None}))
    return file


def test_no_two_seeds_share_an_item(run: Run) -> None:
    hypothesis = HypothesisConfig.model_validate(FILE)
    items = []
    for seed in (11, 1, 2):
        start = grid.base_point(run, hypothesis, seed)
        row = json.loads((start.folder / "records.jsonl").read_text())
        items.append({item["item"] for item in row["items"]})
        assert row["kl"] == pytest.approx(0, abs=1e-5)
    assert all(len(part) == 8 for part in items) and len(set.union(*items)) == 24


def test_the_best_rate_at_an_edge_is_tried_beyond() -> None:
    arm = HypothesisConfig.model_validate(FILE).arms["lora"]
    for rate, beyond in ((1e-3, 2.5e-4), (4e-3, 1.6e-2)):
        found = arms.beyond(arm, arm.model_copy(update={"learning_rate": rate}))
        assert found is not None and found.learning_rate == pytest.approx(beyond)
    wide = arm.model_copy(update={"learning_rate": [1e-3, 2e-3, 4e-3]})
    assert arms.beyond(wide, arm.model_copy(update={"learning_rate": 2e-3})) is None


def test_an_arm_that_trains_longer_is_measured_on_at_the_same_distance() -> None:
    hypothesis = HypothesisConfig.model_validate({**FILE, "checkpoints": [1, 3], "steps": 3})
    arm = hypothesis.arms["full"]
    assert hypothesis.checkpoints_of(arm) == [1, 3]
    assert hypothesis.checkpoints_of(arm.model_copy(update={"steps": 8})) == [1, 3, 5, 7, 8]


def test_a_fixed_rate_is_among_those_that_are_tried() -> None:
    arm = HypothesisConfig.model_validate(FILE).arms["lora"]
    options = arms.candidates(arm, {})
    assert arms.fixed(options, None) == [0, 1] and arms.fixed(options, 4e-3) == [1]
    with pytest.raises(BadInput, match=r"not among the rates of its arm: 0\.001, 0\.004"):
        arms.fixed(options, 2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed_rates": {"nobody": 1e-3}}, "fixed_rates names 'nobody'"),
        ({"arms": {**FILE["arms"], "full": {**FILE["arms"]["full"], "steps": 2}}}, "fewer than the 3 of all"),
        ({"tuning_seeds": [1]}, "tune and confirm"),
        ({"tuning_seeds": []}, "need tuning_seeds"),
        ({"beside": ["nobody"]}, "not among arms"),
        ({"arms": {**FILE["arms"], "full": {**FILE["arms"]["full"], "precision": "nf4"}}}, "name it in beside"),
        (
            {"arms": {**FILE["arms"], "kl": {"method": "sft", "learning_rate": "nobody"}}},
            "takes its rate from 'nobody'",
        ),
    ],
)
def test_a_file_that_cannot_be_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HypothesisConfig.model_validate({**FILE, **change})
