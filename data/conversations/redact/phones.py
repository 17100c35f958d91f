"""Phone numbers, which libphonenumber must take for valid.

International numbers and those in a country's usual groups are recognised alone, others after a word such as `tel` or
`call me at`. All of it works on the view of `folding`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers

from moltlm.data.conversations.redact.context import names_something_else
from moltlm.data.conversations.redact.spans import Span, line_before

_EXTENSION = re.compile(
    r"(?:,? ?(?:ext|extension|x|durchwahl|ramal|poste|int|anexo)\.? ?\d{1,5}|/\d{2,4})(?![\w/]|[.-]\d)", re.I
)
# Each begins with a class of characters, which `re` finds fast, and then looks back: no letter, digit or sign before.
_ALONE = r"(?<![\w.+/,-].)(?<!\d[ -].)"
INTERNATIONAL = re.compile(
    r"[(+0](?<![A-Za-z0-9_+.,].)(?:(?<=\()(?:\+ ?|00 ?)|(?<=\+) ?"
    r"|(?<=0)0 ?)\(?[1-9]\d{0,2}\)?(?:[ .\n/-]{0,2}\(?\d\)?){5,14}(?![A-Za-z0-9_])"
)
LINKED = re.compile(r"(?:wa\.me/|phone=|tel:|sms:|callto:|facetime:)(\+?\d{7,15})(?!\d)", re.I)
# the groups in which a country writes its numbers, with the regions that are tried
NATIONAL = (
    (r"[(2-91](?<![\w.+/-].)(?<!\d[ -].)(?:(?<=1)[-. ](?:\([2-9]\d\d\) ?|[2-9]\d\d(?=([-. ]))[-. ])"
     r"|(?<=\()[2-9]\d\d\) ?"
     r"|(?<=[2-9])\d\d([-. ]))[2-9]\d\d(?:\1|\2|[-. ])\d{4}(?![\w-]|\.\d)", ("US",)),
    (rf"0{_ALONE}[1-9](?:([ .-])\d\d)(?:\1\d\d){{3}}(?![\w-]|[ .]\d)", ("FR", "BE")),
    (rf"[(0]{_ALONE}(?:(?<=\()0[1-9]|(?<=0)[1-9])\d{{0,4}}(?:\) ?"
     rf"|[ /-]{{1,3}})\d{{2,8}}(?:[ -]\d{{2,8}}){{0,3}}(?![\w-]|[ .,]\d)",
     ("DE", "GB", "AU", "JP", "KR", "IT", "AT", "CH", "NL", "TR", "SE", "IE", "ZA", "IN", "FR", "BE", "TW", "UA")),
    (rf"\({_ALONE}\d{{2,3}}\) ?(?:9 ?)?\d{{3,4}}[- ]\d{{4}}(?![\w-]|[.,]\d)", ("BR", "MX", "AR", "US")),
    (rf"1{_ALONE}[3-9]\d([ -])\d{{4}}\1\d{{4}}(?![\w-]|[.,]\d)", ("CN",)),
    (rf"8{_ALONE}[ -]?\(\d{{3}}\)[ -]?\d{{3}}[ -]?\d\d[ -]?\d\d(?![\w-]|[.,]\d)", ("RU",)),
)  # fmt: skip
_NOUNS = (
    r"tele(?:ph|f)on[eo]?s?|t[eé]l[eé]phone|tel[eé]fono|telefon\w{0,12}|telem[oó]ve(?:l|is)|t[eé]l(?!\.? aviv)"
    r"|phone|mobile|mobil\w{0,10}"
    r"|cell(?:phone)?|landline|whats ?app|telegram|signal|wechat|viber|fax|handy(?:nr|nummer)?|ruf(?:nr|nummer)"
    r"|m[oó]vil|celular|cel"
    r"|cellulare|portable|gsm|komórk\w{0,3}|numer(?: telefonu)?|тел(?:ефон\w{0,3})?|моб(?:ильн\w{0,4})?|номер"
    r"|mobiel|gsm-nummer"
    r"|call|text|ring|dial|phone|reach|sms|message|whatsapp"
    r"|llama(?:me|dme)?|llámame|ruf|rufen|anrufen|erreich\w{0,6}|appel\w{0,4}|joign\w{0,6}|liga(?:-me|me)?|ligue"
    r"|chiama(?:mi)?|zadzwo\w{0,4}"
    r"|(?:my|his|her|our|your|their|mum's|mom's|dad's|office) number|(?:mein|meine|seine|ihre|unsere) (?:nummer"
    r"|nr)|mi número"
    r"|(?:mon|son|notre|leur) numéro|(?:o )?(?:meu|seu|nosso) número|(?:il )?(?:mio|suo|nostro) numero|mój numer"
    r"|mijn nummer|мой номер"
)
_LINKS = (
    r"number|numbers|no|nr|num|n[uú]mero|numéro|numero|nummer|telefonu|is|are|was|it's|its|at|on|to|me|us|him"
    r"|her|them|now|still|under|via|or"
    r"|lautet|ist|sind|unter|auf|mich|an|uns|mir|es|est|sont|le|la|au|el|al|no|o|em|è|é|il|jest|mój|pod|to|moi"
    r"|mig|op|me|bij|за|по|это|мой"
    r"|fixo|fixe|fijo|fisso|vaste|stationär|new|old|home|work|office|private|personal|mobile|cell|phone|privat"
    r"|neu|neue|nuevo|nouveau|novo|nuovo|de|do|da|del|der|mobil"
    r"|portable|casa|trabajo|cellulare|celular|directly|please|here|anytime|back|instead|für|for|the|emergencies"
)
_NAMED = re.compile(
    rf"(?<![^\W\d_])(?:{_NOUNS})(?![^\W\d_])(?:[\s:=.,()#/*-]{{1,3}}(?:{_LINKS}"
    rf"|(?-i:[A-ZÀ-Þ][\w'’]{{1,14}}))(?![^\W\d_])){{0,5}}[\s:=.()#*\"'№-]{{0,4}}$",
    re.I,
)
_NAMED_CJK = re.compile(
    r"(?:电话|電話|手机|手機|微信|联系方式|聯絡|号码|號碼|番号|携帯|連絡先|ケータイ|전화|휴대폰|핸드폰|연락처|번호|हाथ|फ़ोन|फोन|मोबाइल|نمبر"
    r"|رقم|هاتف|جوال|موبايل|واتس|تلفن|تليفون|محمول|اتصل|كلمن|للتواصل|تواصل معي"
    r"|شماره|موبایل|همراهم|تماس|زنگ بزن|זה המספר|טלפון|נייד|โทร|เบอร์)[^\d\n。.!?؟]{0,14}$"
)
_THING_CJK = re.compile(
    r"(?:订单|訂單|货号|型号|注文|品番|주문|송장|身份证|会員|受付|طلب|فاتور|شحن|تتبع|سفارش|فاکتور|مرسوله|پیگیری)[^\n。]{0,8}$"
)
CANDIDATE = re.compile(
    r"[(\d](?<![A-Za-z0-9_.,/+].)(?:(?<=\()\d)?(?:[ ()./\n-]{0,2}\d){5,14}\)?(?![A-Za-z0-9_]|[.,]\d)"
)
_NATIONAL = tuple((re.compile(expression, re.ASCII | re.DOTALL), regions) for expression, regions in NATIONAL)
REGIONS = (
    *("US", "GB", "DE", "FR", "ES", "PT", "IT", "BR", "NL", "IN", "AU", "MX", "PL", "CH", "AT", "BE", "IE", "CN"),
    *("JP", "KR", "RU", "TR", "SE", "AR", "SA", "AE", "EG", "IR", "IL", "TH", "GR", "CZ", "UA", "ZA", "DK", "NO"),
    *("FI", "TW", "HK", "CO"),
)  # fmt: skip
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
DATE = re.compile(
    rf"{_YEAR}([-./ ]){_MONTH}\1{_DAY}(?!\d)|{_YEAR}[ -]{_YEAR}(?!\d)"
    rf"|(?:{_DAY}-{_MONTH}-|{_DAY}\.{_MONTH}\.|{_DAY}/{_MONTH}/|{_MONTH}/{_DAY}/)(?:{_YEAR}|\d\d)(?!\d)"
)
# the rest of a number that is cut off its end until what is left is valid: more digits may follow as another number
_LAST_GROUP = re.compile(r"[ .\n/()-]*\d+\)?$")


def phones(view: str, window: Span) -> Iterator[Span]:
    for match in LINKED.finditer(view, *window):
        yield match.span(1)
    for match in INTERNATIONAL.finditer(view, *window):
        span = _international(view, match)
        if span:
            yield _extended(view, *span)
    for expression, regions in _NATIONAL:
        for match in expression.finditer(view, *window):
            if _is_national(match[0], regions) and not _public(view, *match.span()):
                yield _extended(view, *match.span())
    for match in CANDIDATE.finditer(view, *window):
        start, end = _unbracketed(view, *match.span())
        if is_named(view, start):
            yield from _named(view, start, end)


def _is_national(number: str, regions: tuple[str, ...]) -> bool:
    """Whether a number in a country's groups is one of that country. American ones with 555 are made up: they count."""
    if _digits(number) < 9 or DATE.fullmatch(number):
        return False
    made_up = regions == ("US",) and number.startswith(("(", "555"))
    return made_up or regions == ("RU",) or _valid_in(number, regions)


