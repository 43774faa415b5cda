from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import replace

import pytest
from simulator_client import client_certificate, context, hear, pki, post

from agent.org import TlsVersion
from agent.simulator.door import Door
from agent.simulator.pki import ClientCertificate, ServerCertificate
from agent.simulator.record import Listener
from agent.simulator.scenario import SCENARIOS, Scenario
from agent.simulator.server import PASSWORD, USERNAME, Simulator
from agent.simulator.soap import call_envelope, login_envelope

ALERTS = {
    ClientCertificate.UNKNOWN_CA: "TLSV1_ALERT_UNKNOWN_CA",
    ClientCertificate.SELF_SIGNED: "TLSV1_ALERT_UNKNOWN_CA",
    ClientCertificate.EXPIRED: "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    ClientCertificate.NOT_YET_VALID: "SSLV3_ALERT_BAD_CERTIFICATE",
    ClientCertificate.SERVER_AUTH_ONLY: "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    ClientCertificate.INTERMEDIATE_MISSING: "TLSV1_ALERT_UNKNOWN_CA",
}
NONE_ALERT = {
    TlsVersion.TLS_1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE",
    TlsVersion.TLS_1_3: "TLSV13_ALERT_CERTIFICATE_REQUIRED",
}
WORDS = {
    ClientCertificate.NONE: {"No client certificate provided."},
    ClientCertificate.UNKNOWN_CA: {"unable to get local issuer certificate"},
    # OpenSSL 1.1.1 wrote it without the hyphen.
    ClientCertificate.SELF_SIGNED: {"self-signed certificate", "self signed certificate"},
    ClientCertificate.EXPIRED: {"certificate has expired"},
    ClientCertificate.NOT_YET_VALID: {"certificate is not yet valid"},
    ClientCertificate.SERVER_AUTH_ONLY: {
        "unsuitable certificate purpose",
        "unsupported certificate purpose",
    },
    ClientCertificate.INTERMEDIATE_MISSING: {"unable to get local issuer certificate"},
}
GOOD = (ClientCertificate.GOOD, ClientCertificate.WRONG_ORDER, ClientCertificate.EXPIRING)
LOGIN = login_envelope(USERNAME, PASSWORD)
REQUEST = (
    b"POST /services/Soap/u/64.0 HTTP/1.1\r\nHost: org.my.salesforce.com:8443\r\n"
    b"Content-Type: text/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % len(LOGIN)
) + LOGIN
REQUIRED = (Door.TLS12_REQUIRED, Door.TLS13_REQUIRED, Door.TLS13_REQUIRED_NO_TICKETS)


def simulate(scenario: Scenario, **changes) -> Simulator:
    return Simulator(replace(scenario, **changes), pki())


@pytest.mark.parametrize(
    ("door", "defect"),
    [
        *((door, defect) for door in (*REQUIRED, Door.OPTIONAL) for defect in ALERTS),
        *((door, ClientCertificate.NONE) for door in REQUIRED),
    ],
)
async def test_a_door_that_checks_tells_a_bad_client_why_20_times_out_of_20(door, defect):
    scenario = SCENARIOS[f"{door}_{defect}"]
    newest = scenario.tls_versions[1]
    alert = ALERTS.get(defect, NONE_ALERT[newest])
    step = "handshake" if newest is TlsVersion.TLS_1_2 else "read"

    async with Simulator(scenario, pki()) as simulator:
        # A client that reads first and one that writes first: neither may lose the alert.
        heard = [
            await hear(simulator, defect, request) for _ in range(10) for request in (b"", REQUEST)
        ]

    assert {(one.step, one.reason, one.data) for one in heard} == {(step, alert, b"")}
    assert len(simulator.record.refused) == 20
    assert len(simulator.record) == 0


