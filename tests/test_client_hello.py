"""What the agent says first, as a socket sees it: the name, the protocol, and nothing to resume."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from doors import TIMEOUTS, Stage
from stack_servers import VERSIONS, started, write_material

from agent import probe
from agent.org import Endpoint, Org
from agent.probe import Plan
from agent.probe.dns import Resolver
from agent.probe.handshake import Handshake
from agent.result import ClientAuth, Probe
from agent.simulator.pki import ClientCertificate, Pki

HOST = "healthy.my.salesforce.com"
# Extensions (RFC 8446 §4.2 and the registry that it names).
SERVER_NAME, ALPN, SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA = 0, 16, 35, 41, 42
SUPPORTED_VERSIONS, POST_HANDSHAKE_AUTH = 43, 49


@dataclass(frozen=True)
class ClientHello:
    """A ClientHello (RFC 8446 §4.1.2) as far as these tests look."""

    session_id: bytes
    extensions: dict[int, bytes]

    @property
    def names(self):
        """The names in SNI (RFC 6066 §3), without their type, which is always 0."""
        names, _ = vector(self.extensions.get(SERVER_NAME, b"\0\0"), 2)
        found = []
        while names:
            name, names = vector(names[1:], 2)
            found.append(name.decode())
        return found

    @property
    def protocols(self):
        names, _ = vector(self.extensions.get(ALPN, b"\0\0"), 2)
        found = []
        while names:
            name, names = vector(names, 1)
            found.append(name.decode())
        return found

    @property
    def versions(self):
        offered, _ = vector(self.extensions[SUPPORTED_VERSIONS], 1)
        return {offered[at : at + 2].hex() for at in range(0, len(offered), 2)}

    @property
    def resumes(self):
        """It offers a session of before: a key (TLS 1.3) or a ticket (RFC 5077 §3.4)."""
        return PRE_SHARED_KEY in self.extensions or bool(self.extensions.get(SESSION_TICKET))


def vector(data, length_bytes):
    end = length_bytes + int.from_bytes(data[:length_bytes])
    return data[length_bytes:end], data[end:]


def parsed(record):
    assert record[0] == 22, "a handshake record"
    assert record[5] == 1, "a ClientHello"
    body, rest = vector(record[6:], 3)
    assert not rest, "all of it in one record"
    session_id, body = vector(body[2 + 32 :], 1)
    _, body = vector(body, 2)
    _, body = vector(body, 1)
    listed, _ = vector(body, 2)
    extensions = {}
    while listed:
        kind = int.from_bytes(listed[:2])
        extensions[kind], listed = vector(listed[2:], 2)
    return ClientHello(session_id, extensions)


@asynccontextmanager
async def overheard(target):
    """Carry connections to a port, and give the port to use and the hellos that came by."""
    hellos, tasks = [], set()

    async def carry(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        header = await reader.readexactly(5)
        record = header + await reader.readexactly(int.from_bytes(header[3:]))
        hellos.append(parsed(record))
        there, to_there = await asyncio.open_connection("127.0.0.1", target)
        to_there.write(record)
        try:
            both = (carry(reader, to_there), carry(there, writer))
            await asyncio.gather(*both, return_exceptions=True)
        finally:
            to_there.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], hellos
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = Stage(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("hello"))
    write_material(made.pki, made.root.parent)
    return made


@pytest.fixture(scope="module")
def ports(stage):
    with started("python", stage.root.parent) as found:
        yield found


async def cycle(stage, port):
    endpoint = Endpoint(HOST, connect_to=("127.0.0.1", port))
    source = stage.source(ClientCertificate.GOOD)
    org = Org("org", endpoint, source, timeouts=TIMEOUTS)
    keys = stage.keys(ClientCertificate.GOOD)
    plan = Plan(org, keys, frozenset({Probe.HANDSHAKE}))
    return await probe.run(plan, Resolver(1), lambda: datetime.now(UTC))


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_cycle_says_hello_as_if_it_were_the_first(version, stage, ports):
    async with overheard(ports["at_once", version]) as (port, hellos):
        results = [await cycle(stage, port) for _ in range(2)]

    assert [result.client_auth for result in results] == [ClientAuth.ACCEPTED] * 2
    assert all(result.handshake.session_ticket for result in results), "it could have resumed"
    for hello in hellos:
        assert hello.names == [HOST]
        assert hello.protocols == ["http/1.1"]
        assert hello.versions == {"0304", "0303"}
        assert hello.extensions[POST_HANDSHAKE_AUTH] == b""
        assert not hello.resumes
        assert EARLY_DATA not in hello.extensions
    # RFC 8446 §4.1.2: for TLS 1.2 it could name a session too; it is chance, for middleboxes.
    assert len({hello.session_id for hello in hellos}) == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_does_resume_is_seen_to(version, stage, ports):
    """The twin of the above, with the same server and the same eyes."""
    context = ssl.create_default_context(cafile=stage.root)
    context.load_cert_chain(stage.source(ClientCertificate.GOOD).certificate.path)

    def knock(port, session):
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname=HOST, session=session) as tls,
        ):
            tls.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            tls.recv(1)
            return tls.session

    async with overheard(ports["at_once", version]) as (port, hellos):
        session = await asyncio.to_thread(knock, port, None)
        await asyncio.to_thread(knock, port, session)

    assert [hello.resumes for hello in hellos] == [False, True]


@pytest.mark.parametrize(
    ("endpoint", "names"),
    [
        (Endpoint(HOST), [HOST]),
        (Endpoint(HOST, connect_to=("192.0.2.1", 443)), [HOST]),
        (Endpoint(HOST, server_name="other.example"), ["other.example"]),
        (Endpoint("192.0.2.1"), []),  # RFC 6066 §3: an address is no name
        (Endpoint("2001:db8::1"), []),
    ],
)
def test_the_name_that_is_verified_is_the_name_that_is_asked_for(endpoint, names, stage):
    keys = stage.keys(ClientCertificate.GOOD)

    hello = parsed(Handshake(keys.presenting, endpoint.verified_name).to_send())

    assert hello.names == names
