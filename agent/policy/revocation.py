"""Rules about revocation: what the authorities answered, or why they could not be asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from agent.chain import self_signed
from agent.policy.rule import (
    BOTH,
    TELL_OWNER,
    Evidence,
    Finding,
    RevocationState,
    Severity,
    Side,
    rule,
)
from agent.policy.wording import which

_KB_CRL: Final = "https://help.salesforce.com/s/articleView?id=000383575"
_ASKED: Final = ("revocation",)
# A certificate for a week or less need not be revocable.
_SHORT_LIVED: Final = timedelta(days=7)


@rule(
    Severity.CRITICAL,
    needs=_ASKED,
    remedy="Ask the authority why; get a new certificate and upload it to the org.",
    reference=f"RFC 5280 §6.3; {_KB_CRL}",
)
def revoked(evidence: Evidence) -> Iterator[Finding]:
    """A certificate of a chain was revoked by its authority."""
    yield from _in_state(evidence, RevocationState.REVOKED, "was revoked")


@rule(
    Severity.WARNING,
    needs=_ASKED,
    remedy="Allow this machine to reach the authority's list; Salesforce reads it too.",
    reference=f"CA/Browser Forum Baseline Requirements §4.9.7; {_KB_CRL}",
)
def crl_unavailable(evidence: Evidence) -> Iterator[Finding]:
    """Nobody could be asked whether a certificate was revoked."""
    yield from _in_state(
        evidence, RevocationState.UNAVAILABLE, "could not be checked for revocation"
    )


@rule(
    Severity.WARNING,
    needs=_ASKED,
    remedy="Tell the authority: its revocation list is past its next update.",
    reference=f"RFC 5280 §5.1.2.5; {_KB_CRL}",
)
def crl_stale(evidence: Evidence) -> Iterator[Finding]:
    """The answer about revocation is older than its authority promised."""
    yield from _in_state(evidence, RevocationState.STALE, "has an outdated revocation list")


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Ask the authority for a certificate that can be revoked.",
    reference="CA/Browser Forum Baseline Requirements §7.1.2.11.2",
    unless=("cert_extension_malformed", "version_not_v3"),
    same_certificate=True,
)
def revocation_info_missing(evidence: Evidence) -> Iterator[Finding]:
    """A public leaf names neither a revocation list nor a responder."""
    for side, position, leaf in evidence.leaves():
        short = leaf.not_after - leaf.not_before <= _SHORT_LIVED
        told = leaf.crl_distribution_points or leaf.ocsp_responders
        if evidence.analysis(side).public and not short and not told:
            yield Finding(
                f"{which(side, position, leaf)} names neither a revocation list nor a responder.",
                side,
                leaf,
                position,
            )


def _in_state(evidence: Evidence, state: RevocationState, what: str) -> Iterator[Finding]:
    for side, position, certificate in evidence.sent():
        answer = (evidence.revocation or {}).get(certificate.fingerprint_sha256)
        if answer and answer.state is state and not self_signed(certificate):
            theirs = side is Side.SERVER and state is RevocationState.REVOKED
            yield Finding(
                f"{which(side, position, certificate)} {what}"
                f"{f' ({answer.detail})' if answer.detail else ''}.",
                side,
                certificate,
                position,
                remedy=TELL_OWNER if theirs else None,
            )
