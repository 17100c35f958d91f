"""Task scores by metrics of our own: modules of `evaluate`, loaded by path, so that no hub is contacted."""

from __future__ import annotations

import math
import string
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from moltlm.data.config import TaskConfig
from moltlm.data.types import ChatModel, Progress, TaskExample, silent
from moltlm.evals.records import LikelihoodRecord, TaskRecord

METRICS = {
    "text": "text_exact_match",
    "json": "json_exact_match",
    "command": "command_exact_match",
    "template": "command_template_match",
}
DEFAULT_METRICS = {"reminders": "json", "shell": "command", "jsonl": "text"}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@cache
def _metric(name: str) -> Any:
    import evaluate as hf_evaluate

    return hf_evaluate.load(str(Path(__file__).with_name("metrics") / f"{name}.py"))


def score(task: TaskConfig, predictions: list[str], references: list[str]) -> list[int]:
    """1 for each prediction that is right by the task's metric, else 0."""
    metric = _metric(METRICS[task.metric or DEFAULT_METRICS[task.kind]])
    return metric.compute(predictions=predictions, references=references)["items"]


def token_f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall over the bag of words (Rajpurkar et al. 2016, arXiv:1606.05250, section
    6.1): lower case, without punctuation. Articles count, unlike there: `a` may be a command's argument."""
    words, right = _words(answer), _words(expected)
    if not words or not right:
        return float(words == right)
    return 2 * (words & right).total() / (words.total() + right.total())


def _words(text: str) -> Counter[str]:
    return Counter(text.lower().translate(_NO_PUNCTUATION).split())


def evaluate(
    model: ChatModel,
    task: TaskConfig,
    examples: list[TaskExample],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> list[TaskRecord]:
    """Answer the first `task.answered` examples greedily in the model's current state, and score the answers.

    Of a plain text (`kind: text`) nothing is right or wrong: `correct` is the geometric mean of its tokens'
    probabilities, one over the perplexity.
    """
    examples = examples[: task.answered]
    scored = likelihoods(model, task, examples, batch_size, progress)
    if task.kind == "text":
        return [TaskRecord(**vars(row), correct=math.exp(row.likelihood or 0.0)) for row in scored]
    answers = model.generate([example.prompt for example in examples], max_new_tokens, batch_size, progress)
    expected = [example.answer for example in examples]
    return [
        TaskRecord(**vars(row), answer=answer, correct=correct, f1=token_f1(answer, row.expected))
        for row, answer, correct in zip(scored, answers, score(task, answers, expected), strict=True)
    ]


def likelihoods(
    model: ChatModel,
    task: TaskConfig,
    examples: list[TaskExample],
    batch_size: int,
    progress: Progress = silent,
    first: int = 0,
) -> list[LikelihoodRecord]:
    """Score the right answers of the examples from the position `first` on, in the model's current state."""
    examples = examples[first:]
    prompts, answers = [example.prompt for example in examples], [example.answer for example in examples]
    return [
        LikelihoodRecord(
            item=first + place,
            prompt=example.prompt[-1]["content"],
            likelihood=text_score.per_token,
            expected="" if task.kind == "text" else example.answer,
        )
        for place, (example, text_score) in enumerate(
            zip(examples, model.score(prompts, answers, batch_size, progress), strict=True)
        )
    ]
