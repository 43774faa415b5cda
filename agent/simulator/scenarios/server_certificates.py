"""Scenarios in which the server's own certificate is the defect."""

# ruff: noqa: D401 - a scenario's docstring says what is so, not what to do

from __future__ import annotations

from dataclasses import replace

from agent.reason import Reason
from agent.result import ClientAuth
from agent.simulator.pki import ServerCertificate
from agent.simulator.scenario import Scenario, door_fails, scenario


def _distrusted(base: Scenario, defect: ServerCertificate, reason: Reason) -> Scenario:
    refused = replace(base, server_certificate=defect)
    return door_fails(refused, reason, ClientAuth.NOT_REACHED)


@scenario
def server_expired(healthy: Scenario) -> Scenario:
    """The server's certificate has expired."""
    return _distrusted(healthy, ServerCertificate.EXPIRED, Reason.SERVER_EXPIRED)


@scenario
def server_not_yet_valid(healthy: Scenario) -> Scenario:
    """The server's certificate is not valid yet."""
    return _distrusted(healthy, ServerCertificate.NOT_YET_VALID, Reason.SERVER_NOT_YET_VALID)


@scenario
def server_wrong_name(healthy: Scenario) -> Scenario:
    """The server's certificate is for another name."""
    return _distrusted(healthy, ServerCertificate.WRONG_NAME, Reason.SERVER_HOSTNAME)


@scenario
def server_unknown_root(healthy: Scenario) -> Scenario:
    """The server's chain leads to a root that nobody trusts."""
    return _distrusted(healthy, ServerCertificate.UNKNOWN_ROOT, Reason.SERVER_UNTRUSTED)


@scenario
def server_self_signed(healthy: Scenario) -> Scenario:
    """The server's certificate is signed by its own key."""
    return _distrusted(healthy, ServerCertificate.SELF_SIGNED, Reason.SERVER_UNTRUSTED)


@scenario
def server_intermediate_missing(healthy: Scenario) -> Scenario:
    """The server sends its leaf alone."""
    return _distrusted(
        healthy, ServerCertificate.INTERMEDIATE_MISSING, Reason.SERVER_INCOMPLETE_CHAIN
    )


@scenario
def server_client_auth_only(healthy: Scenario) -> Scenario:
    """The server's certificate has the purpose clientAuth only."""
    return _distrusted(healthy, ServerCertificate.CLIENT_AUTH_ONLY, Reason.SERVER_EKU)


@scenario
def server_wrong_order(healthy: Scenario) -> Scenario:
    """The server sends leaf, root, intermediate: untidy, but it verifies."""
    return replace(healthy, server_certificate=ServerCertificate.WRONG_ORDER)


@scenario
def server_duplicate(healthy: Scenario) -> Scenario:
    """The server sends its intermediate twice: untidy, but it verifies."""
    return replace(healthy, server_certificate=ServerCertificate.DUPLICATE)


@scenario
def server_unrelated_extra(healthy: Scenario) -> Scenario:
    """The server sends a certificate that has nothing to do with its chain; it verifies."""
    return replace(healthy, server_certificate=ServerCertificate.UNRELATED_EXTRA)


@scenario
def server_expiring(healthy: Scenario) -> Scenario:
    """The server's certificate has three days left."""
    return replace(healthy, server_certificate=ServerCertificate.EXPIRING)
