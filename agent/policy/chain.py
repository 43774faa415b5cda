"""Rules about the chain: its order, what is missing, what is too much, who may issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from agent.certificate import Certificate
from agent.chain import Anchors, ChainAnalysis, Link, link, self_signed
from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import some, which

_HELP: Final = "Salesforce Help: Configure Your API Client to Use Mutual Authentication"
_MOST_CERTIFICATES: Final = 10
_MOST_OCTETS: Final = 64 * 1024
_VERSION_3: Final = 3


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Put the certificates in order: leaf first, then the one that signed it, and so on.",
    reference=f"{_HELP}; RFC 5246 §7.4.2; RFC 8446 §4.4.2",
    unless=("chain_leaf_not_first",),
)
def chain_out_of_order(evidence: Evidence) -> Iterator[Finding]:
    """A chain does not begin with a path: the leaf, and each time whoever signed the one before.

    OpenSSL puts them in order itself, so a connection test does not show it. What follows after a
    path, as in a cross-signed chain, has no right order.
    """
    for side, analysis in evidence.sides():
        position = _first_out_of_order(analysis)
        if position is None:
            continue
        certificate = analysis.certificates[position]
        if analysis.leaf_position:
            wrong = (
                f"The {side} chain begins with {certificate.subject}, but its leaf "
                f"({analysis.leaf.subject}) is certificate {analysis.leaf_position}."
            )
        else:
            before = analysis.certificates[position - 1]
            wrong = (
                f"{which(side, position, certificate)} stands where {before.issuer} belongs, "
                f"which issued {before.subject}."
            )
        yield Finding(
            f"{wrong} Some servers tolerate that, others refuse the chain.",
            side,
            certificate,
            position,
            severity=Severity.CRITICAL if side is Side.CLIENT else Severity.WARNING,
        )


def _first_out_of_order(analysis: ChainAnalysis) -> int | None:
    """Return the first position that no path has, None if the chain begins with a whole path.

    The root may stand anywhere behind it or be left off, so that it does not count.
    """
    if analysis.leaf_position:
        return 0
    left_off = {*analysis.extra, *analysis.duplicates}
    kept = [(i, c) for i, c in enumerate(analysis.certificates) if i not in left_off]
    furthest = 0
    for wanted in [path[:-1] for path in analysis.paths] or [analysis.walk]:
        fits = [c == in_turn for (_, c), in_turn in zip(kept, wanted, strict=False)]
        if all(fits):
            return None
        furthest = max(furthest, fits.index(False))
    return kept[furthest][0]


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
            f"certificate {analysis.leaf_position} ({analysis.leaf.subject}).",
            Side.CLIENT,
            first,
            0,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    server_remedy="Look for TLS inspection; if there is none, tell the server's owner.",
    remedy="Add the missing intermediate certificate to the file, after the one that it signed.",
    reference=f"{_HELP}; RFC 8446 §4.4.2; https://help.salesforce.com/s/articleView?id=000383575",
    unless=("leaf_only", "chain_signature_invalid"),
)
def intermediate_missing(evidence: Evidence) -> Iterator[Finding]:
    """A chain breaks off: it lacks an issuer that is no known root."""
    for side, analysis in evidence.sides():
        if _breaks_off(analysis, evidence.anchors):
            top = analysis.walk[-1]
            others = [analysis.certificates[i].subject for i in analysis.extra]
            instead = f"; what it holds instead is {some(others)}" if others else ""
            yield Finding(
                f"The {side} chain lacks the certificate of {_wanted(top)}, which issued "
                f"{top.subject}{instead}{_where_to_get_it(top)}.",
                side,
                top,
                analysis.position(top),
            )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Append the intermediate certificates to the file; the root is not needed.",
    reference=f"{_HELP} (the intermediates must be sent with every request)",
    unless=("chain_signature_invalid",),
)
def leaf_only(evidence: Evidence) -> Iterator[Finding]:
    """The client presents its own certificate alone, although no root issued it directly."""
    analysis = evidence.client
    if len(analysis.certificates) == 1 and not analysis.paths:
        leaf = analysis.leaf
        yield Finding(
            f"The client presents its own certificate ({leaf.subject}) alone; the certificate of "
            f"{_wanted(leaf)} must be sent too{_where_to_get_it(leaf)}.",
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


def _wanted(top: Certificate) -> str:
    """Return the name of the issuer that is missing, and its key as far as that is known."""
    key = top.authority_key_identifier
    return f"{top.issuer} (key identifier {key})" if key else top.issuer


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
                f"The {side} chain ends at {top.subject}; who issued that, {_wanted(top)}, is on "
                "no list that we have.",
                side,
                top,
                analysis.position(top),
                severity=Severity.INFO if side is Side.CLIENT else Severity.WARNING,
            )


@rule(
    Severity.INFO,
    needs=BOTH,
    either=True,
    server_remedy="Nothing: it costs some octets in each handshake, no more.",
    remedy="Leave the root certificate off: whoever trusts it has it.",
    reference=f"{_HELP} (the root is optional); RFC 8446 §4.4.2",
    unless=("chain_out_of_order",),
    same_certificate=True,
)
def root_included(evidence: Evidence) -> Iterator[Finding]:
    """A chain includes its root certificate, which is allowed and useless."""
    for side, analysis in evidence.sides():
        left_off = {analysis.leaf_position, *analysis.extra}
        for position, certificate in analysis.presented():
            if position not in left_off and self_signed(certificate):
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
    unless=(
        "chain_leaf_not_first",
        "chain_signature_invalid",
        "intermediate_missing",
        "leaf_only",
    ),
)
def chain_extra(evidence: Evidence) -> Iterator[Finding]:
    """A chain contains certificates that issued nothing in it.

    Those of them that have expired are told as such.
    """
    for side, analysis in evidence.sides():
        extra = [p for p in analysis.extra if analysis.certificates[p].not_after >= evidence.now]
        if extra:
            certificate = analysis.certificates[extra[0]]
            yield Finding(
                f"{which(side, extra[0], certificate)} issued none of the others{_like_it(extra)}.",
                side,
                certificate,
                extra[0],
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Remove the repeated certificates.",
    reference="RFC 8446 §4.4.2",
)
def chain_duplicate(evidence: Evidence) -> Iterator[Finding]:
    """A chain contains one of its certificates twice."""
    for side, analysis in evidence.sides():
        # What does not belong to the chain is too much already, once or twice.
        extra = frozenset(analysis.extra)
        repeated = [p for p in analysis.duplicates if p not in extra]
        if repeated:
            certificate = analysis.certificates[repeated[0]]
            yield Finding(
                f"{which(side, repeated[0], certificate)} repeats an earlier one"
                f"{_like_it(repeated)}.",
                side,
                certificate,
                repeated[0],
            )


def _like_it(positions: Sequence[int]) -> str:
    """Return the half-sentence about all but the first of these positions, if there are any."""
    others = [str(position) for position in positions[1:]]
    if not others:
        return ""
    return f"; the same goes for certificate{'s' if others[1:] else ''} {some(others)}"


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
        if analysis.paths:
            continue
        top = analysis.walk[-1]
        beside = any(link(c, top) is Link.BROKEN for c in analysis.certificates if c != top)
        listed = any(link(c, top) is Link.BROKEN for c in evidence.anchors.named(top.issuer))
        if beside or listed:
            position = analysis.position(top)
            where = "stands beside it" if beside else "is known as a root"
            yield Finding(
                f"{which(side, position, top)} was not signed by the {top.issuer} that {where}: "
                "probably they are of two generations.",
                side,
                top,
                position,
            )


@rule(
    Severity.INFO,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Nothing, if all of these roots may be reached; else remove the cross-signed one.",
    reference="RFC 4158 §1.5.3, §2.3",
)
def chain_ambiguous(evidence: Evidence) -> Iterator[Finding]:
    """A chain can lead to several roots, because one of its authorities is cross-signed."""
    for side, analysis in evidence.sides():
        if len(analysis.roots) > 1:
            names = ", and ".join(sorted(root.certificate.subject for root in analysis.roots))
            yield Finding(
                f"The {side} chain of {analysis.leaf.subject} can lead to {len(analysis.roots)} "
                f"roots: {names}.",
                side,
                analysis.leaf,
                analysis.leaf_position,
            )


@rule(
    Severity.WARNING,
    needs=CLIENT,
    remedy="Send the leaf and its intermediates only.",
    reference="RFC 8446 §4.4.2; OpenSSL SSL_CTX_set_max_cert_list(3)",
    unless=("chain_extra", "chain_duplicate"),
)
def chain_too_long(evidence: Evidence) -> Iterator[Finding]:
    """The client's chain has more certificates or octets than servers are ready to read."""
    chain = evidence.client.certificates
    octets = sum(len(certificate.der) for certificate in chain)
    if len(chain) > _MOST_CERTIFICATES or octets > _MOST_OCTETS:
        yield Finding(
            f"The client's chain has {len(chain)} certificates and {octets} octets; servers may "
            f"read no more than {_MOST_CERTIFICATES} and {_MOST_OCTETS}.",
            Side.CLIENT,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued by a real authority.",
    reference="RFC 5280 §4.2.1.9, §6.1.4 (k)",
    unless=("cert_extension_malformed",),
    same_certificate=True,
)
def ca_not_ca(evidence: Evidence) -> Iterator[Finding]:
    """A certificate in a chain issued another one without being an authority."""
    for side, position, certificate in _authorities(evidence):
        if certificate.is_ca or _old_root(certificate):
            continue
        why = (
            "basicConstraints CA is not true"
            if certificate.version == _VERSION_3
            else f"of version {certificate.version}, it cannot say so"
        )
        yield Finding(
            f"{which(side, position, certificate)} issued the one below it, but is not an "
            f"authority ({why}).",
            side,
            certificate,
            position,
        )


