"""Lists of messages with a role and a content: OpenAI's chat format, ShareGPT, and rows of a prompt and an answer."""

from __future__ import annotations

from collections.abc import Iterator

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, turn_of, turns_of

ANSWERS = ("answer", "response", "completion")


def _messages(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return turns_of(record["messages"], report, fail)


def _sharegpt(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return turns_of(record.get("conversations", record.get("conversation")), report, fail)


def _prompt_and_answer(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if record.get("system"):
        report.noise["system message"] += 1
    yield from prompt_turns(record["prompt"], report, fail)
    yield from answer_turns(next(record[key] for key in ANSWERS if key in record), report, fail)


def prompt_turns(prompt: object, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of a prompt, a text or a list of messages, whose answers are never learned."""
    if isinstance(prompt, list):
        return (turn._replace(context_only=True) for turn in turns_of(prompt, report, fail))
    return turn_of("user", prompt, report, fail)


def answer_turns(answer: object, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of an answer, a text or a list of messages."""
    if isinstance(answer, list):
        return turns_of(answer, report, fail)
    return turn_of("assistant", answer, report, fail)


MESSAGES = Format(
    "messages",
    "JSONL with `messages` (role, content)",
    lambda record: "messages" in record,
    _messages,
    labelled=True,
)
PROMPTS = Format(
    "prompts",
    "JSONL with `prompt` and `answer`",
    lambda record: "prompt" in record and any(key in record for key in ANSWERS),
    _prompt_and_answer,
    labelled=True,
)
SHAREGPT = Format(
    "ShareGPT",
    "ShareGPT (`conversations` of from, value)",
    lambda record: isinstance(record.get("conversations", record.get("conversation")), list),
    _sharegpt,
)
