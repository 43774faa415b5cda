"""Rules about the client's certificate beside others: before it, uploaded, and of other orgs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.certificate import ANY_EXTENDED_KEY_USAGE, CLIENT_AUTH, Certificate
from agent.chain import ChainAnalysis, analyse
from agent.policy.rule import CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import some, which

_MEANT: Final = (
    "Nothing, if that was meant; else have it issued again, and keep the one before in use."
)


@rule(
    Severity.CRITICAL,
    needs=("client_chain", "other_orgs"),
    remedy="Have a certificate issued for each org, each with a key of its own.",
    reference="Salesforce Help: Configure Your API Client to Use Mutual Authentication (the "
    "client certificate must be used only in your org)",
)
def cert_shared_between_orgs(evidence: Evidence) -> Iterator[Finding]:
    """Another org is entered with the same client certificate; with its key alone, a warning."""
    leaf = evidence.client.leaf
    others = evidence.other_orgs or ()
    same_certificate = sorted(
        other.org for other in others if other.fingerprint_sha256 == leaf.fingerprint_sha256
    )
    same_key = sorted(
        other.org
        for other in others
        if other.subject_public_key_info_sha256 == leaf.subject_public_key_info_sha256
    )
    if same_certificate or same_key:
        position = evidence.client.leaf_position
        what = "" if same_certificate else ", or rather its key,"
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)}{what} is also used for "
            f"{some(same_certificate or same_key)}.",
            Side.CLIENT,
            leaf,
            position,
            severity=Severity.CRITICAL if same_certificate else Severity.WARNING,
        )


@rule(
    Severity.CRITICAL,
    needs=("client_chain", "uploaded"),
    remedy="Upload the certificate to the org, or deploy the one that was uploaded.",
    reference="https://help.salesforce.com/s/articleView?id=000383575 (Salesforce compares the "
    "leaf with the one uploaded to the org)",
)
def uploaded_cert_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """The client presents a certificate that is none of those uploaded to the org.

    The list is the operator's, of what is under Certificate and Key Management.
    """
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    uploaded = evidence.uploaded or frozenset()
    if leaf.fingerprint_sha256 not in uploaded:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)}, with the serial number {leaf.serial_number}, "
            f"is not among those that were uploaded to the org (we know of {len(uploaded)}).",
            Side.CLIENT,
            leaf,
            position,
        )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Have it issued again like the certificate before; until then keep that one in use.",
    reference="RFC 5280 §4.2.1.12; Salesforce Help: Set Up a Mutual Authentication Certificate",
)
def renewed_cert_regressed(evidence: Evidence) -> Iterator[Finding]:
    """A renewed client certificate lost something that the one before it had.

    Critical when it lost clientAuth; a warning for another root, subject, name, or a weaker key.
    """
    if not evidence.previous_client_chain:
        return
    before, now = analyse(evidence.previous_client_chain, evidence.anchors), evidence.client
    if before.leaf == now.leaf:
        return
    lost_purpose = _for_clients(before.leaf) and not _for_clients(now.leaf)
    changes = ["it lost clientAuth"] if lost_purpose else []
    changes += _changes(before, now)
    if changes:
        yield Finding(
            f"The renewed client certificate ({now.leaf.subject}) differs from the one before: "
            f"{'; '.join(changes)}.",
            Side.CLIENT,
            now.leaf,
            now.leaf_position,
            severity=Severity.CRITICAL if lost_purpose else Severity.WARNING,
            remedy=None if lost_purpose else _MEANT,
        )


def _changes(before: ChainAnalysis, now: ChainAnalysis) -> Iterator[str]:
    if before.roots and now.roots and not before.root_keys & now.root_keys:
        yield (
            f"its root was {before.roots[0].certificate.subject}, "
            f"now {now.roots[0].certificate.subject}"
        )
    if before.leaf.subject != now.leaf.subject:
        yield f"its subject was {before.leaf.subject}, now {now.leaf.subject}"
    lost = set(before.leaf.subject_alternative_names) - set(now.leaf.subject_alternative_names)
    if lost:
        yield f"it lost the names {some(sorted(lost))}"
    old, new = before.leaf.public_key, now.leaf.public_key
    if old.kind == new.kind and (new.bits or 0) < (old.bits or 0):
        yield f"its key had {old.bits} bits, now {new.bits}"


@rule(
    Severity.INFO,
    needs=CLIENT,
    remedy="Make a new key at the next renewal.",
    reference="NIST SP 800-57 Part 1 Rev. 5 §5.3",
)
def key_reused(evidence: Evidence) -> Iterator[Finding]:
    """A renewed client certificate has the key of the one before it."""
    if not evidence.previous_client_chain:
        return
    before = analyse(evidence.previous_client_chain, evidence.anchors).leaf
    now = evidence.client.leaf
    same = before.subject_public_key_info_sha256 == now.subject_public_key_info_sha256
    if before != now and same:
        yield Finding(
            f"The renewed client certificate ({now.subject}) has the key of the one before it.",
            Side.CLIENT,
            now,
            evidence.client.leaf_position,
        )


def _for_clients(certificate: Certificate) -> bool:
    usage = certificate.extended_key_usage
    return usage is None or bool(usage & {CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE})
