"""Signs that a conversation gives orders to the model beside what is asked: prompt injections and hidden text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.types import Message

_ALL = r"(?:(?:all|any|every|everything|the|your|my|these|those|of|prior|previous|above|earlier|former|preceding)\s+)"
_ORDERS = r"(?:instructions?|prompts?|rules|directions|directives|guidelines|orders|programming)"
ORDERS = {
    "an order to ignore instructions": re.compile(
        rf"\b(?:ignore|disregard|forget|override|bypass|drop)\s+{_ALL}+(?:\w+\s+)?{_ORDERS}\b"
        r"|\b(?:ignore|disregard|forget)\s+(?:everything|all)\s+(?:above|before|you\s+(?:were|have\s+been)\s+told)"
        r"|\bignorier\w*\s+(?:alle|die|deine|s[äa]mtliche)\b[^.\n]{0,30}\b(?:anweisungen|regeln|vorgaben)"
        r"|\b(?:ignor[ae]|ignore[sz]?|olvida|esque[çc]a|oublie[sz]?)\b[^.\n]{0,30}"
        r"\b(?:instrucciones|instru[çc][õo]es|instructions)\b",
        re.IGNORECASE,
    ),
    "an order to be somebody else": re.compile(
        r"\byou\s+are\s+(?:now|no\s+longer)\s+(?:an?\b|the\b|free\b|called\b)"
        r"|\bfrom\s+now\s+on,?\s+(?:you|answer|respond|act|speak)\b"
        r"|\b(?:developer|jailbreak|dan|god)\s+mode\b(?=[^.\n]{0,30}\b(?:on|enabled?|activated?)\b)",
        re.IGNORECASE,
    ),
    "an order to drop the character": re.compile(
        r"\b(?:drop|stop|quit|end)\s+(?:the|this|your)\s+(?:act|character|persona|role|role-?play)\b"
        r"|\bsystem\s+override\b|\bpersona(?:lity)?\s+(?:module|mode)\b[^.\n]{0,20}\b(?:off|disabled|deactivated)\b"
        r"|\bstop\s+(?:pretending|being\s+[A-Z])",
        re.IGNORECASE,
    ),
    "a question for the system prompt": re.compile(
        r"\b(?:reveal|print|show|repeat|output|leak)\b[^.\n]{0,30}\b(?:system|hidden|initial)\s+(?:prompt|instructions?|message)",
        re.IGNORECASE,
    ),
}
ROLE = re.compile(
    r"<\|(?:im_start|im_end|system|user|assistant|eot_id|start_header_id|end_header_id|endoftext)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|start_of_turn|end_of_turn)(?:>|_message>|\s+prompt>)"
    r"|^\s*#{2,}\s*(?:system|assistant|instructions?)\s*:"
    r"|^\s*\[?(?:system|assistant)\]?\s*(?:prompt|message)\s*:|^\s*\[?assistant\]?\s*:\s*\S",
    re.IGNORECASE | re.MULTILINE,
)
"""What marks the turns of a chat, in the text of one."""
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+")
INVISIBLE = re.compile("[\U000e0000-\U000e007f]|[\u202d\u202e\u2066-\u2068]|[\u200b\u200c\u200d\u2060\ufeff]{3,}")
"""Characters that carry text which nobody sees, or turn it round; single joiners belong to emoji and some scripts."""
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
HIDDEN = re.compile(r"(?:display\s*:\s*none|font-size\s*:\s*0|visibility\s*:\s*hidden)", re.IGNORECASE)


def signs(messages: list[Message]) -> list[str]:
    """What in the turns of a conversation looks like an order to the model, each sign once."""
    return list(dict.fromkeys(sign for turn in messages for sign in _signs(turn["role"], turn["content"])))


def _signs(role: str, text: str) -> Iterator[str]:
    if ROLE.search(text):
        yield "a role tag in a turn"
    if INVISIBLE.search(_FLAG.sub("", text)):
        yield "invisible characters"
    if role == "assistant":
        return
    yield from (name for name, pattern in ORDERS.items() if pattern.search(text))
    if HIDDEN.search(text) or any(_is_order(comment) for comment in COMMENT.findall(text)):
        yield "a hidden text"


def _is_order(text: str) -> bool:
    """Whether a comment is addressed to the model."""
    return bool(re.search(r"\b(?:you|your|assistant|model|instructions?|answer|respond|reply)\b", text, re.IGNORECASE))
