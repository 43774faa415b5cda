"""Whatever a web server answers: each answer has its reason, at the door and at the login.

The answers are bytes, sent over real TLS by a simulated door, so that nothing tidies them up on the
way. The login's gate is the real one: only what is about the credentials may stop further logins.
What the scenarios of the simulator already have (`agent.simulator.scenarios.answers`) is not here.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from doors import Stage as Theatre

from agent.diagnosis import diagnose
from agent.gate import Gate, Gatekeeper, Hold
from agent.login.answer import door_verdict
from agent.login.flow import Response
from agent.org import FromFile, PasswordCredentials
from agent.policy import Judgement
from agent.probe.dns import Resolver
from agent.reason import Reason
from agent.result import (
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Probe,
    ProbeResult,
    Skipped,
    Stage,
    Success,
)
from agent.simulator.door import RefusalPage
from agent.simulator.http import NotHttp
from agent.simulator.pages import certificate_error
from agent.simulator.pki import Pki
from agent.simulator.scenario import SCENARIOS
from agent.simulator.server import PASSWORD, USERNAME, Simulator
from agent.simulator.soap import Asked
from agent.store import FILE_NAME, Store

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
FAULTS = "urn:fault.partner.soap.sforce.com"


def fault(code="SERVER_UNAVAILABLE", message="try later"):
    """Return a fault as Salesforce sends it; this one is nobody's fault who logs in."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<soapenv:Envelope xmlns:soapenv="{SOAP}" xmlns:sf="{FAULTS}"><soapenv:Body>'
        f"<soapenv:Fault><faultcode>sf:{code}</faultcode>"
        f"<faultstring>{code}: {message}</faultstring></soapenv:Fault>"
        "</soapenv:Body></soapenv:Envelope>"
    )


FAULT = fault().encode()
CREDENTIALS = fault("INVALID_LOGIN", "Invalid username, password, security token").encode()
PAGE = b"<html><body><h1>Sorry</h1></body></html>"


