"""Benchmarks: the harness's own prompts, its own numbers, reproducible samples, and nothing printed or left behind."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks import __file__ as harness_tasks
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from moltlm.data import assets
from moltlm.data.errors import BadInput
from moltlm.data.io import write_json, write_jsonl
from moltlm.evals import capability, harness

CHOICE = {
    "choices": {"text": ["a cat", "two dogs", "rain", "the sun"], "label": ["A", "B", "C", "D"]},
    "answerKey": "C",
}
RAW: dict[str, tuple[str, dict[str, Any]]] = {
    "arc_easy": ("arc/arc_easy.yaml", {"question": "What falls?", **CHOICE}),
    "arc_challenge": ("arc/arc_challenge.yaml", {"question": "What falls?", **CHOICE}),
    "openbookqa": ("openbookqa/openbookqa.yaml", {"question_stem": "What falls is", **CHOICE}),
    "piqa": ("piqa/piqa.yaml", {"goal": "dresser", "sol1": "use a bobby pin ", "sol2": "finish it", "label": 1}),
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        {
            "activity_label": "Making tea",
            "ctx_a": "[header] How to make tea [title] Boil water.",
            "ctx_b": "then a  man",
            "endings": ["pours it. [substeps] Slowly.", "sings [title] a song", "runs", "sleeps"],
            "label": "2",
        },
    ),
    "boolq": ("super_glue/boolq/default.yaml", {"passage": "Rain is wet.", "question": "is rain wet", "label": 1}),
    "sciq": (
        "sciq/sciq.yaml",
        {
            "question": "What is wet?",
            "support": " Rain is wet.",
            "distractor1": "sand",
            "distractor2": "fire",
            "distractor3": "air",
            "correct_answer": "rain",
        },
    ),
    "winogrande": (
        "winogrande/default.yaml",
        {"sentence": "Ann thanked Bea since _ had help.", "option1": "Ann", "option2": "Bea", "answer": "1"},
    ),
    "lambada": ("lambada/lambada_openai.yaml", {"text": "He saw the sea and liked the sea"}),
}


def converted(name: str, raw: dict[str, Any]) -> dict[str, Any]:
    if name == "lambada":
        context, target = raw["text"].rsplit(" ", 1)
        request = {"context": context, "continuation": " " + target}
        return assets._lambada({"doc_id": 0, "request": request})
    return {"id": "0", **assets._PLACES[name][1]({**raw, "answer": raw.get("answer", raw.get("label"))})}


def loaded(config: dict[str, Any], row: dict[str, Any], folder: Path) -> Any:
    """The task of a config whose every split is this one row."""
    write_jsonl(folder / "row.jsonl", [row])
    splits = {config[key] for key in ("training_split", "validation_split", "test_split") if config.get(key)}
    files = {split: str(folder / "row.jsonl") for split in splits}
    changes = {"dataset_path": "json", "dataset_name": None, "tag": None}
    changes["dataset_kwargs"] = {"data_files": files, "cache_dir": str(folder / "arrow")}
    tasks = TaskManager(include_defaults=False).load([{**config, **changes}])["tasks"]
    (task,) = tasks.values()
    task.build_all_requests()
    return task


@pytest.mark.parametrize("name", capability.embedded())
def test_prompts_and_metrics_are_the_harness_own(name: str, tmp_path: Path) -> None:
    path, raw = RAW[name]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mine = yaml.safe_load((capability.BENCHMARKS / f"{name}.yaml").read_text(encoding="utf-8"))
    with assets.quiet():
        task = loaded(mine, converted(name, raw), ours)
        original = loaded(load_yaml(Path(harness_tasks).parent / path), raw, theirs)
    assert [one.args for one in task.instances] == [one.args for one in original.instances]
    results = [(-float(i % 3), i == 1) for i in range(len(task.instances))]
    assert task.process_results(task.eval_docs[0], results) == original.process_results(original.eval_docs[0], results)
    assert task.VERSION == original.VERSION


def model(folder: Path, attention: str = "eager", dtype: torch.dtype = torch.float32) -> Any:
    with assets.quiet():
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
        return SimpleNamespace(model=loaded.eval(), tokenizer=AutoTokenizer.from_pretrained(folder))


def likelihoods(engine: type[HFLM], chat: Any, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    made: Any = engine
    with assets.quiet():
        return made(pretrained=chat.model, tokenizer=chat.tokenizer, batch_size=6).loglikelihood(requests)


def agree(one: list[tuple[float, bool]], other: list[tuple[float, bool]]) -> bool:
    return [greedy for _, greedy in one] == [greedy for _, greedy in other] and np.allclose(
        [value for value, _ in one], [value for value, _ in other], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(("attention", "shares"), [("eager", True), ("sdpa", True), ("sdpa", False)])
def test_likelihoods_are_those_of_the_harness(
    tiny: Path, attention: str, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "SHARING", ("llama",) if shares else ())
    choices = [
        " tea",
        " rain today",
        " the clock on the drawer",
        " x",
        " please remind me of everything you know, twice",
    ]
    contexts = ["what should i do today?", "hi", "", "list the files of the window " * 9, "do " * 600]
    pairs = [(context, choice) for context in contexts for choice in choices]
    chat = model(tiny, attention)
    assert agree(likelihoods(harness.SharedContextLM, chat, pairs), likelihoods(HFLM, chat, pairs))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with a few items of two benchmarks."""
    folder = tmp_path / assets.BENCHMARKS
    choices = ["tea", "rain", "the clock"]
    items = [{"id": str(i), "question": f"what is {i}?", "choices": choices, "answer": i % 3} for i in range(20)]
    write_jsonl(folder / "arc_easy.jsonl", items)
    words = [{"id": str(i), "context": f"tea at {i} and", "target": " tea"} for i in range(10)]
    write_jsonl(folder / "lambada.jsonl", words)
    write_json(folder / "asset.json", {"format": assets.FORMAT, "sha256": {}})
    monkeypatch.setenv("MOLTLM_CACHE", str(tmp_path))


