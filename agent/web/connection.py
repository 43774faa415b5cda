"""One client's connection: TLS if the guard wants it, then HTTP/1.1 requests, one at a time.

Every wait has an end: for the handshake, for the head of a request, for the next request, and for
the client to take its answer. No request has a body: nothing here needs one, and who sends none
cannot send it slowly. What is wrong is answered in a sentence, with the headers of every answer.
h11 knows HTTP (RFC 9112); nothing here knows what is asked for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import h11
import structlog
from starlette.types import ASGIApp, Message, Scope

from agent import certificate
from agent.web.access import CLIENT_CERTIFICATE
from agent.web.channel import Channel, PlainChannel, TlsChannel
from agent.web.guard import Guard

# What is longer is refused, save for what came with the end of a head: h11 takes that as it is.
_LONGEST_HEAD: Final = 8 * 1024
# What is no longer goes out in one packet with its head; a copy of more would cost memory.
_SMALL: Final = 16 * 1024

_log: Final = structlog.get_logger("agent.web")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything there may be. Times are seconds.

    `idle` is longer than the usual scrape intervals, so that Prometheus keeps its connection.
    """

    connections: int = 256
    answers: int = 32
    handshake: float = 10.0
    head: float = 10.0
    idle: float = 75.0
    write: float = 30.0
    farewell: float = 1.0
    drain: float = 3.0


class Phase(Enum):
    """What a connection waits for."""

    ARRIVING = auto()  # the client's handshake, or the head of its request
    IDLE = auto()  # whether there is another request
    ASKING = auto()  # our own answer
    WRITING = auto()  # the client, to take the answer


