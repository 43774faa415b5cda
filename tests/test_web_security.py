"""The endpoint as strangers meet it: who gets in, how, and what they can do to it."""

import asyncio
import contextlib
import os
import random
import re
import socket
import ssl
import time

import bcrypt
import httpx
import pytest
import structlog
from boards import NOON, board, org
from cryptography.hazmat.primitives.serialization import Encoding
from endpoint import (
    MUTUAL,
    TLS,
    Gate,
    client_context,
    hashed,
    pki,
    serving,
    users,
    write_client,
    write_everybody,
    write_material,
)
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse

from agent.certificate import read as read_certificate
from agent.config import ConfigError
from agent.credentials import Secret
from agent.metrics import Exposition, Instruments
from agent.web import Guard, Limits, ListenError, WebServer, create_app
from agent.web.access import CLIENT_CERTIFICATE
from agent.web.address import block, is_loopback
from agent.web.buckets import Buckets
from agent.web.headers import HEADERS
from agent.web.passwords import Passwords, TooMany
from agent.web.sparing import SparingLog

ADA = ("ada", "ada's password")
USERS = users(ada=ADA[1])
GET = b"GET /-/healthy HTTP/1.1\r\nHost: agent\r\n\r\n"


POST = b"POST /-/reload HTTP/1.1\r\nHost: agent\r\n\r\n"


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint")
    write_everybody(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Return a folder whose files a test may change."""
    write_material(tmp_path)
    return tmp_path


# --- TLS


async def speak(served, **differently):
    """Do a handshake with a context that differs; return what was agreed on."""
    context = client_context(served.folder)
    if "ciphers" in differently:
        context.set_ciphers(differently.pop("ciphers"))
    if "curve" in differently:
        context.set_ecdh_curve(differently.pop("curve"))
    for name, value in differently.items():
        setattr(context, name, value)
    _, writer = await asyncio.open_connection(served.host, served.port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    agreed = tls.version(), tls.cipher()[0], tls.selected_alpn_protocol()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return agreed


TLS_1_2 = {"maximum_version": ssl.TLSVersion.TLSv1_2}
AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
SUITES = (
    "  cipher_suites:\n  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n"
    "  - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\n"
)


@pytest.mark.parametrize(
    ("more", "client", "version", "cipher"),
    [
        ("", {}, "TLSv1.3", None),
        ("", TLS_1_2, "TLSv1.2", None),
        ("  max_version: TLS12\n", {}, "TLSv1.2", None),
        (SUITES, TLS_1_2 | {"ciphers": f"{AES_256}:{AES_128}"}, "TLSv1.2", AES_128),
        (f"{SUITES}  prefer_server_cipher_suites: false\n",
         TLS_1_2 | {"ciphers": f"{AES_256}:{AES_128}"}, "TLSv1.2", AES_256),
        (SUITES, TLS_1_2 | {"ciphers": AES_256}, "TLSv1.2", AES_256),
        ("  curve_preferences: [CurveP384]\n", {"curve": "secp384r1"}, "TLSv1.3", None),
        ("  curve_preferences: [X25519]\n", {"curve": "X25519"}, "TLSv1.3", None),
    ],
)  # fmt: skip
async def test_tls_is_spoken_as_configured(more, client, version, cipher, material):
    async with serving(material, TLS + more) as served:
        agreed = await speak(served, **client)
        answer = await served.get("/-/healthy")

    assert agreed[0] == version
    assert cipher in {None, agreed[1]}
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("more", "client", "reason"),
    [
        ("  min_version: TLS13\n", TLS_1_2, "TLSV1_ALERT_PROTOCOL_VERSION"),
        (SUITES, TLS_1_2 | {"ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"},
         "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        ("  curve_preferences: [CurveP384]\n", {"curve": "X25519"},
         "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    ],
)  # fmt: skip
async def test_a_client_with_nothing_in_common_is_refused_in_the_handshake(
    more, client, reason, material
):
    async with serving(material, TLS + more) as served:
        with pytest.raises(ssl.SSLError) as refused:
            await speak(served, **client)

    assert refused.value.reason == reason


async def test_http_1_1_is_agreed_on_and_no_session_can_be_resumed(material):
    async with serving(material, TLS) as served:
        context = client_context(material)
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(served.host, served.port, ssl=context)
        writer.write(GET)
        await reader.readuntil(b"running.\n")
        tls = writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.session is None or not tls.session.has_ticket
        writer.close()


async def test_a_client_that_speaks_no_tls_gets_nothing_and_one_that_does_not_need_it_does(
    material,
):
    async with serving(material, TLS) as served:
        refused = await raw(served, GET)
    async with serving(material) as served:
        assert (await raw(served, GET)).startswith(b"HTTP/1.1 200 OK\r\n")

    assert b"HTTP" not in refused


ALERTS = {
    None: "ALERT_CERTIFICATE_REQUIRED|ALERT_HANDSHAKE_FAILURE",
    "stranger.example": "ALERT_UNKNOWN_CA",
}
VERIFY_IF_GIVEN = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")


@pytest.mark.parametrize(
    ("text", "certificate", "served_to"),
    [
        (TLS, None, True),
        (TLS, "stranger.example", True),
        (VERIFY_IF_GIVEN, None, True),
        (VERIFY_IF_GIVEN, "prometheus.example", True),
        (VERIFY_IF_GIVEN, "stranger.example", False),
        (MUTUAL, "prometheus.example", True),
        (MUTUAL, "stranger.example", False),
        (MUTUAL, None, False),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificates_count_as_configured(  # noqa: PLR0917 - pytest's way
    text, certificate, served_to, version, material, logged
):
    async with serving(material, text) as served:
        context = client_context(material, certificate)
        context.maximum_version = version
        if served_to:
            assert (await served.get("/-/healthy", context=context)).status_code == 200
        else:
            # The client is told why, which asyncio's own TLS does not do.
            with pytest.raises((httpx.ConnectError, ssl.SSLError), match=ALERTS[certificate]):
                await served.get("/-/healthy", context=context)
            (line,) = logged
            missing = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
            reason = missing if certificate is None else "CERTIFICATE_VERIFY_FAILED"
            assert (line["event"], line["reason"], line["client"]) == (
                "a client's TLS handshake failed", reason, "127.0.0.1",
            )  # fmt: skip


async def test_an_intermediate_that_is_named_alone_is_trusted_for_what_it_issued(folder):
    (folder / "clients.pem").write_bytes(
        b"# Autorit\xc3\xa9\n" + pem_of(pki().clients.intermediate)
    )
    write_client(folder, "prometheus.example")
    async with serving(folder, MUTUAL) as served:
        answer = await served.get("/-/healthy", certificate="prometheus.example")

    assert answer.status_code == 200


def pem_of(certificate):
    return ssl.DER_cert_to_PEM_cert(certificate.public_bytes(encoding=Encoding.DER)).encode()


async def test_many_handshakes_at_once_lose_no_first_byte(material):
    async with serving(material, TLS) as served:
        answers = await asyncio.gather(*(served.get("/-/healthy") for _ in range(40)))

    assert {answer.status_code for answer in answers} == {200}


# --- the file and what it names, changed while they are in use


def look(guard):
    """Look until a changed file was the same twice; tell whether it was taken in."""
    return [guard.look(), guard.look()]


async def test_a_changed_password_counts_at_once_on_a_connection_that_lives_on(folder):
    async with serving(folder, USERS) as served, served.client(auth=ADA) as client:
        assert (await client.get("/-/healthy")).status_code == 200
        served.write(users(ada="another"))
        assert look(served.guard) == [False, True]
        assert (await client.get("/-/healthy")).status_code == 401
        assert (await client.get("/-/healthy", auth=("ada", "another"))).status_code == 200


async def test_a_file_that_was_touched_or_put_back_is_no_change(folder):
    async with serving(folder, TLS + USERS) as served:
        before = served.guard.current
        served.write(USERS)
        assert not served.guard.look()
        served.write(TLS + USERS)
        for name in ("web-config.yml", "server.pem"):
            content = (folder / name).read_bytes()
            (folder / "new").write_bytes(content)
            (folder / "new").replace(folder / name)
        assert look(served.guard) == [False, False]
        assert served.guard.current is before


async def test_a_file_is_not_taken_in_while_it_is_being_written(folder):
    whole = USERS + "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n"
    async with serving(folder, TLS + USERS) as served:
        for end in (10, 60, len(USERS), len(whole)):
            served.write(whole[:end])
            assert not served.guard.look()
            assert served.guard.current.context is not None
        assert served.guard.look()
        assert served.guard.current.context is None


@pytest.mark.parametrize("bad", ["", "basic_auth_users:\n  ada: x\n", "\0", None])
async def test_a_bad_file_leaves_the_old_one_in_use_and_is_told_once(bad, folder, logged):
    path = folder / "web-config.yml"
    async with serving(folder, USERS) as served:
        path.unlink()
        if bad is not None:
            path.write_text(bad)
        for _ in range(4):
            assert not served.guard.look()
        assert (await served.get(auth=ADA)).status_code == 200
        assert (await served.get()).status_code == 401
        (line,) = logged
        assert line["event"] == "web-config file not usable, the old one stays"
        assert line["log_level"] == "error"
        assert line["problem"].startswith(str(path))

        # The same again, after it was good, is news again.
        served.write(USERS)
        assert look(served.guard) == [False, False]
        path.write_text(bad or "")
        assert look(served.guard) == [False, False]
        assert len(logged) == 2


async def presented(served):
    """Return the certificate that a new connection gets to see."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(served.host, served.port, ssl=context)
    seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return seen


async def test_a_renewed_certificate_is_presented_to_new_connections_only(folder):
    gate = Gate()
    async with serving(folder, TLS, reload=gate.reload) as served:
        asking = asyncio.create_task(raw(served, POST, context=client_context(folder)))
        await gate.entered.wait()
        before = await presented(served)
        renewed = write_material(folder)
        assert look(served.guard) == [False, True]
        served.server._renew()
        after = await presented(served)
        # A request in hand is answered on its old connection, which ends then.
        gate.open.set()
        answer = await asking

    assert after == renewed.leaf.public_bytes(encoding=Encoding.DER)
    assert before != after
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer


async def test_certificate_and_key_that_do_not_match_are_not_taken_in_until_they_do(folder, logged):
    key = (folder / "server.key").read_bytes()
    async with serving(folder, TLS) as served:
        before = await presented(served)
        certificate = (folder / "server.pem").read_bytes()
        write_material(folder)
        fresh = (folder / "server.key").read_bytes()
        (folder / "server.key").write_bytes(key)
        assert look(served.guard) == [False, False]
        assert await presented(served) == before
        assert "does not belong to" in logged[-1]["problem"]
        (folder / "server.key").write_bytes(fresh)
        assert look(served.guard) == [False, True]
        assert await presented(served) != before
        assert (folder / "server.pem").read_bytes() != certificate


async def test_a_file_that_a_bad_one_names_may_be_mended_alone(folder):
    async with serving(folder, TLS) as served:
        served.write(MUTUAL.replace("clients.pem", "later.pem"))
        assert look(served.guard) == [False, False]
        (folder / "later.pem").write_bytes((folder / "clients.pem").read_bytes())
        assert served.guard.look()
        assert served.guard.current.context.verify_mode is ssl.CERT_REQUIRED


async def test_an_authority_that_is_taken_out_is_trusted_no_more_on_idle_connections_either(folder):
    write_client(folder, "prometheus.example")
    async with serving(folder, MUTUAL) as served, served.client("prometheus.example") as client:
        assert (await client.get("/-/healthy")).status_code == 200
        (folder / "clients.pem").write_bytes(pki().strangers.root_pem())
        assert look(served.guard) == [False, True]
        served.server._renew()
        with pytest.raises(httpx.TransportError):
            await client.get("/-/healthy")


async def test_the_watch_takes_changes_in_by_itself_and_ends_with_the_server(folder):
    path = folder / "web-config.yml"
    path.write_text(USERS)
    guard = Guard(path, seconds=0.02)
    server = WebServer(app(guard=guard), guard)
    host, port = await server.start("127.0.0.1", 0)

    async def asked():
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://{host}:{port}/-/healthy", auth=ADA)).status_code

    assert await asked() == 200
    path.write_text(users(bob="x"))
    await until(lambda: "bob" in guard.current.users)
    assert await asked() == 401
    await server.stop()
    path.write_text(USERS)
    await asyncio.sleep(0.1)

    assert list(guard.current.users) == ["bob"]


async def test_a_bug_in_reading_is_logged_and_counted_and_the_watch_goes_on(folder, logged):
    path = folder / "web-config.yml"
    path.write_text(USERS)
    guard, bugs, changes = Guard(path, seconds=0.02), [], []

    def change():
        changes.append(1)
        raise RuntimeError("canary")

    guard.watch(change, lambda: bugs.append(1))
    for number, text in enumerate((TLS, USERS), start=1):
        path.write_text(text)
        await until(lambda number=number: len(bugs) == number)
    guard.close()

    assert (len(changes), len(bugs)) == (2, 2)
    assert "a bug in the agent" in logged[-1]["event"]


def test_a_bad_file_at_the_start_is_an_error_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read"):
        Guard(tmp_path / "none.yml")


# --- passwords


async def test_a_password_is_asked_for_on_every_path_and_the_right_one_lets_in(material):
    async with serving(material, USERS) as served:
        for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/nothing"):
            answer = await served.get(path)
            assert (answer.status_code, answer.text) == (
                401,
                "A user name and a password are needed.\n",
            )
            challenge = 'Basic realm="sfmtls-agent", charset="UTF-8"'
            assert answer.headers["www-authenticate"] == challenge
        assert (await served.get("/metrics", auth=ADA)).status_code == 200


@pytest.mark.parametrize(
    "auth", [("ada", "wrong"), ("ada", ""), ("bob", ADA[1]), ("", ""), ("Ada", ADA[1])]
)
async def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(auth, material):
    async with serving(material, USERS) as served:
        answer = await served.get(auth=auth)

    assert (answer.status_code, answer.text) == (401, "User name or password is wrong.\n")


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Basic",
        "Basic YWRh",  # ada
        "Basic !!!!",
        "Basic /zox",  # not UTF-8
        "Basic YWRhOmEAYg==",  # a NUL
        "Bearer YWRhOng=",
        "Basic YWRhOng= more",
    ],
)
async def test_what_is_no_basic_authorization_is_none(field, material):
    async with serving(material, USERS) as served:
        answer = await served.get(headers={"authorization": field})

    assert (answer.status_code, answer.text) == (401, "A user name and a password are needed.\n")


