"""Passwords, keys and codes that are recognised by the nouns before them (`nouns`), in many languages.

The value decides whether a sentence holds a password or is about passwords: "password is case-sensitive2" and "the
secret is 250grams" hold none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.nouns import CODE, KEY, PASSWORD, WITHOUT_DIGITS, Noun, nouns_in
from moltlm.data.conversations.redact.spans import Span, line_before, lowered, places
from moltlm.data.conversations.redact.triggers import Triggers

PLACEHOLDER = re.compile(
    r"your|example|sample|placeholder|change.?me|dummy|xxx|\.\.\.|…|\*\*\*|•••|^(?:pass|password|passwd|passwort"
    r"|string|username|user"
    r"|email|required|hidden|invalid|undefined|none|null|true|false|current-password|new-password|text|str"
    r"|redacted|secret|token"
    r"|(?:sha|md|utf-?|base|int|oauth|bcrypt|argon|aes|rsa|hs|rs)\d+\W?\w*)$",
    re.IGNORECASE,
)
# what is said of passwords, after "is"
_SAID = re.compile(
    r"(?:case|not|never|always|too|at|only|also|required|optional|incorrect|wrong|invalid|correct|weak|strong"
    r"|stored|hashed|salted|expired"
    r"|encrypted|protected|sensitive|longer|shorter|between|minimum|least|from|about|like|used|sent|valid|https?"
    r"|www|limited|based"
    r"|mindestens|nicht|falsch|höchstens|incorrecta?|obligatori\w|trop|au|errat[oa]|inválid[oa])(?![^\W\d_])",
    re.IGNORECASE,
)
_UNITS = re.compile(
    r"\d+[-–]?(?:char|zeich|stell|sign|caract|caratt|cifr|karakt|bit|byte|kb|mb|digit|letter|symbol|word|day"
    r"|week|month|year|hour|min|sec"
    r"|gram|clove|cup|spoon|step|time|st|nd|rd|th|g|kg|ml|tage|wochen|monate|jahre|días|meses|jours"
    r"|mois|dias|giorni|mesi|%)[^\W\d_]{0,12}\Z",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(
    r"[ -]?(?:char|zeich|stell|sign|caract|caratt|cifr|bit|byte|digit|letter|symbol|word|day|week|month|year"
    r"|hour|min|sec|token|times"
    r"|tage|wochen|monate|jahre|días|meses|jours|mois|dias|giorni|mesi|caractères|%|€|\$)",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:self|this|config|settings|env|os|process|args|request|req|params|data|form|user|options|opts|cfg|props"
    r"|state|input|body"
    r"|secrets|vault|context|ctx|event|response|res|row|obj|item)[.\-]|\$|%[A-Z_(]|/|\\|~/|\.{1,2}/|[a-z]+://|@"
    r"|--|&|#\{|\+\s"
    r"|[a-z]+(?:_[a-z0-9]+)+\d?\Z|[A-Z]+(?:_[A-Z0-9]+)+\Z",
)
_CODE = re.compile(r"(?:[A-Z]{1,2}-?)?\d(?:[ -]?\d){2,7}#?\Z|(?=[A-Z0-9-]{5,12}\Z)[A-Z0-9-]*\d[A-Z0-9-]*\Z")
_WORDISH = re.compile(r"(?:[A-Za-z]*\d{0,3}|\d+[A-Za-z]*)\Z")
_THINGS = re.compile(
    r"(?:windows|iphone|ipad|ios|macos|office|sha|md|base|utf|oauth|aes|rsa|web|ubuntu|debian|android|python"
    r"|java|php|version|step|level"
    r"|page|chapter|room|section|part|option|figure|table|line|user|test|server|galaxy|pixel|covid|top|mp|ip"
    r"|http|tls|ssl|rfc|article"
    r"|phase|type|class|day|week|q|x|h|pbkdf|scrypt|argon|bcrypt|wpa|ipv|win|ps|usb|rtx|gpt)[-_ ]?\d",
    re.IGNORECASE,
)
_SYMBOL = re.compile(r"[^\W\d_]+[!@#$%^&*+=?~]+[^\W_]|[!@#$%^&*+=?~]{2,}[^\W_]{3,}")
_REVERSED = re.compile(
    r"(?:^|[\s\"'`“„«(])(?P<value>[^\s\"'`“”„«»,;()\[\]{}<>|]{5,64})[\"'`”“»)]?,?\s(?:is|was|as|ist|als|es|como"
    r"|est|comme|é|è|come|jest)\s"
    r"(?:[^\W\d_]{1,10}\s){0,3}$",
    re.IGNORECASE,
)


def passwords(text: str, triggers: Triggers) -> Iterator[Span]:
    """What stands after a noun of the table, or before it: `Kettle42 is my password`."""
    nouns = nouns_in(triggers) if triggers.digit or triggers.any_of(WITHOUT_DIGITS) else ()
    if not nouns:
        return
    low = lowered(text)
    for noun in nouns:
        for place in places(low, noun.part):
            yield from _after(text, place, noun)
            if noun.kind == PASSWORD:
                yield from _before(text, place)


def _after(text: str, place: int, noun: Noun) -> Iterator[Span]:
    for expression in (noun.stated, noun.bare):
        match = expression.match(text, place)
        if match and (end := _value_end(text, match, noun.kind, expression is noun.bare)):
            yield match.start("value"), end
            return


def _value_end(text: str, match: re.Match[str], kind: str, bare: bool) -> int:
    """Where the secret ends that a match holds; 0 if it holds none."""
    start, value = match.start("value"), match["value"].rstrip(".:!?*_…")
    if match["sign"] == "=":
        value = value.partition("&")[0]  # the next parameter of a link
    end = start + len(value)
    quoted = bool(match["open"].strip(" *_(\n\t")) and text[match.end("value") : match.end("value") + 1] in tuple(
        "\"'`”“»’"
    )
    return end if is_secret(value, kind, quoted, bare, text[end : end + 20]) else 0


def _before(text: str, place: int) -> Iterator[Span]:
    before = line_before(text, place, 90)
    match = _REVERSED.search(before) if any(sign.isdigit() for sign in before) else None
    if match and is_secret(match["value"], PASSWORD, False, True, ""):
        yield place - len(before) + match.start("value"), place - len(before) + match.end("value")


def is_secret(value: str, kind: str, quoted: bool, bare: bool, following: str) -> bool:
    """Whether a value is a secret of a kind.

    Args:
        value: what stands after the noun, without punctuation.
        kind: PASSWORD, KEY or CODE.
        quoted: whether it stands in quotation marks.
        bare: whether no `is` or `:` stands between.
        following: the text after it.
    """
    if is_placeholder(value) or _REFERENCE.match(value) or _SAID.match(value) or _UNITS.match(value):
        return False
    digits, letters = sum(map(str.isdigit, value)), sum(map(str.isalpha, value))
    if kind == CODE:
        return bool(_CODE.match(value)) and not _UNIT_AFTER.match(following)
    if kind == KEY:
        return len(value) >= (20 if bare else 8) and bool(digits and letters) and (quoted or not _is_words(value))
    if digits and not letters:
        return 4 <= digits <= 12 and not bare and not _UNIT_AFTER.match(following)
    if len(value) < (4 if quoted else 5):
        return False
    if digits:
        return not (bare and not quoted and _is_name(value)) and not re.match(r"\d{1,3}[a-z]+\Z", value)
    return bool(_SYMBOL.search(value)) or (quoted and len(value) >= (8 if bare else 6))


def _is_words(value: str) -> bool:
    """Whether a value is made of words, version numbers and quantities, such as `t5-small-lm` or `250grams`."""
    return all(_WORDISH.match(part) for part in re.split(r"[-_./+:]", value))


def _is_name(value: str) -> bool:
    """Whether a value may be the name of something in a text about passwords, such as `Windows10` or `sha-256`."""
    return _is_words(value) and bool(sum(map(str.isdigit, value)) < 2 or _THINGS.match(value) or not value[0].isalpha())


def is_placeholder(value: str) -> bool:
    """Whether a value stands for a password in a text about passwords."""
    return bool(PLACEHOLDER.search(value)) or not any(sign.isalnum() for sign in value)
