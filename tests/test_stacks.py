"""Servers that nobody here wrote: the verdict and its reason are right for every client.

The tables say what is right on each stack; one test for each cell proves that the agent sees it.
docs/verdicts.md is these tables, written anew with SFMTLS_UPDATE_GOLDEN=1. The versions are those
of Debian 12; what a stack says of a bad certificate changes between versions, that it refuses does
not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import pytest
from doors import TIMEOUTS, Gate, Stage
from stack_servers import VERSIONS, Ports, s_server, started, write_material

from agent import identity, probe
from agent.diagnosis import diagnose
from agent.judge import Judge
from agent.org import Endpoint, FromFile, Org, PasswordCredentials, TrustAnchors
from agent.policy.tables import shipped_tables
from agent.probe import Keys, Plan
from agent.probe.dns import Resolver
from agent.probe.tls import client_context
from agent.reason import Reason
from agent.result import ClientAuth, Failure, Probe, ProbeResult, Refused, Success
from agent.simulator.pki import ClientCertificate, Pki

pytestmark = pytest.mark.component

PAGE: Final = Path(__file__).parent.parent / "docs" / "verdicts.md"
UPDATE: Final = os.environ.get("SFMTLS_UPDATE_GOLDEN") == "1"
PREFACE: Final = """\
# Verdicts

What `sfmtls_client_auth` and the handshake probe's reason are for each client of servers that want
a certificate. A test knocks at every one of these servers with every one of these clients and finds
the cell as it stands here: `tests/test_stacks.py` writes this page and compares the two.

"Untrusted" comes from an authority that the server does not know, "serverAuth only" lacks the
purpose clientAuth, "intermediate missing" is sent without the certificate of its issuer. The reason
is the server's word, not the cause: one cause has many words, and some servers just close, which
proves nothing (`unconfirmed`). [tls_eof](runbooks/reasons/tls_eof.md) tells what to do then.

What the agent says is likely behind it does not depend on the server: `no_certificate_sent`,
`client_certificate_self_signed`, `client_certificate_expired`, `client_certificate_not_yet_valid`,
`client_certificate_not_for_clients` or `client_intermediate_missing`, in every cell of that column
that is not accepted. An untrusted one, whose file has no fault, is `client_issuer_not_accepted`
where the server names those that it accepts, `client_root_unknown` where it does not, and
`closed_after_certificate` where it just closes. [Causes](causes.md) explains them.

In a Location, Apache asks only once it has read a request: by renegotiation in TLS 1.2, by
post-handshake authentication in TLS 1.3. The agent offers both.