class _RefusedError(Exception):
    """The request is not passed on; what is answered instead."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class Connection:
    """Talks with one client until it or we have enough.

    `make_room` is called before each answer is sent, since it is held until the client has it all.
    Once `ending` is set, the answer under way is the last.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        app: ASGIApp,
        *,
        guard: Guard,
        limits: Limits,
        make_room: Callable[[], None],
    ) -> None:
        self._channel: Channel = PlainChannel(reader, writer)
        self._transport = writer.transport
        self._app = app
        self._guard = guard
        self._limits = limits
        self._make_room = make_room
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)
        self._loop = asyncio.get_running_loop()
        self._ends: Mapping[str, tuple[str, int]] = {
            end: writer.get_extra_info(name)[:2]
            for end, name in (("client", "peername"), ("server", "sockname"))
        }
        self._client = self._ends["client"][0]
        self._scheme = "http"
        self._state: dict[str, object] = {}
        self.ending = False
        self.phase = Phase.ARRIVING
        self.since = self._loop.time()

    async def run(self) -> None:
        """Answer requests until there is no more to do; the connection is closed in any case."""
        try:
            if await self._secure():
                while await self._serve():
                    self._turn_to(Phase.IDLE)
            async with asyncio.timeout(self._limits.farewell):
                await self._channel.finish()
        except OSError as error:
            # The client is gone, or too slow (TimeoutError); there is nobody to tell.
            _log.debug("a connection broke", client=self._client, error=str(error))
        finally:
            self._transport.abort()

    def _turn_to(self, phase: Phase) -> None:
        self.phase, self.since = phase, self._loop.time()

    async def _secure(self) -> bool:
        """Do the TLS handshake, if there is to be one; tell whether it succeeded."""
        context = self._guard.current.context
        if context is None:
            return True
        self._scheme = "https"
        self._channel = channel = TlsChannel(self._channel, context)
        try:
            async with asyncio.timeout(self._limits.handshake):
                presented = await channel.handshake()
            if presented is not None:
                self._state[CLIENT_CERTIFICATE] = certificate.read(presented)
        except (ssl.SSLError, ValueError) as error:
            # Whoever just connects and goes, such as a port scanner, is no news.
            if not isinstance(error, ssl.SSLEOFError):
                reason = getattr(error, "reason", None) or "its certificate cannot be read"
                self._guard.failed_handshakes.warning(client=self._client, reason=reason)
            return False
        self._turn_to(Phase.ARRIVING)
        return True

    async def _serve(self) -> bool:
        """Answer one request; tell whether another may follow."""
        try:
            request = await self._request()
            if request is None:
                return False
            answer = await self._ask(request)
        except _RefusedError as refused:
            await self._refuse(refused.status)
            return False
        await self._write(answer, with_body=request.method != b"HEAD")
        if self.ending or self._http.our_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _request(self) -> h11.Request | None:
        """Return the next request; None when the client wants no more."""
        try:
            event = await self._next_event()
        except TimeoutError:
            if not self._http.trailing_data[0]:
                return None
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT) from None
        except h11.RemoteProtocolError as error:
            raise _RefusedError(self._status_of(error)) from None
        if not isinstance(event, h11.Request):
            return None
        if not event.http_version.startswith(b"1."):
            raise _RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if _has_body(event):
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._http.next_event()  # its end, since there is no body
        return event

    async def _next_event(self) -> object:
        limits = self._limits
        if self.phase is Phase.IDLE and self._http.trailing_data[0]:
            self._turn_to(Phase.ARRIVING)
        first = limits.idle if self.phase is Phase.IDLE else limits.head
        async with asyncio.timeout(first) as deadline:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._channel.read())
                if self.phase is Phase.IDLE:
                    self._turn_to(Phase.ARRIVING)
                    deadline.reschedule(self.since + limits.head)
        return event

    async def _ask(self, request: h11.Request) -> _Answer:
        """Return what the application says to a request."""
        self._turn_to(Phase.ASKING)
        # A client that sends many requests at once keeps neither probes nor others waiting.
        await asyncio.sleep(0)
        answer = _Answer()
        try:
            await self._app(self._scope(request), _nothing_more, answer.take)
        except Exception:  # noqa: BLE001 - the application has told of it, and counted it
            raise _RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR) from None
        return answer

    def _status_of(self, error: h11.RemoteProtocolError) -> HTTPStatus:
        status = HTTPStatus(error.error_status_hint)
        if (
            status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            and b"\n" not in self._http.trailing_data[0]
        ):
            return HTTPStatus.REQUEST_URI_TOO_LONG
        return status

    def _scope(self, request: h11.Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            **self._ends,
            "state": dict(self._state),
        }

    async def _refuse(self, status: HTTPStatus) -> None:
        """Answer what the application does not get to see; nothing follows it."""
        self.ending = True
        body = f"{status.phrase}\n"
        fields = {
            "content-type": "text/plain; charset=utf-8",
            "content-length": str(len(body)),
            **self._guard.current.headers,
        }
        encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
        await self._write(_Answer(status, encoded, body.encode()))

    async def _write(self, answer: _Answer, *, with_body: bool = True) -> None:
        """Send an answer, as fast as the client takes it but not more slowly than the limit."""
        self._make_room()
        self._turn_to(Phase.WRITING)
        fields = [(b"date", formatdate(usegmt=True).encode()), *answer.headers]
        if self.ending:
            fields.append((b"connection", b"close"))
        reason = HTTPStatus(answer.status).phrase.encode()
        events: list[h11.Event] = [
            h11.Response(status_code=answer.status, headers=fields, reason=reason)
        ]
        if answer.body and with_body:
            events.append(h11.Data(data=answer.body))
        events.append(h11.EndOfMessage())
        pieces: list[bytes] = []
        for event in events:
            pieces += self._http.send_with_data_passthrough(event) or ()
        if len(answer.body) < _SMALL:
            pieces = [b"".join(pieces)]
        async with asyncio.timeout(self._limits.write):
            for piece in pieces:
                await self._channel.write(piece)


@dataclass(slots=True)
class _Answer:
    """What the application says, until all of it is there: half an answer is never sent."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    async def take(self, message: Message) -> None:
        """Take in one message of ASGI."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")


async def _nothing_more() -> Message:
    """Give the body of every request (ASGI): there is none."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _has_body(request: h11.Request) -> bool:
    """Tell whether a body is announced (RFC 9112 §6.3)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )
