"""Logs of an API: a request with its messages, and the response to it (OpenAI, LangSmith, Helicone, Langfuse)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.messages import ANSWERS, answer_turns, prompt_turns
from moltlm.data.conversations.turns import ROLES, Fail, FileReport, Record, Turn, sender_of

REQUESTS = ("request_body", "requestBody", "request", "inputs", "input", "body", "payload")
RESPONSES = ("response_body", "responseBody", "response", "outputs", "output")


def _request(record: Record) -> list[Any] | None:
    """The messages of the request, or None."""
    holders = (record, *(inner for key in REQUESTS if isinstance(inner := record.get(key), dict)))
    return next((messages for each in holders if isinstance(messages := each.get("messages"), list)), None)


def _response(record: Record) -> Record | None:
    """The object that holds the answer: a choice, or the output of a run; None if there is none."""
    for holder in (record, *(record.get(key) for key in RESPONSES)):
        if not isinstance(holder, dict):
            continue
        choices = holder.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            return choices[0]
        if holder is not record and isinstance(output := holder.get("output", holder.get("message")), dict):
            return output
        if holder is not record and isinstance(holder.get("content"), str):
            return holder
    return None


def _answer_beside(record: Record) -> str:
    """The answer to messages that end in a question, in a field beside them; "" if there is none."""
    last = messages[-1] if (messages := _request(record)) else None
    if not isinstance(last, dict) or ROLES.get(str(sender_of(last)).lower()) != "user":
        return ""
    return next((text for key in ANSWERS if isinstance(text := record.get(key), str) and text.strip()), "")


def _detect(record: Record) -> bool:
    if _request(record) is None:
        return False
    return _response(record) is not None or bool(_answer_beside(record))


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    yield from prompt_turns(_request(record), report, fail)
    response = _response(record) or {"text": _answer_beside(record)}
    answer = response.get("message", response.get("text", response))
    unwanted = mark_of(response, report.scales).unwanted
    for turn in answer_turns(answer, report, fail):
        yield turn._replace(unwanted=unwanted or turn.unwanted)


LOGGED = Format("requests and responses", "logs of an API (`messages` and `choices`)", _detect, _read, labelled=True)
