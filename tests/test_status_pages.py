import asyncio
import html
import re
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http import HTTPStatus
from urllib.parse import quote

import httpx
import pytest
import structlog
from boards import ALL_WELL, NOON, board, cause, failed, org, result, violation
from endpoint import hashed
from making import make, world
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from watching import watching

from agent import report
from agent.journal import Journal
from agent.metrics import Exposition, Instruments
from agent.ondemand import DOOR, DOOR_AND_LOGIN, Gone, OnDemand, TooMany, Turns, UnderWay
from agent.org import Endpoint
from agent.policy.rule import Side
from agent.reason import Reason
from agent.result import Probe, SkipCause, Skipped, Success
from agent.status import Asked, Desk
from agent.status.view import State
from agent.web import Guard, StatusSite, create_app
from agent.web.access import _PROVED, NOT_PROVED
from agent.web.forms import Forms

# What a stranger might write where we show it.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></textarea></style><svg onload=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt; &amp; &#x3c;",
    "right \u202e to left \u2066 isolate \u200f mark",
    "bell \x07 escape \x1b[2J null \x00 line\u2028separator",
    "x" * 10_000,
    "漢字" * 3000,
)


@pytest.fixture(autouse=True)
def logged():
    """Keep our own log lines, which would else be printed at length."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def site(made, journal=None, *, ask=None, listen="", now=lambda: NOON):
    # The boards' certificates are none that could be parsed: those of `making` are.
    desk = Desk(
        made, journal or Journal(), version="1.2.3", now=now, anchors=lambda _: world().anchors
    )
    return StatusSite(desk, ask, listen)


def app(made, journal=None, *, guard=None, **differently):
    return create_app(
        Exposition(made, Instruments(CollectorRegistry())),
        readiness=made.every_org_seen,
        now=lambda: NOON,
        guard=guard,
        pages=site(made, journal, **differently).routes(),
    )


@asynccontextmanager
async def asking(made, journal=None, *, host="127.0.0.1", base="http://127.0.0.1", **differently):
    transport = httpx.ASGITransport(app(made, journal, **differently), client=(host, 5))
    async with httpx.AsyncClient(transport=transport, base_url=base) as client:
        yield client


def watched(*orgs, outcomes=ALL_WELL, **judged):
    """Return a board and a journal after one cycle of each org, with chains that can be drawn."""
    made, journal = board(*orgs), Journal()
    w = world()
    for each in orgs:
        seen = result(each.name, outcomes=outcomes)
        seen = replace(
            seen,
            client_chain=judged.pop("chain", w.client_chain),
            handshake=replace(seen.handshake, server_chain=w.server_chain),
        )
        made.record(seen, **judged)
        journal.take(seen, made.get(each.name))
    return made, journal


class Shown(HTMLParser):
    """What a browser would make of a page: its elements and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.words = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


async def shown(client, path, status=HTTPStatus.OK, **differently):
    answer = await client.get(path, **differently)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Shown(answer.text)


# --- pages


async def test_the_fleet_says_who_needs_attention_and_links_to_each_org():
    made, journal = watched(org("good"), org("bad"))
    made.record(result("bad", outcomes=failed(Reason.CLIENT_CERT_UNKNOWN_CA)))
    async with asking(made, journal) as client:
        page = await shown(client, "/")

    assert "1 of 2 orgs needs attention" in page.text
    assert Reason.CLIENT_CERT_UNKNOWN_CA.meaning in page.text
    assert {"/orgs/good", "/orgs/bad"} <= {a["href"] for a in page.of("a") if "href" in a}
    assert page.of("link")[0]["href"] == "/static/failing.svg"
    assert page.text.startswith("✕ 1 of 2")
    # The worst comes first.
    assert page.text.index("client_cert_unknown_ca") < page.text.index("good")


