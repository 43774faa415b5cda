"""What an org showed, over time, as Evidence for the policy; judged again only when it changed.

A door shows the same minute after minute, and certificates change their standing by the day, so a
judgement is kept until what it rests on, or the day, is another. What was seen once stays evidence
while later cycles fail: a violation must not vanish because the network does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, read_chain
from agent.identity import Identity
from agent.org import Org, TrustAnchors
from agent.policy import Judgement, deadlines, evaluate
from agent.policy.rule import Evidence, PrivateKey, Thresholds
from agent.policy.tables import Tables, shipped_anchors
from agent.result import ClientAuth, Outcome, Probe, ProbeResult, Skipped

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_SKEW_STEP: Final = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement and the dated ends that concern the org."""

    judgement: Judgement
    deadlines: Mapping[str, datetime]


class Judge:
    """Judges one org; remembers what it has seen of it.

    `anchors` are the roots we know; None reads them as `anchors_of` does.
    """

    def __init__(self, org: Org, tables: Tables, anchors: Anchors | None = None) -> None:
        self._seen = basis(org, tables, anchors_of(org.trust) if anchors is None else anchors)
        self._judged: tuple[Evidence, datetime, int] | None = None
        self._verdict: Verdict | None = None

    def trust(self, anchors: Anchors) -> None:
        """Judge with these roots from now on."""
        if anchors is not self._seen.anchors:
            self._seen = replace(self._seen, anchors=anchors)

    def judge(self, result: ProbeResult, identity: Identity | None, now: datetime) -> Verdict:
        """Take in one cycle and return the verdict as of `now`."""
        self._seen = taken_in(self._seen, result, identity)
        rests_on = (self._seen, now.replace(minute=0, second=0, microsecond=0), _over(self._seen, now))
        if self._verdict is None or rests_on != self._judged:
            evidence = replace(self._seen, now=now)
            self._verdict = Verdict(evaluate(evidence), deadlines(evidence))
            self._judged = rests_on
        return self._verdict


def basis(
    org: Org, tables: Tables, anchors: Anchors, accepted_roots: frozenset[str] | None = None
) -> Evidence:
    """Return what an Org alone tells, with nothing seen yet; `now` is long before anything."""
    return Evidence(
        now=_NEVER,
        tables=tables,
        anchors=anchors,
        org=org.name,
        host=org.endpoint.host,
        server_name=org.endpoint.server_name,
        port=org.endpoint.port,
        api_version=org.api_version,
        soap_login=org.login is not None,
        accepted_roots=accepted_roots,
        profile=org.policy.profile,
        thresholds=Thresholds(
            _seconds(org.policy.expiry_warning), _seconds(org.policy.expiry_critical)
        ),
        suppressions=org.policy.suppressions,
    )


def taken_in(seen: Evidence, result: ProbeResult, identity: Identity | None) -> Evidence:
    """Return the evidence with what one cycle showed; what it did not show stays as it was."""
    handshake = result.handshake
    failure = handshake.failure if handshake else None
    not_reached = result.client_auth is ClientAuth.NOT_REACHED
    return replace(
        seen,
        client_chain=result.client_chain or seen.client_chain,
        server_chain=result.server_chain or seen.server_chain,
        private_key=_private_key(identity) or seen.private_key,
        # A cycle that never got to the door says nothing about its verdict.
        client_auth=seen.client_auth if not_reached else result.client_auth,
        tls_version=(handshake and handshake.tls_version) or seen.tls_version,
        cipher_suite=(handshake and handshake.cipher_suite) or seen.cipher_suite,
        acceptable_issuers=(
            handshake.acceptable_issuers
            if handshake and handshake.certificate_requested
            else seen.acceptable_issuers
        ),
        server_failure=failure if handshake and not_reached else None,
        refusal=_last(seen.refusal, result.outcomes.get(Probe.REFUSAL)),
        enforcement=_last(seen.enforcement, result.outcomes.get(Probe.ENFORCEMENT)),
        clock_skew=_coarse(result.clock_skew, seen.clock_skew),
    )


def _private_key(identity: Identity | None) -> PrivateKey | None:
    if identity is None:
        return None
    return PrivateKey(
        subject_public_key_info_sha256=identity.leaf.subject_public_key_info_sha256,
        encrypted=identity.passphrase is not None,
    )


def _last(before: Outcome | None, now: Outcome | None) -> Outcome | None:
    return before if now is None or isinstance(now, Skipped) else now


def _coarse(skew: float | None, before: float | None) -> float | None:
    # The Date header counts whole seconds, so small changes mean nothing and must not cost a
    # judgement each.
    return before if skew is None else round(skew / _SKEW_STEP) * _SKEW_STEP


def _over(seen: Evidence, now: datetime) -> int:
    """Count the moments in the certificates that are past: each one passing changes the verdict."""
    certificates: tuple[Certificate, ...] = (*(seen.client_chain or ()), *(seen.server_chain or ()))
    return sum((c.not_before <= now) + (c.not_after <= now) for c in certificates)


def anchors_of(trust: TrustAnchors) -> Anchors:
    """Return the roots we know and those the operator trusts for the server; reads `trust.file`."""
    try:
        content = b"" if trust.file is None else Path(trust.file).read_bytes()
    except OSError:
        # That the file cannot be read is told where it is needed, in the handshake.
        content = b""
    return _with_operators(content)


# Orgs share their few trust files, and each pool of roots holds hundreds of certificates.
@lru_cache(maxsize=64)
def _with_operators(content: bytes) -> Anchors:
    return shipped_anchors(read_chain(content).certificates if content else ())


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