def _digits(number: str) -> int:
    return sum(map(str.isdigit, number))


def _named(view: str, start: int, end: int) -> Iterator[Span]:
    """A number after a word for phones, without what was said after it."""
    full = end
    if DATE.match(view, start, end) and _digits(view[start:end]) < 9:
        return
    while end - start >= 6:
        if _valid_in(view[start:end], REGIONS):
            yield _extended(view, start, end)
            return
        end = start + len(_LAST_GROUP.sub("", view[start:end]))
    if 9 <= _digits(view[start:full]) <= 13 and len(set(view[start:full])) > 4 and not DATE.match(view, start, full):
        yield _extended(view, start, full)


def is_named(view: str, start: int) -> bool:
    before = line_before(view, start, 70)
    return bool(
        _NAMED.search(before) or (not before.isascii() and _NAMED_CJK.search(before) and not _THING_CJK.search(before))
    )


def _public(view: str, start: int, end: int) -> bool:
    return names_something_else(view, start, end) and not is_named(view, start)


def _international(view: str, match: re.Match[str]) -> Span | None:
    """The number that begins a match, without what was said after it."""
    number = match[0]
    while _digits(number) > 6 and not _valid(_plus(number), None):
        shorter = _LAST_GROUP.sub("", number)
        number = "" if shorter == number else shorter
    if _digits(number) <= 6:
        number = match[0] if _is_made_up(match[0]) else ""
    start, end = _unbracketed(view, match.start(), match.start() + len(number))
    if not number or ("+" not in number and not _is_dialled(view, start, end)):
        return None
    return start, end


