"""DER → Certificate: the facts that a rule may ask for, under RFC 5280's names.

A Certificate is a value: it says what is written in it and judges nothing. What cannot be read is
None or empty, so that one odd extension does not hide the dates.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
ANY_EXTENDED_KEY_USAGE: Final = "2.5.29.37.0"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Kind and size of a key: `kind` is rsa, ec, ed25519, ed448, dsa or unknown; `bits` its size.

    `curve` is set for ec, `exponent` for rsa.
    """

    kind: str
    bits: int | None = None
    curve: str | None = None
    exponent: int | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Certificate:
    """One X.509 certificate (RFC 5280 §4.1). Moments are aware and UTC; names are RFC 4514 text.

    `serial_number` is lower-case hexadecimal, two digits a byte, as OpenSSL and Salesforce show it.
    `extended_key_usage` is None when the extension is absent, which is not the same as empty.
    `organization` is the subject's O attribute. `signed_certificate_timestamps` are the moments of
    the embedded SCTs (RFC 6962 §3.3). `unknown_critical_extensions` are object identifiers of
    critical extensions that nobody here understands. Two are equal when their facts are.
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
    version: int = 3
    organization: str | None = None
    path_length: int | None = None
    signature_algorithm: str | None = None
    unknown_critical_extensions: tuple[str, ...] = ()
    ca_issuers: tuple[str, ...] = ()
    ocsp_responders: tuple[str, ...] = ()
    crl_distribution_points: tuple[str, ...] = ()
    certificate_policies: tuple[str, ...] = ()
    signed_certificate_timestamps: tuple[datetime, ...] = ()

    @property
    def lifetime_seconds(self) -> float:
        """The length of the validity period, which includes both ends (RFC 5280 §4.1.2.5)."""
        return (self.not_after - self.not_before).total_seconds() + 1

    def __hash__(self) -> int:
        """Every fact comes from the encoding, and the hash of bytes is computed only once."""
        return hash(self.der)

    def __repr__(self) -> str:
        """Say who it is and until when."""
        return f"<Certificate {self.subject!r} until {self.not_after:%Y-%m-%d}>"


# A door shows the same chain minute after minute, and a thousand orgs the same: it is read once for
# as long as anybody holds it. What was renewed is held by nobody, however many orgs there are.
_known: Final = WeakValueDictionary[bytes, "Certificate"]()


def read(der: bytes) -> Certificate:
    """Return the facts of one DER certificate; ValueError when it is no certificate at all."""
    known = _known.get(der)
    if known is not None:
        return known
    parsed = parse(der)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in parse
        try:
            found = _facts(der, parsed)
        except TypeError as error:
            # What the library says of a name that is encoded as a BIT STRING.
            raise ValueError(str(error)) from error
    return _known.setdefault(der, found)


def _facts(der: bytes, parsed: x509.Certificate) -> Certificate:
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
        version=_version(parsed),
        organization=_organization(parsed.subject),
        path_length=_path_length(extensions),
        signature_algorithm=parsed.signature_algorithm_oid.dotted_string,
        unknown_critical_extensions=_unknown_critical_extensions(extensions),
        ca_issuers=_access_locations(extensions, AuthorityInformationAccessOID.CA_ISSUERS),
        ocsp_responders=_access_locations(extensions, AuthorityInformationAccessOID.OCSP),
        crl_distribution_points=_crl_distribution_points(extensions),
        certificate_policies=_certificate_policies(extensions),
        signed_certificate_timestamps=_signed_certificate_timestamps(extensions),
    )


# Enough for all that one judgement looks at.
@lru_cache(maxsize=128)
def parse(der: bytes) -> x509.Certificate:
    """Return the library's own view of a certificate; ValueError when it is none."""
    with warnings.catch_warnings():
        # The library warns of serial numbers against RFC 5280 §4.1.2.2; a rule reports them.
        warnings.simplefilter("ignore")
        try:
            return x509.load_der_x509_certificate(der)
        except x509.InvalidVersion as error:
            raise ValueError(str(error)) from error


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
            return PublicKey("rsa", key.key_size, exponent=key.public_numbers().e)
        case ec.EllipticCurvePublicKey():
            return PublicKey("ec", key.key_size, key.curve.name)
        case dsa.DSAPublicKey():
            return PublicKey("dsa", key.key_size)
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            edwards = isinstance(key, ed25519.Ed25519PublicKey)
            return PublicKey("ed25519", 256) if edwards else PublicKey("ed448", 456)
        case _:
            return PublicKey("unknown")


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _version(parsed: x509.Certificate) -> int:
    # x509.Version counts from 0, as the encoding does (RFC 5280 §4.1.2.1).
    return parsed.version.value + 1


