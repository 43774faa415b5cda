"""Causes behind the door: what answers a request over HTTP, and how."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from agent.diagnosis.cause import Case, Confidence, Row, Suspicion, cause, rows
from agent.reason import Reason
from agent.result import Probe

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE

_CLIENT_ERRORS: Final = range(400, 500)
_SERVER_ERRORS: Final = range(500, 600)
# Those that have a cause of their own below.
_OF_THEIR_OWN: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.NOT_FOUND})
_REDIRECT: Final = re.compile(r"HTTP 3\d\d to ([a-z0-9.-]{1,200}\.salesforce\.com)")
_NOT_OURS: Final = frozenset(
    {
        Reason.HTML_UNEXPECTED,
        Reason.SOAP_MALFORMED,
        Reason.HTTP_MALFORMED,
        Reason.RESPONSE_TOO_LARGE,
    }
)


# "Intermittent" HTML came from Salesforce Edge, and pages of maintenance with status 200 and 503
# (github.com/forcedotcom/wsc issues 289 and 290, EMP-Connector 84, cli 2487).
@cause(remedy=Reason.SERVER_ERROR.remedy, basis="https://github.com/forcedotcom/wsc/issues/289")
def salesforce_in_trouble(case: Case) -> Suspicion | None:
    """Salesforce has trouble of its own."""
    if case.reason is Reason.SERVER_ERROR:
        return Suspicion(LIKELY, "It says so with a fault.")
    if case.reason is Reason.HTTP_STATUS and case.status in _SERVER_ERRORS:
        return Suspicion(LIKELY, f"It answers with the status {case.status}.")
    return Suspicion(POSSIBLE) if case.reason in _NOT_OURS else None


@cause(remedy=Reason.HTML_UNEXPECTED.remedy)
def something_in_between_answers(case: Case) -> Suspicion | None:
    """Something in between answers in Salesforce's place."""
    if case.reason in _NOT_OURS:
        return Suspicion(POSSIBLE)
    if case.reason is Reason.HTTP_REDIRECT and not _REDIRECT.match(case.detail):
        return Suspicion(LIKELY, "It redirects to a host outside Salesforce.")
    return Suspicion(LIKELY) if case.reason is Reason.HOST_POLICY else None


@cause(remedy=Reason.HTTP_REDIRECT.remedy)
def my_domain_renamed(case: Case) -> Suspicion | None:
    """The My Domain was renamed: the old name redirects to the new one."""
    target = _REDIRECT.match(case.detail)
    if case.reason is not Reason.HTTP_REDIRECT or target is None:
        return None
    # Once a password was sent, not even a host's name is quoted.
    told = case.probe is Probe.HANDSHAKE
    return Suspicion(LIKELY, f"It redirects to {target[1]}." if told else "")


@cause(remedy="Look for a gateway in front of Salesforce, and at its rules for this machine.")
def gateway_refuses(case: Case) -> Suspicion | None:
    """A gateway in front of the application refuses the request."""
    status = case.status
    if case.reason is Reason.HTTP_STATUS and status not in _SERVER_ERRORS:
        likely = status in _CLIENT_ERRORS and status not in _OF_THEIR_OWN
        return Suspicion(LIKELY, f"It answers with the status {status}.") if likely else None
    if case.reason is Reason.CLIENT_ACCESS_DENIED and status is not None:
        return Suspicion(POSSIBLE, f"It answers with the status {status}.")
    return None


@cause(remedy="Compare with other orgs; tell Salesforce Support if it goes on.")
def answer_cut(case: Case) -> Suspicion | None:
    """The server, or a load balancer before it, ended the connection while it answered."""
    if case.reason is not Reason.TLS_EOF:
        return None
    if case.cut_short:
        return Suspicion(LIKELY)
    # Before the door has opened, to close without an answer is rather a refusal.
    opened = case.probe is not Probe.HANDSHAKE
    return Suspicion(POSSIBLE) if opened or (case.at_the_door and not case.unanswered) else None


rows(
    __name__,
    Row(
        name="too_many_requests",
        reasons=(Reason.HTTP_STATUS,),
        confidence=LIKELY,
        meaning="Salesforce, or a gateway in front of it, has had too many requests from us.",
        remedy="Find the other clients behind this address; lengthen `interval`.",
        when=lambda case: case.status == HTTPStatus.TOO_MANY_REQUESTS,
        basis="RFC 6585 §4",
    ),
    Row(
        name="no_api_there",
        reasons=(Reason.HTTP_STATUS,),
        confidence=LIKELY,
        meaning="There is no SOAP API at this host and path.",
        remedy="Check that `host` is an org's My Domain, and `api_version`.",
        when=lambda case: case.status == HTTPStatus.NOT_FOUND,
        basis="RFC 9110 §15.5.5",
    ),
    Row(
        name="down_for_maintenance",
        reasons=(Reason.MAINTENANCE,),
        confidence=CERTAIN,
        meaning="Salesforce is down for maintenance, and says so.",
    ),
    Row(
        name="server_slow",
        reasons=(Reason.HTTP_TIMEOUT,),
        confidence=LIKELY,
        meaning="The server, or the way to it, is too slow for our patience.",
        when=lambda case: "no time was left" not in case.detail,  # our own words
        quotes=True,
    ),
    Row(
        name="cycle_too_short",
        reasons=(Reason.HTTP_TIMEOUT,),
        confidence=LIKELY,
        meaning="What came before took all the time of the cycle.",
        remedy="See which stage is slow; raise `timeouts.cycle` if that is usual for this org.",
        when=lambda case: "no time was left" in case.detail,
    ),
    Row(
        name="connection_closed_each_time",
        reasons=(Reason.UNDETERMINED,),
        confidence=CERTAIN,
        meaning="The server closes after each answer, so that no password can safely be sent.",
        remedy="Have the server keep connections alive, or judge certificates in TLS.",
        when=lambda case: case.closes_each_time,
    ),
    Row(
        name="agent_has_a_bug",
        reasons=(Reason.INTERNAL,),
        confidence=CERTAIN,
        meaning="The agent has a bug, which kept it from looking.",
    ),
)