def http(body: bytes, status="500 Internal Server Error", *headers: str, length=True) -> bytes:
    """Return an answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def html(status: str, *headers: str) -> bytes:
    return http(PAGE, status, "Content-Type: text/html", *headers)


def chunked(*chunks: bytes, end=b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
    return http(body, "500 No", "Transfer-Encoding: chunked", length=False)


def xml(text: str, encoding="utf-8") -> bytes:
    return http(text.encode(encoding))


# However it comes, it is a fault that the application has answered.
READ = {
    "plain": http(FAULT),
    "status-200": http(FAULT, "200 OK"),
    "status-503": http(FAULT, "503 Service Unavailable"),
    "no-reason-phrase": http(FAULT, "500"),
    # --- of another content type
    "as-html": http(FAULT, "500 No", "Content-Type: text/html"),
    "as-json": http(FAULT, "500 No", "Content-Type: application/json"),
    "as-soap-1-2": http(FAULT, "500 No", "Content-Type: application/soap+xml"),
    "as-no-type": http(FAULT, "500 No", "Content-Type:"),
    "as-utf-16": http(FAULT, "500 No", "Content-Type: text/xml; charset=utf-16"),
    # --- in other pieces
    "chunk-by-chunk": chunked(*(FAULT[at : at + 7] for at in range(0, len(FAULT), 7))),
    "chunk-extension": chunked(FAULT).replace(b"\r\n<?", b";a=b\r\n<?"),
    "chunks-and-trailer": chunked(FAULT, end=b"0\r\nX-Checksum: none\r\n\r\n"),
    "until-it-closes": http(FAULT, "500 No", length=False),
    "http-1-0": http(FAULT, length=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "after-100-continue": b"HTTP/1.1 100 Continue\r\n\r\n" + http(FAULT),
    "after-103-hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + http(FAULT),
    "gzip-and-chunks": http(
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(FAULT)), gzip.compress(FAULT)),
        "500 No",
        "Transfer-Encoding: chunked",
        "Content-Encoding: gzip",
        length=False,
    ),
    # --- in other letters
    "utf-8-bom": http(b"\xef\xbb\xbf" + FAULT),
    "utf-16-bom": xml(fault().replace("UTF-8", "UTF-16"), "utf-16"),
    "latin-1": xml(fault(message="später").replace("UTF-8", "ISO-8859-1"), "latin-1"),
    "no-declaration": http(FAULT.partition(b"?>")[2]),
    # --- in other words of XML
    "other-prefixes": xml(
        fault().replace("soapenv:", "S-1:").replace("xmlns:soapenv", "xmlns:S-1")
    ),
    "default-namespace": xml(fault().replace("soapenv:", "").replace("xmlns:soapenv", "xmlns")),
    "prefix-not-declared-in-text": xml(fault().replace(f' xmlns:sf="{FAULTS}"', "")),
    "cdata": xml(fault().replace("try later", "<![CDATA[try <later>]]>")),
    "comments-and-instructions": xml(
        fault().replace("<soapenv:Fault>", "<!-- a --><?b c?><soapenv:Fault>")
    ),
    "character-references": xml(fault().replace("SERVER", "&#83;&#x45;RVER")),
    "a-header-before": xml(
        fault().replace("<soapenv:Body>", "<soapenv:Header><a/></soapenv:Header><soapenv:Body>")
    ),
}

H, X = Reason.HTTP_STATUS, Reason.HTTP_MALFORMED
R, S, E = Reason.HTTP_REDIRECT, Reason.SOAP_MALFORMED, Reason.TLS_EOF
# What comes instead, and why it is no answer.
REFUSED = {
    # --- statuses, with and without a body
    **{
        f"{status}-{what}": (make(f"{status} No"), R if status < 400 else H)
        for status in (
            300,
            301,
            303,
            307,
            308,
            401,
            402,
            404,
            405,
            407,
            429,
            500,
            502,
            503,
            504,
            529,
        )
        for what, make in (("page", html), ("empty", lambda status: http(b"", status)))
    },
    "304": (http(b"", "304 Not Modified", length=False), R),
    "301-away": (html("301 Moved", "Location: https://example.com/?sid=1"), R),
    "301-nowhere": (html("301 Moved", "Location: http://[::1:/%"), R),
    "401-basic": (html("401 No", 'WWW-Authenticate: Basic realm="x"'), H),
    "429-later": (http(b"", "429 Too Many Requests", "Retry-After: 3600"), H),
    "599": (html("599 What"), H),
    "status-99": (http(FAULT, "099 What"), X),
    "204": (http(b"", "204 No Content", length=False), S),
    "101": (http(b"", "101 Switching Protocols", "Upgrade: h2c", length=False), X),
    # --- no SOAP
    "json": (http(b'[{"errorCode":"X"}]', "200 OK", "Content-Type: application/json"), S),
    "only-spaces": (http(b" \r\n ", "200 OK"), S),
    "zeros": (http(b"\0" * 100, "200 OK"), S),
    "spaces-before-the-declaration": (http(b"\n" + FAULT, "200 OK"), S),
    "unknown-encoding": (http(FAULT.replace(b"UTF-8", b"EBCDIC-X"), "200 OK"), S),
    "wrong-encoding": (http(FAULT.replace(b"UTF-8", b"UTF-16"), "200 OK"), S),
    "overlong-utf-8": (http(FAULT.replace(b"try", b"\xc0\xaf"), "200 OK"), S),
    "surrogates": (http(FAULT.replace(b"try", b"\xed\xa0\x80"), "200 OK"), S),
    "external-entity": (
        http(
            b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
            + FAULT.partition(b"?>")[2].replace(b"try", b"&e;"),
            "200 OK",
        ),
        S,
    ),
    "parameter-entity": (
        http(b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/">%p;]><x/>', "200 OK"),
        S,
    ),
    "undeclared-entity": (http(FAULT.replace(b"try", b"&nbsp;"), "200 OK"), S),
    "undeclared-prefix": (http(FAULT.replace(b"xmlns:soapenv", b"xmlns:other"), "200 OK"), S),
    "two-roots": (http(FAULT + FAULT, "200 OK"), S),
    "an-attribute-twice": (http(b'<a b="1" b="2"/>', "200 OK"), S),
    "other-namespace": (http(FAULT.replace(SOAP.encode(), b"urn:other"), "200 OK"), S),
    # Without a prefix, its Body looks like that of a web page.
    "no-namespace": (http(FAULT.replace(b"soapenv:", b""), "200 OK", "Content-Type: text/html"), S),
    "half-an-envelope": (http(FAULT[:90], "200 OK", "Content-Type: text/html"), S),
    "an-envelope-in-a-page": (
        http(b"<html><body>" + FAULT + b"</body></html>", "200 OK", "Content-Type: text/xml"),
        Reason.HTML_UNEXPECTED,
    ),
    "a-page-about-envelopes": (
        http(b"Envelope not found", "200 OK", "Content-Type: text/html"),
        Reason.HTML_UNEXPECTED,
    ),
    "an-empty-body": (
        http(f'<a:Envelope xmlns:a="{SOAP}"><a:Body/></a:Envelope>'.encode(), "200 OK"),
        S,
    ),
    # --- broken compression; what is said to be something else is in test_conversation
    "half-a-gzip": (http(gzip.compress(FAULT)[:40], "200 OK", "Content-Encoding: gzip"), S),
    "gzip-of-nothing": (http(b"", "200 OK", "Content-Encoding: gzip"), S),
    # --- broken HTTP
    "nothing": (b"", E),
    "half-a-status": (b"HTTP/1.1 20", E),
    "half-a-head": (b"HTTP/1.1 200 OK\r\nContent-Le", E),
    "half-a-body": (http(FAULT, "200 OK")[:-40], E),
    "half-a-chunk": (chunked(FAULT, end=b"ff\r\n<a"), E),
    "no-last-chunk": (chunked(FAULT, end=b""), E),
    "ten-gigabytes-announced": (
        http(FAULT, "200 OK", "Content-Length: 9999999999", length=False),
        E,
    ),
    "bad-chunk-size": (chunked(FAULT, end=b"zz\r\n"), X),
    "negative-length": (http(FAULT, "200 OK", "Content-Length: -1", length=False), X),
    "two-lengths": (http(FAULT, "200 OK", "Content-Length: 3"), X),
    "unknown-transfer": (
        http(FAULT, "200 OK", "Transfer-Encoding: rot13", length=False),
        X,
    ),
    "a-head-without-end": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000, X),
    "a-header-without-colon": (http(FAULT, "200 OK", "what is this"), X),
    "a-zero-in-the-head": (http(FAULT, "200 OK", "X-A: \0"), X),
    "http-2": (b"\0\0\x12\x04\0\0\0\0\0" + b"\0" * 18, X),
    "http-0-9": (PAGE, X),
}


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    return Theatre(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("answers"))


@dataclass(frozen=True, slots=True)
class Watched:
    """One org's cycles against a door that gives an answer, with the real gate."""

    theatre: Theatre
    gate: Gate
    login: PasswordCredentials

    async def seen(self, asked: Asked, answer: bytes) -> ProbeResult:
        """Run a cycle in which the door says this when it is asked for that."""
        scenario = replace(SCENARIOS["healthy"], answers={asked: NotHttp(answer)})
        due = {Probe.HANDSHAKE} if asked is Asked.DOOR else {Probe.HANDSHAKE, Probe.LOGIN}
        async with Simulator(scenario, self.theatre.pki) as simulator:
            result = await self.theatre.cycle(
                simulator, Resolver(1), due=frozenset(due), gate=self.gate, login=self.login
            )
            assert simulator.record.logins == (asked is not Asked.DOOR)
        return result

    async def breaker_open(self) -> bool | None:
        await self.gate.refresh()
        return self.gate.limits()[0]


