"""The macros of character cards: `{{char}}`, `{{user}}`, `{{random:a,b}}`, `{{// comment}}`, and V3's `@@decorators`.

A spec is read once, and a macro is evaluated at each message: what it stands for is put in where that is certain, and
the sentence that needs it is left out where it is not (`{{time}}`, `{{getvar::mood}}`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moltlm.data.spec_formats.reading import LeftOut
from moltlm.data.spec_formats.wording import ENGLISH, Wording

USER, POSSESSIVE, UNCERTAIN, CHANCE, REMOVED = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
"""What a macro becomes before sentences are made of it: the user, the user's, an unknown value, a choice by chance
(before the chosen text), nothing."""
MARKS = re.compile("[\ue000-\ue004]")
LONG = 300
"""A sentence of more characters, such as a list in brackets, loses only the macro, not itself."""

BRACES = re.compile(r"\{\{|\}\}")
LOOSE = re.compile(r"\{{1,2}\s*(char|character|user)\s*\}{1,2}|<(char|bot|user)>", re.IGNORECASE)
NAME = re.compile(r"^\s*([#/]{0,2}[^\s:]*)\s*(?:::?)?\s*(.*)$", re.DOTALL)
PICTURE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)|<img\b[^<>]*>", re.IGNORECASE)
HTML = re.compile(
    r"</?(?:p|br|div|span|strong|em|b|i|u|s|a|h[1-6]|ul|ol|li|hr|center|font|details|summary|small|big|blockquote)\b[^<>\n]*>",
    re.IGNORECASE,
)
BLOCK = re.compile(r"(?<=\S)[ \t]*</?(?:p|br|div|h[1-6]|ul|ol|li|hr|blockquote)\b[^<>\n]*>(?=[ \t]*\S)", re.IGNORECASE)
"""A tag between two blocks in one line."""
DECORATOR = re.compile(r"^[ \t]*@@+\w[^\n]*(?:\n|\Z)", re.MULTILINE)
EMPTIED = re.compile(f"^[ \t{REMOVED}]+\n", re.MULTILINE)
SENTENCE = re.compile(r"((?<=[.!?…])[ \t]+|(?<=[。！？])|\n+)")
PHRASE = re.compile(r"((?<=[.!?…,;])[ \t]+|(?<=[。！？，；])|\n+)")
CLAUSE = re.compile(r"((?<=[.!?…*\"”])[ \t]+|(?<=[。！？])|\n+)")

CHARACTER = {"char", "bot", "charname", "char_name", "character", "agentname", "charifnotgroup", "group"}
PERSON = {"user", "username", "user_name", "sub", "obj", "name1", "persona_name"}
OWNED = {"poss", "pos", "poss_p"}
NOTHING = {
    "//", "comment", "hidden_key", "original", "trim", "noop", "setvar", "addvar", "setglobalvar", "addglobalvar",
    "incvar", "decvar", "incglobalvar", "decglobalvar", "outlet", "banned", "bias", "persona", "description",
    "personality", "scenario", "mesexamples", "mesexamplesraw", "system", "wibefore", "wiafter", "anchorbefore",
    "anchorafter", "charprompt", "charjailbreak", "charinstruction", "jailbreak", "else", ":else", "img", "image",
    "asset", "emotion", "bg", "audio", "video",
}  # fmt: skip


@dataclass(frozen=True)
class Cast:
    """Who `{{char}}` is, and the language in which `{{user}}` is spoken of. `left_out` counts what is removed."""

    character: str
    wording: Wording
    left_out: LeftOut


def instruction(text: str, cast: Cast, certain: bool = False) -> str:
    """A text about the character without macros; `{{user}}` is "the user".

    Args:
        certain: leave out sentences with a choice by chance too, as a trait must.
    """
    text = _sentences(resolve(text, cast), cast, certain)
    return _put_user(_tidy(text), cast.wording.user, f"{cast.wording.user}'s", PLAIN_START)


def answer(text: str, cast: Cast) -> str:
    """What the character says, without macros: a `{{user}}` who is addressed is left out, any other is "you"."""
    text = _sentences(resolve(text, cast), cast)
    return _with_pronouns(_tidy(text), cast, ("you", cast.wording.you, "your"), YOU_VERBS).strip()


def question(text: str, cast: Cast) -> str:
    """What the user says, without macros: `{{user}}` is "I" or "me"."""
    text = _sentences(resolve(text, cast), cast)
    return _with_pronouns(_tidy(text), cast, ("I", cast.wording.me, "my"), I_VERBS).strip()


def resolve(text: str, cast: Cast) -> str:
    """The text with every macro replaced by its value, or by one of the marks above."""
    text = DECORATOR.sub("", without_html(PICTURE.sub("", MARKS.sub("", text))))
    text = LOOSE.sub(lambda match: f"{{{{{match.group(1) or match.group(2)}}}}}", text)
    stack: list[list[str]] = [[]]
    place = 0
    for match in BRACES.finditer(text):
        stack[-1].append(text[place : match.start()])
        place = match.end()
        if match.group() == "{{":
            stack.append([])
        elif len(stack) > 1:
            inner = "".join(stack.pop())
            stack[-1].append(_value(inner, cast))
    stack[-1].append(text[place:])
    return "".join(part for level in stack for part in level)


def without_html(text: str) -> str:
    """The text without tags; what stood in blocks of its own stands in lines of its own."""
    return HTML.sub("", BLOCK.sub("\n", text))


def _value(inner: str, cast: Cast) -> str:
    match = NAME.match(inner)
    name, argument = (match.group(1), match.group(2)) if match else ("", "")
    key = name.lower()
    if key in CHARACTER or inner.strip().lower() == cast.character.lower():
        return cast.character
    if key in PERSON or re.fullmatch(r"random_user_\d+|user\d+|name\d+", key):
        return USER
    if key in OWNED:
        return POSSESSIVE
    if key in ("random", "pick"):
        return _choice(inner.strip()[len(name) :], cast.left_out)
    if key == "roll":
        return CHANCE + _average(argument)
    if key == "reverse":
        return argument[::-1]
    if key in ("newline", "space"):
        return {"newline": "\n", "space": " "}[key]
    if key.startswith(("//", "#", "/")) or key in NOTHING:
        cast.left_out["macro comment"] += key.startswith(("//", "comment", "hidden_key"))
        return REMOVED
    if re.match(r"[a-z_?]", name):
        return UNCERTAIN
    return inner.strip()


def _choice(argument: str, left_out: LeftOut) -> str:
    """The first choice of `::a::b`, `:a,b` or ` a,b`."""
    argument = argument.strip()
    if argument.startswith("::"):
        choices = argument[2:].split("::")
    else:
        choices = [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", argument.removeprefix(":"))]
    choices = [choice.strip() for choice in choices]
    left_out["other choice of a {{random}}"] += len(choices) - 1
    return CHANCE + choices[0] if choices[0] else UNCERTAIN


def _average(dice: str) -> str:
    match = re.fullmatch(r"\s*(\d{0,4})\s*d?\s*(\d{1,6})\s*(?:[+-]\s*\d{1,6})?\s*", dice, re.IGNORECASE)
    if not match:
        return "1"
    count, sides = (
        (int(match.group(1) or 1), int(match.group(2)))
        if "d" in dice.lower()
        else (1, int(dice.split("+")[0].split("-")[0] or 1))
    )
    return str(count * (sides + 1) // 2)


def _sentences(text: str, cast: Cast, certain: bool = False) -> str:
    """The text without the sentences that depend on an unknown value (or, for `certain`, on chance)."""
    unwanted = (UNCERTAIN, CHANCE) if certain else (UNCERTAIN,)
    if not any(mark in text for mark in unwanted):
        return text.replace(CHANCE, "")
    unsure = re.compile("|".join(unwanted))
    text, count = _drop(text, unsure, PHRASE if certain else SENTENCE)
    cast.left_out["sentence that depends on a macro"] += count
    return text.replace(CHANCE, "").replace(UNCERTAIN, "")


def _drop(text: str, unwanted: re.Pattern[str], between: re.Pattern[str]) -> tuple[str, int]:
    """The text without the short sentences in which a pattern is found, and their number."""
    parts, count = between.split(text), 0
    for place in range(0, len(parts), 2):
        if len(parts[place]) <= LONG and unwanted.search(parts[place]):
            parts[place] = ""
            count += 1
            if place + 1 < len(parts) and "\n" not in parts[place + 1]:
                parts[place + 1] = ""
    return "".join(parts), count


def _tidy(text: str) -> str:
    """Close the gaps where something was removed."""
    text = EMPTIED.sub(lambda match: "" if REMOVED in match.group() else match.group(), text)
    text = re.sub(f",[ \t]*{REMOVED}+(?=[ \t]*(?:[,.;\n]|$))", "", text)
    text = re.sub(f"(?<=[ \t]){REMOVED}+[ \t]", "", text).replace(REMOVED, "")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


START = r"(?:^|(?<=[.!?…\"“*(\n])|(?<=[.!?…\"”*] ))"
"""The place where a sentence begins, also in quotes or asterisks."""
PLAIN_START = r"(?:^|(?<=[.!?…\n])|(?<=[.!?…] ))"


def _put_user(text: str, user: str, possessive: str, start: str = START) -> str:
    if USER not in text and POSSESSIVE not in text:
        return text
    text = re.sub(f"{USER}['’]s\\b|{POSSESSIVE}", possessive, text)
    text = re.sub(f"{start}{re.escape(possessive)}", possessive[:1].upper() + possessive[1:], text)
    text = re.sub(f"{start}{USER}", user[:1].upper() + user[1:], text)
    return text.replace(USER, user)


END = r"(?=\s*(?:[,.!?;:…~—*\"”)]|$))"
NAMED = re.compile(
    rf"(?:name is|name's|named|called|you are|you're|you must be|i am|i'm|this is)\s+{USER}{END}", re.IGNORECASE
)
ADDRESSED = re.compile(rf",[ \t]*{USER}{END}")
GREETED = re.compile(
    r"\b(hello|hi|hey|welcome|back|morning|evening|afternoon|night|thanks|thank you|please|hmm?|huh|there|sorry|oh|ah"
    r"|yes|no|well|okay|bye|goodbye|greetings|hola|hallo|bonjour|salut|olá|oi|ciao|gracias|danke|merci|obrigado|obrigada"
    rf"|grazie|buenos días|guten tag|guten morgen)[ \t]+{USER}{END}",
    re.IGNORECASE,
)
CALLED = re.compile(rf"{START}{USER}[ \t]*[,，、~][ \t]*(\w?)")
SUBJECT = re.compile(
    rf"({START}|\b(?:when|as|while|if|that|because|until|before|after|and|but|since|once|where|whether)[ \t]+)"
    rf"{USER}([ \t]+(?:\w+ly[ \t]+|never[ \t]+|always[ \t]+|just[ \t]+)?)([a-z]+(?:n't)?)\b",
    re.IGNORECASE,
)
YOU_VERBS = {"is": "are", "isn't": "aren't", "was": "were", "wasn't": "weren't", "has": "have", "hasn't": "haven't",
             "does": "do", "doesn't": "don't", "goes": "go"}  # fmt: skip
I_VERBS = {**YOU_VERBS, "is": "am", "isn't": "am not", "was": "was", "wasn't": "wasn't"}
NO_VERBS = {"always", "perhaps", "sometimes", "this", "his", "its", "as", "us", "yes", "thus", "towards", "whose"}


def _with_pronouns(text: str, cast: Cast, forms: tuple[str, str, str], verbs: dict[str, str]) -> str:
    """Put pronouns for the user. `forms`: subject, object, possessive."""
    if USER not in text and POSSESSIVE not in text:
        return text
    subject, other, possessive = forms
    if NAMED.search(text):
        text, count = _drop(text, NAMED, CLAUSE)
        cast.left_out["sentence with the user's name"] += count
    text = ADDRESSED.sub("", text)
    text = GREETED.sub(r"\1", text)
    text = CALLED.sub(lambda match: match.group(1).upper(), text)
    if cast.wording is not ENGLISH:
        return _put_user(text, other, other)
    text = SUBJECT.sub(
        lambda match: (
            f"{match.group(1)}{_capital(match.group(1), subject)}{match.group(2)}{_verb(match.group(3), verbs)}"
        ),
        text,
    )
    text = re.sub(
        rf"\b(are|were|do|did|have|can|will|would|is|was|does|has)(\s+){USER}(?=\s+\w)",
        lambda match: f"{_verb(match.group(1), verbs)}{match.group(2)}{subject}",
        text,
        flags=re.IGNORECASE,
    )
    return _put_user(text, other, possessive)


def _capital(before: str, pronoun: str) -> str:
    return pronoun if before.strip() else pronoun[:1].upper() + pronoun[1:]


def _verb(verb: str, verbs: dict[str, str]) -> str:
    """The verb without the ending of the third person."""
    lower = verb.lower()
    if lower in verbs:
        return verbs[lower] if verb[0].islower() else verbs[lower].capitalize()
    if lower in NO_VERBS or not lower.endswith("s") or lower.endswith(("ss", "us", "is")):
        return verb
    if lower.endswith("ies") and len(verb) > 4:
        return f"{verb[:-3]}y"
    return verb[:-2] if lower.endswith(("ses", "shes", "ches", "xes", "zes", "oes")) and len(verb) > 4 else verb[:-1]
