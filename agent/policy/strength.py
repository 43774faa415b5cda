"""Rules about cryptography: keys and signatures that are weak or unusual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.certificate import Certificate, PublicKey
from agent.chain import self_signed
from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import which

_BR_KEYS: Final = "CA/Browser Forum Baseline Requirements §6.1.5"
_LEAST_RSA_BITS: Final = 2048
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_LEAST_EXPONENT: Final = 65537
_SMALLEST_ODD_EXPONENT: Final = 3
# By object identifier as well, for what the library cannot name: RSA and ECDSA and DSA with SHA-1,
# RSA with MD2, MD4 and MD5.
_WEAK_HASHES: Final = frozenset({"md5", "sha1"})
_WEAK_SIGNATURES: Final = frozenset(
    {
        "1.2.840.113549.1.1.2",
        "1.2.840.113549.1.1.3",
        "1.2.840.113549.1.1.4",
        "1.2.840.113549.1.1.5",
        "1.2.840.10045.4.1",
        "1.2.840.10040.4.3",
    }
)


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Make a new key of at least 2048 bits (RSA) and have a certificate issued for it.",
    reference=_BR_KEYS,
)
def key_too_small(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's RSA key is shorter than 2048 bits, or its length is no multiple of 8."""
    for side, position, leaf in evidence.leaves():
        if _too_small(leaf.public_key):
            yield Finding(
                f"{which(side, position, leaf)} has an RSA key of {leaf.public_key.bits} bits; at "
                f"least {_LEAST_RSA_BITS}, and a multiple of 8, are needed.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Make a new key on P-256, P-384 or P-521 and have a certificate issued for it.",
    reference=_BR_KEYS,
)
def key_curve(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's elliptic curve is none of P-256, P-384 and P-521."""
    for side, position, leaf in evidence.leaves():
        if leaf.public_key.kind == "ec" and leaf.public_key.curve not in _CURVES:
            yield Finding(
                f"{which(side, position, leaf)} has a key on the curve {leaf.public_key.curve}, "
                "not on P-256, P-384 or P-521.",
                side,
                leaf,
                position,
                severity=Severity.WARNING if side is Side.CLIENT else Severity.CRITICAL,
            )


@rule(
    Severity.WARNING,
    needs=CLIENT,
    remedy="Use an RSA or P-256 key, which every server knows.",
    reference=_BR_KEYS,
    unless=("cert_extension_malformed",),
    same_certificate=True,
)
def key_type_unusual(evidence: Evidence) -> Iterator[Finding]:
    """The client's key is neither RSA nor on a curve that every server knows."""
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    if leaf.public_key.kind not in {"rsa", "ec"}:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} has a key of the kind {leaf.public_key.kind}; "
            "whether Salesforce accepts it, nobody says.",
            Side.CLIENT,
            leaf,
            position,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Make a new key with the exponent 65537 and have a certificate issued for it.",
    reference="CA/Browser Forum Baseline Requirements §6.1.6",
)
def rsa_exponent(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's RSA exponent is unusable (even or below 3) or smaller than it should be."""
    for side, position, leaf in evidence.leaves():
        exponent = leaf.public_key.exponent
        if exponent is not None and (exponent < _LEAST_EXPONENT or exponent % 2 == 0):
            unusable = exponent < _SMALLEST_ODD_EXPONENT or exponent % 2 == 0
            why = "is of no use" if unusable else f"should be {_LEAST_EXPONENT} or above"
            yield Finding(
                f"{which(side, position, leaf)} has an RSA key with the exponent {exponent}, which "
                f"{why}.",
                side,
                leaf,
                position,
                severity=Severity.CRITICAL if unusable else Severity.WARNING,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Have the certificate issued again, signed with SHA-256 or better.",
    reference="CA/Browser Forum Baseline Requirements §7.1.3.2.1",
)
def weak_signature(evidence: Evidence) -> Iterator[Finding]:
    """A leaf is signed with SHA-1 or MD5."""
    for side, position, leaf in evidence.leaves():
        if _weakly_signed(leaf):
            yield Finding(
                f"{which(side, position, leaf)} is signed with {_hash(leaf)}, which is broken.",
                side,
                leaf,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Get a certificate from an authority with a strong key and signature.",
    reference=f"{_BR_KEYS}, §7.1.3.2.1",
)
def ca_weak(evidence: Evidence) -> Iterator[Finding]:
    """An authority in a chain has a small key or is signed with SHA-1 or MD5.

    The signature of a root does not count: nobody checks it.
    """
    for side, analysis in evidence.sides():
        roots = {path[-1] for path in analysis.paths}
        for authority in analysis.authorities():
            signature_counts = authority not in roots and not self_signed(authority)
            if _too_small(authority.public_key):
                bits = authority.public_key.bits
                what = f"has an RSA key of {bits} bits, of at least {_LEAST_RSA_BITS}"
            elif signature_counts and _weakly_signed(authority):
                what = f"is signed with {_hash(authority)}, which is broken"
            else:
                continue
            position = analysis.position(authority)
            yield Finding(f"{which(side, position, authority)} {what}.", side, authority, position)


def _too_small(key: PublicKey) -> bool:
    bits = key.bits or 0
    return key.kind == "rsa" and (bits < _LEAST_RSA_BITS or bits % 8 != 0)


def _weakly_signed(certificate: Certificate) -> bool:
    return (
        certificate.signature_hash in _WEAK_HASHES
        or certificate.signature_algorithm in _WEAK_SIGNATURES
    )


def _hash(certificate: Certificate) -> str:
    known = {"sha1": "SHA-1", "md5": "MD5"}
    return known.get(
        certificate.signature_hash or "", f"algorithm {certificate.signature_algorithm}"
    )
