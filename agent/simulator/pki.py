"""Certificates with exactly the defect asked for, and nothing else wrong with them.

A case names its defect; everything else is a sensible default. Server and client certificates come
from separate hierarchies, strangers' from a third. Moments come from the caller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.credentials import Secret

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SERVER_NAMES: Final = (
    "localhost",
    "*.my.salesforce.com",
    "*.sandbox.my.salesforce.com",
    "127.0.0.1",
    "::1",
)

_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_LEAF_LIFETIME: Final = timedelta(days=180)
_DAY: Final = timedelta(days=1)


class KeyKind(StrEnum):
    """The kinds of key that an authority and its certificates can have."""

    EC = "ec"  # P-256: a thousand times faster to make than RSA
    RSA = "rsa"  # 2048 bits


class KeyForm(StrEnum):
    """How a private key is written as PEM."""

    PKCS8 = "pkcs8"  # RFC 5958
    TRADITIONAL = "traditional"  # PKCS#1 for RSA (RFC 8017), SEC1 for EC (RFC 5915)


class ClientCertificate(StrEnum):
    """What a client presents, by its one defect."""

    GOOD = "good"
    NONE = "none"
    UNKNOWN_CA = "unknown_ca"
    SELF_SIGNED = "self_signed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SERVER_AUTH_ONLY = "server_auth_only"
    INTERMEDIATE_MISSING = "intermediate_missing"
    WRONG_ORDER = "wrong_order"
    EXPIRING = "expiring"  # still good, for three more days


class ServerCertificate(StrEnum):
    """What the server presents, by its one defect."""

    GOOD = "good"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_NAME = "wrong_name"
    UNKNOWN_ROOT = "unknown_root"
    SELF_SIGNED = "self_signed"
    INTERMEDIATE_MISSING = "intermediate_missing"
    WRONG_ORDER = "wrong_order"
    CLIENT_AUTH_ONLY = "client_auth_only"
    DUPLICATE = "duplicate"
    UNRELATED_EXTRA = "unrelated_extra"
    EXPIRING = "expiring"  # still good, for three more days


@dataclass(frozen=True, slots=True)
class Issued:
    """A leaf with its key; `intermediates` is what is sent after the leaf, in the order sent."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    root: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def presented(self) -> tuple[x509.Certificate, ...]:
        """The certificates as they are sent, leaf first."""
        return (self.leaf, *self.intermediates)

    def chain_pem(self) -> bytes:
        """Return the presented certificates as PEM, leaf first."""
        return b"".join(pem(certificate) for certificate in self.presented)

    def root_pem(self) -> bytes:
        """Return the root that the chain leads to as PEM."""
        return pem(self.root)

    def key_pem(self, form: KeyForm = KeyForm.PKCS8, passphrase: Secret | None = None) -> bytes:
        """Return the private key as PEM, encrypted when there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase.reveal().encode())
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8
            if form is KeyForm.PKCS8
            else serialization.PrivateFormat.TraditionalOpenSSL,
            encryption,
        )


@dataclass(frozen=True, slots=True)
class Authority:
    """A root and one intermediate that issues leaves."""

    root: x509.Certificate
    intermediate: x509.Certificate
    key_kind: KeyKind
    now: datetime
    _root_key: PrivateKey = field(repr=False)
    _intermediate_key: PrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str, now: datetime, key_kind: KeyKind = KeyKind.EC) -> Self:
        """Make a new hierarchy whose certificates are called after `name`, valid around `now`."""
        root_key, intermediate_key = _new_key(key_kind), _new_key(key_kind)
        root_name, intermediate_name = _name(f"{name} Root"), _name(f"{name} Intermediate")
        since, until = now - _AUTHORITY_LIFETIME, now + _AUTHORITY_LIFETIME
        root = _sign(
            _authority(root_name, root_key, since, until, path_length=None),
            root_name,
            root_key,
        )
        intermediate = _sign(
            _authority(intermediate_name, intermediate_key, since, until, path_length=0),
            root_name,
            root_key,
        )
        return cls(root, intermediate, key_kind, now, root_key, intermediate_key)

    def root_pem(self) -> bytes:
        """Return the root as PEM."""
        return pem(self.root)

    def issue(
        self,
        common_name: str,
        usage: x509.ObjectIdentifier,
        *,
        names: Sequence[str] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Issued:
        """Issue a leaf for one extended key usage; by default it is in the middle of its life."""
        key = _new_key(self.key_kind)
        leaf = _sign(
            _leaf(
                common_name,
                key,
                usage,
                names,
                (
                    not_before or self.now - _LEAF_LIFETIME / 2,
                    not_after or self.now + _LEAF_LIFETIME / 2,
                ),
            ),
            self.intermediate.subject,
            self._intermediate_key,
        )
        return Issued(leaf, (self.intermediate,), self.root, key)


@dataclass(frozen=True, slots=True)
class Pki:
    """Three separate hierarchies: the server's, the clients' and one that nobody trusts."""

    servers: Authority
    clients: Authority
    strangers: Authority
    now: datetime
    key_kind: KeyKind

    @classmethod
    def create(cls, now: datetime, key_kind: KeyKind = KeyKind.EC) -> Self:
        """Make all three, valid around `now`."""
        return cls(
            servers=Authority.create("Simulated Server", now, key_kind),
            clients=Authority.create("Simulated Client", now, key_kind),
            strangers=Authority.create("Stranger", now, key_kind),
            now=now,
            key_kind=key_kind,
        )

    def client(  # noqa: C901, PLR0911 - one line for each defect
        self, defect: ClientCertificate = ClientCertificate.GOOD, name: str = "probe"
    ) -> Issued | None:
        """Return a client certificate with this defect; None when the client presents none."""
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        match defect:
            case ClientCertificate.NONE:
                return None
            case ClientCertificate.GOOD:
                return self.clients.issue(name, usage)
            case ClientCertificate.UNKNOWN_CA:
                return self.strangers.issue(name, usage)
            case ClientCertificate.SELF_SIGNED:
                return _self_signed(name, usage, (), self.now, self.key_kind)
            case ClientCertificate.EXPIRED:
                return self.clients.issue(name, usage, not_after=self.now - _DAY)
            case ClientCertificate.NOT_YET_VALID:
                return self.clients.issue(name, usage, not_before=self.now + _DAY)
            case ClientCertificate.EXPIRING:
                return self.clients.issue(name, usage, not_after=self.now + 3 * _DAY)
            case ClientCertificate.SERVER_AUTH_ONLY:
                return self.clients.issue(name, ExtendedKeyUsageOID.SERVER_AUTH)
            case ClientCertificate.INTERMEDIATE_MISSING:
                return replace(self.clients.issue(name, usage), intermediates=())
            case ClientCertificate.WRONG_ORDER:
                return _wrong_order(self.clients.issue(name, usage))

    def server(  # noqa: C901, PLR0911 - one line for each defect
        self,
        defect: ServerCertificate = ServerCertificate.GOOD,
        names: Sequence[str] = SERVER_NAMES,
    ) -> Issued:
        """Return a server certificate with this defect."""
        usage, name, now = ExtendedKeyUsageOID.SERVER_AUTH, "my.salesforce.com", self.now
        good = self.servers.issue(name, usage, names=names)
        match defect:
            case ServerCertificate.GOOD:
                return good
            case ServerCertificate.EXPIRED:
                return self.servers.issue(name, usage, names=names, not_after=now - _DAY)
            case ServerCertificate.NOT_YET_VALID:
                return self.servers.issue(name, usage, names=names, not_before=now + _DAY)
            case ServerCertificate.EXPIRING:
                return self.servers.issue(name, usage, names=names, not_after=now + 3 * _DAY)
            case ServerCertificate.WRONG_NAME:
                return self.servers.issue(name, usage, names=("other.example",))
            case ServerCertificate.UNKNOWN_ROOT:
                return self.strangers.issue(name, usage, names=names)
            case ServerCertificate.SELF_SIGNED:
                return _self_signed(name, usage, names, now, self.key_kind)
            case ServerCertificate.INTERMEDIATE_MISSING:
                return replace(good, intermediates=())
            case ServerCertificate.WRONG_ORDER:
                return _wrong_order(good)
            case ServerCertificate.CLIENT_AUTH_ONLY:
                return self.servers.issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, names=names)
            case ServerCertificate.DUPLICATE:
                return replace(good, intermediates=good.intermediates * 2)
            case ServerCertificate.UNRELATED_EXTRA:
                return replace(good, intermediates=(*good.intermediates, self.strangers.root))


def pem(certificate: x509.Certificate) -> bytes:
    """Return one certificate as PEM (RFC 7468)."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _wrong_order(issued: Issued) -> Issued:
    return replace(issued, intermediates=(issued.root, *issued.intermediates))


