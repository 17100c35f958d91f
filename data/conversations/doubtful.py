"""Texts that may be a conversation or something else of the same form: refused, with the command that says which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from moltlm.data.conversations import consoles, speakers, voices
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput

SPECIAL = re.compile(r"[^\w ]")


def error_for(source: Source, text: str, voice: Voice) -> BadInput | None:
    """The error for a text that is no conversation for sure, and may be one."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and _is_prompt(lines[0]) and not any(line.startswith(">> ") for line in lines):
        kinds = [consoles.kind_of(line[len(consoles.PROMPT) :].strip()) for line in lines[:500] if _is_prompt(line)]
        return None if "code" in kinds else _marked(source, consoles.PROMPT, "a session of Python")
    if lines and lines[0].startswith("> ") and _are_alone(lines):
        return _marked(source, ">", "quotations")
    return _named(source, lines, voice)


def _is_prompt(line: str) -> bool:
    return line.startswith(consoles.PROMPT + " ")


def _are_alone(lines: Iterable[str]) -> bool:
    """Whether each line with `>` is alone, and two or more are."""
    runs = [len(list(run)) for is_marked, run in groupby(lines, lambda line: line.startswith("> ")) if is_marked]
    return len(runs) > 1 and max(runs) == 1


def _marked(source: Source, mark: str, what: str) -> BadInput:
    program = f"""awk '/^{mark} /{{print "User: " substr($0, {len(mark) + 2}); print "Assistant:"; next}} 1'"""
    return source.bad(
        f": lines that begin with {mark} may be questions to a model, or {what}.",
        f"If they are questions: {source.convert(program, '.txt')}",
    )


def _named(source: Source, lines: list[str], voice: Voice) -> BadInput | None:
    """The error for a list or a chat with lines that begin like `Ana -` or `Ana >`, of which one names the persona or a
    role."""
    styles = speakers.STYLES["dash"], speakers.STYLES["prompt"]
    matches = [match for line in lines if (match := styles[0].match(line) or styles[1].match(line))]
    labels = list(dict.fromkeys(match["label"] for match in matches))
    if len(labels) < 2 or len(matches) < 2 or not (voice.among(labels) or any(map(voices.role_word, labels))):
        return None
    names = "|".join([label for label in labels if not SPECIAL.search(label)][:6])
    program = f"sed -E 's/^({names}) ?(-|–|—|>)+ /\\1: /'"
    return source.bad(
        f": lines that begin like `{_beginning(matches[0])}` may be turns of a chat, or a list.",
        f"If they are turns: {source.convert(program, '.txt')}",
    )


def _beginning(match: re.Match[str]) -> str:
    return match.string[match.start("label") : match.start("text")].strip()
