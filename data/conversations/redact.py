"""Redaction: e-mail addresses, phone and card numbers, IBANs and secrets become marks such as [EMAIL].

A cheap test decides which detectors run on a text: most texts have no run of digits, no `@` and no word that goes with
a secret. Secrets are detected by the expressions of detect-secrets and by some for newer tokens. The entropy plugins of
detect-secrets are not used: they mistake hashes, identifiers and long words for secrets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import phonenumbers
from detect_secrets.filters import heuristic
from detect_secrets.plugins import (
    aws,
    azure_storage_key,
    basic_auth,
    cloudant,
    discord,
    github_token,
    gitlab_token,
    ibm_cloud_iam,
    ibm_cos_hmac,
    keyword,
    mailchimp,
    openai,
    pypi_token,
    sendgrid,
    slack,
    softlayer,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)

MARKS = ("SECRET", "IBAN", "CARD", "EMAIL", "PHONE")
MARK = re.compile(rf"\[(?:{'|'.join(MARKS)})\]")
Span = tuple[int, int]

# --- numbers and addresses

EMAIL = re.compile(
    r"(?<![\w.+%-])(?!git@)[\w+%-][\w.+%-]{0,63}@(?!\dx\.)(?:[^\W_][\w-]{0,62}\.){1,8}[^\W\d_]{2,24}(?![\w@])"
)
DIGITS = re.compile(r"\d\d[\d \u00a0()./-]{3,}\d")
CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d){10,15}(?![\w-])")
CARD_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d*|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|35\d{14}|6(?:011|5\d\d|4[4-9]\d|2\d\d|3\d\d|7\d\d)\d{12}|50\d{14}"
)
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}(?!\w)")
IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"(\D\D)(\d\d) ?",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
        "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}
ABROAD = re.compile(r"(?<![\w+.])(?:\+|00)[1-9]\d?(?:[ \u00a0./-]?\(?\d\)?){6,16}(?!\w)")
AMERICAN = re.compile(
    r"(?<![\w.+/-])(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d([-. ]))[2-9]\d\d(?(1)\1|[-. ])\d{4}(?![\w-]|\.\d)"
)
NAMED_HINTS = (
    "tel",
    "phone",
    "mobile",
    "cell",
    "whatsapp",
    "fax",
    "call",
    "text me",
    "handy",
    "movil",
    "móvil",
    "number",
)
NAMED = re.compile(
    r"(?<!\w)(?:tele(?:phone|fon[eo]?)|telem[oó]vel|tel|phone|mobile|cell|whatsapp|fax|handy|m[oó]vil|celular"
    r"|call (?:me|us|him|her|them|at|on)|text me|ring me|(?:my|his|her|our|your|their) number)\b\.?"
    r"(?: (?:number|no\.?|nr\.?))?[:=]?\s?(?:(?:is|at|on|é|es|est|ist):? )?"
    r"(\(?\d(?:[ \u00a0()./-]{0,2}\d){6,13})(?!\w)",
    re.IGNORECASE,
)
REGIONS = ("US", "GB", "DE", "FR", "ES", "PT", "IT", "BR", "NL", "IN", "AU", "MX", "PL", "CH", "AT", "BE", "IE")
DATE = re.compile(r"\d{4}([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2(?:\d{4}|\d\d)(?!\d)")

# --- secrets

PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{16,40000}-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|(?:(?:\\[nr]|\s)+[A-Za-z0-9+/=]{16,})+)"
)
TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?:ant-|proj-|or-|svcacct-)[\w-]{20,}|sk-[A-Za-z0-9]{40,}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{22,}|gsk_[A-Za-z0-9]{40,}|npm_[A-Za-z0-9]{36}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|AKCp[A-Za-z0-9]{20,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]+)?|dop_v1_[a-f0-9]{64}|ya29\.[\w-]{30,}|xapp-[\w-]{20,})"
)
BEARER = re.compile(r"\bBearer\s+(?=\S*\d)([A-Za-z0-9._~+/-]{20,}=*)", re.IGNORECASE)


def _denylists(group: int, *plugins: Any) -> list[tuple[re.Pattern[str], int]]:
    return [(each, min(group, each.groups)) for plugin in plugins for each in plugin.denylist]


# with the group that is the secret; analyze_string of detect-secrets gives a prefix instead for GitHub and GitLab
PROVIDERS = [
    (TOKENS, 0),
    (BEARER, 1),
    (re.compile(r":_authToken=\s*([\w-]{20,})"), 1),
    *_denylists(0, azure_storage_key.AzureStorageKeyDetector, discord.DiscordBotTokenDetector),
    *_denylists(0, github_token.GitHubTokenDetector, gitlab_token.GitLabTokenDetector, mailchimp.MailchimpDetector),
    *_denylists(0, openai.OpenAIDetector, pypi_token.PypiTokenDetector, sendgrid.SendGridDetector, slack.SlackDetector),
    *_denylists(0, square_oauth.SquareOAuthDetector, stripe.StripeDetector, telegram_token.TelegramBotTokenDetector),
    *_denylists(0, twilio.TwilioKeyDetector),
    *_denylists(1, aws.AWSKeyDetector, cloudant.CloudantDetector, softlayer.SoftlayerDetector),
    *_denylists(1, ibm_cloud_iam.IbmCloudIamDetector, ibm_cos_hmac.IbmCosHmacDetector),
]
URL_PASSWORD = _denylists(1, basic_auth.BasicAuthDetector)[0][0]
QUOTED = list(keyword.QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items())
HINTS = ("passw", "passc", "passp", "_pass", "pwd", "secret", "key", "token", "bearer", "contrase", "senha")
ASSIGNMENT = re.compile(
    r"(?:passwor[dt]|passwd|passcode|passphrase|pwd|contrase[nñ]a|senha|secret|token(?!s|i)"
    r"|(?:api|access|auth)[ _-]?key)"
    r"\w*[\"'`*]{0,3}\s{0,3}(?::=|=>|[:=]|\b(?:is|was|é|es|ist)\b)[\"'`*\s]{0,4}"
    r"(?=\S*[A-Za-z])(?=\S*\d)([^\s\"'`*,;()\[\]{}<>$]{6,200}+)(?![(\[{])",
    re.IGNORECASE,
)
ASSIGNMENT_AFTER = re.compile(r"[\w -]{0,24}?(?:[:=!(\"'`*]|\b(?:is|was|é|es|ist)\b)")
PLACEHOLDER = re.compile(
    r"your|example|sample|placeholder|change.?me|dummy|xxx|\.\.\.|\*\*\*|^(?:password|passwd|string|username|email|required"
    r"|hidden|invalid|undefined|current-password|new-password|text|(?:sha|md|utf-?|base|int|oauth)\d+\W?\w*)$",
    re.IGNORECASE,
)
LONG_WORD = re.compile(r"(?:\S{0,19}\s+)*+\S{20}")
TOKEN_LIKE = re.compile(r"(?=[^\s\d]*\d)\S*?[A-Za-z0-9_-]{16}")
BEFORE, AFTER = 120, 300
"""Characters around a hint, within its line, that are searched for secrets: some of the expressions are quadratic."""


def redact(text: str) -> tuple[str, Counter[str]]:
    """Replace secrets and personal numbers by marks. Redacting the result changes nothing.

    Phone numbers: international numbers, American numbers written in groups, and other numbers after a word such as
    `tel` or `call me at`, if libphonenumber takes them for valid. Cards: by issuer and Luhn checksum. IBANs: by
    country, length and mod 97.

    Returns:
        The text, and how many marks of each kind it got.
    """
    counts: Counter[str] = Counter()
    while True:
        cleaned = _once(text, counts)
        if cleaned == text:
            return text, counts
        text = cleaned  # the text next to a mark may match now


def _once(text: str, counts: Counter[str]) -> str:
    low = text.replace("İ", "I").lower()  # the only letter whose lower case has another length
    text, before = _put("SECRET", text, _secrets(text, low), counts), text
    if text is not before:
        low = text.replace("İ", "I").lower()
    if "@" in text:
        text = _put("EMAIL", text, (match.span() for match in EMAIL.finditer(text)), counts)
    if DIGITS.search(text):
        text = _put("IBAN", text, _ibans(text), counts)
        text = _put("CARD", text, _cards(text), counts)
        text = _put("PHONE", text, _phones(text), counts)
        if any(hint in low for hint in NAMED_HINTS):
            text = _put("PHONE", text, _named_phones(text), counts)
    return text


def _put(mark: str, text: str, spans: Iterable[Span], counts: Counter[str]) -> str:
    """Replace spans by a mark; of two that overlap, the one that starts first, then the longer one."""
    parts, position = [], 0
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if start >= position and not MARK.fullmatch(text, start, end):
            parts += [text[position:start], f"[{mark}]"]
            counts[mark] += 1
            position = end
    return "".join([*parts, text[position:]]) if parts else text


def _ibans(text: str) -> Iterator[Span]:
    for match in IBAN.finditer(text):
        end, left = match.start(), IBAN_LENGTHS.get(match[0][:2], 0)
        while left and end < match.end():
            left -= text[end] != " "
            end += 1
        bare = text[match.start() : end].replace(" ", "")
        whole = not left and not (end < len(text) and text[end].isalnum())
        if whole and bare and int("".join(str(int(sign, 36)) for sign in bare[4:] + bare[:4])) % 97 == 1:
            yield match.start(), end


def _cards(text: str) -> Iterator[Span]:
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if CARD_ISSUERS.fullmatch(digits) and _luhn(digits):
            yield match.span()


def _luhn(digits: str) -> bool:
    """The check digit of cards (ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _phones(text: str) -> Iterator[Span]:
    for match in ABROAD.finditer(text):
        written = match[0]
        while len(written) > 8 and not _valid(re.sub("^00", "+", written), None):
            written = re.sub(r"[ \u00a0./-]?[^ \u00a0./-]*$", "", written)  # what follows may be another number
        if written.count(")") > written.count("("):
            written = written.removesuffix(")")
        if len(written) > 8:
            yield match.start(), match.start() + len(written)
    for match in AMERICAN.finditer(text):
        if "-" in match[0] or "." in match[0] or "(" in match[0] or _valid(match[0], "US"):
            yield match.span()


def _named_phones(text: str) -> Iterator[Span]:
    for match in NAMED.finditer(text):
        if not DATE.search(match[1]) and any(_valid(match[1], region) for region in REGIONS):
            yield match.span(1)


def _valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _secrets(text: str, low: str) -> Iterator[Span]:
    if "-----BEGIN" in text:
        yield from (match.span() for match in PEM.finditer(text))
    if "://" in text and "@" in text:
        links = _windows(text, [(place, place) for place in _places(text, "://")])
        yield from _spans(URL_PASSWORD, 1, text, links)
    compared = "==" in text or "!=" in text
    hints = [place for hint in HINTS if hint in low for place in _places(low, hint)]
    named = _windows(text, [(place, place) for place in hints if compared or ASSIGNMENT_AFTER.match(low, place)])
    for start, end in _spans(ASSIGNMENT, 1, text, named):
        value = text[start:end].rstrip(".:!?")
        if len(value) >= 6 and not PLACEHOLDER.search(value):
            yield start, start + len(value)
    for expression, group in QUOTED:
        for window in named:
            yield from (each.span(group) for each in expression.finditer(text, *window) if _is_secret(each, group))
    if LONG_WORD.match(text):
        words = [match.span() for match in re.finditer(r"\S{20,}", text) if TOKEN_LIKE.match(match[0])]
        long = _windows(text, words)
        for expression, group in PROVIDERS:
            yield from _spans(expression, group, text, long)


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


def _windows(text: str, spans: list[Span]) -> list[Span]:
    """The surroundings of each span within its line, merged where they overlap."""
    windows: list[Span] = []
    for start, end in sorted(spans):
        low = max(start - BEFORE, text.rfind("\n", max(start - BEFORE, 0), start) + 1, 0)
        high = text.find("\n", end, end + AFTER)
        high = min(end + AFTER, len(text)) if high < 0 else high
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(high, windows[-1][1]))
        else:
            windows.append((low, high))
    return windows


def _spans(expression: re.Pattern[str], group: int, text: str, windows: list[Span]) -> Iterator[Span]:
    for window in windows:
        yield from (match.span(group) for match in expression.finditer(text, *window))


def _is_secret(match: re.Match[str], group: int) -> bool:
    """Whether a quoted value next to a word such as `password` is a secret. A plain word is one only for a password."""
    value = match[group]
    name = match[0].replace(value, "").lower()
    plain = value.isalpha() and not ("pass" in name or "pwd" in name or "contrase" in name)
    tests: tuple[Callable[[str], bool], ...] = (
        heuristic.is_templated_secret,
        heuristic.is_sequential_string,
        heuristic.is_not_alphanumeric_string,
        heuristic.is_prefixed_with_dollar_sign,
        heuristic.is_potential_uuid,
        lambda value: bool(re.search(r"\s", value) or PLACEHOLDER.search(value)),
    )
    return len(value) >= 6 and not plain and not any(test(value) for test in tests)
