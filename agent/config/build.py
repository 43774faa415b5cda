"""Checked tables → the frozen values of `org`: what is not given is as they have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.config.settings import AGENT, ORG
from agent.config.tables import (
    AgentTable,
    MaintenanceTable,
    OrgTable,
    PolicyTable,
    ProxyTable,
    SecretTable,
    SuppressionTable,
    TimeoutsTable,
    TrustTable,
    given_in,
)
from agent.maintenance import Planned, Recurring, Window
from agent.org import (
    ClientIdentity,
    Endpoint,
    Enforcement,
    Org,
    PasswordCredentials,
    Policy,
    Proxy,
    SecretSource,
    Session,
    SessionCall,
    Suppression,
    Timeouts,
    TlsVersion,
    TrustAnchors,
)

# A cycle that is not told its deadline gets this part of the interval, so that cycles cannot meet.
_CYCLE_SHARE: Final = 0.75


def logs_in(org: OrgTable) -> bool:
    """Tell whether the org has what a login needs."""
    return org.username is not None and org.password is not None


def cycle_limit(interval: float, given: Mapping[str, float]) -> float:
    """Return the deadline of a cycle in seconds, from the interval when it is not given."""
    return given.get("cycle", min(ORG.timeouts.cycle, interval * _CYCLE_SHARE))


def timeouts_of(interval: float, table: TimeoutsTable | None) -> Timeouts:
    """Return the limits as given; those that are not given fit themselves into the cycle."""
    given: dict[str, float] = given_in(table) if table else {}
    cycle = cycle_limit(interval, given)
    usual = {
        stage.name: min(getattr(ORG.timeouts, stage.name), cycle) for stage in fields(Timeouts)
    }
    return Timeouts(**{**usual, **given, "cycle": cycle})


def org_of(name: str, org: OrgTable) -> Org:
    """Return the org of a merged table in which the checks found nothing."""
    if org.host is None or org.certificate is None:
        raise AssertionError("the checks let an org through that lacks what it needs")
    interval = org.interval or ORG.interval
    certificate = org.certificate.source()
    return Org(
        name=name,
        endpoint=_endpoint(org.host, org),
        identity=ClientIdentity(
            certificate=certificate,
            private_key=org.private_key.source() if org.private_key else certificate,
            private_key_passphrase=_secret(org.private_key_passphrase),
        ),
        api_version=org.api_version or ORG.api_version,
        trust=_trust(org.trust),
        login=_login(org),
        organization_id=org.organization_id,
        session=_session(org),
        refusal_interval=(
            None if org.refusal is False else org.refusal_interval or ORG.refusal_interval
        ),
        enforcement=_enforcement(org) if org.enforcement else None,
        interval=interval,
        login_interval=org.login_interval or ORG.login_interval,
        logins_per_hour=org.logins_per_hour or ORG.logins_per_hour,
        timeouts=timeouts_of(interval, org.timeouts),
        policy=_policy(org.policy) if org.policy else ORG.policy,
        maintenance=tuple(_planned(window) for window in org.maintenance or ()),
        labels=MappingProxyType(org.labels or {}),
    )


def _endpoint(host: str, org: OrgTable) -> Endpoint:
    port = org.port or ORG.endpoint.port
    dialled = org.connect_to
    return Endpoint(
        host=host,
        port=port,
        server_name=org.server_name,
        connect_to=(dialled[0], dialled[1] or port) if dialled else None,
        proxy=_proxy(org.proxy),
        ip_family=org.ip_family or ORG.endpoint.ip_family,
        tls_min=lowest_tls(org),
        tls_max=highest_tls(org),
    )


def lowest_tls(org: OrgTable) -> TlsVersion:
    """Return the lowest TLS version to offer."""
    return org.tls_min or ORG.endpoint.tls_min


def highest_tls(org: OrgTable) -> TlsVersion:
    """Return the highest TLS version to offer."""
    return org.tls_max or ORG.endpoint.tls_max


def _proxy(table: ProxyTable | None) -> Proxy | None:
    if table is None or table.url is None:
        return None
    host, port = table.url
    return Proxy(host, port, table.username, _secret(table.password))


def _secret(table: SecretTable | None) -> SecretSource | None:
    return table.source() if table else None


def _trust(table: TrustTable | None) -> TrustAnchors:
    if table is None:
        return ORG.trust
    return TrustAnchors(trusts_system(table), table.file)


def trusts_system(table: TrustTable) -> bool:
    """Who names a file alone trusts that file alone."""
    return table.system if table.system is not None else False


def _login(org: OrgTable) -> PasswordCredentials | None:
    if org.username is None or org.password is None:
        return None
    return PasswordCredentials(org.username, org.password.source(), _secret(org.security_token))


def _session(org: OrgTable) -> Session:
    call = org.session_call or ORG.session.call
    soql = org.soql if call is SessionCall.QUERY else None
    return Session(call, soql or ORG.session.soql)


def _enforcement(org: OrgTable) -> Enforcement:
    usual = Enforcement()
    return Enforcement(
        org.enforcement_port or usual.port, org.enforcement_interval or usual.interval
    )


def _policy(table: PolicyTable) -> Policy:
    return Policy(
        profile=table.profile or ORG.policy.profile,
        expiry_warning=table.expiry_warning,
        expiry_critical=table.expiry_critical,
        accepted_roots=table.accepted_roots,
        uploaded=table.uploaded,
        revocation=table.revocation or ORG.policy.revocation,
        suppressions=tuple(_suppression(suppression) for suppression in table.suppress or ()),
    )


def _suppression(table: SuppressionTable) -> Suppression:
    if table.rule is None or table.until is None or table.reason is None:
        raise AssertionError("the checks let a suppression through that lacks what it needs")
    return Suppression(table.rule, table.until, table.reason, table.fingerprint)


def _planned(table: MaintenanceTable) -> Planned:
    reason = table.reason or ""
    if table.until is not None:
        return Window(table.until, table.begins, reason)
    if table.cron is None or table.duration is None:
        raise AssertionError("the checks let a window through that lacks what it needs")
    return Recurring(table.cron, table.duration, table.timezone or "UTC", reason)


def state_directory_of(table: AgentTable, environ: Mapping[str, str]) -> Path:
    """Return where the state is kept: as configured, as systemd says, or the usual place."""
    if table.state_directory is not None:
        return Path(table.state_directory)
    # systemd.exec(5): several directories are separated by colons; the unit asks for one.
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else AGENT.state_directory
