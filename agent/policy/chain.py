"""Rules about the chain: its order, what is missing, what is too much, who may issue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, ChainAnalysis, Link, issued, link, self_signed
from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import which

_HELP: Final = "Salesforce Help: Configure Your API Client to Use Mutual Authentication"
_MOST_CERTIFICATES: Final = 10
_MOST_OCTETS: Final = 64 * 1024


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Put the certificates in order: leaf first, then the one that signed it, and so on.",
    reference=f"{_HELP}; RFC 5246 §7.4.2; RFC 8446 §4.4.2",
    unless=("chain_leaf_not_first",),
)
def chain_out_of_order(evidence: Evidence) -> Iterator[Finding]:
    """The certificates of a chain do not each follow the one that they signed.

    OpenSSL puts them in order itself, so a connection test does not show it.
    """
    for side, analysis in evidence.sides():
        position = _first_out_of_order(analysis)
        if position is not None:
            certificate = analysis.certificates[position]
            yield Finding(
                f"The {side} chain is out of order: certificate {position} "
                f"({certificate.subject}) does not follow the one that it signed. "
                "Some servers tolerate it.",
                side,
                certificate,
                position,
                severity=Severity.CRITICAL if side is Side.CLIENT else Severity.WARNING,
            )


def _first_out_of_order(analysis: ChainAnalysis) -> int | None:
    if analysis.leaf_position:
        return 0
    left_off = {*analysis.extra, *analysis.duplicates}
    kept = [(i, c) for i, c in enumerate(analysis.certificates) if i not in left_off]
    for (_, lower), (position, upper) in pairwise(kept):
        if not issued(upper, lower) and any(issued(c, lower) for _, c in kept if c != lower):
            return position
    return None


@rule(
    Severity.CRITICAL,
    needs=("client_chain", "private_key"),
    remedy="Put the certificate that belongs to the private key first.",
    reference=f"{_HELP}; RFC 8446 §4.4.2",
)
def chain_leaf_not_first(evidence: Evidence) -> Iterator[Finding]:
    """The first certificate of the client's file is not the one that the private key belongs to."""
    analysis = evidence.client
    key = evidence.private_key
    owner = analysis.leaf.subject_public_key_info_sha256
    if analysis.leaf_position and key and key.subject_public_key_info_sha256 == owner:
        first = analysis.certificates[0]
        yield Finding(
            f"The client's file begins with {first.subject}, but the private key belongs to "
            f"certificate {analysis.leaf_position}, {analysis.leaf.subject}.",
            Side.CLIENT,
            first,
            0,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Add the missing intermediate certificate to the file, after the one that it signed.",
    reference=f"{_HELP}; RFC 8446 §4.4.2; https://help.salesforce.com/s/articleView?id=000383575",
    unless=("leaf_only", "chain_signature_invalid"),
)
def intermediate_missing(evidence: Evidence) -> Iterator[Finding]:
    """A chain breaks off: it lacks an issuer that is no known root."""
    for side, analysis in evidence.sides():
        if _breaks_off(analysis, evidence.anchors):
            top = analysis.walk[-1]
            yield Finding(
                f"The {side} chain lacks the certificate of {top.issuer}, which issued "
                f"{top.subject}{_where_to_get_it(top)}.",
                side,
                top,
                analysis.position(top),
            )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Append the intermediate certificates to the file; the root is not needed.",
    reference=f"{_HELP} (the intermediates must be sent with every request)",
)
def leaf_only(evidence: Evidence) -> Iterator[Finding]:
    """The client presents its own certificate alone, although no root issued it directly."""
    analysis = evidence.client
    if len(analysis.certificates) == 1 and not analysis.paths:
        leaf = analysis.leaf
        yield Finding(
            f"The client presents its own certificate alone; the certificate of {leaf.issuer} "
            f"must be sent too{_where_to_get_it(leaf)}.",
            Side.CLIENT,
            leaf,
            0,
        )


def _breaks_off(analysis: ChainAnalysis, anchors: Anchors) -> bool:
    """Tell whether an intermediate is missing, rather than only the root unknown.

    A root is usually not sent. So a walk that ends at a CA certificate is taken as complete, unless
    its owner's roots are on a public list: then its root is not unknown, a link to it is missing.
    """
    top = analysis.walk[-1]
    if analysis.paths:
        return False
    return top == analysis.leaf or top.organization in anchors.public_organizations


