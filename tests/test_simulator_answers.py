from __future__ import annotations

import asyncio
import gzip
import http.client
import re
import socket
import ssl
import time
from xml.etree import ElementTree as ET

import pytest
from simulator_client import PATH, context, hear, pki, post

from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, USERNAME, Simulator
from agent.simulator.soap import Asked, call_envelope, login_envelope

LOGIN = login_envelope(USERNAME, PASSWORD)
DOOR = call_envelope("getServerTimestamp")
HEAD = b"POST %s HTTP/1.1\r\nHost: org\r\nContent-Length: %d\r\n"


def request(body: bytes, extra: bytes = b"Connection: close\r\n") -> bytes:
    return HEAD % (PATH.encode(), len(body)) + extra + b"\r\n" + body


async def three_answers(name: str):
    """Ask for door, login and session on a scenario, the session with a true session id."""
    async with Simulator(SCENARIOS[name], pki()) as simulator:
        answers = {}
        session = "none"
        for asked in Asked:
            body = {
                Asked.DOOR: DOOR,
                Asked.LOGIN: LOGIN,
                Asked.SESSION: call_envelope("getUserInfo", session_id=session),
            }[asked]
            (answers[asked],) = await post(simulator, body)
            if found := re.search(rb"<sessionId>([^<]+)<", answers[asked].body):
                session = found[1].decode()
        return answers


@pytest.mark.parametrize("asked", list(Asked))
@pytest.mark.parametrize(
    ("defect", "status", "content"),
    [
        ("maintenance_200", 200, b"We are down for maintenance."),
        ("maintenance_503", 503, b"We are down for maintenance."),
        ("html_unexpected", 200, b"<html>"),
        ("redirect", 302, b""),
        ("status_401", 401, b"no"),
        ("status_403", 403, b"no"),
        ("status_404", 404, b"no"),
        ("status_429", 429, b"no"),
        ("status_500", 500, b"no"),
        ("status_503", 503, b"no"),
        ("empty", 200, b""),
        ("not_soap", 200, b"<ok/>"),
    ],
)
async def test_an_answer_that_is_no_soap_comes_where_the_scenario_says_and_only_there(
    asked, defect, status, content
):
    answers = await three_answers(f"{asked}_{defect}")

    assert answers[asked].status == status
    assert content in answers[asked].body
    assert b"Envelope" not in answers[asked].body
    for other in set(Asked) - {asked}:
        assert b"Envelope" in answers[other].body


async def test_a_redirect_names_another_host():
    answers = await three_answers("login_redirect")

    assert answers[Asked.LOGIN].headers["Location"].startswith("https://renamed.my.salesforce.com/")


@pytest.mark.parametrize("asked", list(Asked))
@pytest.mark.parametrize("defect", ["truncated", "doctype", "entity_bomb", "not_utf8"])
async def test_xml_is_broken_as_the_scenario_says(asked, defect):
    healthy, broken = await three_answers("healthy"), await three_answers(f"{asked}_{defect}")

    ET.fromstring(healthy[asked].body)  # noqa: S314 - our own simulator's answer
    body = broken[asked].body
    match defect:
        case "truncated":
            assert not body.endswith(b"Envelope>")
        case "doctype":
            assert b"?><!DOCTYPE x><soapenv:Envelope" in body
        case "entity_bomb":
            assert body.count(b"<!ENTITY") == 8
            assert b"&l7;" in body
        case "not_utf8":
            with pytest.raises(UnicodeDecodeError):
                body.decode()


async def test_other_envelopes_are_well_formed_but_unexpected():
    wrong = (await three_answers("login_wrong_namespace"))[Asked.LOGIN]
    big = (await three_answers("login_oversize"))[Asked.LOGIN]
    deep = (await three_answers("login_deep"))[Asked.LOGIN]

    assert b"http://www.w3.org/2003/05/soap-envelope" in wrong.body
    assert wrong.text("sessionId")
    assert len(big.body) > 2 << 20
    assert deep.body.count(b"<a>") == deep.body.count(b"</a>") == 20_000


@pytest.mark.parametrize("asked", list(Asked))
async def test_harmless_deliveries_carry_the_ordinary_answer(asked):
    compressed = (await three_answers(f"{asked}_gzip"))[asked]
    chunked = (await three_answers(f"{asked}_chunked"))[asked]
    marked = (await three_answers(f"{asked}_bom"))[asked]

    assert compressed.headers["Content-Encoding"] == "gzip"
    assert b"Envelope" in gzip.decompress(compressed.body)
    assert chunked.headers["Transfer-Encoding"] == "chunked"
    assert b"Envelope" in chunked.body
    assert marked.body.startswith(b"\xef\xbb\xbf<?xml")


@pytest.mark.parametrize("version", ["", "not_http"])
async def test_what_is_not_http_comes_in_its_place(version):
    name = f"login_{version}" if version else "healthy"
    async with Simulator(SCENARIOS[name], pki()) as simulator:
        heard = await hear(simulator, request=request(LOGIN))

    assert heard.data.startswith(b"421 " if version else b"HTTP/1.1 200")


async def test_a_cut_answer_ends_before_its_length():
    async with Simulator(SCENARIOS["login_cut"], pki()) as simulator:
        with pytest.raises(http.client.IncompleteRead) as broken:
            await post(simulator, LOGIN)

    assert len(broken.value.partial) == 100


async def test_a_slow_answer_is_still_coming_when_patience_ends_and_stopping_ends_it():
    async with Simulator(SCENARIOS["login_slow_body"], pki()) as simulator:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            simulator.port,
            ssl=context(ClientCertificate.GOOD),
            server_hostname="localhost",
        )
        writer.write(request(LOGIN))
        first = await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert first.startswith(b"HTTP/1.1 200")
    writer.transport.abort()


async def test_the_connection_is_kept_alive_unless_the_scenario_closes_it():
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        await post(simulator, DOOR, DOOR, LOGIN)
        assert len(simulator.record.connections) == 1

    async with Simulator(SCENARIOS["connection_close"], pki()) as simulator:
        first, *_ = await post(simulator, DOOR, DOOR, LOGIN)
        assert first.headers["Connection"] == "close"
        assert len(simulator.record.connections) == 3


async def test_a_fixed_delay_is_kept():
    async with Simulator(SCENARIOS["slow_but_well"], pki()) as simulator:
        started = time.monotonic()
        (answer,) = await post(simulator, LOGIN)

    assert answer.status == 200
    assert time.monotonic() - started >= 0.15


# --- HTTP itself


async def test_a_client_that_waits_for_100_continue_gets_it():
    def ask(port: int, tls: ssl.SSLContext) -> tuple[bytes, bytes]:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            tls.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            head, _, body = request(LOGIN, b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
            stream.sendall(head + b"\r\n\r\n")
            interim = stream.recv(65536)
            stream.sendall(body)
            return interim, stream.recv(65536)

    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        interim, final = await asyncio.to_thread(
            ask, simulator.port, context(ClientCertificate.GOOD)
        )

    assert interim == b"HTTP/1.1 100 \r\n\r\n"
    assert final.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /services/Soap/u/64.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"404"),
        (request(b"x" * (1 << 20) + b"y"), b"413"),
    ],
)
async def test_a_request_that_makes_no_sense_gets_its_status(data, status):
    async with Simulator(SCENARIOS["healthy"], pki()) as simulator:
        heard = await hear(simulator, request=data)

    assert heard.data[9:12] == status
    assert heard.step == ""
