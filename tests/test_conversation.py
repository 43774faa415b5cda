"""What follows a handshake: connections that end, change or go on with something unasked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import zlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from doors import Gate
from doors import Stage as Theatre

from agent import probe
from agent.login.soap import MAX_ANSWER_BYTES
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    Org,
    PasswordCredentials,
    Timeouts,
    TrustAnchors,
)
from agent.probe import Plan
from agent.probe.dns import Resolver
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, SkipCause, Skipped, Success, Undetermined
from agent.simulator.door import RefusalPage
from agent.simulator.pages import certificate_error
from agent.simulator.pki import ClientCertificate, Pki

FAULT = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
    b"<faultcode>%s</faultcode><faultstring>%s: no</faultstring></s:Fault></s:Body></s:Envelope>"
)
NO_SESSION = FAULT % (b"INVALID_SESSION_ID", b"INVALID_SESSION_ID")
INVALID_LOGIN = FAULT % (b"INVALID_LOGIN", b"INVALID_LOGIN")
WELL = frozenset({Probe.HANDSHAKE, Probe.LOGIN, Probe.SESSION})


def http(body, *headers, status="500 Internal Server Error"):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class ScriptedDoor:
    """A door that plays one script for each connection, in order; the last one again and again.

    A script is (asks for a certificate?, tickets, what it does with reader and writer).
    """

    def __init__(self, theatre, folder, *scripts):
        server = theatre.pki.server()
        (folder / "server.pem").write_bytes(server.chain_pem() + server.key_pem())
        (folder / "clients.pem").write_bytes(theatre.pki.clients.root.public_bytes(Encoding.PEM))
        self._folder = folder
        self._scripts = scripts
        self._tasks = set()
        self.connections = 0
        self.bodies = []

    def _context(self, *, asks, tickets):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "server.pem")
        context.num_tickets = tickets
        if asks:
            context.load_verify_locations(self._folder / "clients.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        asks, tickets, play = script
        # Not longer than the test needs: a TLS upgrade whose peer is gone may wait for ever.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            async with asyncio.timeout(20):
                await writer.start_tls(self._context(asks=asks, tickets=tickets))
                await play(self, reader, writer)
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()

    async def request(self, reader):
        """Read one request and keep its body."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        self.bodies.append(await reader.readexactly(length))

    @property
    def password_arrived(self):
        return any(b"password" in body for body in self.bodies)


def answers(*responses):
    """Return a play that gives these answers to requests in turn, then closes."""

    async def play(door, reader, writer):
        for response in responses:
            await door.request(reader)
            writer.write(response)
            await writer.drain()

    return play


async def silence(_door, reader, _writer):
    await reader.read()


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("conversation"))


async def cycle(theatre, door, *, due=WELL, refusal=None, timeouts=None):
    unused = ClientIdentity(FromFile("unused"), FromFile("unused"))
    org = Org(
        "org",
        Endpoint("localhost", connect_to=("127.0.0.1", door.port)),
        unused,
        login=PasswordCredentials("probe@org.example", FromFile("unused")),
        refusal_interval=refusal,
        timeouts=timeouts or Timeouts(http=2, client_auth=0.1, cycle=8),
    )
    gate = Gate(org)
    plan = Plan(org, theatre.keys(ClientCertificate.GOOD), due, gate)
    resolver = Resolver(1)
    result = await probe.run(plan, resolver, lambda: datetime.now(UTC))
    return result, gate


CLOSING = (True, 2, answers(http(NO_SESSION, "Connection: close")))


async def test_a_door_that_closes_after_each_answer_still_gets_its_login(theatre, tmp_path):
    login = (True, 2, answers(http(INVALID_LOGIN, "Connection: close")))
    async with ScriptedDoor(theatre, tmp_path, CLOSING, CLOSING, login) as door:
        result, gate = await cycle(theatre, door)

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.outcomes[Probe.LOGIN].reason is Reason.INVALID_LOGIN
    assert door.connections == 3, "the door was knocked at again before the password was sent"
    assert len(gate.ended) == 1


async def test_no_password_goes_over_a_new_connection_that_asks_for_no_certificate(
    theatre, tmp_path
):
    unasking = (False, 2, answers(http(NO_SESSION), http(INVALID_LOGIN)))
    async with ScriptedDoor(theatre, tmp_path, CLOSING, unasking) as door:
        result, gate = await cycle(theatre, door)

    assert not door.password_arrived
    assert result.outcomes[Probe.LOGIN].reason is Reason.CLIENT_NOT_REQUESTED
    assert gate.ended == [], "nothing was sent, so nothing is counted as tried"