async def test_two_authorizations_are_none(material):
    async with serving(material, USERS) as served:
        request = httpx.BasicAuth(*ADA)._auth_header
        once = [("authorization", request)]
        assert (await served.get(headers=once)).status_code == 200
        assert (await served.get(headers=once * 2)).status_code == 401


async def test_a_password_beyond_bcrypt_s_72_bytes_is_cut_as_everywhere(material):
    async with serving(material, users(ada="x" * 72)) as served:
        for password, status in (("x" * 71, 401), ("x" * 72, 200), ("x" * 100, 200)):
            assert (await served.get(auth=("ada", password))).status_code == status


async def test_who_is_known_is_not_slowed_down_by_who_guesses_from_the_same_place(material, logged):
    async with serving(material, USERS) as served:
        assert (await served.get(auth=ADA)).status_code == 200
        began = time.monotonic()
        guesses = [await served.get(auth=("ada", f"guess {n}")) for n in range(12)]
        turns = 4 + time.monotonic() - began
        known = [await served.get(auth=ADA) for _ in range(12)]

    # One of five turns went to the right password; another is due each second.
    refused = [answer.status_code for answer in guesses]
    assert refused[:4] == [401] * 4
    assert set(refused) == {401, 429}
    assert refused.count(401) <= turns
    late = {answer.headers["retry-after"] for answer in guesses if answer.status_code == 429}
    assert late == {"1"}
    assert {answer.status_code for answer in known} == {200}
    # One line a minute, whatever strangers do.
    (line,) = logged
    assert (line["event"], line["why"]) == (
        "a client was refused",
        "user name or password is wrong",
    )
    assert "guess" not in str(logged)


