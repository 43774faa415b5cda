"""Hand-built orgs, certificates and results for the tests of state, metrics and web."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent.certificate import Certificate, PublicKey
from agent.diagnosis import Cause, Confidence
from agent.org import (
    ClientIdentity,
    Endpoint,
    Enforcement,
    FromFile,
    Org,
    PasswordCredentials,
)
from agent.policy.rule import Severity, Side, Violation
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    HandshakeOutcome,
    Outcome,
    Probe,
    ProbeResult,
    SkipCause,
    Skipped,
    Stage,
    Success,
)
from agent.state import Board

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOGIN = PasswordCredentials("ada@example.com", FromFile("/run/password"))
ALL_WELL = {
    Probe.HANDSHAKE: Success(),
    Probe.LOGIN: Success(),
    Probe.SESSION: Success(),
    Probe.REFUSAL: Success(),
}
NOT_DUE = {
    Probe.HANDSHAKE: Success(),
    Probe.LOGIN: Skipped(SkipCause.NOT_DUE),
    Probe.SESSION: Skipped(SkipCause.NOT_DUE),
    Probe.REFUSAL: Skipped(SkipCause.NOT_DUE),
}
STAGES = {
    Stage.DNS: 0.002,
    Stage.TCP: 0.02,
    Stage.TLS: 0.05,
    Stage.CLIENT_AUTH: 0.021,
    Stage.DOOR: 0.04,
    Stage.LOGIN: 0.3,
    Stage.SESSION: 0.1,
}
ENFORCEMENT = Enforcement()


def org(name: str = "emea", **changes) -> Org:
    example = Org(
        name=name,
        endpoint=Endpoint("acme.my.salesforce.com"),
        identity=ClientIdentity(FromFile("/etc/client.pem"), FromFile("/etc/client.pem")),
        login=LOGIN,
        labels={"team": "payments"},
    )
    return replace(example, **changes)


def certificate(
    subject: str,
    issuer: str = "CN=Issuing CA",
    *,
    not_before: datetime = NOON - timedelta(days=100),
    days: float = 200,
) -> Certificate:
    der = f"{subject} {issuer} {not_before} {days}".encode()
    return Certificate(
        der=der,
        subject=subject,
        issuer=issuer,
        serial_number=hashlib.sha1(der, usedforsecurity=False).hexdigest()[:16],
        not_before=not_before,
        not_after=not_before + timedelta(days=days),
        fingerprint_sha256=hashlib.sha256(der).hexdigest(),
        subject_public_key_info_sha256=hashlib.sha256(der).hexdigest(),
        is_ca=subject != "CN=leaf",
        self_issued=subject == issuer,
        public_key=PublicKey("rsa", 2048),
        subject_alternative_names=(),
        extended_key_usage=None,
        key_usage=None,
        subject_key_identifier=None,
        authority_key_identifier=None,
        signature_hash="sha256",
    )


def chain(leaf: str, **leaf_dates) -> tuple[Certificate, ...]:
    return (
        certificate(leaf, **leaf_dates),
        certificate("CN=Issuing CA", "CN=Policy CA", days=2000),
        certificate("CN=Policy CA", "CN=Root", days=4000),
    )


CLIENT_CHAIN = chain("CN=agent,O=Example")
SERVER_CHAIN = chain("CN=*.my.salesforce.com,O=Salesforce", days=300)
HANDSHAKE = HandshakeOutcome(
    client_auth=ClientAuth.ACCEPTED,
    tls_version="TLSv1.3",
    cipher_suite="TLS_AES_256_GCM_SHA384",
    server_chain=SERVER_CHAIN,
    certificate_requested=True,
    certificate_sent=True,
)


def result(name: str = "emea", at: datetime = NOON, **changes) -> ProbeResult:
    """Return a cycle in which all went well, with the given changes."""
    healthy = ProbeResult(
        org=name,
        started_at=at,
        outcomes=ALL_WELL,
        stages=STAGES,
        handshake=HANDSHAKE,
        client_auth=ClientAuth.ACCEPTED,
        client_chain=CLIENT_CHAIN,
        api_usage=ApiUsage(1200, 100000),
        clock_skew=-0.5,
    )
    return replace(healthy, **changes)


def failed(reason: Reason, detail: str = "") -> dict[Probe, Outcome]:
    """Return the outcomes of a cycle whose handshake failed."""
    return {
        **dict.fromkeys(ALL_WELL, Skipped(SkipCause.NO_VERDICT)),
        Probe.HANDSHAKE: Failure(reason, detail),
    }


def violation(
    rule: str = "client_certificate_expiring",
    severity: Severity = Severity.WARNING,
    side: Side = Side.CLIENT,
    position: int | None = 0,
) -> Violation:
    return Violation(
        rule=rule,
        severity=severity,
        side=side,
        position=position,
        fingerprint=None,
        subject=None,
        message="9 days left",
        remedy="Renew it.",
        reference="RFC 5280 §4.1.2.5",
        bites_from=None,
    )


def cause(name: str = "client_certificate_expired", sentence: str = "It has expired.") -> Cause:
    return Cause(name, Confidence.LIKELY, sentence, "Renew it.", "RFC 5280 §4.1.2.5")


DEADLINES = {"soap_login_retirement": datetime(2027, 6, 1, tzinfo=UTC)}


def board(*orgs: Org) -> Board:
    made = Board()
    for each in orgs:
        made.add(each)
    return made