@pytest.fixture
def watched(theatre, tmp_path) -> Iterator[Watched]:
    (tmp_path / "password").write_text(PASSWORD.reveal())
    login = PasswordCredentials(USERNAME, FromFile(str(tmp_path / "password")))

    def now():
        return datetime.now(UTC)

    def open_store(writes):
        return Store.open_or_begin_anew(tmp_path / FILE_NAME, now(), Hold().first, writes)

    keeper = Gatekeeper(open_store, Hold(), {}, now)
    unused = Simulator(SCENARIOS["healthy"], theatre.pki)
    yield Watched(theatre, keeper.gate(theatre.org(unused, login=login)), login)
    keeper.close()


# --- what is read


@pytest.mark.parametrize("name", READ)
async def test_a_fault_is_read_however_it_is_wrapped_and_opens_the_door(name, watched):
    result = await watched.seen(Asked.DOOR, READ[name])

    assert isinstance(result.outcomes[Probe.HANDSHAKE], Success), repr(result)
    assert result.client_auth is ClientAuth.ACCEPTED


@pytest.mark.parametrize("name", READ)
async def test_a_fault_is_read_however_it_is_wrapped_and_says_why_the_login_failed(name, watched):
    result = await watched.seen(Asked.LOGIN, READ[name])

    assert result.outcomes[Probe.LOGIN].reason is Reason.SERVER_ERROR, repr(result)
    assert result.login.code == "SERVER_UNAVAILABLE"
    assert await watched.breaker_open() is False


# --- what is not


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_answer_leaves_the_door_unconfirmed_for_its_own_reason(name, watched):
    answer, reason = REFUSED[name]
    result = await watched.seen(Asked.DOOR, answer)

    assert result.outcomes[Probe.HANDSHAKE].reason is reason, repr(result)
    assert result.client_auth is ClientAuth.UNCONFIRMED
    assert list(result.stages)[-1] is Stage.DOOR
    assert diagnose(result, Judgement((), ())), "and whoever is woken is given a cause"


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_answer_fails_the_login_and_stops_no_other_login(name, watched):
    answer, reason = REFUSED[name]
    result = await watched.seen(Asked.LOGIN, answer)

    assert result.outcomes[Probe.LOGIN].reason is reason, repr(result)
    assert isinstance(result.outcomes[Probe.SESSION], Skipped)
    assert result.client_auth is ClientAuth.ACCEPTED, "the door had opened"
    assert list(result.stages)[-1] is Stage.LOGIN
    assert await watched.breaker_open() is False
    assert PASSWORD.reveal() not in repr(result) + str(result.outcomes)


