"""Jobs on a Ray cluster of two nodes: the same records as here, each once, also when a node is killed."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import molt
from test_grid import FILE

from moltlm.data.errors import BadInput, MoltError
from moltlm.pipeline import config
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.studies import comparison, grid
from moltlm.pipeline.studies.engine import Job

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.50,<3'")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from moltlm.pipeline.studies import cluster  # noqa: E402

pytestmark = pytest.mark.slow  # nodes of Ray that start beside other busy processes can miss its limit of 30 s

# a node that stops answering is given up after some seconds, not after half a minute, and jobs are as urgent as the test
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
    "worker_niceness": 0,
}
SMALL: dict[str, Any] = {
    **FILE,
    "arms": {"lora": FILE["arms"]["lora"], "full": FILE["arms"]["full"]},
    "positive_control": None,
    "composite": {},
    "checkpoints": [3],
}
OF_A_MACHINE = {"seconds", "train_s", "peak_gib", "files", "sha256"}
"""What another machine, or another minute, makes different: the last two are hashes of files with the first ones."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One node with one processor. Functions of this module travel with the jobs, as nodes cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK}
    started = Nodes(initialize_head=True, head_node_args=head)
    ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture
def open_run(tiny_project: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Opens runs of the tiny project, each in a folder of its own."""
    runs: list[Run] = []

    def opened(name: str, *overrides: str) -> Run:
        settings = config.load(str(tiny_project / "project.yaml"), [*overrides, f"run.folder={tmp_path / name}"])
        runs.append(Run(settings, Console()))
        return runs[-1]

    yield opened
    for run in runs:
        run.close()


def logged(run: Run, log: str, job: Job) -> Any:
    """Run a job, and write down where it begins and ends."""
    if run.only_read:
        return job(run)
    where = ray.get_runtime_context().get_node_id()
    with Path(log).open("a") as out:
        out.write(f"begin|{job.label}|{where}\n")
    result = job(run)
    with Path(log).open("a") as out:
        out.write(f"end|{job.label}|{where}\n")
    return result


def lines_of(log: Path, kind: str) -> list[tuple[str, str]]:
    rows = [line.split("|") for line in log.read_text().splitlines()] if log.is_file() else []
    return [(label, node) for name, label, node in rows if name == kind]


def kill_when_busy(nodes: Nodes, node: Any, log: Path, killed: list[str]) -> None:
    """Kill a node as soon as it has finished one job and works at another."""
    while True:
        begun, ended = (
            [label for label, where in lines_of(log, kind) if where == node.node_id] for kind in ("begin", "end")
        )
        if ended and set(begun) - set(ended):
            nodes.remove_node(node, allow_graceful=False)
            killed.extend(set(begun) - set(ended))
            return
        time.sleep(0.01)


def records_of(run: Run) -> dict[str, Any]:
    """Every file of the run's artifacts but weights, without what measures the machine."""
    contents = {}
    for file in sorted(run.folder.glob("*/*/*.json*")):
        rows = (
            [json.loads(line) for line in file.read_text().splitlines()]
            if file.suffix == ".jsonl"
            else [json.loads(file.read_text())]
        )
        contents[str(file.relative_to(run.folder))] = [_without_times(row) for row in rows]
    return contents


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in OF_A_MACHINE}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def test_a_grid_has_the_same_records_though_a_node_is_killed(
    nodes: Nodes, open_run: Callable[..., Run], tmp_path: Path
) -> None:
    file, log = tmp_path / "h1.yaml", tmp_path / "log"
    file.write_text(yaml.safe_dump(SMALL))
    here, there = (open_run(name, "tasks={}", "sequence={}") for name in ("here", "there"))
    expected = grid.verdict(here, str(file))
    engine = cluster.connect(cpus=1, gpus=0)

    def logging_engine(run: Run, jobs: Sequence[Job]) -> None:
        engine(run, [Job(job.label, logged, (str(log), job)) for job in jobs])

    lost = nodes.add_node(num_cpus=1)
    killed: list[str] = []
    killer = threading.Thread(target=kill_when_busy, args=(nodes, lost, log, killed), daemon=True)
    killer.start()
    result = grid.verdict(there, str(file), logging_engine)
    killer.join(timeout=1)
    begun, ended = ([label for label, _ in lines_of(log, kind)] for kind in ("begin", "end"))
    assert len(killed) == 1 and len({where for _, where in lines_of(log, "end")}) > 1
    assert sorted(begun) == sorted([*set(begun), *killed])  # each once, and what was killed once more
    assert set(ended) == set(begun)
    assert (result.fingerprint, result.facts) == (expected.fingerprint, expected.facts)
    assert records_of(there) == records_of(here)
    assert not list(there.folder.rglob("*.partial"))
    before = log.read_text()
    grid.verdict(there, str(file), logging_engine)
    assert log.read_text() == before


