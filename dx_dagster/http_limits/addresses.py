"""Addresses of clients, as they are counted."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_IPV6_NETWORK_BITS = 64  # a client is usually assigned a whole /64 network, of which it can use every address


def parsed(host: str) -> IPv4Address | IPv6Address | None:
    """The address; an IPv4 address where IPv6 only carries one. None where `host` is not an address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def counted_as(host: str) -> str:
    """What a client's address counts as: for IPv6 its /64 network."""
    if ":" not in host:
        return host
    address = parsed(host)
    if not isinstance(address, IPv6Address):
        return str(address or host)
    return str(ip_network((address, _IPV6_NETWORK_BITS), strict=False))
