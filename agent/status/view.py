"""A snapshot → what is said about an org: its state, why, since when, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from agent.org import authority
from agent.policy.rule import Severity, Side
from agent.reason import Reason
from agent.result import Probe, SkipCause
from agent.state import Snapshot, Standing

_DOCUMENTATION: Final = "https://github.com/sfmtls-agent/sfmtls-agent/blob/main/docs"
# So many intervals without a cycle are no accident any more.
_MISSED: Final = 3
# What counts only later than that is listed, and no reason to look at an org today.
_AHEAD: Final = timedelta(days=90)


class State(StrEnum):
    """How an org is, the worst first."""

    FAILING = "failing"
    UNCLEAR = "unclear"
    STALE = "stale"
    WARNING = "warning"
    MAINTENANCE = "maintenance"
    WAITING = "waiting"
    WELL = "well"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _RANKS[self.value]

    @property
    def meaning(self) -> str:
        """What it means, in a sentence."""
        return _MEANINGS[self.value]

    @property
    def symbol(self) -> str:
        """A sign that says it without colour."""
        return _SYMBOLS[self.value]

    @property
    def alarming(self) -> bool:
        """Somebody ought to look now."""
        return self in {State.FAILING, State.UNCLEAR, State.STALE}


_RANKS: Final = {state.value: rank for rank, state in enumerate(State)}
_MEANINGS: Final = {
    "failing": "Something that must work does not.",
    "unclear": "The last look proves neither success nor failure.",
    "stale": "Nobody has looked for longer than three intervals.",
    "warning": "Everything works, and will not for long, or not safely.",
    "maintenance": "It is in planned maintenance: nobody logs in, and what fails is expected.",
    "waiting": "It has not been probed yet since the agent started.",
    "well": "Everything that was tried works.",
}
_SYMBOLS: Final = {
    "failing": "✕",
    "unclear": "?",
    "stale": "⏸",
    "warning": "!",
    "maintenance": "⚒",
    "waiting": "…",
    "well": "✓",
}

PROBES: Final[Mapping[Probe, str]] = MappingProxyType(
    {
        Probe.HANDSHAKE: "the door",
        Probe.LOGIN: "the login",
        Probe.SESSION: "the session",
        Probe.REFUSAL: "refusing a client without certificate",
        Probe.ENFORCEMENT: "refusing a session without certificate",
    }
)
"""What each probe is about, in words."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """The certificate that runs out first, of those that were presented last."""

    side: Side
    not_after: datetime

    def left(self, now: datetime) -> timedelta:
        """How much time there is; negative when it is over."""
        return self.not_after - now


@dataclass(frozen=True, slots=True)
class Logins:
    """How the logins of the org's user stand; each is None while it is not known."""

    stopped: bool | None
    left: int | None
    of: int


@dataclass(frozen=True, slots=True)
class View:
    """What is said about an org in one line.

    `summary` is a sentence; `code` the label behind it, of a reason, a rule or None. `since` is
    when that began, where it is known.
    """

    name: str
    host: str
    labels: Mapping[str, str]
    state: State
    summary: str
    code: str | None
    since: datetime | None
    last_cycle: datetime | None
    expiry: Expiry | None
    critical: int
    warnings: int
    infos: int
    logins: Logins | None
    maintenance: bool

    @property
    def found(self) -> str:
        """All that a filter looks at, in lower case."""
        labels = " ".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{self.name} {self.host} {labels} {self.code or ''} {self.summary}".casefold()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do next, and why. `confidence` is None where there is no doubt about it."""

    subject: str
    code: str
    because: str
    confidence: str | None
    remedy: str
    link: str


def view(snapshot: Snapshot, now: datetime) -> View:
    """Return what is said about an org at this moment."""
    org = snapshot.org
    said = _said(snapshot, now)
    counts = snapshot.judgement.count()
    return View(
        name=org.name,
        host=authority(org.endpoint.host, org.endpoint.port),
        labels=org.labels,
        state=said.state,
        summary=said.summary,
        code=said.code,
        since=said.since,
        last_cycle=last_cycle(snapshot),
        expiry=_expiry(snapshot),
        critical=counts[Severity.CRITICAL],
        warnings=counts[Severity.WARNING],
        infos=counts[Severity.INFO],
        logins=_logins(snapshot),
        maintenance=snapshot.maintenance is not None,
    )


def last_cycle(snapshot: Snapshot) -> datetime | None:
    """Return when the last cycle began, None when there was none."""
    return snapshot.probes[Probe.HANDSHAKE].last_run


def is_stale(snapshot: Snapshot, now: datetime) -> bool:
    """Tell whether nobody has looked for too long, after somebody had."""
    seen = last_cycle(snapshot)
    patience = timedelta(seconds=_MISSED * snapshot.org.interval + snapshot.org.timeouts.cycle)
    return seen is not None and now - seen > patience


def steps(snapshot: Snapshot) -> tuple[Step, ...]:
    """Return what to do next, the most urgent first."""
    return tuple(_steps(snapshot))


