"""Finder of IP addresses. Dotted quads are version numbers more often than addresses; rules separate the two."""

import ipaddress
import re
from collections.abc import Iterator

from groundup.text.pii import Finder, Range, context_around

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?<![=<>~!]=)(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\d|[.-][A-Za-z])", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{2,38}(?!\w)", re.ASCII)
_LIKE_IPV6 = re.compile(r"(?=.*:.*:.*:)(?=.*\w{3})|(?=\w*\d)\w{4}::\w{1,4}$")
"""Groups of two digits are a time or a fingerprint; `abc::def` is a C++ name."""
_MAC = re.compile(
    r"(?<![\w:.-])(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}"
    r"|(?=[0-9.]*[A-Fa-f])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w:-])",
    re.ASCII,
)
"""Hardware addresses: 00:1a:2b:3c:4d:5e, 00-1A-2B-3C-4D-5E, 001a.2b3c.4d5e."""
_SMALL = 20
"""Three of four octets below this: once in 500 random addresses, nearly always in version numbers."""
_VERSION = re.compile(
    r"(?:versions?|ver|releases?|rel|revisions?|rev|builds?|sections?|sect?|chapters?|clauses?|articles?|rules?|items?|"
    r"figures?|fig|tables?|firmware|drivers?|updates?|patch|oid|§|\bv)[^\w§]{0,3}$",
    re.IGNORECASE,
)
_PRODUCT = re.compile(r"[A-Za-z_][-/]$")
"""Text before a version number: `Chrome/2.0.172.33`, `lib-1.2.30.44`."""
_USUAL = ("10.", "172.", "192.", "8.8.")
"""Prefixes of the most common addresses."""
_NETWORK = re.compile(
    r"(?:\b|_)(?:ips?|ipv4|inet|host(?:name)?|server|dns|addr(?:ess)?|gateway|ping|subnet|proxy|client|remote)"
    r"(?:\b|_)|://$",
    re.IGNORECASE,
)


def ips(reserved: bool) -> tuple[Finder, ...]:
    """Finders of public IP addresses; with `reserved`, of local networks and documentation ranges too."""

    def find_v4(text: str) -> Iterator[Range]:
        for match in _IPV4.finditer(text):
            address = ipaddress.IPv4Address(".".join(str(int(octet)) for octet in match[0].split(".")))
            if _is_host_address(address, reserved) and not _is_version(text, match):
                yield match.span()

    def find_v6(text: str) -> Iterator[Range]:
        for match in _IPV6.finditer(text):
            address_text = match[0] if match[0].endswith("::") else match[0].rstrip(":")
            try:
                address = ipaddress.IPv6Address(address_text)
            except ValueError:
                continue
            if _LIKE_IPV6.match(address_text) and (reserved or address.is_global):
                yield match.start(), match.start() + len(address_text)

    def find_mac(text: str) -> Iterator[Range]:
        for match in _MAC.finditer(text):
            octets = re.findall(r"[0-9A-Fa-f]{2}", match[0])
            if len(set(octets)) > 2 or reserved:
                yield match.span()

    quad = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
    groups = r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:|[0-9A-Fa-f]{4}::[0-9A-Fa-f]"
    macs = r"[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"
    return Finder("ip", (quad,), find_v4), Finder("ip", (groups,), find_v6), Finder("ip", (macs,), find_mac)


def _is_host_address(address: ipaddress.IPv4Address, reserved: bool) -> bool:
    """Whether it is a host's address: not loopback, broadcast or a netmask."""
    first, *_, last = address.packed
    if first == 0 or first == 255 or (first == 127 and last == 1):
        return False
    return reserved or (address.is_global and not address.is_multicast)


def _is_version(text: str, match: re.Match[str]) -> bool:
    """Whether the quad is a version: `version` precedes it, or its numbers are small and no network word is near."""
    before, after = context_around(text, *match.span())
    if _VERSION.search(before):
        return True
    if _NETWORK.search(before) or re.match(r":\d{2}|/\d", after) or match[0].startswith(_USUAL):
        return False
    octets = [int(octet) for octet in match[0].split(".")]
    return sum(octet < _SMALL for octet in octets) >= 3 or bool(_PRODUCT.search(before))
