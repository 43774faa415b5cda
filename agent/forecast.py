"""The calendar of what will stop: dated events of all orgs, each with its cause and remedy.

Certificates expire, renewals fall due, authorities and Salesforce switch things off, and policies
begin to count against certificates that are fine today. The last are found by asking the policy
itself at every date on which its answer can change. Pure: evidence and time come in from outside.
"""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from agent import report
from agent.certificate import Certificate
from agent.policy import CATALOGUE, deadlines, evaluate
from agent.policy.deadline import DEADLINES
from agent.policy.rule import Evidence, Severity, Side, Violation
from agent.policy.tables import ClientAuthCutoff
from agent.policy.validity import renewal_moment

_SECOND: Final = timedelta(seconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

# Events of their own tell these better, or they are about this installation.
_TOLD_OTHERWISE: Final = frozenset(
    {
        "api_version_retiring",
        "ca_expires_before_leaf",
        "ca_expiring",
        "clientauth_not_renewable",
        "clock_suspect",
        "expired",
        "expiring",
        "not_yet_valid",
        "renewal_due",
        "soap_login_retiring",
        "trust_list_stale",
        "verifier_disagrees",
    }
)
# Past ones of these stop nothing by themselves: a removal, a renewal or a new chain does.
_OVER_WHEN_PAST: Final = frozenset(
    {"api_version_deprecation", "client_auth_cutoff", "server_root_phase_out"}
)
# Which rule knows what to do about a deadline, and how bad it is when it comes.
_DEADLINES: Final[Mapping[str, tuple[str, Severity]]] = {
    "soap_login_retirement": ("soap_login_retiring", Severity.CRITICAL),
    "api_version_deprecation": ("api_version_retiring", Severity.WARNING),
    "api_version_removal": ("api_version_retiring", Severity.CRITICAL),
    "client_auth_cutoff": ("clientauth_not_renewable", Severity.WARNING),
    "server_root_phase_out": ("root_constrained", Severity.INFO),
}


class Kind(StrEnum):
    """What sort of event it is."""

    EXPIRY = "expiry"
    RENEWAL = "renewal"
    POLICY = "policy"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Event:
    """Something stops on a date, for these orgs. What is overdue has a date in the past.

    `name` is that of the rule or the deadline; `cause` is a sentence that is true on that date.
    """

    date: datetime
    kind: Kind
    name: str
    severity: Severity
    side: Side
    fingerprint: str | None
    cause: str
    remedy: str
    reference: str
    orgs: tuple[str, ...]

    @property
    def uid(self) -> str:
        """What identifies the event in every forecast, whichever orgs it comes to concern."""
        identity = (self.date.isoformat(), self.name, self.fingerprint or "", self.cause)
        return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        """Say when, what and for whom."""
        return f"<Event {self.date:%Y-%m-%d} {self.name}: {', '.join(self.orgs)}>"


def forecast(known: Iterable[Evidence], now: datetime, months: int) -> tuple[Event, ...]:
    """Return what will stop up to `months` from `now`, and what is overdue; sorted by date.

    `known` holds the evidence for each org. What is the same for several orgs is one event.
    """
    end = after(now, months)
    orgs: dict[Event, dict[str, None]] = {}
    for evidence in (replace(one, now=now) for one in known):
        for event in (
            *_expiries(evidence),
            *_renewals(evidence),
            *_deadlines(evidence),
            *_policy(evidence, end),
        ):
            if event.date <= end:
                orgs.setdefault(event, {})[evidence.org] = None
    events = (replace(event, orgs=tuple(sorted(names))) for event, names in orgs.items())
    return tuple(sorted(events, key=_order))


def _order(event: Event) -> tuple[datetime, int, str, tuple[str, ...], str]:
    return (event.date, -event.severity.rank, event.name, event.orgs, event.cause)


def after(now: datetime, months: int) -> datetime:
    """Return the moment that many calendar months later, on the last day of a shorter month."""
    count = now.year * 12 + now.month - 1 + months
    year, month = count // 12, count % 12 + 1
    if year > _LAST.year:
        return _LAST
    day = min(now.day, calendar.monthrange(year, month)[1])
    return now.replace(year=year, month=month, day=day)


def _expiries(evidence: Evidence) -> Iterator[Event]:
    """Yield the end of every certificate of both chains, and of roots they cannot do without."""
    rule = CATALOGUE["expired"]
    for side, analysis in evidence.sides():
        leaf = analysis.leaf
        for certificate in dict.fromkeys(
            (*analysis.certificates, *_without_choice(analysis.paths))
        ):
            if certificate == leaf:
                what = f"The {side} certificate {leaf.subject} expires."
            elif certificate not in _without_choice(analysis.paths or (analysis.walk,)):
                what = f"{certificate.subject} in the {side} chain expires."
            elif certificate.not_after < leaf.not_after:
                what = (
                    f"{certificate.subject} above the {side} certificate {leaf.subject} expires, "
                    "and the chain with it, although its leaf would run longer."
                )
            else:
                what = f"{certificate.subject} above the {side} certificate {leaf.subject} expires."
            yield Event(
                date=certificate.not_after,
                kind=Kind.EXPIRY,
                name=rule.name,
                severity=Severity.CRITICAL,
                side=side,
                fingerprint=certificate.fingerprint_sha256,
                cause=what,
                remedy=rule.remedy_for(side),
                reference=rule.reference,
                orgs=(),
            )


def _without_choice(
    paths: Sequence[tuple[Certificate, ...]],
) -> tuple[Certificate, ...]:
    """Return the certificates that lie on every path."""
    first, *others = paths or ((),)
    return tuple(c for c in first if all(c in path for path in others))


def _renewals(evidence: Evidence) -> Iterator[Event]:
    """Yield when the renewal of the client's certificate is due, and whether its authority will."""
    if not evidence.client_chain:
        return
    leaf = evidence.client.leaf
    due = renewal_moment(leaf)
    if evidence.now > leaf.not_after:
        return
    rule = CATALOGUE["renewal_due"]
    cause = f"The client certificate {leaf.subject} is due for renewal."
    severity = Severity.WARNING
    cutoff = deadlines(evidence).get("client_auth_cutoff")
    if cutoff is not None and cutoff < due:
        rule = CATALOGUE["clientauth_not_renewable"]
        severity = Severity.CRITICAL
        cause = (
            f"{cause[:-1]}, but its authority issues no clientAuth since {cutoff:%Y-%m-%d}: the "
            "new certificate will not open the door."
        )
    yield Event(
        date=due,
        kind=Kind.RENEWAL,
        name=rule.name,
        severity=severity,
        side=Side.CLIENT,
        fingerprint=leaf.fingerprint_sha256,
        cause=cause,
        remedy=rule.remedy,
        reference=rule.reference,
        orgs=(),
    )


def _deadlines(evidence: Evidence) -> Iterator[Event]:
    for name, date in deadlines(evidence).items():
        if name in _OVER_WHEN_PAST and date <= evidence.now:
            continue
        rule_name, severity = _DEADLINES[name]
        rule = CATALOGUE[rule_name]
        yield Event(
            date=date,
            kind=Kind.DEADLINE,
            name=name,
            severity=severity,
            side=Side.ORG,
            fingerprint=None,
            cause=_detailed(name, evidence),
            remedy=rule.remedy,
            reference=_source(name, evidence, rule.reference),
            orgs=(),
        )


def _detailed(name: str, evidence: Evidence) -> str:
    """Return what happens then, with what it happens to."""
    said = DEADLINES[name]
    if name.startswith("api_version"):
        return said.replace("The configured API version", f"API version {evidence.api_version}")
    if name == "client_auth_cutoff" and (cutoff := _cutoff(evidence)):
        return f"{cutoff.name} stops to issue clientAuth: renew before, or with another authority."
    if name == "server_root_phase_out":
        roots = [r for r in evidence.server.roots if r.sct_not_after]
        first = min(roots, key=lambda root: root.sct_not_after or _LAST)
        return said.replace("the server's root", f"the server's root {first.certificate.subject}")
    return said


def _source(name: str, evidence: Evidence, otherwise: str) -> str:
    """Return who announced it, where the tables know."""
    tables = evidence.tables
    if name in tables.dates:
        return tables.dates[name].source
    if name.startswith("api_version") and (versions := tables.versions(evidence.api_version or "")):
        return versions.source
    if name == "client_auth_cutoff" and (cutoff := _cutoff(evidence)):
        return cutoff.source
    return otherwise


def _cutoff(evidence: Evidence) -> ClientAuthCutoff | None:
    return evidence.tables.client_auth_cutoff(evidence.client.authorities())


def _policy(evidence: Evidence, end: datetime) -> Iterator[Event]:
    """Yield the findings that will come, or become worse, up to `end`."""
    worst = {_identity(v): v.severity for v in evaluate(evidence).violations}
    before = evidence.now
    for moment in sorted(_turns(evidence, end)):
        for violation in evaluate(replace(evidence, now=moment)).violations:
            known = worst.get(_identity(violation), Severity.INFO)
            if violation.severity <= known:
                continue
            worst[_identity(violation)] = violation.severity
            if violation.rule not in _TOLD_OTHERWISE:
                yield _to_come(violation, before, moment)
        before = moment


def _identity(violation: Violation) -> tuple[str, Side, str | None]:
    return violation.rule, violation.side, violation.fingerprint


def _to_come(violation: Violation, before: datetime, moment: datetime) -> Event:
    bites = violation.bites_from
    return Event(
        date=bites if bites and before < bites <= moment else moment,
        kind=Kind.POLICY,
        name=violation.rule,
        severity=violation.severity,
        side=violation.side,
        fingerprint=violation.fingerprint,
        cause=violation.message,
        remedy=violation.remedy,
        reference=violation.reference,
        orgs=(),
    )


def _turns(evidence: Evidence, end: datetime) -> frozenset[datetime]:
    """Return the moments up to `end` on which the policy's answer can change."""
    tables = evidence.tables
    turns = {policy.date for policy in tables.dates.values()}
    turns |= {limit.since for limit in tables.validity}
    turns |= {cutoff.date for cutoff in tables.client_auth_cutoffs}
    turns |= {suppression.until for suppression in evidence.suppressions}
    for versions in tables.api_versions:
        turns |= {versions.deprecated, versions.removed}
    for _, analysis in evidence.sides():
        for certificate in dict.fromkeys((*analysis.certificates, *analysis.authorities())):
            # Both ends belong to the validity period (RFC 5280 §4.1.2.5).
            turns |= {certificate.not_before, _just_after(certificate.not_after)}
        turns |= {_just_after(r.sct_not_after) for r in analysis.roots if r.sct_not_after}
    return frozenset(moment for moment in turns if evidence.now < moment <= end)


def _just_after(moment: datetime) -> datetime:
    # RFC 5280 §4.1.2.5: 9999-12-31 23:59:59 stands for "never".
    return moment if moment > _LAST - _SECOND else moment + _SECOND


def as_json(events: Sequence[Event], now: datetime) -> list[dict[str, Any]]:
    """Return the events, ready for `json.dumps`. It is an interface; `uid` is that of the .ics."""
    return [
        {
            "date": report.moment(event.date),
            "overdue": event.date <= now,
            "kind": event.kind.value,
            "name": event.name,
            "severity": event.severity.value,
            "side": event.side.value,
            "orgs": list(event.orgs),
            "fingerprint": event.fingerprint,
            "cause": event.cause,
            "remedy": event.remedy,
            "reference": event.reference,
            "uid": event.uid,
        }
        for event in events
    ]
