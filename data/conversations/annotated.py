"""Exports of tools in which people judge answers: Argilla and Label Studio.

What people said about the fields of a record becomes a plain row: a preference, a correction, or an answer with a mark.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from statistics import mean
from typing import Any, NamedTuple

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.messages import ANSWERS, MESSAGES, PROMPTS, QUESTIONS, SHAREGPT
from moltlm.data.conversations.preferences import CHOSEN, PREFERENCES, REJECTED
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, marked
from moltlm.data.types import EDITED

ROWS = (PREFERENCES, SHAREGPT, MESSAGES, PROMPTS)
RATED = re.compile(r"rating|score|quality|stars|helpful|overall")
"""Names of questions whose answer is a number, the higher the better."""
WRITTEN = re.compile(r"answer|response|completion|output|reply|correct|edit|rewrit|improve|better|ideal|chosen")
"""Names of questions whose answer is a text to say."""
NUMBERED = re.compile(r"_?(?:[0-9]|[ab]|left|right)\Z")
SUFFIX, STATUS = ".responses", ".responses.status"
SIDES = ("left", "right")


class Judgement(NamedTuple):
    """What people answered to one question about a record."""

    question: str
    values: list[Any]


class Annotated(NamedTuple):
    """A record: its fields, what people said about them, and whether they threw it away."""

    fields: Record
    judgements: list[Judgement]
    discarded: bool


def _argilla(record: Record) -> Annotated | None:
    """A record of Argilla, with the answers by question (version 2) or by person (version 1)."""
    fields, responses = record.get("fields"), record.get("responses")
    if not isinstance(fields, dict) or not ("suggestions" in record or "responses" in record):
        return None
    people = responses if isinstance(responses, list) else []
    values: dict[str, list[Any]] = {}
    for person in people:
        if isinstance(person, dict) and isinstance(person.get("values"), dict) and person.get("status") != "discarded":
            for question, value in person["values"].items():
                values.setdefault(question, []).append(_value(value))
    for question, each in responses.items() if isinstance(responses, dict) else ():
        values[question] = [_value(value) for value in (each if isinstance(each, list) else [each])]
    judgements = [Judgement(_plain(question), each) for question, each in values.items()]
    return Annotated({_plain(key): value for key, value in fields.items()}, judgements, bool(people) and not judgements)


def _argilla_columns(record: Record) -> Annotated | None:
    """A row of Argilla as a data set on a hub has it, with a column for each question."""
    questions = [key.removesuffix(SUFFIX) for key, value in record.items() if key.endswith(SUFFIX) and value]
    if not any(key.endswith(SUFFIX) for key in record):
        return None
    judgements, statuses = list[Judgement](), list[str]()
    for question in questions:
        values, status = record[question + SUFFIX], record.get(question + STATUS)
        status = status if isinstance(status, list) else ["submitted"] * len(values)
        statuses += map(str, status)
        valid = [_value(value) for value, each in zip(values, status, strict=False) if each != "discarded"]
        judgements += [Judgement(_plain(question), valid)] if valid else []
    fields = {_plain(key): value for key, value in record.items() if "." not in key and key not in ("status", "id")}
    return Annotated(fields, judgements, bool(statuses) and set(statuses) == {"discarded"})


def _label_studio(record: Record) -> Annotated | None:
    fields, annotations = record.get("data"), record.get("annotations", record.get("completions"))
    if not isinstance(fields, dict) or not isinstance(annotations, list):
        return None
    people = [each for each in annotations if isinstance(each, dict)]
    valid = [each for each in people if not each.get("was_cancelled")]
    results = [item for each in valid for item in each.get("result") or () if isinstance(item, dict)]
    values: dict[str, list[Any]] = {}
    for item in results:
        values.setdefault(_plain(str(item.get("from_name", ""))), []).append(_value(item.get("value")))
    return Annotated(
        {_plain(key): value for key, value in fields.items()},
        [Judgement(question, each) for question, each in values.items()],
        bool(people) and not valid,
    )


def _label_studio_min(record: Record) -> Annotated | None:
    """A row of Label Studio's JSON-MIN and CSV exports: fields and answers side by side."""
    if not {"annotation_id", "lead_time"} <= set(record):
        return None
    fields = {_plain(key): value for key, value in record.items() if key not in ("id", "annotator", "annotation_id")}
    answered = [key for key, value in fields.items() if _value(value) in SIDES or _is_wrapped(value)]
    judgements = [Judgement(key, [_value(fields.pop(key))]) for key in answered]
    return Annotated(fields, judgements, False)


READERS = (_argilla, _argilla_columns, _label_studio, _label_studio_min)