@pytest.mark.parametrize("defect", GOOD)
@pytest.mark.parametrize(
    "door",
    [*REQUIRED, Door.OPTIONAL, Door.SOFT, Door.CLOSING_WITHOUT_ALERT, Door.CLOSING_WITH_NOTIFY],
)
async def test_a_good_client_comes_through_every_door_20_times_out_of_20(door, defect):
    async with simulate(SCENARIOS["healthy"], door=door) as simulator:
        heard = [await hear(simulator, defect, REQUEST) for _ in range(20)]

    assert {(one.step, one.data[:13]) for one in heard} == {("", b"HTTP/1.1 200 ")}
    assert all(call.certificate_verified for call in simulator.record)
    assert simulator.record.logins == 20
    assert simulator.record.refused == []


@pytest.mark.parametrize("defect", WORDS)
@pytest.mark.parametrize("version", list(TlsVersion))
async def test_a_soft_door_accepts_anything_in_tls_and_says_on_a_page_what_is_wrong(
    version, defect
):
    scenario = SCENARIOS[f"soft_tls{version.value.replace('.', '')}_{defect}"]
    async with Simulator(scenario, pki()) as simulator:
        # Twice with a good client between them: no verdict is left over for the next.
        (page,) = await post(simulator, LOGIN, defect=defect)
        (welcome,) = await post(simulator, LOGIN)
        (again,) = await post(simulator, LOGIN, defect=defect)

    text = page.body.decode()
    assert text in {
        "<html><head><title>Certificate Error</title></head><body>"
        f"<h3>Client certificate error:<i>{words}</i></h3></body></html>"
        for words in WORDS[defect]
    }
    assert page.headers["Content-Type"].startswith("text/html")
    assert again.body == page.body
    assert welcome.text("passwordExpired") == "false"
    assert [call.certificate_verified for call in simulator.record] == [False, True, False]
    assert simulator.record.connections[0].tls_version == f"TLSv{version.value}"
    assert simulator.record.connections[0].tls_error is None


async def test_a_soft_door_keeps_verdicts_of_simultaneous_clients_apart():
    cases = [*WORDS, *GOOD] * 5
    async with Simulator(SCENARIOS["soft_tls13_good"], pki()) as simulator:
        answers = await asyncio.gather(
            *(post(simulator, call_envelope("getServerTimestamp"), defect=case) for case in cases)
        )

    for case, (answer,) in zip(cases, answers, strict=True):
        if case in GOOD:
            assert answer.text("exceptionCode") == "INVALID_SESSION_ID"
        else:
            assert any(words in answer.body.decode() for words in WORDS[case])


async def test_a_soft_door_does_not_resume_a_session_whose_certificates_it_could_not_judge():
    def twice(port: int, tls: ssl.SSLContext) -> list[bool]:
        reused, session = [], None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port), 10) as raw,
                tls.wrap_socket(raw, server_hostname="localhost", session=session) as stream,
            ):
                stream.sendall(REQUEST)
                while stream.recv(65536):
                    pass
                session = stream.session
                reused.append(stream.session_reused)
        return reused

    for version in ("tls12", "tls13"):
        async with Simulator(SCENARIOS[f"soft_{version}_good"], pki()) as simulator:
            tls = context(ClientCertificate.GOOD)
            assert await asyncio.to_thread(twice, simulator.port, tls) == [False, False]


async def test_a_soft_door_in_nginx_style_answers_400_as_nginx_does():
    async with Simulator(SCENARIOS["soft_nginx_tls13_none"], pki()) as simulator:
        (none,) = await post(simulator, LOGIN, defect=ClientCertificate.NONE)
        (bad,) = await post(simulator, LOGIN, defect=ClientCertificate.EXPIRED)

    assert (none.status, bad.status) == (400, 400)
    assert b"<center>No required SSL certificate was sent</center>" in none.body
    assert b"<center>The SSL certificate error</center>" in bad.body


async def test_a_soft_door_in_the_style_of_an_access_rule_answers_403():
    async with Simulator(SCENARIOS["soft_forbidden_tls12_expired"], pki()) as simulator:
        (bad,) = await post(simulator, LOGIN, defect=ClientCertificate.EXPIRED)

    assert bad.status == 403


