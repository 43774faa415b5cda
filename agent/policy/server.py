"""Rules about the server alone: trust, name, timestamps, TLS version, changes of its chain."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from cryptography.x509 import (
    DuplicateExtension,
    ExtensionNotFound,
    TLSFeature,
    TLSFeatureType,
    UnsupportedGeneralNameType,
)

from agent.certificate import Certificate, parse
from agent.chain import analyse
from agent.policy.rule import SERVER, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import some, which
from agent.reason import Reason

_ENOUGH_TIMESTAMPS: Final = 2
_UNTRUSTED: Final = frozenset({Reason.SERVER_UNTRUSTED, Reason.SERVER_INCOMPLETE_CHAIN})


@rule(
    Severity.CRITICAL,
    needs=SERVER,
    remedy="Check `trust`; look for TLS inspection; Salesforce may have changed its root.",
    reference="RFC 5280 §6",
    unless=(
        "intermediate_missing",
        "chain_signature_invalid",
        "expired",
        "not_yet_valid",
        "validity_negative",
        "ca_not_ca",
        "ca_ku_no_cert_sign",
        "pathlen_exceeded",
        "ca_weak",
        "weak_signature",
        "cert_extension_malformed",
        "unknown_critical_extension",
        "name_constraint_violated",
        "server_eku",
    ),
)
def server_untrusted(evidence: Evidence) -> Iterator[Finding]:
    """The handshake could not trace the server's certificate to a root that we trust."""
    failure = evidence.server_failure
    if failure is not None and failure.reason in _UNTRUSTED:
        leaf, position = evidence.server.leaf, evidence.server.leaf_position
        yield Finding(
            f"{which(Side.SERVER, position, leaf)} is not trusted "
            f"({failure.detail or failure.reason.value}).",
            Side.SERVER,
            leaf,
            position,
        )


@rule(
    Severity.CRITICAL,
    needs=("server_chain", "host"),
    remedy="Check `host` and `server_name`; a wrong host or a proxy may be answering.",
    reference="RFC 9525 §6; CA/Browser Forum Baseline Requirements §7.1.2.7.12",
    unless=("cert_extension_malformed", "san_missing", "version_not_v3"),
    same_certificate=True,
)
def server_hostname_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """The server's certificate is not for the name that we asked for."""
    wanted = evidence.server_name or evidence.host or ""
    leaf = evidence.server.leaf
    if not _is_for(leaf, wanted):
        position = evidence.server.leaf_position
        names = some(leaf.subject_alternative_names) or "no name"
        yield Finding(
            f"{which(Side.SERVER, position, leaf)} is not for {wanted}, but for {names}.",
            Side.SERVER,
            leaf,
            position,
        )


def _is_for(certificate: Certificate, name: str) -> bool:
    try:
        wanted = f"IP:{ip_address(name)}"
    except ValueError:
        return any(
            _matches(pattern[4:], name)
            for pattern in certificate.subject_alternative_names
            if pattern.startswith("DNS:")
        )
    return wanted in certificate.subject_alternative_names


def _matches(pattern: str, name: str) -> bool:
    """Compare a DNS-ID with a name; a wildcard stands for the whole first label (RFC 9525 §6.3)."""
    pattern, name = pattern.casefold().rstrip("."), name.casefold().rstrip(".")
    first, dot, rest = pattern.partition(".")
    if first == "*" and dot:
        label, _, parent = name.partition(".")
        return bool(label) and parent == rest
    return pattern == name


