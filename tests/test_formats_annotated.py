"""Argilla and Label Studio: what people said about a record becomes a preference, a correction or a mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moltlm.data.errors import BadInput
from moltlm.data.types import EDITED
from tests.conversation_files import read, said, turn, write

Q1, A1, Q2, A2, BAD = "My clock stopped.", "It sulks.", "And if not?", "Bring cake.", "NEVER, as an AI."
TWO = {"prompt": Q1, "response-1": BAD, "response-2": A1}


def argilla(fields: dict[str, Any], **said: Any) -> dict[str, Any]:
    """A record of version 2, with one person's answers by question."""
    responses = {question.replace("_", "-"): [{"value": value, "user_id": "u"}] for question, value in said.items()}
    return {"id": "1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": responses}


def argilla_1(fields: dict[str, Any], status: str = "submitted", **said: Any) -> dict[str, Any]:
    values = {question: {"value": value} for question, value in said.items()}
    return {"fields": fields, "suggestions": [], "responses": [{"user_id": "u", "status": status, "values": values}]}


def studio(data: dict[str, Any], name: str = "", value: Any = None, **more: Any) -> dict[str, Any]:
    result = [{"from_name": name, "to_name": "x", "value": value}] if name else []
    return {"id": 1, "data": data, "annotations": [{"result": result, **more}], "predictions": []}


def minimal(**fields: Any) -> dict[str, Any]:
    """A row of JSON-MIN."""
    return {"id": 1, "annotator": 1, "annotation_id": 1, "lead_time": 2.5, **fields}


PAIRS: dict[str, dict[str, Any]] = {
    "the name of a field": argilla(TWO, preference="response-2"),
    "a ranking": argilla(TWO, order=[{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]),
    "a ranking by order": argilla(TWO, order=["response-2", "response-1"]),
    "sides as fields": argilla({"prompt": Q1, "chosen": A1, "rejected": BAD}),
    "sides the other way round": argilla({"prompt": Q1, "chosen": BAD, "rejected": A1}, better="rejected"),
    "version 1": argilla_1(TWO, preference="response-2"),
    "right": studio({"prompt": Q1, "answer1": BAD, "answer2": A1}, "pw", {"selected": "right"}),
    "left, of any names": studio({"prompt": Q1, "text1": A1, "text2": BAD}, "pw", {"selected": "left"}),
    "JSON-MIN": minimal(prompt=Q1, answer1=A1, answer2=BAD, comparison={"selected": "left"}),
    "JSON-MIN, a text": minimal(prompt=Q1, answer1=A1, answer2=BAD, comparison="left"),
}
CORRECTED: dict[str, dict[str, Any]] = {
    "Argilla": argilla({"prompt": Q1, "response": BAD}, corrected_response=A1),
    "with a rating of what was corrected": argilla({"prompt": Q1, "response": BAD}, quality=1, corrected_response=A1),
    "Label Studio": studio({"prompt": Q1, "response": BAD}, "correction", {"text": [A1]}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_preferred_answer_is_learned_over_the_other(tmp_path: Path, name: str) -> None:
    found, report = read(write(tmp_path / "a.json", [PAIRS[name]]))
    assert said(found) == [[Q1, A1]]
    assert found[0].rejected == BAD and report.rejected == {"given": 1}


@pytest.mark.parametrize("name", CORRECTED)
def test_what_somebody_wrote_instead_is_a_correction(tmp_path: Path, name: str) -> None:
    found, _ = read(write(tmp_path / "a.json", [CORRECTED[name]]))
    assert said(found) == [[Q1, A1]]
    assert (found[0].rejected, found[0].provenance) == (BAD, EDITED)


GOOD_AND_BAD: dict[str, list[dict[str, Any]]] = {
    "ratings": [argilla({"prompt": Q1, "response": A1}, rating=5), argilla({"prompt": Q2, "response": BAD}, rating=1)],
    "version 1": [
        argilla_1({"prompt": Q1, "response": A1}, label="good"),
        argilla_1({"prompt": Q2, "response": BAD}, label="bad"),
    ],
    "thrown away": [
        argilla_1({"prompt": Q1, "response": A1}, rating=4),
        argilla_1({"prompt": Q2, "response": BAD}, status="discarded", rating=4),
    ],
    "columns of a hub": [
        {"prompt": Q1, "response": A1, "rating.responses": [5, 4], "rating.responses.status": ["submitted"] * 2},
        {"prompt": Q2, "response": BAD, "rating.responses": [1], "rating.responses.status": ["submitted"]},
        {"prompt": Q2, "response": BAD, "rating.responses": [5], "rating.responses.status": ["discarded"]},
    ],
    "stars of Label Studio": [
        studio({"prompt": Q1, "response": A1}, "rating", {"rating": 5}),
        studio({"prompt": Q2, "response": BAD}, "rating", {"rating": 1}),
    ],
    "choices of Label Studio": [
        studio({"prompt": Q1, "response": A1}, "verdict", {"choices": ["Good"]}),
        studio({"prompt": Q2, "response": BAD}, "verdict", {"choices": ["Bad"]}),
    ],
    "skipped in Label Studio": [
        studio({"prompt": Q1, "response": A1}),
        studio({"prompt": Q2, "response": BAD}, was_cancelled=True),
    ],
    "an answer that an annotator wrote": [studio({"prompt": Q1}, "response", {"text": [A1]})],
    "a remark is no answer": [studio({"prompt": Q1, "response": A1}, "comment", {"text": ["Nice."]})],
    "a chat beside its answer": [argilla({"chat": [turn("user", Q1)], "response": A1})],
    "a chat": [studio({"dialogue": [{"author": "user", "text": Q1}, {"author": "assistant", "text": A1}]})],
}


@pytest.mark.parametrize("name", GOOD_AND_BAD)
def test_an_answer_that_was_judged_to_be_bad_is_not_learned(tmp_path: Path, name: str) -> None:
    found, report = read(write(tmp_path / "a.json", GOOD_AND_BAD[name]))
    assert said(found) == [[Q1, A1]]
    assert report.dropped.total() == len(GOOD_AND_BAD[name]) - 1


@pytest.mark.parametrize("row", [argilla({"text": "Mind the springs."}, label="dry"), studio({"image": "a.png"})])
def test_a_record_without_an_answer_says_what_to_export(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no question with an answer") as error:
        read(write(tmp_path / "a.json", [row]))
    assert "prompt and response" in error.value.fix


def test_pairs_in_a_table(tmp_path: Path) -> None:
    header = "annotation_id,lead_time,prompt,answer1,answer2,comparison"
    found, _ = read(write(tmp_path / "a.csv", header, f"1,2.5,{Q1},{A1},{BAD.replace(',', '')},left"))
    assert said(found) == [[Q1, A1]] and found[0].rejected == BAD.replace(",", "")
    found, _ = read(write(tmp_path / "b.csv", "prompt,response_a,response_b,winner", f"{Q1},NEVER,{A1},b"))
    assert said(found) == [[Q1, A1]] and found[0].rejected == "NEVER"
