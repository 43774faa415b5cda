import asyncio
import gzip
import signal
import socket
import threading
from contextlib import asynccontextmanager

import httpx
import pytest
import structlog
from boards import NOON, board, org, result
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.metrics import Exposition, Instruments
from agent.web import ListenError, WebServer, create_app
from agent.web.negotiation import accepts_gzip, wants_openmetrics

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(autouse=True)
def logged():
    """Keep our own log lines, which would else be printed at length."""
    with structlog.testing.capture_logs() as entries:
        yield entries


class Recorder(Exposition):
    """An exposition that remembers in which thread it was rendered."""

    threads: tuple[threading.Thread, ...] = ()

    def parts(self, now, *, openmetrics):
        self.threads = (*self.threads, threading.current_thread())
        return super().parts(now, openmetrics=openmetrics)


class Broken(Exposition):
    """An exposition with a bug."""

    def parts(self, now, *, openmetrics):
        raise RuntimeError(f"canary-of-a-bug at {now}, {openmetrics}")


def exposed(made, kind=Exposition):
    return kind(made, Instruments(CollectorRegistry()))


@asynccontextmanager
async def serving(made, *, kind=Exposition, reload=None):
    """Serve a board on a free port; give a client and the exposition."""
    exposition = exposed(made, kind)
    app = create_app(
        exposition,
        readiness=made.every_org_seen,
        now=lambda: NOON,
        reload=reload,
    )
    server = WebServer(app)
    host, port = await server.start("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            yield client, exposition
    finally:
        await server.stop()


async def in_use():
    return True


async def refused():
    return False


async def buggy():
    raise RuntimeError("canary-of-a-bug")


# --- metrics


async def test_metrics_are_the_text_format_by_default():
    made = board(org())
    async with serving(made) as (client, exposition):
        response = await client.get("/metrics", headers={"accept": "*/*"})

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.content == exposition.render(NOON, openmetrics=False)
    assert any(m.name == "sfmtls_org_info" for m in parse_text(response.text))


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
async def test_prometheus_gets_openmetrics(accept):
    async with serving(board(org())) as (client, exposition):
        response = await client.get("/metrics", headers={"accept": accept})

    expected = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert response.headers["content-type"] == expected
    assert response.headers["vary"] == "Accept, Accept-Encoding"
    assert response.content == exposition.render(NOON, openmetrics=True)
    assert any(m.name == "sfmtls_org_info" for m in parse_openmetrics(response.text))


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        (BROWSER, False),
        ("text/plain;version=0.0.4", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ('Application/OpenMetrics-Text; Version="1.0.0"', True),
        ("application/openmetrics-text;version=1.0.0;q=0", False),
        ("application/openmetrics-text;version=1.0.0;q=wrong", False),
        ("application/openmetrics-text;version=1.0.0;q=7", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0.9,text/plain;q=0.3", True),
        (",;,", False),
    ],
)
def test_openmetrics_is_given_to_who_names_it_and_likes_it_no_less(accept, openmetrics):
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept_encoding", "welcome"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("*, gzip;q=0", False),
        ("x-gzip-like", False),
    ],
)
def test_gzip_is_given_to_who_accepts_it(accept_encoding, welcome):
    assert accepts_gzip(accept_encoding) is welcome


