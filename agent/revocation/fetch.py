"""One small HTTP conversation: a document behind a plain http URL, or why there is none.

The URLs come out of certificates, so they are as trustworthy as whoever made the certificate.
Only http is spoken: a list is signed, and fetching it over TLS would need another certificate to be
checked first (RFC 5280 §8). Redirects are not followed: authorities publish at the very place that
they wrote into their certificates, and a redirect would let anybody on the way choose where we
connect to. Nothing is taken from the environment, and an org's proxy is not used either: it is
there to CONNECT to the door, and what is asked here is shared by all orgs. Where this machine may
not reach an authority, that is what the answer says.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

from agent.org import IpFamily
from agent.probe.dns import Resolver
from agent.probe.tcp import Connection, connect
from agent.result import Failure

_PRINTABLE: Final = re.compile(r"[!-~]+")
_MAX_URL: Final = 2048
_SHOWN: Final = 200
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why there is no document."""

    detail: str


_INCOMPLETE: Final = Unanswered("gave no complete HTTP answer")


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart."""

    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"  # noqa: PLR2004 - http's own


def place(url: str) -> Place | Unanswered:
    """Take an http URL apart, or say why it is not asked."""
    if len(url) > _MAX_URL or not _PRINTABLE.fullmatch(url):
        return Unanswered("is no usable URL")
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        return Unanswered("is no usable URL")
    if parts.scheme != "http":
        return Unanswered(f"is not asked: {parts.scheme or 'no scheme'}, not http")
    if not parts.hostname or "@" in parts.netloc:
        return Unanswered("is no usable URL")
    query = f"?{parts.query}" if parts.query else ""
    return Place(parts.hostname, port, (parts.path or "/") + query)


def routable(address: IpAddress) -> bool:
    """Tell whether an authority may live there: not on this machine, nor beside it unrouted.

    A certificate could else make us ask services that trust whoever is on the machine, such as the
    metadata service of a cloud. Private networks are allowed: private authorities live there.
    """
    meant = getattr(address, "ipv4_mapped", None) or address
    return not (
        meant.is_loopback or meant.is_link_local or meant.is_multicast or meant.is_unspecified
    )


async def fetch(
    url: str,
    limit: int,
    resolver: Resolver,
    seconds: float,
    permitted: Callable[[IpAddress], bool] = routable,
) -> bytes | Unanswered:
    """GET the document, whole and of at most `limit` bytes, or say why there is none."""
    where = place(url)
    if isinstance(where, Unanswered):
        return where
    try:
        async with asyncio.timeout(seconds):
            return await _ask(where, limit, resolver, seconds, permitted)
    except TimeoutError:
        return Unanswered(f"gave no whole answer in {seconds:g} s")


async def _ask(
    where: Place,
    limit: int,
    resolver: Resolver,
    seconds: float,
    permitted: Callable[[IpAddress], bool],
) -> bytes | Unanswered:
    addresses = await resolver.resolve(where.host, where.port, IpFamily.ANY, seconds)
    if isinstance(addresses, Failure):
        return Unanswered(f"could not be reached ({addresses.detail})")
    # The address that was looked at is the one that is dialled: no second look-up can change it.
    allowed = [a for a in addresses if permitted(ipaddress.ip_address(a[1][0]))]
    if not allowed:
        return Unanswered("is not asked: its address is on this machine or beside it")
    connection = await connect(allowed, seconds)
    if isinstance(connection, Failure):
        return Unanswered(f"could not be reached ({connection.detail})")
    try:
        return await _converse(connection, where, limit)
    except h11.ProtocolError:
        # The library's text quotes what came; there is no need to repeat it.
        return _INCOMPLETE
    finally:
        connection.close()


async def _converse(connection: Connection, where: Place, limit: int) -> bytes | Unanswered:
    protocol = h11.Connection(h11.CLIENT)
    if failure := await connection.send(_request(protocol, where)):
        return Unanswered(f"was lost ({failure.detail})")
    body = bytearray()
    while True:
        match await _next_event(connection, protocol):
            case Unanswered() as problem:
                return problem
            case h11.Response() as response:
                if unusable := _unusable(response, limit):
                    return unusable
            case h11.Data(data=data):
                body += data
                if len(body) > limit:
                    return _too_large(limit)
            case h11.EndOfMessage():
                return bytes(body)
            case h11.InformationalResponse():
                continue  # 100 Continue and its kin (RFC 9110 §15.2)
            case _:
                return _INCOMPLETE


async def _next_event(connection: Connection, protocol: h11.Connection) -> h11.Event | Unanswered:
    while not isinstance(event := protocol.next_event(), h11.Event):
        arrived = await connection.receive()
        if isinstance(arrived, Failure):
            return Unanswered(f"was lost ({arrived.detail})")
        protocol.receive_data(arrived)
    # A thousand tiny chunks may have arrived together: let others have a turn after each.
    await asyncio.sleep(0)
    return event


def _request(protocol: h11.Connection, where: Place) -> bytes:
    headers = [
        ("Host", where.authority),
        ("User-Agent", "sfmtls-agent"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    head = protocol.send(h11.Request(method="GET", target=where.target, headers=headers))
    return (head or b"") + (protocol.send(h11.EndOfMessage()) or b"")


def _unusable(response: h11.Response, limit: int) -> Unanswered | None:
    headers = {name: value.decode("latin-1") for name, value in response.headers}
    if response.status_code in _REDIRECTS:
        to = headers.get(b"location", "nowhere")[:_SHOWN]
        return Unanswered(f"answered with a redirect to {to!r}, which is not followed")
    if response.status_code != _OK:
        return Unanswered(f"answered {response.status_code}")
    if headers.get(b"content-encoding", "identity").lower() != "identity":
        return Unanswered("answered with a Content-Encoding that nobody asked for")
    if int(headers.get(b"content-length", "0")) > limit:
        return _too_large(limit)
    return None


def _too_large(limit: int) -> Unanswered:
    return Unanswered(f"answered with more than {limit} bytes")