"""
LATE: Final = "it asked for our certificate only after a request"

CLIENTS: Final[Mapping[ClientCertificate, str]] = {
    ClientCertificate.NONE: "none",
    ClientCertificate.UNKNOWN_CA: "untrusted",
    ClientCertificate.SELF_SIGNED: "self-signed",
    ClientCertificate.EXPIRED: "expired",
    ClientCertificate.NOT_YET_VALID: "not yet valid",
    ClientCertificate.SERVER_AUTH_ONLY: "serverAuth only",
    ClientCertificate.INTERMEDIATE_MISSING: "intermediate missing",
    ClientCertificate.GOOD: "good",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """The verdict on one client, and why the handshake probe failed."""

    state: ClientAuth
    reason: Reason | None = None

    def __str__(self) -> str:
        """Say it as the page does."""
        return f"{self.state} ({self.reason.value})" if self.reason else f"{self.state}"


Cells = Mapping[ClientCertificate, Cell]


def every(state: ClientAuth, reason: Reason, **others: Cell) -> Cells:
    """Return the cells of a door that says the same of whatever is wrong, but for the `others`."""
    cells = dict.fromkeys(CLIENTS, Cell(state, reason))
    cells[ClientCertificate.GOOD] = Cell(ClientAuth.ACCEPTED)
    return cells | {ClientCertificate(name): cell for name, cell in others.items()}


def rejected(reason: Reason) -> Cell:
    """Return the cell of a refusal inside TLS."""
    return Cell(ClientAuth.REJECTED, reason)


# What the agent must make of each defect, from its own file and whatever the server said of it.
CAUSES: Final[Mapping[ClientCertificate, str]] = {
    ClientCertificate.NONE: "no_certificate_sent",
    ClientCertificate.SELF_SIGNED: "client_certificate_self_signed",
    ClientCertificate.EXPIRED: "client_certificate_expired",
    ClientCertificate.NOT_YET_VALID: "client_certificate_not_yet_valid",
    ClientCertificate.SERVER_AUTH_ONLY: "client_certificate_not_for_clients",
    ClientCertificate.INTERMEDIATE_MISSING: "client_intermediate_missing",
}


def cause_of(door: Door, client: ClientCertificate) -> str | None:
    """Return the cause that comes first; None when the door opened."""
    cell = door.cells[client]
    if cell.state is ClientAuth.ACCEPTED:
        return None
    if client is not ClientCertificate.UNKNOWN_CA:
        return CAUSES[client]
    # The file itself has no fault. Some servers just close, and only some name whom they trust.
    if cell.state is ClientAuth.UNCONFIRMED:
        return "closed_after_certificate"
    return "client_root_unknown" if door.family == "python" else "client_issuer_not_accepted"


# OpenSSL has an alert for each result of its verification (ssl/statem/statem_lib.c,
# ssl_x509err2alert). A certificate that is not valid yet is "bad": TLS has no word for it.
OPENSSL: Final = every(
    ClientAuth.REJECTED,
    Reason.CLIENT_CERT_UNKNOWN_CA,
    none=rejected(Reason.CLIENT_CERT_REQUIRED),
    expired=rejected(Reason.CLIENT_CERT_EXPIRED),
    not_yet_valid=rejected(Reason.CLIENT_CERT_BAD),
    server_auth_only=rejected(Reason.CLIENT_CERT_UNSUPPORTED),
)
# `verify optional`: whoever has no certificate comes in; whoever has a bad one does not.
HAPROXY_OPTIONAL: Final = OPENSSL | {ClientCertificate.NONE: Cell(ClientAuth.ACCEPTED)}
# TLS ignores every error; the configuration then answers 403, which does not tell what was wrong.
HAPROXY_LENIENT: Final = every(ClientAuth.SOFT_REJECTED, Reason.CLIENT_ACCESS_DENIED)
# nginx accepts anything in TLS and answers 400 with a page of its own for both of its errors, 495
# and 496 (ngx_http_special_response.c).
NGINX_REQUIRED: Final = every(ClientAuth.SOFT_REJECTED, Reason.CLIENT_CERT_PAGE)
# `optional` lets in who has none, and the configuration here then answers 403.
NGINX_OPTIONAL: Final = NGINX_REQUIRED | {
    ClientCertificate.NONE: Cell(ClientAuth.SOFT_REJECTED, Reason.CLIENT_ACCESS_DENIED)
}
# Closes with close_notify once TLS is done (ngx_stream_ssl_module.c): nobody said why.
NGINX_STREAM: Final = every(ClientAuth.UNCONFIRMED, Reason.TLS_EOF)
# JSSE says certificate_unknown of whatever its PKIX validator throws.
JSSE: Final = every(
    ClientAuth.REJECTED,
    Reason.CLIENT_CERT_UNKNOWN,
    none=rejected(Reason.CLIENT_CERT_REQUIRED),
)
# The JDK's HttpsServer is on JSSE too, but drops the connection without its alert.
JDK_HTTPS_SERVER: Final = every(ClientAuth.UNCONFIRMED, Reason.TLS_EOF)
# This crypto/tls says bad_certificate of everything, of no certificate too; newer ones tell apart.
GO: Final = every(
    ClientAuth.REJECTED,
    Reason.CLIENT_CERT_BAD,
    none=rejected(Reason.CLIENT_CERT_REQUIRED),
)
# Only OpenSSL's own check for "none" sends an alert; the rest is judged by JavaScript after the
# handshake (lib/_tls_wrap.js, onServerSocketSecure), which destroys the socket.
NODE: Final = every(
    ClientAuth.UNCONFIRMED,
    Reason.TLS_EOF,
    none=rejected(Reason.CLIENT_CERT_REQUIRED),
)


@dataclass(frozen=True, slots=True)
class Door:
    """A door of a family, called as on the page; `late` when it asks only after a request."""

    family: str
    name: str
    title: str
    cells: Cells
    versions: tuple[str, ...] = VERSIONS
    late: bool = False


DOORS: Final = (
    Door("openssl", "s_server", "OpenSSL s_server", OPENSSL),
    Door("python", "at_once", "CPython ssl", OPENSSL),
    # A certificate that is asked for after the handshake is judged by the same code.
    Door("python", "late", "CPython ssl, post-handshake", OPENSSL, ("TLSv1.3",), late=True),
    Door("nginx", "required", "nginx http, required", NGINX_REQUIRED),
    Door("nginx", "optional", "nginx http, optional, then 403", NGINX_OPTIONAL),
    Door("nginx", "stream", "nginx stream", NGINX_STREAM),
    Door("apache", "server", "Apache httpd", OPENSSL),
    # TLS 1.2: renegotiation; TLS 1.3: post-handshake authentication.
    Door("apache", "location", "Apache httpd, in a Location", OPENSSL, late=True),
    Door("haproxy", "required", "HAProxy, required", OPENSSL),
    Door("haproxy", "optional", "HAProxy, optional", HAPROXY_OPTIONAL),
    Door("haproxy", "lenient", "HAProxy, errors ignored, then 403", HAPROXY_LENIENT),
    Door("java", "SSLServerSocket", "Java 17 SSLServerSocket", JSSE),
    Door("java", "HttpsServer", "Java 17 HttpsServer", JDK_HTTPS_SERVER),
    Door("go", "net/http", "Go 1.19 net/http", GO),
    Door("node", "https", "Node https", NODE),
)


def each_door(doors: Iterable[Door] = DOORS) -> pytest.MarkDecorator:
    """Run a test for every door in every version."""
    return pytest.mark.parametrize(
        ("door", "version"),
        [
            pytest.param(door, version, id=f"{door.family}-{door.name}-{version}".lower())
            for door in doors
            for version in door.versions
        ],
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = Stage(Pki.create(datetime.now(UTC)), tmp_path_factory.mktemp("stacks"))
    write_material(made.pki, made.root.parent)
    return made


@pytest.fixture(scope="module")
def port_of(stage):
    """Tell a door's port; a family is started when the first of its doors is asked for."""
    families: dict[str, Ports] = {}
    with ExitStack() as running:

        def port(door: Door, version: str) -> int:
            if door.family not in families:
                family = started(door.family, stage.root.parent)
                families[door.family] = running.enter_context(family)
            return families[door.family][door.name, version]

        yield port


