"""General ability, item by item, with lm-evaluation-harness as the engine and the model that is in memory."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from data import assets
from data.errors import BadInput
from data.io import batches, read_jsonl, write_jsonl
from data.types import ChatModel, Progress, silent

BENCHMARKS = Path(__file__).with_name("benchmarks")


class CompactLM(HFLM):
    """The harness's model with one change: only positions of a continuation are projected onto the vocabulary, and
    their softmax is taken in fp32. Log-likelihoods agree with HFLM's to 1e-3 in fp32."""

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        for group in batches(order, int(self.batch_size)):
            rows = [(requests[i][1] + requests[i][2])[-(self.max_length + 1) :][:-1] for i in group]
            wanted = [requests[i][2] for i in group]
            for i, logits, target in zip(group, self._tails(rows, max(map(len, wanted))), wanted, strict=True):
                log_probs = torch.log_softmax(logits[-len(target) :].float(), -1)
                tokens = torch.tensor(target, device=log_probs.device)
                total = log_probs.gather(1, tokens[:, None]).sum()
                found[i] = (float(total), bool((log_probs.argmax(-1) == tokens).all()))
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], found[i])
        return [found[i] for i in range(len(requests))]

    @torch.no_grad()
    def _tails(self, rows: list[list[int]], keep: int) -> torch.Tensor:
        """(rows, keep, vocabulary) logits of the last `keep` positions, rows padded on the left."""
        width = max(map(len, rows))
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
        )
        return out.logits


def embedded() -> list[str]:
    return sorted(path.stem for path in BENCHMARKS.glob("*.yaml"))


def evaluate(
    model: ChatModel,
    items: dict[str, int],
    batch_size: int,
    seed: int,
    progress: Progress = silent,
    engine: type[HFLM] = CompactLM,
) -> list[dict[str, Any]]:
    """One record for each item, in the model's current state.

    `items` maps a benchmark to the number of items, 0 for all. An embedded benchmark gives a sample drawn by `seed`,
    the same for every state; any other name is one of the harness's own tasks (its first items; needs a hub).
    `correct` is `acc`, `logprob` the log-likelihood in nats of the right continuation.
    """
    lm = engine(
        pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size, device=str(model.model.device)
    )
    records: list[dict[str, Any]] = []
    for number, (name, count) in enumerate(items.items()):
        progress(number, len(items), name)
        records += _run(lm, name, count, seed)
    progress(len(items), len(items), "")
    return records


def summarise(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By benchmark: n, accuracy, chance, LAMBADA's perplexity of the last word; and the plain mean of accuracies."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(record["benchmark"] for record in records):
        rows = [record for record in records if record["benchmark"] == name]
        found[name] = {
            "n": len(rows),
            "accuracy": float(np.mean([row["correct"] for row in rows])),
            "chance": float(np.mean([row["chance"] for row in rows])),
        }
        if name.startswith("lambada"):
            found[name]["perplexity"] = float(np.exp(-np.mean([row["logprob"] for row in rows])))
    found["mean"] = {"accuracy": float(np.mean([row["accuracy"] for row in found.values()]))}
    return found


def _run(lm: HFLM, name: str, count: int, seed: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        if name in embedded():
            task, limit = _embedded_task(name, count, seed, Path(folder)), None
            manager = TaskManager(include_defaults=False)
        else:
            task, limit, manager = name, count or None, TaskManager()
        try:
            found = simple_evaluate(
                lm, tasks=[task], task_manager=manager, limit=limit, log_samples=True, bootstrap_iters=0
            )
        except (KeyError, ValueError, OSError) as error:
            raise BadInput(
                f"The benchmark {name} cannot be loaded: {error}", f"Embedded are: {', '.join(embedded())}."
            ) from error
    assert found is not None
    return [_record(name, sample) for samples in found["samples"].values() for sample in samples]


def _embedded_task(name: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """The benchmark's own YAML, on a file that holds just the sampled items."""
    rows = read_jsonl(assets.benchmark_path(name))
    order = np.random.default_rng(seed).permutation(len(rows))[: count or len(rows)]
    path = folder / f"{name}.jsonl"
    write_jsonl(path, (rows[i] for i in order))
    task = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text(encoding="utf-8"))
    return {**task, "dataset_kwargs": {"data_files": {"test": str(path)}}}


def _record(name: str, sample: dict[str, Any]) -> dict[str, Any]:
    answers = [response[0] if isinstance(response, list) else response for response in sample["filtered_resps"]]
    choices = sample["doc"].get("choices") if len(answers) > 1 else None
    gold = int(sample["target"]) if choices else 0
    return {
        "benchmark": name,
        "item": sample["doc"].get("id", sample["doc_id"]),
        "correct": int(sample["acc"]),
        "correct_norm": int(sample["acc_norm"]) if "acc_norm" in sample else None,
        "logprob": float(sample["filtered_resps"][gold][0]),
        "chance": 1 / len(answers) if choices else 0.0,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness logs, prints and draws bars; its errors are raised."""
    import datasets

    datasets.disable_progress_bars()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
