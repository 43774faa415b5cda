"""What the address of a client tells."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def is_loopback(host: str) -> bool:
    """Tell whether it is this machine speaking to itself; what is no IP address is not."""
    address = _address(host)
    return address is not None and address.is_loopback


def block(host: str) -> str:
    """Return the addresses that one client can choose among: in IPv6, a whole /64 (RFC 6177)."""
    address = _address(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return host if address is None else str(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A socket for both families shows IPv4 clients in IPv6's clothes (RFC 4291 §2.5.5.2).
    return getattr(address, "ipv4_mapped", None) or address
