"""Measuring general ability, item by item, by lm-evaluation-harness on the model that is in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate as run_harness
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from moltlm.data import assets, memory, packing
from moltlm.data.errors import BadInput
from moltlm.data.io import batches
from moltlm.data.prompted import prompted
from moltlm.data.types import ChatModel, Progress, silent
from moltlm.evals.capability import BENCHMARKS, EXAMPLE, embedded, files, is_file, label, read_task
from moltlm.evals.records import ItemRecord

SHARING = ("llama",)
"""Architectures that accept an attention mask with one row for each token."""


# its decorator hides its type from type checkers
_HFLM: Any = HFLM


class SharedContextLM(_HFLM):
    """The harness's model with faster likelihoods, which agree with the harness's to 1e-3 nats in fp32.

    The choices of a question go through the model with their context once: on a CPU packed (`data.packing`), else in
    one row in which each choice sees the context and itself (tree attention, SpecInfer, arXiv:2305.09781). Only the
    positions that predict a choice are projected onto the vocabulary, and their softmax is taken in fp32.
    """

    progress: Progress = staticmethod(silent)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if packing.possible(self.model):
            return self._packed(requests)
        rows = sorted(self._rows(requests), key=lambda row: -len(row.tokens))
        at_once = max(1, int(self.batch_size) // max(len(row.reads) for row in rows))
        scores: dict[int, tuple[float, bool]] = {}
        for group in batches(rows, at_once):
            for part in memory.in_parts(lambda rows: self._row_scores(list(rows), requests), group):
                scores |= part
            self.progress(len(scores), len(requests), "")
        return [scores[i] for i in range(len(requests))]

    def _row_scores(self, rows: list[_Row], requests: list[Any]) -> list[dict[int, tuple[float, bool]]]:
        """For each row, the scores of the requests that it answers, by their index."""
        first, logits = self._forward(rows)
        return [
            {
                i: _score(values[[column - first for column in columns]], requests[i][2])
                for i, columns in row.reads.items()
            }
            for row, values in zip(rows, logits, strict=True)
        ]

    @torch.no_grad()
    def _packed(self, requests: list[Any]) -> list[tuple[float, bool]]:
        rows = [(context[-(self.max_length + 1 - len(end)) :], end) for _, context, end in requests]
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i][0]), rows[i][0]))
        scores: dict[int, tuple[float, bool]] = {}
        for group in batches(order, int(self.batch_size)):
            scores.update(zip(group, memory.in_parts(self._packed_scores, [rows[i] for i in group]), strict=True))
            self.progress(len(scores), len(rows), "")
        return [scores[i] for i in range(len(rows))]

    def _packed_scores(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        logits = packing.completion_logits(self.model, list(rows))
        return [_score(values, row[1]) for values, row in zip(logits, rows, strict=True)]

    def _rows(self, requests: list[Any]) -> list[_Row]:
        """Requests grouped by context. One whose continuation is longer than its context stays alone: it would gain
        nothing."""
        config = self.model.config
        able = config.model_type in SHARING and config._attn_implementation in ("eager", "sdpa")
        groups: dict[tuple[tuple[int, ...], int], dict[int, list[int]]] = {}
        for i, (_, context, continuation) in enumerate(requests):
            truncated = tuple(context[-(self.max_length + 1 - len(continuation)) :])
            group = -1 if able and len(truncated) > len(continuation) else i
            groups.setdefault((truncated, group), {})[i] = continuation
        return [_pack(list(context), continuations) for (context, _), continuations in groups.items()]

    @torch.no_grad()
    def _forward(self, rows: list[_Row]) -> tuple[int, torch.Tensor]:
        """The first column that any row reads, and (rows, columns from there on, vocabulary) logits."""
        width = max(len(row.tokens) for row in rows)
        first = min(columns[0] for row in rows for columns in row.reads.values())
        inputs: dict[str, torch.Tensor] = {"input_ids": self._padded([row.tokens for row in rows], width)}
        if any(len(row.reads) > 1 for row in rows):
            branch = self._padded([row.branch for row in rows], width)
            inputs["position_ids"] = self._padded([row.positions for row in rows], width)
            visible = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
            hidden = ~visible.tril()[:, None]
            dtype = self.model.get_input_embeddings().weight.dtype
            mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            inputs["attention_mask"] = mask.masked_fill(hidden, torch.finfo(dtype).min)
        prompt_mask = self._padded([[1] * row.branch.count(0) for row in rows], width)
        with prompted(prompt_mask):
            return first, self.model(**inputs, use_cache=False, logits_to_keep=width - first).logits

    def _padded(self, values: list[list[int]], width: int) -> torch.Tensor:
        """Padded on the right, which causal attention never reads."""
        return torch.tensor([row + [0] * (width - len(row)) for row in values], device=self.device)


@dataclass(frozen=True)
class _Row:
    """A context and the continuations after it.

    Attributes:
        tokens: of the context, then of each continuation.
        positions: each continuation has the positions that it would have alone.
        branch: 0 for the context, 1, 2, ... for the continuations.
        reads: by the number of the request, the columns whose logits predict its continuation.
    """

    tokens: list[int]
    positions: list[int]
    branch: list[int]
    reads: dict[int, list[int]]


def _pack(context: list[int], continuations: dict[int, list[int]]) -> _Row:
    """A continuation's last token is predicted but predicts nothing, so it is left out."""
    end = len(context)
    row = _Row(list(context), list(range(end)), [0] * end, {})
    for number, (i, continuation) in enumerate(continuations.items(), start=1):
        start, more = len(row.tokens), len(continuation) - 1
        row.reads[i] = [end - 1, *range(start, start + more)]
        row.tokens.extend(continuation[:-1])
        row.positions.extend(range(end, end + more))
        row.branch.extend([number] * more)
    return row