async def test_an_optional_door_lets_in_who_shows_nothing_but_marks_the_calls_as_unverified():
    async with Simulator(SCENARIOS["optional_none"], pki()) as simulator:
        login, *_ = await post(simulator, LOGIN, defect=ClientCertificate.NONE)
        session = call_envelope("getUserInfo", session_id=login.text("sessionId"))
        (refused,) = await post(simulator, session, defect=ClientCertificate.NONE)
        (allowed,) = await post(simulator, session)

    assert refused.text("exceptionCode") == "MUTUAL_AUTHENTICATION_FAILED"
    assert allowed.text("userName") == USERNAME
    assert [call.certificate_verified for call in simulator.record] == [False, False, True]


async def test_a_door_that_does_not_ask_gets_no_certificate():
    async with Simulator(SCENARIOS["not_asking"], pki()) as simulator:
        heard = await hear(simulator, request=REQUEST)

    assert heard.data.startswith(b"HTTP/1.1 200")
    assert simulator.record.connections[0].certificate_presented is False


@pytest.mark.parametrize(
    ("door", "tickets"), [(Door.TLS13_REQUIRED, True), (Door.TLS13_REQUIRED_NO_TICKETS, False)]
)
async def test_tickets_are_sent_where_the_door_has_them(door, tickets):
    def has_ticket(port: int, tls: ssl.SSLContext) -> bool:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            tls.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            stream.sendall(REQUEST)
            while stream.recv(65536):
                pass
            return stream.session is not None and stream.session.has_ticket

    async with simulate(SCENARIOS["healthy"], door=door) as simulator:
        tls = context(ClientCertificate.GOOD)
        assert await asyncio.to_thread(has_ticket, simulator.port, tls) is tickets


@pytest.mark.parametrize("defect", [*ALERTS, ClientCertificate.NONE])
@pytest.mark.parametrize("version", list(TlsVersion))
@pytest.mark.parametrize("door", [Door.CLOSING_WITHOUT_ALERT, Door.CLOSING_WITH_NOTIFY])
async def test_a_closing_door_closes_on_a_bad_client_without_a_word(door, version, defect):
    scenario = SCENARIOS[f"{door}_tls{version.value.replace('.', '')}_{defect}"]
    async with Simulator(scenario, pki()) as simulator:
        heard = {await hear(simulator, defect, request) for request in (b"", REQUEST) * 3}

    if door is Door.CLOSING_WITH_NOTIFY:
        ends = {("", "", b"")}
    elif version is TlsVersion.TLS_1_2:
        ends = {("handshake", "UNEXPECTED_EOF_WHILE_READING", b"")}
    else:
        ends = {("read", "UNEXPECTED_EOF_WHILE_READING", b"")}
    assert {(one.step, one.reason, one.data) for one in heard} == ends
    assert len(simulator.record) == 0


# When the reset comes before ssl asks for the peer's name, the standard library drops its socket
# without closing it.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("plain_http", {"WRONG_VERSION_NUMBER"}),
        ("garbage", {"WRONG_VERSION_NUMBER"}),
        ("accept_and_close", {"UNEXPECTED_EOF_WHILE_READING"}),
        ("reset_after_accept", {"ConnectionResetError"}),
        ("reset_after_client_hello", {"ConnectionResetError"}),
        # Python 3.11 and 3.13 know this alert under one name.
        ("unrecognized_name", {"TLSV1_UNRECOGNIZED_NAME", "TLSV1_ALERT_UNRECOGNIZED_NAME"}),
        ("protocol_version_alert", {"TLSV1_ALERT_PROTOCOL_VERSION"}),
        ("old_tls_only", {"UNSUPPORTED_PROTOCOL"}),
        ("no_common_cipher", {"SSLV3_ALERT_HANDSHAKE_FAILURE"}),
    ],
)
async def test_a_port_that_is_no_good_door_ends_the_handshake_in_its_own_way(name, reasons):
    async with Simulator(SCENARIOS[name], pki()) as simulator:
        heard = [await hear(simulator) for _ in range(10)]

    # A reset can be faster than the connection attempt that it answers.
    early = {"connect"} if name == "reset_after_accept" else set()
    assert {one.step for one in heard} - early <= {"handshake"}
    assert {one.reason for one in heard} <= reasons


