#!/usr/bin/env python3
"""Makes agent/data/chrome_roots.tsv and .pem again from Debian's chromium package.

No package ships Chrome's list of roots as a file, but every chromium has it compiled in: an array
of `ChromeRootCertInfo` (chromium, net/cert/internal/trust_store_chrome.h) in a relocatable ELF
file, where each pointer is a relocation. Usage:

    apt-get download chromium
    .venv/bin/python scripts/make_chrome_roots.py chromium_*_amd64.deb agent/data
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_BINARY: Final = "./usr/lib/chromium/chromium"
# System V ABI, ELF-64 object file format.
_LOAD, _RELA, _RELATIVE = 1, 4, 8
_SEQUENCE: Final = b"\x30\x82"
# struct ChromeRootCertInfo: span of the certificate, span of the constraints, three flags, span of
# the trust anchor identifier, optional number of the root.
_INFO_SIZE: Final = 64
_SPAN_SIZE: Final = 16
_INFO: Final = struct.Struct("<QQQQQQQIB3x")
# struct ChromeRootCertConstraints begins with an optional base::Time (sct_not_after), another one
# (sct_all_after) and an optional string (min_version); the rest does not matter here.
_CONSTRAINTS_SIZE: Final = 160
_CONSTRAINTS: Final = struct.Struct("<qB7x16xQQB7x")
_TIME_ZERO: Final = datetime(1601, 1, 1, tzinfo=UTC)  # base::Time counts microseconds from here
_LEAST_ROOTS: Final = 50

_COLUMNS: Final = (
    "crs_root_id",
    "sha256_cert",
    "sha256_spki",
    "ski_hex",
    "sha256_subject_der",
    "subject_rfc4514",
    "not_before",
    "not_after",
    "key",
    "sct_not_after",
    "min_chrome_version",
    "trust_anchor_id_hex",
    "in_certifi",
)


@dataclass(frozen=True, slots=True)
class Root:
    """One entry of the list."""

    certificate: x509.Certificate
    number: int
    sct_not_after: datetime | None
    min_version: str
    trust_anchor_identifier: bytes


class Image:
    """An ELF-64 file as it stands in memory, relative to address 0, relocations applied."""

    def __init__(self, content: bytes) -> None:
        if content[:5] != b"\x7fELF\x02":
            raise SystemExit("not a 64-bit ELF file")
        self._content = content
        self._segments = [
            (address, offset, size)
            for kind, _, offset, address, _, size, _, _ in self._headers(32, 54, "<IIQQQQQQ")
            if kind == _LOAD
        ]
        self.pointers = dict(self._relocations())

    def _headers(self, table_at: int, size_at: int, layout: str) -> Iterator[tuple[int, ...]]:
        (table,) = struct.unpack_from("<Q", self._content, table_at)
        size, count = struct.unpack_from("<HH", self._content, size_at)
        return (
            struct.unpack_from(layout, self._content, table + number * size)
            for number in range(count)
        )

    def _relocations(self) -> Iterator[tuple[int, int]]:
        for _, kind, _, _, offset, size, _, _, _, _ in self._headers(40, 58, "<IIQQQQIIQQ"):
            if kind == _RELA:
                table = self._content[offset : offset + size]
                for place, info, addend in struct.iter_unpack("<QQq", table):
                    if info == _RELATIVE:
                        yield place, addend

    def read(self, address: int, size: int) -> bytes:
        """Return bytes at an address; empty when nothing is loaded there."""
        for start, offset, length in self._segments:
            if start <= address and address + size <= start + length:
                begin = offset + address - start
                return self._content[begin : begin + size]
        return b""

    def unpack(self, layout: struct.Struct, address: int) -> tuple[int, ...]:
        """Return a structure at an address, with its pointers relocated."""
        raw = bytearray(self.read(address, layout.size))
        for place in range(address, address + layout.size, 8):
            if place in self.pointers:
                struct.pack_into("<q", raw, place - address, self.pointers[place])
        return layout.unpack(raw)


def roots_of(image: Image) -> list[Root]:
    """Return the self-signed entries of the longest array that looks like the list."""
    spans = {place for place, target in image.pointers.items() if _is_entry(image, place, target)}
    # Other lists (of qualified certificates, say) are bare spans side by side.
    places = {place for place in spans if place + _SPAN_SIZE not in spans}
    arrays = [_array(places, place) for place in places if place - _INFO_SIZE not in places]
    longest = max(arrays, key=len, default=[])
    if len(longest) < _LEAST_ROOTS:
        raise SystemExit("no list of roots found: the structure may have changed")
    entries = [_root(image, place) for place in longest]
    return [root for root in entries if root.certificate.issuer == root.certificate.subject]


def _is_entry(image: Image, place: int, target: int) -> bool:
    """Tell whether a pointer leads to a certificate whose length stands beside it."""
    start = image.read(target, 4)
    if start[:2] != _SEQUENCE:
        return False
    (length,) = struct.unpack("<Q", image.read(place + 8, 8) or bytes(8))
    return length == int.from_bytes(start[2:4]) + 4


def _array(places: set[int], first: int) -> list[int]:
    found = [first]
    while found[-1] + _INFO_SIZE in places:
        found.append(found[-1] + _INFO_SIZE)
    return found


def _root(image: Image, place: int) -> Root:
    der, size, constraints, count, _, identifier, length, number, _ = image.unpack(_INFO, place)
    limit, version = None, ""
    for index in range(count):
        moment, limited, text, text_size, versioned = image.unpack(
            _CONSTRAINTS, constraints + index * _CONSTRAINTS_SIZE
        )
        if limited:
            limit = _TIME_ZERO + timedelta(microseconds=moment)
            version = image.read(text, text_size).decode() if versioned else ""
    return Root(
        certificate=x509.load_der_x509_certificate(image.read(der, size)),
        number=number,
        sct_not_after=limit,
        min_version=version,
        trust_anchor_identifier=image.read(identifier, length) if length else b"",
    )


def row_of(root: Root, in_certifi: frozenset[bytes]) -> Mapping[str, str]:
    """Return one line of the table, by column."""
    found = root.certificate
    fingerprint = found.fingerprint(hashes.SHA256())
    key_info = found.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    limit = root.sct_not_after
    return {
        "crs_root_id": str(root.number),
        "sha256_cert": fingerprint.hex(),
        "sha256_spki": hashlib.sha256(key_info).hexdigest(),
        "ski_hex": _key_identifier(found),
        "sha256_subject_der": hashlib.sha256(found.subject.public_bytes()).hexdigest(),
        "subject_rfc4514": found.subject.rfc4514_string(),
        "not_before": f"{found.not_valid_before_utc:%Y-%m-%d}",
        "not_after": f"{found.not_valid_after_utc:%Y-%m-%d}",
        "key": _key(found),
        "sct_not_after": f"{limit:%Y-%m-%dT%H:%M:%SZ}" if limit else "",
        "min_chrome_version": root.min_version,
        "trust_anchor_id_hex": root.trust_anchor_identifier.hex(),
        "in_certifi": "yes" if fingerprint in in_certifi else "no",
    }


def _key_identifier(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return ""
    return extension.value.digest.hex()


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return f"EC-{key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else "other"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the package was named by whoever runs this


def write(package: Path, directory: Path) -> int:
    """Write both files and return the number of roots."""
    name, version = _run("dpkg-deb", "-W", str(package)).split()[:2]
    with tempfile.TemporaryDirectory() as temporary:
        _run("dpkg-deb", "-x", str(package), temporary)
        binary = Path(temporary) / _BINARY
        as_of = datetime.fromtimestamp(binary.stat().st_mtime, UTC)
        roots = sorted(roots_of(Image(binary.read_bytes())), key=lambda root: root.number)
    mozilla = x509.load_pem_x509_certificates(Path(certifi.where()).read_bytes())
    in_certifi = frozenset(found.fingerprint(hashes.SHA256()) for found in mozilla)
    lines = [
        "# Chrome Root Store: the roots that Chrome trusts for TLS",
        f"# source: Debian {name} {version}, compiled-in list; certifi {certifi.__version__}",
        f"# as of: {as_of:%Y-%m-%d}",
        "\t".join(_COLUMNS),
        *("\t".join(row_of(root, in_certifi).values()) for root in roots),
    ]
    (directory / "chrome_roots.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pem = (
        f"# {root.certificate.subject.rfc4514_string()}\n".encode()
        + root.certificate.public_bytes(serialization.Encoding.PEM)
        for root in roots
    )
    (directory / "chrome_roots.pem").write_bytes(b"".join(pem))
    return len(roots)


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the .deb file")
    parser.add_argument("directory", type=Path, help="where the files go")
    arguments = parser.parse_args()
    # One old root has a serial number against RFC 5280 §4.1.2.2.
    warnings.simplefilter("ignore")
    count = write(arguments.package, arguments.directory)
    sys.stdout.write(f"{count} roots written to {arguments.directory}\n")


if __name__ == "__main__":
    main()
