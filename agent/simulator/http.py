"""The server's side of HTTP/1.1 over a channel, with h11; knows nothing of SOAP or TLS.

Requests are read to their end before they are answered: an answer to half a request can be
destroyed by the RST that the rest of it provokes.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import h11

from agent.simulator.channel import Channel

_LARGEST_REQUEST: Final = 1 << 20
_DRIP: Final = 8


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete. Header names are lower-case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer; its length or transfer coding is added when it is sent."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml; charset=UTF-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class NotHttp:
    """Bytes that are sent in the place of an HTTP answer."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an answer travels. Seconds; `pause` is waited after every few bytes of the body."""

    delay: float = 0.0
    gzip: bool = False
    chunked: bool = False
    close: bool = False
    pause: float = 0.0
    cut_after: int | None = None


Answer = tuple[Response | NotHttp, Delivery]
Handler = Callable[[Request], Awaitable[Answer]]


async def serve(channel: Channel, handler: Handler) -> None:
    """Answer requests until the peer or an answer ends the connection; raises OSError if lost."""
    connection = h11.Connection(h11.SERVER)
    while True:
        try:
            request = await _receive(connection, channel)
        except h11.RemoteProtocolError as error:
            await _refuse(connection, channel, error.error_status_hint)
            return
        if request is None:
            return
        answer, delivery = await handler(request)
        if delivery.delay:
            await asyncio.sleep(delivery.delay)
        if isinstance(answer, NotHttp):
            await channel.write(answer.content)
            return
        if not await _send(connection, channel, answer, delivery):
            return
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _receive(connection: h11.Connection, channel: Channel) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await channel.write(connection.send(go_on))
                connection.receive_data(await channel.read())
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
                if len(body) > _LARGEST_REQUEST:
                    raise h11.RemoteProtocolError("too large", error_status_hint=413)
            case h11.EndOfMessage() if head is not None:
                return Request(
                    method=head.method.decode(),
                    target=head.target.decode(),
                    headers=tuple((name.decode(), value.decode()) for name, value in head.headers),
                    body=bytes(body),
                )
            case _:
                return None


async def _send(
    connection: h11.Connection, channel: Channel, response: Response, delivery: Delivery
) -> bool:
    body = gzip.compress(response.body, mtime=0) if delivery.gzip else response.body
    headers = [*response.headers]
    if response.content_type:
        headers.append(("Content-Type", response.content_type))
    if delivery.gzip:
        headers.append(("Content-Encoding", "gzip"))
    if delivery.close:
        headers.append(("Connection", "close"))
    if delivery.chunked:
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Content-Length", str(len(body))))
    head = connection.send(h11.Response(status_code=response.status, headers=headers))
    if delivery.cut_after is not None:
        await channel.write(head + connection.send(h11.Data(data=body[: delivery.cut_after])))
        return False
    if delivery.pause:
        await channel.write(head)
        for start in range(0, len(body), _DRIP):
            piece = h11.Data(data=body[start : start + _DRIP])
            await channel.write(connection.send(piece))
            await asyncio.sleep(delivery.pause)
        await channel.write(connection.send(h11.EndOfMessage()))
        return True
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]] if delivery.chunked else [body]
    data = b"".join(connection.send(h11.Data(data=piece)) for piece in pieces if piece)
    # One write: with two, the second waits for the peer's delayed acknowledgement.
    await channel.write(head + data + connection.send(h11.EndOfMessage()))
    return True


async def _refuse(connection: h11.Connection, channel: Channel, status: int) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [("Connection", "close"), ("Content-Length", "0")]
    with suppress(OSError):
        data = connection.send(h11.Response(status_code=status, headers=headers))
        await channel.write(data + connection.send(h11.EndOfMessage()))
