"""Jobs as tasks of a Ray cluster, whose nodes need share no folder.

A job gets the stored artifacts that it reads, runs in a temporary folder of its node, and sends back what it made. The
process that asked writes each artifact into the run, whole or not at all. So a job whose node dies leaves nothing
behind, and Ray runs it again on another node.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import discard, publish
from moltlm.pipeline import storage
from moltlm.pipeline.config import Config
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import MARK, Artifact, Run
from moltlm.pipeline.studies.engine import Job, awaits

try:
    import ray
    from ray import exceptions
except ImportError:
    raise BadInput(
        "Ray is not installed, so there is no --engine ray.", "Install it: pip install 'ray>=2.50,<3'"
    ) from None

RETRIES = 5
"""How often a job is begun again whose node was lost, or whose process was killed, as by a lack of memory."""
RESUME = "Run the same command again: what is finished is not repeated."
Packed = dict[str, bytes]
"""Artifacts as tar archives, by their folders within the run."""


@dataclass(frozen=True)
class Result:
    """What came of a job: the artifacts that it made, or what was wrong.

    Attributes:
        problem: the type, text and fix of an error that a user can mend; None if there was none.
    """

    node: str
    seconds: float
    artifacts: Packed
    problem: tuple[type[MoltError], str, str] | None = None


@dataclass
class Cluster:
    """An engine that runs each job once on the nodes of a Ray cluster, as many at a time as there is room for.

    Attributes:
        cpus: processors of each job.
        gpus: GPUs of each job.
    """

    cpus: float
    gpus: float
    _sent: dict[str, Any] = field(default_factory=dict)  # references to artifacts in the cluster, by folder

    def __call__(self, run: Run, jobs: Sequence[Job]) -> None:
        """Run the jobs whose artifacts are not stored. What is finished is stored, also when another job fails.

        A job waits for a running one that makes first what it needs first.

        Raises:
            MoltError: if a job fails, if its node is lost more than `RETRIES` times, or if a node makes something else
                than this process would.
        """
        running = dict[Any, tuple[Job, str]]()
        try:
            waiting = self._begin(run, jobs, running)
            while running:
                (reference, *_), _ = ray.wait(list(running), num_returns=1)
                job, _ = running.pop(reference)
                result = _result_of(job, reference)
                _store(run, result.artifacts)
                _check(run, job, result)
                left = len(running) + len(waiting)
                run.console.stage(job.label, f"done in {result.seconds:.0f} s on {result.node}, {left} left")
                waiting = self._begin(run, waiting, running)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _begin(self, run: Run, jobs: Sequence[Job], running: dict[Any, tuple[Job, str]]) -> list[Job]:
        """Submit the jobs that wait for no running one, and return those that do."""
        waiting = []
        for job in jobs:
            missing, needed = awaits(run, job)
            if missing in [first for _, first in running.values()]:
                waiting.append(job)
            elif missing is not None:
                run.start_writing()
                running[self._submit(run, job, needed)] = (job, missing)
        return waiting

    def _submit(self, run: Run, job: Job, needed: list[Artifact]) -> Any:
        for artifact in needed:
            name = _name(run, artifact)
            if name not in self._sent:
                self._sent[name] = ray.put(_pack(artifact.folder))
        options = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
        }
        task = ray.remote(**options)(work)
        inputs = {_name(run, artifact): self._sent[_name(run, artifact)] for artifact in needed}
        return task.remote(run.config, inputs, job, str(Path.cwd()))


def connect(cpus: float = 1, gpus: float | None = None) -> Cluster:
    """Connect to the cluster of RAY_ADDRESS, or one that runs on this machine, or else start one on this machine alone.

    Raises:
        BadInput: if the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to a server
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"No Ray cluster answers: {str(error).splitlines()[0]}",
                "Look at it: ray status   or: unset RAY_ADDRESS",
            ) from None
    most = {kind: max(_amounts(kind), default=0) for kind in ("CPU", "GPU")}
    gpus = min(1, most["GPU"]) if gpus is None else gpus
    for kind, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > most[kind]:
            raise BadInput(
                f"No node of the cluster has {wanted:g} {kind}s: the largest has {most[kind]:g}.",
                f"Ask for less: --job-{kind.lower()}s {most[kind]:g}",
            )
    return Cluster(cpus, gpus)


def _amounts(kind: str) -> list[float]:
    return [node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"]]


def work(config: Config, inputs: dict[str, Any], job: Job, working_folder: str) -> Result:
    """Run a job on a node, in a folder of its own.

    Args:
        inputs: references to the packed artifacts that the job reads, by their folders within the run.
        working_folder: that of the process that asked, which relative paths start from; used where the node has it.
    """
    if Path(working_folder).is_dir():
        os.chdir(working_folder)
    node, start = socket.gethostname(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="moltlm-job-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "run"
        run = Run(config.model_copy(update={"run": config.run.model_copy(update={"folder": folder})}), Console())
        for name, packed in zip(inputs, ray.get(list(inputs.values())), strict=True):
            _unpack(packed, folder / name)
        try:
            job(run)
        except MoltError as error:
            return Result(node, time.monotonic() - start, {}, (type(error), error.what, error.fix))
        finally:
            run.close()
        names = {_name(run, artifact): artifact.folder for artifact in run.artifacts.values()}
        artifacts = {name: _pack(folder) for name, folder in names.items() if name not in inputs}
    return Result(node, time.monotonic() - start, artifacts)


def _result_of(job: Job, reference: Any) -> Result:
    try:
        result = cast(Result, ray.get(reference))
    except exceptions.RayTaskError as error:
        raise MoltError(
            f"{job.label} failed on a node: {str(error.cause) or type(error.cause).__name__}", RESUME
        ) from error
    except exceptions.RayError as error:
        what = str(error).strip().splitlines()[0]
        raise MoltError(f"{job.label} lost its node, and was begun {RETRIES + 1} times: {what}", RESUME) from error
    if result.problem:
        kind, what, fix = result.problem
        raise kind(f"{job.label}, on {result.node}: {what}", fix)
    return result


def _check(run: Run, job: Job, result: Result) -> None:
    """Raises MoltError if a job's artifact is not the one that this process asks for."""
    if awaits(run, job)[0] is not None:
        made = ", ".join(result.artifacts) or "nothing"
        raise MoltError(
            f"{result.node} made {made} of {job.label}, which is something else than it would be here.",
            "Install the same moltlm on all nodes, and put the same files at the paths that the config names.",
        )


def _name(run: Run, artifact: Artifact) -> str:
    return str(artifact.folder.relative_to(run.folder))


def _store(run: Run, artifacts: Packed) -> None:
    """Write artifacts into the run, each whole or not at all, in place of what an interrupted attempt left."""
    for name, packed in artifacts.items():
        target = run.folder / name
        if (target / MARK).is_file():
            discard(target)
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _unpack(packed, partial)
            publish(partial, target)


def _pack(folder: Path) -> bytes:
    out = io.BytesIO()
    storage.pack(folder, out)
    return out.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    storage.unpack(io.BytesIO(packed), folder)
