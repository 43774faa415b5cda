"""What an authority said about one certificate, and until when it counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from agent.certificate import Certificate
from agent.policy.rule import Revocation, RevocationState

# How far ahead of ours the authority's clock may be.
CLOCK_SKEW: Final = timedelta(minutes=5)

# What the library raises over what it cannot read; TypeError is about a name that has a BIT STRING
# where a text belongs.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and its nextUpdate.

    `delegate` is the certificate of whoever signed it for the issuer, if that one may have been
    revoked in its turn.
    """

    revocation: Revocation
    next_update: datetime | None = None
    delegate: Certificate | None = None


def unavailable(detail: str) -> Answer:
    """Return that there is no answer, and why."""
    return Answer(Revocation(RevocationState.UNAVAILABLE, detail))


def conclude(
    revoked: datetime | None, reason: x509.ReasonFlags | None, last: datetime, now: datetime
) -> Revocation:
    """Return what a status means that was given until `last`; `revoked` None means it is good.

    A revocation is for good, however old the news; only a hold can have been lifted since
    (RFC 5280 §5.3.1).
    """
    stale = last < now
    if revoked and not (stale and reason is x509.ReasonFlags.certificate_hold):
        why = reason.value if reason else "no reason given"
        return Revocation(RevocationState.REVOKED, f"says revoked since {moment(revoked)}, {why}")
    if stale:
        return Revocation(RevocationState.STALE, f"should have been replaced {moment(last)}")
    return Revocation(RevocationState.GOOD)


def moment(when: datetime) -> str:
    """Return a moment as these details write it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"
