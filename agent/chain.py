"""Links between certificates, the paths they form, and the trust anchors they can lead to.

Certificates are compared by names, identifiers and signatures; dates and purposes are ignored on
purpose, so that an expired chain still tells its root. A cross-signed chain has several paths and
may have several roots: all of them are returned, whatever the order of the certificates.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from agent.certificate import Certificate, parse, read

# Bounds, so that a hostile file costs little: certificates in a path, paths, other certificates
# that are tried as issuers, and extensions of a path that are tried in all.
_DEPTH: Final = 8
_PATHS: Final = 64
_POOL: Final = 32
_STEPS: Final = 1000

_UNCHECKED_HASHES: Final = frozenset({"md5", "sha1", None})


_BOUNDARY: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]*)-----")
# OpenSSL's own label: a certificate followed by trust settings (openssl-x509(1), -trustout).
_TRUSTED_LABEL: Final = "TRUSTED CERTIFICATE"
_CERTIFICATE_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", _TRUSTED_LABEL})
_OTHER_CONTAINERS: Final = frozenset({"PKCS7", "CMS"})
_SEQUENCE: Final = 0x30


class Link(Enum):
    """What connects a certificate with a possible issuer."""

    NONE = "none"  # the names differ
    SIGNED = "signed"
    IDENTIFIED = "identified"  # the signature cannot be checked; names and key identifiers agree
    BROKEN = "broken"  # the name fits and the signature does not


class AnchorKind(StrEnum):
    """Who trusts an anchor: Chrome's list, another public list, or only its operator."""

    CHROME = "chrome"
    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trust anchor. `sct_not_after`: Chrome accepts certificates logged up to then only."""

    certificate: Certificate
    kind: AnchorKind
    sct_not_after: datetime | None = None

    @property
    def key(self) -> str:
        """What two anchors of one authority have in common: the hash of the public key."""
        return self.certificate.subject_public_key_info_sha256


class Anchors:
    """Known trust anchors, found by name or key. Where two have one key the first one counts."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self._by_subject: dict[str, list[Anchor]] = {}
        self._by_key: dict[str, Anchor] = {}
        seen: set[str] = set()
        for anchor in anchors:
            if anchor.certificate.fingerprint_sha256 in seen:
                continue
            seen.add(anchor.certificate.fingerprint_sha256)
            self._by_subject.setdefault(anchor.certificate.subject, []).append(anchor)
            self._by_key.setdefault(anchor.key, anchor)
        self._fingerprints = frozenset(seen)
        # The owners of public roots: a chain that ends below one of theirs misses a certificate.
        self.public_organizations = frozenset(
            anchor.certificate.organization
            for anchor in self._by_key.values()
            if anchor.kind is not AnchorKind.PRIVATE and anchor.certificate.organization
        )

    def __len__(self) -> int:
        return len(self._fingerprints)

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate.fingerprint_sha256 in self._fingerprints

    @property
    def fingerprints(self) -> frozenset[str]:
        """The fingerprints of all anchors."""
        return self._fingerprints

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all anchors, each once."""
        return tuple(self._by_subject)

    def named(self, subject: str) -> tuple[Certificate, ...]:
        """Return the anchors of this name."""
        return tuple(anchor.certificate for anchor in self._by_subject.get(subject, ()))

    def issuers(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return the anchors that issued `certificate`."""
        named = self.named(certificate.issuer)
        return tuple(anchor for anchor in named if issued(anchor, certificate))

    def anchor(self, certificate: Certificate) -> Anchor:
        """Return the anchor with this certificate's key, or a private one made of it."""
        known = self._by_key.get(certificate.subject_public_key_info_sha256)
        return known or Anchor(certificate, AnchorKind.PRIVATE)


