"""Preference data: a better and a worse answer to the same prompt, in the shapes that trainers and raters use.

The better answer is learned, and keeps the worse one as `rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.messages import ANSWERS, answer_turns, history_turns, prompt_turns, question_of
from moltlm.data.conversations.turns import EQUAL, REJECTED_ANSWER, Fail, FileReport, Record, Turn, type_name
from moltlm.data.types import EDITED

CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred_output", "preferred_response", "winner")
REJECTED = (
    "rejected",
    "rejected_response",
    "response_rejected",
    "non_preferred_output",
    "dispreferred_response",
    "loser",
)
CONTEXTS = ("conversations", "conversation", "messages")
RANKED = ("completions", "responses", "answers", "candidates")
KEYS = frozenset((*CHOSEN, *REJECTED, *RANKED, "output"))
HUMAN_ASSISTANT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")


def _side(record: Record, keys: tuple[str, ...]) -> Any:
    """A side of a preference: a text, a message or a list of messages; None if there is none."""
    return next((record[key] for key in keys if isinstance(record.get(key), str | list | dict)), None)


def _sides(record: Record) -> tuple[Any, Any]:
    """The better and the worse answer. A row without a better one may have an answer beside the worse one."""
    chosen, rejected = _side(record, CHOSEN), _side(record, REJECTED)
    output = record.get("output")
    if chosen is None and rejected is None and isinstance(output, list) and len(output) == 2:
        return output[0], output[1]
    if chosen is None:
        messages = next((record[key] for key in CONTEXTS if isinstance(record.get(key), list)), [])
        last = messages[-1] if messages and isinstance(messages[-1], dict) and _is_answer(messages[-1]) else None
        chosen = _side(record, ANSWERS) or last
    return chosen, rejected


def _detect(record: Record) -> bool:
    if KEYS.isdisjoint(record):
        return False
    output = record.get("output")
    if isinstance(output, list) and len(output) == 2 and "instruction" in record:
        return all(isinstance(item, str) for item in output)
    return any(isinstance(record.get(key), str | list | dict) for key in (*CHOSEN, *REJECTED)) or _is_ranked(record)


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The prompt and the chosen side, whose first answer keeps that of the rejected side. Other answers of the rejected
    side are counted as dropped.

    The common beginning of two sides that are lists of messages belongs to the prompt, which may be nothing else.
    """
    if _is_ranked(record):
        yield from _read_ranked(record, report, fail)
        return
    chosen, rejected = (_messages(side) for side in _sides(record))
    prompt = _messages(_prompt(record, chosen))
    if prompt is None and not (isinstance(chosen, list) and isinstance(rejected, list)):
        side = type_name(chosen)
        raise fail(f"without a `prompt`, both sides must be lists of messages; `chosen` is {side}.")
    yield from history_turns(record, report, fail)
    if isinstance(chosen, list) and isinstance(rejected, list):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen[:-1], rejected[:-1], strict=False))
        common = len(list(same))
        if prompt is not None and not _begins_with(chosen, prompt):
            yield from prompt_turns(prompt, report, fail)
        yield from prompt_turns(chosen[:common], report, fail)
        chosen, rejected = chosen[common:], rejected[common:]
    else:
        yield from prompt_turns(prompt, report, fail)
    edited = record.get("provenance") == EDITED
    yield from (
        turn._replace(edited=edited) if turn.rejected else turn for turn in _answers(chosen, rejected, report, fail)
    )


def _answers(chosen: Any, rejected: Any, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of the chosen side. Its first answer keeps that of the rejected side, which answers the same."""
    worse = [] if rejected is None else list(answer_turns(rejected, FileReport(""), fail))
    better = [] if chosen is None else list(answer_turns(chosen, report, fail))
    other = worse[0].text.strip() if worse and worse[0].role == "assistant" else ""
    if other and better and better[0].role == "assistant":
        better[0], worse = better[0]._replace(rejected=other), worse[1:]
    for turn in worse:
        report.drop_answer(turn, REJECTED_ANSWER)
    for turn in better:
        same = turn.role == "assistant" and bool(other) and turn.text.strip() == other
        yield turn._replace(unwanted=EQUAL) if same else turn


def _prompt(record: Record, chosen: Any) -> Any:
    """What comes before both sides, under any of its usual names; None where the sides hold it themselves."""
    question = question_of(record)
    if isinstance(question, dict):  # OpenAI's `input`
        question = question.get("messages")
    if question is not None:
        return question
    before = next((record[key] for key in CONTEXTS if isinstance(record.get(key), list)), None)
    if before is None or (isinstance(chosen, list) and len(chosen) > 1):
        return None
    while before and isinstance(before[-1], dict) and _is_answer(before[-1]):
        before = before[:-1]  # an answer of one of the sides, which some rows repeat
    return before


def _is_answer(message: Record) -> bool:
    return str(message.get("role", message.get("from"))).lower() in ("assistant", "gpt")


def _messages(side: Any) -> Any:
    """A side as a list of messages, if it is a message or a text in the form of HH-RLHF; else as it is."""
    if isinstance(side, dict):
        return [side]
    if not isinstance(side, str) or not (start := HUMAN_ASSISTANT.match(side)) or start[1] != "Human":
        return side
    parts = HUMAN_ASSISTANT.split(side)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [{"role": roles[name], "content": text} for name, text in zip(parts[::2], parts[1::2], strict=True)]
    return turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip() else turns


def _begins_with(messages: list[Any], prompt: Any) -> bool:
    """Whether a side repeats the prompt, a list of messages or the text of one of the first two."""
    if isinstance(prompt, list):
        return messages[: len(prompt)] == prompt
    return any(isinstance(message, dict) and message.get("content") == prompt for message in messages[:2])


def _is_ranked(record: Record) -> bool:
    """Whether a row has several scored or ranked answers to a prompt (UltraFeedback, Nectar)."""
    items = next((record[key] for key in RANKED if isinstance(record.get(key), list)), [])
    return question_of(record) is not None and len(items) > 1 and all(_rank(item) is not None for item in items)


def _rank(item: Any) -> float | None:
    """How good an answer is among its alternatives: its score, or its rank, of which the first is the best."""
    if not isinstance(item, dict):
        return None
    keys = (("overall_score", 1), ("score", 1), ("fine-grained_score", 1), ("rating", 1), ("rank", -1))
    values = ((item.get(key), sign) for key, sign in keys)
    return next((sign * value for value, sign in values if isinstance(value, int | float)), None)


def _read_ranked(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The prompt and the best answer, over the worst one. Of answers that are all equally good, none is learned."""
    items = next(record[key] for key in RANKED if isinstance(record.get(key), list))
    ordered = sorted(items, key=lambda item: _rank(item) or 0.0, reverse=True)
    texts = [next((item[key] for key in (*ANSWERS, "text", "content") if key in item), None) for item in ordered]
    yield from prompt_turns(question_of(record), report, fail)
    if _rank(ordered[0]) == _rank(ordered[-1]):
        for text in texts:
            yield from (
                turn._replace(unwanted="none of several is better") for turn in answer_turns(text, report, fail)
            )
        return
    for text in texts[1:-1]:
        for turn in answer_turns(text, FileReport(""), fail):
            report.drop_answer(turn, REJECTED_ANSWER)
    yield from _answers(texts[0], texts[-1], report, fail)


PREFERENCES = Format(
    "preferences",
    "preference data, of which the chosen side is learned (`prompt`, `chosen` and `rejected` of TRL; HH-RLHF, "
    "LLaMA-Factory, OpenAI, UltraFeedback)",
    _detect,
    _read,
    labelled=True,
)
