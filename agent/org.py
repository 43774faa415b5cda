"""What the operator asked for: an Org and the parts it is made of, already checked by `config`.

Everything here is frozen and plain; a secret appears only as the place where it is kept. Paths are
text: this module reads nothing. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agent.maintenance import Planned


def authority(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class FromFile:
    """A secret in a file; one trailing line end does not belong to it."""

    path: str

    def __str__(self) -> str:
        """Say where, never what."""
        return f"file {self.path}"


@dataclass(frozen=True, slots=True)
class FromVariable:
    """A secret in an environment variable."""

    name: str

    def __str__(self) -> str:
        """Say where, never what."""
        return f"environment variable {self.name}"


@dataclass(frozen=True, slots=True)
class FromCredential:
    """A secret that systemd passes as a credential (LoadCredential=, systemd.exec(5))."""

    name: str

    def __str__(self) -> str:
        """Say where, never what."""
        return f"systemd credential {self.name}"


SecretSource = FromFile | FromVariable | FromCredential


class IpFamily(StrEnum):
    """Which addresses of a host to use; `any` tries all, in the resolver's order."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class TlsVersion(StrEnum):
    """The TLS versions that the agent speaks."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class SessionCall(StrEnum):
    """The one call that proves the session works."""

    GET_USER_INFO = "getUserInfo"
    GET_SERVER_TIMESTAMP = "getServerTimestamp"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT (RFC 9110 §9.3.6)."""

    host: str
    port: int
    username: str | None = None
    password: SecretSource | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the door is and how to get there.

    `host` and `port` name the door; `connect_to` replaces only the address that is dialled;
    `server_name` replaces only the name in SNI and in the check of the server's certificate.
    """

    host: str
    port: int = 8443
    server_name: str | None = None
    connect_to: tuple[str, int] | None = None
    proxy: Proxy | None = None
    ip_family: IpFamily = IpFamily.ANY
    tls_min: TlsVersion = TlsVersion.TLS_1_2
    tls_max: TlsVersion = TlsVersion.TLS_1_3

    @property
    def verified_name(self) -> str:
        """The name that the server's certificate must carry."""
        return self.server_name or self.host

    @property
    def authority(self) -> str:
        """The value of the HTTP Host header (RFC 9110 §7.2)."""
        whole = authority(self.host, self.port)
        return whole.removesuffix(":443") if self.port == 443 else whole  # noqa: PLR2004 - RFC 9110 §4.2.2


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Where our certificate chain (leaf first) and its private key are kept."""

    certificate: FromFile | FromCredential
    private_key: FromFile | FromCredential
    private_key_passphrase: SecretSource | None = None


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """What we trust for the server: the system's store, the operator's file, or both."""

    system: bool = True
    file: str | None = None


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """What SOAP login() needs; the token, if any, is appended to the password."""

    username: str
    password: SecretSource
    security_token: SecretSource | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What to do with a session once we have one."""

    call: SessionCall = SessionCall.GET_USER_INFO
    soql: str = "SELECT Id FROM Organization"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """The opt-in probe: the session without the certificate, on the ordinary port, must fail."""

    port: int = 443
    interval: float = 86400.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each stage may take, and one deadline for the whole cycle.

    `client_auth` is the least time to wait for the server's verdict on our certificate after a
    TLS 1.3 handshake; on slow links three times the connect time is allowed instead.
    """

    dns: float = 5.0
    proxy: float = 10.0
    tcp: float = 10.0
    tls: float = 10.0
    client_auth: float = 0.25
    http: float = 15.0
    cycle: float = 45.0


class RevocationCheck(StrEnum):
    """Whom to ask whether a certificate was revoked: nobody, the CRL, or the OCSP responder too."""

    OFF = "off"
    CRL = "crl"
    CRL_AND_OCSP = "crl+ocsp"


@dataclass(frozen=True, slots=True)
class Suppression:
    """The operator's word that a finding is known: it is kept apart until `until`.

    `fingerprint` None means whatever certificate it is about.
    """

    rule: str
    until: datetime
    reason: str
    fingerprint: str | None = None

    def covers(self, rule: str, fingerprint: str | None, now: datetime) -> bool:
        """Tell whether a finding of `rule` is meant and the time is not over."""
        return self.rule == rule and self.fingerprint in (None, fingerprint) and now < self.until


@dataclass(frozen=True, slots=True)
class Policy:
    """How the operator wants what was seen to be judged.

    `profile` names one of the policy tables' profiles. The notice periods are for leaf
    certificates, in seconds; None leaves the rule's own. `accepted_roots` is a PEM file of the
    roots that the server is known to accept, `uploaded` one of the client certificates that were
    uploaded to the org.
    """

    profile: str = "salesforce"
    expiry_warning: float | None = None
    expiry_critical: float | None = None
    accepted_roots: str | None = None
    uploaded: str | None = None
    revocation: RevocationCheck = RevocationCheck.OFF
    suppressions: tuple[Suppression, ...] = ()


@dataclass(frozen=True, slots=True)
class Org:
    """One Salesforce org to watch. `name` is its stable name in metrics.

    `login` is None when only the door is watched; `refusal_interval` None switches that probe off.
    """

    name: str
    endpoint: Endpoint
    identity: ClientIdentity
    api_version: str = "64.0"
    trust: TrustAnchors = field(default_factory=TrustAnchors)
    login: PasswordCredentials | None = None
    organization_id: str | None = None
    session: Session = field(default_factory=Session)
    refusal_interval: float | None = 3600.0
    enforcement: Enforcement | None = None
    interval: float = 60.0
    login_interval: float = 300.0
    logins_per_hour: int = 30
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    maintenance: tuple[Planned, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def soap_path(self) -> str:
        """The partner endpoint; the version stands without a "v" (salesforce: /u/v51.0 is 7.0)."""
        return f"/services/Soap/u/{self.api_version}"
