"""The web-config file of Prometheus' exporters → Protection: who may come in, and how.

Its keys are exporter-toolkit's (docs/web-configuration.md there). What the agent cannot do, and
what would protect nothing although it looks as if it did, is refused by name rather than passed
over. `tls` knows certificates; nothing here knows a connection or a request.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

from agent import credentials
from agent.config import ConfigError, Problem, WebSettings, duration
from agent.credentials import Secret
from agent.org import FromFile
from agent.web.address import is_loopback
from agent.web.document import Document, Section, choice, count, flag, text
from agent.web.headers import HEADERS
from agent.web.tls import (
    CIPHER_SUITES,
    CLIENT_AUTH_TYPES,
    CURVES,
    VERSIONS,
    MaterialError,
    TlsServer,
    server_context,
)

# bcrypt's own alphabet. The version is 2b, or what others called the same before (crypt(5)).
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_LOWEST_COST: Final = 4
# Twice the work a step: 10 takes some 70 ms, 14 a second; each attempt of a stranger costs it.
_HIGHEST_COST: Final = 14

_SECTIONS: Final = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS_KEYS: Final = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
_INLINE: Final[Mapping[str, str]] = {
    "cert": "name a file in cert_file",
    "key": "name a file in key_file",
    "client_ca": "name a file in client_ca_file",
}
_UNPROVED: Final = "nobody would check the certificate; use RequireAndVerifyClientCert"
_REFUSED_CLIENT_AUTH_TYPES: Final[Mapping[str, str]] = {
    "RequestClientCert": _UNPROVED,
    "RequireAnyClientCert": _UNPROVED,
    "RequireClientCert": _UNPROVED,
}
_LOWEST_VERSION: Final = ssl.TLSVersion.TLSv1_2
_HIGHEST_VERSION: Final = ssl.TLSVersion.TLSv1_3
_VERSION: Final = choice(VERSIONS, dict.fromkeys(("TLS10", "TLS11"), "it is deprecated (RFC 8996)"))
_REFUSED_SUITES: Final[Mapping[str, str]] = dict.fromkeys(
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    "those of TLS 1.3 cannot be chosen, all are offered; leave it out",
)
# Of a header that has none, any text is a value.
_HEADER_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests one client may make: `burst` at once, then one in `interval` seconds."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class Protection:
    """Who may come in, and how. `users` are bcrypt hashes by name; without any, all may.

    `context` is what `server` says, ready for use; without it there is no TLS.
    """

    server: TlsServer | None = None
    context: ssl.SSLContext | None = None
    allowed_sans: frozenset[str] = frozenset()
    users: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)


def read(path: Path) -> Protection:
    """Return what the file and those that it names say; ConfigError tells all that is wrong."""
    document = Document(path)
    root = document.read()
    if root is None:
        raise document.error()
    encrypted = _tls(root, path.parent)
    users = root.take_pairs("basic_auth_users", _user, "users")
    headers = _headers(root)
    rate_limit = _rate_limit(root)
    root.end(_SECTIONS)
    if document.problems:
        raise document.error()
    return replace(encrypted, users=users, headers=headers, rate_limit=rate_limit)


def examine(settings: WebSettings) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Return what keeps the endpoint from being served as configured, and what is unwise."""
    path = settings.config_file
    if path is None:
        return (), ()
    try:
        protection = read(path)
    except ConfigError as error:
        return error.problems, ()
    warnings = []
    local = settings.listen_host == "localhost" or is_loopback(settings.listen_host)
    if protection.users and protection.context is None and not local:
        warnings.append(f"{path}: without tls_server_config passwords travel in the clear")
    secret = [str(path)] if protection.users else []
    if protection.server is not None:
        secret.append(protection.server.key_file)
    warnings += [
        f"{file} can be read by every user of this machine"
        for file in secret
        if credentials.is_exposed(FromFile(file), environ={})
    ]
    return (), tuple(warnings)


