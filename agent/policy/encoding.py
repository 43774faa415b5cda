"""Rules about encoding and names: what a strict reader trips over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.policy.rule import BOTH, CLIENT, Evidence, Finding, Severity, Side, rule
from agent.policy.wording import which

_REISSUE: Final = "Have the certificate issued again: the authority made a mistake."
_LONGEST_SERIAL_BITS: Final = 159
# The requirement is 64 random bits, any of which may be a leading zero: below 57 it is no chance.
_LEAST_SERIAL_BITS: Final = 57
_VERSION_3: Final = 3

_VALIDATION: Final = {
    "2.23.140.1.2.1": "domain validated",
    "2.23.140.1.2.2": "organization validated",
    "2.23.140.1.2.3": "individual validated",
    "2.23.140.1.1": "extended validation",
}


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy=_REISSUE,
    reference="RFC 5280 §4.1.2.2; CA/Browser Forum Baseline Requirements §7.1.2",
)
def serial_bad(evidence: Evidence) -> Iterator[Finding]:
    """A leaf's serial number is not positive, longer than 20 octets, or not random enough."""
    for side, position, leaf in evidence.leaves():
        number = int(leaf.serial_number, 16)
        if number <= 0 or number.bit_length() > _LONGEST_SERIAL_BITS:
            severity = Severity.CRITICAL
        elif number.bit_length() < _LEAST_SERIAL_BITS:
            public = evidence.analysis(side).public
            severity = Severity.WARNING if public else Severity.INFO
        else:
            continue
        yield Finding(
            f"The {side} certificate's serial number 0x{leaf.serial_number} is not a positive "
            "number of 64 to 159 random bits.",
            side,
            leaf,
            position,
            severity=severity,
        )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy=_REISSUE,
    reference="RFC 5280 §4.1.2.1",
)
def version_not_v3(evidence: Evidence) -> Iterator[Finding]:
    """A leaf is no version 3 certificate, so it cannot say what it is for."""
    for side, position, leaf in evidence.leaves():
        if leaf.version != _VERSION_3:
            yield Finding(
                f"The {side} certificate has version {leaf.version}, not 3.", side, leaf, position
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy=_REISSUE,
    reference="RFC 5280 §4.2",
)
def unknown_critical_extension(evidence: Evidence) -> Iterator[Finding]:
    """A certificate has a critical extension that is not understood, so it must be refused."""
    for side, position, certificate in evidence.sent():
        if certificate.unknown_critical_extensions:
            names = ", ".join(certificate.unknown_critical_extensions)
            yield Finding(
                f"{which(side, position)} has unknown critical extensions: {names}.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy=_REISSUE,
    reference="RFC 5280 §4.2",
)
def cert_extension_malformed(evidence: Evidence) -> Iterator[Finding]:
    """A certificate's extensions or key cannot be read."""
    for side, position, certificate in evidence.sent():
        if certificate.malformed:
            yield Finding(
                f"{which(side, position)} cannot be read completely: "
                f"{'; '.join(certificate.malformed)}.",
                side,
                certificate,
                position,
            )


@rule(
    Severity.CRITICAL,
    needs=BOTH,
    either=True,
    remedy="Ask for a subject alternative name at the next renewal.",
    reference="RFC 9525 §2; CA/Browser Forum Baseline Requirements §7.1.2.7.12",
    unless=("cert_extension_malformed",),
)
def san_missing(evidence: Evidence) -> Iterator[Finding]:
    """A leaf has no subject alternative name: critical for the server, a remark for the client."""
    for side, position, leaf in evidence.leaves():
        if not leaf.subject_alternative_names:
            yield Finding(
                f"The {side} certificate has no subject alternative name.",
                side,
                leaf,
                position,
                severity=Severity.INFO if side is Side.CLIENT else Severity.CRITICAL,
            )


@rule(
    Severity.INFO,
    needs=CLIENT,
    remedy="Nothing; it tells how the certificate was bought.",
    reference="CA/Browser Forum Baseline Requirements §7.1.6.1",
)
def policy_oids(evidence: Evidence) -> Iterator[Finding]:
    """The client's certificate is a public TLS certificate, of the validation level told."""
    leaf = evidence.client.leaf
    levels = [_VALIDATION[oid] for oid in leaf.certificate_policies if oid in _VALIDATION]
    if levels:
        yield Finding(
            f"The client certificate is a public TLS certificate: {', '.join(levels)}.",
            Side.CLIENT,
            leaf,
            evidence.client.leaf_position,
        )
