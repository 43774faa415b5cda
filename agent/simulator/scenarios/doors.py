"""Scenarios of the door: each kind of door, with each client certificate that makes sense there."""

# ruff: noqa: D401 - a scenario's docstring says what is so, not what to do

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from agent.org import TlsVersion
from agent.reason import Reason
from agent.result import ClientAuth, Probe
from agent.simulator.door import Door, RefusalPage
from agent.simulator.pki import ClientCertificate
from agent.simulator.scenario import Scenario, add, also, door_fails, scenario, session_fails

ALERT_REASONS: Final[Mapping[ClientCertificate, Reason]] = MappingProxyType(
    {
        ClientCertificate.NONE: Reason.CLIENT_CERT_REQUIRED,
        ClientCertificate.UNKNOWN_CA: Reason.CLIENT_CERT_UNKNOWN_CA,
        ClientCertificate.SELF_SIGNED: Reason.CLIENT_CERT_UNKNOWN_CA,
        ClientCertificate.EXPIRED: Reason.CLIENT_CERT_EXPIRED,
        ClientCertificate.NOT_YET_VALID: Reason.CLIENT_CERT_BAD,
        ClientCertificate.SERVER_AUTH_ONLY: Reason.CLIENT_CERT_UNSUPPORTED,
        ClientCertificate.INTERMEDIATE_MISSING: Reason.CLIENT_CERT_UNKNOWN_CA,
    }
)
"""What an OpenSSL server's alert says of each bad client certificate."""

_REQUIRED: Final = (Door.TLS12_REQUIRED, Door.TLS13_REQUIRED, Door.TLS13_REQUIRED_NO_TICKETS)
_ACCEPTED: Final = (
    ClientCertificate.GOOD,
    ClientCertificate.WRONG_ORDER,
    ClientCertificate.EXPIRING,
)
_PRESENTED: Final[Mapping[ClientCertificate, str]] = MappingProxyType(
    {
        ClientCertificate.GOOD: "a good certificate",
        ClientCertificate.NONE: "no certificate",
        ClientCertificate.UNKNOWN_CA: "a certificate of an unknown authority",
        ClientCertificate.SELF_SIGNED: "a self-signed certificate",
        ClientCertificate.EXPIRED: "an expired certificate",
        ClientCertificate.NOT_YET_VALID: "a certificate that is not valid yet",
        ClientCertificate.SERVER_AUTH_ONLY: "a certificate for servers only",
        ClientCertificate.INTERMEDIATE_MISSING: "a leaf without its intermediate",
        ClientCertificate.WRONG_ORDER: "a chain in the wrong order",
        ClientCertificate.EXPIRING: "a certificate with three days left",
    }
)


@scenario
def healthy(healthy: Scenario) -> Scenario:
    """Everything works: TLS 1.3, a required certificate that is good, a login and a call."""
    return healthy


def _behind(door: Door, presented: ClientCertificate, base: Scenario) -> Scenario:
    return replace(base, door=door, client_certificate=presented)


def _required(door: Door, presented: ClientCertificate, base: Scenario) -> Scenario:
    case = _behind(door, presented, base)
    if presented in _ACCEPTED:
        return case
    return door_fails(case, ALERT_REASONS[presented], ClientAuth.REJECTED)


def _optional(door: Door, presented: ClientCertificate, base: Scenario) -> Scenario:
    case = _required(door, presented, base)
    if presented is ClientCertificate.NONE:
        # It is let in; only the session of a user who must authenticate mutually is refused.
        case = session_fails(_behind(door, presented, base), Reason.MUTUAL_AUTH_FAILED)
    elif presented not in _ACCEPTED:
        return case
    return also(case, Probe.REFUSAL, Reason.DOOR_OPEN_WITHOUT_CERTIFICATE)


def _soft(
    version: TlsVersion, style: RefusalPage, presented: ClientCertificate, base: Scenario
) -> Scenario:
    case = replace(
        _behind(Door.SOFT, presented, base), refusal_page=style, tls_min=version, tls_max=version
    )
    if presented in _ACCEPTED:
        return case
    reason = (
        Reason.CLIENT_ACCESS_DENIED if style is RefusalPage.FORBIDDEN else Reason.CLIENT_CERT_PAGE
    )
    return door_fails(case, reason, ClientAuth.SOFT_REJECTED)


