"""Rules about time: what has expired, what will, and what is valid for longer than it may be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from agent.certificate import Certificate
from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, Thresholds, rule
from agent.policy.wording import day, days, span, which

_AUTHORITY_CRITICAL: Final = timedelta(days=30)
_AUTHORITY_NOTICE: Final = timedelta(days=90), _AUTHORITY_CRITICAL
_SHORT_LIVED: Final = timedelta(days=10)
_LONGEST_PRIVATE_DAYS: Final = 825
_DAY: Final = 86_400


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Renew the certificate, upload it to the org, then deploy it; check this clock first.",
    reference="RFC 5280 §6.1.3 (a)(2); Salesforce checks the dates of every certificate "
    "(https://help.salesforce.com/s/articleView?id=000383575)",
    unless=("validity_negative",),
    same_certificate=True,
)
def expired(evidence: Evidence) -> Iterator[Finding]:
    """A certificate of a chain is past its notAfter.

    A root counts, even if it is not sent, where the chain leads to no other.
    """
    for side, position, certificate, place in _needed(evidence):
        if certificate.not_after < evidence.now:
            yield Finding(
                f"{which(side, position, certificate)} expired "
                f"{span(evidence.now - certificate.not_after)} ago, on "
                f"{day(certificate.not_after)}.",
                side,
                certificate,
                position,
                remedy=_INSTEAD.get(place),
                bites_from=certificate.not_after,
            )


class _Place(Enum):
    """What a certificate is in its chain."""

    LEAF = "leaf"
    AUTHORITY = "authority"
    EXTRA = "extra"


# What to do about an expired certificate that is not the leaf.
_INSTEAD: Final = {
    _Place.AUTHORITY: "Get the renewed one from the authority and put it in its place; check this "
    "clock first.",
    _Place.EXTRA: "Remove it from the file: nothing in there comes from it.",
}


def _needed(evidence: Evidence) -> Iterator[tuple[Side, int | None, Certificate, _Place]]:
    """Yield what was presented, and the authorities above it that are on every path."""
    for side, analysis in evidence.sides():
        extra = frozenset(analysis.extra)
        for position, certificate in analysis.presented():
            authority = _Place.EXTRA if position in extra else _Place.AUTHORITY
            leaf = position == analysis.leaf_position
            yield side, position, certificate, _Place.LEAF if leaf else authority
        for authority_above in analysis.inevitable():
            if analysis.position(authority_above) is None:
                yield side, None, authority_above, _Place.AUTHORITY


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Check this machine's clock; if it is right, deploy the certificate later.",
    reference="RFC 5280 §6.1.3 (a)(2)",
)
def not_yet_valid(evidence: Evidence) -> Iterator[Finding]:
    """A certificate of a chain is used before its notBefore."""
    for side, position, certificate in evidence.sent():
        if evidence.now < certificate.not_before <= certificate.not_after:
            yield Finding(
                f"{which(side, position, certificate)} becomes valid only in "
                f"{span(certificate.not_before - evidence.now)}, on {day(certificate.not_before)}.",
                side,
                certificate,
                position,
            )


def expiry_notice(
    leaf: Certificate, side: Side, thresholds: Thresholds
) -> tuple[timedelta, timedelta]:
    """Return how long before notAfter a leaf becomes a warning, and critical.

    The notice is a fraction of the lifetime with a cap, since 30 days are 64 % of a 47-day
    certificate. A client's is longer: a new one must be uploaded to the org first, by hand.
    """
    lifetime = leaf.not_after - leaf.not_before
    warning = min(timedelta(days=30), lifetime / 4)
    if side is Side.CLIENT:
        critical = min(timedelta(days=14), lifetime / 5)
    else:
        critical = min(timedelta(days=7), lifetime / 10)
    # Who gives one of them alone must not lose the other: there is a warning before it is critical.
    if thresholds.expiry_warning is not None:
        critical = min(critical, thresholds.expiry_warning / 2)
        warning = thresholds.expiry_warning
    if thresholds.expiry_critical is not None:
        if thresholds.expiry_warning is None:
            warning = max(warning, 2 * thresholds.expiry_critical)
        critical = thresholds.expiry_critical
    return warning, critical


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Renew the certificate and upload it to the org before deploying it.",
    reference="https://letsencrypt.org/docs/integration-guide/ (renew with a third of the "
    "lifetime left)",
    unless=("validity_negative",),
    same_certificate=True,
)
def expiring(evidence: Evidence) -> Iterator[Finding]:
    """A leaf runs out within its notice period, which scales with its lifetime."""
    for side, position, leaf in evidence.leaves():
        warning, critical = expiry_notice(leaf, side, evidence.thresholds)
        yield from _running_out(evidence.now, side, position, leaf, (warning, critical))


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get the authority's renewed certificate and put it in its place.",
    reference="RFC 5280 §6.1.3 (a)(2)",
    unless=("ca_expires_before_leaf", "validity_negative"),
    same_certificate=True,
)
def ca_expiring(evidence: Evidence) -> Iterator[Finding]:
    """An authority's certificate in a chain runs out within 90 days; within 30 it is critical."""
    for side, position, certificate, place in _needed(evidence):
        if place is _Place.AUTHORITY:
            yield from _running_out(evidence.now, side, position, certificate, _AUTHORITY_NOTICE)


