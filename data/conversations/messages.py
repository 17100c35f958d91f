"""Lists of messages with a role and a content: OpenAI's chat format, ShareGPT; and rows of a question and an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations import templates, tree
from moltlm.data.conversations.format import Format
from moltlm.data.conversations.turns import (
    ROLES,
    Fail,
    FileReport,
    Record,
    Turn,
    content_of,
    sender_of,
    turn_of,
    turns_of,
)

QUESTIONS = ("prompt", "instruction", "question", "query", "input", "user", "human", "text_input", "input_text")
ANSWERS = (
    "answer",
    "response",
    "completion",
    "output",
    "assistant",
    "reply",
    "gpt",
    "bot",
    "output_text",
    "generation",
)
HOLDERS = ("messages", "mapping", "chat_messages", "conversation", "turns", "history", "responses", "bubbles")
"""Fields of a whole conversation, which is no message."""
RELATIVES = frozenset((*tree.PARENTS, "ancestors", *tree.CHILDREN))
ADDED = ("input", "query", "context")
"""Fields that go on where the question ends (Alpaca's `input`)."""


def _messages(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    return message_turns(record.get("messages", record.get("contents")), record, report, fail)


def _sharegpt(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    messages = record.get("conversations", record.get("conversation"))
    pairs = _pairs(messages)
    return message_turns(messages if pairs is None else pairs, record, report, fail)


RESPONSES = "responses"


def _shown_response(message: Any, report: FileReport) -> list[Any]:
    """The messages of the response that is shown, of several to one question (TypingMind); others as they are."""
    responses = message.get(RESPONSES) if isinstance(message, dict) and "role" not in message else None
    lists = [
        each["messages"]
        for each in (responses if isinstance(responses, list) else [])
        if isinstance(each, dict) and isinstance(each.get("messages"), list)
    ]
    if not lists:
        return [message]
    main = message.get("mainResponse")
    main = main if isinstance(main, int) and 0 <= main < len(lists) else 0
    for other in (*lists[:main], *lists[main + 1 :]):
        for each in other:
            if isinstance(each, dict) and ROLES.get(str(sender_of(each)).lower()) == "assistant":
                report.drop("alternative branch")
    return lists[main]


SPOKEN = ("data", "dialogue", "dialog", "utterances")


def _is_spoken(record: Record) -> bool:
    """Whether a row has the texts of a dialogue in a list, of two sides in turn or of speakers in a list beside."""
    texts = next((record[key] for key in SPOKEN if key in record), None)
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        return False
    speakers = record.get("speakers")
    return (isinstance(speakers, list) and len(speakers) == len(texts)) or set(record) <= {"id", "data"}


def _utterances(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    texts = next(record[key] for key in SPOKEN if key in record)
    names = record.get("speakers") or [("human", "assistant")[place % 2] for place in range(len(texts))]
    rows = [{"role": str(name), "content": text} for name, text in zip(names, texts, strict=True)]
    return turns_of(rows, report, fail)


def _pairs(messages: Any) -> list[Record] | None:
    """Messages made of objects that are a question with its answer (`input` and `output`); None if one is not."""
    pairs: list[Record] = []
    for each in messages if isinstance(messages, list) else []:
        if not isinstance(each, dict) or not {"input", "output"} <= set(each):
            return None
        pairs += [{"role": "user", "content": each["input"]}, {"role": "assistant", "content": each["output"]}]
    return pairs or None


def message_turns(messages: Any, record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of a list of messages, along the shown path where they name their parents."""
    if isinstance(messages, list) and set(map(type, messages)) <= {dict}:
        keys = set[str]().union(*messages)
        if RESPONSES not in keys and RELATIVES.isdisjoint(keys):
            return turns_of(messages, report, fail)
    if isinstance(messages, list) and any(isinstance(each, dict) and RESPONSES in each for each in messages):
        messages = [message for each in messages for message in _shown_response(each, report)]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return turns_of(messages, report, fail)
    if all(RELATIVES.isdisjoint(message) for message in messages):
        return turns_of(messages, report, fail)
    messages = tree.with_parents(messages)
    path = tree.shown_path([tree.node_of(message) for message in messages], tree.leaf_of(record))
    if path is None:
        return turns_of(messages, report, fail)
    return tree.walk(messages, path, lambda message, report: turns_of([message], report, fail), report)


def _question_and_answer(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    if record.get("system"):
        report.noise["system message"] += 1
    yield from history_turns(record, report, fail)
    yield from prompt_turns(question_of(record), report, fail)
    yield from answer_turns(next(record[key] for key in ANSWERS if key in record), report, fail)


def history_turns(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of Alpaca's `history`, a list of questions with their answers. They are never learned."""
    history = record.get("history")
    for pair in history if isinstance(history, list) else []:
        if isinstance(pair, dict):
            pair = [pair]
        if isinstance(pair, list) and pair and all(isinstance(item, dict) for item in pair):
            yield from prompt_turns(pair, report, fail)
        elif isinstance(pair, list) and len(pair) == 2:
            yield from turn_of("user", pair[0], report, fail)
            yield from (turn._replace(context_only=True) for turn in turn_of("assistant", pair[1], report, fail))
        else:
            raise fail("an item of `history` is no pair of a question and an answer.")


def question_of(record: Record) -> Any:
    """The question of a row, with Alpaca's `input` after it; None if there is none."""
    key = next((key for key in QUESTIONS if record.get(key)), next((key for key in QUESTIONS if key in record), None))
    if key is None or not isinstance(record[key], str):
        return None if key is None else record[key]
    added = [record[more] for more in ADDED if more != key and isinstance(record.get(more), str)]
    return "\n\n".join(filter(None, [record[key], *(added if key in ("prompt", "instruction") else [])]))


def prompt_turns(prompt: object, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of a prompt, a text or a list of messages, whose answers are never learned."""
    if isinstance(prompt, str):
        prompt = templates.messages(prompt) or prompt
    if isinstance(prompt, list):
        return (turn._replace(context_only=True) for turn in turns_of(prompt, report, fail))
    return turn_of("user", prompt, report, fail)


def answer_turns(answer: object, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """The turns of an answer, a text, a message or a list of messages."""
    if isinstance(answer, dict):
        answer = [answer] if sender_of(answer) else content_of(answer)
    if isinstance(answer, list):
        return turns_of(answer, report, fail)
    return turn_of("assistant", answer, report, fail)


def _is_question_and_answer(record: Record) -> bool:
    answers = [key for key in ANSWERS if key in record]
    if "prompt" in record and answers:
        return True
    if "type" in record:
        return False
    questions = [key for key in QUESTIONS if _says_something(record.get(key))]
    return bool(questions and answers and _says_something(record[answers[0]]))


def _says_something(value: Any) -> bool:
    """Whether a value is a text or a list of messages, or one message."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) and ("role" in each or "type" in each) for each in value)
    return isinstance(value, str) or (isinstance(value, dict) and "role" in value)


def _is_contents(contents: Any) -> bool:
    """Whether the value is what Gemini's API calls `contents`."""
    return isinstance(contents, list) and all(isinstance(each, dict) and "parts" in each for each in contents)


def _is_sharegpt(record: Record) -> bool:
    messages = record.get("conversations", record.get("conversation"))
    if not isinstance(messages, list):
        return False
    first = messages[0] if messages else None
    return not (isinstance(first, dict) and any(isinstance(first.get(key), list | dict) for key in HOLDERS))


DIALOGUES = Format("dialogues", "UltraChat (`data`) and dialogues with `speakers`", _is_spoken, _utterances)
MESSAGES = Format(
    "messages",
    "JSONL with `messages` (role, content)",
    lambda record: "messages" in record or _is_contents(record.get("contents")),
    _messages,
    labelled=True,
)
PROMPTS = Format(
    "prompts",
    "rows of a question and an answer (`prompt` and `answer` or `completion`; Alpaca's `instruction` and `output`)",
    _is_question_and_answer,
    _question_and_answer,
    labelled=True,
)
SHAREGPT = Format(
    "ShareGPT",
    "ShareGPT (`conversations` of from, value)",
    _is_sharegpt,
    _sharegpt,
)
