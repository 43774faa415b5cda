"""PEM files → Identity: our certificate chain and its key, checked as a pair, and their rotation.

A pair is usable or it is not; whether it is wise (dates, purpose, chain) is for the policy to say.
Key content appears in no message. An Identity is in memory: nothing here writes a file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from agent import certificate, credentials
from agent.certificate import Certificate
from agent.credentials import CredentialError, Secret
from agent.org import ClientIdentity, FromCredential, FromFile
from agent.reason import Reason
from agent.result import Failure

_CERTIFICATE_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_KEY_LABELS: Final = frozenset(
    {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"}
)
# `openssl ecparam -genkey` and `openssl dhparam` leave these beside the key; nobody needs them.
_IGNORED_LABELS: Final = frozenset({"EC PARAMETERS", "DH PARAMETERS", "DSA PARAMETERS"})
# What people put there instead, and how to get what is needed.
_FOREIGN_LABELS: Final[Mapping[str, str]] = {
    "TRUSTED CERTIFICATE": "convert it with `openssl x509 -in FILE -out NEW.pem`",
    "CERTIFICATE REQUEST": "it is the request, not the certificate that was issued for it",
    "NEW CERTIFICATE REQUEST": "it is the request, not the certificate that was issued for it",
    "PKCS7": "convert it with `openssl pkcs7 -print_certs -in FILE -out NEW.pem`",
    "OPENSSH PRIVATE KEY": "convert it with `ssh-keygen -p -m PEM -f FILE`",
    "PUBLIC KEY": "it is the public half; the private key is needed",
    "X509 CRL": "it is a revocation list",
}

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]*)-----")
_END: Final = re.compile(rb"-----END ([A-Z0-9][A-Z0-9 ]*)-----")
_UTF_16_BEGIN: Final = ("BEGIN".encode("utf-16-le"), "BEGIN".encode("utf-16-be"))

# RFC 7292 §4: a PFX is a SEQUENCE that starts with INTEGER 3 and another SEQUENCE.
_PKCS12: Final = re.compile(rb"\x30.{1,5}?\x02\x01\x03\x30", re.DOTALL)

_LIBRARY_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    InternalError,
    x509.InvalidVersion,
)


class IdentityError(Exception):
    """The certificate and key cannot be used; `failure` says why, naming file and PEM block."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain and the private key of its first certificate.

    `chain` and `certificate_pem` keep the order of the file; `key_pem` is one PEM block, encrypted
    exactly when `passphrase` is given. `digest` names this chain and key without being a secret:
    it is made of what the server gets to see.
    """

    chain: tuple[Certificate, ...]
    key_pem: Secret
    passphrase: Secret | None
    digest: str

    @property
    def leaf(self) -> Certificate:
        """The certificate that is ours; the others vouch for it."""
        return self.chain[0]

    @property
    def certificate_pem(self) -> bytes:
        """The chain as OpenSSL reads it; thousands of orgs do not keep it twice."""
        return "".join(ssl.DER_cert_to_PEM_cert(known.der) for known in self.chain).encode()


@dataclass(frozen=True, slots=True)
class _Block:
    """One PEM block (RFC 7468); `number` counts from 1 and `lines` are stripped of white space."""

    number: int
    label: str
    lines: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Material:
    """What the files held at one moment; `seal` changes with any byte of it and reveals none."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    passphrase: Secret | None
    seal: bytes = field(repr=False)


def read(identity: ClientIdentity, *, environ: Mapping[str, str]) -> Identity:
    """Return the chain and key that the operator named; IdentityError when they are no pair."""
    return _checked(identity, _material(identity, environ, b""))