def _score(logits: torch.Tensor, target: list[int]) -> tuple[float, bool]:
    """Log-likelihood of the target tokens in nats, and whether each of them is the likeliest."""
    log_probs = torch.log_softmax(logits.float(), -1)
    tokens = torch.tensor(target, device=logits.device)
    return float(log_probs.gather(1, tokens[:, None]).sum()), bool((log_probs.argmax(-1) == tokens).all())


def evaluate(
    model: ChatModel,
    items: dict[str, int],
    batch_size: int,
    seed: int,
    progress: Progress = silent,
    skip: int = 0,
    engine: Any = SharedContextLM,
) -> list[ItemRecord]:
    """Measure the model in its current state, one record for each item.

    Args:
        items: the number of items by benchmark, 0 for all. A benchmark is an embedded one; a YAML file with a task of
            lm-evaluation-harness; or the name of one of the harness's own tasks, which needs a hub.
        seed: samples the items; they are the same for every state.
        skip: leaves out that many of the sample's first items, so that it shares none with an earlier one.
        engine: HFLM measures without shared contexts, for comparison.

    Raises:
        BadInput: if a benchmark cannot be loaded.
    """
    with assets.quiet():
        samples = [_sample(name, count, seed, skip) for name, count in items.items()]
        lm = engine(pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size)
        total, records = sum(sample.size for sample in samples), []
        for sample in samples:
            progress(len(records), total, sample.name)
            lm.progress = _within(progress, len(records), total, sample)
            records += _run(lm, sample)
        progress(total, total, "")
    return records


def texts(name: str) -> list[str]:
    """The questions and choices of a benchmark, one text an item: what must not be trained on.

    Raises:
        BadInput: if the benchmark cannot be loaded.
    """
    with assets.quiet():
        docs = [doc for task in _tasks(name).values() for doc in task.eval_docs]
        return [" ".join(value for value in doc.values() if isinstance(value, str) and " " in value) for doc in docs]


@dataclass(frozen=True)
class _Sample:
    """A benchmark's tasks (several for a group such as mmlu), and the sampled items of each."""

    name: str
    tasks: dict[str, Any]
    items: dict[str, list[int]]

    @property
    def size(self) -> int:
        return sum(map(len, self.items.values()))


