"""Causes in the server, as far as the handshake shows it: its TLS, and its own certificate."""

from __future__ import annotations

from typing import Final

from agent.diagnosis.cause import Case, Confidence, Row, Suspicion, cause, rows
from agent.reason import Reason
from agent.result import ClientAuth, Probe

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE

_TRUST_SITE: Final = "Look at Salesforce's trust site for the instance."


def _before_our_answer(case: Case) -> bool:
    """Tell whether the connection ended before the server could judge our certificate."""
    return case.probe is Probe.HANDSHAKE and case.result.client_auth is ClientAuth.NOT_REACHED


def _in_use(case: Case) -> bool:
    return case.reason is Reason.TCP_RESET and not _before_our_answer(case)


def _speaks_http(case: Case) -> bool:
    return "it began with HTTP/" in case.detail  # our own words, of probe.handshake


# mbedTLS answers TLS 1.3 alone with handshake_failure, but no common cipher suite is what the
# alert is for (RFC 8446 §4.1.1).
@cause(remedy="Compare the cipher suites of both; a server that old has to be renewed.")
def no_common_cipher(case: Case) -> Suspicion | None:
    """Client and server have no cipher suite or group in common."""
    named = case.alert in {"handshake_failure", "insufficient_security"}
    if case.reason is not Reason.TLS_HANDSHAKE_FAILURE or not named or not _before_our_answer(case):
        return None
    return Suspicion(LIKELY, f"The server ended the handshake with the alert {case.alert}.")


@cause(remedy="Capture the handshake (`openssl s_client -trace`), and compare what both offer.")
def tls_disagreement(case: Case) -> Suspicion | None:
    """Client and server do not agree on how to do TLS; something between may garble it."""
    if case.reason is not Reason.TLS_HANDSHAKE_FAILURE or _refusal(case):
        return None
    return Suspicion(POSSIBLE, f"The alert was {case.alert}." if case.alert else case.detail)


def _refusal(case: Case) -> bool:
    return case.result.client_auth is ClientAuth.REJECTED


rows(
    __name__,
    Row(
        name="middlebox_ends_connections",
        reasons=(Reason.TLS_EOF, Reason.TCP_RESET),
        confidence=POSSIBLE,
        meaning="A firewall or load balancer in between ends connections of this kind.",
        remedy="Look at what stands in between; compare with another machine's connection.",
        when=_before_our_answer,
    ),
    Row(
        name="middlebox_holds_connections",
        reasons=(Reason.TLS_TIMEOUT,),
        confidence=POSSIBLE,
        meaning="A firewall or load balancer in between accepts the connection and holds it.",
    ),
    Row(
        name="connection_cut_in_use",
        reasons=(Reason.TCP_RESET,),
        confidence=POSSIBLE,
        meaning="A firewall or load balancer in between cut a connection that was in use.",
        when=_in_use,
    ),
    Row(
        name="port_speaks_plain_http",
        reasons=(Reason.NOT_TLS,),
        confidence=CERTAIN,
        meaning="What answers speaks HTTP without TLS: a wrong port, or a proxy in between.",
        when=_speaks_http,
        quotes=True,
    ),
    Row(
        name="port_speaks_something_else",
        reasons=(Reason.NOT_TLS,),
        confidence=CERTAIN,
        meaning="What answers is another kind of service: a wrong host or port.",
        when=lambda case: not _speaks_http(case),
        quotes=True,
    ),
    Row(
        name="no_common_tls_version",
        reasons=(Reason.TLS_VERSION,),
        confidence=CERTAIN,
        meaning="The server speaks none of the TLS versions that are configured.",
    ),
    Row(
        name="server_name_unknown",
        reasons=(Reason.TLS_UNRECOGNIZED_NAME,),
        confidence=CERTAIN,
        meaning="The server has no certificate for the name that we ask for.",
        basis="RFC 6066 §3",
    ),
)


@cause(remedy=_TRUST_SITE, basis="RFC 8446 §6.2")
def server_in_trouble(case: Case) -> Suspicion | None:
    """The server has trouble of its own."""
    told = case.alert in {"internal_error", "user_canceled", "close_notify"}
    if case.reason is Reason.TLS_HANDSHAKE_FAILURE and told:
        return Suspicion(LIKELY, f"It said so with the alert {case.alert}.")
    hangs = case.reason is Reason.TLS_TIMEOUT
    ended = case.reason in {Reason.TLS_EOF, Reason.TCP_RESET}
    return Suspicion(POSSIBLE) if hangs or ended else None