@pytest.mark.parametrize(
    ("outcomes", "violations", "icon", "title"),
    [
        (ALL_WELL, [], "well", "✓ 1 org"),
        (ALL_WELL, [violation()], "warning", "! 1 of 1"),
        (failed(Reason.TLS_EOF), [violation()], "failing", "✕ 1 of 1"),
    ],
)
async def test_title_and_icon_show_trouble(outcomes, violations, icon, title):
    made, journal = watched(org(), outcomes=outcomes, violations=violations)
    async with asking(made, journal) as client:
        for path in ("/", "/orgs/emea"):
            page = await shown(client, path)
            assert page.of("link")[0]["href"] == f"/static/{icon}.svg"
        picture = await client.get(f"/static/{icon}.svg")
        assert title in (await shown(client, "/")).text

    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.text.startswith("<svg")


async def test_filter_sort_and_page_are_in_the_address_and_stay_in_the_links():
    made = board(*(org(f"org{n:03}", labels={"team": f"t{n % 2}"}) for n in range(450)))
    async with asking(made) as client:
        page = await shown(client, "/?state=waiting&q=team%3Dt1&sort=-name&per_page=100&page=2")
        links = [a["href"] for a in page.of("a") if a.get("rel") in {"prev", "next"}]
        first = await shown(client, links[0])

    assert "Page 2 of 3, 225 orgs" in page.text
    assert page.text.index("org249") < page.text.index("org247")
    assert "org248" not in page.text
    wanted = "?state=waiting&q=team%3Dt1&sort=-name"
    assert links == [f"/{wanted}&per_page=100", f"/{wanted}&page=3&per_page=100"]
    assert "org449" in first.text
    hidden = {i["name"]: i["value"] for i in page.of("input") if i.get("type") == "hidden"}
    assert hidden == {"state": "waiting", "sort": "-name"}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/?state=failing", 200, "No org is like that: 1 are watched"),
        ("/?q=%3Cnobody%3E", 200, "none of them matches “<nobody>”"),
        ("/?state=open", 400, "There is no state 'open'; there are failing,"),
        ("/?page=x", 400, "page is a whole number"),
        ("/orgs/emae", 404, "No org is named 'emae'. Perhaps you mean emea"),
        ("/orgs/", 404, "No org is named ''"),
        ("/orgs/a/b", 404, "No org is named 'a/b'"),
        ("/orgs/%ff%fe", 404, "No org is named"),
    ],
)
async def test_nothing_and_nonsense_are_told_in_a_sentence(path, status, words):
    made, journal = watched(org())
    async with asking(made, journal) as client:
        page = await shown(client, path, status)

    assert words in page.text
    assert "/" in [a["href"] for a in page.of("a")]


async def test_an_agent_without_orgs_says_how_to_add_one():
    async with asking(board()) as client:
        page = await shown(client, "/")

    assert "No org is configured. Add one under [orgs.NAME]" in page.text


async def test_a_suspect_network_of_our_own_is_told_before_anybody_looks_elsewhere():
    hosts = (org("a", endpoint=Endpoint("a.example")), org("b", endpoint=Endpoint("b.example")))
    made = board(*hosts)
    for name in ("a", "b"):
        made.record(result(name, outcomes=failed(Reason.DNS_TIMEOUT), stages={}, handshake=None))
    async with asking(made) as client:
        before = await shown(client, "/")
        stages = {next(iter(result().stages)): 0.1}
        for name in ("a", "b"):
            seen = result(name, outcomes=failed(Reason.DNS_TIMEOUT), stages=stages, handshake=None)
            made.record(seen)
        page = await shown(client, "/")

    assert "own network" not in before.text
    assert "this machine's own network seems to be down" in page.text