class Rotation:
    """The identity of one org over time: what is on disk, as long as it is good.

    `current` is the last good identity, `changes` counts its replacements, `failures` counts
    contents that could not be used, each once, and `last_failure` says why the files as they are
    now are not in use; it is None again as soon as they are.

    It blocks, and may be called from any thread: one reads while others wait.
    """

    __slots__ = (
        "_bad",
        "_environ",
        "_good",
        "_lock",
        "_seal_key",
        "_source",
        "changes",
        "current",
        "failures",
        "last_failure",
    )

    def __init__(self, source: ClientIdentity, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        # A plain digest of a short passphrase could be guessed back; with this key it cannot.
        self._seal_key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._good: bytes | None = None
        self._bad: bytes | None = None
        self.current: Identity | None = None
        self.changes = 0
        self.failures = 0
        self.last_failure: Failure | None = None

    def refresh(
        self, accept: Callable[[Identity], Failure | None] = lambda _: None
    ) -> Identity | Failure:
        """Read the files again and return the identity to use; Failure if there never was one.

        Compares content, not times, through the path each time, so that a swapped symbolic link
        and a file put back with its old date are noticed. `accept` has the last word on a new
        pair: whoever must present it may know why that is not possible.
        """
        with self._lock:
            return self._refreshed(accept)

    def _refreshed(self, accept: Callable[[Identity], Failure | None]) -> Identity | Failure:
        try:
            material = _material(self._source, self._environ, self._seal_key)
        except IdentityError as error:
            return self._refuse(str(error).encode(), error.failure)
        if material.seal == self._good:
            self._settle()
        elif material.seal != self._bad:
            try:
                fresh = _checked(self._source, material)
            except IdentityError as error:
                return self._refuse(material.seal, error.failure)
            if refusal := accept(fresh):
                return self._refuse(material.seal, refusal)
            self._take(fresh, material.seal)
        return self._answer()

    def _take(self, fresh: Identity, seal: bytes) -> None:
        # A new comment in a file is no new identity: whoever built on the old one may keep it.
        if self.current is None:
            self.current = fresh
        elif fresh != self.current:
            self.current = fresh
            self.changes += 1
        self._good = seal
        self._settle()

    def _settle(self) -> None:
        self._bad = None
        self.last_failure = None

    def _refuse(self, seal: bytes, failure: Failure) -> Identity | Failure:
        if seal != self._bad:
            self._bad = seal
            self.failures += 1
            self.last_failure = failure
        return self._answer()

    def _answer(self) -> Identity | Failure:
        if self.current is not None:
            return self.current
        return self.last_failure or Failure(Reason.CLIENT_MATERIAL_UNREADABLE)


def _unreadable(detail: str) -> NoReturn:
    # The library's own exception may quote what it read, so no cause is chained.
    raise IdentityError(Failure(Reason.CLIENT_MATERIAL_UNREADABLE, detail)) from None


def _mismatch(detail: str) -> NoReturn:
    raise IdentityError(Failure(Reason.CLIENT_KEY_MISMATCH, detail))


def _material(source: ClientIdentity, environ: Mapping[str, str], seal_key: bytes) -> _Material:
    try:
        certificates = credentials.read_bytes(source.certificate, environ=environ)
        # One file is read once, so that its two halves are of the same moment.
        key = (
            certificates
            if source.private_key == source.certificate
            else credentials.read_bytes(source.private_key, environ=environ)
        )
        passphrase = (
            credentials.read(source.private_key_passphrase, environ=environ)
            if source.private_key_passphrase
            else None
        )
    except CredentialError as error:
        _unreadable(str(error))
    seal = hashlib.blake2b(key=seal_key)
    for part in (certificates, key, passphrase.reveal().encode() if passphrase else b""):
        seal.update(len(part).to_bytes(8, "big") + part)
    return _Material(certificates, key, passphrase, seal.digest())


def _checked(source: ClientIdentity, material: _Material) -> Identity:
    blocks = _blocks(material.certificate, source.certificate)
    chain = tuple(_certificates(blocks, source.certificate))
    if source.private_key != source.certificate:
        blocks = _blocks(material.key, source.private_key)
    block = _key_block(blocks, source.private_key)
    key_pem = _key_pem(block, source.private_key)
    passphrase = material.passphrase if _is_encrypted(block) else None
    public_key = _public_key_digest(key_pem, passphrase, block, source.private_key)
    _check_pair(public_key, chain, source, block)
    return Identity(
        chain=chain,
        key_pem=key_pem,
        passphrase=passphrase,
        digest=_digest(chain, public_key, encrypted=passphrase is not None),
    )


def _check_pair(
    public_key: str, chain: Sequence[Certificate], source: ClientIdentity, block: _Block
) -> None:
    matching = [
        number
        for number, facts in enumerate(chain, start=1)
        if facts.subject_public_key_info_sha256 == public_key
    ]
    if not matching:
        many = "the certificate" if len(chain) == 1 else f"any of the {len(chain)} certificates"
        _mismatch(
            f"{source.private_key}: the key in block {block.number} does not belong to {many} "
            f"in {source.certificate}"
        )
    if matching[0] != 1:
        _mismatch(
            f"{source.certificate}: the key belongs to certificate {matching[0]} of {len(chain)}; "
            "put that one first and its issuers after it"
        )


def _digest(chain: Sequence[Certificate], public_key: str, *, encrypted: bool) -> str:
    parts = [facts.fingerprint_sha256 for facts in chain]
    return hashlib.sha256(" ".join([*parts, public_key, str(encrypted)]).encode()).hexdigest()


def _blocks(content: bytes, source: FromFile | FromCredential) -> list[_Block]:
    """Cut a PEM file into its blocks; text around them is explanatory (RFC 7468 §2)."""
    blocks: list[_Block] = []
    label: str | None = None
    lines: list[bytes] = []
    for raw in content.splitlines():
        line = raw.strip()
        number = len(blocks) + 1
        # Most lines are of the content, and for them this is quicker than to match them twice.
        mark = line if line.startswith(b"-----") else b""
        if begin := _BEGIN.fullmatch(mark):
            if label is not None:
                _unreadable(_no_end(source, number, label))
            label, lines = begin[1].decode("ascii"), []
        elif end := _END.fullmatch(mark):
            if label is None or end[1].decode("ascii") != label:
                _unreadable(f"{source}: PEM block {number} ends as something that did not begin")
            blocks.append(_Block(number, label, tuple(lines)))
            label = None
        elif label is not None:
            lines.append(line)
    if label is not None:
        _unreadable(_no_end(source, len(blocks) + 1, label))
    if not blocks:
        _unreadable(f"{source} {_what_it_is_instead(content)}")
    return blocks


def _no_end(source: FromFile | FromCredential, number: int, label: str) -> str:
    return f"{source}: PEM block {number} ({label}) has no end; the file may be half written"


def _what_it_is_instead(content: bytes) -> str:
    """Say what a file without a PEM block is, and how to convert it."""
    if not content.strip():
        return "is empty"
    if any(mark in content for mark in _UTF_16_BEGIN):
        return "is UTF-16 text; save it as UTF-8 or ASCII"
    if _PKCS12.match(content):
        return (
            "is in PKCS#12 format, PEM is needed: `openssl pkcs12 -in FILE -out NEW.pem -noenc`, "
            "then leave the leaf first"
        )
    if _is_der_certificate(content):
        return (
            "is a certificate in DER format, PEM is needed: "
            "`openssl x509 -inform DER -in FILE -out NEW.pem`"
        )
    if _is_der_key(content):
        return (
            "is a private key in DER format, PEM is needed: "
            "`openssl pkey -inform DER -in FILE -out NEW.pem`"
        )
    return "has no PEM block (-----BEGIN …)"


def _is_der_certificate(content: bytes) -> bool:
    try:
        certificate.read(content)
    except _LIBRARY_ERRORS:
        return False
    return True


def _is_der_key(content: bytes) -> bool:
    try:
        serialization.load_der_private_key(content, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return True  # the library's way to say that it is encrypted
    except _LIBRARY_ERRORS:
        return False
    return True


def _foreign(source: FromFile | FromCredential, block: _Block) -> NoReturn:
    hint = _FOREIGN_LABELS.get(block.label, "only certificates and private keys belong here")
    _unreadable(f"{source}: PEM block {block.number} is a {block.label}: {hint}")


def _certificates(blocks: Sequence[_Block], source: FromFile | FromCredential) -> list[Certificate]:
    found = []
    for block in blocks:
        if block.label in _CERTIFICATE_LABELS:
            found.append(_certificate(block, source))
        elif block.label not in _KEY_LABELS | _IGNORED_LABELS:
            _foreign(source, block)
    if not found:
        _unreadable(f"{source} has no certificate in its {len(blocks)} PEM block(s)")
    return found


def _certificate(block: _Block, source: FromFile | FromCredential) -> Certificate:
    try:
        der = base64.b64decode(b"".join(block.lines), validate=True)
    except binascii.Error:
        _unreadable(f"{source}: PEM block {block.number} (certificate) is not base64")
    try:
        return certificate.read(der)
    except _LIBRARY_ERRORS:
        _unreadable(f"{source}: PEM block {block.number} is not a certificate inside")


def _key_block(blocks: Sequence[_Block], source: FromFile | FromCredential) -> _Block:
    keys = [block for block in blocks if block.label in _KEY_LABELS]
    for block in blocks:
        if block.label not in _KEY_LABELS | _IGNORED_LABELS | _CERTIFICATE_LABELS:
            _foreign(source, block)
    if not keys:
        _unreadable(f"{source} has no private key in its {len(blocks)} PEM block(s)")
    if len(keys) > 1:
        numbers = ", ".join(str(block.number) for block in keys)
        _unreadable(f"{source} has {len(keys)} private keys (PEM blocks {numbers}); leave one")
    return keys[0]


def _is_encrypted(block: _Block) -> bool:
    return block.label == "ENCRYPTED PRIVATE KEY" or any(
        line.startswith(b"Proc-Type:") and b"ENCRYPTED" in line for line in block.lines
    )


def _key_pem(block: _Block, source: FromFile | FromCredential) -> Secret:
    """Write the block again with RFC 7468's line length, keeping RFC 1421's headers."""
    headers = [line for line in block.lines if b":" in line]
    body = b"".join(line for line in block.lines if b":" not in line)
    try:
        text = body.decode("ascii")
        head = [line.decode("ascii") for line in headers]
    except UnicodeDecodeError:
        _unreadable(f"{source}: PEM block {block.number} (private key) is not base64")
    wrapped = [text[start : start + 64] for start in range(0, len(text), 64)]
    lines = [f"-----BEGIN {block.label}-----", *head, *([""] if head else []), *wrapped]
    return Secret("\n".join([*lines, f"-----END {block.label}-----", ""]))


def _public_key_digest(
    key_pem: Secret, passphrase: Secret | None, block: _Block, source: FromFile | FromCredential
) -> str:
    where = f"{source}: PEM block {block.number}"
    if _is_encrypted(block) and passphrase is None:
        _unreadable(f"{where} is an encrypted private key; give `private_key_passphrase`")
    try:
        # Checking an RSA key takes 36 ms; OpenSSL does it again when it loads the key for use.
        key = serialization.load_pem_private_key(
            key_pem.reveal().encode("ascii"),
            passphrase.reveal().encode() if passphrase else None,
            unsafe_skip_rsa_key_validation=True,
        )
        encoded = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except UnsupportedAlgorithm:
        _unreadable(f"{where} is a private key of a kind that is not supported")
    except _LIBRARY_ERRORS:
        if passphrase is not None:
            _unreadable(f"{where}: the passphrase does not open the private key, or it is damaged")
        _unreadable(f"{where} is not a private key inside")
    return hashlib.sha256(encoded).hexdigest()