def sampled(chat: Any, count: int, seed: int, skip: int = 0) -> set[int | str]:
    return {record.item for record in harness.evaluate(chat, {"arc_easy": count}, 4, seed, skip=skip)}


def test_a_seed_draws_the_same_items_and_another_seed_others(tiny: Path, small: None) -> None:
    chat = model(tiny)
    first = sampled(chat, 8, seed=0)
    assert len(first) == 8 and first == sampled(chat, 8, seed=0) != sampled(chat, 8, seed=1)
    assert not first & sampled(chat, 8, seed=0, skip=8)
    assert sampled(chat, 0, seed=3) == sampled(chat, 99, seed=3) == set(range(20))
    with pytest.raises(BadInput, match="none after the first 20"):
        sampled(chat, 8, seed=0, skip=20)


def test_the_tasks_are_read_once_for_all_states(tiny: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = model(tiny)
    first = harness.evaluate(chat, {"arc_easy": 6}, 4, 0)
    monkeypatch.setattr(harness, "_load_tasks", None)
    assert harness.evaluate(chat, {"arc_easy": 6}, 4, 0) == first


def test_records_and_their_summary(tiny: Path, small: None) -> None:
    seen: list[tuple[int, int, str]] = []
    records = harness.evaluate(
        model(tiny), {"arc_easy": 6, "lambada": 4}, 4, 0, lambda done, total, note: seen.append((done, total, note))
    )
    assert seen[0] == (0, 10, "arc_easy") and seen[-1][:2] == (10, 10)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    choice, word = records[0], records[-1]
    assert choice.benchmark == "arc_easy" and choice.chance == pytest.approx(1 / 3)
    assert choice.correct in (0, 1) and choice.correct_norm in (0, 1) and (choice.logprob or 0) < 0
    assert word.benchmark == "lambada" and word.chance == 0 and word.correct_norm is None
    whole = capability.summarise(records)
    summary = whole.benchmarks
    right = [record.correct for record in records[:6]]
    assert asdict(summary["arc_easy"]) == {
        **{"n": 6, "accuracy": sum(right) / 6, "chance": pytest.approx(1 / 3), "perplexity": None}
    }
    mean = sum(record.logprob or 0 for record in records[6:]) / 4
    assert summary["lambada"].perplexity == pytest.approx(math.exp(-mean))
    both = summary["arc_easy"].accuracy + summary["lambada"].accuracy
    assert whole.mean == pytest.approx(both / 2)


def test_the_logprob_is_that_of_the_right_choice(tiny: Path, small: None) -> None:
    chat = model(tiny)
    (record,) = [row for row in harness.evaluate(chat, {"arc_easy": 0}, 4, 0) if row.item == 7]
    ((value, _),) = likelihoods(HFLM, chat, [("Question: what is 7?\nAnswer:", " rain")])
    assert record.logprob == pytest.approx(value, abs=1e-3)


def world(folder: Path) -> list[str]:
    """What a run must leave as it was: the global generators and the files."""
    return [repr(np.random.get_state()), str(torch.get_rng_state().tolist()), *map(str, sorted(folder.rglob("*")))]


def test_nothing_is_printed_or_left_and_nothing_is_seeded(
    tiny: Path, small: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    chat = model(tiny)
    capfd.readouterr()
    before = world(tmp_path)
    harness.evaluate(chat, {"arc_easy": 3, "lambada": 3}, 4, 0)
    assert capfd.readouterr() == ("", "")
    assert before == world(tmp_path)


@pytest.mark.parametrize("name", ["arc_easie", "copa"])
def test_a_benchmark_that_cannot_be_had_names_the_embedded_ones(tiny: Path, name: str) -> None:
    """The first is no task of the harness, the second needs a hub, which tests have not."""
    with pytest.raises(BadInput, match=f"The benchmark {name} cannot be loaded") as caught:
        harness.evaluate(model(tiny), {name: 5}, 4, 0)
    assert "arc_easy" in caught.value.fix and "\n" not in caught.value.what


def own(folder: Path, **changes: Any) -> str:
    rows = [{"question": f"What is {i}?", "choices": ["a cat", "two dogs"], "answer": i % 2} for i in range(6)]
    write_jsonl(folder / "quiz.jsonl", rows)
    task = yaml.safe_load(capability.EXAMPLE.split("\n", 1)[1]) | changes
    (folder / "my_quiz.yaml").write_text(yaml.safe_dump(task))
    return str(folder / "my_quiz.yaml")


def test_a_benchmark_of_ones_own_is_ten_lines_over_a_jsonl_beside_it(tiny: Path, tmp_path: Path) -> None:
    chat, name = model(tiny), own(tmp_path)
    records = harness.evaluate(chat, {name: 4}, 4, 0)
    assert [record.benchmark for record in records] == ["my_quiz"] * 4 and records[0].chance == 0.5
    ((value, _),) = likelihoods(HFLM, chat, [(f"What is {records[0].item}?\nAnswer:", " a cat")])
    right = int(records[0].item) % 2 == 0
    assert not right or records[0].logprob == pytest.approx(value, abs=1e-3)
    assert "What is 3?" in harness.texts(name)[3]
    before = capability.files(name)
    (tmp_path / "quiz.jsonl").write_text((tmp_path / "quiz.jsonl").read_text().replace("cat", "cow"))
    assert before != capability.files(name) and capability.files("arc_easy") == []


def test_what_is_wrong_with_it_is_one_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml"):
        harness.evaluate(model(tiny), {str(tmp_path / "none.yaml"): 4}, 4, 0)
    with pytest.raises(BadInput, match="names no data_files"):
        harness.evaluate(model(tiny), {own(tmp_path, dataset_kwargs={}): 4}, 4, 0)
    with pytest.raises(BadInput, match=r"nothing\.jsonl does not exist"):
        harness.evaluate(
            model(tiny), {own(tmp_path, dataset_kwargs={"data_files": {"test": "nothing.jsonl"}}): 4}, 4, 0
        )
    with pytest.raises(BadInput, match="cannot be loaded"):
        harness.evaluate(model(tiny), {own(tmp_path, output_type="dance"): 4}, 4, 0)
    with pytest.raises(BadInput, match="not valid YAML"):
        (tmp_path / "bad.yaml").write_text("a: [")
        harness.evaluate(model(tiny), {str(tmp_path / "bad.yaml"): 4}, 4, 0)


def test_the_embedded_model_is_better_than_chance() -> None:
    if os.environ.get("MOLTLM_OFFLINE_TESTS") and not all(state.present for state in assets.status()):
        pytest.skip("the embedded assets are not fetched: molt assets pull")
    folder = assets.model_path(assets.MODEL)
    assert folder is not None
    chat = model(folder, dtype=torch.bfloat16)
    summary = capability.summarise(harness.evaluate(chat, {"arc_easy": 24, "lambada": 8}, 16, seed=0)).benchmarks
    # 0.58 and 44 when this was written; a model that knows nothing has 0.25 and thousands
    assert summary["arc_easy"].accuracy > 0.4 and (summary["lambada"].perplexity or math.inf) < 300
