"""Which network addresses images may come from: every spelling of an address is read before it is judged.

Sources: WHATWG URL, "IPv4 parser" (numbers, octal and hexadecimal parts); RFC 4291 (mapped and compatible
IPv6), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from maskloop.errors import ImageError

__all__ = ["check_public", "host_addresses", "is_public", "literal_address"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

IDEOGRAPHIC_STOP = "\u3002"  # IDNA takes it for a dot
MAX_ADDRESSES = 8  # of one host
CARRIERS = {  # IPv6 networks whose addresses carry an IPv4 address -> the bits below it
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("::/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("64:ff9b:1::/48"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NEVER_PUBLIC = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's internal services, though not in a private network
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("fec0::/10"),
    ipaddress.ip_network("5f00::/16"),
    ipaddress.ip_network("3fff::/20"),
)


def literal_address(host: str) -> Address | None:
    """Return the address that a host is a spelling of, or None where it is a name.

    Args:
        host: of a URL, IPv6 without brackets. 2130706433, 0x7f.1, 0177.0.0.1 and 127.1 all spell 127.0.0.1.

    Raises:
        ImageError: it ends in a number and is no address, or has a zone.
    """
    text = unicodedata.normalize("NFKC", host).replace(IDEOGRAPHIC_STOP, ".").removesuffix(".")
    if ":" in text:
        try:
            address = ipaddress.IPv6Address(text)
        except ValueError as exc:
            raise _refused(host, "an IPv6 address", "another text", "correct the task") from exc
        if address.scope_id is not None:
            raise _refused(host, "an address without a zone", "one with a zone", "correct the task")
        return address
    parts = text.split(".")
    if not parts[-1] or not _is_number(parts[-1]):
        return None
    value = _ipv4_value(parts)
    if value is None:
        raise _refused(host, "an IPv4 address or a name", "a number of another form", "correct the task")
    return ipaddress.IPv4Address(value)


def host_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, at most 8, the preferred one first; waits as long as the resolver does.

    Raises:
        ImageError: there is no such host, or it is a number that is no address.
        OSError: the resolver cannot be reached now.
    """
    literal = literal_address(host)
    if literal is not None:
        return [str(literal)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if exc.errno == socket.EAI_AGAIN:
            raise
        raise _refused(
            host, "a host that is known here", "an unknown host", "correct the address in the task"
        ) from exc
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return list(addresses)[:MAX_ADDRESSES]


def check_public(host: str, addresses: Sequence[str]) -> None:
    """Raise ImageError unless all addresses of a host are public."""
    for address in addresses:
        if not is_public(address):
            raise _refused(
                host,
                "Label Studio itself or a public address",
                address,
                "serve the image through Label Studio, spell the host as in LABEL_STUDIO_URL, or set "
                "MASKLOOP_ALLOW_PRIVATE_IMAGES=true",
            )


def is_public(address: str) -> bool:
    """Return whether an address, and any IPv4 address that it carries, belongs to the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if "%" in address:
        return False
    inner = list(_carried(parsed))
    if inner and not (isinstance(parsed, ipaddress.IPv6Address) and (parsed in NAT64 or parsed.ipv4_mapped)):
        return False  # tunnels: no image host of today is reached by one
    return all(_is_global(address) for address in inner) if inner else _is_global(parsed)


def _is_global(address: Address) -> bool:
    if any(address.version == network.version and address in network for network in NEVER_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: Address) -> Iterator[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return
    value = int(address)
    for network, shift in CARRIERS.items():
        if address in network:
            yield ipaddress.IPv4Address(value >> shift & 0xFFFFFFFF)
    if address.teredo is not None:
        yield from address.teredo
    if (value >> 32 & 0xFFFFFFFF) in (0x00005EFE, 0x02005EFE):
        yield ipaddress.IPv4Address(value & 0xFFFFFFFF)


def _is_number(part: str) -> bool:
    return part.isdecimal() or (
        part[:2].lower() == "0x" and all(c in "0123456789abcdefABCDEF" for c in part[2:])
    )


def _ipv4_value(parts: Sequence[str]) -> int | None:
    numbers = [_number(part) for part in parts]
    known = [number for number in numbers if number is not None]
    if len(known) != len(parts) or len(parts) > 4 or any(number > 255 for number in known[:-1]):
        return None
    if known[-1] >= 256 ** (5 - len(known)):
        return None
    return sum(number << (8 * (3 - place)) for place, number in enumerate(known[:-1])) + known[-1]


def _number(part: str) -> int | None:
    base = 16 if part[:2].lower() == "0x" else 8 if part[:1] == "0" and len(part) > 1 else 10
    digits = part[2:] if base == 16 else part
    try:
        return int(digits or "0", base) if part and len(part) < 20 and "_" not in part else None
    except ValueError:
        return None


def _refused(host: str, expected: str, got: str, remedy: str) -> ImageError:
    return ImageError(f"image host {host[:120]!r}", expected=expected, got=got, remedy=remedy)
