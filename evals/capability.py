"""General ability: which benchmarks there are, what identifies them, and summaries of their items. `evals.harness`
measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moltlm.data.errors import BadInput
from moltlm.data.io import read_yaml, sha256_tree
from moltlm.evals.records import ItemRecord

BENCHMARKS = Path(__file__).with_name("benchmarks")
EXAMPLE = """a task of lm-evaluation-harness:
task: my_quiz
dataset_path: json
dataset_kwargs: {data_files: {test: quiz.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]"""


def embedded() -> list[str]:
    """The names of the benchmarks that are installed with moltlm."""
    return sorted(path.stem for path in BENCHMARKS.glob("*.yaml"))


def label(name: str) -> str:
    """The name of a benchmark in records: of a file, its stem."""
    return Path(name).stem if is_file(name) else name


def files(name: str) -> list[list[str]]:
    """Name and hash of a benchmark file and of its data files; empty for any other benchmark."""
    if not is_file(name):
        return []
    return [row for path in [Path(name).expanduser(), *_data(read_task(name))] for row in sha256_tree(path)]


def is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def read_task(name: str) -> dict[str, Any]:
    """A task of the harness from a file; the paths of its data files are relative to that file."""
    path = Path(name).expanduser()
    task = read_yaml(path, "benchmark")
    kwargs: Any = task.get("dataset_kwargs") if isinstance(task, dict) else None
    data = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if not isinstance(data, dict) or not data:
        raise BadInput(f"benchmark {path}: dataset_kwargs names no data_files.", f"Write them as in {EXAMPLE}")
    paths = {split: _relative_to(path, names) for split, names in data.items()}
    return {"task": path.stem, **task, "dataset_kwargs": {**kwargs, "data_files": paths}}


def _relative_to(path: Path, names: Any) -> list[str]:
    each = names if isinstance(names, list) else [names]
    return [str(path.parent / Path(str(name)).expanduser()) for name in each]


def _data(task: dict[str, Any]) -> list[Path]:
    return [Path(name) for names in task["dataset_kwargs"]["data_files"].values() for name in names]


@dataclass(frozen=True)
class BenchmarkSummary:
    """One benchmark: items, accuracy and chance (0..1), and perplexity of the last word (of LAMBADA, else None)."""

    n: int
    accuracy: float
    chance: float
    perplexity: float | None = None


@dataclass(frozen=True)
class CapabilitySummary:
    """Each benchmark by name, and the plain mean of their accuracies."""

    benchmarks: dict[str, BenchmarkSummary]
    mean: float


def summarise(records: Sequence[ItemRecord]) -> CapabilitySummary:
    """Summarise the items of one state."""
    groups: dict[str, list[ItemRecord]] = {}
    for record in records:
        groups.setdefault(record.benchmark, []).append(record)
    benchmarks = {name: _summary(name, group) for name, group in groups.items()}
    return CapabilitySummary(benchmarks, float(np.mean([summary.accuracy for summary in benchmarks.values()])))


def _summary(name: str, records: list[ItemRecord]) -> BenchmarkSummary:
    logprobs = [record.logprob for record in records if record.logprob is not None]
    return BenchmarkSummary(
        n=len(records),
        accuracy=float(np.mean([record.correct for record in records])),
        chance=float(np.mean([record.chance for record in records])),
        perplexity=float(np.exp(-np.mean(logprobs))) if name.startswith("lambada") and logprobs else None,
    )
