"""Who speaks in a transcript: how its lines begin turns, and which of the names are speakers'."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from moltlm.data.conversations import voices
from moltlm.data.conversations.turns import OTHER
from moltlm.data.conversations.voices import UnknownPersona, Voice

SIGN = r"[^\w\s#*+\-|`~:：.,;!?'\"“”‘’«»„()\[\]{}<>=/\\&%$@^]"
"""A character of an emoji, or an invisible mark of a text's direction."""
TIME = r"(?:[\[(]?\d[\d:.,/ TZ-]{2,30}(?: ?[AaPp]\.?[Mm]\.?)?[\])]?(?: ?[-–—|])? {0,3})?"
JOINED = "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Vowel signs and other marks, which are no letters but belong to words of their scripts."""
FACES = "👤👥🧑👩👨🙂🙋🤖🦾"
"""Signs that stand for a speaker by themselves."""
NAME = (
    rf"(?P<label>[^\W\d_][\w{JOINED}.'’ &-]{{0,58}}?|[{FACES}]\ufe0f?|\{{\{{(?:user|char)\}}\}})(?:\s?{SIGN}{{1,8}})?"
)
NICK = r"[^\s<>\"=/!?\d-][^<>\"=/\t\n]{0,38}?"
"""The name of somebody in a log, which may be anything but markup."""
DAY = r"(?:[^\W\d]{2,12}(?: [^\W\d]{1,3}){0,2} )?"
"""`Today at`, `Gestern um`."""
CLOCK = r"(?:\d[\d./-]{4,10},? )?\d{1,2}[:.]\d\d(?: ?[AaPp]\.?[Mm]\.?)?"
LABEL = rf"{TIME}(?:{SIGN}{{1,8}} ?)?{NAME}(?: ?[(\[][^)\]\n]{{1,40}}[)\]])?"
SPOKEN = (
    r"(?:\s(?P<said>said|says|wrote|responded|hat gesagt|hast gesagt|sagte|dijo|dijiste|a dit|avez dit|ha detto"
    r"|hai detto|disse)|说|說)"
)
SAID = rf"{SPOKEN}?"
STYLES = {
    "heading": re.compile(rf" {{0,3}}#{{1,6}} +\W{{0,4}}{LABEL}{SAID}\s*[:：]?[\s#*_]*(?P<text>)$"),
    "bold": re.compile(
        rf" {{0,3}}(?:[-*+>] )?{TIME}(?P<mark>\*\*\*|\*\*|__|\*){LABEL}{SAID}"
        rf"\s*(?:[:：]\s*(?P=mark)|(?P=mark)(?: ?[(\[][^)\]\n]{{1,40}}[)\]])?\s*(?:[:：]|$))\s*(?P<text>.*)$"
    ),
    "plain": re.compile(rf"(?:[-*+>] )?{LABEL}{SAID}(?:\s?：\s*|\s?:(?:\s+|$))(?P<text>.*)$"),
    "angle": re.compile(rf"(?:[A-Z][a-z]{{2}} \d\d? )?{TIME}<[@+%&~ ]?(?P<label>{NICK})>\s+(?P<text>.*)$"),
    "bracket": re.compile(rf"{TIME}\[(?:{SIGN}{{1,8}} ?)?{NAME}\](?:\s?[:：]\s*|\s+|$)(?P<text>.*)$"),
    "tab": re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\t[@+%&~]?(?P<label>{NICK})\t(?P<text>.*)$"),
    "said": re.compile(rf"(?:{NAME}{SPOKEN}|(?P<bare>You|User|ChatGPT))\s*(?P<text>)$"),
    "stamp": re.compile(
        rf"(?P<label>\S[^\n]{{0,38}}?) ?[—–-] (?:[^\W\d]{{2,12}}(?: [^\W\d]{{1,3}}){{0,2}} )?{CLOCK}(?P<text>)$"
    ),
    "prompt": re.compile(rf"{LABEL}\s?[-=]?>(?:\s+|$)(?P<text>.*)$"),
    "dash": re.compile(rf"{LABEL} [-–—]{{1,2}} +(?P<text>\S.*)$"),
}
"""How a line that begins a turn looks: `## User`, `**User:** text`, `User: text`, `<User> text` and `[User] text`, each
with emoji or a time beside the name; a name between tabs, as WeeChat writes it; `You said` and `Ana — Today at 10:11`
above a text; `User> text` and `User - text`."""
DOUBTFUL = "doubtful"
NAMING = ("angle", "tab", "stamp")
"""Styles in which whatever stands before a text is a name."""

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