async def test_no_password_goes_over_a_new_connection_that_is_softly_refused(theatre, tmp_path):
    page = certificate_error(RefusalPage.SALESFORCE, None)
    soft = (True, 2, answers(http(page.body, "Content-Type: text/html"), http(INVALID_LOGIN)))
    async with ScriptedDoor(theatre, tmp_path, CLOSING, soft) as door:
        result, _ = await cycle(theatre, door)

    assert not door.password_arrived
    assert result.outcomes[Probe.LOGIN].reason is Reason.CLIENT_CERT_PAGE


async def test_no_password_goes_where_neither_the_door_nor_tls_has_given_a_verdict(
    theatre, tmp_path
):
    mute = (True, 0, answers(http(NO_SESSION, "Connection: close")))
    async with ScriptedDoor(theatre, tmp_path, mute) as door:
        result, _ = await cycle(theatre, door)

    assert result.client_auth is ClientAuth.ACCEPTED
    assert not door.password_arrived
    assert result.outcomes[Probe.LOGIN].reason is Reason.UNDETERMINED


async def test_bytes_that_nobody_asked_for_are_not_the_answer_to_the_login(theatre, tmp_path):
    stray = http(NO_SESSION) + http(b"", status="408 Request Timeout")
    first = (True, 2, answers(stray, http(b"never read")))
    second = (True, 2, answers(http(NO_SESSION), http(INVALID_LOGIN)))
    async with ScriptedDoor(theatre, tmp_path, first, second) as door:
        result, gate = await cycle(theatre, door)

    assert result.outcomes[Probe.LOGIN].reason is Reason.INVALID_LOGIN
    assert door.connections == 2
    assert [ended.failure.reason for ended in gate.ended] == [Reason.INVALID_LOGIN]


async def test_a_door_that_never_asks_is_told_as_that_and_why_the_request_failed_beside(
    theatre, tmp_path
):
    async with ScriptedDoor(theatre, tmp_path, (False, 2, answers(http(NO_SESSION)))) as door:
        open_to_all, _ = await cycle(theatre, door)
    busy = http(b"", status="503 Service Unavailable")
    async with ScriptedDoor(theatre, tmp_path, (False, 2, answers(busy))) as door:
        failing, _ = await cycle(theatre, door)

    assert open_to_all.outcomes[Probe.HANDSHAKE] == Failure(Reason.CLIENT_NOT_REQUESTED)
    told = Failure(Reason.CLIENT_NOT_REQUESTED, "http_status: HTTP 503")
    assert failing.outcomes[Probe.HANDSHAKE] == told
    assert open_to_all.client_auth is failing.client_auth is ClientAuth.NOT_REQUESTED
    assert open_to_all.outcomes[Probe.LOGIN] == Skipped(SkipCause.NO_VERDICT)


# --- a cut connection and a clean close


async def cut(_door, _reader, _writer):
    # What a crash does: the kernel closes the connection, TLS says nothing.
    raise ConnectionAbortedError


async def close(_door, _reader, _writer):
    return


def after(response, ending):
    """Return a play that gives an answer, maybe an empty one, and then ends like that."""

    async def play(door, reader, writer):
        await door.request(reader)
        writer.write(response)
        await writer.drain()
        await ending(door, reader, writer)

    return play


# Without a length an answer ends with the connection (RFC 9112 §6.3), so only close_notify tells
# that it is whole.
ENDLESS = b"HTTP/1.1 500 Internal Server Error\r\n\r\n" + NO_SESSION
HALF = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 999\r\n\r\n" + NO_SESSION
NO_NOTIFY = "the connection was cut without close_notify"


@pytest.mark.parametrize(
    ("play", "detail"),
    [
        (close, "closed right after our answer about a certificate"),
        (cut, "cut right after our answer about a certificate"),
        (after(b"", close), "closed without an answer"),
        (after(b"", cut), NO_NOTIFY),
        (after(HALF, close), "closed in the middle of the answer"),
        (after(HALF, cut), NO_NOTIFY),
        (after(ENDLESS, close), None),
        (after(ENDLESS, cut), NO_NOTIFY),
    ],
)
async def test_a_connection_that_was_cut_is_told_from_one_that_was_closed(
    play, detail, theatre, tmp_path
):
    async with ScriptedDoor(theatre, tmp_path, (True, 0, play)) as door:
        result, _ = await cycle(theatre, door, due=frozenset({Probe.HANDSHAKE}))

    expected = Failure(Reason.TLS_EOF, detail) if detail else Success()
    assert result.outcomes[Probe.HANDSHAKE] == expected
    assert result.client_auth is (ClientAuth.UNCONFIRMED if detail else ClientAuth.ACCEPTED)


