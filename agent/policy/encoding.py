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
            f"{which(side, position, leaf)} has the serial number {leaf.serial_number} "
            f"(hexadecimal), which is not a positive number of 64 to {_LONGEST_SERIAL_BITS} random "
            "bits.",
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
                f"{which(side, position, leaf)} is of version {leaf.version}, not 3, so that it "
                "cannot say what it is for.",
                side,
                leaf,
                position,
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
                f"{which(side, position, certificate)} has critical extensions that nobody here "
                f"knows ({names}): whoever does not know them must refuse it.",
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
    unless=("eku_empty_or_malformed",),
    same_certificate=True,
)
def cert_extension_malformed(evidence: Evidence) -> Iterator[Finding]:
    """A certificate's extensions or key cannot be read."""
    for side, position, certificate in evidence.sent():
        if certificate.malformed:
            yield Finding(
                f"{which(side, position, certificate)} cannot be read completely: "
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
    unless=("cert_extension_malformed", "version_not_v3", "leaf_is_ca", "leaf_self_signed"),
    same_certificate=True,
)
def san_missing(evidence: Evidence) -> Iterator[Finding]:
    """A leaf has no subject alternative name: critical for the server, a remark for the client."""
    for side, position, leaf in evidence.leaves():
        if not leaf.subject_alternative_names:
            yield Finding(
                f"{which(side, position, leaf)} has no subject alternative name.",
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
    """The client's certificate says how it was validated, as public TLS certificates do."""
    leaf, position = evidence.client.leaf, evidence.client.leaf_position
    levels = [_VALIDATION[oid] for oid in leaf.certificate_policies if oid in _VALIDATION]
    if levels:
        yield Finding(
            f"{which(Side.CLIENT, position, leaf)} says that it is {' and '.join(levels)}, as "
            "public TLS certificates are.",
            Side.CLIENT,
            leaf,
            position,
        )