def _old_root(certificate: Certificate) -> bool:
    # A root of version 1 has no extensions to say it with; who trusts it knows (RFC 5280 §6.1.4 k).
    return certificate.version < _VERSION_3 and certificate.self_issued


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the authority issue its certificate again, with keyCertSign.",
    reference="RFC 5280 §4.2.1.3, §6.1.4 (n)",
    unless=("ca_not_ca",),
    same_certificate=True,
)
def ca_ku_no_cert_sign(evidence: Evidence) -> Iterator[Finding]:
    """An authority's key usage does not let it sign certificates."""
    for side, position, certificate in _authorities(evidence):
        if certificate.key_usage is not None and "keyCertSign" not in certificate.key_usage:
            yield Finding(
                f"{which(side, position, certificate)} may not sign certificates: its key usage "
                "lacks keyCertSign.",
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
    """On every path, an authority has more authorities below it than its path length allows."""
    for side, analysis in evidence.sides():
        too_deep = [_too_deep(path) for path in analysis.ways]
        first = too_deep[0] if all(too_deep) else None
        if first:
            certificate, below = first
            position = analysis.position(certificate)
            yield Finding(
                f"{which(side, position, certificate)} allows {certificate.path_length} "
                f"authorities below it and has {below}.",
                side,
                certificate,
                position,
            )


def _too_deep(path: Sequence[Certificate]) -> tuple[Certificate, int] | None:
    """Return the first authority with too many below it, and their number."""
    below = 0
    for certificate in path[1:]:
        if certificate.path_length is not None and below > certificate.path_length:
            return certificate, below
        below += not certificate.self_issued
    return None


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get the intermediate of the right generation from the authority.",
    reference="RFC 5280 §4.2.1.1, §4.2.1.2",
    unless=("cert_extension_malformed", "version_not_v3", "ca_not_ca"),
    same_certificate=True,
)
def aki_ski_problem(evidence: Evidence) -> Iterator[Finding]:
    """A certificate names no issuer key (a warning), or another one than its issuer has."""
    for side, analysis in evidence.sides():
        issuers: dict[Certificate, list[Certificate]] = {}
        for certificate, issuer in (pair for path in analysis.ways for pair in pairwise(path)):
            issuers.setdefault(certificate, []).append(issuer)
        for certificate, found in issuers.items():
            yield from _key_identifier(side, analysis, certificate, found)