def _new_key(kind: KeyKind) -> PrivateKey:
    match kind:
        case KeyKind.EC:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.RSA:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulator"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _self_signed(
    common_name: str,
    usage: x509.ObjectIdentifier,
    names: Sequence[str],
    now: datetime,
    key_kind: KeyKind,
) -> Issued:
    key = _new_key(key_kind)
    since, until = now - _LEAF_LIFETIME / 2, now + _LEAF_LIFETIME / 2
    leaf = _sign(_leaf(common_name, key, usage, names, (since, until)), _name(common_name), key)
    return Issued(leaf, (), leaf, key)


def _builder(
    subject: x509.Name, key: PrivateKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(
    subject: x509.Name,
    key: PrivateKey,
    not_before: datetime,
    not_after: datetime,
    path_length: int | None,
) -> x509.CertificateBuilder:
    return (
        _builder(subject, key, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )


def _leaf(
    common_name: str,
    key: PrivateKey,
    usage: x509.ObjectIdentifier,
    names: Sequence[str],
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    builder = (
        _builder(_name(common_name), key, *validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(
    builder: x509.CertificateBuilder, issuer: x509.Name, issuer_key: PrivateKey
) -> x509.Certificate:
    # OpenSSL with X509_V_FLAG_X509_STRICT, Python 3.13's default, wants the identifier.
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        builder.issuer_name(issuer)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
