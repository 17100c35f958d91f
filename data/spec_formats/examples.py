"""Example dialogues of a card: blocks of lines that begin with a speaker, and prose."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from moltlm.data.spec import Turn
from moltlm.data.spec_formats import macros
from moltlm.data.spec_formats.macros import Cast

BLOCK = re.compile(
    r"<START>|^[ \t]*(?:#{2,4}[ \t]*new (?:chat|roleplay)[^\n]*|\[(?:start a )?new (?:chat|roleplay)\]|\[example chat\]"
    r"|(?:end_of_dialog(?:ue)?|<\|?end_?of_?dialog(?:ue)?\|?>)|\*{3,}|-{3,})[ \t]*$|end_of_dialog(?:ue)?",
    re.IGNORECASE | re.MULTILINE,
)
"""What separates the dialogues of Tavern, Agnai, Character.AI and text-generation-webui."""
SPEAKER = re.compile(
    r"^[ \t>#*_\"]{0,6}(?:\{\{(?P<macro>[^{}:]{1,30})\}\}|<(?P<tag>bot|char|user)>|(?P<name>[^:：\n{}<>*]{1,40}?))"
    r"[*_\"]{0,3}[ \t]*[:：][*_]{0,3}[ \t]*(?P<text>.*)$",
    re.IGNORECASE,
)
Side = Literal["user", "assistant"]
Line = tuple[Side, str]
"""Who says a text, and the text."""
USER_NAMES = {"user", "you", "the user", "human", "anon", "me", "customer", "player"}
LABELS = {
    "note", "notes", "ps", "p.s.", "warning", "time", "date", "location", "mood", "status", "ooc", "example", "scene",
    "setting", "summary", "system", "http", "https", "thought", "thoughts", "edit", "hint", "first", "second", "next",
    "then",
}  # fmt: skip
"""Words before a colon that name no speaker."""


MACROS = r"\{\{(?:user|char)\}\}|<(?:user|bot)>"


def split(text: str, name: str = "") -> tuple[str, str]:
    """The prose of a text, and the dialogue from the first line on that one of its sides says. A list in brackets after
    the dialogue is prose.

    Args:
        name: of the character, where lines may begin with it instead of a macro.
    """
    sides = rf"{MACROS}|You|{re.escape(name)}" if name else MACROS
    match = re.search(rf"^[ \t]*(?:<START>|(?:{sides})[ \t]*:[ \t]*\S)", text, re.MULTILINE | re.IGNORECASE)
    if match is None:
        return text, ""
    talk, bracket, rest = text[match.start() :].partition("\n[")
    return f"{text[: match.start()]}{bracket}{rest}", talk


def is_dialogue(text: str) -> bool:
    """Whether both sides speak in a text, by their macros."""
    sides = {match.lower() for match in re.findall(rf"^[ \t]*({MACROS})[ \t]*:", text, re.MULTILINE | re.IGNORECASE)}
    return bool(sides & {"{{user}}", "<user>"}) and bool(sides & {"{{char}}", "<bot>"})


@dataclass
class Examples:
    """What example dialogues hold. `prose` shows the voice; `others` counts lines of third speakers, which end a
    dialogue."""

    dialogues: list[list[Turn]] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    others: int = 0


def read(text: str, names: set[str], cast: Cast) -> Examples:
    """Read the dialogues between the user and the character.

    A speaker of unknown name is the user where the block names no other; a third one ends the dialogue, so that nothing
    is learned as an answer to somebody who is not there.

    Args:
        names: what the character is called, in lower case.
    """
    examples = Examples()
    for block in BLOCK.split(text):
        turns, prose, others = _turns(block, names)
        examples.others += others
        _add(examples, turns, prose, cast)
    return examples


def _add(examples: Examples, turns: list[Line], prose: str, cast: Cast) -> None:
    cleaned: list[Line] = [(role, _clean(role, text, cast)) for role, text in turns]
    clean = [Turn(role=role, content=text) for role, text in _joined([pair for pair in cleaned if pair[1]])]
    if any(first.role == "user" and second.role == "assistant" for first, second in pairwise(clean)):
        examples.dialogues.append(clean)
    else:
        examples.prose += [turn.content for turn in clean if turn.role == "assistant"]
    if text := macros.answer(prose, cast):
        examples.prose.append(text)


def _clean(role: Side, text: str, cast: Cast) -> str:
    return macros.answer(text, cast) if role == "assistant" else macros.question(text, cast)


def _joined(turns: list[Line]) -> list[Line]:
    """Turns of one speaker after each other as one."""
    joined: list[Line] = []
    for role, text in turns:
        if joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]}\n{text}")
        else:
            joined.append((role, text))
    return joined


def _turns(block: str, names: set[str]) -> tuple[list[Line], str, int]:
    """The turns of a block, the text before them, and the number of lines of third speakers."""
    lines = [(line, _speaker(line, names)) for line in block.strip().split("\n")]
    speakers = [speaker for _, speaker in lines if speaker]
    if not any(speaker.role == "assistant" for speaker in speakers):
        return [], block, 0
    users = [speaker.name for speaker in speakers if speaker.role == "user"]
    others = [speaker.name for speaker in speakers if speaker.role == "other"]
    partner = "user" if "user" in users else next(iter([*users, *others]), None)
    turns: list[tuple[Side, list[str]]] = []
    prose: list[str] = []
    for place, (line, speaker) in enumerate(lines):
        if speaker and speaker.name != partner and speaker.role != "assistant":
            rest = [each for _, each in lines[place:] if each and each.role != "assistant" and each.name != partner]
            return _texts(turns), "\n".join(prose), len(rest)
        if speaker:
            turns.append(("assistant" if speaker.role == "assistant" else "user", [speaker.text]))
        elif turns:
            turns[-1][1].append(line)
        else:
            prose.append(line)
    return _texts(turns), "\n".join(prose), 0


def _texts(turns: list[tuple[Side, list[str]]]) -> list[Line]:
    return [(role, "\n".join(texts)) for role, texts in turns]


@dataclass(frozen=True)
class _Speaker:
    role: str
    name: str
    text: str


def _speaker(line: str, names: set[str]) -> _Speaker | None:
    """Who says a line: the character ("assistant"), the user, or an "other" whose name looks like one."""
    match = SPEAKER.match(line[:4000])
    if not match:
        return None
    text = match["text"] + line[4000:]
    macro, tag, name = match["macro"], match["tag"], match["name"]
    called = (macro or tag or name or "").strip(' *_"').lower()
    if (tag or macro) and called in ("char", "bot", "character"):
        return _Speaker("assistant", "", text)
    if called in names or called in ("char", "bot"):
        return _Speaker("assistant", "", text)
    if tag or macro:
        return _Speaker("user", "user" if called in ("user", "user1", "name1") else called, text)
    if called in USER_NAMES:
        return _Speaker("user", "user", text)
    return _Speaker("other", called, text) if _is_name(name.strip(' *_"')) and not text.startswith("//") else None


def _is_name(text: str) -> bool:
    """One to three words, each with a capital (or in a script without them), that name no speaker's label."""
    words = text.split()
    if not 1 <= len(words) <= 3 or text.lower() in LABELS or len(text) > 30:
        return False
    return all(word[0].isalpha() and not word[0].islower() and not word.isdigit() for word in words) and not re.search(
        r"[.!?,;()\[\]]", text.removesuffix(".")
    )
