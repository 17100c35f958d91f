"""Traits as sentences, from lists of words (`Personality: kind, dry`, W++, plists, commas) or from prose."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moltlm.data.spec import IDENTITY
from moltlm.data.spec_formats.wording import ENGLISH, Wording

LABELLED = re.compile(r"^[\s*_-]*([^\W\d_][\w /]{0,30}?)[*_]*\s*(?:[:=：][*_]*\s*(\S.*)|\((.+)\))\s*$")
PERSONALITY = (
    "personality|persona|traits?|mind|character|attributes?|personalidad|carácter|rasgos|persönlichkeit|charakter"
    "|eigenschaften|wesen|personnalité|caractère|traits de caractère|personalidade|caráter|traços|personalità|carattere"
    "|tratti|persoonlijkheid|karakter|osobowość|характер|личность|性格|个性|個性|人格|人柄|特徴|특징|성격"
)
OF_CHARACTER = re.compile(PERSONALITY, re.IGNORECASE)
LISTED = re.compile(rf"(?<!\w)(?:{PERSONALITY})[*_]*\s*[:(=：][*_]*\s*([^\])\n]+)", re.IGNORECASE)
IDENTITY_WORDS = {
    *IDENTITY, "nombre", "nom", "nome", "alter", "edad", "âge", "idade", "età", "geschlecht", "gender", "sex",
    "genre", "tags", "scenario", "species", "height", "weight",
    "名前", "名字", "姓名", "年龄", "年齢", "이름", "나이", "имя", "возраст",
}  # fmt: skip
"""Labels of facts that are not traits."""
PRONOUN = re.compile(r"\b(?:he|she|they|him|her|his|hers|them|their|theirs)\b", re.IGNORECASE)
SECOND_PERSON = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"\byou(?: are|'re)\b", "I am"), (r"\byou were\b", "I was"), (r"\byours\b", "mine"), (r"\byour\b", "my"),
        (r"\byourself\b", "myself"),
        (r"\b(to|for|at|with|of|from|about|on|by|asks?|tells?) you\b", r"\1 me"), (r"\byou\b", "I"),
    )
)  # fmt: skip
VERB_FIRST = {"always", "sometimes", "perhaps", "is"}
LIMIT = 12
"""Sentences of prose that are taken as traits."""


BRACKETED = re.compile(r"^\[[^\[\]]{3,4000}\][ \t]*$", re.MULTILINE)
"""A list of attributes, which may stand before or after prose."""


def traits_of(personality: str, description: str, names: Iterable[str], wording: Wording = ENGLISH) -> list[str]:
    """The traits in what a card says about its character, as sentences.

    Args:
        personality: the text about the personality alone; it goes first.
        names: what the character is called.
    """
    names = [name for name in names if name]
    owner = "|".join(map(re.escape, names)) or "x"
    label = re.compile(rf"^\s*(?:{owner})['’]s (?:persona|personality|traits?|description)\s*:\s*", re.IGNORECASE)
    personality, description = label.sub("", personality), label.sub("", description)
    if grouped := _grouped(personality) or _grouped(description):
        called = {name.lower() for name in names}
        character = [text for key, text in grouped if OF_CHARACTER.fullmatch(key) or key.lower() in called]
        character = [text for text in character if text.strip(" \"'“”").lower() not in called]
        others = [(key.lower(), text) for key, text in grouped if key.lower() not in (IDENTITY_WORDS | called)]
        sentences = [f"My {key}: {', '.join(words_of(text))}." for key, text in others]
        return [i_am(word, wording) for text in character for word in words_of(text)] or sentences
    blocks = [block for block in BRACKETED.findall(description) if _grouped(block)]
    if blocks:  # beside prose
        prose = BRACKETED.sub(lambda match: "" if match[0] in blocks else match[0], description).strip()
        in_blocks = [trait for block in blocks for trait in traits_of("", block, names, wording)]
        return [*(traits_of(personality, prose, names, wording) if personality or prose else []), *in_blocks]
    listed = LISTED.search(description)
    text = personality or (listed.group(1) if listed else "")
    parts = [part for chunk in re.split(r"(?<=\w)\.\s", text) for part in words_of(chunk)]
    subject = re.compile(rf"(?:{owner}|He|She|They|It|You|I|The)\b")
    short = not any(subject.match(part) for part in parts)
    if parts and short and sum(len(part.split()) <= 4 for part in parts) >= len(parts) / 2:
        return [i_am(part, wording) for part in parts]
    return sentences_about(personality or description, names, wording)


def sentences_about(text: str, names: Iterable[str], wording: Wording = ENGLISH) -> list[str]:
    """The first sentences of prose, without those about the user; "Ada is exact." becomes "I am exact." """
    parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+|(?<=[。！？])|\n+", text)]
    about = [part for part in parts if says_enough(part) and not part.lower().startswith(wording.user.lower())]
    called = [name for name in names if name]
    return [text for part in about for text in _as_traits(part, called, wording)][:LIMIT]


def _as_traits(sentence: str, names: list[str], wording: Wording) -> list[str]:
    """A sentence as a trait; "Patient, dry, exact." is three."""
    words = words_of(sentence)
    if len(words) > 1 and all(len(word.split()) <= 2 for word in words) and not any(name in sentence for name in names):
        return [i_am(word, wording) for word in words]
    return [_first_person(sentence, names) if wording is ENGLISH else sentence]


def says_enough(part: str) -> bool:
    return len(part.split()) >= 2 or len(re.findall("[぀-ヿ一-鿿가-힯]", part)) >= 4


def _first_person(sentence: str, names: list[str]) -> str:
    """The sentence with "I" as its subject, if the rest of it does not speak of the character again."""
    if re.match(r"You(?:'re)? ", sentence):
        return _from_second_person(sentence)
    if re.match(r"An? ", sentence) and not PRONOUN.search(sentence):
        return f"I am {sentence[0].lower()}{sentence[1:]}"
    subjects = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    match = re.match(rf"(?:{subjects}|He|She)\s+(is|was|has)\s+(.+)$", sentence, re.DOTALL)
    if not match or PRONOUN.search(match.group(2)) or any(name in match.group(2) for name in names):
        return sentence
    return f"I {({'is': 'am', 'has': 'have'}).get(match.group(1), match.group(1))} {match.group(2)}"


def _from_second_person(sentence: str) -> str:
    """ "I sigh, and I love rain." from "You sigh, and you love rain." """
    for pattern, text in SECOND_PERSON:
        sentence = pattern.sub(text, sentence)
    return sentence


def _grouped(text: str) -> list[tuple[str, str]]:
    """The parts of `[Likes: tea; Personality: kind, dry]` or `[Character("Ada") { Likes("tea" + "rain") }]` with their
    keys; nothing if most of the text is something else."""
    inner = re.sub(r"^\s*\[?\s*(?:character|char)\s*\([^)]*\)\s*\{", "", text, flags=re.IGNORECASE)
    rows = [row for row in re.split(r"[;\n]|(?<=\))\s+", re.sub(r"[\[\]{}]", "", inner)) if row.strip()]
    matches = [match for row in rows if (match := LABELLED.match(row))]
    if len(matches) < 2 or len(matches) * 2 < len(rows):
        return []
    return [(match.group(1).strip(), match.group(2) or match.group(3)) for match in matches]


def words_of(text: str) -> list[str]:
    """The items of a list with commas, semicolons, plus signs or lines between them."""
    text = re.sub(r"[\"“”\[\]{}()*]", " ", text)
    return [part.strip(" .。") for part in re.split(r"[,;+\n，、；]", text) if part.strip(" .。")]


def i_am(text: str, wording: Wording = ENGLISH) -> str:
    """ "I am kind." from "kind", and "Hums at work." from "hums at work"; a longer text as it is."""
    words = text.split()
    if wording is ENGLISH and len(words) > 1 and _is_verb(words[0].lower()):
        return f"{text[0].upper()}{text[1:]}."
    if len(words) > 4 or text.endswith((".", "!", "?", "。")) or words[0].lower() in ("i", "i'm"):
        return text
    return wording.i_am.format(f"{text[0].lower()}{text[1:]}")


def _is_verb(word: str) -> bool:
    """Whether a phrase that begins with this word says what somebody does ("hums to clocks")."""
    return word in ("never", "always") or (
        len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")) and word not in VERB_FIRST
    )