def _where_to_get_it(certificate: Certificate) -> str:
    return f"; get it from {certificate.ca_issuers[0]}" if certificate.ca_issuers else ""


@rule(
    Severity.INFO,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Give the root certificate with `inspect --roots` or `trust.file` if you know it.",
    reference="RFC 5280 §6.1.1 (d)",
    unless=("intermediate_missing", "leaf_only", "chain_signature_invalid", "server_untrusted"),
)
def root_unresolved(evidence: Evidence) -> Iterator[Finding]:
    """A chain leads to a root that is neither in the file nor on any list that we have."""
    for side, analysis in evidence.sides():
        if not analysis.paths and not _breaks_off(analysis, evidence.anchors):
            top = analysis.walk[-1]
            yield Finding(
                f"The {side} chain leads to {top.issuer}, which no list that we have knows.",
                side,
                top,
                analysis.position(top),
                severity=Severity.INFO if side is Side.CLIENT else Severity.WARNING,
            )


@rule(
    Severity.INFO,
    needs=BOTH,
    either=True,
    remedy="Leave the root certificate off: whoever trusts it has it.",
    reference=f"{_HELP} (the root is optional); RFC 8446 §4.4.2",
)
def root_included(evidence: Evidence) -> Iterator[Finding]:
    """A chain includes its root certificate, which is allowed and useless."""
    for side, position, certificate in evidence.sent():
        analysis = evidence.analysis(side)
        beside_leaf = position != analysis.leaf_position and position not in analysis.extra
        if beside_leaf and self_signed(certificate):
            yield Finding(
                f"The {side} chain includes its root, {certificate.subject}.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Remove the certificates that do not belong to the chain.",
    reference="RFC 8446 §4.4.2",
    unless=("chain_signature_invalid",),
)
def chain_extra(evidence: Evidence) -> Iterator[Finding]:
    """A chain contains certificates that issued nothing in it."""
    for side, analysis in evidence.sides():
        for position in analysis.extra:
            certificate = analysis.certificates[position]
            yield Finding(
                f"{which(side, position)} ({certificate.subject}) issued none of the others.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Remove the repeated certificates.",
    reference="RFC 8446 §4.4.2",
)
def chain_duplicate(evidence: Evidence) -> Iterator[Finding]:
    """A chain contains one certificate twice."""
    for side, analysis in evidence.sides():
        for position in analysis.duplicates:
            certificate = analysis.certificates[position]
            yield Finding(
                f"{which(side, position)} repeats an earlier one, {certificate.subject}.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get the intermediate of the right generation from the authority.",
    reference="RFC 5280 §6.1.3 (a)(1)",
)
def chain_signature_invalid(evidence: Evidence) -> Iterator[Finding]:
    """A certificate names an issuer that is there, but was not signed with its key."""
    for side, analysis in evidence.sides():
        for certificate in analysis.walk:
            others = [c for c in analysis.certificates if c != certificate]
            issuers = [*others, *evidence.anchors.named(certificate.issuer)]
            links = {link(issuer, certificate) for issuer in issuers}
            if Link.BROKEN in links and not links & {Link.SIGNED, Link.IDENTIFIED}:
                position = analysis.position(certificate)
                yield Finding(
                    f"{which(side, position)} was not signed by the {certificate.issuer} "
                    "that stands beside it: probably one of another generation.",
                    side,
                    certificate,
                    position,
                )


@rule(
    Severity.INFO,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Nothing, if all of these roots may be reached; else remove the cross-signed one.",
    reference="RFC 4158 §2.3",
)
def chain_ambiguous(evidence: Evidence) -> Iterator[Finding]:
    """A chain can lead to several roots, because one of its authorities is cross-signed."""
    for side, analysis in evidence.sides():
        if len(analysis.roots) > 1:
            names = ", and ".join(sorted(root.certificate.subject for root in analysis.roots))
            yield Finding(
                f"The {side} chain can lead to {len(analysis.roots)} roots: {names}.",
                side,
                analysis.leaf,
                analysis.leaf_position,
            )


