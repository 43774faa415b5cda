"""What an org showed, over time, as Evidence for the policy; judged again only when it changed.

A door shows the same minute after minute, and certificates change their standing by the day, so a
judgement is kept until what it rests on, or the day, is another. What was seen once stays evidence
while later cycles fail: a violation must not vanish because the network does.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, read_chain
from agent.credentials import Protection
from agent.identity import Identity
from agent.listing import Lists
from agent.org import Org, RevocationCheck, TrustAnchors
from agent.policy import Judgement, deadlines, evaluate
from agent.policy.rule import Evidence, OtherOrg, PrivateKey, Revocation, Thresholds
from agent.policy.tables import Tables, shipped_anchors
from agent.result import ClientAuth, Outcome, Probe, ProbeResult, Skipped
from agent.succession import Chain

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_SKEW_STEP: Final = 10.0


@dataclass(frozen=True, slots=True)
class Files:
    """What the operator's files tell beside certificate and key themselves.

    `key` is how the private key's file is protected, None when it is not a file; `problem` says why
    a changed certificate or key is not in use.
    """

    anchors: Anchors
    lists: Lists = field(default_factory=Lists)
    key: Protection | None = None
    problem: str | None = None


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
        self._org = org
        self._seen = basis(org, tables, anchors_of(org.trust) if anchors is None else anchors)
        self._key: Protection | None = None
        self._files: Files | None = None
        self._judged: tuple[Evidence, datetime, int] | None = None
        self._verdict: Verdict | None = None

    @property
    def seen(self) -> Evidence:
        """What is known of the org; its `now` means nothing."""
        return self._seen

    def succeeded_by(self, org: Org) -> Judge:
        """Return a judge of the org as it is configured now, to whom what was seen is known.

        What was seen of another identity or of another door is not, as on the board.
        """
        successor = Judge(org, self._seen.tables, anchors_of(TrustAnchors()))
        successor._seen = _inherited(successor._seen, self._seen, org, self._org)
        successor._key = self._key
        return successor

    def read(self, files: Files) -> None:
        """Judge with what these files tell from now on."""
        if files is self._files:
            return
        self._files = files
        self._key = files.key
        self._seen = replace(
            self._seen,
            anchors=files.anchors,
            accepted_roots=files.lists.accepted_roots,
            uploaded=files.lists.uploaded,
            identity_problem=files.problem,
        )

    def compare(
        self,
        others: tuple[OtherOrg, ...] | None,
        client_before: Chain | None,
        server_before: Chain | None,
    ) -> None:
        """Judge beside the orgs that share the leaf, and the chains before the present ones."""
        self._seen = _with(
            self._seen,
            other_orgs=others,
            previous_client_chain=client_before,
            previous_server_chain=server_before,
        )

    def revocation(self, answers: Mapping[str, Revocation]) -> None:
        """Take in answers by fingerprint as they come; the next judgement rests on them too.

        An answer holds until there is another for the same certificate, or that one is gone.
        """
        known = dict(self._seen.revocation or {}) | dict(answers)
        shown = {certificate.fingerprint_sha256 for certificate in _shown(self._seen)}
        kept = {fingerprint: known[fingerprint] for fingerprint in known if fingerprint in shown}
        self._seen = replace(self._seen, revocation=MappingProxyType(kept))

    def judge(self, result: ProbeResult, identity: Identity | None, now: datetime) -> Verdict:
        """Take in one cycle and return the verdict as of `now`."""
        self._seen = taken_in(self._seen, result, identity, self._key)
        rests_on = (self._seen, self._hour(now), _over(self._seen, now))
        if self._verdict is None or rests_on != self._judged:
            evidence = replace(self._seen, now=now)
            self._verdict = Verdict(evaluate(evidence), deadlines(evidence))
            self._judged = rests_on
        return self._verdict

    def _hour(self, now: datetime) -> datetime:
        """Return when this org's present hour began: not all orgs' begin at once."""
        phase = timedelta(seconds=zlib.crc32(self._org.name.encode()) % 3600)
        return (now - phase).replace(minute=0, second=0, microsecond=0)


def basis(org: Org, tables: Tables, anchors: Anchors, lists: Lists | None = None) -> Evidence:
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
        accepted_roots=lists.accepted_roots if lists else None,
        uploaded=lists.uploaded if lists else None,
        profile=org.policy.profile,
        thresholds=Thresholds(
            _seconds(org.policy.expiry_warning), _seconds(org.policy.expiry_critical)
        ),
        suppressions=org.policy.suppressions,
    )


def taken_in(
    seen: Evidence,
    result: ProbeResult,
    identity: Identity | None,
    key_file: Protection | None = None,
) -> Evidence:
    """Return the evidence with what one cycle showed; what it did not show stays as it was.

    `key_file` is how the file of the identity's key is protected, None when it is not a file.
    """
    handshake = result.handshake
    failure = handshake.failure if handshake else None
    not_reached = result.client_auth is ClientAuth.NOT_REACHED
    return _with(
        seen,
        client_chain=result.client_chain or seen.client_chain,
        server_chain=result.server_chain or seen.server_chain,
        private_key=_private_key(identity, key_file) or seen.private_key,
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


def _with(seen: Evidence, **facts: object) -> Evidence:
    """Return the evidence with these facts; the very same when it has them: most cycles show none.

    Whether to judge again is then decided without a comparison, and thirty fields are not copied.
    """
    news = {name: fact for name, fact in facts.items() if getattr(seen, name) != fact}
    return replace(seen, **news) if news else seen  # type: ignore[arg-type] # by their names


def _inherited(fresh: Evidence, seen: Evidence, now: Org, before: Org) -> Evidence:
    """Return the basis of an org with what was seen of it while it was configured otherwise."""
    same_identity = now.identity == before.identity
    same_door = now.endpoint == before.endpoint
    if same_identity:
        fresh = replace(
            fresh,
            client_chain=seen.client_chain,
            private_key=seen.private_key,
            identity_problem=seen.identity_problem,
            other_orgs=seen.other_orgs,
        )
    if same_door:
        fresh = replace(
            fresh,
            server_chain=seen.server_chain,
            tls_version=seen.tls_version,
            cipher_suite=seen.cipher_suite,
            acceptable_issuers=seen.acceptable_issuers,
            refusal=seen.refusal if now.refusal_interval is not None else None,
            enforcement=seen.enforcement if now.enforcement is not None else None,
            clock_skew=seen.clock_skew,
        )
    if same_identity and same_door:
        fresh = replace(fresh, client_auth=seen.client_auth)
    if now.trust == before.trust:
        fresh = replace(
            fresh,
            anchors=seen.anchors,
            server_failure=seen.server_failure if same_door else None,
        )
    if now.policy.accepted_roots == before.policy.accepted_roots:
        fresh = replace(fresh, accepted_roots=seen.accepted_roots)
    if now.policy.uploaded == before.policy.uploaded:
        fresh = replace(fresh, uploaded=seen.uploaded)
    if now.policy.revocation is RevocationCheck.OFF:
        return fresh
    return replace(fresh, revocation=seen.revocation)


def _shown(seen: Evidence) -> tuple[Certificate, ...]:
    return (*(seen.client_chain or ()), *(seen.server_chain or ()))


def _private_key(identity: Identity | None, file: Protection | None) -> PrivateKey | None:
    if identity is None:
        return None
    # An identity is made of a file with one private key only, so there are never more blocks.
    return PrivateKey(
        subject_public_key_info_sha256=identity.leaf.subject_public_key_info_sha256,
        encrypted=identity.passphrase is not None,
        mode=file.mode if file else None,
        owned=file.owned if file else True,
    )


def _last(before: Outcome | None, now: Outcome | None) -> Outcome | None:
    return before if now is None or isinstance(now, Skipped) else now


def _coarse(skew: float | None, before: float | None) -> float | None:
    # The Date header counts whole seconds, so small changes mean nothing and must not cost a
    # judgement each.
    return before if skew is None else round(skew / _SKEW_STEP) * _SKEW_STEP


def _over(seen: Evidence, now: datetime) -> int:
    """Count the moments that are past and matter: each one passing changes the verdict."""
    over = sum((c.not_before <= now) + (c.not_after <= now) for c in _shown(seen))
    return over + sum(suppression.until <= now for suppression in seen.suppressions)


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
