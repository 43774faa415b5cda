"""From a name to a connection: DNS, TCP and proxies, each failure with its reason and stage."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import threading
from datetime import UTC, datetime

import pytest
from doors import TIMEOUTS
from doors import Stage as Theatre

from agent import probe
from agent.credentials import Secret
from agent.org import (
    ClientIdentity,
    Endpoint,
    FromFile,
    FromVariable,
    IpFamily,
    Org,
    Proxy,
    Timeouts,
)
from agent.probe import Keys, Plan
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, Stage
from agent.simulator.pki import ClientCertificate, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator

V4 = (socket.AF_INET, ("127.0.0.1", 1))
V6 = (socket.AF_INET6, ("::1", 1))


def nowhere():
    """Return a port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("reaching"))


def answering(*addresses):
    """Return a look-up that knows these addresses for every name."""
    return lambda _, port: tuple((family, (host, port)) for family, (host, _) in addresses)


def failing(error):
    def look_up(_host, _port):
        raise error

    return look_up


async def knock(theatre, endpoint, look_up=None, timeouts=TIMEOUTS, password=None):
    """Run one cycle, handshake only, and return its result."""
    resolver = Resolver(4, look_up)
    identity = ClientIdentity(FromFile("unused"), FromFile("unused"))
    org = Org("org", endpoint, identity, timeouts=timeouts, refusal_interval=None)
    keys = theatre.keys(ClientCertificate.GOOD)
    keys = Keys(keys.chain, keys.presenting, keys.bare, password)
    plan = Plan(org, keys, frozenset({Probe.HANDSHAKE}))
    return await probe.run(plan, resolver, lambda: datetime.now(UTC))


def failed(result):
    outcome = result.outcomes[Probe.HANDSHAKE]
    assert isinstance(outcome, Failure), repr(result)
    return outcome


async def test_y007_a_host_that_does_not_resolve_is_not_found_and_only_dns_took_time(theatre):
    unknown = failing(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    result = await knock(theatre, Endpoint("gone.my.salesforce.com"), unknown)

    assert failed(result).reason is Reason.DNS_NOT_FOUND
    assert list(result.stages) == [Stage.DNS]
    assert result.client_auth is ClientAuth.NOT_REACHED


async def test_y007_the_systems_resolver_says_the_same_of_an_invalid_name(theatre):
    # RFC 6761 §6.4: names under .invalid never exist, and no query need leave the machine.
    result = await knock(theatre, Endpoint("no.such.host.invalid"))

    assert failed(result).reason in {Reason.DNS_NOT_FOUND, Reason.DNS_ERROR}


async def test_y008_a_resolver_that_does_not_answer_times_out_within_the_dns_budget(theatre):
    release = threading.Event()

    def hang(_host, _port):
        release.wait(10)
        return (V4,)

    timeouts = Timeouts(dns=0.2, cycle=5)
    began = asyncio.get_running_loop().time()
    try:
        result = await knock(theatre, Endpoint("slow.example"), hang, timeouts)
    finally:
        release.set()

    assert failed(result).reason is Reason.DNS_TIMEOUT
    assert asyncio.get_running_loop().time() - began < 2
    assert result.stages[Stage.DNS] >= 0.2


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"),
        UnicodeError("label too long"),
    ],
)
async def test_another_trouble_of_the_resolver_is_a_dns_error(error, theatre):
    result = await knock(theatre, Endpoint("odd.example"), failing(error))

    assert failed(result).reason is Reason.DNS_ERROR


async def test_y009_only_addresses_of_the_other_family_is_a_dns_error_with_a_hint(theatre):
    endpoint = Endpoint("v6.example", ip_family=IpFamily.IPV4)

    result = await knock(theatre, endpoint, answering(V6))

    assert failed(result).reason is Reason.DNS_ERROR
    assert "IPv6" in failed(result).detail
    assert "ip_family" in failed(result).detail


async def test_y010_any_family_uses_what_there_is(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki, host="::1") as simulator:
        endpoint = Endpoint("healthy.my.salesforce.com", port=simulator.port)
        result = await knock(theatre, endpoint, answering(V6))

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.address == f"[::1]:{simulator.port}"