def _closing(
    door: Door, version: TlsVersion, presented: ClientCertificate, base: Scenario
) -> Scenario:
    case = replace(_behind(door, presented, base), tls_min=version, tls_max=version)
    return case if presented in _ACCEPTED else door_fails(case, Reason.TLS_EOF)


for _presented, _words in _PRESENTED.items():
    for _door in _REQUIRED:
        add(
            f"{_door}_{_presented}",
            f"The door requires a certificate ({_door.value}) and gets {_words}.",
            partial(_required, _door, _presented),
        )
    add(
        f"optional_{_presented}",
        f"The door asks for a certificate but does not insist, and gets {_words}.",
        partial(_optional, Door.OPTIONAL, _presented),
    )
    for _version in TlsVersion:
        _suffix = f"tls{_version.value.replace('.', '')}_{_presented}"
        for _style in RefusalPage:
            _kind = "soft" if _style is RefusalPage.SALESFORCE else f"soft_{_style.value}"
            add(
                f"{_kind}_{_suffix}",
                f"TLS {_version.value} accepts anything, a page ({_style.value}) tells what is "
                f"wrong; it gets {_words}.",
                partial(_soft, _version, _style, _presented),
            )
        for _door in (Door.CLOSING_WITHOUT_ALERT, Door.CLOSING_WITH_NOTIFY):
            add(
                f"{_door}_{_suffix}",
                f"The door refuses by closing ({_door.value}, TLS {_version.value}) and gets "
                f"{_words}.",
                partial(_closing, _door, _version, _presented),
            )


def _not_reached(base: Scenario, door: Door, reason: Reason) -> Scenario:
    return door_fails(replace(base, door=door), reason, ClientAuth.NOT_REACHED)


@scenario
def not_asking(healthy: Scenario) -> Scenario:
    """The door never asks for a client certificate."""
    case = replace(healthy, door=Door.NOT_ASKING)
    return door_fails(case, Reason.CLIENT_NOT_REQUESTED, ClientAuth.NOT_REQUESTED)


@scenario
def plain_http(healthy: Scenario) -> Scenario:
    """The port speaks HTTP in clear."""
    return _not_reached(healthy, Door.PLAIN_HTTP, Reason.NOT_TLS)


@scenario
def garbage(healthy: Scenario) -> Scenario:
    """The port speaks neither TLS nor HTTP."""
    return _not_reached(healthy, Door.GARBAGE, Reason.NOT_TLS)


@scenario
def accept_and_close(healthy: Scenario) -> Scenario:
    """The connection is accepted and closed at once."""
    return _not_reached(healthy, Door.ACCEPT_AND_CLOSE, Reason.TLS_EOF)


@scenario
def accept_and_hang(healthy: Scenario) -> Scenario:
    """The connection is accepted and nothing is ever said."""
    return _not_reached(healthy, Door.ACCEPT_AND_HANG, Reason.TLS_TIMEOUT)


@scenario
def reset_after_accept(healthy: Scenario) -> Scenario:
    """The connection is accepted and reset at once."""
    return _not_reached(healthy, Door.RESET_AFTER_ACCEPT, Reason.TCP_RESET)


@scenario
def reset_after_client_hello(healthy: Scenario) -> Scenario:
    """The connection is reset when the client has sent its first TLS message."""
    return _not_reached(healthy, Door.RESET_AFTER_CLIENT_HELLO, Reason.TCP_RESET)


@scenario
def unrecognized_name(healthy: Scenario) -> Scenario:
    """The server has no certificate for the name in SNI and says so by alert."""
    return _not_reached(healthy, Door.UNRECOGNIZED_NAME, Reason.TLS_UNRECOGNIZED_NAME)


@scenario
def protocol_version_alert(healthy: Scenario) -> Scenario:
    """The server refuses our TLS versions by alert."""
    return _not_reached(healthy, Door.PROTOCOL_VERSION, Reason.TLS_VERSION)


@scenario
def old_tls_only(healthy: Scenario) -> Scenario:
    """The server answers in TLS 1.1, which we refuse."""
    return _not_reached(healthy, Door.OLD_TLS_ONLY, Reason.TLS_VERSION)


@scenario
def no_common_cipher(healthy: Scenario) -> Scenario:
    """The server knows none of our cipher suites."""
    return _not_reached(healthy, Door.NO_COMMON_CIPHER, Reason.TLS_HANDSHAKE_FAILURE)
