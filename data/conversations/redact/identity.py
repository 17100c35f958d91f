"""Numbers of documents, registration plates and coordinates, most of them after a word for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.context import names_something_else
from moltlm.data.conversations.redact.spans import Span, lowered, places
from moltlm.data.conversations.redact.triggers import Triggers, hint_words

# the first words of the nouns below
_DOCUMENT_STARTS = re.findall(
    r"\S+",
    "ssn social sozialversicherung nif nie dni cpf cnpj nipc niss bsn pesel nip steuer tax passport reisepass"
    " pasaporte passeport passaport personalausweis ausweis nino national codice curp aadhaar sécurité insee"
    " identity id driver driving führerschein carta carte cartão bilhete cc ahv personnummer medicare nhs rut"
    " cuit rodné seguridad 身份证 マイナンバー 주민 снилс инн паспорт",
)
_DOCUMENT_WORDS = hint_words(
    "ssn social sozialversicherungsnummer nif nie dni cpf cnpj nipc niss bsn pesel nip steuer steuernummer"
    " steueridentifikationsnummer steuerid"
    " tax taxpayer passport reisepass reisepassnummer pasaporte passeport passaporto passaporte personalausweis"
    " personalausweisnummer ausweisnummer"
    " nino insurance fiscale curp aadhaar sécurité insee identity card licence license führerschein"
    " führerscheinnummer identità identité cidadão"
    " identidade cc ahv personnummer medicare nhs rut cuit číslo seguridad снилс инн СНИЛС ИНН паспорт Паспорт"
)
_DOCUMENT_PARTS = tuple(word.encode() for word in ("身份证", "マイナンバー", "주민"))
_DOCUMENT_NOUNS = (
    r"ssn|social security(?: (?:number|no\.?))?|sozialversicherungs(?:nummer|nr\.?)|nif|nie|dni|cpf|cnpj|nipc"
    r"|niss|bsn|pesel|nip"
    r"|steuer(?:-?id|nummer|identifikationsnummer|nr\.?)|tax(?:payer)? id(?:entification)?(?: number)?"
    r"|passport(?: (?:number|no\.?|nr\.?))?"
    r"|reisepass(?:nummer|nr\.?)?|pasaporte|passeport|passaporto?e?|personalausweis(?:nummer|nr\.?)?"
    r"|ausweis(?:nummer|nr\.?)?|nino"
    r"|national insurance(?: (?:number|no\.?))?|codice fiscale|curp|aadhaar(?: (?:number|no\.?))?|sécurité sociale"
    r"|insee|national identity card|identity card|id card(?: (?:number|no\.?))?|driv(?:er'?s?"
    r"|ing) licen[cs]e(?: (?:number|no\.?))?|führerschein(?:nummer)?"
    r"|carta d'identità|carte d'identité|cartão de cidadão|bilhete de identidade|cc|ahv(?:-?(?:nummer|nr\.?))?"
    r"|personnummer|medicare(?: number)?"
    r"|nhs(?: number)?|rut|cuit|rodné číslo|seguridad social|снилс|инн|паспорт"
    r"|身份证号?码?|マイナンバー|주민(?:등록)?번호"
)
_IS = (
    r"(?:\s?(?:number|no\.?|nr\.?|num\.?|número|numéro|numero|nummer|n\.?º))?[\"'*]{0,2}\s{0,2}(?:[:：=#]|(?:is"
    r"|ist|es|est|é|è|lautet|jest|to|是|は|는|은|это)(?![^\W\d_]):?)?[\"'*]{0,2}\s{0,3}"
)
DOCUMENT = re.compile(
    rf"(?<![^\W\d_])(?:{_DOCUMENT_NOUNS})(?![^\W\d_]){_IS}"
    r"([A-Z0-9]{1,4}(?: (?=[A-Z]{0,2}\d)[A-Z0-9]{1,4}){2,5}(?: (?-i:[A-Z]))?"
    r"|[A-Z0-9]+(?:[.\-/][A-Z0-9]+)*)(?![A-Z0-9])",
    re.IGNORECASE,
)
# Forms that are no other number: an American SSN, a Brazilian CPF, an Italian codice fiscale, a Spanish DNI. Like all
# here they begin with a class of characters, which `re` finds fast, and then look back for what must not precede it.
SSN = re.compile(r"\d(?<![\w.+/-].)(?<!\d[ -].)(?!66)\d\d([ -])(?!00)\d\d\1(?!0000)\d{4}(?![\w-]|[.,]\d)")
CPF = re.compile(r"\d(?<![\w.+/-].)\d\d\.\d{3}\.\d{3}-\d\d(?![\w-])")
CODICE_FISCALE = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z]{5}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z](?![A-Za-z0-9])")
DNI = re.compile(r"\d(?<![A-Za-z0-9.-].)\d{7}-?[TRWAGMYFPDXBNJZSQVHLCKE](?![A-Za-z0-9-])")
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"

_PLATE_WORDS = hint_words(
    "plate plates kennzeichen autokennzeichen matrícula matricula matricule placa targa plaque immatriculation"
    " registration"
)
_PLATE_PARTS = tuple(word.encode() for word in ("车牌", "車牌"))
PLATE = re.compile(
    r"(?<![^\W\d_])(?i:(?:licen[cs]e |number |registration )?plates?|(?:kfz-|auto)?kennzeichen|matr[ií]cula"
    r"|matricule|placa|targa|plaque"
    r"(?: d'immatriculation)?|immatriculation|(?:car |vehicle )registration|车牌号?码?|車牌)"
    r"(?i:\s?(?:number|no\.?|nummer))?"
    r"(?i:(?: (?:do|del|de la|of the|of my|des|meines?|di|della|dell') ?[^\W\d_]{2,10})?)"
    r"\s{0,2}(?i:[:：=]|(?:is|was|reads|ist|lautet|es|est|é|è)(?![^\W\d_]):?|是)?\s{0,2}[\"'“]?"
    r"((?=[^\n,;.]{0,9}\d)(?=[^\n,;.]{0,9}[A-ZÄÖÜА-Я\u4e00-\u9fff])[A-ZÄÖÜ0-9А-Я\u4e00-\u9fff]{1,8}(?:["
    r" ·-][A-ZÄÖÜ0-9А-Я]{1,5}){0,3})(?![\w-])"
)
# five places are a metre; maps of cities have three or four
COORDINATES = re.compile(
    r"[-+\d](?<![\w.].)\d{0,2}\.\d{5,}°?\s?[NS]?\s?[,;/ ]\s?[-+]?\d{1,3}\.\d{5,}°?(?:\s?[EWO](?![A-Za-z]))?(?![\w"
    r"]|\.\d)"
)


def documents(view: str, window: Span) -> Iterator[Span]:
    for match in SSN.finditer(view, *window):
        if not match[0].startswith(("000", "9")) and not names_something_else(view, *match.span()):
            yield match.span()
    for match in CPF.finditer(view, *window):
        if _is_cpf(re.sub(r"\D", "", match[0])):
            yield match.span()
    for match in DNI.finditer(view, *window):
        if _DNI_LETTERS[int(match[0][:8]) % 23] == match[0][-1]:
            yield match.span()
    yield from (match.span() for match in CODICE_FISCALE.finditer(view, *window))


def _is_cpf(digits: str) -> bool:
    """Both check digits of a Brazilian CPF."""
    sums = (
        sum(int(digit) * weight for digit, weight in zip(digits, range(size, 1, -1), strict=False)) for size in (10, 11)
    )
    return [total * 10 % 11 % 10 for total in sums] == [int(digit) for digit in digits[9:]]


def may_hold_document(triggers: Triggers) -> bool:
    return bool(triggers.words() & _DOCUMENT_WORDS) or (triggers.scripts and triggers.any_of(_DOCUMENT_PARTS))


def named_documents(view: str, window: Span) -> Iterator[Span]:
    """Document numbers after a word for them."""
    low = lowered(view)
    for place in (place for word in _DOCUMENT_STARTS for place in places(low, word)):
        match = DOCUMENT.match(view, place)
        if match and sum(map(str.isdigit, match[1])) >= 5 and len(match[1]) >= 7:
            yield match.span(1)


def may_hold_plate(triggers: Triggers) -> bool:
    return bool(triggers.words() & _PLATE_WORDS) or (triggers.scripts and triggers.any_of(_PLATE_PARTS))


def plates(view: str, window: Span) -> Iterator[Span]:
    """Registration plates in capitals after a word for them."""
    yield from (match.span(1) for match in PLATE.finditer(view, *window))


def coordinates(view: str, window: Span) -> Iterator[Span]:
    yield from (match.span() for match in COORDINATES.finditer(view, *window))