def _running_out(
    now: datetime,
    side: Side,
    position: int | None,
    certificate: Certificate,
    notice: tuple[timedelta, timedelta],
) -> Iterator[Finding]:
    warning, critical = notice
    left = certificate.not_after - now
    if timedelta(0) <= left <= max(warning, critical):
        is_critical = left <= critical
        yield Finding(
            f"{which(side, position, certificate)} expires in {span(left)}, on "
            f"{day(certificate.not_after)}.",
            side,
            certificate,
            position,
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            bites_from=certificate.not_after - (critical if is_critical else warning),
        )


def renewal_moment(certificate: Certificate) -> datetime:
    """Return when renewal is due: a third of the lifetime left, half below ten days in all."""
    lifetime = certificate.not_after - certificate.not_before
    return certificate.not_after - lifetime / (2 if lifetime < _SHORT_LIVED else 3)


@rule(
    Severity.INFO,
    needs=CLIENT,
    remedy="Start the renewal now; an automatic one should already have happened.",
    reference="https://letsencrypt.org/docs/integration-guide/ (renew with a third of the "
    "lifetime left)",
    unless=("expiring",),
)
def renewal_due(evidence: Evidence) -> Iterator[Finding]:
    """The client certificate has a third or less of its lifetime left and was not renewed."""
    leaf = evidence.client.leaf
    position = evidence.client.leaf_position
    due = renewal_moment(leaf)
    if due <= evidence.now <= leaf.not_after:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} was due for renewal on {day(due)}; it expires "
            f"in {span(leaf.not_after - evidence.now)}, on {day(leaf.not_after)}.",
            Side.CLIENT,
            leaf,
            position,
            bites_from=due,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get the renewed intermediate from the authority, or renew the leaf under it.",
    reference="RFC 5280 §6.1 (the whole path must be valid at one moment)",
)
def ca_expires_before_leaf(evidence: Evidence) -> Iterator[Finding]:
    """Every path of a chain ends before the leaf does, because an authority expires first."""
    for side, analysis in evidence.sides():
        leaf = analysis.leaf
        # Of several paths the longest-lived counts: a verifier may choose any of them.
        lives = [min(p[1:], key=lambda c: c.not_after) for p in analysis.ways if len(p) > 1]
        if not lives:
            continue
        first = max(lives, key=lambda c: c.not_after)
        if evidence.now <= first.not_after < leaf.not_after:
            soon = first.not_after - evidence.now <= _AUTHORITY_CRITICAL
            yield Finding(
                f"The {side} chain ends in {span(first.not_after - evidence.now)}, on "
                f"{day(first.not_after)}, when {first.subject} expires, although its leaf "
                f"({leaf.subject}) runs until {day(leaf.not_after)}.",
                side,
                first,
                analysis.position(first),
                severity=Severity.CRITICAL if soon else Severity.WARNING,
                bites_from=first.not_after - _AUTHORITY_CRITICAL,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have a certificate issued with a shorter validity.",
    reference="CA/Browser Forum Baseline Requirements 2.2.6 §6.3.2",
    unless=("leaf_is_ca",),
    same_certificate=True,
)
def validity_too_long(evidence: Evidence) -> Iterator[Finding]:
    """A leaf under a public root is valid for longer than the schedule of its issuing day allows.

    A private one is only remarked on, above 825 days.
    """
    for side, analysis in evidence.sides():
        leaf = analysis.leaf
        limit = evidence.tables.validity_limit(leaf.not_before)
        if analysis.public and limit and leaf.lifetime_seconds > limit.days * _DAY:
            yield Finding(
                f"{which(side, analysis.leaf_position, leaf)} is valid for "
                f"{days(leaf.lifetime_seconds)}; public ones issued on {day(leaf.not_before)} may "
                f"be for {limit.days}.",
                side,
                leaf,
                analysis.leaf_position,
                bites_from=limit.since,
            )
        elif not analysis.public and side is Side.CLIENT and _private_is_long(leaf):
            yield Finding(
                f"{which(side, analysis.leaf_position, leaf)} is valid for "
                f"{days(leaf.lifetime_seconds)}; so long it serves whoever steals its key.",
                side,
                leaf,
                analysis.leaf_position,
                severity=Severity.INFO,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again: nobody can ever accept this one.",
    reference="RFC 5280 §4.1.2.5",
)
def validity_negative(evidence: Evidence) -> Iterator[Finding]:
    """A certificate ends before it begins."""
    for side, position, certificate in evidence.sent():
        if certificate.not_after < certificate.not_before:
            yield Finding(
                f"{which(side, position, certificate)} ends on {day(certificate.not_after)}, "
                f"before it begins, on {day(certificate.not_before)}.",
                side,
                certificate,
                position,
            )


def _private_is_long(leaf: Certificate) -> bool:
    return leaf.lifetime_seconds > _LONGEST_PRIVATE_DAYS * _DAY
