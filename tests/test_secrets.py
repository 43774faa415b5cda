"""No secret comes out anywhere: canaries over every scenario, and far sides that echo them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import html
import io
import json
import logging
import os
import random
import string
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
import structlog
from fleet import Fleet
from prometheus_client import CollectorRegistry
from test_commands import logged, started
from test_reaching import FakeProxy

from agent import config, credentials, identity, inspection, logs, report, terminal
from agent.config import ConfigError
from agent.credentials import CredentialError, Secret
from agent.gate import Gatekeeper, Hold
from agent.identity import IdentityError
from agent.journal import Journal
from agent.login.answer import WITHHELD
from agent.metrics import Exposition, Instruments
from agent.org import ClientIdentity, FromCredential, FromFile, FromVariable
from agent.policy.tables import shipped_tables
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import Failure, Probe, Success
from agent.revocation import RevocationChecker, RevocationWatch
from agent.runner import OrgRunner, Services
from agent.simulator.directory import host_name
from agent.simulator.http import NotHttp, Response
from agent.simulator.pki import ClientCertificate, KeyForm, Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import Simulator
from agent.simulator.soap import ORGANIZATION_ID, Asked, Fault, LoginAnswer
from agent.state import Board
from agent.status import Desk
from agent.store import Store
from agent.web import StatusSite, create_app

FORMATS = ("json", "logfmt", "console")
FRAGMENT = 8
AT_ONCE = 20


def chance(seed, length, alphabet):
    """Return a text that is the same in every run and like no other text."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


LETTERS = string.ascii_letters + string.digits
# 200 characters, of every kind that XML, TOML, JSON, a URL or a shell could stumble over.
PASSWORD = chance(1, 200, LETTERS + "&<>'\"&<>'\"\\%;$ äöüßéñ€漢字🔑")
TOKEN = chance(2, 24, LETTERS)
PROXY_PASSWORD = chance(3, 40, LETTERS + "@:/&<>")
PASSPHRASE = chance(4, 40, LETTERS + " &<>äö")
# A session begins with the organization's id, which is none.
SESSION_TAIL = chance(5, 80, LETTERS + "._")
SESSION = f"{ORGANIZATION_ID[:15]}!{SESSION_TAIL}"
PROXY_USER = "proxy-agent"


# --- the search


ENCODINGS = (
    str,
    html.escape,
    lambda text: html.escape(text, quote=False),
    lambda text: html.escape(html.escape(text)),
    quote,
    quote_plus,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: repr(text.encode())[2:-1],
    lambda text: text.encode().decode("latin-1"),
)
"""How a text looks in XML, a URL, JSON, a log, a repr, or read in a wrong encoding."""


def in_base64(text):
    """Return the text in base64 as it looks in the middle of anything, whatever is before it."""
    for before in range(3):
        # Its first and last characters depend on the neighbours.
        encoded = base64.b64encode(bytes(before) + text.encode()).decode().rstrip("=")
        yield encoded[2 if before else 0 : -1]


def pieces(text):
    """Return each run of characters of the text that is enough to have leaked."""
    return {text[start : start + FRAGMENT] for start in range(len(text) - FRAGMENT + 1)}


class Canaries:
    """Secrets by name, and the search for any fragment of them in any form."""

    def __init__(self, secrets):
        self._patterns = {}
        for name, text in secrets.items():
            plain = {encode(piece) for piece in pieces(text) for encode in ENCODINGS}
            packed = {piece for encoded in in_base64(text) for piece in pieces(encoded)}
            for pattern in plain | packed:
                folded = pattern.casefold()
                self._patterns.setdefault(folded[:FRAGMENT], []).append((folded, name))

    def find(self, text):
        """Return the secrets of which the text has a fragment, each with where it stands."""
        found = {}
        for line in set(text.casefold().splitlines()):
            windows = {line[i : i + FRAGMENT] for i in range(len(line) - FRAGMENT + 1)}
            for beginning in windows & self._patterns.keys():
                for pattern, name in self._patterns[beginning]:
                    if (at := line.find(pattern)) >= 0:
                        found[name] = line[max(0, at - 80) : at + 80]
        return found


def assert_nothing_found(canaries, said):
    found = {place: hits for place, text in said.items() if (hits := canaries.find(text))}
    assert found == {}