async def test_who_guesses_from_elsewhere_takes_no_turn_of_ours(material):
    async with serving(material, USERS) as served:
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        url = f"http://{served.host}:{served.port}/metrics"
        async with httpx.AsyncClient(transport=transport) as stranger:
            for _ in range(8):
                last = await stranger.get(url, auth=("ada", "guess"))
        first = await served.get(auth=ADA)

    assert (last.status_code, first.status_code) == (429, 200)


async def test_many_guesses_at_once_leave_the_event_loop_and_a_scrape_alone():
    """Cost 11 is some 140 ms each: 60 of them in the loop would stop everything for 8 s."""
    known = {"ada": Secret(hashed(ADA[1], 11))}
    passwords = Passwords()
    assert await passwords.match(known, "192.0.2.1", "ada", ADA[1].encode()) is True

    async def guess(number):
        return await passwords.match(known, f"198.51.100.{number}", "ada", b"guess")

    guesses = [asyncio.create_task(guess(number)) for number in range(60)]
    longest, began = 0.0, time.monotonic()
    while not all(task.done() for task in guesses):
        before = time.monotonic()
        await asyncio.sleep(0.01)
        assert await passwords.match(known, "192.0.2.1", "ada", ADA[1].encode()) is True
        longest = max(longest, time.monotonic() - before)
    took = time.monotonic() - began
    passwords.close()

    answers = [task.result() for task in guesses]
    assert answers.count(False) == 8
    assert answers.count(TooMany(1.0)) == 52
    assert longest < 0.5
    assert took < 8


