"""Data sets: of two answers the better one is learned, and what is as good, unfinished or marked as bad never is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, turn, write

Q1, A1, Q2, A2, BAD = "My clock stopped.", "It sulks.", "And if not?", "Bring cake.", "NEVER, as an AI."
FIRST, WHOLE = [Q1, A1], [Q1, A1, Q2, A2]
ASKED, ANSWERED, WRONG = turn("user", Q1), turn("assistant", A1), turn("assistant", BAD)

COMPARED: dict[str, dict[str, Any]] = {
    "HH-RLHF in capitals": {
        "chosen": f"\n\nHUMAN: {Q1}\n\nASSISTANT: {A1}",
        "rejected": f"\n\nHUMAN: {Q1}\n\nASSISTANT: {BAD}",
    },
    "HH-RLHF with single breaks": {
        "chosen": f"Human: {Q1}\nAssistant: {A1}",
        "rejected": f"Human: {Q1}\nAssistant: {BAD}",
    },
    "a template in the prompt": {
        "prompt": f"<|im_start|>system\nNEVER<|im_end|>\n<|im_start|>user\n{Q1}<|im_end|>\n<|im_start|>assistant\n",
        "chosen": f"{A1}<|im_end|>",
        "rejected": f"{BAD}<|im_end|>",
    },
    "good and bad": {"prompt": Q1, "good": A1, "bad": BAD},
    "positive and negative": {"query": Q1, "positive": A1, "negative": BAD},
    "j and k": {"question": Q1, "response_j": A1, "response_k": BAD},
    "accepted": {"prompt": Q1, "accepted": A1, "rejected": BAD},
    "a letter": {"prompt": Q1, "response_a": A1, "response_b": BAD, "preference": "a"},
    "a capital": {"prompt": Q1, "answer_a": BAD, "answer_b": A1, "preferred": "B"},
    "SHP": {"history": Q1, "human_ref_A": BAD, "human_ref_B": A1, "labels": 0, "score_A": 1, "score_B": 9},
    "SHP without scores": {"history": Q1, "human_ref_A": A1, "human_ref_B": BAD, "labels": 1},
    "an arena": {
        "winner": "model_b",
        "conversation_a": [ASKED, WRONG],
        "conversation_b": [ASKED, ANSWERED],
        "model_a": "x",
    },
    "an arena's table": {
        "prompt": json.dumps([Q1]),
        "response_a": json.dumps([BAD]),
        "response_b": json.dumps([A1]),
        "winner_model_a": 0,
        "winner_model_b": 1,
    },
    "WebGPT": {"question": {"full_text": Q1}, "answer_0": BAD, "answer_1": A1, "score_0": -1.0, "score_1": 1.0},
    "SafeRLHF": {"prompt": Q1, "response_0": BAD, "response_1": A1, "better_response_id": 1},
    "HelpSteer": {"prompt": [ASKED], "response_1": BAD, "response_2": A1, "preference_strength": 2},
    "HelpSteer3": {"context": [ASKED], "response1": BAD, "response2": A1, "overall_preference": 3},
    "HelpSteer3, the first": {"context": [ASKED], "response1": A1, "response2": BAD, "overall_preference": -1},
    "lists in texts": {
        "prompt": Q1,
        "chosen": json.dumps([ASKED, ANSWERED]),
        "rejected": json.dumps([ASKED, WRONG]),
    },
    "a template with breaks of Windows": {
        "prompt": f"<|im_start|>user\r\n{Q1}<|im_end|>\r\n<|im_start|>assistant\r\n",
        "chosen": A1,
        "rejected": BAD,
    },
    "summaries": {"info": {"post": Q1}, "summaries": [{"text": A1}, {"text": BAD}], "choice": 0},
    "pm_score": {"question": Q1, "answers": [{"pm_score": 1, "text": BAD}, {"pm_score": 5, "text": A1}]},
    "labels": {"prompt": Q1, "responses": [{"text": BAD, "label": "rejected"}, {"text": A1, "label": "chosen"}]},
    "places beside": {"prompt": Q1, "responses": [A1, BAD], "ranks": [1, 2]},
    "the preferred one": {"prompt": Q1, "responses": [BAD, A1], "preferred": 1},
    "ratings beside": {"instruction": Q1, "generations": [BAD, A1], "ratings": [2, 9]},
    "Nectar": {
        "prompt": f"\n\nHuman: {Q1}\n\nAssistant: ",
        "answers": [{"answer": BAD, "rank": 2.0}, {"answer": A1, "rank": 1.0}],
    },
    "NeMo": {
        "context": [ASKED],
        "completions": [{"rank": 1, "completion": [WRONG]}, {"rank": 0, "completion": [ANSWERED]}],
    },
    "context_messages": {"context_messages": [ASKED], "chosen": A1, "rejected": BAD},
    "rejected_messages": {"messages": [ASKED, ANSWERED], "rejected_messages": [ASKED, WRONG]},
}


@pytest.mark.parametrize("name", COMPARED)
def test_the_better_of_two_answers(tmp_path: Path, name: str) -> None:
    found, report = read(write(tmp_path / "a.jsonl", COMPARED[name]))
    assert said(found) == [FIRST]
    assert found[0].rejected == BAD
    assert not report.dropped


def test_an_arena_of_several_turns(tmp_path: Path) -> None:
    row = {"prompt": [Q1, Q2], "response_a": ["NEVER", BAD], "response_b": [A1, A2], "winner": "model_b"}
    found, report = read(write(tmp_path / "a.jsonl", row))
    assert said(found) == [FIRST, WHOLE]
    assert [item.rejected for item in found] == ["NEVER", ""]
    assert report.dropped == {"rejected answer": 1}


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_a_list_of_messages_that_is_written_in_a_text(tmp_path: Path, key: str) -> None:
    rows = [ASKED, ANSWERED] if key == "messages" else [{"from": "human", "value": Q1}, {"from": "gpt", "value": A1}]
    assert said(read(write(tmp_path / "a.jsonl", {key: json.dumps(rows)}))[0]) == [FIRST]
    assert said(read(write(tmp_path / "b.jsonl", {key: str(rows)}))[0]) == [FIRST]
    question = json.dumps([{"name": "clock"}])  # a list of other objects is what somebody says
    assert said(read(write(tmp_path / "c.jsonl", {"prompt": question, "answer": A1}))[0]) == [[question, A1]]


def test_an_answer_in_an_object(tmp_path: Path) -> None:
    row = {"prompt": Q1, "response": {"text": A1, "sources": [], "type": "chat"}}
    assert said(read(write(tmp_path / "a.jsonl", row))[0]) == [FIRST]


UNDECIDED: dict[str, dict[str, Any]] = {
    "a tie": {"prompt": Q1, "response_a": BAD, "response_b": "NEVER", "preference": "tie"},
    "both bad": {"winner": "tie (bothbad)", "conversation_a": [ASKED, WRONG], "conversation_b": [ASKED, WRONG]},
    "no word": {"prompt": Q1, "response_a": BAD, "response_b": "NEVER"},
    "equal scores": {"instruction": Q1, "completions": [{"response": BAD, "score": 3}, {"response": "N", "score": 3}]},
    "a status": {"input": Q1, "chosen": BAD, "rejected": "NEVER", "status": "tie"},
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_of_answers_that_are_equally_good_none_is_learned(tmp_path: Path, name: str) -> None:
    found, report = read(write(tmp_path / "a.jsonl", UNDECIDED[name]))
    assert not found and report.dropped.total() == 2


def test_trees_of_openassistant(tmp_path: Path) -> None:
    def message(name: str, role: str, text: str, rank: int | None, *replies: Any) -> dict[str, Any]:
        return {"message_id": name, "role": role, "text": text, "rank": rank, "replies": list(replies)}

    last = message("5", "assistant", A2, 0)
    tree = message(
        *("1", "prompter", Q1, None),
        message("2", "assistant", BAD, 1),
        message("3", "assistant", A1, 0, message("4", "prompter", Q2, None, last)),
    )
    found, report = read(write(tmp_path / "a.jsonl", {"message_tree_id": "1", "prompt": tree}))
    assert said(found) == [FIRST, WHOLE]
    assert [item.rejected for item in found] == [BAD, ""] and not report.dropped


def row(**marks: Any) -> list[dict[str, Any]]:
    return [{"prompt": Q1, "response": BAD, **marks}, {"prompt": Q2, "response": A2, "helpfulness": 4}]


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({"helpfulness": 0}, "rated low"),
        ({"chat_feedback": {"type": "flag/bug"}}, "rated low"),
        ({"reward": -1.5}, "rated low"),
        ({"flagged": True}, "marked flagged"),
        ({"is_safe": False}, "marked is_safe: false"),
        ({"include": False}, "marked include: false"),
        ({"hallucination": True}, "marked hallucination"),
        ({"votes": {"up": 1, "down": 3}}, "marked down by more than up"),
        ({"upvotes": 0, "downvotes": 2}, "marked down by more than up"),
        ({"metadata": {"tokens": 3, "feedback": {"rating": "thumbs_down"}}}, "rated low"),
        ({"status": "stopped"}, "unfinished answer"),
        ({"finish_reason": "length"}, "unfinished answer"),
        ({"stopReason": "aborted"}, "unfinished answer"),
        ({"stop_reason": "user_canceled"}, "unfinished answer"),
    ],
)
def test_marks_against_an_answer(tmp_path: Path, marks: dict[str, Any], reason: str) -> None:
    found, report = read(write(tmp_path / "a.jsonl", *row(**marks)))
    assert said(found) == [[Q2, A2]]
    assert report.dropped == {reason: 1}
    messages = [
        ASKED,
        {**WRONG, **marks},
        turn("user", Q2),
        turn("assistant", A2, stop_reason="end_turn", helpfulness=4),
    ]
    found, report = read(write(tmp_path / "b.jsonl", {"messages": messages}))
    assert [item.answer for item in found] == [A2]
    assert report.dropped == {reason: 1}


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": Q1, "completions": ["one", "NEVER"], "labels": [True, False]},
        {"question": {"problem": Q1}, "label": {"steps": [], "finish_reason": "x"}},
    ],
)
def test_judged_steps_are_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInput, match="process reward model"):
        read(write(tmp_path / "a.jsonl", value))


TEMPLATES = {
    "harmony": f"<|start|>system<|message|>x<|end|><|start|>user<|message|>{Q1}<|end|><|start|>assistant<|channel|>"
    f"analysis<|message|>NEVER<|end|><|start|>assistant<|channel|>final<|message|>{A1}<|return|>",
    "DeepSeek": f"<｜begin▁of▁sentence｜>be kind<｜User｜>{Q1}<｜Assistant｜>{A1}<｜end▁of▁sentence｜>",
    "Command R": f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{Q1}<|END_OF_TURN_TOKEN|>"
    f"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{A1}<|END_OF_TURN_TOKEN|>",
    "Llama 4": f"<|begin_of_text|><|header_start|>user<|header_end|>\n\n{Q1}<|eot|>"
    f"<|header_start|>assistant<|header_end|>\n\n{A1}<|eot|>",
    "Alpaca": f"Below is an instruction that describes a task.\n\n### Instruction:\n{Q1}\n\n### Response:\n{A1}",
    "Metharme": f"<|system|>Enter RP mode.<|user|>{Q1}<|model|>{A1}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_models(tmp_path: Path, name: str) -> None:
    assert said(read(write(tmp_path / "a.txt", TEMPLATES[name]))[0]) == [FIRST]
    assert said(read(write(tmp_path / "b.jsonl", {"text": TEMPLATES[name]}))[0]) == [FIRST]
    prompt, _, answer = TEMPLATES[name].rpartition(A1)
    assert said(read(write(tmp_path / "c.jsonl", {"prompt": prompt, "completion": A1 + answer}))[0]) == [FIRST]


def test_an_assistant_in_a_template_may_have_a_name(tmp_path: Path) -> None:
    rows = [("user name=Ana", Q1), ("assistant name=Vex", A1), ("assistant name=Hob", "NEVER"), ("user name=Ana", Q2)]
    rows.append(("assistant name=Vex", A2))
    path = tmp_path / "a.txt"
    path.write_text("".join(f"<|im_start|>{name}\n{text}<|im_end|>\n" for name, text in rows))
    found, report = read(path, voice=Voice(("Vex",)))
    assert [item.answer for item in found] == [A1, A2]
    assert report.noise["turn of another speaker"] == 1


LOGGED: dict[str, dict[str, Any]] = {
    "stored completions": {
        "messages": [ASKED],
        "choices": [{"index": 0, "message": ANSWERED, "finish_reason": "stop"}],
    },
    "bodies": {"request_body": {"messages": [ASKED]}, "response_body": {"choices": [{"message": ANSWERED}]}},
    "an answer beside": {"messages": [ASKED], "response": A1},
    "inputs and outputs": {"input": {"messages": [ASKED]}, "output": ANSWERED},
    "runs": {
        "inputs": {"messages": [{"type": "human", "data": {"content": Q1}}]},
        "outputs": {"output": {"type": "ai", "data": {"content": A1}}},
    },
}


@pytest.mark.parametrize("kind", LOGGED)
def test_requests_and_their_responses(tmp_path: Path, kind: str) -> None:
    found, report = read(write(tmp_path / "a.jsonl", LOGGED[kind]))
    assert said(found) == [FIRST]
    assert report.formats == {"requests and responses": 1}


def test_a_response_that_was_cut_off_is_not_learned(tmp_path: Path) -> None:
    row = {"messages": [ASKED], "choices": [{"message": WRONG, "finish_reason": "length"}]}
    assert read(write(tmp_path / "a.jsonl", row))[1].dropped == {"unfinished answer": 1}


@pytest.mark.parametrize(
    "text",
    [
        f"### Human: {Q1}### Assistant: {A1}### Human: {Q2}### Assistant: {A2}",
        f"A chat between a curious user and an assistant. USER: {Q1} ASSISTANT: {A1}</s>USER: {Q2} ASSISTANT: {A2}</s>",
    ],
)
def test_rows_in_older_templates(tmp_path: Path, text: str) -> None:
    assert said(read(write(tmp_path / "a.jsonl", {"text": text}))[0]) == [FIRST, WHOLE]


@pytest.mark.parametrize(
    "mark",
    [
        {"feedback_rating": "dislike"},
        {"scores": [{"name": "latency", "value": 0}, {"name": "user-feedback", "value": 0}]},
        {"reaction": "Meaningless"},
        {"quality": "low"},
        {"verdict": "fail"},
    ],
)
def test_feedback_in_other_fields(tmp_path: Path, mark: dict[str, Any]) -> None:
    found, report = read(write(tmp_path / "a.jsonl", {"prompt": Q1, "completion": BAD, **mark}))
    assert (found, report.dropped) == ([], {"rated low": 1})
    kept = {"scores": [{"name": "latency", "value": 0}], "reaction": "Love", "verdict": "pass"}
    assert len(read(write(tmp_path / "b.jsonl", {"prompt": Q1, "completion": A1, **kept}))[0]) == 1


def test_a_message_that_is_not_shown_is_no_answer(tmp_path: Path) -> None:
    hidden = [ASKED, {**WRONG, "hidden": True}, ANSWERED]
    found, report = read(write(tmp_path / "a.jsonl", {"messages": hidden, "hidden": True}))
    assert said(found) == [FIRST] and report.dropped == {"hidden message": 1}


SCRIPTED: dict[str, dict[str, Any]] = {
    "a transcript": {"text": f"User: {Q1}\nAssistant: {A1}\nUser: {Q2}\nAssistant: {A2}"},
    "a transcript in bold": {"conversation": f"**Human:** {Q1}\n**AI:** {A1}\n**Human:** {Q2}\n**AI:** {A2}"},
    "exchanges": {"turns": [{"user": Q1, "assistant": A1}, {"user": Q2, "assistant": A2}]},
    "utterances": {
        "dialogue": [
            {"speaker": speaker, "text": text} for speaker, text in zip(("Ana", "Vex") * 2, WHOLE, strict=True)
        ]
    },
}


@pytest.mark.parametrize("name", SCRIPTED)
def test_rows_of_peoples_scripts(tmp_path: Path, name: str) -> None:
    found, _ = read(write(tmp_path / "a.jsonl", SCRIPTED[name]), voice=Voice(("Vex",)))
    assert said(found) == [FIRST, WHOLE]


@pytest.mark.parametrize("names", [("Question", "Answer"), ("q", "a"), ("Prompt", "Response")])
def test_names_of_fields_with_capitals(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [dict(zip(names, pair, strict=True)) for pair in ((Q1, A1), (Q2, A2))]
    assert said(read(write(tmp_path / "a.jsonl", *rows))[0]) == [[Q1, A1], [Q2, A2]]


@pytest.mark.parametrize(
    "text", ["Tea is a drink.", "Note: User: x", "User: alone", "Author: Ana\nYear: 1999", "User: a\nUser: b"]
)
def test_texts_that_are_no_transcripts(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="no conversation of a known format"):
        read(write(tmp_path / "a.jsonl", {"text": text}))


def test_a_table_of_turns_has_marks_too(tmp_path: Path) -> None:
    path = tmp_path / "replika.csv"
    path.write_text(
        f"From,Text,Reaction\nMe,{Q1},None\nRep,{A1},Upvote\nMe,{Q2},None\nRep,{BAD.replace(',', '')},Downvote\n"
    )
    found, report = read(path)
    assert said(found) == [FIRST]
    assert report.dropped == {"rated low": 1}


def test_a_row_with_more_cells_than_columns_is_not_learned(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'prompt,completion,label\n{Q1},"{A1}",True\n{Q2},NEVER, as an AI.,False\n')
    found, report = read(path)
    assert said(found) == [FIRST]
    assert report.noise == {"row of no known format": 1}
