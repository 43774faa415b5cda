"""HTTP over the channel that the TLS stage opened; the only module that knows httpx.

httpx writes its request before it reads, through a pool of its own, and so loses the TLS 1.3 alert
that says why a client was refused. Here the stream is ours and an httpx transport of a few lines,
on h11, carries requests over it: no pool, no redirects, nothing from the environment.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final

import h11
import httpx

from agent.login.flow import Request, Response
from agent.login.soap import MAX_ANSWER_BYTES
from agent.probe.tls import Channel
from agent.reason import Reason
from agent.result import Failure


class _BrokenError(Exception):
    """Carries a Failure out of httpx; never leaves this module."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


# No "python-httpx/…": the far side's logs should say who called.
_HEADERS: Final = (
    ("User-Agent", "sfmtls-agent"),
    ("Accept", "text/xml, */*;q=0.1"),
    ("Accept-Encoding", "identity"),
    ("Connection", "keep-alive"),
)
_TOO_LARGE: Final = Failure(Reason.RESPONSE_TOO_LARGE, f"more than {MAX_ANSWER_BYTES} bytes")


class HttpClient:
    """Sends requests one after another over one channel; the answers come back as values."""

    def __init__(self, channel: Channel, authority: str) -> None:
        self._transport = _ChannelTransport(channel)
        self._base = f"https://{authority}"

    @property
    def reusable(self) -> bool:
        """The connection can carry another request."""
        return self._transport.reusable

    async def post(self, request: Request) -> Response | Failure:
        """Send one request and return the whole answer, decoded, or why there is none."""
        built = httpx.Request(
            "POST",
            _url(self._base + request.path),
            headers=[*_HEADERS, *request.headers],
            content=request.body,
        )
        try:
            # Without a client: it reads Location= even if it does not follow, and raises; and to
            # make one for each connection costs as much as to send the request.
            response = await self._transport.handle_async_request(built)
            return Response(
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await _read(response),
            )
        except _BrokenError as broken:
            return broken.failure


# As dear as the request itself, and every org asks for the same one all the time.
@lru_cache(maxsize=16 * 1024)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


async def _read(response: httpx.Response) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise _BrokenError(_TOO_LARGE)
        pieces.append(piece)
    return _decoded(b"".join(pieces), response.headers.get("content-encoding", "identity"))


def _decoded(body: bytes, coding: str) -> bytes:
    """Undo the one coding that servers apply unasked; httpx would undo any number, to any size."""
    match coding.strip().lower():
        case "identity" | "":
            return body
        case "gzip" | "x-gzip":
            inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                content = inflater.decompress(body, MAX_ANSWER_BYTES + 1)
            except zlib.error:
                raise _BrokenError(Failure(Reason.HTTP_MALFORMED, "not gzip as it says")) from None
            if len(content) > MAX_ANSWER_BYTES:
                raise _BrokenError(_TOO_LARGE)
            return content
        case _:
            raise _BrokenError(
                Failure(Reason.HTTP_MALFORMED, "a Content-Encoding that nobody asked for")
            )


class _ChannelTransport(httpx.AsyncBaseTransport):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._protocol = h11.Connection(h11.CLIENT)
        self._closed = False
        self._answering = False  # the head of an answer was read

    @property
    def reusable(self) -> bool:
        # What stands behind the last answer would be read as the next one.
        states = (self._protocol.our_state, self._protocol.their_state)
        unread, _ = self._protocol.trailing_data
        return not unread and all(state in {h11.IDLE, h11.DONE} for state in states)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._protocol.our_state is h11.DONE:
            self._protocol.start_next_cycle()
        await self._send(request)
        head = await self._head()
        return httpx.Response(head.status_code, headers=list(head.headers), stream=_Body(self))

    async def _send(self, request: httpx.Request) -> None:
        protocol = self._protocol
        data = protocol.send(
            h11.Request(
                method=request.method, target=request.url.raw_path, headers=request.headers.raw
            )
        )
        data += protocol.send(h11.Data(await request.aread()))
        data += protocol.send(h11.EndOfMessage())
        await self._channel.send(data)

    async def _head(self) -> h11.Response:
        self._answering = False
        while True:
            match await self._next_event():
                case h11.Response() as response:
                    self._answering = True
                    return response
                case _:
                    continue  # 100 Continue and its kin (RFC 9110 §15.2)

    async def body(self) -> AsyncIterator[bytes]:
        while True:
            match await self._next_event():
                case h11.Data(data=data):
                    yield bytes(data)
                case h11.EndOfMessage() | h11.ConnectionClosed():
                    return
                case _:
                    continue

    async def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as error:
                # The library's text quotes what came, and a server may have echoed a secret.
                raise _BrokenError(self._malformed()) from error
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise _BrokenError(Failure(Reason.HTTP_MALFORMED, "more data than one answer"))
            await self._receive()

    async def _receive(self) -> None:
        data = await self._channel.receive()
        if isinstance(data, Failure):
            raise _BrokenError(data)
        self._closed = not data
        if self._closed and self._is_unanswered():
            raise _BrokenError(Failure(Reason.TLS_EOF, "closed without an answer"))
        self._protocol.receive_data(data)

    def _is_unanswered(self) -> bool:
        begun, _ = self._protocol.trailing_data
        return self._protocol.their_state is h11.SEND_RESPONSE and not begun

    def _malformed(self) -> Failure:
        begun, _ = self._protocol.trailing_data
        # Something else on this port may say its name and close.
        foreign = not self._answering and not b"HTTP/".startswith(begun[:5])
        if self._closed and not foreign:
            return Failure(Reason.TLS_EOF, "closed in the middle of the answer")
        return Failure(Reason.HTTP_MALFORMED, "not an HTTP/1.1 answer")


class _Body(httpx.AsyncByteStream):
    def __init__(self, transport: _ChannelTransport) -> None:
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._transport.body():
            yield piece
