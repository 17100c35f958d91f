"""What a heading or a label says its text is, and what waits to be filled in."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from moltlm.data.spec_formats.vocabulary import NAME_LABELS, NEGATED, SIGNS, WHOLE, WORDS

KINDS = ("boundaries", "voice", "values", "examples", "background", "traits")
"""What a section holds. The first kind with a word in the heading is taken: "How I never talk" is a boundary."""
WHO = re.compile(
    r"\b(?:who (?:you|i)|wer (?:du|ich)|quien (?:eres|soy)|qui (?:tu|je)|quem (?:e )?(?:voce|sou)|chi (?:sei|sono))\b"
)
"""A heading that asks who somebody is: traits, whatever its other words are."""
PLACEHOLDER = re.compile(
    r"\s*(?:[_*~]*[(（][^()（）]*[)）][_*~]*|[【［「][^【】［］「」]*[】］」]|[_*]*\[[^\[\]]*\](?!\()[_*]*|\{+[^{}:\"]*\}+|<[^<>]*>|\$\{?\w*\}?|[_.…\-–—?]+|#+)\s*"
)
UNFILLED = re.compile(
    r"(?:todo|tbd|tba|fixme|xxx+|n/?a|none|null|unknown|undefined|untitled|placeholder|insert\b.{0,40}\b(?:name|here)"
    r"|fill (?:me |this )?in\b.*|e\.g\..*|lorem ipsum.*|your[ _-]?(?:agent|assistant|bot|character)?(?:'s)?[ _-]?name"
    r"(?:[ _-]here)?|(?:agent|assistant|character|bot|persona)[ _-]?name|name[ _-]?here|(?:dein|ihr)[ _-]?name"
    r"|tu[ _-]?nombre|votre[ _-]?nom|ton[ _-]?nom|seu[ _-]?nome|il[ _-]?tuo[ _-]?nome"
    r"|你的名字|名字|あなたの名前)[ .!…]*",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """Lower case, without accents and apostrophes."""
    text = unicodedata.normalize("NFKD", text.casefold().replace("’", "").replace("'", ""))
    return "".join(char for char in text if not unicodedata.combining(char))


def _pattern(words: list[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True))})")


PATTERNS = {kind: _pattern([plain(word).replace("_", " ") for word in WORDS[kind].split()]) for kind in KINDS}
UNLIMITED = re.compile(rf"{_pattern([word.replace('_', ' ') for word in NEGATED]).pattern}\b")
LABELS = {plain(name).replace("_", " ") for name in NAME_LABELS}


@lru_cache(4096)
def kind_of(heading: str) -> str:
    """The kind of section under a heading; "" for any other."""
    text = UNLIMITED.sub(" ", re.sub(r"[\s_]+", " ", re.sub(r"[^\w\s]", " ", plain(heading))))
    folded = unicodedata.normalize("NFC", heading)
    if WHO.search(text):
        return "traits"
    for kind in KINDS:
        for match in PATTERNS[kind].finditer(text):
            if match.group() not in WHOLE or re.match(r"(?:s|e|en|aries|ary)?(?!\w)", text[match.end() :]):
                return kind
        if any(sign in folded for sign in SIGNS[kind].split()):
            return kind
    return ""


@lru_cache(4096)
def is_name_label(label: str) -> bool:
    """Whether a label stands before the persona's name."""
    return plain(label).strip() in LABELS


@lru_cache(4096)
def is_placeholder(text: str) -> bool:
    """Whether a text waits to be filled in: `_(pick something you like)_`, `[Name]`, `{{name}}`, `TODO`, or nothing."""
    bare = text.strip().strip("*_`\"'“” ").strip()
    empty = any(PLACEHOLDER.fullmatch(each[:500]) for each in (text, bare))
    return not bare or empty or bool(UNFILLED.fullmatch(bare[:200]))