def _organization(name: x509.Name) -> str | None:
    values = name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(values[0].value) if values else None


def _is_ca(extensions: x509.Extensions) -> bool:
    constraints = _extension(extensions, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _path_length(extensions: x509.Extensions) -> int | None:
    constraints = _extension(extensions, x509.BasicConstraints)
    return None if constraints is None else constraints.path_length


def _subject_alternative_names(extensions: x509.Extensions) -> tuple[str, ...]:
    names = _extension(extensions, x509.SubjectAlternativeName)
    if names is None:
        return ()
    return (
        *(f"DNS:{name}" for name in names.get_values_for_type(x509.DNSName)),
        *(f"IP:{address}" for address in names.get_values_for_type(x509.IPAddress)),
        *(f"email:{name}" for name in names.get_values_for_type(x509.RFC822Name)),
        *(f"URI:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier)),
        *(f"DirName:{name_text(n)}" for n in names.get_values_for_type(x509.DirectoryName)),
    )


def _extended_key_usage(extensions: x509.Extensions) -> frozenset[str] | None:
    usages = _extension(extensions, x509.ExtendedKeyUsage)
    return None if usages is None else frozenset(usage.dotted_string for usage in usages)


def _key_usage(extensions: x509.Extensions) -> frozenset[str] | None:
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None:
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
    value = _extension(extensions, x509.SubjectKeyIdentifier)
    return None if value is None else value.digest.hex()


def _authority_key_identifier(extensions: x509.Extensions) -> str | None:
    value = _extension(extensions, x509.AuthorityKeyIdentifier)
    if value is None or value.key_identifier is None:
        return None
    return value.key_identifier.hex()


def _unknown_critical_extensions(extensions: x509.Extensions) -> tuple[str, ...]:
    return tuple(
        extension.oid.dotted_string
        for extension in extensions
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension)
    )


def _uris(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(n.value for n in names if isinstance(n, x509.UniformResourceIdentifier))


def _access_locations(
    extensions: x509.Extensions, method: x509.ObjectIdentifier
) -> tuple[str, ...]:
    access = _extension(extensions, x509.AuthorityInformationAccess)
    if access is None:
        return ()
    return _uris(d.access_location for d in access if d.access_method == method)


def _crl_distribution_points(extensions: x509.Extensions) -> tuple[str, ...]:
    points = _extension(extensions, x509.CRLDistributionPoints)
    if points is None:
        return ()
    return tuple(uri for point in points for uri in _uris(point.full_name or ()))


def _certificate_policies(extensions: x509.Extensions) -> tuple[str, ...]:
    policies = _extension(extensions, x509.CertificatePolicies)
    return () if policies is None else tuple(p.policy_identifier.dotted_string for p in policies)


def _signed_certificate_timestamps(extensions: x509.Extensions) -> tuple[datetime, ...]:
    stamps = _extension(extensions, x509.PrecertificateSignedCertificateTimestamps)
    return () if stamps is None else tuple(stamp.timestamp.replace(tzinfo=UTC) for stamp in stamps)


def _signature_hash(parsed: x509.Certificate) -> str | None:
    try:
        algorithm = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return None if algorithm is None else algorithm.name