async def test_an_unknown_user_takes_as_long_as_a_known_one_and_never_gets_in():
    known = {"ada": Secret(hashed("x", 9)), "bob": Secret(hashed("y", 9))}

    async def seconds(user):
        passwords, began = Passwords(), time.perf_counter()
        assert await passwords.match(known, "192.0.2.1", user, b"guess") is False
        passwords.close()
        return time.perf_counter() - began

    taken = {
        user: min([await seconds(user) for _ in range(5)]) for user in ("ada", "eve", "mallory")
    }

    assert min(taken.values()) > 0.5 * max(taken.values()), taken


def test_a_decoy_has_the_cost_of_a_user_s_hash_and_is_always_the_same_for_a_name():
    known = {"ada": Secret(hashed("x", 4)), "bob": Secret(hashed("x", 5))}
    passwords = Passwords()
    decoys = {f"user{n}": passwords._decoy(known, f"user{n}").reveal() for n in range(50)}

    assert {decoy[:7] for decoy in decoys.values()} == {"$2y$04$", "$2y$05$"}
    for user, decoy in decoys.items():
        assert passwords._decoy(known, user).reveal() == decoy
        assert not bcrypt.checkpw(b"", decoy.encode())
    # Another process has other decoys: they cannot be learned in advance.
    others = [Passwords()._decoy(known, "user0").reveal() for _ in range(20)]
    assert len(set(others)) == 2


async def test_what_is_remembered_is_bounded_and_forgotten_with_the_hash():
    passwords = Passwords()
    known = {f"user{n}": Secret(hashed("x")) for n in range(70)}
    for n in range(70):
        assert await passwords.match(known, f"192.0.2.{n}", f"user{n}", b"x") is True
    assert len(passwords._right) == 64

    changed = known | {"user69": Secret(hashed("y"))}
    assert await passwords.match(changed, "192.0.2.99", "user69", b"x") is False
    assert await passwords.match({"z": known["user1"]}, "192.0.2.99", "user69", b"x") is False
    passwords.close()


