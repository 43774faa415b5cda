"""TLS handshake messages → facts: the server's chain, its certificate request, its alerts.

OpenSSL shows every message to a callback, decrypted, also when verification fails later. That is
the one place where the chain can be read as sent, and where a certificate request can be seen.
What cannot be parsed gives no fact; OpenSSL has already judged the message itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from cryptography import x509

from agent import certificate
from agent.certificate import Certificate

# Content types and handshake types: RFC 8446 §5.1 and §4.
ALERT: Final = 21
HANDSHAKE: Final = 22
NEW_SESSION_TICKET: Final = 4
CERTIFICATE: Final = 11
CERTIFICATE_REQUEST: Final = 13

TLS_1_3: Final = 0x0304
VERSION_NAMES: Final = {0x0303: "TLSv1.2", TLS_1_3: "TLSv1.3"}  # as `ssl` spells them
_CERTIFICATE_AUTHORITIES: Final = 47  # RFC 8446 §4.2.4
_HEADER: Final = 4
_CLOSE_NOTIFY: Final = 0
_USER_CANCELED: Final = 90
_FATAL: Final = 2

# RFC 8446 §6, and what older versions also define (RFC 5246 §7.2, RFC 6066 §9).
ALERT_NAMES: Final = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}


def alert_name(message: bytes, version: int) -> str | None:
    """Return the RFC name of an alert that ends the connection, its number if unnamed, or None.

    A TLS 1.2 warning changes nothing and is no verdict; in TLS 1.3 the level means nothing and
    every alert but the two closing ones is fatal (RFC 8446 §6).
    """
    level, description = message[0], message[1]
    if description in {_CLOSE_NOTIFY, _USER_CANCELED}:
        return None
    if version != TLS_1_3 and level != _FATAL:
        return None
    return ALERT_NAMES.get(description, str(description))


# A handshake asks more than once, and the doors of one instance of Salesforce show the same.
@lru_cache(maxsize=64)
def server_chain(message: bytes, version: int) -> tuple[Certificate, ...]:
    """Return the certificates of a Certificate message in the order sent.

    Layouts: RFC 5246 §7.4.2 and RFC 8446 §4.4.2. A certificate that cannot be parsed is left out;
    without the first of them there is no chain, or an authority's would pass for the server's own.
    """
    leaf, *others = [_read(der) for der in _entries(message[_HEADER:], version)] or [None]
    return () if leaf is None else (leaf, *filter(None, others))


def has_certificates(message: bytes, version: int) -> bool:
    """Tell whether a Certificate message carries any; a client may answer with none."""
    return next(_entries(message[_HEADER:], version), None) is not None


# A door sends the same list in every handshake, and Salesforce's doors all do.
@lru_cache(maxsize=64)
def acceptable_issuers(message: bytes, version: int) -> tuple[str, ...]:
    """Return the names a CertificateRequest lists (RFC 5246 §7.4.4, RFC 8446 §4.2.4), RFC 4514."""
    return tuple(text for name in _authorities(message[_HEADER:], version) if (text := _name(name)))


def _entries(body: bytes, version: int) -> Iterator[bytes]:
    if version == TLS_1_3:
        body = _rest(body, 1)
    entries, _ = _vector(body, 3)
    while entries:
        der, entries = _vector(entries, 3)
        if version == TLS_1_3:
            entries = _rest(entries, 2)
        yield der


def _read(der: bytes) -> Certificate | None:
    try:
        return certificate.read(der)
    except ValueError:
        return None


def _authorities(body: bytes, version: int) -> Iterator[bytes]:
    if version == TLS_1_3:
        extensions, _ = _vector(_rest(body, 1), 2)
        names = b""
        while extensions:
            kind, extensions = int.from_bytes(extensions[:2]), extensions[2:]
            value, extensions = _vector(extensions, 2)
            if kind == _CERTIFICATE_AUTHORITIES:
                names, _ = _vector(value, 2)
    else:
        names, _ = _vector(_rest(_rest(body, 1), 2), 2)
    while names:
        name, names = _vector(names, 2)
        yield name


def _vector(data: bytes, length_bytes: int) -> tuple[bytes, bytes]:
    """Split a length-prefixed vector (RFC 8446 §3.4) from what follows it."""
    end = length_bytes + int.from_bytes(data[:length_bytes])
    return data[length_bytes:end], data[end:]


def _rest(data: bytes, length_bytes: int) -> bytes:
    return _vector(data, length_bytes)[1]


def _name(der: bytes) -> str | None:
    # The library reads names only inside something signed, so the name is put into the smallest
    # such thing: an empty revocation list (RFC 5280 §5.1) whose signature nobody checks.
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    this_update = b"\x17\x0d260101000000Z"
    to_be_signed = _sequence(b"\x02\x01\x01" + algorithm + der + this_update)
    try:
        signed = x509.load_der_x509_crl(
            _sequence(to_be_signed + algorithm + b"\x03\x03\x00\x30\x00")
        )
        return certificate.name_text(signed.issuer)
    except ValueError:
        return None


def _sequence(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - X.690 §8.1.3.4: the short form of a length
        return b"\x30" + bytes([size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return b"\x30" + bytes([0x80 | len(length)]) + length + content
