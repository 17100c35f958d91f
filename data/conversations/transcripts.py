"""Conversations in Markdown or plain text, with the name of the speaker before each turn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from moltlm.data.conversations import voices
from moltlm.data.conversations.sources import LIMIT, Source, lines
from moltlm.data.conversations.turns import OTHER, Conversation, FileReport, Turn
from moltlm.data.conversations.voices import UnknownPersona, Voice

TRANSCRIPT = "transcript"

SIGN = r"[^\w\s#*+\-|`~:：.,;!?'\"“”‘’«»„()\[\]{}<>=/\\&%$@^]"
"""A character of an emoji, or an invisible mark of a text's direction."""
TIME = r"(?:[\[(]?\d[\d:.,/ TZ-]{2,30}(?: ?[AaPp]\.?[Mm]\.?)?[\])]?(?: ?[-–—|])? {0,3})?"
NAME = rf"(?P<label>[^\W\d_][\w.'’ &-]{{0,38}}?)(?:\s?{SIGN}{{1,8}})?"
LABEL = rf"{TIME}(?:{SIGN}{{1,8}} ?)?{NAME}(?: ?[(\[][^)\]\n]{{1,40}}[)\]])?"
SAID = r"(?:\s(?:said|says|wrote|hat gesagt|hast gesagt|sagte|dijo|dijiste|a dit|avez dit|ha detto|hai detto|disse))?"
SAID += r"(?:说|說)?"
STYLES = {
    "heading": re.compile(rf" {{0,3}}#{{1,6}} +\W{{0,4}}{LABEL}{SAID}\s*[:：]?[\s#*_]*(?P<text>)$"),
    "bold": re.compile(
        rf" {{0,3}}(?:[-*+>] )?{TIME}(?P<mark>\*\*\*|\*\*|__|\*){LABEL}{SAID}"
        rf"\s*(?:[:：]\s*(?P=mark)|(?P=mark)(?: ?[(\[][^)\]\n]{{1,40}}[)\]])?\s*(?:[:：]|$))\s*(?P<text>.*)$"
    ),
    "plain": re.compile(rf"(?:[-*+>] )?{LABEL}{SAID}(?:\s?：\s*|\s?:(?:\s+|$))(?P<text>.*)$"),
    "angle": re.compile(rf"{TIME}<[@+ ]?{NAME}>\s+(?P<text>.*)$"),
}
"""How a line that begins a turn looks: `## User`, `**User:** text`, `User: text` and `<User> text`, each with emoji or
a time beside the name."""

NOT_NAMES = voices.plain_words(
    """
    note notes warning tip tips hint example examples ps edit update summary step steps option title date subject
    result results output input total conclusion answer question answers questions source sources reference references
    todo caution important remember ingredients method instructions pros cons translation definition explanation error
    solution problem nota hinweis beispiel zusammenfassung schritt ejemplo resumen exemple exemplo esempio http https
    also first second third finally however context background usage options pro con tldr recipe rezept receta recette
    zutaten attention achtung obs aviso chapter part section verse chorus scene day name price
    """
)
"""Words before a colon that introduce a remark or a part of a text, and name nobody."""

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*$")


@dataclass(frozen=True)
class Style:
    """How turns begin in a transcript, and who speaks.

    Args:
        name: the key of STYLES.
        speakers: the role of each speaker.
        open: whether whoever else is named at the beginning of a line is a speaker too: so it is in a log in which
            every line names its speaker.
    """

    name: str
    speakers: dict[str, str]
    open: bool = False

    @cached_property
    def roles(self) -> dict[str, str]:
        """The role of each speaker, by the plain name (`voices.plain`)."""
        return {voices.plain(label): role for label, role in self.speakers.items()}

    def begins(self, line: str) -> tuple[str, str] | None:
        """The role and the text of a turn that begins in this line."""
        match = STYLES[self.name].match(line)
        if match is None:
            return None
        role = self.roles.get(voices.plain(match["label"])) or (
            OTHER if self.open and _could_be_name(match["label"]) else ""
        )
        return (role, match["text"] or "") if role else None