@dataclass(frozen=True, slots=True, eq=False)
class ChainAnalysis:
    """A chain taken apart.

    `leaf_position` is where the end-entity certificate stands, 0 unless the order is wrong.
    `paths` run from the leaf to an anchor, which is included; they are empty when none is reached.
    `roots` are the different anchors at their ends. `walk` is the longest path inside the file.
    `extra` are positions of certificates that the leaf does not come from, on no branch of a path;
    `duplicates` are positions that repeat an earlier one, whatever that is.
    """

    certificates: tuple[Certificate, ...]
    leaf_position: int
    paths: tuple[tuple[Certificate, ...], ...]
    roots: tuple[Anchor, ...]
    walk: tuple[Certificate, ...]
    extra: tuple[int, ...]
    duplicates: tuple[int, ...]

    @property
    def leaf(self) -> Certificate:
        """The end-entity certificate."""
        return self.certificates[self.leaf_position]

    @property
    def path(self) -> tuple[Certificate, ...]:
        """The shortest path to an anchor, or the walk when none is reached."""
        return min(self.paths, key=len) if self.paths else self.walk

    @property
    def ways(self) -> tuple[tuple[Certificate, ...], ...]:
        """All paths, or the walk as the only one when no anchor is reached."""
        return self.paths or (self.walk,)

    @property
    def root_keys(self) -> frozenset[str]:
        """The hashes of the public keys of all roots that can be reached."""
        return frozenset(root.key for root in self.roots)

    @property
    def public(self) -> bool:
        """Some path leads to an anchor on a public list."""
        return any(root.kind is not AnchorKind.PRIVATE for root in self.roots)

    @property
    def private(self) -> bool:
        """Paths lead to private anchors only; false when none is reached."""
        return bool(self.roots) and not self.public

    @property
    def in_chrome_list(self) -> bool:
        """Some path leads to an anchor on Chrome's list."""
        return any(root.kind is AnchorKind.CHROME for root in self.roots)

    def position(self, certificate: Certificate) -> int | None:
        """Return where `certificate` stands in the chain, None when it was not sent."""
        try:
            return self.certificates.index(certificate)
        except ValueError:
            return None

    def presented(self) -> Iterator[tuple[int, Certificate]]:
        """Yield position and certificate of everything in the chain; what is repeated once."""
        repeated = frozenset(self.duplicates)
        return (
            (position, certificate)
            for position, certificate in enumerate(self.certificates)
            if position not in repeated
        )

    def authorities(self) -> tuple[Certificate, ...]:
        """Return every CA certificate on any path, sent or not, each once, leaf's issuer first."""
        found = dict.fromkeys(c for path in self.ways for c in path[1:])
        return tuple(found)

    def inevitable(self) -> tuple[Certificate, ...]:
        """Return the CA certificates that lie on every path, sent or not, leaf's issuer first."""
        return tuple(c for c in self.path[1:] if all(c in path for path in self.ways))


@dataclass(frozen=True, slots=True)
class ChainFile:
    """What a file holds: certificates in its order, and what could not be read, block by block."""

    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...] = ()


def read_chain(data: bytes) -> ChainFile:
    """Return the certificates of a PEM or DER file; what cannot be read is told, never raised.

    Blocks count from 1; blocks that are no certificates (keys, parameters) are skipped.
    """
    certificates: list[Certificate] = []
    problems: list[str] = []
    number = 0
    for number, (label, body) in enumerate(pem_blocks(data), 1):
        if label in _OTHER_CONTAINERS:
            problems.append(f"block {number}: {label} is not read, convert it to PEM certificates")
        if label not in _CERTIFICATE_LABELS:
            continue
        if body is None:
            problems.append(f"block {number}: it begins and never ends")
            continue
        try:
            der = base64.b64decode(b"".join(body.split()), validate=True)
            certificates.append(read(_first_element(der) if label == _TRUSTED_LABEL else der))
        except ValueError as error:
            problems.append(f"block {number}: not a certificate ({error})")
    if number == 0:
        return _read_der(data)
    if not certificates and not problems:
        problems.append("no certificate among the PEM blocks")
    return ChainFile(tuple(certificates), tuple(problems))