# --- the server's certificate


@cause(remedy="Check `trust.file`, and that this system has a trust store.")
def trust_store_unusable(case: Case) -> Suspicion | None:
    """The roots that the server is verified with cannot be read."""
    if case.reason is not Reason.SERVER_UNTRUSTED or case.handshake is not None:
        return None
    return Suspicion(CERTAIN, case.detail)


# Salesforce's certificates move to DigiCert Global Root G2 since 2026-02-05, instance by instance.
@cause(
    remedy="Trust the new root: Mozilla's set is what Salesforce recommends.",
    basis="Salesforce Root Certificate Change 2026",
)
def server_root_changed(case: Case) -> Suspicion | None:
    """The server's chain leads to another root than before, which `trust` does not hold."""
    found = case.finding("server_root_changed", "server_issuer_changed")
    if case.reason is not Reason.SERVER_UNTRUSTED or case.handshake is None or found is None:
        return None
    return Suspicion(LIKELY, found.message)


@cause(remedy=Reason.SERVER_UNTRUSTED.remedy)
def server_root_not_trusted(case: Case) -> Suspicion | None:
    """The server's chain leads to a root that `trust` does not hold."""
    if case.reason is not Reason.SERVER_UNTRUSTED or case.handshake is None or _own_word(case):
        return None
    return Suspicion(LIKELY, _top(case))


@cause(remedy="Find out who answers: Salesforce's certificates come from a public authority.")
def server_certificate_self_signed(case: Case) -> Suspicion | None:
    """The server presents a certificate that it made itself."""
    if case.reason is not Reason.SERVER_UNTRUSTED or not _own_word(case):
        return None
    return Suspicion(CERTAIN)


@cause(remedy="Ask whether TLS is inspected on the way; mutual TLS cannot pass through that.")
def tls_inspected(case: Case) -> Suspicion | None:
    """A proxy in between ends TLS and presents a certificate of its own."""
    reasons = {Reason.SERVER_UNTRUSTED, Reason.CLIENT_NOT_REQUESTED}
    if case.reason not in reasons or case.handshake is None or case.probe is not Probe.HANDSHAKE:
        return None
    return Suspicion(POSSIBLE, _top(case))


def _own_word(case: Case) -> bool:
    chain = case.result.server_chain
    return len(chain) == 1 and chain[0].self_issued


def _top(case: Case) -> str:
    chain = case.result.server_chain
    return f"The last issuer that it names is {chain[-1].issuer}." if chain else ""


rows(
    __name__,
    Row(
        name="server_intermediate_missing",
        reasons=(Reason.SERVER_INCOMPLETE_CHAIN,),
        confidence=CERTAIN,
        meaning="The server does not send an intermediate certificate that is needed.",
        quotes=True,
    ),
    Row(
        name="server_certificate_expired",
        reasons=(Reason.SERVER_EXPIRED,),
        confidence=LIKELY,
        meaning="The server's certificate, or one above it, was not renewed in time.",
        rule="expired",
    ),
    Row(
        name="server_certificate_not_yet_valid",
        reasons=(Reason.SERVER_NOT_YET_VALID,),
        confidence=LIKELY,
        meaning="The server's certificate, or one above it, was deployed too early.",
        rule="not_yet_valid",
    ),
    Row(
        name="another_server_answers",
        reasons=(Reason.SERVER_HOSTNAME,),
        confidence=LIKELY,
        meaning="Another server than the one meant answers: its certificate has other names.",
        rule="server_hostname_mismatch",
    ),
    Row(
        name="server_certificate_not_for_servers",
        reasons=(Reason.SERVER_EKU,),
        confidence=CERTAIN,
        meaning="The server presents a certificate that is not for servers.",
    ),
    Row(
        name="mutual_tls_off",
        reasons=(Reason.CLIENT_NOT_REQUESTED,),
        confidence=LIKELY,
        meaning="Mutual TLS is not switched on at this door.",
        when=lambda case: case.probe is Probe.HANDSHAKE,
    ),
    Row(
        name="certificate_optional",
        reasons=(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE,),
        confidence=LIKELY,
        meaning="The server asks for a certificate, but does not insist on one.",
    ),
)
