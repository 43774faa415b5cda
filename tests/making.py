"""Certificates and evidence for the policy tests: sound unless a case says otherwise."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from agent.certificate import CLIENT_AUTH, SERVER_AUTH, Certificate, read
from agent.chain import Anchor, AnchorKind, Anchors
from agent.policy.rule import Evidence, PrivateKey
from agent.policy.tables import shipped_tables
from agent.result import ClientAuth, Success

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOST = "example.my.salesforce.com"
CLIENT_NAME = "integration.example.com"
DEFAULT = object()

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)


def at(day: str) -> datetime:
    """Return the moment at which a day begins, or an ISO moment, in UTC."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


@cache
def rsa_key(bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


@cache
def ec_key(label: str, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """Return one key for each label: the label only tells keys apart."""
    del label
    return ec.generate_private_key(curve())


@dataclass(frozen=True)
class Made:
    """A certificate that was made here, with the key that belongs to it."""

    facts: Certificate
    key: Key = field(repr=False)

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.facts.der)

    @property
    def pem(self) -> bytes:
        return self.parsed.public_bytes(serialization.Encoding.PEM)


def name(common_name: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def key_usage(*asserted: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{bit: bit in asserted for bit in every})


def make(
    common_name: str,
    issuer: Made | None = None,
    *,
    ca: bool = False,
    organization: str | None = None,
    key: Key | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    eku: Iterable[str] | None = (),
    ku: x509.KeyUsage | object | None = DEFAULT,
    names: Iterable[str] = (),
    path_length: int | None = None,
    constraints: bool = True,
    aki: bytes | object | None = DEFAULT,
    serial: int | None = None,
    hash_algorithm: hashes.HashAlgorithm | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> Made:
    """Make one certificate; without an issuer it is self-signed. `eku` None leaves it out."""
    own_key = key or ec_key(f"{common_name} {organization}")
    signer = issuer.key if issuer else own_key
    subject = name(common_name, organization)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.parsed.subject if issuer else subject)
        .public_key(own_key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(not_before or (at("2020-01-01") if ca else NOW - timedelta(days=60)))
        .not_valid_after(not_after or (at("2036-01-01") if ca else NOW + timedelta(days=120)))
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(own_key.public_key()), critical=False
        )
    )
    if constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if ku is DEFAULT:
        ku = key_usage(*(("key_cert_sign", "crl_sign") if ca else ("digital_signature",)))
    if isinstance(ku, x509.KeyUsage):
        builder = builder.add_extension(ku, critical=True)
    if eku is not None and (usages := [x509.ObjectIdentifier(oid) for oid in eku]):
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if alternatives := [_general_name(text) for text in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if aki is DEFAULT and issuer:
        aki = x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest
    if isinstance(aki, bytes):
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier(aki, None, None), critical=False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm: hashes.HashAlgorithm | None = hash_algorithm or hashes.SHA256()
    if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        algorithm = None
    signed = builder.sign(signer, algorithm)
    return Made(read(signed.public_bytes(serialization.Encoding.DER)), own_key)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True)
class Hierarchy:
    """A root and the intermediate that issues leaves."""

    root: Made
    intermediate: Made

    def leaf(self, common_name: str = CLIENT_NAME, **differently: object) -> Made:
        """Issue a leaf, a client's unless told differently."""
        wanted: dict[str, object] = {"eku": (CLIENT_AUTH,), "names": (common_name,)}
        return make(common_name, self.intermediate, **(wanted | differently))

    def chain(
        self, common_name: str = CLIENT_NAME, **differently: object
    ) -> tuple[Certificate, ...]:
        """Return a leaf and the intermediate, as they are presented."""
        return (self.leaf(common_name, **differently).facts, self.intermediate.facts)


def hierarchy(
    label: str, organization: str | None = None, intermediate_eku: Iterable[str] = ()
) -> Hierarchy:
    root = make(f"{label} Root", ca=True, organization=organization)
    intermediate = make(
        f"{label} Intermediate",
        root,
        ca=True,
        organization=organization,
        path_length=0,
        eku=intermediate_eku,
    )
    return Hierarchy(root, intermediate)


@dataclass(frozen=True)
class World:
    """Hierarchies, by who trusts them, and a good chain for each side.

    `clients` and `servers` are private and apart. `chrome` and `other_chrome` are on Chrome's list,
    `public` only on another one; `unknown` is on none. `salesforce` is Chrome's and servers' only.
    """

    clients: Hierarchy
    servers: Hierarchy
    chrome: Hierarchy
    other_chrome: Hierarchy
    public: Hierarchy
    unknown: Hierarchy
    client_chain: tuple[Certificate, ...]
    server_chain: tuple[Certificate, ...]
    anchors: Anchors

    def evidence(self, **differently: object) -> Evidence:
        """Return evidence in which nothing is wrong, apart from what is told differently."""
        client_chain = differently.get("client_chain", self.client_chain)
        wanted: dict[str, object] = {
            "now": NOW,
            "tables": shipped_tables(),
            "anchors": self.anchors,
            "org": "example",
            "host": HOST,
            "port": 8443,
            "api_version": "64.0",
            "client_chain": client_chain,
            "server_chain": self.server_chain,
            "private_key": PrivateKey(
                client_chain[0].subject_public_key_info_sha256 if client_chain else None,
                encrypted=bool(client_chain),
                mode=0o600 if client_chain else None,
            ),
            "client_auth": ClientAuth.ACCEPTED,
            "tls_version": "TLSv1.3",
            "cipher_suite": "TLS_AES_256_GCM_SHA384",
            "acceptable_issuers": (),
            "refusal": Success(),
            "clock_skew": 0.0,
            "enforcement": Success(),
            "other_orgs": (),
            "revocation": {},
            "uploaded": frozenset(found.fingerprint_sha256 for found in client_chain or ()),
            "accepted_roots": frozenset(
                found.root.facts.fingerprint_sha256
                for found in (self.clients, self.chrome, self.other_chrome, self.public)
            ),
        }
        return Evidence(**(wanted | differently))


@cache
def world() -> World:
    """Return the one world of a test process; nothing in it changes."""
    clients, servers = hierarchy("Clients"), hierarchy("Servers")
    chrome = hierarchy("Chrome", "Listed Ltd", (CLIENT_AUTH, SERVER_AUTH))
    other_chrome = hierarchy("Other Chrome", "Other Ltd", (SERVER_AUTH,))
    public = hierarchy("Public", "Public Ltd", (CLIENT_AUTH, SERVER_AUTH))
    return World(
        clients=clients,
        servers=servers,
        chrome=chrome,
        other_chrome=other_chrome,
        public=public,
        unknown=hierarchy("Unknown"),
        client_chain=clients.chain(),
        server_chain=servers.chain(HOST, eku=(SERVER_AUTH,)),
        anchors=Anchors(
            [
                Anchor(chrome.root.facts, AnchorKind.CHROME),
                Anchor(other_chrome.root.facts, AnchorKind.CHROME),
                Anchor(public.root.facts, AnchorKind.PUBLIC),
                Anchor(clients.root.facts, AnchorKind.PRIVATE),
                Anchor(servers.root.facts, AnchorKind.PRIVATE),
            ]
        ),
    )


@dataclass(frozen=True)
class Case:
    """Evidence, the rule that it is about, and everything that must be found in it."""

    rule: str
    finds: frozenset[str]
    evidence: Callable[[World], Evidence]

    @property
    def positive(self) -> bool:
        return any(found.split()[0] == self.rule for found in self.finds)


CASES: list[Case] = []


def case(
    rule: str, *finds: str
) -> Callable[[Callable[[World], Evidence]], Callable[[World], Evidence]]:
    """Register a case; `finds` are "rule side severity", all of them."""

    def register(evidence: Callable[[World], Evidence]) -> Callable[[World], Evidence]:
        CASES.append(Case(rule, frozenset(finds), evidence))
        return evidence

    return register


REVOCABLE = (
    x509.CRLDistributionPoints(
        [
            x509.DistributionPoint(
                [x509.UniformResourceIdentifier("http://crl.example.com/ca.crl")], None, None, None
            )
        ]
    ),
    False,
)


ECDSA_WITH_SHA1 = bytes.fromhex("300906072a8648ce3d0401")  # RFC 3279 §2.2.3


def reissued(made: Made, issuer: Made, change: Callable[[list[bytes]], list[bytes]]) -> Certificate:
    """Return a certificate with other fields of its tbsCertificate, signed: what no library makes.

    `change` is given the encoded fields in their order (RFC 5280 §4.1): version, serialNumber,
    signature, issuer, validity, subject, subjectPublicKeyInfo, extensions.
    """
    fields = change(_elements(made.parsed.tbs_certificate_bytes))
    algorithm = next(f for f in fields if f[:1] == b"\x30")
    tbs = der_of(0x30, *fields)
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    weak = algorithm == ECDSA_WITH_SHA1
    chosen = hashes.SHA1() if weak else hashes.SHA256()  # noqa: S303 - the rules are to see it
    signature = issuer.key.sign(tbs, ec.ECDSA(chosen))
    return read(der_of(0x30, tbs, algorithm, der_of(0x03, b"\x00", signature)))


def _elements(der: bytes) -> list[bytes]:
    """Return what a DER sequence is made of."""
    found = []
    rest = der[_header(der) :]
    while rest:
        length = _header(rest) + _content(rest)
        found.append(rest[:length])
        rest = rest[length:]
    return found


def _header(der: bytes) -> int:
    return 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)