def test_methods_that_share_a_training_have_it_made_once(nodes: Nodes, open_run: Callable[..., Run]) -> None:
    changes = (
        'sequence.methods={"plain": {"protect.layout": "shared"}, "routed": {}, "arrow": {"router.method": "arrow"}}'
    )
    here, there = (open_run(name, changes, "sequence.seeds=[0]") for name in ("here", "there"))
    expected = comparison.compare(here).rows
    said: list[str] = []
    there.console.stage = lambda name, note: said.append(f"{name}: {note}")  # type: ignore[method-assign]
    rows = comparison.compare(there, engine=cluster.connect(cpus=1, gpus=0)).rows
    assert [_without_times(vars(row)) for row in rows] == [_without_times(vars(row)) for row in expected]
    assert records_of(there) == records_of(here)
    assert sorted(line.partition(":")[0] for line in said if "done in" in line) == [
        "arrow, seed 0", "before any task, seed 0", "plain, seed 0", "routed, seed 0",
    ]  # fmt: skip


def made_of(run: Run, number: int) -> Artifact:
    def make(folder: Path) -> dict[str, Any]:
        if number < 0:
            raise BadInput("The number is negative.", "Name another one.")
        if number > 100:
            raise ValueError("too large")
        return {"root": number**0.5}

    return run.do("job", {"number": number}, make)


def made_of_here(run: Run) -> Artifact:
    return run.do("job", {"folder": str(run.folder)}, lambda folder: {})


def test_an_error_names_the_job_and_what_is_finished_stays(nodes: Nodes, open_run: Callable[..., Run]) -> None:
    run, engine = open_run("run"), cluster.connect(cpus=1, gpus=0)
    engine(run, [Job("four", made_of, (4,)), Job("four again", made_of, (4,))])
    (stored,) = run.stored("job")
    assert json.loads((stored / "artifact.json").read_text())["facts"] == {"root": 2}
    with pytest.raises(BadInput, match=r"^minus, on .*: The number is negative\.$") as raised:
        engine(run, [Job("minus", made_of, (-1,))])
    assert raised.value.fix == "Name another one."
    with pytest.raises(MoltError, match="large failed on a node: too large"):
        engine(run, [Job("large", made_of, (101,))])
    with pytest.raises(MoltError, match="something else than it would be here"):
        engine(run, [Job("elsewhere", made_of_here)])
    assert stored in run.stored("job")


def test_what_an_interrupted_attempt_left_is_not_in_the_way(nodes: Nodes, open_run: Callable[..., Run]) -> None:
    run, other = open_run("run"), open_run("other")
    expected = made_of(other, 9)
    left = run.folder / "job" / f"{expected.fingerprint}.partial"
    (left / "weights").mkdir(parents=True)
    (left / "weights" / "half").touch()
    cluster.connect(cpus=1, gpus=0)(run, [Job("nine", made_of, (9,))])
    assert records_of(run) == records_of(other)
    assert not left.exists() and not (run.folder / "job" / expected.fingerprint / "weights").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "slurm"], "There is no engine slurm"),
        (["--engine", "ray", "--job-cpus", "64"], "No node of the cluster has 64 CPUs: the largest has 1"),
        (["--engine", "ray", "--job-gpus", "1"], "No node of the cluster has 1 GPUs: the largest has 0"),
    ],
)
def test_what_a_cluster_cannot_do_is_said_before_it_begins(
    nodes: Nodes,
    tiny_project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    folder = tmp_path / "run"
    for command in (["run"], ["hypothesis", "knowledge"], ["hypothesis", "run", "h014"], ["compare-methods"]):
        assert molt(*command, str(tiny_project / "project.yaml"), f"run.folder={folder}", *options) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert not folder.exists()
