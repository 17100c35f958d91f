"""What Claude Code's `/export` writes: the screen, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.format import TextFormat
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.turns import Conversation, FileReport, Turn

USER = re.compile(r"[>❯] ?(?P<text>.*)$")
BLOCK = re.compile(r"[⏺●] ?(?P<text>.*)$")
RESULT = re.compile(r"\s{0,4}⎿")
THINKING = re.compile(r"[✻✽✢✳∴*·] ?(?:Thinking|Thought|Cogitated|[A-Z]\w+(?:ed|ing)\b.{0,20}(?:…|for \d)).*$")
TOOL = re.compile(
    r"(?:[A-Z]\w{0,30}(?: [A-Z]\w{0,30}){0,3}|[\w:-]{1,60} - [\w:-]{1,60} \(MCP\))\("
    r"|Update Todos|Updated? plan|Searched for |Read \d+ files?"
)
"""How a block begins that is a tool call: `Bash(ls)`, `Web Search("...")`."""
BANNER = re.compile(r"\s*[╭│╰▐▝▘▛█]")


def _detect(text: str) -> bool:
    first = text[: 1 << 16].splitlines()
    return any(re.match(r"[⏺●] ", line) for line in first) and any(re.match(r"[>❯] ", line) for line in first)


def _read(source: Source, report: FileReport) -> Iterator[Conversation]:
    report.conversations += 1
    yield Conversation("the session", _turns(source, report), source.stem)


def _turns(source: Source, report: FileReport) -> Iterator[Turn]:
    """Blocks in order. A block that a result follows is a tool call; what precedes the first is the banner."""
    kind, pending, size = "banner", list[str](), 0
    for number, line in lines(source):
        text = line.rstrip()
        user, block = USER.match(text), BLOCK.match(text)
        begins = "user" if user else "assistant" if block else "result" if RESULT.match(text) else ""
        begins = begins or ("thinking" if THINKING.match(text) else "")
        if begins == "user" and kind == "user" and pending[-1:] and pending[-1].strip():
            pending.append(user["text"] if user else "")  # each line of a long prompt is marked in some versions
        elif begins:
            if begins == "result" and kind == "assistant":
                kind = "tool"
            yield from _turn(kind, pending, report)
            match = user or block
            kind, pending, size = begins, [match["text"] if match else text], 0
        else:
            pending.append(text.removeprefix("  "))
        size += len(line)
        if size > LIMIT:
            raise source.bad(f", line {number}: one turn is larger than {LIMIT >> 20} MiB.")
    yield from _turn(kind, pending, report)


def _turn(kind: str, pending: list[str], report: FileReport) -> Iterator[Turn]:
    text = "\n".join(pending).strip()
    if kind == "tool" or (kind == "assistant" and TOOL.match(text)):
        report.noise["tool call"] += 1
    elif kind == "result":
        report.noise["tool result"] += 1
    elif kind == "thinking":
        report.noise["thinking"] += 1
    elif kind == "banner":
        report.noise["text before the first turn"] += bool(text)
    elif kind == "user" and text.startswith(("/", "!")) and "\n" not in text and len(text.split()) < 6:
        report.noise["command of the user"] += 1
    elif text and not re.match(r"\[?(?:Request )?interrupted by user", text, re.IGNORECASE):
        yield Turn(kind, text)


CLAUDE_CODE = TextFormat("Claude Code /export", "the text of Claude Code's /export", _detect, _read)
