"""DER → Certificate: the facts that a rule may ask for, under RFC 5280's names.

A Certificate is a value: it says what is written in it and judges nothing. What cannot be read is
None or empty, so that one odd extension does not hide the dates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
ANY_EXTENDED_KEY_USAGE: Final = "2.5.29.37.0"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Kind and size of a key: `kind` is rsa, ec, ed25519, ed448, dsa or unknown; `bits` its size."""

    kind: str
    bits: int | None = None
    curve: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One X.509 certificate (RFC 5280 §4.1). Moments are aware and UTC; names are RFC 4514 text.

    `serial_number` is lower-case hexadecimal, two digits a byte, as OpenSSL and Salesforce show it.
    `extended_key_usage` is None when the extension is absent, which is not the same as empty.
    """

    der: bytes = field(repr=False)
    subject: str
    issuer: str
    serial_number: str
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str
    subject_public_key_info_sha256: str
    is_ca: bool
    self_issued: bool
    public_key: PublicKey
    subject_alternative_names: tuple[str, ...]
    extended_key_usage: frozenset[str] | None
    key_usage: frozenset[str] | None
    subject_key_identifier: str | None
    authority_key_identifier: str | None
    signature_hash: str | None
    malformed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say who it is and until when."""
        return f"<Certificate {self.subject!r} until {self.not_after:%Y-%m-%d}>"


def read(der: bytes) -> Certificate:
    """Return the facts of one DER certificate; ValueError when it is no certificate at all."""
    parsed = x509.load_der_x509_certificate(der)
    malformed: list[str] = []
    extensions = _extensions(parsed, malformed)
    return Certificate(
        der=der,
        subject=name_text(parsed.subject),
        issuer=name_text(parsed.issuer),
        serial_number=_hexadecimal(parsed.serial_number),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        fingerprint_sha256=hashlib.sha256(der).hexdigest(),
        subject_public_key_info_sha256=_subject_public_key_info(parsed),
        is_ca=_is_ca(extensions),
        self_issued=parsed.issuer == parsed.subject,
        public_key=_public_key(parsed, malformed),
        subject_alternative_names=_subject_alternative_names(extensions),
        extended_key_usage=_extended_key_usage(extensions),
        key_usage=_key_usage(extensions),
        subject_key_identifier=_subject_key_identifier(extensions),
        authority_key_identifier=_authority_key_identifier(extensions),
        signature_hash=_signature_hash(parsed),
        malformed=tuple(malformed),
    )


def name_text(name: x509.Name) -> str:
    """Return a distinguished name as RFC 4514 text, most specific part first."""
    return name.rfc4514_string()


def _hexadecimal(number: int) -> str:
    digits = f"{abs(number):x}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _extensions(parsed: x509.Certificate, malformed: list[str]) -> x509.Extensions:
    try:
        return parsed.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        malformed.append(f"extensions: {error}")
        return x509.Extensions([])


def _subject_public_key_info(parsed: x509.Certificate) -> str:
    try:
        encoded = parsed.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        # A key of a kind that the library does not know has no comparable identity but its bytes.
        encoded = parsed.tbs_certificate_bytes
    return hashlib.sha256(encoded).hexdigest()


def _public_key(parsed: x509.Certificate, malformed: list[str]) -> PublicKey:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        malformed.append(f"public key: {error}")
        return PublicKey("unknown")
    match key:
        case rsa.RSAPublicKey():
            return PublicKey("rsa", key.key_size)
        case ec.EllipticCurvePublicKey():
            return PublicKey("ec", key.key_size, key.curve.name)
        case ed25519.Ed25519PublicKey():
            return PublicKey("ed25519", 256)
        case ed448.Ed448PublicKey():
            return PublicKey("ed448", 456)
        case dsa.DSAPublicKey():
            return PublicKey("dsa", key.key_size)
        case _:
            return PublicKey("unknown")


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _subject_alternative_names(extensions: x509.Extensions) -> tuple[str, ...]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *(f"DNS:{name}" for name in names.get_values_for_type(x509.DNSName)),
        *(f"IP:{address}" for address in names.get_values_for_type(x509.IPAddress)),
    )


def _extended_key_usage(extensions: x509.Extensions) -> frozenset[str] | None:
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return frozenset(usage.dotted_string for usage in usages)


def _key_usage(extensions: x509.Extensions) -> frozenset[str] | None:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
    named = {
        "digitalSignature": usage.digital_signature,
        "nonRepudiation": usage.content_commitment,
        "keyEncipherment": usage.key_encipherment,
        "dataEncipherment": usage.data_encipherment,
        "keyAgreement": usage.key_agreement,
        "keyCertSign": usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return frozenset(name for name, asserted in named.items() if asserted)


def _subject_key_identifier(extensions: x509.Extensions) -> str | None:
    try:
        return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    except x509.ExtensionNotFound:
        return None


def _authority_key_identifier(extensions: x509.Extensions) -> str | None:
    try:
        value = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return None
    return None if value.key_identifier is None else value.key_identifier.hex()


def _signature_hash(parsed: x509.Certificate) -> str | None:
    try:
        algorithm = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return None if algorithm is None else algorithm.name
