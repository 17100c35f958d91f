"""Trainings that several processes share: two real ones over gloo give what one gives, and write once."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from moltlm.adapters import divided, processes
from moltlm.adapters.divided import Part
from moltlm.data.errors import BadInput
from moltlm.pipeline import config as configs
from tests import launched
from tests.conftest import talkative

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(configs.shipped("accelerate").glob("*.yaml"))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **more}


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def two_processes(model: Path, out: Path, action: str) -> list[subprocess.CompletedProcess[str]]:
    """Both, ended: with the environment that a launcher gives them, and without its own words."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.launched", str(model), str(out), action]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(**shared, RANK=str(number), LOCAL_RANK=str(number)),
        )
        for number in (0, 1)
    ]  # fmt: skip
    outputs = [each.communicate(timeout=900) for each in running]
    return [
        subprocess.CompletedProcess(command, each.returncode, *output)
        for each, output in zip(running, outputs, strict=True)
    ]


def in_two(model: Path, out: Path, action: str) -> None:
    for ended in two_processes(model, out, action):
        assert ended.returncode == 0, ended.stderr
        assert not ended.stdout


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `one`, the trainings in one process, and `two`, the same in two."""
    out = tmp_path_factory.mktemp("launched")
    launched.train(model, out / "one", launched.QUICK)
    launched.snapshot(model, out / "one")
    in_two(model, out / "two", "quick")
    launched.resumed(model, out / "one", out / "two" / "begun")
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def values(folder: Path, name: str) -> list[float]:
    return [row[name] for row in rows(folder)]


def assert_same(first: Path, second: Path) -> None:
    """Losses, gradients and weights, and each step once."""
    for name in ("step", "loss", "grad_norm"):
        assert values(second, name) == pytest.approx(values(first, name), rel=1e-5, abs=1e-5), name
    one, two = (load_file(each / "adapter_model.safetensors") for each in (first, second))
    assert one.keys() == two.keys()
    # as a whole: Adam divides a gradient by its own size, so where one is almost zero its last digits count
    flat = [torch.cat([weights[key].flatten() for key in one]) for weights in (one, two)]
    assert float((flat[0] - flat[1]).norm() / flat[0].norm()) < 1e-5


@pytest.mark.parametrize("name", launched.QUICK)
def test_two_processes_give_what_one_gives(folder: Path, name: str) -> None:
    assert_same(folder / "one" / name, folder / "two" / name)


@pytest.mark.slow
def test_two_processes_give_what_one_gives_with_each_protection(model: Path, tmp_path: Path) -> None:
    """CorDA begins with two large halves that take each other off: what is left of them has fewer digits."""
    launched.train(model, tmp_path / "one", launched.EVERY)
    in_two(model, tmp_path / "two", "every")
    for name in launched.EVERY:
        if name == "task with corda":
            found = [values(tmp_path / each / name, "loss") for each in ("one", "two")]
            assert found[0] == pytest.approx(found[1], rel=1e-3)
        else:
            assert_same(tmp_path / "one" / name, tmp_path / "two" / name)


def test_other_metrics_are_those_of_the_whole_batch(folder: Path) -> None:
    preferences = ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens")
    expected = {"dpo": preferences, "dpo with a last pair alone": preferences, "sft": ("mean_token_accuracy",)}
    for training, names in expected.items():
        for name in names:
            first, second = (values(folder / each / training, name) for each in ("one", "two"))
            assert second == pytest.approx(first, rel=1e-4, abs=1e-5), (training, name)


@pytest.mark.parametrize("count", ["one", "two"])
def test_checkpoints_resume_at_another_count_of_processes(folder: Path, count: str) -> None:
    """From checkpoints of the other count, with the steps after the last one repeated and each logged once."""
    assert_same(folder / "one" / "whole", folder / count / "resumed")


def test_only_the_first_process_writes(folder: Path) -> None:
    for name in ("dpo", "task with many protections"):
        names = [sorted(path.name for path in (folder / each / name).iterdir()) for each in ("one", "two")]
        assert names[0] == names[1]
    stored = [{path.name for path in (folder / each / "references").iterdir()} for each in ("one", "two")]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_in_one_process_ends_all_and_is_told_once(model: Path, tmp_path: Path, number: int) -> None:
    ended = two_processes(model, tmp_path, f"fail-{number}")
    assert all(each.returncode for each in ended)
    assert "".join(each.stderr for each in ended).strip() == f"error: Process {number + 1} is out of luck."


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.data())
def test_the_parts_of_a_step_are_all_its_rows_once(
    count: int, accumulation: int, share: int, data: st.DataObject
) -> None:
    """And even, if the batch can be divided. At the end of an epoch there are fewer batches, and the last is smaller."""
    size = share * count // math.gcd(accumulation, count)
    sizes = [size] * data.draw(st.integers(0, accumulation - 1)) + [data.draw(st.integers(1, size))]
    for place, rows in enumerate(sizes):
        parts = [divided.rows_of(process, count, place, accumulation, rows) for process in range(count)]
        assert sorted(row for part in parts for row in part) == list(range(rows))
        assert sum(part.start == 0 and bool(part) for part in parts) == 1
    whole = [
        sum(len(divided.rows_of(process, count, place, accumulation, size)) for place in range(accumulation))
        for process in range(count)
    ]
    assert set(whole) == {size * accumulation // count}


def test_merged_metrics_are_weighted_by_rows() -> None:
    name, whole = "mean_token_accuracy", Part(1.0, 1.0, True)
    first = ({"reward": [1.0, 2.0], name: [0.5, 1.0], "num_tokens": [10], "penalty": [5.0]}, [Part(0.75, 0.5), whole])
    second = ({"reward": [3.0], name: [1.0], "num_tokens": [30]}, [Part(0.25, 0.5)])
    merged = divided.merged([first, second])
    assert merged == {"reward": 1.75, name: 0.875, "num_tokens": 40, "penalty": 5.0}


def test_alone_a_process_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under a launcher that has started no other."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    with processes.joined() as launch:
        assert launch is None
    assert processes.count() == 1 and processes.is_first()
    assert Part(1.0, 1.0, True) == divided.WHOLE


def test_a_batch_that_cannot_be_divided_is_refused_with_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_launch", processes.Launch(0, 4, None))
    processes.check_divides(8, "personality.batch_size")
    with pytest.raises(BadInput, match=r"=6 cannot be divided over 4 processes") as error:
        processes.check_divides(6, "personality.batch_size")
    assert error.value.fix == "Start 2, 3 or 6 processes: --num_processes 2; or set personality.batch_size=8"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_accelerate_reads_the_shipped_configs(file: Path) -> None:
    read: Any = load_config_from_file(str(file))
    assert read.num_processes == 2
    assert read.mixed_precision == "no"  # what is computed in which precision is the run's own setting


def accelerate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED[0])]
    command += ["--main_process_port", free_port(), "-m", "moltlm.pipeline.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)


def test_a_batch_that_cannot_be_divided_ends_the_command_at_once(tiny_project: Path) -> None:
    name = str(tiny_project / "project.yaml")
    ended = accelerate("train", "personality", name, "personality.batch_size=3")
    assert ended.returncode
    assert ended.stderr.count("personality.batch_size=3 cannot be divided over 2 processes.") == 1


@pytest.mark.slow
def test_accelerate_launch_runs_a_command_in_two_processes(tiny_project: Path, tmp_path: Path) -> None:
    name = str(tiny_project / "project.yaml")
    folders = {count: tmp_path / count for count in ("one", "two")}
    alone = [sys.executable, "-m", "moltlm.pipeline.cli", "train", "task", "reminders", name]
    subprocess.run([*alone, f"run.folder={folders['one']}"], cwd=ROOT, env=environment(), check=True)
    ended = accelerate("train", "task", "reminders", name, f"run.folder={folders['two']}")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("personality  done") == 1
    for stage in ("personality", "task-reminders"):
        one, two = (list((each / stage).iterdir()) for each in folders.values())
        assert [path.name for path in one] == [path.name for path in two]  # one artifact of the same inputs
        assert_same(one[0], two[0])
    assert len((folders["two"] / "invocations.jsonl").read_text().splitlines()) == 1