LONG = 3
"""A name of more words looks like one by its letters, or comes twice."""
MOST_WORDS = 7
PARTICLE = 3
"""So many letters in lower case may be a word of a name, such as `dos`, `von` and `of`."""
PARTICLES = ("della", "delle", "dello", "degli", "dalla")
"""Longer ones."""
IN_TITLES = voices.plain_words(
    "a about an and as at by for from how if in is it of on or that the this to what when why with you your"
)
"""Words with capitals in a title such as `What To Do In The Rain`, which is no name."""

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")


@dataclass(frozen=True)
class Style:
    """How turns begin in a transcript, and who speaks.

    Args:
        name: the key of STYLES.
        speakers: the role of each speaker.
        open: whether whoever else is named at the beginning of a line is a speaker too: so it is in a log in which
            every line names its speaker, and in a chat of characters.
        leads: what stands before the names of the speakers; whoever else speaks has one of these before the name too.
            Empty for a log, in which it does not matter.
        regular: the speakers who come twice, in a log of roles: whoever else is named there may be a line of an answer,
            such as `Water: two cups`. None in any other text.
        echoes: whether each turn begins with its own first sentence, as on a page of Claude, which has it for readers
            of the screen.
    """

    name: str
    speakers: dict[str, str]
    open: bool = False
    leads: frozenset[str] = frozenset()
    regular: frozenset[str] | None = None
    echoes: bool = False

    @cached_property
    def roles(self) -> dict[str, str]:
        """The role of each speaker, by the plain name (`voices.plain`)."""
        return {voices.plain(label): role for label, role in self.speakers.items()}

    def begins(self, line: str) -> tuple[str, str] | None:
        """The role and the text of a turn that begins in this line; DOUBTFUL where it may go on with an answer."""
        if self.name == "plain" and ":" not in line and "：" not in line:
            return None
        match = STYLES[self.name].match(line)
        if match is None:
            return None
        name = voices.plain(_label(match))
        role = self.roles.get(name) or (OTHER if self._is_another(match) else "")
        if role == OTHER and self.regular is not None and name not in self.regular:
            role = DOUBTFUL
        return (role, match["text"] or "") if role else None

    def _is_another(self, match: re.Match[str]) -> bool:
        label = _label(match)
        if not self.open or self.name in NAMING:
            return self.open
        if self.name == "dash" and label[0].islower():
            return False
        if self.leads:
            return match.string[: match.start("label")] in self.leads and _could_be_name(label)
        return _could_be_name(label, is_log=True)


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
        matches = [match for line in lines if (match := expression.match(line))]
        labels = voices.same_spelling(map(_label, matches))
        if len(set(labels)) < 2:
            continue
        is_log = style in ("tab", "stamp") or (len(labels) >= 0.9 * len(lines) and style != "heading")
        are_roles = {"user", "assistant"} <= set(map(voices.role_word, labels))
        by_name = style in NAMING and not voices.are_roles(labels)
        if style == "bold" and are_roles:
            is_log = False  # Markdown of an assistant, whose remarks are bold too
        if style == "dash":
            labels = _often(labels)
        if not _is_certain(style, labels, voice, is_log):
            continue
        try:
            roles = _roles(labels, voice, where, is_log or style == "angle", style in NAMING, by_name)
        except UnknownPersona as error:
            unknown = unknown or error
            continue
        if roles:
            chosen = _style(style, roles, matches, is_log)
            return replace(chosen, regular=_repeated(labels)) if style == "plain" and are_roles else chosen
    if unknown:
        raise unknown
    return None


def turns_of_roles(text: str) -> list[tuple[str, str]]:
    """The turns of a text in which each begins with the name of its role, as in `User: Hi`; none of another text."""
    turns: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines():
        match = STYLES["plain"].match(line) or STYLES["bold"].match(line)
        role = voices.role_word(_label(match)) if match else ""
        if match and role in ("user", "assistant", "system"):
            turns.append((role, [match["text"]]))
        elif turns:
            turns[-1][1].append(line)
        else:
            return []
    sides = {role for role, _ in turns}
    return [(role, "\n".join(lines).strip()) for role, lines in turns] if {"user", "assistant"} <= sides else []


def _style(name: str, roles: dict[str, str], matches: list[re.Match[str]], is_log: bool) -> Style:
    personas = [label for label, role in roles.items() if role == "assistant"]
    leads = {match.string[: match.start("label")] for match in matches if match["label"] in roles}
    of_characters = name != "plain" and not any(map(voices.role_word, personas))
    echoes = any(match.groupdict().get("said") == "responded" for match in matches)
    return Style(name, roles, is_log or of_characters, frozenset(() if is_log else leads), echoes=echoes)


