"""Street addresses: a street and a number, if a postcode or a word such as `I live at` says that it is an address."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.spans import Span, line_before, lowered, places, windows
from moltlm.data.conversations.redact.triggers import Triggers, hint_words

_CAP = r"[A-ZÀ-ÞŁŚŻČŠŽ][\w'’.-]{1,20}"
_NAME = rf"{_CAP}(?: {_CAP}){{0,3}}"
_TOWN = rf"{_CAP}(?:[ -](?:(?:am|an der|de|do|da|la|le|les|sur|di|upon|in|im) )?{_CAP}){{0,3}}"
_SMALL = (
    r"(?:(?:de la|de los|de las|de l['’]|de|du|des|da|do|dos|das|della|dello|dei|degli|del|di|la|le|les"
    r"|d['’]|l['’]) ?){0,2}"
)
_NUMBER = r"(?:n[.º°o]{1,2} ?|num\.? ?)?\d{1,5}(?: ?(?:bis|ter)| ?[A-Za-z](?![A-Za-z]))?(?:[-/]\d{1,4}[a-z]?)?"
_FLAT = (
    r"(?:,? (?i:apt|apartment|flat|unit|suite|ste|floor|apto|piso|top|wohnung|int\.?|bât\.?"
    r"|app\.?)\.? ?#?[\w-]{1,5}|,? #\d{1,5}|, \d{1,2}[.ºªo°]{1,2} ?(?:[A-Za-z]{1,4}\b\.?)?)?"
)
_POSTCODE = (
    rf"(?:[A-Z]{{1,2}}-)?\d{{4,5}}(?:-\d{{3,4}})?(?: [A-Z]{{2}}(?![A-Za-z]))? {_TOWN}(?:,?"
    rf" \(?[A-Z]{{2}}\)?(?![A-Za-z]))?"
    rf"|{_TOWN},? (?:[A-Z]{{2}},? )?\d{{5}}(?:-\d{{4}})?|(?:{_TOWN},? )?[A-Z]{{1,2}}\d[A-Z\d]? ?\d[A-Z]{{2}}"
    rf"|{_TOWN},? [A-Z]{{2,3}} \d{{4}}"
    rf"|{_TOWN},? (?:[A-Z]{{2}} )?[A-Z]\d[A-Z] ?\d[A-Z]\d|{_TOWN},? \d{{5}}-\d{{3}}|\d{{4}}-\d{{3}} {_TOWN}"
)
_REST = rf"{_FLAT}(?P<code>,? ?(?:in )?(?:{_POSTCODE}))?(?P<town>(?(code)|, {_TOWN}(?:, [A-Z]{{2}}(?![A-Za-z]))?)?)"
_ENGLISH = (
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Square|Sq|Terrace"
    r"|Close|Crescent|Cres|Gardens|Grove|Hill|Mews|Parkway|Pkwy|Row|Walk|Way|Circle|Cir|Trail|Highway|Hwy)"
)
_FRENCH = (
    r"(?:[Rr]ue|[Aa]venue|[Aa]v\.|[Bb]oulevard|[Bb]d|[Pp]lace|[Cc]hemin|[Aa]llée|[Ii]mpasse|[Qq]uai"
    r"|[Cc]ours|[Rr]oute|[Ss]quare|[Pp]assage)"
)
_ROMANCE = (
    r"(?:[Cc]alle|C/ ?|[Aa]venida|Av\.|Avda\.|[Pp]laza|Pza\.|[Pp]aseo|[Cc]arrer|[Cc]amino|[Rr]ua|R\.|[Tt]ravessa"
    r"|[Ll]argo|[Pp]raça"
    r"|[Ee]strada|[Aa]lameda|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|[Vv]icolo|[Ss]trada|ul\.|[Uu]lica|al\.)"
)
_GERMAN = (
    r"(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|steig|markt|hof|straat|laan|plein"
    r"|gracht|kade|dreef|gatan|vägen|vej|gade)"
)
STREETS = tuple(
    re.compile(rf"(?<![\w.,-]){street}{_REST}(?![\w])")
    for street in (
        rf"\d{{1,5}}[A-Za-z]? (?:[NSEW]\.? )?{_NAME} {_ENGLISH}(?![a-z])\.?(?: [NSEW]{{1,2}}(?![A-Za-z]))?",
        rf"{_NUMBER},? {_FRENCH} {_SMALL}{_NAME}",
        rf"{_ROMANCE} ?{_SMALL}{_NAME},? ?{_NUMBER}",
        rf"(?:(?:Am|An der|Im|Zum|Zur|Unter den|Auf der|Alte|Neue|Große"
        rf"|Kleine) )?[A-ZÄÖÜ][\w-]{{1,28}}?(?:{_GERMAN}| (?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring"
        rf"|Damm)),? \d{{1,4}} ?[a-z]?(?![\w])",
    )
)
# a text without any of these has no address, except beside a postcode
_CONTEXT_WORDS = hint_words(
    "address adresse dirección direccion endereço endereco indirizzo adres live lives living lived wohne wohnt"
    " wohnen wohnhaft vivo vive"
    " habite habitons moro mora abito abita deliver delivery delivered ship shipped moved mieszkam woon woont"
    " domicilio domicile resides"
)
_CONTEXT = re.compile(
    r"(?:address|adresse?|dirección|endereço|indirizzo|adres|(?:live|lives|living|lived|stay|staying) (?:at|on"
    r"|in)|wohn\w*|viv[oe] en|habit\w+"
    r"|mor[oa] n[ao]|abit[oa]|deliver\w*|ship\w*|moved to|send (?:it|them|this|the \w+) to|mail (?:it|them) to"
    r"|mieszkam|woon\w*|home is"
    r"|house is|come to|pick me up|domicil\w*|resid\w+)(?![^\W\d_])[^.!?\n]{0,30}$",
    re.IGNORECASE,
)


# the others, such as `way` and `hill`, are too frequent: their addresses are found after a word of the first kind
_STREET_WORDS = hint_words(
    "street st road rd avenue ave lane ln drive dr boulevard blvd court terrace crescent square rue chemin allée"
    " impasse quai calle avenida avda plaza paseo carrer rua travessa praça estrada alameda via viale piazza corso"
    " vicolo ul ulica platz weg allee gasse"
)
STREET_PARTS = (b"stra", b"str.")  # Straße, Strasse, straat
# a postcode or the end of a British one, and no year
_POSTCODE_DIGITS = re.compile(r"\d(?<![\d.,].)(?:\d{3,4}(?![\d.,%]*\d)|[A-Z]{2}(?![A-Za-z0-9]))")
_BRITISH = re.compile(rb"\b[a-z]{1,2}\d[a-z\d]? ?\d[a-z]{2}\b")
_TOWN_AFTER = re.compile(r"(?:-\d{3,4}|\d?[A-Z]{2})? ?[A-ZÀ-Þ]|-\d{3,4}\b|$|[.,;\n]")
_YEAR = re.compile(r"(?:19|20)\d\d")


_HAN = "\u4e00-\u9fff"
_PLACE = rf"(?:(?![我你他她住在于是到去的址])[{_HAN}])"
EAST_ASIAN = (
    re.compile(
        rf"(?:{_PLACE}{{2,9}}[省市])?{_PLACE}{{1,9}}[市区區县縣][{_HAN}]{{1,12}}(?:路|街|道|巷|弄|胡同)\d{{1,5}}[号號]"
        rf"(?:[{_HAN}\d]{{0,12}}(?:室|楼|樓|单元|單元))?"
    ),
    re.compile(
        rf"(?:東京都|北海道|京都府|大阪府|[{_HAN}]{{2,3}}県)[\u3040-\u30ff{_HAN}々]{{1,24}}\d{{1,4}}(?:丁目|番地?|号|-)[\d丁目番地号-]{{1,14}}"
    ),
)
_EAST_ASIAN_PARTS = tuple(part.encode() for part in ("号", "號", "都", "道", "府", "県"))


def may_hold_east_asian_address(triggers: Triggers) -> bool:
    return triggers.scripts and triggers.digit and triggers.any_of(_EAST_ASIAN_PARTS)


def east_asian_addresses(view: str, window: Span) -> Iterator[Span]:
    """Addresses from the town to the number of the house, which need no other sign."""
    for expression in EAST_ASIAN:
        yield from (match.span() for match in expression.finditer(view, *window))


def may_hold_address(triggers: Triggers) -> bool:
    """Whether a text has a word such as `live`, or a word for a street and a number as long as a postcode."""
    if not triggers.digit:
        return False
    if triggers.words() & _CONTEXT_WORDS:
        return True
    if triggers.words() & _STREET_WORDS and _BRITISH.search(triggers.lower):
        return True
    return triggers.number and (bool(triggers.words() & _STREET_WORDS) or triggers.any_of(STREET_PARTS))


def _is_postcode(view: str, match: re.Match[str]) -> bool:
    """Whether digits are no year, and a word with a capital stands before or after them."""
    if _YEAR.fullmatch(match[0]):
        return False
    before, after = view[max(match.start() - 20, 0) : match.start()].split(), view[match.end() : match.end() + 6]
    return (bool(before) and before[-1][0].isupper()) or _TOWN_AFTER.match(after) is not None


def address_windows(view: str, triggers: Triggers) -> list[Span]:
    """Where an address may be: around a postcode, and after a word such as `live`."""
    codes = (match.span() for match in _POSTCODE_DIGITS.finditer(view) if _is_postcode(view, match))
    near = [(max(start - 90, 0), min(end + 60, len(view))) for start, end in codes]
    words = triggers.words() & _CONTEXT_WORDS
    low = lowered(view) if words else ""
    for word in words:
        near += [(place, min(place + 140, len(view))) for place in places(low, word.decode())]
    return windows(view, sorted(near), 0, 0)


def addresses(view: str, window: Span) -> Iterator[Span]:
    for expression in STREETS:
        for match in expression.finditer(view, *window):
            if match["code"] or _CONTEXT.search(line_before(view, match.start(), 60)):
                yield match.start(), match.start() + len(match[0].rstrip(" ,."))
