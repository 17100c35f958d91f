"""What a text says its persona is called."""

from __future__ import annotations

import re

from moltlm.data.spec_formats import blocks, headings
from moltlm.data.spec_formats.headings import is_placeholder, kind_of
from moltlm.data.spec_formats.vocabulary import ALSO_NAMES, ARTICLES, GENERIC

NO_NAMES = {headings.plain(word).replace("_", " ") for word in GENERIC}
FILE = re.compile(r"\b(?:SOUL|IDENTITY|AGENTS|CLAUDE|README|PERSONA)\.md\b", re.IGNORECASE)
AROUND = re.compile(
    r"^(?:meet|about|this is|i am|ich bin|soy|je suis|eu sou|sono|the soul of|soul of|über|sobre)\s+"
    r"|['’]s (?:soul|identity|persona)$",
    re.IGNORECASE,
)
"""What stands around a name in a title."""
_NAMED = r"[*_\"“「]{0,3}([^\W\d_][\w'’.-]{0,30}(?:[ ][A-ZÀ-ÝА-Я][\w'’.-]{0,30}){0,2})"
STATED = re.compile(
    r"(?:(?i:\b(?:you are|you're|your name is|my name is|i am|i'm|du bist|du heißt|ich bin|ich heiße|mein name ist"
    r"|dein name ist|eres|te llamas|me llamo|mi nombre es|tu nombre es|soy|tu es|tu t'appelles|je m'appelle|je suis"
    r"|você é|voce e|chamas-te|eu sou|seu nome é|meu nome é|sei|ti chiami|mi chiamo|io sono|il tuo nome è))[ ]+"
    rf"|(?:你是|我是|你叫|我叫|あなたは|私は|私の名前は)){_NAMED}"
)


def in_title(heading: str) -> str:
    """The name in a title such as "SOUL.md - Vex" or "Vex, a clockmaker": one to four words that are no common ones."""
    text = blocks.plain(FILE.sub("", heading))
    for part in re.split(r"\s+[-–—|:]+\s+|[:：,，(（]\s*|\s+—\s*", text):
        name = AROUND.sub("", part.strip(' -–—|:*_)）."“”'))
        if _may_be_name(name):
            return name
    return ""


def _may_be_name(text: str) -> bool:
    words = headings.plain(text).split()
    if not 1 <= len(words) <= 4 or words[0] in NO_NAMES or " ".join(words) in NO_NAMES:
        return False
    if kind_of(text) and not (len(words) == 1 and words[0] in ALSO_NAMES):
        return False
    return not is_placeholder(text) or text[0] in "[{<("


def in_label(value: str) -> str:
    """The name in the value of a label, without what explains it: "Vex (she)" is Vex."""
    if is_placeholder(value):
        return value
    return re.split(r"\s+[(（—–|]|[,;，]", value)[0].strip(" .\"'“”") or value


def in_text(text: str) -> str:
    """NAME in "You are NAME" and the like, if it is written as a name; "" if there is none."""
    for match in STATED.finditer(text[:20_000]):
        name = re.split(r"(?:です|だ|，|。|、)", match.group(1))[0].rstrip(".'’-")
        first = name.split()[0] if name else ""
        if not first or headings.plain(first) in ARTICLES | NO_NAMES:
            continue
        if first[0].isupper() and not _is_german_noun(match, text):
            return name
        if not first[0].isascii() and not first[0].islower() and len(name) <= 12:
            return name
    return ""


def _is_german_noun(match: re.Match[str], text: str) -> bool:
    """Whether the capital after "du bist" may be that of any noun: nothing sets it off as a name."""
    before = match.group()[: -len(match.group(1))]
    after = text[match.end() : match.end() + 1]
    german = bool(re.match(r"(?:du|ich) (?:bist|bin)\b", before, re.IGNORECASE))
    return german and before[-1:] not in '*_"“「' and after not in (",", "(")


def in_file(stem: str) -> str:
    """The name that a file's name without suffix may be; "" for one such as SOUL or prompt."""
    words = re.sub(r"[._-]+", " ", stem).split()
    return "" if not words or headings.plain(words[0]) in NO_NAMES else stem