def pem_blocks(data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Yield label and body of each PEM block (RFC 7468), body None when it does not end."""
    begun: tuple[str, int] | None = None
    for boundary in _BOUNDARY.finditer(data):
        kind, label = boundary[1], boundary[2].decode()
        if begun and kind == b"END" and label == begun[0]:
            yield label, data[begun[1] : boundary.start()]
            begun = None
        elif kind == b"BEGIN":
            if begun:
                yield begun[0], None
            begun = label, boundary.end()
    if begun:
        yield begun[0], None


def _read_der(data: bytes) -> ChainFile:
    if data[:1] != bytes([_SEQUENCE]):
        return ChainFile((), ("neither PEM nor DER: no block begins and no certificate starts",))
    try:
        return ChainFile((read(bytes(data)),))
    except ValueError as error:
        problem = f"DER, but not one certificate ({error}); PKCS#7 and PKCS#12 are not read"
        return ChainFile((), (problem,))


def _first_element(der: bytes) -> bytes:
    """Return the first DER element (X.690 §8.1), leaving off whatever follows."""
    if len(der) < 2 or der[0] != _SEQUENCE:  # noqa: PLR2004 - tag and length
        raise ValueError("no sequence")
    length, header = der[1], 2
    if length & 0x80:
        octets = length & 0x7F
        length, header = int.from_bytes(der[2 : 2 + octets]), 2 + octets
    return der[: header + length]


def link(issuer: Certificate, subject: Certificate) -> Link:
    """Return what connects `subject` with `issuer` (RFC 5280 §6.1.3 a); names, key, signature."""
    if subject.issuer != issuer.subject:
        return Link.NONE
    return _signature(issuer.der, subject.der)


def issued(issuer: Certificate, subject: Certificate) -> bool:
    """Tell whether `issuer`'s name and key made `subject` (RFC 5280 §6.1.3 a)."""
    return link(issuer, subject) in (Link.SIGNED, Link.IDENTIFIED)


def self_signed(certificate: Certificate) -> bool:
    """Tell whether a certificate was made with its own key."""
    return certificate.self_issued and issued(certificate, certificate)


# A judgement asks several times; the next one comes when something has changed.
@lru_cache(maxsize=1024)
def _signature(issuer_der: bytes, subject_der: bytes) -> Link:
    issuer, subject = parse(issuer_der), parse(subject_der)
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, UnsupportedAlgorithm):
        # The library refuses SHA-1, MD5 and what it does not know, and names that differ in their
        # encoding only.
        same_encoding = subject.issuer.public_bytes() == issuer.subject.public_bytes()
        if same_encoding and read(subject_der).signature_hash not in _UNCHECKED_HASHES:
            return Link.BROKEN
        return _identifiers(issuer_der, subject_der)
    except (InvalidSignature, TypeError):
        return Link.BROKEN
    return Link.SIGNED


def _identifiers(issuer_der: bytes, subject_der: bytes) -> Link:
    """Decide by key identifiers where the signature cannot be checked; without them by name."""
    wanted = read(subject_der).authority_key_identifier
    own = read(issuer_der).subject_key_identifier
    return Link.BROKEN if wanted and own and wanted != own else Link.IDENTIFIED


def role(position: int, certificate: Certificate) -> str:
    """Return what a certificate is in its chain: leaf, intermediate or root."""
    if position == 0:
        return "leaf"
    return "root" if certificate.self_issued else "intermediate"


