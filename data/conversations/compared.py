"""Comparisons of two answers or more to one prompt, in the shapes of many data sets: which is better, and which worse.

`preferences` reads what this makes: an object with `prompt`, `chosen` and `rejected`. Of a comparison that says that
its answers are equally good, or that does not say which is better, none is learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Record = dict[str, Any]

PAIRS = (
    *(("good", "bad"), ("positive", "negative"), ("response_j", "response_k"), ("accepted", "rejected")),
    *(("preferred", "dispreferred"), ("chosen_answer", "rejected_answer"), ("better", "worse"), ("win", "lose")),
    *(("messages", "rejected_messages"), ("pos", "neg"), ("chosen_text", "rejected_text"), ("best", "worst")),
)
"""Fields of a better and a worse answer."""
STEMS = ("response_", "answer_", "output_", "completion_", "human_ref_", "conversation_", "response", "answer")
SUFFIXES = (("a", "b"), ("A", "B"), ("0", "1"), ("1", "2"))
"""Fields of two answers of which another field says which is better."""
CHOICES = (
    *("preference", "preferred", "better_response_id", "winner", "choice", "label", "labels", "chosen", "better"),
    *("preferred_answer", "overall_preference", "preferred_response", "selected"),
)
LISTS = ("generations", "responses", "completions", "summaries", "answers", "candidates", "outputs")
SCORES = ("ratings", "scores", "rating", "rewards", "preferences")
PLACES = ("ranks", "ranking", "rankings")
"""Lists beside the answers: the highest score is the best, and the first place."""
TEXT = ("text", "response", "answer", "completion", "content", "output", "generation")
RANKS = {"overall_score": 1, "score": 1, "fine-grained_score": 1, "rating": 1, "pm_score": 1, "reward": 1, "rank": -1}
"""Fields of one answer among several that say how good it is, with the sign of the best."""
QUESTIONS = ("prompt", "instruction", "question", "query", "input", "history", "context", "context_messages", "post")


def comparison(record: Mapping[str, Any]) -> Record | None:
    """The comparison in a row as `prompt`, `answers` from best to worst, and whether it says which is the best.

    Returns:
        `prompt`, `answers`, `decided`; or None for a row that compares nothing.
    """
    for read in (_pair, _of_two, _listed):
        result = read(record)
        if result:
            prompt, answers = _prompt(record, result["answers"]), result["answers"]
            if _are_texts(prompt) and all(_are_texts(each) and len(each) == len(prompt) for each in answers):
                prompt, answers = None, [_turns(prompt, each) for each in answers]
            return {"decided": result["decided"], "prompt": prompt, "answers": answers}
    return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _turns(questions: list[str], answers: list[str]) -> list[Record]:
    """A dialogue of the questions in a list and the answers in another one, as arenas write it."""
    pairs = zip(questions, answers, strict=True)
    sides = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(sides, pair, strict=True)]


def _pair(record: Mapping[str, Any]) -> Record | None:
    for better, worse in PAIRS:
        sides = [record.get(better), record.get(worse)]
        if all(isinstance(side, str | list | dict) and side for side in sides):
            return {"answers": sides, "decided": True}
    return None


def _of_two(record: Mapping[str, Any]) -> Record | None:
    """Two answers with a number or a letter in the names of their fields."""
    for stem in STEMS:
        for one, two in SUFFIXES:
            sides = [_plain(record.get(stem + one)), _plain(record.get(stem + two))]
            if all(isinstance(side, str | list) and side for side in sides):
                order = _order(record, one, two)
                return {"answers": sides[::-1] if order < 0 else sides, "decided": order != 0}
    return None


def _order(record: Mapping[str, Any], one: str, two: str) -> float:
    """Above zero if the first of two answers is the better one, below zero for the second, zero if neither is."""
    for stem in ("score_", "reward_", "rating_", "winner_model_"):
        first, second = record.get(stem + one), record.get(stem + two)
        if isinstance(first, int | float) and isinstance(second, int | float) and first != second:
            return first - second
    strength = record.get("preference_strength", record.get("overall_preference"))
    if isinstance(strength, int | float):  # HelpSteer: below zero for the first
        return -strength
    choice = next((record[key] for key in CHOICES if isinstance(record.get(key), str | int)), None)
    if choice is None or isinstance(choice, bool):
        return 0
    if "human_ref_A" in record:  # SHP: 1 for the first
        return {1: 1, 0: -1}.get(choice, 0) if isinstance(choice, int) else 0
    word = str(choice).lower().removeprefix("model_").removeprefix("response_").removeprefix("answer_")
    return {one.lower(): 1, two.lower(): -1, "left": 1, "right": -1}.get(word, 0)


def _listed(record: Mapping[str, Any]) -> Record | None:
    """A list of answers which carry their ranks, or have them in a list beside."""
    for key in LISTS:
        answers = record.get(key)
        if not isinstance(answers, list) or len(answers) < 2:
            continue
        ranks = _ranks(record, answers)
        texts = [_text(each) for each in answers]
        if ranks is None or any(text is None for text in texts):
            continue
        ordered = [text for _, text in sorted(zip(ranks, texts, strict=True), key=lambda item: -item[0])]
        return {"answers": ordered, "decided": max(ranks) > min(ranks)}
    return None


def _ranks(record: Mapping[str, Any], answers: list[Any]) -> list[float] | None:
    if all(isinstance(each, dict) for each in answers):
        ranks = [_rank(each) for each in answers]
        if all(rank is not None for rank in ranks):
            return [rank or 0.0 for rank in ranks]
    beside = next((record[key] for key in SCORES if isinstance(record.get(key), list)), None)
    if beside and len(beside) == len(answers) and all(isinstance(score, int | float) for score in beside):
        return [float(score) for score in beside]
    places = next((record[key] for key in PLACES if isinstance(record.get(key), list)), [])
    if len(places) == len(answers) and all(type(place) is int for place in places):
        return [-float(place) for place in places]
    choice = next((record[key] for key in ("choice", "best", "preferred") if key in record), None)
    if isinstance(choice, int) and not isinstance(choice, bool) and 0 <= choice < len(answers):
        return [float(place == choice) for place in range(len(answers))]
    return None


def _rank(answer: Mapping[str, Any]) -> float | None:
    for key, sign in RANKS.items():
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return sign * float(value)
    label = answer.get("label", answer.get("selected", answer.get("is_best")))
    return {"chosen": 1.0, "rejected": 0.0, True: 1.0, False: 0.0}.get(label) if isinstance(label, str | bool) else None


def _text(answer: Any) -> Any:
    if isinstance(answer, dict):
        return next((answer[key] for key in TEXT if isinstance(answer.get(key), str | list)), None)
    return answer if isinstance(answer, str | list) else None


def _prompt(record: Mapping[str, Any], answers: list[Any]) -> Any:
    """The question of a comparison; None where the answers are whole conversations that hold it."""
    for key in QUESTIONS:
        value = _plain(record.get(key))
        if isinstance(value, dict):
            value = next(filter(None, map(value.get, ("messages", "full_text", "text", "content"))), None)
        if isinstance(value, str | list) and value:
            return value
    info = record.get("info")
    if isinstance(info, dict) and isinstance(info.get("post"), str):
        return info["post"]
    return None


def _plain(value: Any) -> Any:
    """A list of texts that is written as JSON in a text, as arenas do, as that list; a list of one text as the text."""
    parsed = value
    if isinstance(value, str) and value.startswith('["'):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
    if not _are_texts(parsed):
        return value
    return parsed[0] if len(parsed) == 1 else parsed


def trees(record: Mapping[str, Any]) -> Iterator[Record]:
    """The messages of a tree of OpenAssistant, each with its parent and its rank."""
    pending = [(record["prompt"], None)]
    while pending:
        message, parent = pending.pop()
        replies = message.get("replies")
        yield {**{key: value for key, value in message.items() if key != "replies"}, "parent_id": parent}
        pending += [(each, message.get("message_id")) for each in replies or () if isinstance(each, dict)]