async def test_a_plain_http_port_answers_http_to_whatever_comes():
    async with Simulator(SCENARIOS["plain_http"], pki()) as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(b"\x16\x03\x01")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nBad Request\n")


async def test_a_hanging_port_says_nothing_until_the_client_goes_away():
    async with Simulator(SCENARIOS["accept_and_hang"], pki()) as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(b"anybody there?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (ServerCertificate.EXPIRED, "certificate has expired"),
        (ServerCertificate.NOT_YET_VALID, "certificate is not yet valid"),
        (ServerCertificate.WRONG_NAME, "Hostname mismatch"),
        (ServerCertificate.UNKNOWN_ROOT, "unable to get local issuer certificate"),
        (ServerCertificate.SELF_SIGNED, "self-signed certificate"),
        (ServerCertificate.INTERMEDIATE_MISSING, "unable to get local issuer certificate"),
        (ServerCertificate.CLIENT_AUTH_ONLY, "certificate purpose"),
    ],
)
async def test_a_client_refuses_a_defective_server_for_the_defect(defect, complaint):
    async with simulate(SCENARIOS["healthy"], server_certificate=defect) as simulator:
        heard = await hear(simulator)

    assert heard.step == "handshake"
    assert complaint in heard.reason


@pytest.mark.parametrize(
    "defect",
    [
        ServerCertificate.GOOD,
        ServerCertificate.EXPIRING,
        ServerCertificate.WRONG_ORDER,
        ServerCertificate.DUPLICATE,
        ServerCertificate.UNRELATED_EXTRA,
    ],
)
async def test_a_client_accepts_a_server_that_is_merely_untidy(defect):
    async with simulate(SCENARIOS["healthy"], server_certificate=defect) as simulator:
        heard = await hear(simulator, request=REQUEST)

    assert heard.data.startswith(b"HTTP/1.1 200")
    assert len(simulator.server_certificate.presented) == (
        2 if defect in {ServerCertificate.GOOD, ServerCertificate.EXPIRING} else 3
    )


async def test_the_plain_port_never_asks_for_a_certificate():
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        (answer,) = await post(simulator, LOGIN, port=simulator.plain_port)

    assert answer.text("passwordExpired") == "false"
    (connection,) = simulator.record.connections
    assert (connection.listener, connection.certificate_presented) == (Listener.PLAIN, False)


async def test_stopping_leaves_no_task_and_no_open_port():
    simulator = Simulator(SCENARIOS["accept_and_hang"], pki())
    await simulator.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
    writer.write(b"hello")
    before = asyncio.all_tasks()

    await simulator.stop()

    assert {task for task in before if not task.done()} == {asyncio.current_task()}
    # Cut off without a word, or reset because its greeting was never read.
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"Connect call failed"):
        await asyncio.open_connection("127.0.0.1", simulator.port)


async def test_a_silent_client_is_dropped_after_the_idle_time():
    simulator = Simulator(SCENARIOS["healthy"], pki(), idle=0.05)
    async with simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_every_bad_client_certificate_is_covered_here():
    assert {*ALERTS, *GOOD, ClientCertificate.NONE} == set(ClientCertificate)
    assert client_certificate(ClientCertificate.NONE) is None


async def test_a_name_that_has_several_addresses_is_replaced_by_the_one_it_listens_on():
    async with Simulator(SCENARIOS["healthy"], pki(), host="localhost") as simulator:
        assert simulator.host in {"127.0.0.1", "::1"}
        _, writer = await asyncio.open_connection(simulator.host, simulator.port)
        writer.close()
        await writer.wait_closed()


async def test_a_simulator_that_was_stopped_can_be_started_again_on_its_port():
    simulator = Simulator(SCENARIOS["healthy"], pki())
    ports = []
    for _ in range(2):
        async with simulator:
            ports.append(simulator.port)
            heard = await hear(simulator, request=REQUEST)
            assert heard.data.startswith(b"HTTP/1.1 200")
    assert ports[0] == ports[1]
