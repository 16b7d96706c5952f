"""Whom callers are counted as, before anybody knows who they are."""

from ipaddress import IPv4Address, ip_address, ip_network
from urllib.parse import unquote

_IPV6_PREFIX_BITS = 64
"""What one subscriber gets: the addresses within are theirs to change at will."""


def network_of(host: str) -> str:
    """An IPv4 address as it is, of an IPv6 address its /64; anything else as it is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address.packed, _IPV6_PREFIX_BITS), strict=False))


def network_of_peer(peer: str) -> str:
    """The same of what gRPC calls a peer, such as ``ipv4:127.0.0.1:50051`` or ``ipv6:%5B::1%5D:50051``."""
    scheme, _, rest = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return scheme
    return network_of(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
