"""The list of keys: their names, types and descriptions, as pydantic models.

A key that is absent is None here; what applies then is said by `org` and `settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent.config.settings import LogFormat, LogLevel
from agent.config.values import (
    LAST_PORT,
    above_the_floor,
    absolute_path,
    at_least_a_second,
    at_least_an_hour,
    credential_name,
    cron_line,
    dialled_address,
    duration,
    file_path,
    host_name,
    id_of_an_organization,
    listen_address,
    moment,
    my_domain,
    one_line,
    printable,
    profile_name,
    proxy_address,
    rule_name,
    served_version,
    sha256_fingerprint,
    tables,
    time_zone,
    trust_file,
    variable_name,
)
from agent.org import (
    FromCredential,
    FromFile,
    FromVariable,
    IpFamily,
    RevocationCheck,
    SecretSource,
    SessionCall,
    TlsVersion,
)


class Key(NamedTuple):
    """A key that may be configured: its table, its name and what it means."""

    table: str
    name: str
    description: str


def keys() -> tuple[Key, ...]:
    """Return every key that can be configured, in the order of the documentation."""
    return tuple(_keys_of("", MainFile))


Duration = Annotated[float, BeforeValidator(duration)]
Interval = Annotated[Duration, AfterValidator(at_least_a_second)]
LoginInterval = Annotated[Duration, AfterValidator(above_the_floor)]
Notice = Annotated[Duration, AfterValidator(at_least_an_hour)]
Text = Annotated[str, AfterValidator(printable)]
FilePath = Annotated[str, AfterValidator(absolute_path)]
TrustFile = Annotated[FilePath, AfterValidator(trust_file)]
Host = Annotated[str, AfterValidator(host_name)]
Port = Annotated[int, Field(ge=1, le=LAST_PORT)]
Choice = Field(strict=False)  # a text is the only way to write a member of an enumeration in TOML


class Table(BaseModel):
    """A TOML table whose keys are all known."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )


class SecretTable(Table):
    """Where a secret is kept: exactly one of three places."""

    file: FilePath | None = Field(default=None, description="A file that holds the secret.")
    env: Annotated[str, AfterValidator(variable_name)] | None = Field(
        default=None, description="An environment variable that holds it."
    )
    credential: Annotated[str, AfterValidator(credential_name)] | None = Field(
        default=None, description="A systemd credential (LoadCredential= in the unit)."
    )

    @model_validator(mode="before")
    @classmethod
    def _not_inline(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
                "a secret does not stand in the configuration: use { file = … }, { env = … } or "
                "{ credential = … }"
            )
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretTable:
        return _only_one(self, "{ file = … }, { env = … } or { credential = … }")

    def source(self) -> SecretSource:
        """Return the place as a value."""
        if self.env is not None:
            return FromVariable(self.env)
        return _source(self)