@pytest.mark.parametrize("make", [html, lambda status: http(b"", status)], ids=["page", "empty"])
async def test_a_403_of_the_door_is_about_the_certificate_and_one_of_the_login_is_not(
    make, watched
):
    door = await watched.seen(Asked.DOOR, make("403 Forbidden"))
    login = await watched.seen(Asked.LOGIN, make("403 Forbidden"))

    assert door.outcomes[Probe.HANDSHAKE].reason is Reason.CLIENT_ACCESS_DENIED
    assert door.client_auth is ClientAuth.SOFT_REJECTED
    assert login.outcomes[Probe.LOGIN].reason is Reason.HTTP_STATUS
    assert login.client_auth is ClientAuth.ACCEPTED
    assert await watched.breaker_open() is False


@pytest.mark.parametrize(
    "wrapped",
    [
        http(CREDENTIALS),
        http(CREDENTIALS, "200 OK", "Content-Type: text/html"),
        http(CREDENTIALS, "403 Forbidden", length=False),
        chunked(CREDENTIALS[:50], CREDENTIALS[50:]),
    ],
    ids=["as-usual", "as-html", "until-it-closes", "chunks"],
)
async def test_a_fault_about_the_credentials_stops_all_logins_however_it_is_wrapped(
    wrapped, watched
):
    result = await watched.seen(Asked.LOGIN, wrapped)

    assert result.outcomes[Probe.LOGIN].reason is Reason.INVALID_LOGIN
    assert await watched.breaker_open() is True


# --- Salesforce's page about the certificate

# X509_verify_cert_error_string of OpenSSL 3.0 and 1.1.1, as far as a client's chain can be meant.
VERIFY_TEXTS = (
    "No client certificate provided.",
    "unable to get issuer certificate",
    "unable to get local issuer certificate",
    "unable to verify the first certificate",
    "self-signed certificate",
    "self signed certificate",
    "self-signed certificate in certificate chain",
    "self signed certificate in certificate chain",
    "certificate is not yet valid",
    "certificate has expired",
    "certificate revoked",
    "certificate rejected",
    "certificate not trusted",
    "certificate signature failure",
    "certificate chain too long",
    "format error in certificate's notBefore field",
    "format error in certificate's notAfter field",
    "unable to decrypt certificate's signature",
    "unable to decode issuer public key",
    "unable to get certificate CRL",
    "CRL has expired",
    "invalid CA certificate",
    "invalid or inconsistent certificate extension",
    "invalid or inconsistent certificate policy extension",
    "path length constraint exceeded",
    "unsuitable certificate purpose",
    "unsupported certificate purpose",
    "unsupported name constraint type",
    "permitted subtree violation",
    "excluded subtree violation",
    "key usage does not include certificate signing",
    "unhandled critical extension",
    "subject issuer mismatch",
    "authority and issuer serial number mismatch",
    "EE certificate key too weak",
    "CA certificate key too weak",
    "CA signature digest algorithm too weak",
    "application verification failure",
    "unspecified certificate verification error",
    "error number 99",
)


@pytest.mark.parametrize("text", VERIFY_TEXTS)
@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_the_page_about_the_certificate_is_a_refusal_whatever_it_says_and_says_what(text, status):
    page = certificate_error(RefusalPage.SALESFORCE, text)
    verdict, failure = door_verdict(Response(status, {"content-type": "text/html"}, page.body))

    assert verdict is ClientAuth.SOFT_REJECTED
    assert failure == Failure(Reason.CLIENT_CERT_PAGE, text)
    handshake = HandshakeOutcome(verdict, certificate_requested=True, certificate_sent=True)
    outcomes = {Probe.HANDSHAKE: failure}
    seen = ProbeResult(
        "org",
        datetime.now(UTC),
        outcomes,
        stages={Stage.DOOR: 0.1},
        handshake=handshake,
        client_auth=verdict,
    )
    assert diagnose(seen, Judgement((), ())), "and there is a cause for whoever is woken"


async def test_the_page_about_the_certificate_at_the_login_stops_no_login(watched):
    page = certificate_error(RefusalPage.SALESFORCE, "certificate has expired")
    answer = http(page.body, "200 OK", "Content-Type: text/html")
    result = await watched.seen(Asked.LOGIN, answer)

    assert result.outcomes[Probe.LOGIN] == Failure(
        Reason.CLIENT_CERT_PAGE, "certificate has expired"
    )
    assert await watched.breaker_open() is False