@rule(
    Severity.WARNING,
    needs=CLIENT,
    remedy="Send the leaf and its intermediates only.",
    reference="RFC 8446 §4.4.2; OpenSSL SSL_CTX_set_max_cert_list(3)",
)
def chain_too_long(evidence: Evidence) -> Iterator[Finding]:
    """The client's chain has more certificates or octets than servers are ready to read."""
    chain = evidence.client.certificates
    octets = sum(len(certificate.der) for certificate in chain)
    if len(chain) > _MOST_CERTIFICATES or octets > _MOST_OCTETS:
        yield Finding(
            f"The client's chain has {len(chain)} certificates and {octets} octets.", Side.CLIENT
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued by a real authority.",
    reference="RFC 5280 §4.2.1.9, §6.1.4 (k)",
    unless=("cert_extension_malformed",),
)
def ca_not_ca(evidence: Evidence) -> Iterator[Finding]:
    """A certificate in a chain issued another one without being an authority."""
    for side, position, certificate in _authorities(evidence):
        # A root of version 1 has no extensions to say it with (RFC 5280 §6.1.4 k).
        if not certificate.is_ca and certificate.version >= 3:  # noqa: PLR2004 - version 3
            yield Finding(
                f"{which(side, position)} ({certificate.subject}) issued the one below it, but "
                "is not an authority (basicConstraints CA is not true).",
                side,
                certificate,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the authority issue its certificate again, with keyCertSign.",
    reference="RFC 5280 §6.1.4 (n)",
    unless=("ca_not_ca",),
)
def ca_ku_no_cert_sign(evidence: Evidence) -> Iterator[Finding]:
    """An authority's key usage does not let it sign certificates."""
    for side, position, certificate in _authorities(evidence):
        if certificate.key_usage is not None and "keyCertSign" not in certificate.key_usage:
            yield Finding(
                f"{which(side, position)} ({certificate.subject}) may not sign certificates: its "
                "key usage lacks keyCertSign.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued by an authority that may stand at this place.",
    reference="RFC 5280 §4.2.1.9, §6.1.4 (l, m)",
    unless=("ca_not_ca",),
)
def pathlen_exceeded(evidence: Evidence) -> Iterator[Finding]:
    """An authority has more authorities below it than its path length allows."""
    for side, analysis in evidence.sides():
        below = 0
        for certificate in analysis.path[1:]:
            if certificate.path_length is not None and below > certificate.path_length:
                position = analysis.position(certificate)
                yield Finding(
                    f"{which(side, position)} ({certificate.subject}) allows "
                    f"{certificate.path_length} authorities below it and has {below}.",
                    side,
                    certificate,
                    position,
                )
            below += not certificate.self_issued


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get the intermediate of the right generation from the authority.",
    reference="RFC 5280 §4.2.1.1, §4.2.1.2",
    unless=("cert_extension_malformed",),
)
def aki_ski_problem(evidence: Evidence) -> Iterator[Finding]:
    """A certificate names no issuer key (a warning), or another one than its issuer has."""
    for side, analysis in evidence.sides():
        told: set[Certificate] = set()
        for path in analysis.paths or (analysis.walk,):
            for certificate, issuer in pairwise(path):
                finding = _key_identifier(side, analysis, certificate, issuer)
                if finding and certificate not in told:
                    told.add(certificate)
                    yield finding


def _key_identifier(
    side: Side, analysis: ChainAnalysis, certificate: Certificate, issuer: Certificate
) -> Finding | None:
    position = analysis.position(certificate)
    wanted = certificate.authority_key_identifier
    if wanted is None:
        return Finding(
            f"{which(side, position)} does not say which key signed it "
            "(it has no authority key identifier).",
            side,
            certificate,
            position,
            severity=Severity.WARNING,
            remedy="Have it issued again with the identifier; strict verifiers refuse it.",
        )
    if issuer.subject_key_identifier not in {None, wanted}:
        return Finding(
            f"{which(side, position)} names an issuer key that {issuer.subject} does not have.",
            side,
            certificate,
            position,
        )
    return None


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Get a certificate from an authority that Salesforce trusts.",
    reference="Salesforce Help: Set Up a Mutual Authentication Certificate (CA-signed only)",
)
def leaf_self_signed(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate is self-signed, which Salesforce never accepts."""
    analysis = evidence.client
    if self_signed(analysis.leaf):
        yield Finding(
            "The client certificate is self-signed; Salesforce accepts CA-signed ones only.",
            Side.CLIENT,
            analysis.leaf,
            analysis.leaf_position,
        )


def _authorities(evidence: Evidence) -> Iterator[tuple[Side, int | None, Certificate]]:
    for side, analysis in evidence.sides():
        for certificate in analysis.authorities():
            yield side, analysis.position(certificate), certificate