def _key_identifier(
    side: Side, analysis: ChainAnalysis, certificate: Certificate, issuers: Sequence[Certificate]
) -> Iterator[Finding]:
    position = analysis.position(certificate)
    wanted = certificate.authority_key_identifier
    if wanted is None:
        yield Finding(
            f"{which(side, position, certificate)} does not say which key signed it "
            "(it has no authority key identifier).",
            side,
            certificate,
            position,
            severity=Severity.WARNING,
            remedy="Have it issued again with the identifier; strict verifiers refuse it.",
        )
    elif all(issuer.subject_key_identifier not in {None, wanted} for issuer in issuers):
        yield Finding(
            f"{which(side, position, certificate)} names an issuer key ({wanted}) that "
            f"{issuers[0].subject} does not have.",
            side,
            certificate,
            position,
        )


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
            f"{which(Side.CLIENT, analysis.leaf_position, analysis.leaf)} is self-signed; "
            "Salesforce accepts CA-signed ones only.",
            Side.CLIENT,
            analysis.leaf,
            analysis.leaf_position,
        )


def _authorities(evidence: Evidence) -> Iterator[tuple[Side, int | None, Certificate]]:
    for side, analysis in evidence.sides():
        for certificate in analysis.authorities():
            yield side, analysis.position(certificate), certificate
