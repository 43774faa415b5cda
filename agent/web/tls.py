"""What the endpoint presents and whom it lets in, as an SSLContext made from files."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from agent import credentials, identity
from agent.credentials import CredentialError
from agent.identity import IdentityError
from agent.org import ClientIdentity, FromFile

# The names of IANA's registry, which Go uses too, and OpenSSL's: those of TLS 1.2 with forward
# secrecy. Python cannot choose among the five of TLS 1.3.
CIPHER_SUITES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    }
)
CURVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CurveP256": "prime256v1",
        "CurveP384": "secp384r1",
        "CurveP521": "secp521r1",
        "X25519": "X25519",
    }
)
VERSIONS: Final[Mapping[str, ssl.TLSVersion]] = MappingProxyType(
    {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
)
# Go's names of what is asked of a client, as far as it proves something.
CLIENT_AUTH_TYPES: Final[Mapping[str, ssl.VerifyMode]] = MappingProxyType(
    {
        "NoClientCert": ssl.CERT_NONE,
        "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
        "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
    }
)


class MaterialError(Exception):
    """A file cannot be used; `key` is the key that names it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class TlsServer:
    """How the endpoint speaks TLS. Ciphers and curve are OpenSSL's names, None what it prefers."""

    cert_file: str
    key_file: str
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: str | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[str, ...] | None = None
    prefer_server_cipher_suites: bool = True
    curve: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is made from."""
        named = (self.cert_file, self.key_file, self.client_ca_file)
        return tuple(file for file in named if file is not None)


def server_context(tls: TlsServer) -> ssl.SSLContext:
    """Return a context for connections that begin now; MaterialError names the key at fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = tls.min_version
    context.maximum_version = tls.max_version
    context.set_alpn_protocols(["http/1.1"])
    # A client that renegotiates makes us work; OpenSSL never renews the key of its tickets, so
    # that who gets it reads all that was said since the start.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.cipher_suites is not None:
        context.set_ciphers(":".join(tls.cipher_suites))
    if tls.curve is not None:
        context.set_ecdh_curve(tls.curve)
    _present(context, tls)
    context.verify_mode = tls.client_auth
    if tls.client_ca_file is not None:
        _trust(context, tls.client_ca_file)
    return context


def _present(context: ssl.SSLContext, tls: TlsServer) -> None:
    certificate, key = FromFile(tls.cert_file), FromFile(tls.key_file)
    with contextlib.suppress(CredentialError):  # which is told in more words below
        if b"ENCRYPTED" in credentials.read_bytes(key, environ={}):
            message = f"{key} is encrypted, and the format has no place for its passphrase"
            raise MaterialError("key_file", message)
    try:
        identity.read(ClientIdentity(certificate, key), environ={})
        context.load_cert_chain(tls.cert_file, tls.key_file, _no_passphrase)
    except IdentityError as error:
        detail = error.failure.detail or str(error.failure)
        about_key = certificate != key and detail.startswith(str(key))
        raise MaterialError("key_file" if about_key else "cert_file", detail) from None
    except (OSError, ssl.SSLError) as error:
        word = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise MaterialError("cert_file", f"OpenSSL refuses the pair: {word}") from None


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal.
    return ""


def _trust(context: ssl.SSLContext, file: str) -> None:
    source = FromFile(file)
    try:
        content = credentials.read_bytes(source, environ={})
    except CredentialError as error:
        raise MaterialError("client_ca_file", str(error)) from None
    try:
        # What is not ASCII stands between the certificates (RFC 7468 §2).
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        message = f"{source} has no certificate in PEM format, or a damaged one"
        raise MaterialError("client_ca_file", message) from None
    # Whoever names an intermediate trusts what it issued, as in Go.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
