"""Rules about purpose: key usage, extended key usage, and who is an authority."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agent.certificate import ANY_EXTENDED_KEY_USAGE, CLIENT_AUTH, SERVER_AUTH, Certificate
from agent.chain import AnchorKind
from agent.policy.rule import (
    BOTH,
    CLIENT,
    SERVER,
    TELL_OWNER,
    Evidence,
    Finding,
    Severity,
    Side,
    rule,
)
from agent.policy.wording import counting, which

_CHROME: Final = "Chrome Root Program Policy 1.8 §1.3.2"
_UPLOAD: Final = "Salesforce Help: Set Up a Mutual Authentication Certificate"
_CHROME_ONLY: Final = frozenset({AnchorKind.CHROME})
_DUAL: Final = frozenset({CLIENT_AUTH, SERVER_AUTH})

# The extension with a sequence of nothing, as X.690 encodes it; readers refuse it, and with it all
# extensions of the certificate.
_EMPTY_USAGE: Final = re.compile(rb"\x06\x03\x55\x1d\x25(\x01\x01\xff)?\x04\x02\x30\x00")
_NAMES: Final = {
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
}


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Get a client certificate with clientAuth alone, from a hierarchy of its own.",
    reference=f"Salesforce Help: Configure Your API Client to Use Mutual Authentication; {_CHROME}",
    unless=("same_leaf_as_server",),
)
def eku_dual(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate is for clients and servers both.

    Critical from the day of the chosen profile; before it, and under private roots, a warning.
    """
    analysis = evidence.client
    if not (analysis.leaf.extended_key_usage or frozenset()) >= _DUAL:
        return
    profile = evidence.tables.profiles[evidence.profile]
    start = profile.separate_hierarchies
    exempt = not analysis.in_chrome_list if profile.chrome_roots_only else analysis.private
    bound = start.binds(analysis.leaf, evidence.now)
    yield Finding(
        f"{which(Side.CLIENT, analysis.leaf_position, analysis.leaf)} asserts clientAuth and "
        "serverAuth both; "
        + (
            "under a root like this no policy forbids it, but whoever steals its key can pose as a "
            "server too."
            if exempt
            else f"the profile {profile.name} forbids that {counting(start)}."
        ),
        Side.CLIENT,
        analysis.leaf,
        analysis.leaf_position,
        severity=Severity.CRITICAL if bound and not exempt else Severity.WARNING,
        bites_from=None if exempt else start.date,
    )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Have it issued again with clientAuth, by an authority that still issues for clients.",
    reference=f"RFC 5280 §4.2.1.12; {_UPLOAD}",
    unless=("renewed_cert_regressed", "leaf_self_signed", "same_leaf_as_server"),
    same_certificate=True,
)
def eku_no_client_auth(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate is not for clients: its purposes do not include clientAuth."""
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    usage = leaf.extended_key_usage
    if usage is not None and not usage & {CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE}:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} lacks clientAuth: servers refuse it as an "
            "unsupported certificate.",
            Side.CLIENT,
            leaf,
            position,
        )


@rule(
    Severity.WARNING,
    needs=CLIENT,
    remedy="Have the certificate issued again with clientAuth.",
    reference=f"{_UPLOAD}; CA/Browser Forum Baseline Requirements §7.1.2.7.6",
    unless=(
        "cert_extension_malformed",
        "version_not_v3",
        "leaf_is_ca",
        "leaf_self_signed",
        "same_leaf_as_server",
    ),
    same_certificate=True,
)
def eku_missing(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate does not state its purpose; Salesforce asks for clientAuth."""
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    if leaf.extended_key_usage is None:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} has no extended key usage; Salesforce asks for "
            "clientAuth.",
            Side.CLIENT,
            leaf,
            position,
        )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again with its one purpose.",
    reference="CA/Browser Forum Baseline Requirements §7.1.2.7.10",
)
def eku_any(evidence: Evidence) -> Iterator[Finding]:
    """A leaf is for any purpose."""
    for side, position, leaf in evidence.leaves():
        if ANY_EXTENDED_KEY_USAGE in (leaf.extended_key_usage or ()):
            yield Finding(
                f"{which(side, position, leaf)} is for any purpose: it asserts "
                "anyExtendedKeyUsage.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again without the other purposes.",
    reference="CA/Browser Forum Baseline Requirements §7.1.2.7.10",
)
def eku_extra(evidence: Evidence) -> Iterator[Finding]:
    """A leaf has purposes beside TLS, such as e-mail or code signing."""
    for side, position, leaf in evidence.leaves():
        extra = (leaf.extended_key_usage or frozenset()) - _DUAL - {ANY_EXTENDED_KEY_USAGE}
        if extra:
            names = ", ".join(sorted(_NAMES.get(oid, oid) for oid in extra))
            yield Finding(
                f"{which(side, position, leaf)} is also for other purposes: {names}.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again with its purpose.",
    reference="RFC 5280 §4.2.1.12 (SIZE 1..MAX)",
)
def eku_empty_or_malformed(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's extended key usage is there and names no purpose."""
    for side, position, leaf in evidence.leaves():
        if leaf.malformed and _EMPTY_USAGE.search(leaf.der):
            yield Finding(
                f"{which(side, position, leaf)} has an extended key usage that is empty, so that "
                "nothing can be read of its extensions.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again with digitalSignature.",
    reference="RFC 5246 §7.4.2, §7.4.6; RFC 8446 §4.4.2.2; CA/Browser Forum Baseline Requirements "
    "§7.1.2.7.11",
    unless=("leaf_is_ca",),
    same_certificate=True,
)
def ku_no_digital_signature(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's key usage does not let it sign the handshake."""
    for side, position, leaf in evidence.leaves():
        if leaf.key_usage is not None and "digitalSignature" not in leaf.key_usage:
            yield Finding(
                f"{which(side, position, leaf)} may not sign the handshake: its key usage lacks "
                "digitalSignature.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.INFO,
    needs=CLIENT,
    remedy="Ask for digitalSignature at the next renewal.",
    reference="RFC 5280 §4.2.1.3",
    unless=("cert_extension_malformed", "version_not_v3", "leaf_is_ca", "leaf_self_signed"),
    same_certificate=True,
)
def ku_missing(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate has no key usage."""
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    if leaf.key_usage is None:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} has no key usage.",
            Side.CLIENT,
            leaf,
            position,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again without keyCertSign and cRLSign.",
    reference="RFC 5280 §4.2.1.3; CA/Browser Forum Baseline Requirements §7.1.2.7.11",
    unless=("leaf_is_ca",),
)
def ku_cert_sign_on_leaf(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's key usage lets it sign certificates or revocation lists."""
    for side, position, leaf in evidence.leaves():
        if (leaf.key_usage or frozenset()) & {"keyCertSign", "cRLSign"}:
            yield Finding(
                f"{which(side, position, leaf)} may sign certificates or revocation lists, which "
                "only authorities do.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get an end-entity certificate; check that the right file was deployed.",
    reference="RFC 5280 §4.2.1.9; CA/Browser Forum Baseline Requirements §7.1.2.7.8",
    unless=("chain_leaf_not_first", "leaf_self_signed", "server_untrusted"),
)
def leaf_is_ca(evidence: Evidence) -> Iterator[Finding]:
    """A leaf is an authority: it may issue certificates."""
    for side, position, leaf in evidence.leaves():
        if leaf.is_ca:
            yield Finding(
                f"{which(side, position, leaf)} is an authority's (basicConstraints CA is true).",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=CLIENT,
    remedy="Have the certificate issued by an authority that may issue client certificates.",
    reference="RFC 5280 §4.2.1.12; OpenSSL verifies purposes over the whole chain",
    unless=("eku_no_client_auth",),
)
def ca_eku_excludes_client_auth(evidence: Evidence) -> Iterator[Finding]:
    """An authority above the client's certificate may not issue for clients: the renewal trap.

    The leaf may say clientAuth all the same; servers refuse it as an unsupported certificate.
    """
    for position, authority in _subordinates(evidence, Side.CLIENT, frozenset(AnchorKind)):
        usage = authority.extended_key_usage
        if usage is not None and not usage & {CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE}:
            yield Finding(
                f"{which(Side.CLIENT, position, authority)} may not issue client certificates: "
                "its extended key usage lacks clientAuth.",
                Side.CLIENT,
                authority,
                position,
            )


@rule(
    Severity.WARNING,
    needs=BOTH,
    either=True,
    server_remedy=None,
    remedy="Expect the authority to replace this intermediate; ask it when.",
    reference=_CHROME,
    unless=("cert_extension_malformed",),
    same_certificate=True,
)
def ca_eku_missing_public(evidence: Evidence) -> Iterator[Finding]:
    """An intermediate under a root of Chrome's list does not state its purpose."""
    for side, _ in evidence.sides():
        for position, authority in _subordinates(evidence, side, _CHROME_ONLY):
            if authority.extended_key_usage is None:
                yield Finding(
                    f"{which(side, position, authority)} has no extended key usage, which "
                    "Chrome's policy requires of it.",
                    side,
                    authority,
                    position,
                )


@rule(
    Severity.WARNING,
    needs=SERVER,
    remedy="Expect the authority to replace this intermediate, and the server's chain to change.",
    reference=_CHROME,
)
def ca_eku_not_dedicated(evidence: Evidence) -> Iterator[Finding]:
    """An intermediate of the server's public hierarchy is for more than servers.

    The policy counts from the day of disclosure, for which notBefore stands in.
    """
    start = evidence.tables.dates["chrome_dedicated_authorities"]
    for position, authority in _subordinates(evidence, Side.SERVER, _CHROME_ONLY):
        if authority.extended_key_usage is None or authority.extended_key_usage == {SERVER_AUTH}:
            continue
        bound = start.binds(authority, evidence.now)
        yield Finding(
            f"{which(Side.SERVER, position, authority)} is for more than servers, which Chrome's "
            f"policy forbids {counting(start)}.",
            Side.SERVER,
            authority,
            position,
            severity=Severity.WARNING if bound else Severity.INFO,
            bites_from=start.date,
        )


@rule(
    Severity.CRITICAL,
    needs=SERVER,
    remedy=TELL_OWNER,
    reference=f"{_CHROME}; CA/Browser Forum Baseline Requirements §7.1.2.7.6, §7.1.2.7.10",
    unless=("cert_extension_malformed", "version_not_v3", "leaf_is_ca"),
    same_certificate=True,
)
def server_eku(evidence: Evidence) -> Iterator[Finding]:
    """The server's certificate is not for servers, or for clients too.

    A public one must say what it is for; a private one that does not may be used for anything.
    """
    analysis = evidence.server
    usage = analysis.leaf.extended_key_usage
    start = evidence.tables.dates["chrome_leaf_server_auth_only"]
    listed = analysis.in_chrome_list
    severity, bites_from = Severity.CRITICAL, None
    if usage is None:
        if not analysis.public:
            return
        what = "has no extended key usage, which public server certificates must have"
    elif not usage & {SERVER_AUTH, ANY_EXTENDED_KEY_USAGE}:
        what = "lacks serverAuth, so that clients refuse it"
    elif CLIENT_AUTH in usage and listed:
        what = f"also asserts clientAuth, which Chrome's policy forbids {counting(start)}"
        bites_from = start.date
        if not start.binds(analysis.leaf, evidence.now):
            severity = Severity.INFO
    elif CLIENT_AUTH in usage:
        what = "also asserts clientAuth, which no policy forbids under a root like this"
        severity = Severity.INFO
    else:
        return
    yield Finding(
        f"{which(Side.SERVER, analysis.leaf_position, analysis.leaf)} {what}.",
        Side.SERVER,
        analysis.leaf,
        analysis.leaf_position,
        severity=severity,
        bites_from=bites_from,
    )


def _subordinates(
    evidence: Evidence, side: Side, kinds: frozenset[AnchorKind]
) -> Iterator[tuple[int | None, Certificate]]:
    """Yield the authorities between leaf and root, on paths to roots of these kinds or to none."""
    analysis = evidence.analysis(side)
    paths = [p for p in analysis.paths if evidence.anchors.anchor(p[-1]).kind in kinds]
    if not analysis.paths and AnchorKind.PRIVATE in kinds:
        # The walk ends below its root, so that nothing is left off.
        paths = [(*analysis.walk, analysis.walk[-1])]
    for authority in dict.fromkeys(c for path in paths for c in path[1:-1]):
        yield analysis.position(authority), authority
