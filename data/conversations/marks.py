"""What the data itself says against an answer: marks on a message or a row such as `label: false` or `rating: 1`.

Marks of training (`weight: 0`, `train: false`) say that an answer is context only. All others say that it is bad: it is
neither learned nor context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNTRAINED = _words("weight loss train trainable loss_mask learn training")
"""Fields that are false for an answer which is only context."""

GOOD = _words(
    """
    label kto_tag liked desirable is_desirable good is_good accepted is_accepted approved is_approved keep is_preferred
    is_chosen review_result is_correct is_safe correct valid is_valid use include included useful
    """
)
"""Fields that are false for a bad answer."""

CHOICES = _words("chosen preferred selected")
"""Fields that are likewise, but may hold a text."""

BAD = _words(
    """
    rejected is_rejected is_bad isBad bad disliked dislike is_disliked thumbs_down thumbsDown thumb_down downvoted
    skip skipped spam is_spam hallucination is_hallucination unsafe is_unsafe harmful is_harmful incorrect
    flagged is_flagged toxic is_toxic undesirable is_undesirable discarded discard excluded exclude retracted ignore
    ignored
    """
)
"""Fields that are true for a bad answer."""

DELETED = _words("deleted is_deleted isDeleted deleted_at deletedAt removed is_removed")
HIDDEN = _words("hidden is_hidden isHidden superseded is_superseded")
"""Fields that are true for a message that is not shown."""
ERRORS = _words("error is_error isError isApiErrorMessage failed")
FAILED = _words("error failed rejected cancelled canceled deleted discarded")
"""Values of `status`."""
UNFINISHED = _words(
    """
    in_progress incomplete stopped interrupted aborted length max_tokens user_canceled user_cancelled cancelled canceled
    finished_partial_completion model_length model_context_window_exceeded
    """
)
"""Values of `status` and of the fields in ENDS for an answer that was broken off."""
BROKEN = _words("draft is_draft isDraft unfinished isUnfinished is_unfinished interrupted isInterrupted truncated")
"""Fields that are true for an answer that was broken off."""
ENDS = _words("stop_reason stopReason finish_reason finishReason")
TIES = _words("tie same equal")
"""Values of `status` of a row whose answers are equally good."""

RATINGS = _words("rating stars score quality user_rating userRating rate helpfulness overall_score human_score csat")
FEEDBACK = _words(
    """
    feedback annotation reaction user_feedback userFeedback evaluation review message_feedback chat_feedback thumbs
    vote like sentiment verdict judgement judgment feedback_rating feedbackRating
    user_feedback_rating message_rating thumb
    """
)
NEGATIVE = _words(
    """
    bad undesirable rejected reject false negative no dislike disliked down downvote downvoted thumbsdown thumbdown poor
    low verylow fail failed unacceptable unusable unsafe wrong incorrect terrible awful unhelpful meaningless offensive
    -1 0 👎 ❌
    """
)

VOTES = (
    *(("upvotes", "downvotes"), ("up", "down"), ("up_votes", "down_votes"), ("likes", "dislikes")),
    ("thumbs_up", "thumbs_down"),
)
"""Numbers of votes for an answer and against it."""
VOTED = _words("votes reactions")
"""Objects that may hold them."""
INSIDE = _words("metadata meta")
"""Objects beside a message's content that may hold what a user thinks of it."""
SCORES = "scores"
"""A list of objects with a name and a value, of which those named like this are a user's."""
OF_USERS = re.compile(r"feedback|thumb|like", re.IGNORECASE)

RATING = re.compile(rf'"({"|".join(sorted(RATINGS))})"\s*:\s*"?(-?\d{{1,4}}(?:\.\d{{1,6}})?)\b')
NUMBER = re.compile(r"\s*(-?\d{1,4}(?:\.\d{1,6})?)\s*(?:/\s*(\d{1,4}))?\s*")
LOW = 0.45
"""A rating below this share of its scale is low: 2 of 5 and 4 of 10 are, 3 of 5 is not."""


MARKED, RATED_LOW = "marked ", "rated low"
"""The reasons of answers that somebody judged to be bad, the first with the field after it."""
THUMB_DOWN = MARKED + "thumbs down"


class Verdict(NamedTuple):
    """What a mark says: that an answer is only context, or why it is unwanted."""

    context_only: bool = False
    unwanted: str = ""


UNMARKED = Verdict()


def is_judgement(reason: str) -> bool:
    """Whether an answer is unwanted since somebody judged it to be bad, rather than deleted or an error."""
    return reason == RATED_LOW or reason.startswith(MARKED)


def scales(head: str) -> dict[str, float]:
    """The highest rating for each name of a field, in the beginning of a file."""
    highest: dict[str, float] = {}
    for match in RATING.finditer(head):
        highest[match[1]] = max(highest.get(match[1], 0.0), float(match[2]))
    return highest


def mark_of(record: Mapping[str, Any], scales: Mapping[str, float]) -> Verdict:
    """What a message, or a row with one answer, says about its answer.

    Args:
        scales: the highest rating in the file, by the name of its field.
    """
    if KEYS.isdisjoint(record):
        return UNMARKED
    return Verdict(any(_is_no(record.get(key)) for key in UNTRAINED), _unwanted(record, scales))