def _label(match: re.Match[str]) -> str:
    """The name of the speaker in a line that begins a turn."""
    return match["label"] or match["bare"]


def _repeated(labels: list[str]) -> frozenset[str]:
    """The plain names of those who come twice."""
    return frozenset(voices.plain(label) for label, count in Counter(labels).items() if count > 1)


def _often(labels: list[str]) -> list[str]:
    """The labels that begin with a capital letter or come twice: others are words before a dash."""
    counts = Counter(labels)
    return [label for label in labels if counts[label] > 1 or not label[0].islower()]


def _is_certain(style: str, labels: list[str], voice: Voice, is_log: bool) -> bool:
    """Whether these lines begin turns, and are no prose, list or quotation of the same form."""
    if style not in ("said", "prompt", "dash"):
        return True
    counts, personas = Counter(labels), voice.among(labels)
    sides = {"assistant" if label in personas else voices.role_word(label) for label in counts}
    if style != "dash" and {"user", "assistant"} <= sides:
        return True
    return style != "said" and is_log and sum(count > 1 for count in counts.values()) > 1


def _roles(labels: list[str], voice: Voice, where: str, is_log: bool, is_naming: bool, by_name: bool) -> dict[str, str]:
    """The role of each label that is a speaker's; none if the text is no transcript.

    Args:
        is_naming: every label is a name.
        by_name: no name is a role.
    """
    counts = Counter(labels)
    persona = voice.among(counts)
    words = {label: "" if by_name else voices.role_word(label) for label in counts} | dict.fromkeys(
        persona, "assistant"
    )
    speakers = {label for label, word in words.items() if word}
    sides = {word for word in words.values() if word} - {"system", OTHER}
    others = [
        label
        for label, word in words.items()
        if not word and (is_naming or _could_be_name(label, is_log, often=counts[label] > 1))
    ]
    often = [label for label in others if counts[label] > 1]
    if len(sides) == 1 and len(speakers) == 1 and not is_log:
        often = often if _take_turns(counts, speakers, others) and labels[0] in (*speakers, *others) else []
        often = often or (others if len(counts) == 2 else [])
    added = others if is_log else often
    in_turn = len(often) > 1 or (is_log and often and len(others) == 2 and len(counts) == 2)
    if not (sides == {"user", "assistant"} or (sides and (added or len(speakers) > 1)) or in_turn):
        return {}
    speakers |= set(added)
    return voices.roles_of([label for label in labels if label in speakers], voice, where=where, by_name=by_name)


def _take_turns(counts: Counter[str], speakers: set[str], others: list[str]) -> bool:
    """Whether one of the others speaks at least half as often as those who are known."""
    return 2 * max((counts[label] for label in others), default=0) >= max(counts[label] for label in speakers)


def _could_be_name(label: str, is_log: bool = False, often: bool = False) -> bool:
    """Whether a label looks like a speaker's name: up to three words or a long name, and no word for a remark. In lower
    case it is one only in a log, and of one word."""
    name = voices.plain(label)
    numbered = voices.NUMBERED.fullmatch(name)
    is_remark = name in NOT_NAMES or (numbered is not None and numbered[1] in NOT_NAMES)
    is_handle = is_log and " " not in label
    is_name = len(label.split()) <= LONG or _is_long_name(label, often)
    return is_name and (is_handle or not label[0].islower()) and not is_remark


def _is_long_name(label: str, often: bool) -> bool:
    """Whether more than three words look like a name, such as `João Pedro dos Santos`, and not like a title or the
    beginning of a sentence. Where a script has no capitals, it does if it comes often."""
    first, *words = label.split()
    if len(words) >= MOST_WORDS or voices.plain(first) in NOT_NAMES:
        return False
    if not first[0].isupper():
        return often and not any(char.islower() or char.isupper() for char in label)
    capitals = [word for word in words if any(map(str.isupper, word))]
    is_title = any(word.lower() in IN_TITLES for word in capitals)
    others = [word for word in words if word not in capitals and word not in PARTICLES]
    return bool(capitals) and not is_title and all(len(word) <= PARTICLE for word in others)


def _unfenced(text: str) -> Iterator[str]:
    fence = ""
    for line in text.splitlines():
        fence = fence_after(fence, line)
        if not fence:
            yield line


def fence_after(fence: str, line: str) -> str:
    """The code fence that is open after this line, or "" (CommonMark 4.5)."""
    match = FENCE.match(line)
    if not match:
        return fence
    if not fence:
        return match[1]
    closes = match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip()
    return "" if closes else fence
