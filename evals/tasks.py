"""Task metrics: `evaluate` modules of our own, loaded by path so that no hub is asked."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import evaluate as hf_evaluate

from moltlm.data.config import TaskConfig
from moltlm.data.types import ChatModel, Progress, TaskExample, silent

METRICS = {
    "text": "text_exact_match",
    "json": "json_exact_match",
    "command": "command_exact_match",
    "template": "command_template_match",
}
USUAL = {"reminders": "json", "shell": "command", "jsonl": "text"}


@cache
def _metric(name: str) -> Any:
    return hf_evaluate.load(str(Path(__file__).with_name("metrics") / f"{name}.py"))


def score(task: TaskConfig, predictions: list[str], references: list[str]) -> list[int]:
    """1 for each prediction that is right by the task's metric, else 0."""
    found = _metric(METRICS[task.metric or USUAL[task.kind]]).compute(predictions=predictions, references=references)
    return found["items"]


def evaluate(
    model: ChatModel,
    task: TaskConfig,
    examples: list[TaskExample],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """One record for each example, answered greedily in the model's current state. Of a plain text nothing is right or
    wrong: `correct` is the geometric mean of its tokens' probabilities, one over the perplexity."""
    if task.kind == "text":
        texts = [example.answer for example in examples]
        found = model.score([example.prompt for example in examples], texts, batch_size, progress)
        return [
            {"item": index, "prompt": example.prompt[-1]["content"], "correct": math.exp(score.per_token)}
            for index, (example, score) in enumerate(zip(examples, found, strict=True))
        ]
    answers = model.generate([example.prompt for example in examples], max_new_tokens, batch_size, progress)
    correct = score(task, answers, [example.answer for example in examples])
    return [
        {
            "item": index,
            "prompt": example.prompt[-1]["content"],
            "expected": example.answer,
            "answer": answer,
            "correct": right,
        }
        for index, (example, answer, right) in enumerate(zip(examples, answers, correct, strict=True))
    ]