def _annotated(record: Record) -> Annotated | None:
    return next((result for read in READERS if (result := read(record))), None)


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, dict) and bool(set(value) & {"selected", "rating", "choices", "text"})


def _value(value: Any) -> Any:
    """An answer without the object around it; a list of one text as the text."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("value", "selected", "rating", "choices", "text") if key in value), None)
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else value


def _row(record: Annotated) -> Record:
    """The record as a row that other tools write, too."""
    row = {key: value for key, value in record.fields.items() if value is not None} | (
        {"discarded": True} if record.discarded else {}
    )
    for question, values in record.judgements:
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        texts = [value for value in values if isinstance(value, str)]
        if numbers and RATED.search(question):
            average = mean(numbers)
            row["rating"] = f"{average:.3g}/{5 if average <= 5 else 10}"
        elif texts:
            (commonest, _), *_ = Counter(texts).most_common(1)
            row |= _preferred(row, commonest) or _written(row, question, commonest) or {"verdict": commonest}
        elif values and isinstance(values[0], list):
            row |= _ranked(row, values[0]) or {"verdict": values[0]}
    if "provenance" in row:  # what was said against the answer holds for the one that was replaced
        row = {key: value for key, value in row.items() if key not in ("rating", "verdict")}
    return _with_messages(row)


def _preferred(row: Record, value: str) -> Record:
    """The sides of a pair, if the answer names one of two fields, or the left or the right one."""
    name = _plain(value)
    pairs: dict[str, list[str]] = {}
    for key in row:
        stem = "chosen" if key in (*CHOSEN, *REJECTED) else NUMBERED.sub("", key)
        pairs.setdefault(stem, []).append(key)
    pair = next((keys for keys in pairs.values() if len(keys) == 2 and (name in keys or name in SIDES)), None)
    if pair is None:
        return {}
    better = pair[SIDES.index(name)] if name in SIDES else name
    worse = pair[1 - pair.index(better)]
    sides = {"chosen": row[better], "rejected": row[worse]}
    for key in pair:
        del row[key]
    return sides


def _ranked(row: Record, ranks: list[Any]) -> Record:
    """The best and the worst side of a ranking: fields with their ranks, or from the best to the worst."""
    if all(isinstance(each, str) for each in ranks):
        ranks = [{"value": each, "rank": place} for place, each in enumerate(ranks)]
    named = [
        (each["rank"], key)
        for each in ranks
        if isinstance(each, dict)
        and isinstance(each.get("rank"), int)
        and (key := _plain(str(each.get("value")))) in row
    ]
    if len(named) < 2 or min(named)[0] == max(named)[0]:
        return {}
    return {"chosen": row.pop(min(named)[1]), "rejected": row.pop(max(named)[1])}


def _written(row: Record, question: str, text: str) -> Record:
    """A text that somebody wrote as the answer: in place of the one in the record, if it has one."""
    answer = next((key for key in ANSWERS if isinstance(row.get(key), str)), None)
    if not WRITTEN.search(question) or not text.strip():
        return {}
    if answer is None:
        return {"response": text}
    return (
        {}
        if row[answer].strip() == text.strip()
        else {"chosen": text, "rejected": row.pop(answer), "provenance": EDITED}
    )


def _with_messages(row: Record) -> Record:
    """The row, whose chat is its prompt where there is an answer beside it; a lone `text` is the question."""
    answered = any(key in row for key in (*ANSWERS, *CHOSEN, *REJECTED))
    chat = next((key for key, value in row.items() if isinstance(value, list) and _is_chat(value)), None)
    if chat:
        row = {("prompt" if answered else "messages") if key == chat else key: value for key, value in row.items()}
    if answered and "text" in row and not any(key in row for key in QUESTIONS):
        row["prompt"] = row.pop("text")
    return row


def _is_chat(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(each, dict) and {"role", "author", "from"} & set(each) for each in values)


def _read(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    annotated = _annotated(record)
    row = _row(annotated) if annotated else {}
    format = next((each for each in ROWS if each.detect(row)), None)
    if format is None:
        error = fail(f"a record has no question with an answer; its fields are: {', '.join(map(str, row))[:200]}.")
        error.fix = "Export records whose fields are called prompt and response, or prompt, chosen and rejected."
        raise error
    mark = mark_of(row, report.scales)
    yield from (marked(turn, mark) for turn in format.read(row, report, fail))


ANNOTATED = Format(
    "Argilla or Label Studio",
    "records of Argilla and Label Studio, with what people said about them",
    lambda record: _annotated(record) is not None,
    _read,
)
