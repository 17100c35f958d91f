"""Words that say that a number is something public: an order, a part, a version, a book."""

from __future__ import annotations

import re

from moltlm.data.conversations.redact.spans import line_after, line_before

_THINGS = (
    r"order|part|serial|s/n|tracking|shipment|parcel|invoice|isbn|issn|ismn|ean|upc|gtin|sku|asin|doi|pmid|arxiv|nct\d*"
    r"|patent|model|build|version|ver|rev|revision|release|commit|hash|sha\d*|md5|checksum|uuid|guid|ticket|case|issue"
    r"|ref|reference|coordinates?|lat|lon|latitude|longitude|gps|port|pid|room|page|item|product|catalog(?:ue)?|barcode"
    r"|batch|lot|score|recipe|timestamp|epoch|unix|time|flight|train|population|seed|id|row|line|record|article"
    r"|paragraph"
    r"|bestell\w*|artikel\w*|rechnung\w*|kunden\w*|auftrag\w*|serien\w*|sendung\w*|vorgang\w*|aktenzeichen|teile\w*"
    r"|pedido|encomenda|factura|fatura|referencia|referência|artículo|artigo|commande|facture|référence|colis"
    r"|série|serie"
    r"|ordine|fattura|spedizione|articolo|seriale|riferimento|modello|modelo|modèle|modell|versión|versão|versione"
    r"|bestelling|bestelnummer|zamówieni\w*|faktur\w*|заказ\w*|накладн\w*|номер заказа"
)
_BEFORE = re.compile(
    rf"(?<![^\W\d_])(?:{_THINGS})(?![^\W_])[^.;!?\n]{{0,16}}$|(?:订单|訂單|货号|型号|注文|品番|주문|송장)\S{{0,6}}$",
    re.I,
)
_BEFORE_DOT = re.compile(
    rf"(?:usd|eur|gbp|jpy|chf|brl|[€$£¥])\s?$|(?<![^\W\d_])(?:{_THINGS})(?:\s?(?:no|nr|num"
    rf"|n)\.|\.)\s?[:#]?\s?$",
    re.I,
)
_AFTER = re.compile(
    rf"\s?(?:\W\s?)?(?:is|was|are|ist|es|est|é|è)\s(?:an?|the|our|my|your|eine?|die|una?|le|la"
    rf"|une?)\s(?:\w+\s)?(?:{_THINGS})"
    r"(?![^\W_])|\s?(?:people|users|rows|items|units|pieces|sheep|bytes|hz|mhz|rpm|km|ms|eur|usd|€|\$)(?![^\W_])",
    re.I,
)


def names_something_else(view: str, start: int, end: int) -> bool:
    """Whether the words around a number say that it is no phone number and no card."""
    before = line_before(view, start, 34)
    return bool(_BEFORE.search(before) or _BEFORE_DOT.search(before) or _AFTER.match(line_after(view, end, 44)))