async def test_an_org_s_page_says_what_to_do_why_and_how_sure():
    likely = cause("client_certificate_expired", "It ran out on Monday.")
    made, journal = watched(
        org(),
        outcomes=failed(Reason.CLIENT_CERT_EXPIRED, "alert certificate_expired"),
        causes={Probe.HANDSHAKE: (likely,)},
        violations=[violation()],
    )
    async with asking(made, journal) as client:
        page = await shown(client, "/orgs/emea?anything=else")

    for words in (
        Reason.CLIENT_CERT_EXPIRED.meaning,
        likely.sentence,
        likely.remedy,
        "likely cause",
        "alert certificate_expired",
        "9 days left",
        "What to do next",
    ):
        assert words in page.text
    runbook = [a["href"] for a in page.of("a") if "runbooks/reasons" in a.get("href", "")]
    assert runbook[0].endswith("/docs/runbooks/reasons/client_cert_expired.md")
    assert [li.get("class") for li in page.of("li")].count("failing") == 1


async def test_both_chains_are_there_with_what_can_be_copied():
    made, journal = watched(org())
    async with asking(made, journal) as client:
        page = await shown(client, "/orgs/emea")

    w = world()
    copied = {button["data-copy"] for button in page.of("button") if "data-copy" in button}
    for certificate in (*w.client_chain, *w.server_chain, w.servers.root.facts):
        assert {certificate.fingerprint_sha256, certificate.serial_number} <= copied
    assert "clientAuth" in page.text
    assert "serverAuth" in page.text


async def test_every_time_has_its_moment_to_point_at():
    made, journal = watched(org())
    async with asking(made, journal, now=lambda: NOON.replace(minute=2)) as client:
        for path in ("/", "/orgs/emea"):
            times = (await shown(client, path)).of("time")
            assert {"datetime": "2026-03-01T12:00:00Z", "title": "2026-03-01 12:00:00 UTC"} in times
            for each in times:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["datetime"])


async def test_nothing_in_a_page_needs_script_or_style_or_another_site():
    made, journal = watched(org(), violations=[violation()])
    async with asking(made, journal) as client:
        for path in ("/", "/orgs/emea", "/orgs/nobody"):
            answer = await client.get(path)
            page = Shown(answer.text)
            assert "<style" not in answer.text
            assert all(s.get("src") == "/static/status.js" for s in page.of("script"))
            for tag, attributes in page.elements:
                assert not any(name.startswith("on") or name == "style" for name in attributes), tag
            for asset in (*page.of("link"), *page.of("script"), *page.of("img")):
                assert (asset.get("href") or asset["src"]).startswith("/static/")
            policy = answer.headers["content-security-policy"]
            assert "'unsafe" not in policy
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("status.css", "text/css"), ("status.js", "text/javascript"), ("well.svg", "image/svg+xml")],
)
async def test_assets_are_served_with_their_type(name, kind):
    async with asking(board()) as client:
        answer = await client.get(f"/static/{name}")
        others = [await client.get(f"/static/{n}") for n in ("nothing.css", "%2e%2e%2fdesk.py", "")]

    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    assert [other.status_code for other in others] == [404, 404, 404]