def _sample(name: str, count: int, seed: int, skip: int) -> _Sample:
    tasks = _tasks(name)
    every = [(task, i) for task, loaded in tasks.items() for i in range(len(loaded.eval_docs))]
    order = np.random.default_rng(seed).permutation(len(every))[skip : skip + count if count else None]
    if not len(order):
        raise BadInput(f"{name} has {len(every)} items, none after the first {skip}.", "Ask for fewer items.")
    items: dict[str, list[int]] = {}
    # the harness takes them in the order of its file, so a sorted list is the one whose numbers it gets right
    for task, i in sorted(every[k] for k in order):
        items.setdefault(task, []).append(i)
    return _Sample(label(name), {task: tasks[task] for task in items}, items)


def _tasks(name: str) -> dict[str, Any]:
    """The harness's tasks by name, read once for all states; again if their files change."""
    source = [[str(assets.benchmark_path(name))]] if name in embedded() else files(name)
    return _read_tasks(name, tuple(map(tuple, source)))


@lru_cache(maxsize=16)
def _read_tasks(name: str, contents: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _load_tasks(name, Path(folder))


def _load_tasks(name: str, folder: Path) -> dict[str, Any]:
    """`folder` takes the Arrow copy of a file, which would otherwise stay in the cache of `datasets` for ever; it is
    read into memory."""
    if name in embedded():
        task = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text(encoding="utf-8"))
        data = {"test": str(assets.benchmark_path(name))}
        task["dataset_kwargs"] = {"data_files": data, "cache_dir": str(folder), "keep_in_memory": True}
        return dict(TaskManager(include_defaults=False).load([task])["tasks"])
    others = f"Embedded are: {', '.join(embedded())}. Any other is a task of lm-evaluation-harness and needs a hub."
    task_or_name: str | dict[str, Any] = name
    if is_file(name):
        task_or_name, others = read_task(name), f"Compare it with {EXAMPLE}"
        task_or_name["dataset_kwargs"] |= {"cache_dir": str(folder), "keep_in_memory": True}
    try:
        manager = TaskManager(include_defaults=False) if is_file(name) else _harness()
        tasks: dict[str, Any] = dict(manager.load([task_or_name])["tasks"])
    except Exception as error:  # whatever a task's own code, the hub or a missing package raise
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(f"The benchmark {name} cannot be loaded: {why[0]}", others) from error
    for task in tasks.values():
        if not {"acc", "exact_match"} & set(task.aggregation()):
            raise BadInput(f"The benchmark {name} has no accuracy.", others)
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return tasks


@cache
def _harness() -> TaskManager:
    """All of the harness's own tasks. Building their index takes seconds."""
    return TaskManager()


def _within(progress: Progress, before: int, total: int, sample: _Sample) -> Progress:
    """Progress over the requests of one benchmark, in items of all."""
    return lambda finished, of, note: progress(before + sample.size * finished // of, total, sample.name)


def _run(lm: Any, sample: _Sample) -> list[ItemRecord]:
    # not `simple_evaluate`, which seeds the global random state and asks git and pip about the machine
    results: Any = run_harness(lm, {"tasks": sample.tasks}, samples=sample.items, bootstrap_iters=0)
    records = []
    for name, task in sample.tasks.items():
        rows = results["samples"][name]
        # a task that reads an answer in several ways logs each item several times; the first way counts
        for row in (row for row in rows if row["filter"] == rows[0]["filter"]):
            item = row["doc_id"] if len(sample.tasks) == 1 else f"{name}:{row['doc_id']}"
            records.append(_record(sample.name, item, task, row))
    return records


def _record(benchmark: str, item: str | int, task: Any, row: dict[str, Any]) -> ItemRecord:
    answers = row["filtered_resps"]
    choices = task.OUTPUT_TYPE == "multiple_choice"
    gold = (task.doc_to_text(row["doc"]) if task.multiple_input else row["target"]) if choices else 0
    scored = isinstance(gold, int) and isinstance(answers[0], tuple | list)
    return ItemRecord(
        benchmark=benchmark,
        item=item,
        correct=int(row["acc"] if "acc" in row else row["exact_match"]),
        correct_norm=int(row["acc_norm"]) if "acc_norm" in row else None,
        logprob=float(answers[gold][0]) if scored else None,
        chance=1 / len(answers) if choices else 0.0,
    )
