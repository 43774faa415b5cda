"""From a host name to an open channel: the stages dns, proxy, tcp, tls and client_auth."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.credentials import Secret
from agent.org import Endpoint, Proxy, Timeouts, authority
from agent.probe import proxy, tcp
from agent.probe.dns import Resolver
from agent.probe.stopwatch import Stopwatch
from agent.probe.tcp import Address, Connection
from agent.probe.tls import Channel
from agent.reason import Reason
from agent.result import Failure, HandshakeOutcome, Stage

# How many round trips the verdict may need: one for our flight, one for the answer, one to spare.
_ROUND_TRIPS: Final = 3

_ON_THE_WAY_TO_THE_PROXY: Final[Mapping[Reason, Reason]] = {
    Reason.DNS_NOT_FOUND: Reason.PROXY_DNS,
    Reason.DNS_ERROR: Reason.PROXY_DNS,
    Reason.DNS_TIMEOUT: Reason.PROXY_DNS,
    Reason.TCP_TIMEOUT: Reason.PROXY_TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to a door: all that the stages before HTTP need to know."""

    endpoint: Endpoint
    timeouts: Timeouts
    proxy_password: Secret | None = None
    address: Address | None = None  # go to this one, without asking for the name again


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel whose TLS layer has not refused us."""

    channel: Channel
    handshake: HandshakeOutcome
    address: Address


@dataclass(frozen=True, slots=True)
class NotOpened:
    """Why there is no channel, with what the handshake showed if it got that far."""

    failure: Failure
    handshake: HandshakeOutcome | None = None
    address: Address | None = None


async def open_channel(
    way: Way, context: ssl.SSLContext, resolver: Resolver, watch: Stopwatch
) -> Opened | NotOpened:
    """Open a channel that presents what `context` holds; the caller closes it."""
    connection = await _reach(way, resolver, watch)
    if isinstance(connection, Failure):
        return NotOpened(connection)
    try:
        channel = Channel(connection, context, way.endpoint.verified_name)
        handshake = await _shake_hands(channel, way.timeouts, watch, connection.round_trip)
    except BaseException:
        connection.close()
        raise
    if handshake.failure is not None:
        channel.close()
        return NotOpened(handshake.failure, handshake, connection.address)
    return Opened(channel, handshake, connection.address)


async def _shake_hands(
    channel: Channel, timeouts: Timeouts, watch: Stopwatch, round_trip: float
) -> HandshakeOutcome:
    limit = watch.seconds(timeouts.tls)
    with watch.stage(Stage.TLS):
        try:
            async with asyncio.timeout(limit):
                failed = await channel.establish()
        except TimeoutError:
            return channel.abandon(Failure(Reason.TLS_TIMEOUT, f"no end in {limit:.1f} s"))
    if failed is not None:
        return failed
    patience = watch.seconds(max(timeouts.client_auth, _ROUND_TRIPS * round_trip))
    with watch.stage(Stage.CLIENT_AUTH):
        return await channel.verdict(patience)


async def _reach(way: Way, resolver: Resolver, watch: Stopwatch) -> Connection | Failure:
    endpoint, timeouts = way.endpoint, way.timeouts
    host, port = endpoint.connect_to or (endpoint.host, endpoint.port)
    if endpoint.proxy is not None:
        with watch.stage(Stage.PROXY):
            return await _through_proxy(endpoint.proxy, (host, port), way, resolver, watch)
    if way.address is not None:
        addresses: tuple[Address, ...] | Failure = (way.address,)
    else:
        with watch.stage(Stage.DNS):
            addresses = await resolver.resolve(
                host, port, endpoint.ip_family, watch.seconds(timeouts.dns)
            )
    if isinstance(addresses, Failure):
        return addresses
    with watch.stage(Stage.TCP):
        return await tcp.connect(addresses, watch.seconds(timeouts.tcp))


async def _through_proxy(
    via: Proxy, target: tuple[str, int], way: Way, resolver: Resolver, watch: Stopwatch
) -> Connection | Failure:
    limit = watch.seconds(way.timeouts.proxy)
    connection: Connection | Failure | None = None
    try:
        async with asyncio.timeout(limit):
            connection = await _reach_proxy(via, way, resolver, limit)
            if isinstance(connection, Failure):
                return connection
            refused = await _connect_through(connection, via, target, way.proxy_password)
    except BaseException as error:
        if isinstance(connection, Connection):
            connection.close()
        if isinstance(error, TimeoutError):
            return Failure(Reason.PROXY_TIMEOUT, f"no tunnel in {limit:.1f} s")
        raise
    if refused is not None:
        connection.close()
        return refused
    return connection


async def _reach_proxy(
    via: Proxy, way: Way, resolver: Resolver, limit: float
) -> Connection | Failure:
    found = await resolver.resolve(via.host, via.port, way.endpoint.ip_family, limit)
    reached = found if isinstance(found, Failure) else await tcp.connect(found, limit)
    if isinstance(reached, Connection):
        return reached
    reason = _ON_THE_WAY_TO_THE_PROXY.get(reached.reason, Reason.PROXY_REFUSED)
    return replace(reached, reason=reason)


async def _connect_through(
    connection: Connection, via: Proxy, target: tuple[str, int], password: Secret | None
) -> Failure | None:
    # The target's name goes to the proxy as it is: only the proxy may be able to resolve it.
    credentials = None
    if via.username is not None and password is not None:
        credentials = (via.username, password)
    clock = asyncio.get_running_loop().time
    began = clock()
    refused = await proxy.open_tunnel(connection, authority(*target), credentials)
    # The way behind the proxy counts too: CONNECT has just gone all of it.
    connection.round_trip = clock() - began
    return refused