def org_of(stage: Stage, port: int) -> Org:
    endpoint = Endpoint("healthy.my.salesforce.com", connect_to=("127.0.0.1", port))
    return Org("org", endpoint, stage.source(ClientCertificate.GOOD), timeouts=TIMEOUTS)


async def knock(stage: Stage, port: int, keys: Keys, *due: Probe) -> ProbeResult:
    plan = Plan(org_of(stage, port), keys, frozenset({Probe.HANDSHAKE, *due}))
    return await probe.run(plan, Resolver(1), lambda: datetime.now(UTC))


def seen(result: ProbeResult) -> Cell:
    outcome = result.outcomes[Probe.HANDSHAKE]
    return Cell(result.client_auth, outcome.reason if isinstance(outcome, Failure) else None)


@pytest.mark.parametrize("client", CLIENTS)
@each_door()
async def test_the_verdict_and_its_reason_are_right(port_of, door, version, client, stage):
    result = await knock(stage, port_of(door, version), stage.keys(client))

    assert seen(result) == door.cells[client], result.outcomes[Probe.HANDSHAKE]
    assert result.handshake.tls_version == version
    assert result.handshake.certificate_requested
    assert result.handshake.certificate_sent is (client is not ClientCertificate.NONE)
    assert len(result.server_chain) == 2, "the server's chain is known whatever happens"