# --- what is said


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("agent")
    levels = root.level, ours.level
    yield
    for handler in [h for h in root.handlers if isinstance(h, logs._Handler)]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.fixture
def written():
    """Log from debug on in all formats at once; give what was written, by format."""
    streams = {name: io.StringIO() for name in FORMATS}
    kept = []
    for name, stream in streams.items():
        logs.configure("debug", name, stream)
        kept += [h for h in logging.getLogger().handlers if isinstance(h, logs._Handler)]
    for handler in kept[:-1]:
        logging.getLogger().addHandler(handler)
    return streams


def graph(thing, seen):
    """Collect every object that a value is made of, by identity."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            graph(getattr(thing, field.name), seen)
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            graph(key, seen)
            graph(value, seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        for value in thing:
            graph(value, seen)


def shown(*things):
    """Return repr and str of everything in the graphs of these values."""
    seen = {}
    for thing in things:
        graph(thing, seen)
    assert not any(isinstance(thing, Secret) for thing in seen.values()), "not even its place"
    return "\n".join({text for thing in seen.values() for text in (repr(thing), str(thing))})


def printed(act):
    """Return what a command writes for people."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        act()
    return stream.getvalue()


async def pages(board, journal):
    """Return every answer of the endpoint, headers included, by request."""

    async def reload():
        return False

    exposition = Exposition(board, Instruments(CollectorRegistry()))
    app = create_app(
        exposition,
        readiness=board.every_org_seen,
        now=lambda: datetime.now(UTC),
        reload=reload,
        pages=StatusSite(
            Desk(board, journal, version="1.0", now=lambda: datetime.now(UTC))
        ).routes(),
    )
    asked = [
        ("GET /", {}),
        ("GET /?q=canary&state=failing&per_page=1000", {}),
        ("GET /api/v1/orgs?per_page=1000", {}),
        ("GET /api/v1/openapi.json", {}),
        *((f"GET /orgs/{snapshot.org.name}", {}) for snapshot in board.snapshots()),
        *((f"GET /api/v1/orgs/{snapshot.org.name}", {}) for snapshot in board.snapshots()),
        ("GET /orgs/nobody", {}),
        ("POST /orgs/nobody/probe?login=true", {}),
        ("POST /api/v1/orgs/nobody/probe", {}),
        ("GET /metrics", {}),
        ("GET /metrics OpenMetrics", {"accept": "application/openmetrics-text;version=1.0.0"}),
        ("GET /-/healthy", {}),
        ("GET /-/ready", {}),
        ("POST /-/reload", {}),
        ("POST /-/reload by a page", {"origin": "https://example.com"}),
        ("GET /-/config", {}),
        ("DELETE /metrics", {}),
    ]
    given = {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        for request, headers in asked:
            method, path, *_ = request.split()
            answer = await client.request(method, path, headers=headers)
            given[request] = f"{answer.headers}\n{answer.text}"
    return given


# --- the run


class Watch:
    """Runs the cycles of orgs that stand before simulated doors, with canaries for all secrets."""

    def __init__(self, folder):
        self.folder = folder
        self.pki = Pki.create(datetime.now(UTC))
        self.environ = {
            "CREDENTIALS_DIRECTORY": str(folder),
            "PASSWORD": PASSWORD,
            "TOKEN": TOKEN,
        }
        self.secrets = {
            "password": PASSWORD,
            "token": TOKEN,
            "proxy password": PROXY_PASSWORD,
            "passphrase": PASSPHRASE,
            "session": SESSION_TAIL,
        }
        (folder / "server-root.pem").write_bytes(self.pki.servers.root_pem())
        for name, text in (
            ("password", PASSWORD),
            ("token", TOKEN),
            ("proxy-password", PROXY_PASSWORD),
            ("passphrase", PASSPHRASE),
        ):
            (folder / name).write_text(text + "\n")
        for defect in ClientCertificate:
            self._deploy(defect)
        self.board = Board()
        self.journal = Journal()
        self.settings = []
        self.results = []
        self.simulators = {}
        self._resolver = Resolver(8)
        self._gatekeeper = Gatekeeper(
            lambda _writes: Store.open(folder / "state.sqlite"),
            Hold(),
            self.environ,
            lambda: datetime.now(UTC),
        )
        self._services = Services(
            board=self.board,
            resolver=self._resolver,
            gatekeeper=self._gatekeeper,
            revocation=RevocationWatch(RevocationChecker(), lambda: datetime.now(UTC)),
            tables=shipped_tables(),
            environ=self.environ,
            now=lambda: datetime.now(UTC),
            clock=time.monotonic,
        )

    def _deploy(self, defect):
        # Whoever presents no certificate has a good one to leave out.
        issued = self.pki.client(defect) or self.pki.client(ClientCertificate.GOOD)
        (self.folder / f"{defect.value}.pem").write_bytes(issued.chain_pem())
        encrypted = issued.key_pem(KeyForm.TRADITIONAL, Secret(PASSPHRASE))
        (self.folder / f"{defect.value}.key").write_bytes(encrypted)
        for kind, key in (("encrypted", encrypted), ("plain", issued.key_pem())):
            lines = [line for line in key.decode().splitlines() if line and "-" not in line]
            body = "".join(line for line in lines if ":" not in line)
            self.secrets[f"{kind} key of {defect.value}"] = body

    @property
    def orgs(self):
        return [org for settings in self.settings for org in settings.orgs.values()]

    async def run(self, scenarios, *, proxies=(None,), password=PASSWORD, services=lambda s: s):
        """Run a cycle of an org for each scenario, some at a time.

        The proxies, None for none, take turns; `password` is the one that is right.
        """
        wanted = services(self._services)
        for start in range(0, len(scenarios), AT_ONCE):
            batch = scenarios[start : start + AT_ONCE]
            await self._run_batch(batch, proxies, password, wanted)

    async def _run_batch(self, scenarios, proxies, password, services):
        async with contextlib.AsyncExitStack() as running:
            text = self._head()
            for number, scenario in enumerate(scenarios):
                simulator = Simulator(
                    scenario,
                    self.pki,
                    username=f"probe@{scenario.name}.example",
                    password=password,
                    security_token=TOKEN,
                )
                service = simulator.service
                service._session_id, service._session_used = SESSION, service.clock()
                await running.enter_async_context(simulator)
                self.simulators[scenario.name] = simulator
                text += self._org(simulator, number, proxies[number % len(proxies)])
            file = self.folder / "config.toml"
            file.write_text(text)
            settings = config.load(file, self.environ)
            self.settings.append(settings)
            await asyncio.gather(*(self._cycle(org, services) for org in settings.orgs.values()))

    async def _cycle(self, org, services):
        self.board.add(org)
        try:
            result = await OrgRunner(org, services).cycle()
            self.results.append(result)
            self.journal.take(result, self.board.get(org.name))
        except ZeroDivisionError:
            # As the daemon does with a bug.
            structlog.get_logger("agent.daemon").exception("a bug stopped this cycle", org=org.name)

    def _head(self):
        return (
            "[agent]\n"
            "timeouts = { dns = 2, proxy = 2, tcp = 2, tls = 0.8, client_auth = 0.1,"
            " http = 1.2, cycle = 8 }\n"
            "[defaults]\n"
            'trust = { system = false, file = "server-root.pem" }\n'
            'private_key_passphrase = { file = "passphrase" }\n'
            f'organization_id = "{ORGANIZATION_ID}"\n'
        )

    def _org(self, simulator, number, proxy):
        scenario = simulator.scenario
        password, token = (
            ('{ file = "password" }', '{ env = "TOKEN" }'),
            ('{ env = "PASSWORD" }', '{ credential = "token" }'),
            ('{ credential = "password" }', '{ file = "token" }'),
        )[number % 3]
        lines = [
            f"[orgs.{scenario.name}]",
            f'host = "{host_name(scenario)}"',
            f'connect_to = "{simulator.host}:{simulator.port}"',
            f'certificate = "{scenario.client_certificate.value}.pem"',
            f'private_key = "{scenario.client_certificate.value}.key"',
            f'username = "{simulator.service.username}"',
            f"password = {password}",
            f"security_token = {token}",
        ]
        if Probe.ENFORCEMENT in scenario.expected:
            lines += ["enforcement = true", f"enforcement_port = {simulator.plain_port}"]
        if proxy is not None:
            lines.append(
                f'proxy = {{ url = "http://127.0.0.1:{proxy.port}", username = "{PROXY_USER}",'
                ' password = { file = "proxy-password" } }'
            )
        return "\n".join(lines) + "\n"

    def close(self):
        self._gatekeeper.close()

    async def everything_said(self, streams):
        """Return all that came out, by where it came out."""
        known = [(result, self.board.get(result.org).judgement) for result in self.results]
        return {
            **{f"log {name}": stream.getvalue() for name, stream in streams.items()},
            **await pages(self.board, self.journal),
            "probe --json": json.dumps(
                [report.cycle(*cycle) for cycle in known], indent=2, ensure_ascii=False
            ),
            "probe": printed(lambda: terminal.print_cycles(known, everything=True)),
            "check": printed(
                lambda: terminal.print_inspections(
                    [inspection.inspect(org, self.environ) for org in self.orgs]
                )
            ),
            "values": shown(self.results, self.board.snapshots(), self.settings),
            **{
                f"file {file.name}": file.read_bytes().decode("latin-1")
                for file in self.folder.glob("state.*")
            },
        }


@pytest.fixture
def watch(tmp_path):
    watch = Watch(tmp_path)
    yield watch
    watch.close()


# --- a password of every kind of character logs in


def named(scenario, *names):
    return [replace(scenario, name=name) for name in names]


async def test_a_long_password_of_all_kinds_of_characters_logs_in_from_every_source(watch):
    assert len(PASSWORD) == 200
    assert set("&<>'\"") < set(PASSWORD)
    assert not PASSWORD.isascii()
    sources = named(SCENARIOS["healthy"], "file", "variable", "credential")

    await watch.run(sources)

    outcomes = {result.org: result.outcomes for result in watch.results}
    assert {type(outcomes[s.name][Probe.LOGIN]) for s in sources} == {Success}, outcomes
    assert {type(outcomes[s.name][Probe.SESSION]) for s in sources} == {Success}
    assert [watch.simulators[s.name].record.logins for s in sources] == [1, 1, 1]
    kinds = {type(org.login.password) for org in watch.orgs}
    assert kinds == {FromFile, FromVariable, FromCredential}


async def test_a_password_that_differs_in_its_last_character_is_refused(watch):
    await watch.run(named(SCENARIOS["healthy"], "file"), password=PASSWORD[:-1] + "?")

    (result,) = watch.results
    assert result.outcomes[Probe.LOGIN].reason is Reason.INVALID_LOGIN


# --- the canaries


async def test_no_secret_comes_out_over_the_whole_list_of_scenarios(watch, written):
    async with FakeProxy(tunnel=True) as proxy:
        await watch.run(list(SCENARIOS.values()), proxies=(None, proxy))
    said = await watch.everything_said(written)

    assert len(watch.results) == len(SCENARIOS) > 250
    logins = sum(simulator.record.logins for simulator in watch.simulators.values())
    assert logins > 100, "the secrets were in use"
    assert any("Proxy-Authorization" in request for request in proxy.requests)
    assert_nothing_found(Canaries(watch.secrets), said)


class Broken:
    """A store with a bug."""

    loss = None
    writes = 0

    def maintenance(self):
        return {}

    def writes_elsewhere(self):
        return 0

    def secret_digest(self, user, parts):
        raise ZeroDivisionError(f"{user} has {len(parts)} parts")

    def close(self):
        pass


async def test_no_secret_is_in_the_traceback_of_a_bug_that_strikes_while_it_is_in_hand(
    watch, written
):
    def broken(services):
        keeper = Gatekeeper(lambda _writes: Broken(), Hold(), watch.environ, services.now)
        return replace(services, gatekeeper=keeper)

    await watch.run(named(SCENARIOS["healthy"], "cursed"), services=broken)

    for text in (stream.getvalue() for stream in written.values()):
        assert "Traceback" in text
        assert "ZeroDivisionError" in text
    assert_nothing_found(
        Canaries(watch.secrets), {name: stream.getvalue() for name, stream in written.items()}
    )


def toml(text):
    return json.dumps(text, ensure_ascii=False)


def test_no_secret_is_in_an_exception_about_a_secret_that_cannot_be_used(watch, tmp_path):
    certificate = FromFile(str(tmp_path / "good.pem"))
    key = FromFile(str(tmp_path / "good.key"))
    (tmp_path / "wrong").write_text(PASSPHRASE[:-1])
    (tmp_path / "control").write_text(f"{PASSWORD}\x01")
    (tmp_path / "marked").write_text(f"\ufeff{PASSWORD}")
    (tmp_path / "latin").write_bytes(PASSWORD.encode() + b"\xff")
    text = (tmp_path / "good.key").read_text()
    (tmp_path / "cut.key").write_text(text[: len(text) // 2])
    (tmp_path / "spoilt.key").write_text(text.replace("\n", f"\n{PASSPHRASE}\n", 4))
    org = '[orgs.emea]\nhost = "emea.my.salesforce.com"\ncertificate = "good.pem"\n'
    (tmp_path / "inline.toml").write_text(
        f'{org}username = "ada"\npassword = {toml(PASSWORD)}\nsecurity_token = {toml(TOKEN)}\n'
        f"private_key_passphrase = {toml(PASSPHRASE)}\n"
        f"proxy = {{ url = {toml(f'http://u:{PROXY_PASSWORD}@proxy:3128')},"
        f" password = {toml(PROXY_PASSWORD)} }}\n"
    )
    (tmp_path / "unclosed.toml").write_text(f"{org}password = {toml(PASSWORD)[:-1]}\n")
    (tmp_path / "key.toml").write_text(f"{org}private_key = {toml(text)}\n")
    attempts = [
        *(
            partial(credentials.read, FromFile(str(tmp_path / name)), environ={})
            for name in ("control", "marked", "latin")
        ),
        partial(credentials.read, FromVariable("P"), environ={"P": f"{PASSWORD}\ud800"}),
        *(
            partial(identity.read, ClientIdentity(certificate, source, secret), environ={})
            for source, secret in (
                (key, FromFile(str(tmp_path / "wrong"))),
                (key, None),
                (FromFile(str(tmp_path / "cut.key")), FromFile(str(tmp_path / "passphrase"))),
                (FromFile(str(tmp_path / "spoilt.key")), FromFile(str(tmp_path / "passphrase"))),
                (FromFile(str(tmp_path / "password")), None),
            )
        ),
        *(
            partial(config.load, tmp_path / name, {})
            for name in ("inline.toml", "unclosed.toml", "key.toml")
        ),
    ]
    said = {}
    for number, attempt in enumerate(attempts):
        with pytest.raises((CredentialError, IdentityError, ConfigError)) as caught:
            attempt()
        trace = "".join(traceback.format_exception(caught.value))
        said[f"{number} {type(caught.value).__name__}"] = f"{trace}\n{caught.value!r}"

    assert len(said) == 12
    assert_nothing_found(Canaries(watch.secrets), said)


# --- far sides that echo

ECHOED = {
    "all": PASSWORD,
    "middle": PASSWORD[60:100],
    "fragment": PASSWORD[100:108],
    "token": TOKEN,
    "both": PASSWORD[-5:] + TOKEN[:5],
}
DISGUISES = {
    "plain": str,
    "upper": str.upper,
    "escaped_twice": html.escape,
    "json": json.dumps,
    "repr": repr,
    "url": lambda text: quote(text, safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}


def answers(text):
    """Return answers of the far side, by what they are, that have the text in them."""
    shown = html.escape(text)
    page = "<html><head><title>{0}</title></head><body><p>Hello {0}</p></body></html>".format
    return {
        "known_fault": Fault("INVALID_LOGIN", f"Invalid: {text} is wrong"),
        "unknown_fault": Fault("NEVER_HEARD_OF", text),
        "parser_fault": Fault("UNKNOWN_EXCEPTION", f'The reference to entity "{text}" must end'),
        "page": Response(200, page(shown).encode(), "text/html"),
        "maintenance": Response(503, page(f"Down for maintenance. {shown}").encode(), "text/html"),
        "certificate": Response(200, page(f"Client certificate error: {shown}").encode()),
        "error": Response(500, f"oops: {text}".encode(), "text/plain"),
    }


def raw_answers(text):
    """Return answers, by what they are, that have the text where HTTP or XML has its own."""
    content, shown = text.encode(), html.escape(text)
    word = "".join(character for character in text if character in LETTERS)
    return {
        "status_line": NotHttp(b"HTTP/1.1 500 " + content + b"\r\nContent-Length: 0\r\n\r\n"),
        "no_status": NotHttp(b"HTTP/1.1 " + content + b"\r\n\r\n"),
        "no_http": NotHttp(content + b"\r\n\r\n"),
        "no_header": NotHttp(b"HTTP/1.1 200 OK\r\n" + content + b"\r\n\r\n"),
        "length": NotHttp(b"HTTP/1.1 200 OK\r\nContent-Length: " + content + b"\r\n\r\n"),
        "chunk": NotHttp(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + content + b"\r\n"
        ),
        "cookie": Response(500, b"no", headers=(("Set-Cookie", f"sid={quote(text)}; Path=/"),)),
        "coding": Response(500, b"no", headers=(("Content-Encoding", word),)),
        "type": Response(500, b"no", f"text/html; charset={word}"),
        "location_host": Response(302, headers=(("Location", f"https://{word[:60]}.example/"),)),
        "location_query": Response(302, headers=(("Location", f"https://x/?p={quote(text)}"),)),
        "location_user": Response(302, headers=(("Location", f"https://u:{quote(text)}@x/"),)),
        "location_bad": Response(302, headers=(("Location", f"https://[{quote(text)}/"),)),
        "cut_xml": Response(200, f"<a>{shown}".encode()),
        "tag": Response(200, f"<a{text}>".encode()),
        "entity": Response(200, f"<a>&{word};</a>".encode()),
        "doctype": Response(200, f"<!DOCTYPE {word}><a/>".encode()),
        "encoding": Response(200, f'<?xml version="1.0" encoding="{word}"?><a/>'.encode()),
        "fault_code": Fault(word[:60], "no"),
    }


def login_echoes():
    healthy = SCENARIOS["healthy"]
    for name, text in ECHOED.items():
        for disguise, encode in DISGUISES.items():
            for kind, answer in answers(encode(text)).items():
                yield replace(
                    healthy, name=f"{kind}-{disguise}-{name}", answers={Asked.LOGIN: answer}
                )
        for kind, answer in raw_answers(text).items():
            yield replace(healthy, name=f"{kind}-{name}", answers={Asked.LOGIN: answer})
    for name, part in (("host", {"server_host": f"{TOKEN}.example"}),
                       ("organization", {"organization_id": TOKEN[:15]})):  # fmt: skip
        yield replace(healthy, name=f"url-{name}", login_answer=LoginAnswer(**part))


def session_echoes():
    of_the_login = ((f"login-{name}", text) for name, text in ECHOED.items())
    echoed = (("all", SESSION), ("fragment", SESSION_TAIL[30:38]), *of_the_login)
    for name, text in echoed:
        for kind, answer in {**answers(text), **raw_answers(text)}.items():
            yield replace(
                SCENARIOS["healthy"], name=f"{kind}-session-{name}", answers={Asked.SESSION: answer}
            )


@pytest.mark.parametrize(
    ("echoes", "probe", "least"),
    [(login_echoes, Probe.LOGIN, 150), (session_echoes, Probe.SESSION, 10)],
)
async def test_no_secret_comes_out_when_the_far_side_echoes_it(
    echoes, probe, least, watch, written
):
    await watch.run(list(echoes()))
    said = await watch.everything_said(written)

    outcomes = [result.outcomes[probe] for result in watch.results]
    assert {type(outcome) for outcome in outcomes} == {Failure}, "every echo was read"
    withheld = sum(outcome.detail.endswith(WITHHELD) for outcome in outcomes)
    assert withheld >= least, "and would have been shown"
    assert_nothing_found(Canaries(watch.secrets), said)


PROXY_ECHO = b"Basic " + base64.b64encode(f"{PROXY_USER}:{PROXY_PASSWORD}".encode())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 %b\r\nProxy-Authenticate: %b\r\n\r\n%b" % ((PROXY_ECHO,) * 3),
        b"HTTP/1.1 %b\r\n\r\n" % PROXY_ECHO,
        b"HTTP/1.1 407 no\r\n%b\r\n\r\n" % PROXY_ECHO,
        b"%b\r\n\r\n" % PROXY_PASSWORD.encode(),
    ],
    ids=["in a refusal", "as status", "as header", "without HTTP"],
)
async def test_no_secret_comes_out_when_a_proxy_echoes_our_credentials(answer, watch, written):
    async with FakeProxy(answer) as proxy:
        await watch.run(named(SCENARIOS["healthy"], "denied"), proxies=(proxy,))
    said = await watch.everything_said(written)

    (result,) = watch.results
    assert result.outcomes[Probe.HANDSHAKE].reason is Reason.PROXY_DENIED
    assert PROXY_ECHO.decode() in proxy.requests[0]
    assert_nothing_found(Canaries(watch.secrets), said)


# --- the search itself


def test_the_search_finds_eight_characters_of_a_secret_in_any_form_and_no_seven():
    canaries = Canaries({"password": PASSWORD, "token": TOKEN})
    for encode in (*ENCODINGS, str.upper):
        for start in range(len(PASSWORD) - FRAGMENT):
            piece = encode(PASSWORD[start : start + FRAGMENT])
            assert "password" in canaries.find(f"before {piece} after")
    for before in ("", "a", "ab", "user:"):
        encoded = base64.b64encode(f"{before}{PASSWORD}".encode()).decode()
        assert "password" in canaries.find(f"Authorization: Basic {encoded}")
    assert canaries.find(f"before {TOKEN[:7]} after {TOKEN[7:14]}") == {}


async def test_a_canary_that_is_planted_is_found_wherever_it_comes_out(watch, written):
    await watch.run(named(SCENARIOS["healthy"], "emea"))
    (result,) = watch.results
    clean = Canaries(watch.secrets)
    assert_nothing_found(clean, await watch.everything_said(written))

    structlog.get_logger("agent.test").debug("planted", detail=PASSWORD[40:60])
    watch.results = [replace(result, outcomes={Probe.LOGIN: Failure(Reason.INTERNAL, TOKEN)})]
    board = watch.board
    board.replace(replace(board.get("emea").org, labels={"team": PASSPHRASE}))
    board.record(watch.results[0], violations=(), not_evaluated=())
    watch.journal.take(watch.results[0], board.get("emea"))
    said = await watch.everything_said(written)
    found = {place: set(clean.find(text)) for place, text in said.items()}

    assert {place: names for place, names in found.items() if names} == {
        "log json": {"password"},
        "log logfmt": {"password"},
        "log console": {"password"},
        "GET /": {"passphrase"},
        "GET /metrics": {"passphrase"},
        "GET /metrics OpenMetrics": {"passphrase"},
        "GET /api/v1/orgs?per_page=1000": {"passphrase"},
        "GET /orgs/emea": {"passphrase", "token"},
        "GET /api/v1/orgs/emea": {"passphrase", "token"},
        "probe": {"token"},
        "probe --json": {"token"},
        "values": {"token", "passphrase"},
    }


# --- processes


def process_file(pid, name):
    return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")


def children_ever(pid):
    """Return the living children and the page faults of those that have ended (proc(5))."""
    alive = {
        stat.parent.name
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := fields_of(stat)) and fields[1] == str(pid)
    }
    return alive, int(fields_of(Path(f"/proc/{pid}/stat"))[8])


def fields_of(stat):
    """Return the fields after the name, from the state on; none when the process has ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


async def test_no_secret_of_the_environment_is_in_a_help_text():
    said = {}
    for words in ((), ("run",), ("probe",), ("inspect",), ("rehearse",), ("breaker", "reset")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", *words, "--help"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PASSWORD": TOKEN, "SFMTLS_AGENT_CONFIG": TOKEN},
        )
        said[" ".join(words)] = (await process.communicate())[0].decode()

    assert all("Usage" in text for text in said.values())
    assert_nothing_found(Canaries({"token": TOKEN}), said)


async def test_a_running_agent_starts_no_process_and_has_no_secret_in_arguments_or_environment(
    tmp_path,
):
    fleet = Fleet(tmp_path, agent='log_level = "debug"')
    simulator = await fleet.add("emea")
    secret = (fleet.folder / "password.txt").read_text()
    key = (fleet.folder / "good.pem").read_text().partition("PRIVATE KEY-----\n")[2]
    canaries = Canaries({"password": secret, "key": key.splitlines()[1]})
    async with started("run", "--config", fleet.file) as process:
        await logged(process, "login success")
        said = {name: process_file(process.pid, name) for name in ("cmdline", "environ")}
        during = children_ever(process.pid)
        await logged(process, "cycle")
        after = children_ever(process.pid)
    await fleet.stop()

    assert simulator.record.logins == 1
    assert "agent" in said["cmdline"]
    assert "PATH=" in said["environ"]
    assert_nothing_found(canaries, said)
    assert during == after == (set(), 0)
    assert children_ever(os.getpid())[1] > 0, "a child that has ended would have been noticed"