async def test_y011_with_the_first_of_two_addresses_dead_the_second_is_used(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        endpoint = Endpoint("healthy.my.salesforce.com", port=simulator.port)
        # Nobody listens at this port of the other loopback address.
        dead = (socket.AF_INET, ("127.0.0.2", 1))
        result = await knock(theatre, endpoint, answering(dead, V4))

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.address == f"127.0.0.1:{simulator.port}"


async def test_all_addresses_dead_names_each_of_them(theatre):
    endpoint = Endpoint("dead.example", port=nowhere())
    other = (socket.AF_INET, ("127.0.0.2", 1))

    result = await knock(theatre, endpoint, answering(V4, other))

    assert failed(result).reason is Reason.TCP_REFUSED
    assert "127.0.0.1" in failed(result).detail
    assert "127.0.0.2" in failed(result).detail
    assert list(result.stages) == [Stage.DNS, Stage.TCP]


async def test_a_full_backlog_that_never_answers_is_a_tcp_timeout(theatre):
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # Linux drops further SYNs once the backlog is full, as a firewall would.
        for _ in range(2):
            client = waiting.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        endpoint = Endpoint("127.0.0.1", port=listener.getsockname()[1])

        result = await knock(theatre, endpoint, timeouts=Timeouts(tcp=0.3, cycle=5))

    assert failed(result).reason is Reason.TCP_TIMEOUT
    assert 0.3 <= result.stages[Stage.TCP] < 2


async def test_the_deadline_of_the_cycle_cuts_every_stage(theatre):
    async with Simulator(SCENARIOS["accept_and_hang"], theatre.pki) as simulator:
        endpoint = Endpoint("localhost", connect_to=("127.0.0.1", simulator.port))

        result = await knock(theatre, endpoint, timeouts=Timeouts(tls=10, cycle=0.4))

    assert failed(result).reason is Reason.TLS_TIMEOUT
    assert 0.3 <= sum(result.stages.values()) < 2


async def test_y026_a_server_name_override_is_what_the_certificate_must_carry(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        there = ("127.0.0.1", simulator.port)
        wrong = await knock(theatre, Endpoint("other.example", connect_to=there))
        right = await knock(
            theatre, Endpoint("other.example", server_name="localhost", connect_to=there)
        )

    assert failed(wrong).reason is Reason.SERVER_HOSTNAME
    assert wrong.server_chain, "y025: the dates of a certificate for another name are still seen"
    assert right.client_auth is ClientAuth.ACCEPTED


class FakeProxy:
    """A proxy that answers CONNECT as told, and remembers what it was sent.

    With a `pause` it says its answer byte by byte, so many seconds apart.
    """

    def __init__(self, answer=b"", *, tunnel=False, pause=0.0):
        self.answer, self.tunnel, self.pause = answer, tunnel, pause
        self.requests = []
        self._tasks = set()

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
        far_writer = None
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request.decode())
            if self.tunnel:
                target = request.split()[1].decode()
                host, _, port = target.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
                await self._say(writer, b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(
                    self._carry(reader, far_writer), self._carry(far_reader, writer)
                )
            elif self.answer:
                await self._say(writer, self.answer)
            else:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for side in (writer, far_writer):
                if side is not None:
                    side.close()
                    with contextlib.suppress(OSError):
                        await side.wait_closed()

    async def _say(self, writer, answer):
        if not self.pause:
            writer.write(answer)
        else:
            for byte in answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(self.pause)
        await writer.drain()

    async def _carry(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def behind(port, target=("127.0.0.1", 9), **credentials):
    return Endpoint("localhost", connect_to=target, proxy=Proxy("127.0.0.1", port, **credentials))


async def test_a_tunnel_through_a_proxy_reaches_the_door(theatre):
    async with (
        Simulator(SCENARIOS["healthy"], theatre.pki) as simulator,
        FakeProxy(tunnel=True) as proxy,
    ):
        endpoint = behind(
            proxy.port,
            ("127.0.0.1", simulator.port),
            username="agent",
            password=FromVariable("UNUSED"),
        )
        result = await knock(theatre, endpoint, password=Secret("canary-proxy"))

    expected = base64.b64encode(b"agent:canary-proxy").decode()
    assert result.client_auth is ClientAuth.ACCEPTED
    assert f"CONNECT 127.0.0.1:{simulator.port} HTTP/1.1" in proxy.requests[0]
    assert f"Proxy-Authorization: Basic {expected}" in proxy.requests[0]


async def test_y021_behind_a_proxy_the_hosts_name_is_not_resolved_here(theatre):
    async with FakeProxy(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as proxy:
        endpoint = Endpoint("only.known.there", proxy=Proxy("127.0.0.1", proxy.port))

        result = await knock(theatre, endpoint, failing(AssertionError("asked")))

    assert Stage.DNS not in result.stages
    assert Stage.TCP not in result.stages
    assert "CONNECT only.known.there:8443" in proxy.requests[0]


async def test_y017_a_proxy_that_never_answers_is_a_proxy_timeout(theatre):
    async with FakeProxy() as proxy:
        result = await knock(theatre, behind(proxy.port), timeouts=Timeouts(proxy=0.2, cycle=5))

    assert failed(result).reason is Reason.PROXY_TIMEOUT
    assert list(result.stages) == [Stage.PROXY]


async def test_a_proxy_that_answers_slowly_is_waited_for_until_its_limit_and_no_longer(theatre):
    async with (
        Simulator(SCENARIOS["healthy"], theatre.pki) as simulator,
        FakeProxy(tunnel=True, pause=0.005) as slow,
        FakeProxy(tunnel=True, pause=0.05) as too_slow,
    ):
        there = ("127.0.0.1", simulator.port)
        opened = await knock(theatre, behind(slow.port, there))
        given_up = await knock(
            theatre, behind(too_slow.port, there), timeouts=Timeouts(proxy=0.3, cycle=5)
        )

    assert opened.client_auth is ClientAuth.ACCEPTED
    assert opened.stages[Stage.PROXY] >= 39 * 0.005
    assert failed(given_up).reason is Reason.PROXY_TIMEOUT
    assert list(given_up.stages) == [Stage.PROXY]


async def test_y018_a_closed_proxy_port_is_refused(theatre):
    result = await knock(theatre, behind(nowhere()))

    assert failed(result).reason is Reason.PROXY_REFUSED


async def test_a_proxy_whose_name_is_unknown_is_told_apart_from_an_unknown_host(theatre):
    endpoint = Endpoint("localhost", proxy=Proxy("no-proxy.example", 3128))
    unknown = failing(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    result = await knock(theatre, endpoint, unknown)

    assert failed(result).reason is Reason.PROXY_DNS


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_y019_a_proxy_that_denies_connect_tells_its_status_and_no_credentials(
    status, theatre
):
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    async with FakeProxy(answer) as proxy:
        endpoint = behind(proxy.port, username="agent", password=FromVariable("UNUSED"))
        result = await knock(theatre, endpoint, password=Secret("canary-proxy"))

    assert failed(result).reason is Reason.PROXY_DENIED
    assert str(status) in failed(result).detail
    assert "canary" not in repr(result) + str(failed(result))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 ",
        b"\x00" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Endless: yes\r\n" * 5_000,
    ],
    ids=["another-protocol", "hangs-up", "no-end-of-line", "no-end-of-head"],
)
async def test_a_proxy_that_talks_nonsense_or_hangs_up_denies(answer, theatre):
    async with FakeProxy(answer) as proxy:
        result = await knock(theatre, behind(proxy.port))

    assert failed(result).reason is Reason.PROXY_DENIED


async def test_a_proxy_that_echoes_our_credentials_in_nonsense_does_not_get_them_into_the_log(
    theatre,
):
    pair = base64.b64encode(b"agent:canary-proxy")
    async with FakeProxy(b"Proxy-Authorization: Basic " + pair + b"\r\n\r\n") as proxy:
        endpoint = behind(proxy.port, username="agent", password=FromVariable("UNUSED"))
        result = await knock(theatre, endpoint, password=Secret("canary-proxy"))

    assert failed(result).reason is Reason.PROXY_DENIED
    assert pair.decode() not in str(failed(result))


async def test_a_dead_first_address_does_not_lengthen_the_wait_for_the_verdict(theatre):
    async with Simulator(SCENARIOS["tls13_required_no_tickets_good"], theatre.pki) as simulator:
        with socket.socket() as listener, contextlib.ExitStack() as waiting:
            # The same port at another loopback address, with a backlog that is full.
            listener.bind(("127.0.0.2", simulator.port))
            listener.listen(0)
            for _ in range(2):
                client = waiting.enter_context(socket.socket())
                client.settimeout(0)
                client.connect_ex(listener.getsockname())
            endpoint = Endpoint("healthy.my.salesforce.com", port=simulator.port)
            black_hole = (socket.AF_INET, ("127.0.0.2", 1))
            timeouts = Timeouts(tcp=1.6, client_auth=0.05, cycle=8)
            result = await knock(theatre, endpoint, answering(black_hole, V4), timeouts)

    assert result.client_auth is ClientAuth.ACCEPTED
    assert result.stages[Stage.TCP] > 0.7
    assert result.stages[Stage.CLIENT_AUTH] < 0.5


async def test_hanging_look_ups_of_one_name_leave_room_for_others():
    release = threading.Event()

    def look_up(host, _port):
        if host == "dead.example":
            release.wait(10)
        return (V4,)

    resolver = Resolver(2, look_up)
    dead = [
        asyncio.create_task(resolver.resolve("dead.example", 1, IpFamily.ANY, 0.3))
        for _ in range(20)
    ]
    alive = await resolver.resolve("alive.example", 1, IpFamily.ANY, 2)
    failures = await asyncio.gather(*dead)
    release.set()

    assert alive == (V4,)
    assert {failure.reason for failure in failures} == {Reason.DNS_TIMEOUT}


async def test_y020_a_proxy_in_the_environment_is_ignored(theatre, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{nowhere()}")

    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        endpoint = Endpoint("localhost", connect_to=("127.0.0.1", simulator.port))
        result = await knock(theatre, endpoint)

    assert os.environ["HTTPS_PROXY"]
    assert result.client_auth is ClientAuth.ACCEPTED


async def test_y083_without_a_usable_pair_nothing_is_sent(theatre):
    async with Simulator(SCENARIOS["healthy"], theatre.pki) as simulator:
        org = theatre.org(simulator)
        mismatch = Failure(Reason.CLIENT_KEY_MISMATCH, "the key belongs to another certificate")
        resolver = Resolver(1)
        plan = Plan(org, mismatch, frozenset(Probe))
        result = await probe.run(plan, resolver, lambda: datetime.now(UTC))

    assert failed(result).reason is Reason.CLIENT_KEY_MISMATCH
    assert result.stages == {}
    assert simulator.record.connections == []