def test_a_bucket_lets_a_burst_through_and_then_one_at_a_time():
    now = [100.0]
    buckets = Buckets(2.0, 3, lambda: now[0])

    assert [buckets.take("192.0.2.1") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("192.0.2.1") == 2.0
    assert buckets.take("192.0.2.2") == 0
    now[0] += 1.5
    assert buckets.take("192.0.2.1") == 0.5
    now[0] += 0.5
    assert [buckets.take("192.0.2.1") > 0 for _ in range(2)] == [False, True]
    now[0] += 60
    assert [buckets.take("192.0.2.1") > 0 for _ in range(4)] == [False, False, False, True]


def test_a_bucket_is_for_all_addresses_that_a_client_can_choose_among():
    assert block("192.0.2.1") != block("192.0.2.2")
    assert block("2001:db8::1") == block("2001:db8::ffff:2") != block("2001:db8:0:1::1")
    assert block("::ffff:192.0.2.1") == block("192.0.2.1")
    assert block("fe80::1%eth0") == block("fe80::2%eth0")
    assert block("somewhere") == "somewhere"
    buckets = Buckets(1.0, 1)
    for number in range(5000):
        buckets.take(f"10.0.{number // 256}.{number % 256}")
    assert len(buckets._paid) == 4096


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("10.0.0.1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback_is_an_address_of_this_machine_to_itself(host, loopback):
    assert is_loopback(host) is loopback


def test_a_sparing_log_writes_once_a_minute_and_counts_the_rest(logged):
    now = [0.0]
    log = SparingLog("knock", lambda: now[0])
    for seconds in (0, 1, 59, 60, 61, 130):
        now[0] = seconds
        log.warning(at=seconds)

    assert [(line["at"], line.get("kept_back")) for line in logged] == [
        (0, None),
        (60, 2),
        (130, 1),
    ]


# --- what makes the agent do something, and pages of other sites


def app(*, lifecycle=True, guard=None):
    made = board(org())

    async def reload():
        return True

    return create_app(
        Exposition(made, Instruments(CollectorRegistry())),
        readiness=made.every_org_seen,
        now=lambda: NOON,
        reload=reload if lifecycle else None,
        guard=guard,
    )


async def reload_from(host, *, headers=(), state=None, auth=None, **differently):
    """Ask for a reload from an address, as the server passes it on; return status and text."""
    under = app(**differently)

    async def with_state(scope, receive, send):
        scope["state"] = dict(state or {})
        await under(scope, receive, send)

    transport = httpx.ASGITransport(with_state, client=(host, 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        answer = await client.post("/-/reload", headers=dict(headers), auth=auth)
    return answer.status_code, answer.text


RELOADED = (200, "The configuration was reloaded.\n")
NOT_PROVED = (403, "This needs a password, a client certificate, or a local client.\n")
A_PAGE = (403, "A web page may not do this.\n")


@pytest.mark.parametrize(
    ("host", "headers", "expected"),
    [
        ("127.0.0.1", {}, RELOADED),
        ("::1", {}, RELOADED),
        ("::ffff:127.0.0.1", {}, RELOADED),
        ("192.0.2.7", {}, NOT_PROVED),
        ("2001:db8::7", {}, NOT_PROVED),
        ("192.0.2.7", {"x-forwarded-for": "127.0.0.1"}, NOT_PROVED),
        # A proxy on this machine speaks for somebody else.
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, NOT_PROVED),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}, NOT_PROVED),
        ("127.0.0.1", {"via": "1.1 proxy"}, NOT_PROVED),
        ("127.0.0.1", {"origin": "https://evil.example"}, A_PAGE),
        ("127.0.0.1", {"origin": "http://127.0.0.1:10843"}, A_PAGE),
        ("127.0.0.1", {"origin": "null"}, A_PAGE),
        ("127.0.0.1", {"sec-fetch-site": "same-origin"}, A_PAGE),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"},
         (403, "Another site's page may not do this.\n")),
    ],
)  # fmt: skip
async def test_without_authentication_only_a_local_program_may_reload(host, headers, expected):
    assert await reload_from(host, headers=headers) == expected


async def test_reloading_is_off_by_default_for_local_clients_too(material):
    status, text = await reload_from("127.0.0.1", lifecycle=False)
    async with serving(material, lifecycle=False) as served, served.client() as client:
        answer = await client.post("/-/reload")

    assert (status, "does not enable" in text) == (403, True)
    assert (answer.status_code, answer.text) == (status, text)


async def test_with_a_password_or_a_client_certificate_a_remote_client_may_reload(folder):
    (folder / "web-config.yml").write_text(USERS)
    asked = Guard(folder / "web-config.yml")
    issued = pki().client()
    certificate = read_certificate(issued.leaf.public_bytes(encoding=Encoding.DER))

    assert await reload_from("192.0.2.7", guard=asked, auth=ADA) == RELOADED
    assert (await reload_from("192.0.2.7", guard=asked))[0] == 401
    assert (await reload_from("127.0.0.1", guard=asked))[0] == 401
    assert await reload_from("192.0.2.7", state={CLIENT_CERTIFICATE: certificate}) == RELOADED
    # A browser that has either of them is still no program.
    origin = {"origin": "https://evil.example"}
    assert await reload_from("192.0.2.7", guard=asked, auth=ADA, headers=origin) == A_PAGE
    asked.close()


async def test_a_verified_client_certificate_reaches_who_decides(material):
    proxied = {"via": "1.1 proxy"}
    async with serving(material, VERIFY_IF_GIVEN) as served:
        async with served.client("prometheus.example") as client:
            shown = await client.post("/-/reload", headers=proxied)
        async with served.client() as client:
            not_shown = await client.post("/-/reload", headers=proxied)
        assert served.reloads == [1]

    assert (shown.status_code, shown.text) == RELOADED
    assert (not_shown.status_code, not_shown.text) == NOT_PROVED


NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "none"} | NAVIGATION, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "cross-site"} | NAVIGATION, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
         403),
    ],
)  # fmt: skip
async def test_a_page_of_another_site_may_link_here_but_not_read_or_frame(
    headers, status, material
):
    async with serving(material) as served:
        answer = await served.get("/metrics", headers=headers)

    assert answer.status_code == status


# --- answers