@pytest.mark.parametrize("client", CLIENTS)
@each_door()
async def test_the_likeliest_cause_is_the_defect_whatever_the_server_calls_it(
    port_of, door, version, client, stage
):
    port = port_of(door, version)
    result = await knock(stage, port, stage.keys(client))

    judged = Judge(org_of(stage, port), shipped_tables()).judge(result, None, datetime.now(UTC))
    best = next(iter(diagnose(result, judged.judgement)), None)

    assert (best.name if best else None) == cause_of(door, client)


@each_door()
async def test_a_door_that_opened_is_known_to_refuse_or_admit_who_has_no_certificate(
    port_of, door, version, stage
):
    keys = stage.keys(ClientCertificate.GOOD)

    result = await knock(stage, port_of(door, version), keys, Probe.REFUSAL)

    refusal = result.outcomes[Probe.REFUSAL]
    if door.cells[ClientCertificate.NONE].state is ClientAuth.ACCEPTED:
        assert refusal == Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE)
    else:
        assert isinstance(refusal, Success), refusal


@each_door()
async def test_a_certificate_that_is_asked_for_late_is_sent_and_that_is_told(
    port_of, door, version, stage
):
    keys = stage.keys(ClientCertificate.GOOD)

    result = await knock(stage, port_of(door, version), keys)

    assert result.outcomes[Probe.HANDSHAKE] == Success(LATE if door.late else "")
    # `load_verify_locations` names nobody to the client; every other server here does.
    root = stage.pki.clients.root.subject.rfc4514_string()
    named = () if door.family == "python" else (root,)
    assert result.handshake.acceptable_issuers == named


@each_door(replace(door, versions=("TLSv1.3",)) for door in DOORS if door.late)
async def test_who_does_not_offer_to_be_asked_late_never_gets_in(port_of, door, version, stage):
    # The twin of the above: in TLS 1.3 a server may ask late only whom has offered it.
    keys = stage.keys(ClientCertificate.GOOD)
    presented = identity.read(stage.source(ClientCertificate.GOOD), environ=os.environ)
    trust = TrustAnchors(system=False, file=str(stage.root))
    context = client_context(Endpoint("unused"), trust, presented)
    context.post_handshake_auth = False

    result = await knock(stage, port_of(door, version), replace(keys, presenting=context))

    assert seen(result) == Cell(ClientAuth.NOT_REQUESTED, Reason.CLIENT_NOT_REQUESTED)


class Interrupting(Gate):
    """Has s_server renegotiate, and ask again for the certificate, right before a login is sent."""

    typed: IO[bytes]

    async def admit(self):
        self.typed.write(b"R\n")
        await asyncio.sleep(0.2)  # until it has come; nothing tells
        return await super().admit()


async def test_no_login_is_lost_in_a_renegotiation_that_comes_between_two_requests(stage):
    with s_server(stage.root.parent, "TLSv1.2") as (port, typed):
        org = Org(
            "org",
            Endpoint("healthy.my.salesforce.com", connect_to=("127.0.0.1", port)),
            stage.source(ClientCertificate.GOOD),
            login=PasswordCredentials("probe@org.example", FromFile("unused")),
            timeouts=TIMEOUTS,
        )
        gate = Interrupting(org)
        gate.typed = typed
        due = frozenset({Probe.HANDSHAKE, Probe.LOGIN})
        plan = Plan(org, stage.keys(ClientCertificate.GOOD), due, gate)
        result = await probe.run(plan, Resolver(1), lambda: datetime.now(UTC))

    assert result.outcomes[Probe.HANDSHAKE] == Success()
    assert isinstance(result.login, Refused), result.outcomes[Probe.LOGIN]
    assert result.login.code == "INVALID_SESSION_ID", "it was answered"
    assert len(gate.ended) == 1


# --- the page


def page() -> str:
    """Return docs/verdicts.md: a row for each door and version."""
    head = ("server", "TLS", *CLIENTS.values())
    rows = [
        (door.title, version.removeprefix("TLSv"), *(str(door.cells[client]) for client in CLIENTS))
        for door in DOORS
        for version in door.versions
    ]
    table = (head, ("---",) * len(head), *rows)
    return PREFACE + "".join(f"| {' | '.join(row)} |\n" for row in table)


def test_the_page_of_verdicts_says_what_the_tables_say():
    if UPDATE:
        PAGE.write_text(page(), encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == page()