def _is_made_up(number: str) -> bool:
    """Whether a number that no one has is written as people write theirs, as the British ones for films are."""
    return number.lstrip("(").startswith("+") and _digits(number) >= 10 and _possible(_plus(number))


def _is_dialled(view: str, start: int, end: int) -> bool:
    """Whether a number that begins with 00 instead of + is dialled and does not count something."""
    number = view[start:end]
    if number.isdigit() and (len(number) < 12 or _is_article(number)) and not is_named(view, start):
        return False
    return not (_public(view, start, end) or view[max(start - 3, 0) : max(start - 1, 0)].isdigit())


def _is_article(digits: str) -> bool:
    """Whether digits are a number of an article: an EAN of 13 digits, with its check digit."""
    odd, even = sum(map(int, digits[:12:2])), sum(map(int, digits[1:12:2]))
    return len(digits) == 13 and (odd + 3 * even + int(digits[-1])) % 10 == 0


def _possible(number: str) -> bool:
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(parsed) and str(parsed.national_number)[0] not in "01"


def _plus(number: str) -> str:
    return re.sub("^00", "+", re.sub(r"[^\d+]", "", number.replace("(0)", "")))


def _unbracketed(view: str, start: int, end: int) -> Span:
    """Without brackets around the whole number, as in "(+351 912 345 678)" and not in "(+351) 912 345 678"."""
    number = view[start:end]
    if number.startswith("(") and number.find(")") in (-1, len(number) - 1):
        start += 1
        end -= number.endswith(")")
    elif number.endswith(")") and number.count(")") > number.count("("):
        end -= 1
    return start, end


def _extended(view: str, start: int, end: int) -> Span:
    """With the extension, or the other last digits, that follow."""
    extension = _EXTENSION.match(view, end)
    return start, extension.end() if extension else end


def _valid_in(number: str, regions: tuple[str, ...]) -> bool:
    bare = re.sub(r"[^\d+]", "", number)
    return any(_valid(bare, region) for region in regions)


@lru_cache(maxsize=4096)
def _valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
