"""Preference data: a better and a worse answer to the same prompt, in the shapes that trainers and raters use.

The better answer is learned, and keeps the worse one as `rejected`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from moltlm.data.conversations import templates
from moltlm.data.conversations.compared import comparison, trees
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.messages import ANSWERS, answer_turns, history_turns, prompt_turns, question_of
from moltlm.data.conversations.tree import BRANCH
from moltlm.data.conversations.turns import EQUAL, REJECTED_ANSWER, Fail, FileReport, Record, Turn, turns_of, type_name
from moltlm.data.types import EDITED

CHOSEN = (
    "chosen",
    "chosen_response",
    "response_chosen",
    "preferred_output",
    "preferred_response",
    "winner",
    "accepted",
)
REJECTED = (
    "rejected",
    "rejected_response",
    "response_rejected",
    "non_preferred_output",
    "dispreferred_response",
    "loser",
)
CONTEXTS = ("conversations", "conversation", "messages", "context_messages", "context")
PLAIN = frozenset(("messages", "source", "topic", "trait", "prompt", "answer", "completion", "response"))
"""Fields of rows that compare nothing, so that most rows are told at once."""


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
    output = record.get("output")
    if isinstance(output, list) and len(output) == 2 and "instruction" in record:
        return all(isinstance(item, str) for item in output)
    if any(isinstance(record.get(key), str | list | dict) for key in (*CHOSEN, *REJECTED)):
        return True
    return not set(record) <= PLAIN and _is_compared(record)


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The prompt and the chosen side, whose first answer keeps that of the rejected side. Other answers of the rejected
    side are counted as dropped.

    The common beginning of two sides that are lists of messages belongs to the prompt, which may be nothing else.
    """
    if _is_compared(record):
        yield from _compared(record, report, fail)
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
    """A side as a list of messages, if it is a message or a text of several turns; else as it is."""
    if isinstance(side, dict):
        return [side]
    if not isinstance(side, str):
        return side
    return templates.messages(side) or side


def _begins_with(messages: list[Any], prompt: Any) -> bool:
    """Whether a side repeats the prompt, a list of messages or the text of one of the first two."""
    if isinstance(prompt, list):
        return messages[: len(prompt)] == prompt
    return any(isinstance(message, dict) and message.get("content") == prompt for message in messages[:2])


def _is_compared(record: Record) -> bool:
    return not set(record) & {*CHOSEN, *REJECTED} - {"winner"} and comparison(record) is not None


def _compared(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The prompt and the best answer, over the worst one. Of answers that are all equally good, none is learned."""
    compared = comparison(record) or {}
    answers, prompt = [_messages(each) for each in compared["answers"]], _messages(compared["prompt"])
    if compared["decided"]:
        for text in answers[1:-1]:
            for turn in answer_turns(text, FileReport(""), fail):
                report.drop_answer(turn, REJECTED_ANSWER)
        row = {"chosen": answers[0], "rejected": answers[-1], **({} if prompt is None else {"prompt": prompt})}
        yield from _read(row, report, fail)
        return
    for text in answers:
        for turn in answer_turns(text, FileReport(""), fail):
            report.drop_answer(turn, "none of several is better")


def _is_tree(record: Record) -> bool:
    prompt = record.get("prompt")
    return (isinstance(prompt, dict) and isinstance(prompt.get("replies"), list)) or (
        "message_tree_id" in record and "parent_id" in record and "text" in record
    )


def _whole_trees(records: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """Trees; and rows that are single messages, by their tree."""
    rows: dict[str, tuple[str, list[Record]]] = {}
    for place, record in records:
        if isinstance(record.get("prompt"), dict):
            yield place, {"messages": list(trees(record))}
        else:
            rows.setdefault(str(record["message_tree_id"]), (place, []))[1].append(record)
    for place, messages in rows.values():
        yield place, {"messages": messages}


def _tree(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The path along the replies that were ranked best, each over the one that was ranked worst."""
    replies: dict[str | None, list[Record]] = {}
    for message in record["messages"]:
        replies.setdefault(message.get("parent_id"), []).append(message)
    at: str | None = None
    passed = set[str | None]()
    while at not in passed and (ranked := sorted(replies.get(at, ()), key=_rank)):
        passed.add(at)
        best, *others = ranked
        worst = others.pop() if others and _rank(best) < _rank(others[-1]) < UNRANKED else None
        for other in others:
            for turn in _reply(other, FileReport(""), fail):
                report.drop_answer(turn, BRANCH)
        yield from _over(best, worst, report, fail)
        at = best.get("message_id")


UNRANKED = 1000


def _rank(message: Record) -> int:
    """The place of a reply among its siblings, the best first; what was deleted or not approved comes last."""
    rank = message.get("rank")
    is_bad = bool(mark_of(message, {}).unwanted)
    return (rank if isinstance(rank, int) else UNRANKED) + 2 * UNRANKED * is_bad


def _reply(message: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return turns_of([{key: value for key, value in message.items() if key != "rank"}], report, fail)


def _over(best: Record, worst: Record | None, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turn of a reply, with its worst sibling as the rejected side."""
    others = list(_reply(worst, FileReport(""), fail)) if worst else []
    for turn in _reply(best, report, fail):
        if others and turn.role == others[0].role == "assistant":
            turn = turn._replace(rejected=others.pop(0).text.strip())
        yield turn
    for other in others:
        report.drop_answer(other, BRANCH)


TREES = Format("OpenAssistant", "trees of OpenAssistant (`replies`)", _is_tree, _tree, gather=_whole_trees)
PREFERENCES = Format(
    "preferences",
    "preference data, of which the chosen side is learned (`prompt`, `chosen` and `rejected` of TRL; HH-RLHF, "
    "LLaMA-Factory, OpenAI, UltraFeedback, Nectar, SHP, arenas)",
    _detect,
    _read,
    labelled=True,
)
