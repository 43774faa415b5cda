"""Situations of the endpoint, each by its number in the list."""

from __future__ import annotations

import asyncio
import re
import ssl
import time

import httpx
import pytest
import structlog
from boards import board, org, result
from endpoint import MUTUAL, TLS, serving, write_everybody, write_material

from agent.config import ConfigError
from agent.web.webconfig import read

ALLOWED = f"{MUTUAL}  client_allowed_sans: [prometheus.example, 192.0.2.1]\n"


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint-rows")
    write_everybody(folder)
    return folder


@pytest.fixture
def refused(tmp_path):
    """Return a reader of a bad web-config file that gives its one problem: line, key, message."""
    write_material(tmp_path)

    def refused(text):
        (tmp_path / "web-config.yml").write_text(text)
        with pytest.raises(ConfigError) as error:
            read(tmp_path / "web-config.yml")
        (problem,) = error.value.problems
        return problem.line, problem.key, problem.message

    return refused


@pytest.mark.parametrize(
    ("text", "certificate", "expected"),
    [
        (MUTUAL, "prometheus.example", 200),
        (MUTUAL, "other.example", 200),
        (MUTUAL, "stranger.example", "ALERT_UNKNOWN_CA"),
        (MUTUAL, None, "ALERT_CERTIFICATE_REQUIRED"),
        (ALLOWED, "prometheus.example", 200),
        (ALLOWED, "other.example", 403),
        (ALLOWED, "stranger.example", "ALERT_UNKNOWN_CA"),
        (ALLOWED, None, "ALERT_CERTIFICATE_REQUIRED"),
        (f"{MUTUAL}  client_allowed_sans: [rometheus.example]\n", "prometheus.example", 403),
        (f"{MUTUAL}  client_allowed_sans: ['DNS:prometheus.example']\n", "prometheus.example", 403),
    ],
)
async def test_y163_clients_are_served_or_refused_by_certificate_and_name(
    text, certificate, expected, material
):
    async with serving(material, text) as served:
        if isinstance(expected, int):
            answer = await served.get(certificate=certificate)
            assert answer.status_code == expected
            assert (expected == 200) is ("sfmtls_build_info" in answer.text)
        else:
            with pytest.raises((httpx.ConnectError, ssl.SSLError), match=expected):
                await served.get(certificate=certificate)


def test_y163_to_require_any_certificate_is_refused_because_it_proves_nothing(refused):
    line, key, message = refused(MUTUAL.replace("RequireAndVerify", "RequireAny"))

    assert (line, key) == (4, "tls_server_config.client_auth_type")
    assert message == (
        "RequireAnyClientCert is not supported: nobody would check the certificate; use "
        "RequireAndVerifyClientCert"
    )


@pytest.mark.parametrize(
    ("text", "line", "key", "why"),
    [
        (f"{TLS}  client_auth_type: Sometimes\n", 4, "client_auth_type", "must be one of"),
        (f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n", 1, "client_ca_file",
         "is needed: who issues the certificates of clients"),
        (MUTUAL.replace("clients.pem", "gone.pem"), 5, "client_ca_file", "gone.pem cannot be read"),
        (f"{TLS}  client_ca_file: clients.pem\n", 4, "client_ca_file", "is for a client_auth_type"),
        (f"{TLS}  cipher_suites: [TLS_INVENTED]\n", 4, "cipher_suites[0]", "must be one of TLS_EC"),
        (f"{TLS}  curve_preferences: [CurveInvented]\n", 4, "curve_preferences[0]", "must be one"),
        (f"{TLS}  min_version: TLS111\n", 4, "min_version", "must be one of TLS12, TLS13"),
    ],
)  # fmt: skip
def test_y164_what_the_file_asks_for_in_vain_is_an_error_at_its_line(text, line, key, why, refused):
    at, path, message = refused(text)

    assert (at, path) == (line, f"tls_server_config.{key}")
    assert why in message


async def test_y166_requests_beyond_the_rate_are_429_and_say_when_to_come_again(material):
    text = "rate_limit:\n  interval: 1m\n  burst: 3\n"
    async with serving(material, text) as served:
        answers = [await served.get("/-/healthy") for _ in range(5)]
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=transport) as another:
            other = await another.get(f"http://{served.host}:{served.port}/-/healthy")

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    # Upstream counts all clients together, so that one of them can stop the others' scrapes.
    assert other.status_code == 200


async def test_y166_without_a_rate_or_with_the_rate_0_nobody_is_refused(material):
    for text in ("rate_limit:\n  interval: 0s\n  burst: 3\n", None):
        async with serving(material, text) as served, served.client() as client:
            answers = [await client.get("/-/healthy") for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("text", [None, TLS])
async def test_y168_slow_clients_do_not_hold_up_the_scrapes_of_others(text, material):
    async with serving(material, text) as served:
        slow = [await asyncio.open_connection(served.host, served.port) for _ in range(100)]
        # Some are slow in their head, or in their handshake, and some say nothing at all.
        begin = b"\x16\x03\x01\x02\x00\x01\x00" if text else b"GET /metrics HTTP/1.1\r\nHo"
        for _, writer in slow[1::2]:
            writer.write(begin)
        taken = []
        for _ in range(5):
            for _, writer in slow[1::2]:
                writer.write(b"s")
            began = time.monotonic()
            answer = await served.get()
            taken.append(time.monotonic() - began)
            assert answer.status_code == 200
        for _, writer in slow:
            writer.transport.abort()

    assert max(taken) < 1


async def test_y169_readiness_is_503_before_the_first_round_and_200_after_it_and_liveness_always(
    material,
):
    made = board(org("a"), org("b"))
    seen = []
    async with serving(material, made=made) as served:
        for name in ("a", "b", None):
            ready, alive = await served.get("/-/ready"), await served.get("/-/healthy")
            seen.append((ready.status_code, alive.status_code))
            if name:
                made.record(result(name))

    assert seen == [(503, 200), (503, 200), (200, 200)]
    assert re.search("been probed", ready.text)