def _unwanted(record: Mapping[str, Any], scales: Mapping[str, float]) -> str:
    """Why the answer of a record is unwanted, or ""."""
    if any(record.get(key) for key in DELETED):
        return "deleted"
    if any(record.get(key) is True for key in HIDDEN) and not SENDERS.isdisjoint(record):
        return "hidden message"
    if any(record.get(key) for key in ERRORS) or str(record.get("status", "")).lower() in FAILED:
        return "error instead of an answer"
    status = record.get("status")
    if isinstance(status, str) and status.lower() in TIES:
        return "as good as the rejected answer"
    if any(record.get(key) is True for key in BROKEN):
        return "unfinished answer"
    if any(str(record[key]).lower() in UNFINISHED for key in ("status", *ENDS) if isinstance(record.get(key), str)):
        return "unfinished answer"
    marks = [f"{key}: {_value_text(record[key])}" for key in sorted(GOOD & record.keys()) if _is_no(record[key])]
    marks += [f"{key}: false" for key in sorted(CHOICES & record.keys()) if record[key] is False]
    marks += [key for key in sorted(BAD & record.keys()) if record.get(key) is True or record.get(key) == 1]
    if marks:
        return MARKED + marks[0]
    if any(_is_voted_down(each) for each in (record, *(record.get(key) for key in VOTED))):
        return MARKED + "down by more than up"
    reward = record.get("reward")
    if isinstance(reward, int | float) and reward < 0:
        return RATED_LOW
    is_low = any(_is_low(record.get(key), scales.get(key, 0.0)) for key in RATINGS)
    is_negative = any(_is_negative(record.get(key), scales) for key in FEEDBACK) or _is_scored_low(record.get(SCORES))
    is_negative = is_negative or any(_is_negative_inside(record.get(key), scales) for key in INSIDE)
    return RATED_LOW if is_low or is_negative else ""


def _is_voted_down(votes: Any) -> bool:
    """Whether an answer has more votes against it than for it."""
    if not isinstance(votes, Mapping):
        return False
    pairs = ((votes.get(up) or 0, votes.get(down)) for up, down in VOTES)
    return any(type(up) is int and type(down) is int and down > up for up, down in pairs)


def _is_negative_inside(value: Any, scales: Mapping[str, float]) -> bool:
    """Whether an object of other facts holds negative feedback."""
    return isinstance(value, Mapping) and any(_is_negative(value.get(key), scales) for key in FEEDBACK & value.keys())


def _is_scored_low(scores: Any) -> bool:
    """Whether a score of a user is bad, as in Langfuse: `{"name": "user-feedback", "value": 0}`."""
    return any(
        isinstance(score, Mapping) and OF_USERS.search(str(score.get("name"))) and _is_no(score.get("value"))
        for score in (scores if isinstance(scores, list) else [])
    )


def _is_no(value: Any) -> bool:
    """Whether a value says no: false, 0, a number below, or a word such as `bad`."""
    if isinstance(value, str):
        return _word(value) in NEGATIVE or value.startswith("flag/")
    return value is False or (isinstance(value, int | float) and not isinstance(value, bool) and value <= 0)


def _word(value: str) -> str:
    """A word in lower case without what joins its parts (`Thumbs-Down`)."""
    value = value.strip().casefold()
    return value[:1] + value[1:].replace(" ", "").replace("_", "").replace("-", "")


def _is_low(value: Any, highest: float) -> bool:
    """Whether a rating is in the lower part of its scale, which the highest rating of the file tells."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("score"))
    if isinstance(value, str):
        number = NUMBER.fullmatch(value)
        if not number:
            return _word(value) in NEGATIVE
        value, highest = float(number[1]), max(highest, float(number[2] or 0))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is False
    highest = max(highest, value)
    scale = next((scale for scale in (1, 5, 10, 100) if highest <= scale), highest)
    return value < 0 or (highest > 0 and value < LOW * scale)


def _is_negative(value: Any, scales: Mapping[str, float]) -> bool:
    """Whether feedback is negative: a word, a number below zero, or an object that says so."""
    if isinstance(value, list):
        return any(_is_negative(item, scales) for item in value[:100] if not isinstance(item, list))
    if isinstance(value, Mapping):
        plain = {key: item for key, item in value.items() if not isinstance(item, Mapping | list)}
        return any(_is_negative(plain.get(key), scales) for key in SAYING) or bool(_unwanted(plain, scales))
    return value is False or (_is_no(value) and value != 0)


def _value_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:20]


SENDERS = _words("role sender from author speaker")
"""Fields of a message, which a whole conversation does not have."""
SAYING = ("type", "value", "name", "emoji", "comment_type")
"""Fields of a feedback object that may say it in a word."""

KEYS = {
    *UNTRAINED,
    *GOOD,
    *CHOICES,
    *BAD,
    *DELETED,
    *HIDDEN,
    *VOTED,
    *INSIDE,
    *(down for _, down in VOTES),
    *ERRORS,
    *RATINGS,
    *FEEDBACK,
    *ENDS,
    *BROKEN,
    SCORES,
    "status",
    "reward",
}