@rule(
    Severity.INFO,
    needs=SERVER,
    remedy="Nothing: the timestamps may come in the handshake instead.",
    reference="Chrome Certificate Transparency Policy; RFC 6962 §3.3",
    unless=("cert_extension_malformed", "version_not_v3"),
    same_certificate=True,
)
def server_sct_missing(evidence: Evidence) -> Iterator[Finding]:
    """The server's public certificate carries fewer than two certificate timestamps."""
    analysis = evidence.server
    leaf, count = analysis.leaf, len(analysis.leaf.signed_certificate_timestamps)
    if analysis.public and count < _ENOUGH_TIMESTAMPS:
        yield Finding(
            f"{which(Side.SERVER, analysis.leaf_position, leaf)} carries {count} signed "
            f"certificate timestamp{'' if count == 1 else 's'}; browsers want at least "
            f"{_ENOUGH_TIMESTAMPS}.",
            Side.SERVER,
            leaf,
            analysis.leaf_position,
        )


@rule(
    Severity.INFO,
    needs=SERVER,
    remedy="Nothing: whether the response is stapled is not visible here, only to browsers.",
    reference="RFC 7633",
)
def server_must_staple(evidence: Evidence) -> Iterator[Finding]:
    """The server's certificate demands that the handshake brings a revocation response along."""
    leaf, position = evidence.server.leaf, evidence.server.leaf_position
    if _must_staple(leaf):
        yield Finding(
            f"{which(Side.SERVER, position, leaf)} demands a stapled OCSP response (TLS feature "
            "status_request): who checks that refuses it when the server sends none.",
            Side.SERVER,
            leaf,
            position,
        )


def _must_staple(certificate: Certificate) -> bool:
    try:
        found = parse(certificate.der).extensions.get_extension_for_class(TLSFeature).value
    except (ValueError, ExtensionNotFound, DuplicateExtension, UnsupportedGeneralNameType):
        return False
    return TLSFeatureType.status_request in found


@rule(
    Severity.CRITICAL,
    needs=("tls_version",),
    remedy="Raise `tls_min`; look for a middlebox that lowers the version.",
    reference="RFC 8996; RFC 9325 §3.1.1",
)
def tls_version(evidence: Evidence) -> Iterator[Finding]:
    """The connection uses an outdated TLS version: below 1.2 critical, 1.2 a remark."""
    if evidence.tls_version != "TLSv1.3":
        modern = evidence.tls_version == "TLSv1.2"
        yield Finding(
            f"The connection to {evidence.host or 'the server'} uses {evidence.tls_version}"
            + ("." if modern else ", which must not be used any more."),
            Side.SERVER,
            severity=Severity.INFO if modern else Severity.CRITICAL,
            remedy="Nothing now; TLS 1.3 would also hide the client certificate on its way."
            if modern
            else None,
        )


@rule(
    Severity.WARNING,
    needs=SERVER,
    remedy="Check that the new root is Salesforce's choice, and that it is not the client's own.",
    reference="RFC 5280 §6.1.1 (d)",
)
def server_root_changed(evidence: Evidence) -> Iterator[Finding]:
    """The server's chain leads to another root than before."""
    if not evidence.previous_server_chain:
        return
    before, now = analyse(evidence.previous_server_chain, evidence.anchors), evidence.server
    if before.roots and now.roots and not before.root_keys & now.root_keys:
        yield Finding(
            f"The server's chain led to {before.roots[0].certificate.subject} and now leads to "
            f"{now.roots[0].certificate.subject}.",
            Side.SERVER,
            now.roots[0].certificate,
        )


@rule(
    Severity.INFO,
    needs=SERVER,
    remedy="Nothing, if the new issuer belongs to the same authority.",
    reference="RFC 5280 §4.1.2.4",
    unless=("server_root_changed",),
)
def server_issuer_changed(evidence: Evidence) -> Iterator[Finding]:
    """The server's certificate comes from another issuer than before."""
    if not evidence.previous_server_chain:
        return
    before = analyse(evidence.previous_server_chain, evidence.anchors).leaf
    now = evidence.server.leaf
    if before.issuer != now.issuer:
        yield Finding(
            f"The server's certificate used to be issued by {before.issuer}; that of now "
            f"({now.subject}) is from {now.issuer}.",
            Side.SERVER,
            now,
            evidence.server.leaf_position,
        )
