"""Checks across the keys of one org, after the defaults were merged in.

Each yields the key to blame, dotted when it is in a table, and a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from agent.config.build import cycle_limit, highest_tls, logs_in, lowest_tls, trusts_system
from agent.config.settings import ORG
from agent.config.tables import OrgTable, TimeoutsTable, given_in
from agent.config.values import major_version, per_hour, told, told_in_days
from agent.org import SessionCall

# Salesforce help 005132110: login() does not exist from 65.0 on.
_LAST_WITH_LOGIN: Final = 64
LABELS_TAKEN: Final = frozenset({"org", "host", "port", "api_version", "login_method"})
LONGEST_LABEL_VALUE: Final = 200
Complaints = Iterator[tuple[str, str]]


def _required(org: OrgTable) -> Complaints:
    if org.host is None:
        yield "host", "a host name is needed: the org's My Domain name (NAME.my.salesforce.com)"


def _certificate_required(org: OrgTable) -> Complaints:
    if org.certificate is None:
        yield "certificate", "the path of a PEM file is needed: our certificate, leaf first"


def _trust_needs_something(org: OrgTable) -> Complaints:
    if org.trust and not trusts_system(org.trust) and org.trust.file is None:
        yield "trust", "nothing is trusted: set system = true, give a file, or both"


def _tls_order(org: OrgTable) -> Complaints:
    if lowest_tls(org).value > highest_tls(org).value:
        yield "tls_min", f"is higher than tls_max ({highest_tls(org).value})"


def _proxy_complete(org: OrgTable) -> Complaints:
    if org.proxy is None:
        return
    if org.proxy.url is None:
        yield "proxy.url", 'the proxy\'s address is needed: "http://HOST:PORT"'
    if org.proxy.username is not None and org.proxy.password is None:
        yield "proxy.password", "is needed beside username"
    if org.proxy.password is not None and org.proxy.username is None:
        yield "proxy.username", "is needed beside password"


def _login_complete(org: OrgTable) -> Complaints:
    if org.username is not None and org.password is None:
        yield "password", "is needed beside username; without both only the door is watched"
    if org.password is not None and org.username is None:
        yield "username", "is needed beside password; without both only the door is watched"
    if org.security_token is not None and org.username is None and org.password is None:
        yield "security_token", "needs username and password beside it"


def _login_exists(org: OrgTable) -> Complaints:
    if logs_in(org) and org.api_version and major_version(org.api_version) > _LAST_WITH_LOGIN:
        message = (
            f"has no login(): Salesforce removed it after {_LAST_WITH_LOGIN}.0; use "
            f'"{_LAST_WITH_LOGIN}.0", or leave username and password out to watch the door only'
        )
        yield "api_version", message


def _query_has_soql(org: OrgTable) -> Complaints:
    if org.session_call is SessionCall.QUERY and org.soql is None:
        yield "soql", 'a query is needed with session_call = "query"'


def _enforcement_has_login(org: OrgTable) -> Complaints:
    if org.enforcement and not logs_in(org):
        yield "enforcement", "needs a session, and so username and password"


def _login_rate(org: OrgTable) -> Complaints:
    interval = org.login_interval or ORG.login_interval
    allowed = org.logins_per_hour or ORG.logins_per_hour
    if logs_in(org) and 3600 / interval > allowed:
        message = (
            f"a login every {told(interval)} makes {per_hour(interval)} logins an hour, but "
            f"logins_per_hour allows {allowed}: log in every {told(math.ceil(3600 / allowed))}, "
            "or allow more"
        )
        yield "logins_per_hour" if org.login_interval is None else "login_interval", message


def _notice_order(org: OrgTable) -> Complaints:
    warning = org.policy.expiry_warning if org.policy else None
    critical = org.policy.expiry_critical if org.policy else None
    if warning is not None and critical is not None and critical > warning:
        message = f"{told_in_days(critical)} is longer than expiry_warning"
        yield "policy.expiry_critical", f"{message} ({told_in_days(warning)})"


def _timeouts_fit(org: OrgTable) -> Complaints:
    yield from timeout_complaints(org.interval, org.timeouts)


def timeout_complaints(interval: float | None, table: TimeoutsTable | None) -> Complaints:
    """Yield what is wrong between an interval and the limits within it."""
    given = given_in(table) if table else {}
    every = interval or ORG.interval
    cycle = cycle_limit(every, given)
    if cycle >= every:
        yield (
            "timeouts.cycle",
            f"{told(cycle)} must be shorter than interval ({told(every)}), or cycles would meet",
        )
    for stage, limit in given.items():
        if stage != "cycle" and limit > cycle:
            yield (
                f"timeouts.{stage}",
                f"{told(limit)} is longer than timeouts.cycle, the whole ({told(cycle)})",
            )


class _Check(NamedTuple):
    """A check and the keys it reads; it is left out when one of them is already known as wrong.

    A table is wrong when anything in it is.
    """

    reads: tuple[str, ...]
    complaints: Callable[[OrgTable], Complaints]


CHECKS: Final = (
    _Check(("host",), _required),
    _Check(("certificate",), _certificate_required),
    _Check(("trust",), _trust_needs_something),
    _Check(("tls_min", "tls_max"), _tls_order),
    _Check(("proxy",), _proxy_complete),
    _Check(("username", "password", "security_token"), _login_complete),
    _Check(("username", "password", "api_version"), _login_exists),
    _Check(("session_call", "soql"), _query_has_soql),
    _Check(("enforcement", "username", "password"), _enforcement_has_login),
    _Check(("login_interval", "logins_per_hour", "username", "password"), _login_rate),
    _Check(("policy.expiry_warning", "policy.expiry_critical"), _notice_order),
    _Check(("interval", "timeouts"), _timeouts_fit),
)
