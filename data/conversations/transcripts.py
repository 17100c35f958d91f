"""Conversations in Markdown or plain text, with the name of the speaker before each turn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from moltlm.data.conversations.sources import LIMIT, Source, lines
from moltlm.data.conversations.turns import Conversation, FileReport, Turn

TRANSCRIPT = "transcript"

LABEL = r"(?P<label>[^\W\d_][\w.'’ -]{0,30}?)(?: ?[(\[][^)\]\n]{1,40}[)\]])?"
STYLES = {
    "heading": re.compile(rf" {{0,3}}#{{1,6}} +\W{{0,4}}{LABEL}(?: said)?\s*:?[\s#]*(?P<text>)$"),
    "bold": re.compile(
        rf" {{0,3}}(?P<mark>\*\*|__|\*){LABEL}(?: said)?\s*(?::\s*(?P=mark)|(?P=mark)\s*(?::|$))\s*(?P<text>.*)$"
    ),
    "plain": re.compile(rf"{LABEL}(?: said)?:(?:\s+(?P<text>.*))?$"),
}
"""How a line that begins a turn looks: `## User`, `**User:** text` and `User: text`."""

USERS = ("user", "human", "me", "you", "i", "prompt", "question", "q")
ASSISTANTS = ("assistant", "ai", "bot", "model", "chatgpt", "gpt", "gpt-4", "gpt-4o", "claude", "gemini", "copilot")
ASSISTANTS += ("llama", "mistral", "deepseek", "grok", "answer", "a", "response", "chatbot", "ai assistant")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*$")


def style_of(head: str) -> tuple[str, dict[str, str]] | None:
    """Detect how turns begin in a text, and who speaks.

    The speakers are the known names of both sides in one style; or a known name and the commonest of the other names;
    or, without a known name, the only two names, if each comes at least twice. The first of those two is the user.

    Returns:
        The key of STYLES, and the role of each speaker in lower case; None if the text is no transcript.
    """
    for style, expression in STYLES.items():
        labels = [match["label"].lower() for line in _unfenced(head) if (match := expression.match(line))]
        roles = _roles(labels)
        if roles:
            return style, roles
    return None


def _roles(labels: list[str]) -> dict[str, str]:
    counts = Counter(labels)
    users = [label for label in counts if label in USERS]
    assistants = [label for label in counts if label in ASSISTANTS]
    if "you" in users and not assistants and {"me", "i"} & set(users):
        assistants = [users.pop(users.index("you"))]  # of `Me:` and `You:`, the user is me
    others = [label for label, _ in counts.most_common() if label not in (*users, *assistants)]
    if not users and not assistants:
        if len(counts) != 2 or min(counts.values()) < 2:
            return {}
        users, assistants = labels[:1], [label for label in counts if label != labels[0]]
    elif others and not (users and assistants):
        often = counts[others[0]] * 2 >= max(counts.values()) and (counts[others[0]] > 1 or len(counts) == 2)
        if often and labels[0] in (*users, *assistants, others[0]):
            users, assistants = users or others[:1], assistants or others[:1]
    if not users or not assistants:
        return {}
    return {**dict.fromkeys(users, "user"), **dict.fromkeys(assistants, "assistant"), "system": "system"}


def _unfenced(text: str) -> Iterator[str]:
    fence = ""
    for line in text.splitlines():
        fence = _fence(fence, line)
        if not fence:
            yield line


def _fence(fence: str, line: str) -> str:
    """The code fence that is open after this line, or "" (CommonMark 4.5)."""
    match = FENCE.match(line)
    if not match:
        return fence
    if not fence:
        return match[1]
    closes = match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip()
    return "" if closes else fence


def conversations(style: str, roles: dict[str, str], source: Source, report: FileReport) -> Iterator[Conversation]:
    """Read a transcript, which is one conversation. `style` and `roles` are those that `style_of` returns."""
    report.format = TRANSCRIPT
    report.conversations += 1
    yield Conversation("the transcript", _turns(style, roles, source, report), source.stem)


def _turns(style: str, roles: dict[str, str], source: Source, report: FileReport) -> Iterator[Turn]:
    """Raises BadInput for a code fence that is never closed although speakers follow, and for a turn over LIMIT."""
    role, pending, size = "", [], 0
    fence, opened, swallowed = "", 0, False
    for number, line in lines(source):
        match = None if fence else STYLES[style].match(line)
        before, fence = fence, _fence(fence, line)
        if fence and not before:
            opened, swallowed = number, False
        swallowed = swallowed or bool(before and _speaks(style, roles, line))
        if match and match["label"].lower() in roles:
            yield from _turn(role, pending, report)
            role, pending, size = roles[match["label"].lower()], [match["text"] or ""], 0
        else:
            pending.append(line)
            size += len(line)
            if size > LIMIT:
                raise source.bad(f", line {number}: one turn is larger than {LIMIT >> 20} MiB.")
    if fence and swallowed:
        fix = f"Close it with {fence} where the code ends: sed -n {opened}p '{source.name}'"
        raise source.bad(f", line {opened}: a code fence is opened and never closed, and speakers follow it.", fix)
    yield from _turn(role, pending, report)


def _speaks(style: str, roles: dict[str, str], line: str) -> bool:
    match = STYLES[style].match(line)
    return match is not None and match["label"].lower() in roles


def _turn(role: str, lines: list[str], report: FileReport) -> Iterator[Turn]:
    """The turn without the rule that many tools put between turns. Text before the first speaker is noise."""
    while lines and (not lines[-1].strip() or RULE.match(lines[-1])):
        lines.pop()
    text = "\n".join(lines).strip()
    if role in ("user", "assistant"):
        yield Turn(role, text)
    elif text:
        report.noise["system message" if role else "text before the first turn"] += 1