def _tls(root: Section, base: Path) -> Protection:
    """Return what the section about TLS says, and nothing of the rest."""
    section = root.section("tls_server_config")
    if section is None:
        return Protection()

    def path(node: yaml.Node) -> str:
        return str(base / text(node))

    asked = section.take("client_auth_type", choice(CLIENT_AUTH_TYPES, _REFUSED_CLIENT_AUTH_TYPES))
    sans = section.take_list("client_allowed_sans", _alternative_name)
    curves = section.take_list("curve_preferences", choice(CURVES))
    server = TlsServer(
        cert_file=section.take("cert_file", path) or "",
        key_file=section.take("key_file", path) or "",
        client_auth=asked or ssl.CERT_NONE,
        client_ca_file=section.take("client_ca_file", path),
        min_version=section.take("min_version", _VERSION) or _LOWEST_VERSION,
        max_version=section.take("max_version", _VERSION) or _HIGHEST_VERSION,
        cipher_suites=section.take_list("cipher_suites", choice(CIPHER_SUITES, _REFUSED_SUITES)),
        prefer_server_cipher_suites=section.take("prefer_server_cipher_suites", flag) is not False,
        curve=curves[0] if curves else None,
    )
    for key in ("cert_file", "key_file"):
        if key not in section:
            section.note(key, "is needed; without it there is no TLS")
    _check_clients(section, asked)
    if server.min_version > server.max_version:
        section.note("min_version", "is higher than max_version")
    if curves and len(curves) > 1:
        section.note("curve_preferences", "more than one cannot be set; name one, or leave it out")
    for key, why in _INLINE.items():
        section.refuse(key, why)
    section.end(_TLS_KEYS)
    return Protection(server, _context(section, server), frozenset(sans or ()))


def _check_clients(section: Section, asked: ssl.VerifyMode | None) -> None:
    if asked is None and "client_auth_type" in section:
        return  # what was meant is not known
    if asked:
        if "client_ca_file" not in section:
            section.note("client_ca_file", "is needed: who issues the certificates of clients")
    elif "client_ca_file" in section:
        section.note("client_ca_file", "is for a client_auth_type; no client would be asked")
    if "client_allowed_sans" in section and asked is not ssl.CERT_REQUIRED:
        message = "needs client_auth_type: RequireAndVerifyClientCert; a client may else show none"
        section.note("client_allowed_sans", message)


def _context(section: Section, server: TlsServer) -> ssl.SSLContext | None:
    if section.wrong:
        return None
    try:
        return server_context(server)
    except MaterialError as error:
        section.note(error.key, str(error))
    return None


def _alternative_name(node: yaml.Node) -> str:
    name = text(node)
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _user(name: str, node: yaml.Node) -> Secret:
    # RFC 7617 §2: neither the name nor the password holds control characters, the name no colon.
    if not name or ":" in name or not name.isprintable():
        raise ValueError("the name of a user is a text without colons")
    found = _HASH.fullmatch(text(node))
    if found is None:
        raise ValueError("must be a bcrypt hash: `htpasswd -nBC 10 USER` makes one")
    if not _LOWEST_COST <= int(found[1]) <= _HIGHEST_COST:
        raise ValueError(f"has a cost that is not between {_LOWEST_COST} and {_HIGHEST_COST}")
    return Secret(found[0])


def _headers(root: Section) -> Mapping[str, str]:
    section = root.section("http_server_config")
    if section is None:
        return HEADERS
    if section.take("http2", flag):
        section.note("http2", "is not supported: the endpoint speaks HTTP/1.1; say false")
    given: dict[str, str] = {}
    headers = section.section("headers")
    if headers is not None:
        for name, values in _HEADER_VALUES.items():
            read = choice({value: value for value in values}) if values else _header_value
            value = headers.take(name, read)
            if value is not None:
                given[name.lower()] = value
        headers.end(tuple(_HEADER_VALUES))
    section.end(("http2", "headers"))
    return MappingProxyType({**HEADERS, **given})


def _header_value(node: yaml.Node) -> str:
    value = text(node)
    if not value.isascii():
        raise ValueError("must be ASCII")
    return value.strip()


def _rate_limit(root: Section) -> RateLimit | None:
    section = root.section("rate_limit")
    if section is None:
        return None
    interval, burst = section.take("interval", _interval), section.take("burst", count)
    for key in ("interval", "burst"):
        if key not in section:
            section.note(key, "is needed")
    section.end(("interval", "burst"))
    return RateLimit(interval, burst) if interval and burst else None


def _interval(node: yaml.Node) -> float:
    """Return seconds; 0 means that there is no limit."""
    given = text(node)
    if re.fullmatch(r"0(ms|s|m|h)?", given):
        return 0.0
    if re.fullmatch(r"[0-9.]+", given):
        raise ValueError('needs a unit: "1s", "500ms"')
    return duration(given)