async def raw(served, *pieces, pause=0.0, context=None):
    """Send pieces on a connection and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection(served.host, served.port, ssl=context)

    async def send():
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause)
            writer.write(piece)
            await writer.drain()
        if context is None:
            writer.write_eof()

    sending = asyncio.create_task(send())
    got = b""
    with contextlib.suppress(OSError):
        while data := await asyncio.wait_for(reader.read(65536), 10):
            got += data
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    return got


def statuses(answers):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def head(*lines):
    return "\r\n".join(["GET /-/healthy HTTP/1.1", "Host: agent", *lines, "", ""]).encode()


PROTOCOL = [
    (b"\r\n\r\nnonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),  # TLS
    (b"GET /" + b"a" * 40000, 414),
    (head("x: " + "a" * 40000), 431),
    (head(*(f"x{n}: a" for n in range(9000))), 431),
    (head("Content-Length: 1"), 413),
    (head("Content-Length: 99999999999"), 413),
    (head("Transfer-Encoding: chunked"), 413),
    (head("Expect: 100-continue", "Content-Length: 5"), 413),
    (head("Content-Length: x"), 400),
    (head("Content-Length: 1", "Content-Length: 2"), 400),
    (head("Transfer-Encoding: gzip"), 501),
]


@pytest.mark.parametrize(("request_", "status"), PROTOCOL)
async def test_what_is_no_request_is_answered_with_a_bare_sentence_and_the_end(
    request_, status, material
):
    async with serving(material) as served:
        answer = await raw(served, request_)

    first, _, rest = answer.partition(b"\r\n")
    fields, _, body = rest.partition(b"\r\n\r\n")
    sent = {
        name.lower(): value
        for name, _, value in (field.decode().partition(": ") for field in fields.split(b"\r\n"))
    }
    assert first.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert {name: sent[name] for name in HEADERS} == HEADERS
    assert (sent["connection"], sent["content-type"]) == ("close", "text/plain; charset=utf-8")
    assert body.strip().decode() == first.split(b" ", 2)[2].decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 401),
        ("GET", "/nothing", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
        ("DELETE", "/metrics", 405),
        ("TRACE", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
        ("POST", "/-/reload", 500),
    ],
)
async def test_no_answer_tells_what_lies_behind(method, path, status, material):
    async def buggy():
        raise RuntimeError(f"canary-{material}")

    (material / "web-config.yml").write_text(USERS)
    guard = Guard(material / "web-config.yml")
    made = board(org())
    server = WebServer(
        create_app(
            Exposition(made, Instruments(CollectorRegistry())),
            readiness=made.every_org_seen,
            now=lambda: NOON,
            reload=buggy,
            guard=guard,
        ),
        guard,
    )
    host, port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        answer = await client.request(method, path, auth=None if status == 401 else ADA)
    await server.stop()

    assert answer.status_code == status
    whole = f"{answer.headers} {answer.text}".lower()
    for leak in ("canary", str(material), "traceback", "python", "starlette", "h11", "1.2.3", "$2"):
        assert leak not in whole
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


async def test_the_operator_s_headers_are_on_every_answer(material):
    text = "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=9\n"
    async with serving(material, text + "    X-Frame-Options: sameorigin\n") as served:
        ours = await served.get("/-/healthy")
        theirs = await raw(served, b"nonsense\r\n\r\n")

    assert ours.headers["strict-transport-security"] == "max-age=9"
    assert ours.headers.get_list("x-frame-options") == ["sameorigin"]
    assert b"\r\nstrict-transport-security: max-age=9\r\n" in theirs
    assert b"\r\nx-frame-options: sameorigin\r\n" in theirs


async def test_requests_in_one_packet_are_answered_in_turn_and_http_1_0_ends_the_connection(
    material,
):
    async with serving(material) as served:
        two = await raw(served, GET + GET.replace(b"healthy", b"ready"))
        old = await raw(served, b"GET /-/healthy HTTP/1.0\r\n\r\n" + GET)

    assert statuses(two) == [200, 503]
    assert statuses(old) == [200]


async def test_what_would_lead_to_another_protocol_is_answered_like_anything_else(material):
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    async with serving(material) as served:
        assert statuses(await raw(served, upgrade + GET)) == [200, 200]
        connect = b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n"
        assert statuses(await raw(served, connect)) == [404]
        absolute = b"GET http://other/-/healthy HTTP/1.1\r\nHost: other\r\n\r\n"
        assert statuses(await raw(served, absolute)) == [404]


async def test_an_answer_that_contradicts_itself_is_a_bug_of_ours_counted_and_logged(logged):
    async def contradicts(_scope, receive, send):
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        fields = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"two"})

    bugs = []
    server = WebServer(contradicts, bug=lambda: bugs.append(1))
    host, port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(trust_env=False) as client:
        for number in (1, 2):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://{host}:{port}/")
            assert bugs == [1] * number
    await server.stop()

    assert [line["event"] for line in logged] == ["a bug in the agent ended a connection"] * 2


async def test_it_does_not_matter_how_a_request_is_cut_into_pieces(material):
    chance = random.Random(7)
    async with serving(material) as served:
        whole = await raw(served, GET * 2)
        for _ in range(10):
            cuts = sorted(chance.sample(range(1, 2 * len(GET)), 4))
            pieces = [(GET * 2)[i:j] for i, j in zip([0, *cuts], [*cuts, None], strict=True)]
            cut = await raw(served, *pieces, pause=0.001)
            assert without_date(cut) == without_date(whole)


def without_date(answer):
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"date:")]


async def test_noise_is_refused_and_leaves_nothing_behind(material, logged):
    chance = random.Random(11)
    async with serving(material) as served:
        for _ in range(60):
            noise = bytes(chance.choice(b"GET / HTP1.:\r\n\0\xff") for _ in range(200))
            answer = await raw(served, noise + b"\r\n\r\n")
            assert answer == b"" or answer.split()[1] in {b"400", b"431", b"501", b"505", b"413"}
        await until(lambda: not served.server._connections)

    assert [line for line in logged if line["log_level"] != "debug"] == []


# --- slow clients


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def ends_within(served, sent, least, most, context=None):
    """Assert when the server closes a connection on which this was sent; return what it said."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(served.host, served.port, ssl=context)
    writer.write(sent)
    got = b""
    with contextlib.suppress(OSError):
        got = await asyncio.wait_for(reader.read(-1), 10)
    took = time.monotonic() - began
    writer.close()
    assert least <= took < most
    return got