class MaterialTable(Table):
    """Where a certificate or a private key is kept; a plain text is the path of a file."""

    file: FilePath | None = Field(default=None, description="A PEM file; the same as a plain text.")
    credential: Annotated[str, AfterValidator(credential_name)] | None = Field(
        default=None, description="A systemd credential (LoadCredential= in the unit)."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_text_is_a_path(cls, value: object) -> object:
        if isinstance(value, str):
            return {"file": file_path(value)}
        if not isinstance(value, dict):
            raise ValueError(  # noqa: TRY004 - pydantic collects ValueError only
                "must be the path of a PEM file in quotes, or { credential = … }"
            )
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> MaterialTable:
        return _only_one(self, "{ file = … } or { credential = … }")

    def source(self) -> FromFile | FromCredential:
        """Return the place as a value."""
        return _source(self)


_Place = TypeVar("_Place", SecretTable, MaterialTable)


def _only_one(table: _Place, choices: str) -> _Place:
    given = [name for name in table.model_fields_set if getattr(table, name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(sorted(given))} are given at once; give one: {choices}")
    if not given:
        raise ValueError(f"says no place; give one: {choices}")
    return table


def _source(table: SecretTable | MaterialTable) -> FromFile | FromCredential:
    if table.credential is not None:
        return FromCredential(table.credential)
    return FromFile(table.file or "")


class TrustTable(Table):
    """What is trusted for the server's certificate."""

    system: bool | None = Field(
        default=None, description="Trust the system's store; by default only when no file is given."
    )
    file: TrustFile | None = Field(default=None, description="A PEM file of certificates to trust.")


class TimeoutsTable(Table):
    """How long each stage may take."""

    dns: Duration | None = Field(default=None, description="Looking up the name.")
    proxy: Duration | None = Field(default=None, description="Asking the proxy to connect.")
    tcp: Duration | None = Field(default=None, description="Connecting, all addresses together.")
    tls: Duration | None = Field(default=None, description="The TLS handshake.")
    client_auth: Duration | None = Field(
        default=None,
        description="The least time to wait for the verdict on our certificate after it.",
    )
    http: Duration | None = Field(default=None, description="One HTTP request with its answer.")
    cycle: Duration | None = Field(
        default=None,
        description="All of it; by default three quarters of the interval, at most 45 s.",
    )


class ProxyTable(Table):
    """An HTTP proxy that is asked to CONNECT; HTTPS_PROXY in the environment is ignored."""

    url: Annotated[tuple[str, int], BeforeValidator(proxy_address)] | None = Field(
        default=None, description='Where it is: "http://HOST:PORT".'
    )
    username: Text | None = Field(default=None, description="Its user name, if it wants one.")
    password: SecretTable | None = Field(default=None, description="Its password.")


class SuppressionTable(Table):
    """A finding that the operator knows about; all is needed but the fingerprint."""

    rule: Annotated[str, AfterValidator(rule_name)] | None = Field(
        default=None, description="The rule whose findings are kept apart."
    )
    until: Annotated[datetime, BeforeValidator(moment)] | None = Field(
        default=None, description="When that ends: a date (00:00 UTC) or a date-time with offset."
    )
    reason: Annotated[str, AfterValidator(one_line)] | None = Field(
        default=None, description="Why, for whoever reads it later."
    )
    fingerprint: Annotated[str, AfterValidator(sha256_fingerprint)] | None = Field(
        default=None,
        description="The SHA-256 fingerprint of the certificate that is meant, if it is not any.",
    )


class PolicyTable(Table):
    """How what was seen is judged."""

    profile: Annotated[str, AfterValidator(profile_name)] | None = Field(
        default=None, description="Whose policy counts, such as salesforce or chrome-1.8."
    )
    expiry_warning: Notice | None = Field(
        default=None,
        description="How long before a leaf expires to warn; by default it fits its lifetime.",
    )
    expiry_critical: Notice | None = Field(
        default=None, description="How long before that it is critical; likewise."
    )
    accepted_roots: TrustFile | None = Field(
        default=None,
        description="A PEM file of the roots that the server accepts, as in its cacerts.jsp.",
    )
    uploaded: TrustFile | None = Field(
        default=None,
        description="A PEM file of the client certificates that were uploaded to the org.",
    )
    revocation: Annotated[RevocationCheck, Choice] | None = Field(
        default=None,
        description="Whom to ask about revocation: off, crl or crl+ocsp; the latter two make HTTP "
        "requests to the authorities named in the certificates, directly and not by the proxy.",
    )
    suppress: Annotated[list[SuppressionTable], BeforeValidator(tables)] | None = Field(
        default=None,
        description="Findings that are known, for a time; those of the defaults count too.",
    )


class MaintenanceTable(Table):
    """A time without logins: again and again (cron and duration), or once (until)."""

    cron: Annotated[str, AfterValidator(cron_line)] | None = Field(
        default=None, description="When it begins each time: the five fields of crontab(5)."
    )
    duration: Duration | None = Field(default=None, description="How long it lasts each time.")
    timezone: Annotated[str, AfterValidator(time_zone)] | None = Field(
        default=None, description="The time zone of cron by its IANA name; by default UTC."
    )
    begins: Annotated[datetime, BeforeValidator(moment)] | None = Field(
        default=None,
        alias="from",
        description="When it begins, if it is once; by default it has begun.",
    )
    until: Annotated[datetime, BeforeValidator(moment)] | None = Field(
        default=None, description="When it ends, if it is once: a date-time with offset."
    )
    reason: Annotated[str, AfterValidator(one_line)] | None = Field(
        default=None, description="Why, for whoever reads it later."
    )


class OrgTable(Table):
    """What can be said about an org, in `[orgs.NAME]` or for all of them in `[defaults]`."""

    host: Annotated[Host, AfterValidator(my_domain)] | None = Field(
        default=None, description="The org's My Domain name, such as emea.my.salesforce.com."
    )
    port: Port | None = Field(default=None, description="The port of the mutual TLS door.")
    api_version: Annotated[str, BeforeValidator(served_version)] | None = Field(
        default=None, description='The SOAP API version, without a "v"; login() exists up to 64.0.'
    )
    certificate: MaterialTable | None = Field(
        default=None, description="Our certificate and its intermediates in PEM, leaf first."
    )
    private_key: MaterialTable | None = Field(
        default=None, description="Its private key in PEM; by default in the certificate's file."
    )
    private_key_passphrase: SecretTable | None = Field(
        default=None, description="What opens the private key, if it is encrypted."
    )
    trust: TrustTable | None = Field(
        default=None,
        description="What to trust for the server: the system's store, a file, or both.",
    )
    server_name: Host | None = Field(
        default=None,
        description="The name to send in SNI and to expect in the certificate, if not host.",
    )
    connect_to: Annotated[tuple[str, int | None], BeforeValidator(dialled_address)] | None = Field(
        default=None, description="The address to dial instead of host and port."
    )
    proxy: ProxyTable | None = Field(default=None, description="The HTTP proxy to go through.")
    ip_family: Annotated[IpFamily, Choice] | None = Field(
        default=None, description="Which addresses to use: any, ipv4 or ipv6."
    )
    tls_min: Annotated[TlsVersion, Choice] | None = Field(
        default=None, description="The lowest TLS version to offer: 1.2 or 1.3."
    )
    tls_max: Annotated[TlsVersion, Choice] | None = Field(
        default=None, description="The highest TLS version to offer: 1.2 or 1.3."
    )
    username: Text | None = Field(
        default=None, description="The user to log in as; without one only the door is watched."
    )
    password: SecretTable | None = Field(default=None, description="The user's password.")
    security_token: SecretTable | None = Field(
        default=None, description="The user's security token, if our address is not a trusted one."
    )
    organization_id: Annotated[str, AfterValidator(id_of_an_organization)] | None = Field(
        default=None, description="The organization id that the login must lead to."
    )
    session_call: Annotated[SessionCall, Choice] | None = Field(
        default=None,
        description="What proves the session: getUserInfo, getServerTimestamp or query.",
    )
    soql: Text | None = Field(default=None, description="The query, when session_call is query.")
    labels: dict[str, str] | None = Field(
        default=None, description="Your own labels, shown on sfmtls_org_info only."
    )
    refusal: bool | None = Field(
        default=None, description="Also prove that the door refuses a client without a certificate."
    )
    refusal_interval: Interval | None = Field(default=None, description="How often to prove that.")
    enforcement: bool | None = Field(
        default=None, description="Also prove that the session is useless without the certificate."
    )
    enforcement_port: Port | None = Field(default=None, description="On which port to prove that.")
    enforcement_interval: Interval | None = Field(
        default=None, description="How often to prove that."
    )
    policy: PolicyTable | None = Field(default=None, description="How what was seen is judged.")
    maintenance: Annotated[list[MaintenanceTable], BeforeValidator(tables)] | None = Field(
        default=None,
        description="Times in which nobody logs in and handshakes go on; those of the defaults "
        "count too.",
    )
    interval: Interval | None = Field(default=None, description="How often to run a cycle.")
    login_interval: LoginInterval | None = Field(
        default=None, description="How often to log in; at least 60 s."
    )
    logins_per_hour: Annotated[int, Field(ge=1, le=3600)] | None = Field(
        default=None, description="The most logins an hour, whatever happens."
    )
    timeouts: TimeoutsTable | None = Field(
        default=None, description="How long each stage may take."
    )


class AgentTable(Table):
    """What concerns the agent as a whole."""

    interval: Interval | None = Field(
        default=None, description="How often to run a cycle of each org."
    )
    login_interval: LoginInterval | None = Field(
        default=None, description="How often to log in to each org; at least 60 s."
    )
    timeouts: TimeoutsTable | None = Field(
        default=None, description="How long each stage may take."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="The most cycles at a time."
    )
    state_directory: FilePath | None = Field(
        default=None,
        description="Where to keep what must survive a restart; by default $STATE_DIRECTORY.",
    )
    log_level: Annotated[LogLevel, Choice] | None = Field(
        default=None, description="What to log: debug, info, warning or error."
    )
    log_format: Annotated[LogFormat, Choice] | None = Field(
        default=None, description="How to log: auto, json, logfmt or console."
    )
    resolver_threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="The most name look-ups at a time."
    )
    breaker_hold: Duration | None = Field(
        default=None,
        description="How long logins stop after a credential fault; doubles each time.",
    )
    breaker_hold_max: Duration | None = Field(default=None, description="The longest such stop.")


class WebTable(Table):
    """The endpoint that Prometheus scrapes."""

    listen: Annotated[tuple[str, int], BeforeValidator(listen_address)] | None = Field(
        default=None,
        description='Where to listen: "HOST:PORT", "[IPV6]:PORT" or ":PORT" for everywhere.',
    )
    lifecycle: bool | None = Field(
        default=None, description="Allow POST /-/reload, and probing on demand."
    )
    config_file: FilePath | None = Field(
        default=None,
        description="A web-config file: TLS, client certificates and passwords of the endpoint.",
    )


class IncludedFile(Table):
    """A file that another one includes: orgs and nothing else."""

    orgs: dict[str, OrgTable] | None = Field(
        default=None, description="The orgs to watch, by name."
    )


class MainFile(Table):
    """The file that the agent is started with."""

    include: list[Text] | None = Field(
        default=None,
        description="More files with [orgs.NAME] tables, relative to this one; globs allowed.",
    )
    agent: AgentTable | None = Field(default=None, description="The agent as a whole.")
    web: WebTable | None = Field(default=None, description="The endpoint that Prometheus scrapes.")
    defaults: OrgTable | None = Field(
        default=None, description="What all orgs share unless they differ."
    )
    orgs: dict[str, OrgTable] | None = Field(
        default=None, description="The orgs to watch, by name."
    )


def tables_in(annotation: object) -> Iterator[type[Table]]:
    """Yield the models of tables that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for part in get_args(annotation):
        yield from tables_in(part)


def _keys_of(table: str, model: type[Table]) -> Iterator[Key]:
    for name, info in model.model_fields.items():
        yield Key(table, info.alias or name, info.description or "")
        nested = next(tables_in(info.annotation), None)
        if nested is not None:
            path = f"{table}.{name}" if table else name
            yield from _keys_of(f"{path}.NAME" if name == "orgs" else path, nested)


def given_in(table: Table) -> dict[str, Any]:
    """Return what the table says, by key; what it leaves to others is not in there."""
    named = {name: getattr(table, name) for name in table.model_fields_set}
    return {name: value for name, value in named.items() if value is not None}
