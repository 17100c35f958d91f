"""Task scores by metrics of our own: modules of `evaluate`, loaded by path, so that no hub is contacted."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from moltlm.data.config import TaskConfig
from moltlm.data.types import ChatModel, Progress, TaskExample, silent
from moltlm.evals.records import TaskRecord

METRICS = {
    "text": "text_exact_match",
    "json": "json_exact_match",
    "command": "command_exact_match",
    "template": "command_template_match",
}
DEFAULT_METRICS = {"reminders": "json", "shell": "command", "jsonl": "text"}


@cache
def _metric(name: str) -> Any:
    import evaluate as hf_evaluate

    return hf_evaluate.load(str(Path(__file__).with_name("metrics") / f"{name}.py"))


def score(task: TaskConfig, predictions: list[str], references: list[str]) -> list[int]:
    """1 for each prediction that is right by the task's metric, else 0."""
    metric = _metric(METRICS[task.metric or DEFAULT_METRICS[task.kind]])
    return metric.compute(predictions=predictions, references=references)["items"]


def evaluate(
    model: ChatModel,
    task: TaskConfig,
    examples: list[TaskExample],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> list[TaskRecord]:
    """Answer each example greedily in the model's current state, and score the answer.

    Of a plain text (`kind: text`) nothing is right or wrong: `correct` is the geometric mean of its tokens'
    probabilities, one over the perplexity.
    """
    prompts = [example.prompt for example in examples]
    expected = [example.answer for example in examples]
    messages = [prompt[-1]["content"] for prompt in prompts]
    if task.kind == "text":
        scores = model.score(prompts, expected, batch_size, progress)
        return [
            TaskRecord(item=place, prompt=message, correct=math.exp(text_score.per_token))
            for place, (message, text_score) in enumerate(zip(messages, scores, strict=True))
        ]
    answers = model.generate(prompts, max_new_tokens, batch_size, progress)
    correct = score(task, answers, expected)
    return [
        TaskRecord(item=place, prompt=message, expected=expected[place], answer=answers[place], correct=correct[place])
        for place, message in enumerate(messages)
    ]