# --- time


async def test_a_login_is_not_sent_when_there_is_no_time_left_to_hear_the_answer(theatre, tmp_path):
    async def slow(door, reader, writer):
        await door.request(reader)
        await asyncio.sleep(0.5)  # the far side is slow: that is the case
        writer.write(http(NO_SESSION))
        await writer.drain()
        await door.request(reader)

    async with ScriptedDoor(theatre, tmp_path, (True, 2, slow)) as door:
        result, gate = await cycle(
            theatre, door, timeouts=Timeouts(http=0.8, client_auth=0.05, cycle=1)
        )

    assert result.outcomes[Probe.HANDSHAKE] == Success()
    assert result.outcomes[Probe.LOGIN] == Skipped(SkipCause.NO_TIME)
    assert not door.password_arrived
    assert gate.admits == 5, "the gate was not even asked"


async def test_the_refusal_probe_has_only_what_is_left_of_the_cycles_time(theatre, tmp_path):
    good = (True, 2, answers(http(NO_SESSION)))
    began = asyncio.get_running_loop().time()
    async with ScriptedDoor(theatre, tmp_path, good, (False, 2, silence)) as door:
        result, _ = await cycle(
            theatre,
            door,
            due=frozenset({Probe.HANDSHAKE, Probe.REFUSAL}),
            refusal=60.0,
            timeouts=Timeouts(http=30, tls=30, client_auth=0.05, cycle=1),
        )
        took = asyncio.get_running_loop().time() - began

    assert isinstance(result.outcomes[Probe.REFUSAL], Undetermined)
    assert took < 2, "one deadline for the whole cycle, not one for each connection"


# --- answers


@pytest.mark.parametrize(
    ("body", "coding", "reason"),
    [
        (gzip.compress(NO_SESSION), "gzip", None),
        (gzip.compress(b"\0" * (MAX_ANSWER_BYTES + 1)), "gzip", Reason.RESPONSE_TOO_LARGE),
        (gzip.compress(gzip.compress(NO_SESSION)), "gzip, gzip", Reason.HTTP_MALFORMED),
        (zlib.compress(NO_SESSION), "deflate", Reason.HTTP_MALFORMED),
        (b"not gzip", "gzip", Reason.HTTP_MALFORMED),
        (NO_SESSION, "identity", None),
    ],
)
async def test_one_layer_of_gzip_is_undone_and_nothing_else(
    body, coding, reason, theatre, tmp_path
):
    response = http(body, f"Content-Encoding: {coding}", "Connection: close")
    async with ScriptedDoor(theatre, tmp_path, (True, 2, answers(response))) as door:
        result, _ = await cycle(theatre, door, due=frozenset({Probe.HANDSHAKE}))

    outcome = result.outcomes[Probe.HANDSHAKE]
    assert (outcome.reason if isinstance(outcome, Failure) else None) is reason


@pytest.mark.parametrize(
    "date",
    ["Mon, 01 Jan 2024 00:00:00 +99999999999999999", "yesterday", "", "Mon, 99 Foo 2024"],
)
async def test_an_odd_date_header_costs_only_the_clock_skew(date, theatre, tmp_path):
    response = http(NO_SESSION, f"Date: {date}", "Connection: close")
    async with ScriptedDoor(theatre, tmp_path, (True, 2, answers(response))) as door:
        result, _ = await cycle(theatre, door, due=frozenset({Probe.HANDSHAKE}))

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.clock_skew is None


# --- the system's trust store


@pytest.mark.parametrize("hashed", [True, False])
async def test_a_trust_directory_counts_only_when_it_has_hashed_names(
    hashed, tmp_path, monkeypatch
):
    # Red Hat's directory holds a bundle and no hashed names; there the bundle must be loaded.
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / ("0123abcd.0" if hashed else "ca-bundle.crt")).write_bytes(b"")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))

    context = client_context(Endpoint("localhost"), TrustAnchors(), None)

    loaded = context.cert_store_stats()["x509_ca"] if isinstance(context, ssl.SSLContext) else 0
    if hashed:
        assert loaded == 0, "a directory is read on demand"
    else:
        assert loaded > 50 or isinstance(context, Failure)


async def test_a_bundle_named_by_the_environment_is_what_the_operator_wants(
    theatre, tmp_path, monkeypatch
):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(theatre.pki.servers.root_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))

    context = client_context(Endpoint("localhost"), TrustAnchors(), None)

    assert context.cert_store_stats()["x509_ca"] == 1
