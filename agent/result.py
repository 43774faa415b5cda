"""What was seen: the values that a probe returns and everything to the right of it reads.

Nothing here judges and nothing here does I/O. There is one type for each situation, so that a
reader who matches on them cannot forget one. Durations are seconds, moments are aware and UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from agent.certificate import Certificate
from agent.org import Org
from agent.reason import Reason


class Stage(StrEnum):
    """What takes time, in the order in which it happens."""

    DNS = "dns"
    PROXY = "proxy"
    TCP = "tcp"
    TLS = "tls"
    CLIENT_AUTH = "client_auth"
    DOOR = "door"
    LOGIN = "login"
    SESSION = "session"


class Probe(StrEnum):
    """What can succeed or fail."""

    HANDSHAKE = "handshake"
    LOGIN = "login"
    SESSION = "session"
    REFUSAL = "refusal"
    ENFORCEMENT = "enforcement"


def probes_of(org: Org) -> tuple[Probe, ...]:
    """Return the probes that an org is configured for, in the order in which they are shown."""
    configured = {
        Probe.HANDSHAKE: True,
        Probe.LOGIN: org.login is not None,
        Probe.SESSION: org.login is not None,
        Probe.REFUSAL: org.refusal_interval is not None,
        Probe.ENFORCEMENT: org.login is not None and org.enforcement is not None,
    }
    return tuple(probe for probe, wanted in configured.items() if wanted)


class ClientAuth(StrEnum):
    """The server's verdict on our certificate, as far as it let us know."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SOFT_REJECTED = "soft_rejected"
    NOT_REQUESTED = "not_requested"
    UNCONFIRMED = "unconfirmed"
    NOT_REACHED = "not_reached"


class SkipCause(StrEnum):
    """Why a probe was not run although it is configured."""

    NOT_DUE = "not_due"
    NO_VERDICT = "no_verdict"  # the door did not open, so nothing may follow
    BREAKER_OPEN = "breaker_open"
    BUDGET = "budget"
    IN_FLIGHT = "in_flight"  # another org is logging in as the same user
    MAINTENANCE = "maintenance"
    OVERLAP = "overlap"  # the previous cycle still ran
    NO_TIME = "no_time"  # too little of the cycle's time was left
    STATE_UNAVAILABLE = "state_unavailable"  # the attempt could not be recorded first


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that was tried and failed. `detail` is for people: log and JSON, never a label."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        """Say the reason and, if there is one, the detail."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class Success:
    """The probe found what it hopes for."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Undetermined:
    """The probe ran, but what it saw proves neither success nor failure."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The probe is configured but did not run in this cycle."""

    cause: SkipCause
    detail: str = ""


Outcome = Success | Failure | Undetermined | Skipped


@dataclass(frozen=True, slots=True)
class HandshakeOutcome:
    """What one TLS handshake showed, kept as far as it got.

    `tls_version` is "TLSv1.2" or "TLSv1.3"; `alert` is the alert's RFC 8446 §6 name, or its
    number as text when it has none; `acceptable_issuers` are the names that the server's
    CertificateRequest listed (RFC 4514). `client_auth` is the verdict of the TLS layer alone:
    ACCEPTED here still needs the door request.
    """

    client_auth: ClientAuth
    tls_version: str | None = None
    cipher_suite: str | None = None
    server_chain: tuple[Certificate, ...] = ()
    certificate_requested: bool = False
    certificate_sent: bool = False
    acceptable_issuers: tuple[str, ...] = ()
    session_ticket: bool = False
    alert: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ApiUsage:
    """The org's API requests in its current window, from LimitInfoHeader."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login that gave a usable session; the session itself is not in here."""

    user_id: str
    organization_id: str
    sandbox: bool | None = None
    session_seconds_valid: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A login that gave no usable session. `code` is Salesforce's own word, if it said one."""

    failure: Failure
    code: str | None = None


LoginOutcome = LoggedIn | Refused


# Nobody can say that the login works while these keep it from being tried.
_TROUBLE: Final = frozenset({SkipCause.BREAKER_OPEN, SkipCause.STATE_UNAVAILABLE})


def went_wrong(outcome: Outcome) -> bool:
    """Tell whether a probe failed, or an earlier failure kept it from being tried."""
    return isinstance(outcome, Failure) or (
        isinstance(outcome, Skipped) and outcome.cause in _TROUBLE
    )


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Everything that one cycle of one org saw.

    `stages` holds the seconds of every stage that began, the failing one included, in order.
    `outcomes` holds one entry for each configured probe. `address` is the address that was used
    ("192.0.2.1:8443"), for the log and the JSON only. `clock_skew` is their clock minus ours in
    seconds, from the Date header (RFC 9110 §6.6.1).
    """

    org: str
    started_at: datetime
    outcomes: Mapping[Probe, Outcome]
    stages: Mapping[Stage, float] = field(default_factory=dict)
    handshake: HandshakeOutcome | None = None
    client_auth: ClientAuth = ClientAuth.NOT_REACHED
    address: str | None = None
    client_chain: tuple[Certificate, ...] = ()
    login: LoginOutcome | None = None
    api_usage: ApiUsage | None = None
    clock_skew: float | None = None

    @property
    def server_chain(self) -> tuple[Certificate, ...]:
        """The server's certificates as it sent them, leaf first; empty when it sent none."""
        return self.handshake.server_chain if self.handshake else ()

    @property
    def healthy(self) -> bool:
        """No configured probe failed, and no login was stopped by an earlier failure."""
        return not any(went_wrong(outcome) for outcome in self.outcomes.values())

    def __repr__(self) -> str:
        """Say in one line how it went."""
        took = sum(self.stages.values()) * 1000
        failed = ", ".join(
            f"{probe} failed, {outcome}"
            for probe, outcome in self.outcomes.items()
            if isinstance(outcome, Failure)
        )
        return (
            f"<ProbeResult {self.org}: {failed or 'all well'}, {self.client_auth}, {took:.0f} ms>"
        )