def runbook(reason: Reason) -> str:
    """Return the address of the page that says more about a reason."""
    return f"{_DOCUMENTATION}/runbooks/reasons/{reason.value}.md"


def rule_page(name: str) -> str:
    """Return the address of the page that says more about a rule."""
    return f"{_DOCUMENTATION}/rules.md#{name}"


@dataclass(frozen=True, slots=True)
class _Said:
    state: State
    summary: str
    code: str | None = None
    since: datetime | None = None


def _said(snapshot: Snapshot, now: datetime) -> _Said:
    """Return the worst that can be said."""
    return (
        _of_probes(snapshot, Standing.FAILURE, State.FAILING)
        or _of_the_breaker(snapshot)
        or _of_time(snapshot, now)
        or _of_probes(snapshot, Standing.UNDETERMINED, State.UNCLEAR)
        or _of_the_policy(snapshot, now)
        or _of_maintenance(snapshot)
        or _Said(State.WELL, State.WELL.meaning, None, snapshot.probes[Probe.HANDSHAKE].since)
    )


def _of_probes(snapshot: Snapshot, standing: Standing, state: State) -> _Said | None:
    for probe, status in snapshot.probes.items():
        reason = status.reason
        if status.standing is standing and reason is not None:
            told = reason.meaning
            if probe in {Probe.REFUSAL, Probe.ENFORCEMENT}:
                told = f"Tried {PROBES[probe]}: {told}"
            # What fails in planned maintenance is expected.
            shown = state if snapshot.maintenance is None else State.MAINTENANCE
            return _Said(shown, told, reason.value, status.since)
    return None


def _of_the_breaker(snapshot: Snapshot) -> _Said | None:
    if not snapshot.breaker_open:
        return None
    sentence = "Logins are stopped after an earlier refusal."
    return _Said(State.FAILING, sentence, SkipCause.BREAKER_OPEN.value)


def _of_time(snapshot: Snapshot, now: datetime) -> _Said | None:
    if last_cycle(snapshot) is None:
        return _Said(State.WAITING, State.WAITING.meaning)
    if is_stale(snapshot, now):
        return _Said(State.STALE, State.STALE.meaning, None, last_cycle(snapshot))
    return None


def _of_the_policy(snapshot: Snapshot, now: datetime) -> _Said | None:
    # They come worst first.
    grave = (
        v
        for v in snapshot.violations
        if v.severity is not Severity.INFO and (v.bites_from is None or v.bites_from < now + _AHEAD)
    )
    worst = next(grave, None)
    if worst is None:
        return None
    since = worst.bites_from
    began = since if since is not None and since <= now else None
    return _Said(State.WARNING, worst.message, worst.rule, began)


def _of_maintenance(snapshot: Snapshot) -> _Said | None:
    window = snapshot.maintenance
    if window is None:
        return None
    told = window.reason or State.MAINTENANCE.meaning
    return _Said(State.MAINTENANCE, told, None, window.begins)


def _expiry(snapshot: Snapshot) -> Expiry | None:
    ends = (
        Expiry(side, certificate.not_after)
        for side, chain in snapshot.chains.items()
        for certificate in chain.certificates
    )
    return min(ends, key=lambda expiry: expiry.not_after, default=None)


def _logins(snapshot: Snapshot) -> Logins | None:
    if snapshot.org.login is None:
        return None
    return Logins(snapshot.breaker_open, snapshot.budget_remaining, snapshot.org.logins_per_hour)


def _steps(snapshot: Snapshot) -> Iterator[Step]:
    told: set[str] = set()
    for probe, status in snapshot.probes.items():
        reason, cause = status.reason, status.cause
        if reason is None:
            continue
        told.add(cause.remedy if cause else reason.remedy)
        yield Step(
            subject=PROBES[probe],
            code=reason.value,
            because=cause.sentence if cause else reason.meaning,
            confidence=cause.confidence.value if cause else None,
            remedy=cause.remedy if cause else reason.remedy,
            link=runbook(reason),
        )
    if snapshot.breaker_open:
        yield Step(
            subject=PROBES[Probe.LOGIN],
            code=SkipCause.BREAKER_OPEN.value,
            because="No login is sent, since another refused one could lock the user out.",
            confidence=None,
            remedy=(
                "Mend the cause first; then give the agent the new secret, or let one login "
                "through with `sfmtls-agent breaker reset`."
            ),
            link=f"{_DOCUMENTATION}/runbooks/alerts/SfmtlsLoginBreakerOpen.md",
        )
    for violation in snapshot.violations:
        # What two of them would have done is done once.
        if violation.severity is Severity.INFO or violation.remedy in told:
            continue
        told.add(violation.remedy)
        yield Step(
            subject=f"{violation.side} certificate" if violation.side else "the org",
            code=violation.rule,
            because=violation.message,
            confidence=None,
            remedy=violation.remedy,
            link=rule_page(violation.rule),
        )