async def test_a_page_is_compressed_for_who_accepts_it():
    made, journal = watched(org())
    async with asking(made, journal) as client:
        packed = await client.get("/", headers={"accept-encoding": "gzip"})
        plain = await client.get("/", headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


async def test_500_orgs_take_less_than_300_ms_and_probes_go_on_meanwhile():
    names = [f"org{number:03}" for number in range(500)]
    made = board(*map(org, names))
    for number, name in enumerate(names):
        outcomes = failed(Reason.TLS_EOF, "closed") if number % 3 else ALL_WELL
        made.record(result(name, outcomes=outcomes), violations=[violation()])
    threads = []

    def now():
        threads.append(threading.current_thread())
        return NOON

    async with asking(made, now=now) as client:
        await client.get("/?per_page=500")
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            answer = await client.get("/?per_page=500")
            took.append(time.perf_counter() - begun)
            assert answer.text.count("<tr") == 501
            # So that nothing is taken from what was known before.
            for name in names:
                made.skipped(name, Probe.HANDSHAKE, SkipCause.OVERLAP)

    assert min(took) < 0.3, took
    assert threading.current_thread() not in threads


# --- hostile names


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_strangers_write_is_text_and_nothing_else(text):
    name = text.replace("/", "")[:2000]
    leaf = make("leaf", world().clients.intermediate)
    found = replace(leaf.facts, subject=f"CN={text}", issuer=f"CN={text}")
    finding = replace(
        violation(side=Side.CLIENT), message=text, remedy=text, subject=text, reference=text
    )
    hostile = replace(
        org(name, labels={"team": text}), endpoint=Endpoint(f"host{text[:200]}.example")
    )
    made, journal = watched(
        hostile,
        outcomes=failed(Reason.HTML_UNEXPECTED, text),
        violations=[finding],
        causes={Probe.HANDSHAKE: (cause(sentence=text),)},
        chain=(found,),
    )
    async with asking(made, journal) as client:
        plain_made, plain_journal = watched(
            org("plain", labels={"team": "x"}),
            outcomes=failed(Reason.HTML_UNEXPECTED, "x"),
            violations=[replace(finding, message="x", remedy="x", subject="x", reference="x")],
            causes={Probe.HANDSHAKE: (cause(sentence="x"),)},
            chain=(replace(leaf.facts, subject="CN=x", issuer="CN=x"),),
        )
        async with asking(plain_made, plain_journal) as plain:
            for path, twin in (
                ("/", "/"),
                (f"/orgs/{quote(name, safe='')}", "/orgs/plain"),
                (f"/orgs/{quote(name + 'x', safe='')}", "/orgs/nobody"),
            ):
                got = await client.get(path)
                wanted = Shown((await plain.get(twin)).text)
                page = Shown(got.text)
                if "nobody" not in twin:
                    # The same page, but for the words: no text became an element or an attribute.
                    assert [(tag, sorted(attributes)) for tag, attributes in page.elements] == [
                        (tag, sorted(attributes)) for tag, attributes in wanted.elements
                    ]
                assert not set(got.text) & set("\x00\x07\x1b\u202e\u2066\u200f\u2028")
                assert len(got.text) < 40_000
                assert not any(
                    "alert(1)" in a.get("href", "")
                    for a in page.of("a")
                    if a.get("href", "").startswith("javascript")
                )


async def test_hostile_text_is_the_same_text_in_json():
    made, journal = watched(org(), outcomes=failed(Reason.HTML_UNEXPECTED, HOSTILE[0] + "\u202e"))
    async with asking(made, journal) as client:
        answer = await client.get("/api/v1/orgs/emea")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["probes"]["handshake"]["detail"] == HOSTILE[0] + "\u202e"


async def test_a_version_is_escaped_too():
    made = board(org())
    desk = Desk(made, Journal(), version="1<script>", now=lambda: NOON)

    assert html.escape("1<script>") in desk.org_page("emea", Asked()).body.decode()


# --- documents


async def test_an_org_s_document_has_every_key_of_probe_json_with_the_same_values():
    made, journal = watched(
        org(), outcomes=failed(Reason.CLIENT_CERT_BAD), violations=[violation()]
    )
    async with asking(made, journal) as client:
        document = (await client.get("/api/v1/orgs/emea")).json()

    printed = report.cycle(journal.last("emea"), made.get("emea").judgement)
    assert {key: document[key] for key in printed} == printed
    assert set(document) - set(printed) == {
        "status",
        "standings",
        "next_steps",
        "deadlines",
        "recent",
    }


async def test_an_org_that_was_not_probed_has_a_document_that_claims_nothing():
    async with asking(board(org())) as client:
        document = (await client.get("/api/v1/orgs/emea")).json()

    assert (document["healthy"], document["probes"], document["recent"]) == (None, {}, [])
    assert document["status"]["state"] == "waiting"


async def test_the_list_is_paged_and_filtered_as_the_page_is():
    made = board(*(org(f"org{number}") for number in range(5)))
    made.record(result("org3", outcomes=failed(Reason.TLS_EOF)))
    async with asking(made) as client:
        failing = (await client.get("/api/v1/orgs?state=failing")).json()
        second = (await client.get("/api/v1/orgs?sort=name&per_page=2&page=2")).json()
        wrong = await client.get("/api/v1/orgs?state=open")
        unknown = await client.get("/api/v1/orgs/org7")

    assert [each["org"] for each in failing["orgs"]] == ["org3"]
    assert failing["states"]["failing"] == 1
    assert [each["org"] for each in second["orgs"]] == ["org2", "org3"]
    assert (second["pages"], second["matching"], second["total"]) == (3, 5, 5)
    assert (wrong.status_code, "There is no state" in wrong.json()["error"]) == (400, True)
    assert unknown.status_code == 404
    assert set(unknown.json()["near"]) <= {f"org{number}" for number in range(5)}


# --- on demand: for programs


async def test_only_what_the_configuration_enables_is_done():
    made, journal = watched(org())
    async with asking(made, journal) as client:
        answer = await client.post("/api/v1/orgs/emea/probe")
        page = await shown(client, "/orgs/emea")

    assert answer.status_code == 403
    assert "lifecycle" in answer.json()["error"]
    assert page.of("form") == []
    assert "`lifecycle = true` under [web] enables it" in page.text


async def test_the_door_is_tried_and_a_login_only_when_it_is_asked_for(tmp_path):
    async with watching(tmp_path, {"emea": "healthy"}) as w, w.client() as client:
        logins = w.simulators["emea"].record
        door = await client.post("/api/v1/orgs/emea/probe")
        assert logins.logins == 0
        w.ondemand._ended.clear()
        login = await client.post("/api/v1/orgs/emea/probe?login=true")
        assert logins.logins == 1
        other = await client.post("/api/v1/orgs/nobody/probe")
        odd = await client.post("/api/v1/orgs/emea/probe?login=perhaps")

    assert door.json()["probes"]["handshake"]["success"] is True
    assert door.json()["probes"]["login"]["reason"] == "not_due"
    assert login.json()["probes"]["login"]["success"] is True
    assert login.json()["probes"]["session"]["success"] is True
    assert (other.status_code, odd.status_code) == (404, 400)


@pytest.mark.parametrize(
    ("scenario", "defaults", "asked", "logins", "reason"),
    [
        ("invalid_login", "", 3, 1, "breaker_open"),
        ("healthy", "logins_per_hour = 2\nlogin_interval = '1h'", 4, 2, "budget"),
        ("healthy", "", 3, 3, None),
    ],
)
async def test_on_demand_too_budget_and_breaker_decide(  # noqa: PLR0917 - pytest's way
    scenario, defaults, asked, logins, reason, tmp_path
):
    async with (
        watching(tmp_path, {"emea": scenario}, defaults=defaults) as w,
        w.client() as client,
    ):
        for _ in range(asked):
            w.ondemand._ended.clear()
            answer = await client.post("/api/v1/orgs/emea/probe?login=true")
        assert w.simulators["emea"].record.logins == logins

    assert answer.status_code == 200
    found = answer.json()["probes"]["login"]
    assert found["reason"] == reason
    assert found["success"] is (True if reason is None else None)


async def test_50_clicks_a_second_are_one_cycle_in_flight_and_a_few_in_all(tmp_path):
    async with watching(tmp_path, {"emea": "slow_but_well", "apac": "healthy"}) as w:
        async with w.client() as client:

            async def click(number):
                await asyncio.sleep(number / 50)
                return await client.post("/api/v1/orgs/emea/probe?login=true")

            answers = await asyncio.gather(*map(click, range(50)))
        codes = [answer.status_code for answer in answers]
        assert w.simulators["emea"].record.logins == codes.count(200) == 1
        assert w.cycles == 1

    assert set(codes) <= {200, 409, 429}
    for answer in answers:
        if answer.status_code != 200:
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            assert answer.json()["error"].endswith(".")


async def test_a_cycle_that_is_under_way_is_not_joined_by_another(tmp_path):
    async with watching(tmp_path, {"emea": "slow_but_well"}) as w, w.client() as client:
        planned = asyncio.create_task(w.turn("emea"))
        await asyncio.sleep(0)
        answer = await client.post("/api/v1/orgs/emea/probe")
        await planned

    assert answer.status_code == 409
    assert answer.json() == {"error": "The org is being probed at this moment."}


# --- on demand: the turns


async def test_turns_are_taken_one_after_the_other_by_whoever_waits():
    turns, log = Turns(), []

    async def take(who):
        async with turns.of("emea"):
            log.append(f"{who} begins")
            await asyncio.sleep(0)
            log.append(f"{who} ends")

    others = [asyncio.create_task(take(who)) for who in "abcd"]
    await asyncio.sleep(0)
    assert turns.taken("emea")
    assert not turns.taken("apac")
    others[1].cancel()
    await asyncio.gather(*others, return_exceptions=True)

    assert log == [f"{who} {what}" for who in "acd" for what in ("begins", "ends")]
    assert not turns.taken("emea")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def held():
    """Give an OnDemand whose cycles take until they are let go."""
    gate, clock, ran = asyncio.Event(), Clock(), []

    async def run(name, probes):
        ran.append((name, probes))
        await gate.wait()
        return result(name) if name != "gone" else None

    ondemand = OnDemand(run, Turns(), clock)
    yield ondemand, gate, clock, ran
    gate.set()
    await ondemand.drain(1)


async def test_a_second_wish_is_refused_while_one_is_under_way_and_for_a_while_after():
    async with held() as (ondemand, gate, clock, ran):
        first = asyncio.create_task(ondemand.ask("emea", DOOR))
        await asyncio.sleep(0)
        assert await ondemand.ask("emea", DOOR_AND_LOGIN) == UnderWay()
        gate.set()
        assert (await first).org == "emea"
        clock.now = 2.0
        assert await ondemand.ask("emea", DOOR) == TooMany(3.0)
        clock.now = 5.0
        assert (await ondemand.ask("emea", DOOR)).org == "emea"
        assert await ondemand.ask("gone", DOOR) == Gone()
    assert ran == [("emea", DOOR), ("emea", DOOR), ("gone", DOOR)]


async def test_of_many_orgs_only_a_few_are_probed_on_demand_at_once():
    async with held() as (ondemand, gate, _, ran):
        wishes = [asyncio.create_task(ondemand.ask(f"org{n}", DOOR)) for n in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(ran) == 4
        gate.set()
        answers = await asyncio.gather(*wishes)
    assert [isinstance(answer, TooMany) for answer in answers] == [False] * 4 + [True] * 6


async def test_a_cycle_goes_on_when_whoever_asked_is_gone_and_ends_with_the_agent():
    async with held() as (ondemand, _, _, ran):
        wish = asyncio.create_task(ondemand.ask("emea", DOOR))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        wish.cancel()
        await asyncio.sleep(0)
        assert await ondemand.ask("emea", DOOR) == UnderWay()
        await ondemand.drain(0.01)
        assert await ondemand.ask("emea", DOOR) == Gone()
        assert not ondemand._running
    assert len(ran) == 1


# --- on demand: for browsers


def browser(host, origin=..., **more):
    """Return what a browser sends with a form of a page that came from `origin`."""
    sent = {"host": host, "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
    sent["origin"] = f"http://{host}" if origin is ... else origin
    return {name: value for name, value in (sent | more).items() if value is not None}


def asked_by(headers, *, client="127.0.0.1", proved=False, token=""):
    """Return a request as the forms see it."""
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/orgs/emea/probe",
            "query_string": f"token={token}".encode(),
            "headers": [(n.encode(), v.encode()) for n, v in headers.items()],
            "client": (client, 5),
            "state": {_PROVED: proved},
        }
    )


NOT_A_PAGE = "This was not sent by a page of this agent."
OTHER_NAME = "Open this page under localhost or the agent's own address to try things here."
OLD_PAGE = "The page is older than the agent's last start; load it again."


@pytest.mark.parametrize(
    ("headers", "more", "refusal"),
    [
        (browser("127.0.0.1:10843"), {}, None),
        (browser("localhost:10843"), {}, None),
        (browser("[::1]:10843"), {}, None),
        (browser("LOCALHOST:10843", "http://localhost:10843"), {}, None),
        (browser("127.0.0.1:10843", **{"sec-fetch-site": None}), {}, None),
        (browser("agent.example:10843"), {}, None),  # the configured name
        # a name that somebody lets mean this machine
        (browser("evil.example:10843"), {}, OTHER_NAME),
        (browser("127.0.0.1.evil.example"), {}, OTHER_NAME),
        (browser("localhost.evil.example"), {}, OTHER_NAME),
        (browser("evil.example:10843", "http://127.0.0.1:10843"), {}, OTHER_NAME),
        (browser("[::1"), {}, OTHER_NAME),
        (browser(""), {}, OTHER_NAME),
        # a page of another site
        (browser("127.0.0.1:10843", "http://evil.example"), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", "http://127.0.0.1:8000"), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", "http://127.0.0.1"), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", "null"), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", "file://127.0.0.1:10843"), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", None), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", **{"sec-fetch-site": "same-site"}), {}, NOT_A_PAGE),
        (browser("127.0.0.1:10843", **{"sec-fetch-site": "cross-site"}), {}, NOT_A_PAGE),
        # a form without our token
        (browser("127.0.0.1:10843"), {"token": ""}, OLD_PAGE),
        (browser("127.0.0.1:10843"), {"token": "guessed"}, OLD_PAGE),
        (browser("127.0.0.1:10843"), {"token": "%C3%A4"}, OLD_PAGE),
        # somebody else, or through somebody else
        (browser("127.0.0.1:10843"), {"client": "192.0.2.7"}, NOT_PROVED),
        (browser("127.0.0.1:10843", via="1.1 proxy"), {}, NOT_PROVED),
        (browser("127.0.0.1:10843", **{"x-forwarded-for": "127.0.0.1"}), {}, NOT_PROVED),
        # who has proved who they are may use any name, and a proxy
        (browser("monitor.example"), {"client": "192.0.2.7", "proved": True}, None),
        (
            browser("monitor.example", "https://monitor.example", via="1.1 proxy"),
            {"client": "192.0.2.7", "proved": True},
            None,
        ),
        (
            browser("monitor.example", "https://evil.example"),
            {"client": "192.0.2.7", "proved": True},
            NOT_A_PAGE,
        ),
        (
            browser("monitor.example"),
            {"client": "192.0.2.7", "proved": True, "token": "guessed"},
            OLD_PAGE,
        ),
    ],
)
def test_a_form_is_taken_from_our_own_pages_only(headers, more, refusal):
    forms = Forms("agent.example")
    own = forms.token(asked_by(browser("127.0.0.1")))
    request = asked_by(headers, **({"token": own} | more))

    assert forms.refusal(request) == refusal


@pytest.mark.parametrize(
    ("host", "more", "given"),
    [
        ("127.0.0.1:10843", {}, True),
        ("evil.example:10843", {}, False),
        ("127.0.0.1:10843", {"client": "192.0.2.7"}, False),
        ("evil.example", {"client": "192.0.2.7", "proved": True}, True),
    ],
)
def test_the_token_is_given_to_those_only_who_may_use_it(host, more, given):
    forms = Forms("")
    request = asked_by({"host": host}, **more)

    assert (forms.token(request) is not None) is given
    assert bool(forms.why_not(request)) is not given


def test_a_token_is_of_one_process():
    ours, theirs = (
        forms.token(asked_by({"host": "localhost"})) for forms in (Forms(""), Forms(""))
    )

    assert ours != theirs
    assert len(ours) >= 43


def form_of(page, *, login=False):
    (action,) = [
        f["action"]
        for f in page.of("form")
        if f.get("method") == "post" and ("login=true" in f["action"]) is login
    ]
    return action


async def press(client, action, **headers):
    host = client.base_url.netloc.decode()
    return await client.post(action, headers=browser(host, **headers))


async def test_a_button_probes_and_leads_back_to_the_page(tmp_path):
    async with watching(tmp_path, {"emea": "invalid_login"}) as w, w.client() as client:
        await w.look()
        action = form_of(await shown(client, "/orgs/emea"), login=True)
        answer = await press(client, action)
        after = await shown(client, answer.headers["location"])
        assert w.cycles == 2
        again = await press(client, action)
        forged = await press(client, action, origin="http://evil.example")
        bare = await press(client, "/orgs/emea/probe")
        other = await press(client, action.replace("emea", "nobody"))
        assert w.cycles == 2
        assert w.simulators["emea"].record.logins == 1

    assert (answer.status_code, answer.headers["location"]) == (303, "/orgs/emea?tried=login")
    assert "Tried just now, without the login: breaker_open after invalid_login" in after.text
    assert again.status_code == 429
    assert "ask again in" in Shown(again.text).text
    assert {"/orgs/emea", "/"} <= {a["href"] for a in Shown(again.text).of("a")}
    assert (forged.status_code, NOT_A_PAGE in Shown(forged.text).text) == (403, True)
    assert (bare.status_code, "older than" in Shown(bare.text).text) == (403, True)
    assert (other.status_code, "No such org" in other.text) == (404, True)


async def test_what_came_of_a_try_is_told_once_it_is_news_and_not_for_ever():
    made, journal = watched(org())
    moments = iter([NOON, NOON.replace(minute=2)])
    async with asking(made, journal, now=lambda: next(moments)) as client:
        fresh = await shown(client, "/orgs/emea?tried=door")
        old = await shown(client, "/orgs/emea?tried=door")

    assert "Tried just now: the door works." in fresh.text
    assert "Tried just now" not in old.text


async def test_a_page_may_press_no_other_button(tmp_path):
    """The token opens the pages' own forms; what is for programs stays shut to pages."""
    async with watching(tmp_path, {"emea": "healthy"}) as w, w.client() as client:
        token = form_of(await shown(client, "/orgs/emea")).partition("token=")[2]
        answers = [
            await press(client, f"{path}?token={token}")
            for path in ("/-/reload", "/api/v1/orgs/emea/probe")
        ]
        assert w.cycles == 0

    assert [(a.status_code, a.text) for a in answers] == [
        (403, "A web page may not do this.\n")
    ] * 2


async def test_with_a_password_the_page_is_shut_and_its_button_works_from_elsewhere(tmp_path):
    users = f"basic_auth_users:\n  ada: {hashed('right')}\n"
    async with watching(tmp_path, {"emea": "healthy"}, web_config=users) as w:
        async with w.client() as client:
            codes = [
                (await client.get(path)).status_code
                for path in ("/", "/orgs/emea", "/static/status.css", "/api/v1/openapi.json")
            ]
        async with w.client(auth=("ada", "right")) as client:
            action = form_of(await shown(client, "/orgs/emea"))
            answer = await press(client, action, via="1.1 proxy")

    assert codes == [401] * 4
    assert answer.status_code == 303


def test_a_guard_without_file_lets_pages_be_read():
    assert Guard().current.users == {}


async def test_stopping_answers_that_nothing_is_done_any_more():
    made, journal = watched(org())

    async def ask(_name, _probes):
        return Gone()

    async with asking(made, journal, ask=ask) as client:
        answer = await client.post("/api/v1/orgs/emea/probe")

    assert (answer.status_code, "stopping" in answer.json()["error"]) == (503, True)


async def test_a_login_that_was_skipped_on_demand_is_not_taken_for_success():
    made, journal = watched(org(), outcomes={**ALL_WELL, Probe.LOGIN: Skipped(SkipCause.BUDGET)})
    async with asking(made, journal) as client:
        page = await shown(client, "/orgs/emea?tried=login")

    assert "Tried just now, without the login: budget." in page.text
    assert isinstance(journal.last("emea").outcomes[Probe.HANDSHAKE], Success)
    assert State.WELL.meaning in page.text
