"""Rules about the door itself: which host and port, what it lets in, and how long it will stand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from agent.policy.rule import Evidence, Finding, Severity, Side, rule
from agent.policy.wording import day, some, span, which
from agent.reason import Reason
from agent.result import ClientAuth, Failure

_HELP: Final = "Salesforce Help: Configure Your API Client to Use Mutual Authentication"
_MOST_SKEW_SECONDS: Final = 300
_NEAR: Final = timedelta(days=365)


@rule(
    Severity.CRITICAL,
    needs=("host",),
    remedy="Set `host` to the My Domain login URL, as in example.my.salesforce.com.",
    reference=f"{_HELP} (use your My Domain login URL)",
)
def endpoint_not_my_domain(evidence: Evidence) -> Iterator[Finding]:
    """The host is not the org's My Domain: critical for Salesforce's shared login hosts."""
    host = (evidence.host or "").casefold().rstrip(".")
    if host.endswith(evidence.tables.my_domain_suffixes):
        return
    shared = host in evidence.tables.shared_hosts
    yield Finding(
        f"The host {host} is not a My Domain host"
        + ("; it has no mutual TLS." if shared else ", as far as its name tells."),
        severity=Severity.CRITICAL if shared else Severity.WARNING,
    )


@rule(
    Severity.CRITICAL,
    needs=("host", "port"),
    remedy="Set `port` to 8443.",
    reference=_HELP,
)
def endpoint_port(evidence: Evidence) -> Iterator[Finding]:
    """The port of a My Domain is not 8443, where Salesforce asks for client certificates."""
    host = (evidence.host or "").casefold().rstrip(".")
    my_domain = host.endswith(evidence.tables.my_domain_suffixes)
    if my_domain and evidence.port != evidence.tables.port:
        yield Finding(
            f"The port is {evidence.port}; Salesforce asks for client certificates on "
            f"{evidence.tables.port} only."
        )


@rule(
    Severity.CRITICAL,
    needs=("client_auth",),
    remedy="Check port (8443) and host (My Domain): mutual TLS is off at this door.",
    reference=_HELP,
    unless=("door_open_without_certificate", "endpoint_not_my_domain", "endpoint_port"),
)
def client_certificate_not_requested(evidence: Evidence) -> Iterator[Finding]:
    """The server never asked for the client's certificate, so it checks none."""
    if evidence.client_auth is ClientAuth.NOT_REQUESTED:
        yield Finding(f"{_door(evidence)} never asked for a client certificate.")


@rule(
    Severity.CRITICAL,
    needs=("refusal",),
    remedy=Reason.DOOR_OPEN_WITHOUT_CERTIFICATE.remedy,
    reference=_HELP,
    unless=("endpoint_not_my_domain", "endpoint_port"),
)
def door_open_without_certificate(evidence: Evidence) -> Iterator[Finding]:
    """The door let a client in that presented no certificate."""
    if _failed_with(evidence.refusal, Reason.DOOR_OPEN_WITHOUT_CERTIFICATE):
        yield Finding(f"{_door(evidence)} let a client in that presented no certificate.")


def _door(evidence: Evidence) -> str:
    """Return how to call the door: the beginning of a sentence."""
    where = f" ({evidence.host}:{evidence.port})" if evidence.host and evidence.port else ""
    return f"The door{where}"


@rule(
    Severity.CRITICAL,
    needs=("enforcement",),
    remedy=Reason.ENFORCEMENT_OFF.remedy,
    reference=_HELP,
)
def enforcement_off(evidence: Evidence) -> Iterator[Finding]:
    """A session of this user works without the client's certificate too."""
    if _failed_with(evidence.enforcement, Reason.ENFORCEMENT_OFF):
        yield Finding(
            "The session also works on the ordinary port, without the client's certificate."
        )


def _failed_with(outcome: object, reason: Reason) -> bool:
    return isinstance(outcome, Failure) and outcome.reason is reason


@rule(
    Severity.WARNING,
    needs=("client_chain", "acceptable_issuers"),
    remedy="Get a certificate from one of the authorities that the server named.",
    reference="RFC 8446 §4.2.4; RFC 5246 §7.4.4",
)
def issuer_not_accepted(evidence: Evidence) -> Iterator[Finding]:
    """The server named the authorities that it accepts, and the client's are not among them.

    A server that names none accepts any; Salesforce's does.
    """
    accepted = set(evidence.acceptable_issuers or ())
    analysis = evidence.client
    names = {c.issuer for c in analysis.certificates}
    names |= {c.subject for path in analysis.paths for c in path[1:]}
    if accepted and not names & accepted:
        yield Finding(
            f"{which(Side.CLIENT, analysis.leaf_position, analysis.leaf)} is from "
            f"{analysis.leaf.issuer}, which is not among the authorities that the server accepts "
            f"({some(sorted(accepted))}), nor is any above it.",
            Side.CLIENT,
            analysis.leaf,
            analysis.leaf_position,
        )


@rule(
    Severity.WARNING,
    remedy="Move the integration to OAuth before then.",
    reference="https://help.salesforce.com/s/articleView?id=005132110",
)
def soap_login_retiring(evidence: Evidence) -> Iterator[Finding]:
    """The org is logged in to with SOAP login(), which ends: a remark until a year before."""
    if evidence.soap_login:
        retirement = evidence.tables.dates["soap_login_retirement"].date
        yield _ending(evidence, "SOAP login() is switched off", retirement)


@rule(
    Severity.WARNING,
    needs=("api_version",),
    remedy="Set `api_version` to a newer one, up to 64.0 for SOAP login().",
    reference="https://help.salesforce.com/s/articleView?id=005321531",
)
def api_version_retiring(evidence: Evidence) -> Iterator[Finding]:
    """The configured API version is announced to be removed: a remark until a year before."""
    versions = evidence.tables.versions(evidence.api_version or "")
    if versions is not None:
        yield _ending(evidence, f"API version {evidence.api_version} is removed", versions.removed)


def _ending(evidence: Evidence, what: str, end: datetime) -> Finding:
    severity = Severity.WARNING if end - evidence.now <= _NEAR else Severity.INFO
    if evidence.now >= end:
        severity = Severity.CRITICAL
    left = f", in {span(end - evidence.now)}" if end > evidence.now else ""
    return Finding(f"{what} from {day(end)} on{left}.", severity=severity, bites_from=end)


@rule(
    Severity.WARNING,
    remedy="Set this machine's clock (chrony, systemd-timesyncd): every date here depends on it.",
    reference="RFC 9110 §6.6.1",
)
def clock_suspect(evidence: Evidence) -> Iterator[Finding]:
    """This machine's clock is five minutes off the server's, or behind what the agent ships."""
    skew = evidence.clock_skew
    if evidence.now < evidence.tables.trust_list_as_of:
        yield Finding(
            f"This machine's clock says {day(evidence.now)}, but the lists that the agent ships "
            f"are of {day(evidence.tables.trust_list_as_of)}."
        )
    elif skew is not None and abs(skew) > _MOST_SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        yield Finding(
            f"The server's clock is {abs(skew):.0f} seconds {way} this machine's; up to "
            f"{_MOST_SKEW_SECONDS} are no matter."
        )
