"""Whom callers are counted as, before anybody knows who they are."""

from ipaddress import IPv4Address, ip_address, ip_network
from urllib.parse import unquote

LINE_BITS = 64
"""Of an IPv6 network that one line gets: the addresses within are its user's to change at will."""
SITE_BITS = 48
"""Of one that a customer may have, and so 65 536 lines of their own."""


def network_of(host: str, ipv6_bits: int = LINE_BITS) -> str:
    """An IPv4 address as it is, of an IPv6 address its network; empty for what is no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, IPv4Address):
        return str(address)
    # Whatever follows a % is this machine's name for one of its interfaces, and not in the octets.
    return str(address.ipv4_mapped or ip_network((address.packed, ipv6_bits), strict=False))


def network_of_peer(peer: str) -> str:
    """The same of what gRPC calls a peer, such as ``ipv4:127.0.0.1:50051`` or ``ipv6:%5B::1%5D:50051``."""
    scheme, _, rest = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return scheme
    return network_of(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
