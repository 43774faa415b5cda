"""Causes between this machine and the server: names, addresses and proxies."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from agent.diagnosis.cause import Case, Confidence, Row, Suspicion, cause, rows
from agent.reason import Reason

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE

_HELP: Final = "Salesforce Help: Configure Your API Client to Use Mutual Authentication"
# What a host or port that is not the door's answers with; login.salesforce.com does not listen on
# 8443, and what it gives is a timeout.
_ANOTHER_DOOR: Final = frozenset(
    {
        Reason.TCP_REFUSED,
        Reason.TCP_TIMEOUT,
        Reason.NOT_TLS,
        Reason.CLIENT_NOT_REQUESTED,
        Reason.DOOR_OPEN_WITHOUT_CERTIFICATE,
    }
)


@cause(remedy="Set `host` to the org's My Domain and `port` to 8443.", basis=_HELP)
def endpoint_wrong(case: Case) -> Suspicion | None:
    """Host or port is not where Salesforce asks for client certificates."""
    found = case.finding("endpoint_not_my_domain", "endpoint_port")
    if found is None or case.reason not in _ANOTHER_DOOR:
        return None
    return Suspicion(LIKELY, found.message, found.remedy)


def _lacks_family(case: Case) -> bool:
    return "ip_family" in case.detail  # our own words, of agent.probe.dns


def _is_crowded(case: Case) -> bool:
    return "too many look-ups" in case.detail  # likewise


def _fails(case: Case) -> bool:
    return not _lacks_family(case) and not _is_crowded(case)


rows(
    __name__,
    Row(
        name="host_name_wrong",
        reasons=(Reason.DNS_NOT_FOUND,),
        confidence=LIKELY,
        meaning="There is no such host: its name is misspelt, or the My Domain was renamed.",
        quotes=True,
    ),
    Row(
        name="resolver_knows_no_internet",
        reasons=(Reason.DNS_NOT_FOUND,),
        confidence=POSSIBLE,
        meaning="The resolver of this machine does not know the names of the internet.",
        remedy="Ask another resolver (`dig @1.1.1.1 HOST`); a proxy can look names up instead.",
    ),
    Row(
        name="address_family_missing",
        reasons=(Reason.DNS_ERROR,),
        confidence=CERTAIN,
        meaning="The host has no address of the family that is configured.",
        remedy="Set `ip_family` to what the host has, or to any.",
        when=_lacks_family,
        quotes=True,
    ),
    Row(
        # SERVFAIL, REFUSED and silence are all EAI_AGAIN, which is a DNS_ERROR too.
        name="resolver_fails",
        reasons=(Reason.DNS_TIMEOUT, Reason.DNS_ERROR),
        confidence=LIKELY,
        meaning="The resolver is down, or cannot reach the name servers that it asks.",
        when=_fails,
        quotes=True,
        basis="getaddrinfo(3), EAI_AGAIN",
    ),
    Row(
        name="resolver_hangs",
        reasons=(Reason.DNS_ERROR,),
        confidence=LIKELY,
        meaning="The resolver hangs, so that look-ups of other orgs keep this one waiting.",
        remedy="Check the resolver of this machine (`getent hosts HOST`).",
        when=_is_crowded,
    ),
    Row(
        name="nothing_listens",
        reasons=(Reason.TCP_REFUSED,),
        confidence=LIKELY,
        meaning="Nothing listens there, or a firewall refuses in its place.",
        quotes=True,
    ),
    Row(
        name="firewall_drops",
        reasons=(Reason.TCP_TIMEOUT,),
        confidence=LIKELY,
        meaning="A firewall drops what we send to this port.",
        quotes=True,
    ),
    Row(
        name="server_down",
        reasons=(Reason.TCP_TIMEOUT,),
        confidence=POSSIBLE,
        meaning="The server is down or cut off.",
        remedy="Look at Salesforce's trust site for the instance.",
    ),
    Row(
        name="no_route",
        reasons=(Reason.TCP_UNREACHABLE,),
        confidence=LIKELY,
        meaning="There is no route to the host, or a firewall forbids the way.",
        quotes=True,
    ),
    Row(
        name="network_trouble",
        reasons=(Reason.UNDETERMINED,),
        confidence=POSSIBLE,
        meaning="This machine's network failed in a way that tells nothing of the far side.",
        remedy="See the kernel's words; compare with the other orgs.",
        when=lambda case: not case.closes_each_time,
        quotes=True,
    ),
    Row(
        name="proxy_name_wrong",
        reasons=(Reason.PROXY_DNS,),
        confidence=LIKELY,
        meaning="The proxy's own name is misspelt, or its resolver fails.",
        quotes=True,
    ),
    Row(
        name="proxy_down",
        reasons=(Reason.PROXY_REFUSED,),
        confidence=LIKELY,
        meaning="No proxy listens at `proxy.url`, or it refuses this machine.",
        quotes=True,
    ),
    Row(
        name="proxy_wants_credentials",
        reasons=(Reason.PROXY_DENIED,),
        confidence=CERTAIN,
        meaning="The proxy wants credentials, or does not accept those that it got.",
        remedy="Correct user name and password of the proxy.",
        when=lambda case: case.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        quotes=True,
        basis="RFC 9110 §15.5.8",
    ),
    Row(
        name="proxy_forbids",
        reasons=(Reason.PROXY_DENIED,),
        confidence=LIKELY,
        meaning="The proxy does not allow CONNECT to this host and port.",
        remedy="Have the org's host and port allowed on the proxy.",
        when=lambda case: (
            case.status in range(300, 500)
            and case.status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        ),
        quotes=True,
        basis="RFC 9110 §15.5.4",
    ),
    Row(
        name="proxy_cannot_reach_door",
        reasons=(Reason.PROXY_DENIED,),
        confidence=LIKELY,
        meaning="The proxy itself cannot reach the org's host and port.",
        remedy="Check the way from the proxy to the org.",
        when=lambda case: case.status in range(500, 600),
        quotes=True,
        basis="RFC 9110 §15.6.3",
    ),
    Row(
        name="proxy_is_none",
        reasons=(Reason.PROXY_DENIED,),
        confidence=LIKELY,
        meaning="What stands at `proxy.url` does not understand CONNECT.",
        remedy="Check `proxy.url`: it must lead to a forward proxy that speaks HTTP.",
        when=lambda case: case.status is None,
        quotes=True,
    ),
    Row(
        name="proxy_stuck",
        reasons=(Reason.PROXY_TIMEOUT,),
        confidence=LIKELY,
        meaning="The proxy does not answer, or waits in vain for the org's host and port.",
        quotes=True,
    ),
)