async def test_metrics_are_compressed_only_when_that_is_accepted():
    async with serving(board(org())) as (client, exposition):
        async with client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as packed:
            raw = b"".join([chunk async for chunk in packed.aiter_raw()])
        plain = await client.get("/metrics", headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content == exposition.render(NOON, openmetrics=False)
    assert "content-encoding" not in plain.headers


async def test_a_scrape_of_1000_orgs_is_rendered_outside_the_event_loop_s_thread():
    made = board(*(org(f"org{number}") for number in range(1000)))
    for number in range(1000):
        made.record(result(f"org{number}"))
    async with serving(made, kind=Recorder) as (client, exposition):
        response, again = await asyncio.gather(client.get("/metrics"), client.get("/metrics"))

    assert response.content == again.content
    assert response.text.count("\nsfmtls_org_info{") == 1000
    assert exposition.threads
    assert threading.current_thread() not in exposition.threads


async def test_probes_go_on_while_a_scrape_is_rendered():
    class Waiting(Exposition):
        """An exposition that is not done before the loop has turned."""

        turned = threading.Event()
        waited_in_vain = True

        def parts(self, now, *, openmetrics):
            self.waited_in_vain = not self.turned.wait(10)
            return super().parts(now, openmetrics=openmetrics)

    async with serving(board(org()), kind=Waiting) as (client, exposition):
        scrape = asyncio.create_task(client.get("/metrics"))
        healthy = await client.get("/-/healthy")
        exposition.turned.set()
        response = await scrape

    assert (healthy.status_code, response.status_code) == (200, 200)
    assert not exposition.waited_in_vain


# --- health, readiness


async def test_ready_is_503_until_every_org_had_a_cycle_and_healthy_is_200_always():
    made = board(org("a"), org("b"))
    async with serving(made) as (client, _):
        for name, expected in (("a", 503), ("b", 503), (None, 200)):
            ready = await client.get("/-/ready")
            healthy = await client.get("/-/healthy")
            assert (ready.status_code, healthy.status_code) == (expected, 200)
            assert ready.text.endswith("probed yet.\n" if expected == 503 else "been probed.\n")
            if name:
                made.record(result(name))


# --- reload


async def test_reload_is_refused_when_it_is_not_enabled():
    async with serving(board()) as (client, _):
        response = await client.post("/-/reload")

    assert response.status_code == 403
    assert "does not enable" in response.text


async def test_reload_says_that_the_new_configuration_is_in_use():
    async with serving(board(), reload=in_use) as (client, _):
        response = await client.post("/-/reload")

    assert (response.status_code, response.text) == (200, "The configuration was reloaded.\n")


async def test_reload_of_a_bad_configuration_is_500_with_a_sentence_that_quotes_nothing():
    async with serving(board(), reload=refused) as (client, exposition):
        response = await client.post("/-/reload")

    assert response.status_code == 500
    assert response.text.startswith("The new configuration cannot be used, see the log")
    assert errors(exposition) == 0


async def test_reload_is_not_for_get_nor_for_web_pages():
    async with serving(board(), reload=in_use) as (client, _):
        got = await client.get("/-/reload")
        forged = await client.post("/-/reload", headers={"origin": "https://evil.example"})

    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert (forged.status_code, forged.text) == (403, "A web page may not do this.\n")


# --- unknown paths, bugs


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/%2e%2e/etc/passwd", "/-/"])
async def test_an_unknown_path_is_404_in_plain_text(path):
    async with serving(board()) as (client, _):
        response = await client.get(path)

    assert (response.status_code, response.text) == (404, "Not Found")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/nothing"])
async def test_head_gives_the_headers_of_get_and_no_body(path):
    async with serving(board(org())) as (client, _):
        head = await client.head(path)
        get = await client.get(path)

    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/metrics", Exposition), ("/nothing", Exposition), ("/metrics", Broken)],
)
async def test_every_answer_has_the_security_headers_and_names_no_server(path, kind):
    async with serving(board(), kind=kind) as (client, _):
        headers = (await client.get(path)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def errors(exposition):
    return next(
        sample.value
        for metric in exposition.instruments.families()
        for sample in metric.samples
        if sample.name == "sfmtls_internal_errors_total" and sample.labels["component"] == "web"
    )


async def test_a_bug_is_a_bare_500_counted_and_logged_once_and_the_next_request_works(logged):
    async with serving(board(), kind=Broken) as (client, exposition):
        response = await client.get("/metrics")
        healthy = await client.get("/-/healthy")

    assert (response.status_code, response.text) == (500, "Internal error: see the log.\n")
    assert healthy.status_code == 200
    assert errors(exposition) == 1
    assert [(entry["event"], entry["path"]) for entry in logged] == [("request failed", "/metrics")]


async def test_a_bug_in_the_reload_shows_nothing_of_itself():
    async with serving(board(), reload=buggy) as (client, exposition):
        response = await client.post("/-/reload")

    assert (response.status_code, response.text) == (500, "Internal error: see the log.\n")
    assert errors(exposition) == 1


async def test_a_bug_after_the_answer_began_sends_no_half_of_it():
    exposition = exposed(board())
    app = create_app(exposition, readiness=bool, now=lambda: NOON)

    async def half_an_answer(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("canary-of-a-bug")

    app.mount("/half", half_an_answer)
    server = WebServer(app)
    host, port = await server.start("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            response = await client.get("/half/")
            assert (await client.get("/-/healthy")).status_code == 200
    finally:
        await server.stop()

    assert (response.status_code, response.text) == (500, "Internal Server Error\n")
    assert errors(exposition) == 1


# --- the server


async def test_an_address_in_use_is_an_error_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = WebServer(create_app_for_nobody())
        with pytest.raises(ListenError, match="in use"):
            await server.start(*taken.getsockname())
        await server.stop()


async def test_a_host_that_is_not_of_this_machine_is_an_error_that_says_so():
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ListenError) as refused:
            await WebServer(create_app_for_nobody()).start(host, 0)
        assert refused.value.strerror


async def test_an_empty_host_is_every_address_of_both_families():
    server = WebServer(create_app_for_nobody())
    _, port = await server.start("", 0)
    answers = []
    for host in ["127.0.0.1", *(["[::1]"] if socket.has_dualstack_ipv6() else [])]:
        async with httpx.AsyncClient(trust_env=False) as client:
            answers.append((await client.get(f"http://{host}:{port}/-/healthy")).status_code)
    await server.stop()

    assert set(answers) == {200}


async def test_a_server_that_ends_by_itself_is_noticed():
    server = WebServer(create_app_for_nobody())
    with pytest.raises(RuntimeError, match="not started"):
        await server.ended()
    await server.start("127.0.0.1", 0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.ended(), 0.01)
    server._serving[0].cancel()
    await server.ended()
    await server.stop()


def create_app_for_nobody():
    return create_app(exposed(board()), readiness=bool, now=lambda: NOON)


async def test_a_server_that_was_not_started_has_no_address_and_the_real_port_afterwards():
    server = WebServer(create_app_for_nobody())
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address

    given = await server.start("127.0.0.1", 0)
    assert given == server.address
    assert given[1] != 0
    await server.stop()


async def test_after_stop_nobody_listens_and_the_address_can_be_had_again():
    first = WebServer(create_app_for_nobody())
    address = await first.start("127.0.0.1", 0)
    await first.stop()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    second = WebServer(create_app_for_nobody())
    assert await second.start(*address) == address
    await second.stop()


async def test_stop_lets_a_running_request_finish():
    asked = asyncio.Event()
    release = asyncio.Event()

    async def slow_reload():
        asked.set()
        await release.wait()
        return True

    app = create_app(
        exposed(board()),
        readiness=bool,
        now=lambda: NOON,
        reload=slow_reload,
    )
    server = WebServer(app)
    host, port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        request = asyncio.create_task(client.post("/-/reload"))
        await asked.wait()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.2)
        release.set()
        response = await request
        await stopping

    assert response.status_code == 200


@pytest.mark.slow
async def test_stop_is_bounded_when_a_request_never_ends():
    asked = asyncio.Event()

    async def endless_reload():
        asked.set()
        await asyncio.Event().wait()
        return True

    app = create_app(
        exposed(board()),
        readiness=bool,
        now=lambda: NOON,
        reload=endless_reload,
    )
    server = WebServer(app)
    host, port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        request = asyncio.create_task(client.post("/-/reload", timeout=20))
        await asked.wait()
        await asyncio.wait_for(server.stop(), 8)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


async def test_signal_handlers_stay_what_they_were():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = WebServer(create_app_for_nobody())
    await server.start("127.0.0.1", 0)
    while_serving = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    await server.stop()

    assert while_serving == handlers


async def test_requests_are_not_logged(capfd, caplog):
    with caplog.at_level("INFO"):
        async with serving(board()) as (client, _):
            await client.get("/-/healthy")

    assert capfd.readouterr().err == ""
    assert [r for r in caplog.records if not r.name.startswith("httpx")] == []
