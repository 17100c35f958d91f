"""Addresses of machines: IPv4 and IPv6 of the internet, and the addresses that network cards are made with (MAC)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from moltlm.data.conversations.redact.context import names_something_else
from moltlm.data.conversations.redact.spans import Span
from moltlm.data.conversations.redact.triggers import Triggers

IPV4 = re.compile(r"\d(?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
# all addresses of the internet begin with 2 or 3: neither times nor C++ have four such digits before a colon
IPV6 = re.compile(
    r"[23](?<![\w:.-].)[0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}"
    r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4})(?!\w|:[0-9a-fA-F:]|\.\d)"
)
INTERNET = ipaddress.ip_network("2000::/3")
# six pairs: more are a fingerprint
MAC = re.compile(
    r"[0-9a-fA-F](?<![\w:.-].)[0-9a-fA-F]([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2}){4}(?!\w|[:-][0-9a-fA-F]|\.\d)"
)
COLONS = re.compile(rb":[0-9a-f]{0,4}:")
_VERSION = re.compile(
    r"(?:version|versión|versão|versione|ver\.?|release|build|firmware|driver|update|chrome|v|==|>=|<=|~=|=)\s?$", re.I
)
_RESERVED = tuple(
    map(
        ipaddress.ip_network,
        ["0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"],
    )
)


def may_hold_address_of_machine(triggers: Triggers) -> bool:
    """Whether a text may have an IPv6 or a MAC address; IPv4 is a long number."""
    return triggers.token or (b":" in triggers.lower and COLONS.search(triggers.lower) is not None)


def ipv4(view: str, window: Span) -> Iterator[Span]:
    """IPv4 addresses of the internet: neither those of a local network nor version numbers."""
    for match in IPV4.finditer(view, *window):
        if _is_public_ipv4(match[0]) and not _VERSION.search(view, max(match.start() - 12, 0), match.start()):
            yield match.span()


def _is_public_ipv4(address: str) -> bool:
    numbers = [int(part) for part in address.split(".")]
    # version numbers are small, and almost no address has four small numbers
    if not 32 <= max(numbers) <= 255 or any(len(part) > 1 and part[0] == "0" for part in address.split(".")):
        return False
    return not any(ipaddress.ip_address(address) in network for network in _RESERVED)


def ipv6(view: str, window: Span) -> Iterator[Span]:
    """IPv6 addresses of the internet: neither those of a local network nor those for examples."""
    for match in IPV6.finditer(view, *window):
        address = re.sub(r"(?<!:):$", "", match[0])  # a colon of the sentence
        if _is_public_ipv6(address):
            yield match.start(), match.start() + len(address)


def _is_public_ipv6(text: str) -> bool:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return address in INTERNET and address.is_global


def macs(view: str, window: Span) -> Iterator[Span]:
    """Addresses of single network cards. Without a letter they may be times, and one of a group is no machine's."""
    for match in MAC.finditer(view, *window):
        is_single = int(match[0][:2], 16) % 2 == 0
        has_letter = not match[0].replace(match[1], "").isdigit()
        if is_single and has_letter and not names_something_else(view, *match.span()):
            yield match.span()