def path_from_leaf(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return the longest path that starts at the first certificate, whatever the others' order."""
    if not certificates:
        return ()
    path = [certificates[0]]
    rest = list(certificates[1 : _POOL + 1])
    while not path[-1].self_issued:
        issuer = next((candidate for candidate in rest if issued(candidate, path[-1])), None)
        if issuer is None:
            break
        rest.remove(issuer)
        path.append(issuer)
    return tuple(path)


def missing_intermediate(certificates: Sequence[Certificate]) -> str | None:
    """Return the name of the issuer that is missing right above the leaf, or None.

    A root is usually not sent, so a path that ends at a CA certificate is taken as complete; a leaf
    whose own issuer is absent is not, because no public root signs leaves directly (BR §7.1.2).
    """
    path = path_from_leaf(certificates)
    if not path or path[-1].is_ca or path[-1].self_issued:
        return None
    return path[-1].issuer


@lru_cache(maxsize=128)
def analyse(
    certificates: tuple[Certificate, ...], anchors: Anchors, leaf_key: str | None = None
) -> ChainAnalysis:
    """Return the analysis of a chain; ValueError when it is empty.

    `leaf_key` is the hash of the public key that the presenter holds, if known: the certificate
    with this key is the leaf. Else it is the first one, or the first that is no CA.
    """
    if not certificates:
        raise ValueError("an empty chain has nothing to analyse")
    leaf_position = _leaf_position(certificates, leaf_key)
    leaf = certificates[leaf_position]
    others = tuple(c for c in dict.fromkeys(certificates) if c != leaf)
    pool = others[:_POOL]
    paths = _paths(leaf, pool, anchors)
    walk = path_from_leaf((leaf, *others))
    ends = {anchor.key: anchor for anchor in (anchors.anchor(path[-1]) for path in paths)}
    useful = _forebears(leaf, pool)
    # Beyond the pool nobody looked: there it takes a name that no other one gives as its issuer's.
    untried = frozenset(others[_POOL:])
    issuers = {c.issuer for c in certificates if not c.self_issued}
    first: dict[Certificate, int] = {}
    repeated = tuple(i for i, c in enumerate(certificates) if first.setdefault(c, i) != i)
    return ChainAnalysis(
        certificates=certificates,
        leaf_position=leaf_position,
        paths=paths,
        roots=tuple(sorted(ends.values(), key=lambda anchor: anchor.key)),
        walk=walk,
        extra=tuple(
            i
            for i, c in enumerate(certificates)
            if c not in useful and not (c in untried and c.subject in issuers)
        ),
        duplicates=repeated,
    )


def _leaf_position(certificates: Sequence[Certificate], leaf_key: str | None) -> int:
    for position, certificate in enumerate(certificates):
        if certificate.subject_public_key_info_sha256 == leaf_key:
            return position
    if certificates[0].is_ca:
        for position, certificate in enumerate(certificates):
            if not certificate.is_ca and not certificate.self_issued:
                return position
    return 0


def _forebears(leaf: Certificate, pool: Sequence[Certificate]) -> frozenset[Certificate]:
    """Return the leaf and whatever it comes from: its issuers, theirs, and so on."""
    found = {leaf}
    waiting = [leaf]
    while waiting:
        subject = waiting.pop()
        issuers = [c for c in pool if c not in found and issued(c, subject)]
        found.update(issuers)
        waiting.extend(issuers)
    return frozenset(found)


def _paths(
    leaf: Certificate, pool: Sequence[Certificate], anchors: Anchors
) -> tuple[tuple[Certificate, ...], ...]:
    found: list[tuple[Certificate, ...]] = []
    waiting: list[tuple[tuple[Certificate, ...], frozenset[tuple[str, str]]]] = [
        ((leaf,), frozenset({_authority(leaf)}))
    ]
    steps = 0
    while waiting and steps < _STEPS and len(found) < _PATHS:
        steps += 1
        path, used = waiting.pop()
        top = path[-1]
        if top in anchors or self_signed(top):
            found.append(path)
            continue
        found.extend((*path, anchor) for anchor in anchors.issuers(top))
        if len(path) < _DEPTH:
            waiting.extend(
                ((*path, issuer), used | {_authority(issuer)})
                for issuer in reversed(pool)
                if issuer not in anchors and _authority(issuer) not in used and issued(issuer, top)
            )
    return tuple(found[:_PATHS])


def _authority(certificate: Certificate) -> tuple[str, str]:
    """Return what is the same for one CA across cross-signed certificates."""
    return certificate.subject, certificate.subject_public_key_info_sha256