def _content(der: bytes) -> int:
    return int.from_bytes(der[2 : _header(der)]) if der[1] & 0x80 else der[1]


def der_of(tag: int, *contents: bytes) -> bytes:
    """Return one DER element (X.690 §8.1)."""
    content = b"".join(contents)
    return bytes([tag]) + _der_length(len(content)) + content


def timestamps(*moments: datetime) -> tuple[x509.ExtensionType, bool]:
    """Return the extension with one SCT for each moment, as RFC 6962 §3.3 encodes it."""
    entries = b"".join(_vector(_timestamp(moment)) for moment in moments)
    listed = _vector(entries)
    oid = x509.PrecertificateSignedCertificateTimestamps.oid
    return x509.UnrecognizedExtension(oid, der_of(0x04, listed)), False


def _timestamp(moment: datetime) -> bytes:
    milliseconds = int(moment.timestamp() * 1000)
    signature = b"\x04\x03" + _vector(b"\x30\x06\x02\x01\x01\x02\x01\x01")
    return b"\x00" + bytes(32) + milliseconds.to_bytes(8) + b"\x00\x00" + signature


def _vector(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content


def _der_length(length: int) -> bytes:
    # DER has one form for each length (X.690 §10.1).
    if length < 128:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([0x80 | len(octets)]) + octets


def chrome_client(w: World, **differently: object) -> tuple[Certificate, ...]:
    """Return a client's chain under a root of Chrome's list."""
    return w.chrome.chain(**({"extensions": (REVOCABLE,)} | differently))


def chrome_server(
    w: World, issuer: Hierarchy | None = None, **differently: object
) -> tuple[Certificate, ...]:
    """Return a server's chain as public authorities make them; by default not the clients'."""
    wanted: dict[str, object] = {
        "eku": (SERVER_AUTH,),
        "extensions": (REVOCABLE, timestamps(NOW - timedelta(days=60), NOW - timedelta(days=60))),
    }
    return (issuer or w.other_chrome).chain(HOST, **(wanted | differently))