def style_of(head: str, voice: Voice, where: str = "") -> Style | None:
    """Detect how turns begin in a text, and who speaks.

    The speakers are the persona and others beside it; or names that are roles, of both sides or of one side and one
    more name; or, with neither, two names or more of which each comes at least twice.

    Returns:
        None if the text is no transcript.

    Raises:
        UnknownPersona: if it is one, and nothing tells which of the speakers is the persona.
    """
    unknown = None
    lines = [line for line in _unfenced(head) if line.strip()]
    for style, expression in STYLES.items():
        labels = voices.same_spelling(match["label"] for line in lines if (match := expression.match(line)))
        if len(set(labels)) < 2:
            continue
        is_log = len(labels) >= 0.9 * len(lines) and style != "heading"
        try:
            roles = _roles(labels, voice, where, is_log)
        except UnknownPersona as error:
            unknown = unknown or error
            continue
        if roles:
            return Style(style, roles, is_log)
    if unknown:
        raise unknown
    return None


def _roles(labels: list[str], voice: Voice, where: str, is_log: bool) -> dict[str, str]:
    """The role of each label that is a speaker's; none if the text is no transcript."""
    counts = Counter(labels)
    persona = voice.among(counts)
    words = {label: "assistant" if label in persona else voices.role_word(label) for label in counts}
    speakers = {label for label, word in words.items() if word}
    sides = {word for word in words.values() if word} - {"system", OTHER}
    others = [label for label, word in words.items() if not word and _could_be_name(label)]
    often = [label for label in others if counts[label] > 1]
    if len(sides) == 1 and len(speakers) == 1 and not is_log:
        often = often if _take_turns(counts, speakers, others) and labels[0] in (*speakers, *others) else []
        often = often or (others if len(counts) == 2 else [])
    added = others if is_log else often
    if not (sides == {"user", "assistant"} or (sides and (added or len(speakers) > 1)) or len(often) > 1):
        return {}
    speakers |= set(added)
    return voices.roles_of([label for label in labels if label in speakers], voice, where=where)


def _take_turns(counts: Counter[str], speakers: set[str], others: list[str]) -> bool:
    """Whether one of the others speaks at least half as often as those who are known."""
    return 2 * max((counts[label] for label in others), default=0) >= max(counts[label] for label in speakers)


def _could_be_name(label: str) -> bool:
    """Whether a label looks like a speaker's name: up to three words, not in lower case, and no word for a remark."""
    name = voices.plain(label)
    numbered = voices.NUMBERED.fullmatch(name)
    is_remark = name in NOT_NAMES or (numbered is not None and numbered[1] in NOT_NAMES)
    return len(label.split()) <= 3 and not label[0].islower() and not is_remark


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


def conversations(style: Style, source: Source, report: FileReport) -> Iterator[Conversation]:
    """Read a transcript, which is one conversation. `style` is what `style_of` returns."""
    report.format = TRANSCRIPT
    report.conversations += 1
    report.speakers |= style.speakers
    yield Conversation("the transcript", _turns(style, source, report), source.stem)


def _turns(style: Style, source: Source, report: FileReport) -> Iterator[Turn]:
    """Raises BadInput for a code fence that is never closed although speakers follow, and for a turn over LIMIT."""
    role, pending, size = "", [], 0
    fence, opened, swallowed = "", 0, False
    for number, line in lines(source):
        begun = style.begins(line)
        before, fence = fence, _fence(fence, line)
        if fence and not before:
            opened, swallowed = number, False
        swallowed = swallowed or bool(before and begun)
        if begun and not before:
            yield from _turn(role, pending, report)
            role, pending, size = begun[0], [begun[1]], 0
        else:
            pending.append(line)
            size += len(line)
            if size > LIMIT:
                raise source.bad(f", line {number}: one turn is larger than {LIMIT >> 20} MiB.")
    if fence and swallowed:
        fix = f"Close it with {fence} where the code ends: sed -n {opened}p '{source.name}'"
        raise source.bad(f", line {opened}: a code fence is opened and never closed, and speakers follow it.", fix)
    yield from _turn(role, pending, report)


def _turn(role: str, lines: list[str], report: FileReport) -> Iterator[Turn]:
    """The turn without the rule that many tools put between turns. Text before the first speaker is noise."""
    while lines and (not lines[-1].strip() or RULE.match(lines[-1])):
        lines.pop()
    text = "\n".join(lines).strip()
    if role in ("user", "assistant", OTHER):
        yield Turn(role, text)
    elif text:
        report.noise["system message" if role else "text before the first turn"] += 1
