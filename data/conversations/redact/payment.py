"""Card numbers, by issuer and check digit, and IBANs, by country, length and check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.context import names_something_else
from moltlm.data.conversations.redact.spans import Span

# groups as they are printed, or none; a line may break between them
CARD = re.compile(
    r"[2-6](?<![A-Za-z0-9_./-].)(?:\d{3}(?:[ .\n-]\d{4}){3}(?:[ .\n-]\d{3})?|\d{3}[ .\n-]\d{6}[ .\n-]\d{4,5}|\d{12,18})"
    r"(?![A-Za-z0-9_]|[.-]\d)"
)
CARD_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d*|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|35\d{14}|6(?:011|5\d\d|4[4-9]\d|2\d\d|3\d\d|7\d\d)\d{12}|50\d{14}"
)
IBAN = re.compile(r"[A-Za-z](?<![A-Za-z0-9_].)[A-Za-z]\d\d(?:[ .\n-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9_])")
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
_SEPARATORS = " .\n-"


def cards(view: str, window: Span) -> Iterator[Span]:
    for match in CARD.finditer(view, *window):
        digits = re.sub(r"\D", "", match[0])
        if not (CARD_ISSUERS.fullmatch(digits) and luhn(digits)):
            continue
        if len(digits) < len(match[0]) or not names_something_else(view, *match.span()):
            yield match.span()


def luhn(digits: str) -> bool:
    """The check digit of cards (ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def ibans(view: str, window: Span) -> Iterator[Span]:
    position = window[0]
    while match := IBAN.search(view, position, window[1]):
        end = _iban_end(view, match)
        if end:
            yield match.start(), end
        position = end or match.start() + 1


def _iban_end(view: str, match: re.Match[str]) -> int:
    """Where the IBAN ends that begins a match; 0 if none does: the match may have run into the next words."""
    end, left = match.start(), IBAN_LENGTHS.get(match[0][:2].upper(), 0)
    while left and end < match.end():
        left -= view[end] not in _SEPARATORS
        end += 1
    if left or end == match.start() or (end < len(view) and view[end].isascii() and view[end].isalnum()):
        return 0
    bare = re.sub(r"[ .\n-]", "", view[match.start() : end])
    return end if int("".join(str(int(sign, 36)) for sign in bare[4:] + bare[:4])) % 97 == 1 else 0