QUICK = Limits(handshake=0.3, head=0.3, idle=0.6, write=0.3, farewell=0.2)


async def test_a_head_that_does_not_come_is_not_waited_for(material):
    async with serving(material, limits=QUICK) as served:
        half = await ends_within(served, GET[:-4], 0.29, 2)
        silent = await ends_within(served, b"", 0.29, 2)
        # After an answer the next request may take longer to begin, and no longer to arrive.
        idle = await ends_within(served, GET, 0.59, 3)
        second = await ends_within(served, GET + GET[:-4], 0.29, 0.6 + 2)

    assert half.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert silent == b""
    assert statuses(idle) == [200]
    assert statuses(second) == [200, 408]


async def test_a_byte_now_and_then_gains_no_time(material):
    async with serving(material, limits=QUICK) as served:
        began = time.monotonic()
        answer = await raw(served, *(bytes([byte]) for byte in GET), pause=0.05)
        took = time.monotonic() - began

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert took < len(GET) * 0.05 + 1


async def test_a_handshake_that_does_not_go_on_is_not_waited_for(material):
    async with serving(material, TLS, limits=QUICK) as served:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            assert await ends_within(served, sent, 0.29, 2) == b""
        await until(lambda: not served.server._connections)
        # One that is done, and then says nothing.
        assert await ends_within(served, b"", 0.29, 2, client_context(material)) == b""


@pytest.mark.parametrize("text", [None, TLS])
async def test_an_answer_that_nobody_takes_is_given_up(text, material):
    async with serving(material, text, limits=QUICK) as served:
        _, writer = await asyncio.open_connection(
            served.host,
            served.port,
            ssl=client_context(material) if text else None,
            limit=1024,
        )
        await until(lambda: served.server._connections)
        (connection,) = served.server._connections
        connection._app = PlainTextResponse("x" * 20_000_000)
        writer.write(GET)
        await until(lambda: connection.phase.name == "WRITING")
        began = time.monotonic()
        await until(lambda: not served.server._connections)
        assert 0.2 < time.monotonic() - began < 3
        assert (await served.get()).status_code == 200
        writer.transport.abort()


@pytest.mark.parametrize("rounds", [20, pytest.param(500, marks=pytest.mark.slow)])
async def test_200_slow_clients_do_not_slow_a_scrape(rounds, material):
    made = board(*(org(f"org{number}") for number in range(20)))
    # Nobody's time is over before the end: 500 rounds take half a minute, and here perhaps more.
    async with serving(material, made=made, limits=Limits(head=90)) as served:
        slow = [await asyncio.open_connection(served.host, served.port) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n")
        taken = []
        for _ in range(rounds):
            for _, writer in slow:
                writer.write(b"x: y\r\n")
            began = time.monotonic()
            assert (await served.get()).status_code == 200
            taken.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        held = len(served.server._connections)
        for _, writer in slow:
            writer.transport.abort()

    assert held >= 200
    assert max(taken) < 1


async def test_when_there_is_no_room_who_keeps_us_waiting_longest_gives_way(material):
    async with serving(material, limits=Limits(connections=8)) as served:
        async with served.client() as known:
            assert (await known.get("/-/healthy")).status_code == 200
            slow = []
            for _ in range(20):
                slow.append(await asyncio.open_connection(served.host, served.port))
                slow[-1][1].write(b"GET / HTTP/1.1\r\n")
            await until(lambda: len(served.server._tasks) == 8)
            # A scraper that was here before keeps its connection, and a new one gets in.
            assert (await known.get("/-/healthy")).status_code == 200
            assert (await served.get("/-/healthy")).status_code == 200
            assert len(known._transport._pool.connections) == 1
        ended = [reader.at_eof() or reader.exception() is not None for reader, _ in slow]
        for _, writer in slow:
            writer.transport.abort()

    assert ended == sorted(ended, reverse=True)
    assert ended.count(False) >= 6


async def test_when_everybody_waits_for_us_the_next_is_sent_away_at_once(material):
    gate = Gate()
    async with serving(material, limits=Limits(connections=1), reload=gate.reload) as served:
        asking = asyncio.create_task(raw(served, POST))
        await gate.entered.wait()
        assert await ends_within(served, GET, 0, 1) == b""
        gate.open.set()
        assert statuses(await asking) == [200]


async def test_answers_that_wait_for_their_clients_give_way_to_the_next(material):
    async with serving(material, limits=Limits(answers=2)) as served:
        greedy = []
        for _ in range(4):
            before = set(served.server._connections)
            _, writer = await asyncio.open_connection(served.host, served.port, limit=1024)
            await until(lambda before=before: set(served.server._connections) - before)
            (connection,) = set(served.server._connections) - before
            connection._app = PlainTextResponse("x" * 20_000_000)
            writer.write(GET)
            await until(lambda connection=connection: connection.phase.name == "WRITING")
            greedy.append((writer, connection))
        held = [connection in served.server._connections for _, connection in greedy]
        assert (await served.get("/metrics")).status_code == 200
        for writer, _ in greedy:
            writer.transport.abort()

    assert held == [False, False, True, True]


async def test_a_crowd_of_scrapes_costs_no_more_than_two_and_each_gets_a_text_of_its_own_time():
    times = iter(range(100))

    class Counting(Exposition):
        def parts(self, now, *, openmetrics):
            assert now == NOON
            time.sleep(0.05)
            yield b"%d %d" % (next(times), openmetrics)

    gate = Gate()
    counting = create_app(
        Counting(board(), Instruments(CollectorRegistry())),
        readiness=bool,
        now=lambda: NOON,
        reload=gate.reload,
    )
    transport = httpx.ASGITransport(counting)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        plain = {"accept-encoding": "identity"}
        first = asyncio.create_task(client.get("/metrics", headers=plain))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(client.get("/metrics", headers=plain))
        crowd = [asyncio.create_task(client.get("/metrics", headers=plain)) for _ in range(30)]
        await asyncio.sleep(0.01)
        # Who goes away takes nothing from the others.
        gone.cancel()
        texts = [(await task).text for task in (first, *crowd)]
        after = (await client.get("/metrics", headers=plain)).text

    assert texts == ["0 0"] + ["1 0"] * 30
    assert after == "2 0"


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None])
async def test_a_flood_on_one_connection_leaves_turns_to_everything_else(request_, material):
    flood = (request_ or b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n") * 4000
    async with serving(material) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(flood)

        async def take():
            while await reader.read(65536):
                pass

        taking, gaps = asyncio.create_task(take()), []
        until_then = time.monotonic() + 0.5
        while time.monotonic() < until_then:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - before)
        began = time.monotonic()
        assert (await served.get()).status_code == 200
        took = time.monotonic() - began
        taking.cancel()
        writer.transport.abort()

    assert max(gaps) < 0.2
    assert took < 0.5


