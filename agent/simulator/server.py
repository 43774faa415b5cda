"""The simulator itself: two listeners, a door as the scenario has it, SOAP behind it.

A refusal always reaches the client: what was sent is flushed, our side is ended in order and the
peer's remaining bytes are taken in before the connection is let go.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.credentials import Secret
from agent.org import TlsVersion
from agent.simulator import pages, soap
from agent.simulator.channel import Channel, TlsChannel
from agent.simulator.door import Door
from agent.simulator.http import Answer, Delivery, NotHttp, Request, Response, serve
from agent.simulator.pki import Issued, Pki
from agent.simulator.record import Call, Connection, Listener, Record
from agent.simulator.scenario import Scenario
from agent.simulator.verdict import Verdicts

USERNAME: Final = "probe@simulated.example"
# Of every kind that XML, TOML or a shell could stumble over.
PASSWORD: Final = Secret("not <a> \"real\" & 'safe' pässword")

_VERSIONS: Final = {
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}
# A ServerHello of TLS 1.1 (RFC 4346 §7.4.1.3), as a server sends it that ignores our newer offer:
# 32 bytes of chance, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
_OLD_SERVER_HELLO: Final = (
    b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02" + b"\x5a" * 32 + b"\x00\x00\x2f\x00"
)
# What some doors answer to the ClientHello, and nothing more. An alert record (RFC 8446 §5.1, §6)
# is type 21, version, length 2, fatal, description.
_ONLY_ANSWERS: Final = {
    Door.UNRECOGNIZED_NAME: b"\x15\x03\x03\x00\x02\x02\x70",
    Door.PROTOCOL_VERSION: b"\x15\x03\x01\x00\x02\x02\x46",
    Door.OLD_TLS_ONLY: _OLD_SERVER_HELLO,
    Door.GARBAGE: b"220 mail.example ESMTP\r\n",
    Door.PLAIN_HTTP: (
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 12\r\n\r\nBad Request\n"
    ),
}
_PASSWORD_ELEMENT: Final = re.compile(rb"<(?:[\w.-]+:)?password\b", re.IGNORECASE)


class Simulator:
    """The far side of one scenario; `async with` starts and stops it.

    `port` is the door, `plain_port` the ordinary port that never asks for a certificate. Port 0
    means any free one; the true ones can be read once it has started. Nothing of it is left after
    `stop()`. `idle` is the seconds after which a silent connection is dropped.
    """

    def __init__(
        self,
        scenario: Scenario,
        pki: Pki,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        plain_port: int = 0,
        username: str = USERNAME,
        password: Secret | str = PASSWORD,
        security_token: Secret | str = "",
        idle: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scenario = scenario
        self.host = host
        self.port = port
        self.plain_port = plain_port
        self.record = Record()
        self.server_certificate: Issued = pki.server(scenario.server_certificate)
        self.service = soap.Service(
            username=username,
            password=Secret(_reveal(password) + _reveal(security_token)),
            clock=clock,
            today=self._today,
            login_answer=scenario.login_answer,
            enforced=scenario.enforced,
            lockout_after=scenario.lockout_after,
            sessions_lost=scenario.sessions_lost,
        )
        self._pki = pki
        self._idle = idle
        self._servers: list[asyncio.Server] = []
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._verdicts: Verdicts | None = None
        self._door_context = self._make_door_context()
        self._plain_context = _server_context(self.server_certificate)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        """Say what plays where."""
        return f"<Simulator {self.scenario.name} on {self.host}:{self.port}>"

    async def start(self) -> None:
        """Listen on both ports; OSError when one is taken."""
        self._stopping = False
        door = await asyncio.start_server(
            partial(self._accept, Listener.DOOR), self.host, self.port
        )
        self._servers.append(door)
        # A name may stand for several addresses, each with a port of its own: tell the first.
        self.host, self.port = door.sockets[0].getsockname()[:2]
        plain = await asyncio.start_server(
            partial(self._accept, Listener.PLAIN), self.host, self.plain_port
        )
        self._servers.append(plain)
        self.plain_port = plain.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the ports and every connection, and wait until nothing of them runs."""
        self._stopping = True
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    # --- one connection

    def _accept(
        self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._stopping:
            # It was accepted just before the port was closed.
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._converse(listener, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _converse(
        self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen = Connection(listener)
        self.record.connections.append(seen)
        context = self._door_context if listener is Listener.DOOR else self._plain_context
        raw = Channel(reader, writer, self._idle)
        try:
            # The other side may go away at any moment: that is its right and no error of ours.
            with suppress(OSError):
                if listener is Listener.PLAIN:
                    await self._tls(TlsChannel(reader, writer, self._idle, context), seen)
                else:
                    start_tls = partial(
                        TlsChannel, reader, writer, self._idle, context, self._verdicts
                    )
                    await self._door(raw, start_tls, seen)
        finally:
            await raw.close()

    async def _door(
        self, raw: Channel, start_tls: Callable[[], TlsChannel], seen: Connection
    ) -> None:
        match self.scenario.door:
            case Door.ACCEPT_AND_CLOSE:
                await raw.finish()
            case Door.ACCEPT_AND_HANG:
                await raw.hold()
            case Door.RESET_AFTER_ACCEPT:
                raw.reset()
            case Door.RESET_AFTER_CLIENT_HELLO:
                await raw.read()
                raw.reset()
            case door if answer := _ONLY_ANSWERS.get(door):
                if await raw.read():
                    await raw.write(answer)
                    await raw.finish()
            case _:
                await self._tls(start_tls(), seen)

    async def _tls(self, channel: TlsChannel, seen: Connection) -> None:
        door = self.scenario.door
        try:
            await channel.handshake(send_alert=door is not Door.CLOSING_WITHOUT_ALERT)
        except ssl.SSLError as error:
            seen.tls_error = error.reason or "UNEXPECTED_EOF"
            await channel.finish_raw()
            return
        seen.tls_version = channel.tls.version()
        seen.certificate_presented = channel.tls.getpeercert(binary_form=True) is not None
        # What a door that lets TLS accept anything holds against the client.
        objection = channel.errors[0] if channel.errors else None
        if channel.accepts_anything and not seen.certificate_presented:
            objection = "No client certificate provided."
        seen.certificate_verified = seen.certificate_presented and not objection
        if objection and door is Door.CLOSING_WITH_NOTIFY:
            seen.tls_error = objection
            await channel.finish()
            return
        await serve(channel, partial(self._handle, seen, objection))
        await channel.finish()

    # --- one request

    async def _handle(self, seen: Connection, objection: str | None, request: Request) -> Answer:
        parsed = soap.read(request.target, request.body)
        call = parsed if isinstance(parsed, soap.Call) else soap.Call()
        at_door = seen.listener is Listener.DOOR
        delivery = Delivery()
        answer: Response | NotHttp
        if objection:
            presented = objection if seen.certificate_presented else None
            answer = pages.certificate_error(self.scenario.refusal_page, presented)
        elif request.method != "POST":
            answer = pages.plain(405, "SOAP wants POST")
        elif parsed is None:
            answer = pages.page(404, "URL No Longer Exists")
        elif isinstance(parsed, soap.Fault):
            answer = soap.fault_response(call, parsed)
        else:
            answer = self._serve(call, request, seen, at_door=at_door)
            if at_door:
                delivery = self.scenario.deliveries.get(call.asked, delivery)
        self._note(seen, call, request, answer)
        return self._dated(answer) if isinstance(answer, Response) else answer, delivery

    def _serve(
        self, call: soap.Call, request: Request, seen: Connection, *, at_door: bool
    ) -> Response | NotHttp:
        replacement = self.scenario.answers.get(call.asked) if at_door else None
        if isinstance(replacement, soap.Fault):
            return soap.fault_response(call, replacement)
        if replacement is not None:
            return replacement
        response = self.service.answer(
            call,
            request.header("host") or self.host,
            mutually_authenticated=seen.certificate_verified and self.scenario.uploaded,
        )
        mangle = self.scenario.mangles.get(call.asked) if at_door else None
        return replace(response, body=mangle(response.body)) if mangle else response

    def _note(
        self, seen: Connection, call: soap.Call, request: Request, answer: Response | NotHttp
    ) -> None:
        self.record.calls.append(
            Call(
                listener=seen.listener,
                operation=call.operation,
                username=call.username,
                credentials=_PASSWORD_ELEMENT.search(request.body) is not None,
                session=call.session_id is not None,
                certificate_verified=seen.certificate_verified,
                status=answer.status if isinstance(answer, Response) else 0,
            )
        )

    def _dated(self, response: Response) -> Response:
        date = format_datetime(self._today(), usegmt=True)
        return replace(response, headers=(("Date", date), *response.headers))

    def _today(self) -> datetime:
        return datetime.now(UTC) + self.scenario.clock_skew

    # --- TLS

    def _make_door_context(self) -> ssl.SSLContext:
        scenario = self.scenario
        context = _server_context(self.server_certificate)
        context.load_verify_locations(cadata=self._pki.clients.root_pem().decode())
        context.minimum_version, context.maximum_version = (
            _VERSIONS[version] for version in scenario.tls_versions
        )
        match scenario.door:
            case Door.SOFT | Door.CLOSING_WITH_NOTIFY:
                self._verdicts = Verdicts(context)
            case Door.OPTIONAL:
                context.verify_mode = ssl.CERT_OPTIONAL
            case Door.NOT_ASKING:
                pass
            case _:
                context.verify_mode = ssl.CERT_REQUIRED
        match scenario.door:
            case Door.TLS13_REQUIRED_NO_TICKETS:
                context.num_tickets = 0
            case Door.NO_COMMON_CIPHER:
                # Camellia is in no client's default list.
                context.set_ciphers("ECDHE-ECDSA-CAMELLIA128-SHA256")
            case _:
                pass
        return context


def _reveal(text: Secret | str) -> str:
    return text.reveal() if isinstance(text, Secret) else text


def _server_context(certificate: Issued) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # ssl loads from files only; this one is for its owner alone and gone at once.
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "server.pem")
        file.touch(0o600)
        file.write_bytes(certificate.chain_pem() + certificate.key_pem())
        context.load_cert_chain(file)
    return context