async def test_connections_that_only_wait_end_at_once_when_the_server_stops(material):
    async with serving(material, limits=Limits(drain=5)) as served:
        waiting = [await asyncio.open_connection(served.host, served.port) for _ in range(3)]
        waiting[0][1].write(GET[:-4])
        waiting[1][1].write(GET)
        await waiting[1][0].readuntil(b"running.\n")
        began = time.monotonic()
        await served.server.stop()
        assert time.monotonic() - began < 1
        for _, writer in waiting:
            writer.transport.abort()


# --- sockets that are there already


def listening(family=socket.AF_INET, kind=socket.SOCK_STREAM, address=("127.0.0.1", 0)):
    made = socket.socket(family, kind)
    made.bind(address)
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


async def test_sockets_that_listen_already_are_served_all_of_them_and_the_address_is_the_first_s():
    sockets = [listening(), listening()]
    addresses = [given.getsockname() for given in sockets]
    server = WebServer(app())
    given = await server.start("192.0.2.1", 1, sockets=sockets)
    answers = []
    async with httpx.AsyncClient(trust_env=False) as client:
        for host, port in addresses:
            answers.append((await client.get(f"http://{host}:{port}/-/healthy")).status_code)
    await server.stop()

    assert given == addresses[0]
    assert answers == [200, 200]
    assert [taken.fileno() for taken in sockets] == [-1, -1]


async def test_a_client_that_connected_before_the_agent_began_is_served():
    given = listening()
    reader, writer = await asyncio.open_connection(*given.getsockname())
    writer.write(GET)
    server = WebServer(app())
    await server.start("", 0, sockets=[given])
    answer = await reader.readuntil(b"running.\n")
    writer.close()
    await server.stop()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_socket_that_is_no_tcp_socket_is_refused(tmp_path):
    for wrong in (
        listening(socket.AF_UNIX, address=os.fspath(tmp_path / "s")),
        listening(kind=socket.SOCK_DGRAM),
    ):
        with pytest.raises(ListenError, match="is not a TCP socket"):
            await WebServer(app()).start("", 0, sockets=[wrong])
        wrong.close()


# --- secrets


async def test_no_hash_and_no_password_is_in_a_repr_a_log_line_or_an_answer(folder, logged):
    canary = "canary-password"
    secret = hashed(canary)
    text = f"{TLS}basic_auth_users:\n  ada: {secret}\n"
    async with serving(folder, text) as served:
        answers = [
            await served.get("/metrics", auth=("ada", canary)),
            await served.get("/metrics", auth=("ada", f"{canary}x")),
            await served.get("/metrics", auth=(canary, canary)),
            await served.get("/-/ready", auth=("ada", canary)),
        ]
        served.write(text.replace("ada", "ada:"))
        look(served.guard)
        guard = served.guard
        shown = [
            repr(vars(thing))
            for thing in (guard, guard.passwords, served.server, *served.server._connections)
        ]
        shown.append(repr(guard.current))

    assert [answer.status_code for answer in answers] == [200, 401, 401, 503]
    texts = [*shown, str(logged), *(f"{answer.headers}{answer.text}" for answer in answers)]
    for text in texts:
        assert canary not in text
        assert secret[7:] not in text
        assert "PRIVATE KEY" not in text
