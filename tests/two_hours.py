"""Two hours of agents as Prometheus would have scraped them: OpenMetrics text with moments.

The samples are the agent's own exposition, minute by minute, of orgs that run into every trouble
there is an alert for; one stays healthy. `promtool tsdb create-blocks-from openmetrics` makes a
database of it, so that rules and dashboards have a past without waiting for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from boards import (
    ALL_WELL,
    DEADLINES,
    HANDSHAKE,
    NOON,
    NOT_DUE,
    STAGES,
    board,
    certificate,
    chain,
    failed,
    org,
    result,
    violation,
)
from prometheus_client import CollectorRegistry, ProcessCollector

from agent.component import Component
from agent.diagnosis import by_probe
from agent.maintenance import Window
from agent.metrics import Exposition, Instruments
from agent.org import Endpoint, Enforcement, Suppression
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Severity, Side
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    Outcome,
    Probe,
    SkipCause,
    Skipped,
    Stage,
    Success,
)
from agent.state import Board

END: Final = NOON
MINUTES: Final = 120
START: Final = END - timedelta(minutes=MINUTES)
HALFWAY: Final = MINUTES // 2
SCRAPED_EVERY: Final = 2  # minutes; more would say no more, and take its time
JOB: Final = "sfmtls-agent"
# The first watches the orgs, the second has trouble of its own and orgs that it cannot reach, the
# third is dead from halfway on, and the last is no agent.
WATCHING: Final = "agent-1:10843"
TROUBLED: Final = "agent-2:10843"
DEAD: Final = "agent-3:10843"
STRANGER: Final = "agent-4:10843"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with an org from a minute on, and for which alerts it is enough at the end.

    `outcomes` replace those of the probes that are due, `changes` are of the ProbeResult and
    `judged` are arguments of Board.record. `every` so many minutes it shows; a `stopped` org has
    no cycles any more; `agent` is who watches it.
    """

    alerts: frozenset[str] = frozenset()
    after: int = HALFWAY
    every: int = 1
    outcomes: Mapping[Probe, Outcome] = field(default_factory=dict)
    changes: Mapping[str, object] = field(default_factory=dict)
    judged: Mapping[str, object] = field(default_factory=dict)
    breaker_open: bool = False
    budget: int = 18
    identity_fails: bool = False
    window: Window | None = None
    stopped: bool = False
    agent: str = WATCHING


def trouble(*alerts: str, **what) -> Trouble:
    return Trouble(alerts=frozenset(f"Sfmtls{name}" for name in alerts), **what)


_BURNT: Final = ("DoorErrorBudgetBurn", "DoorErrorBudgetBurnSlow")
_LOGINS_BURNT: Final = ("LoginErrorBudgetBurn", "LoginErrorBudgetBurnSlow")


def shut(
    *alerts: str,
    auth: ClientAuth,
    reason: Reason,
    alert: str | None = None,
    burnt: tuple[str, ...] = _BURNT,
    **more,
):
    """Return the trouble with a door that does not open."""
    seen = replace(HANDSHAKE, client_auth=auth, alert=alert, failure=Failure(reason))
    changes = {"client_auth": auth, "handshake": seen, "api_usage": None, "clock_skew": None}
    if reason is Reason.TCP_TIMEOUT:
        changes |= {"handshake": None, "stages": {Stage.DNS: 0.002, Stage.TCP: 10.0}}
    changes |= more.pop("changes", {})
    return trouble(*alerts, *burnt, outcomes=failed(reason), changes=changes, **more)


def refused(*alerts: str, reason: Reason, **more) -> Trouble:
    """Return the trouble with a login that fails."""
    outcomes = {Probe.LOGIN: Failure(reason), Probe.SESSION: Skipped(SkipCause.NO_VERDICT)}
    return trouble(*alerts, outcomes=outcomes, **more)


def finding(*alerts: str, rule: str, severity=Severity.WARNING, side=Side.CLIENT, **more):
    """Return the trouble with something that the policy found."""
    judged = {"violations": [violation(rule, severity, side)]}
    return trouble(*alerts, judged=judged, **more)


def ours(*alerts: str, certificates) -> Trouble:
    return trouble(*alerts, after=0, changes={"client_chain": certificates})


def theirs(*alerts: str, certificates) -> Trouble:
    seen = replace(HANDSHAKE, server_chain=certificates)
    return trouble(*alerts, after=0, changes={"handshake": seen})


def ending(*alerts: str, deadline: str, days: float) -> Trouble:
    moments = {deadline: END + timedelta(days=days)}
    return trouble(*alerts, after=0, judged={"deadlines": moments})


def ends_first(leaf: str):
    """Return a chain whose intermediate ends before its leaf."""
    whole = chain(leaf, days=300)
    return (whole[0], certificate("CN=Issuing CA", "CN=Policy CA", days=280), whole[2])


# Certificates begin 100 days before the end, so that many of their days are gone.
_GONE: Final = 100
_EXCUSED: Final = Suppressed(
    violation("eku_dual"), Suppression("eku_dual", END + timedelta(days=90), "until the renewal")
)
_CUT_OFF: Final = shut(
    "DoorUnreachable", auth=ClientAuth.NOT_REACHED, reason=Reason.TCP_TIMEOUT, agent=TROUBLED
)
TROUBLES: Final[Mapping[str, Trouble]] = {
    "healthy": trouble(),
    # --- the door
    "rejected": shut(
        "DoorRejected",
        auth=ClientAuth.REJECTED,
        reason=Reason.CLIENT_CERT_UNKNOWN_CA,
        alert="unknown_ca",
    ),
    "soft-rejected": shut(
        "DoorSoftRejected", auth=ClientAuth.SOFT_REJECTED, reason=Reason.CLIENT_CERT_PAGE
    ),
    "not-requested": shut(
        "DoorNotRequested", auth=ClientAuth.NOT_REQUESTED, reason=Reason.CLIENT_NOT_REQUESTED
    ),
    "unconfirmed": shut("DoorUnconfirmed", auth=ClientAuth.UNCONFIRMED, reason=Reason.TLS_EOF),
    "unreachable": shut("DoorUnreachable", auth=ClientAuth.NOT_REACHED, reason=Reason.TCP_TIMEOUT),
    "impostor": shut(
        "ServerNotTrusted", auth=ClientAuth.NOT_REACHED, reason=Reason.SERVER_UNTRUSTED
    ),
    "flaky": shut(auth=ClientAuth.UNCONFIRMED, reason=Reason.TLS_EOF, every=4),
    "maintained": shut(
        "DoorUnconfirmed",
        "Maintenance",
        auth=ClientAuth.UNCONFIRMED,
        reason=Reason.MAINTENANCE,
        # What burnt during it is no ticket afterwards.
        burnt=("DoorErrorBudgetBurn",),
        window=Window(END),
    ),
    "open-door": trouble(
        "DoorDoesNotRefuse",
        outcomes={Probe.REFUSAL: Failure(Reason.DOOR_OPEN_WITHOUT_CERTIFICATE)},
    ),
    "not-enforced": trouble(
        "EnforcementOff", outcomes={Probe.ENFORCEMENT: Failure(Reason.ENFORCEMENT_OFF)}
    ),
    # --- behind it
    "wrong-password": refused("LoginBreakerOpen", reason=Reason.INVALID_LOGIN, breaker_open=True),
    "password-expired": refused(
        "LoginBreakerOpen", "PasswordExpired", reason=Reason.PASSWORD_EXPIRED, breaker_open=True
    ),
    "not-now": refused("LoginFailing", *_LOGINS_BURNT, reason=Reason.LOGIN_RESTRICTED),
    "wrong-org": refused("LoginFailing", "WrongOrg", *_LOGINS_BURNT, reason=Reason.WRONG_ORG),
    "not-uploaded": trouble(
        "SessionRejected", outcomes={Probe.SESSION: Failure(Reason.MUTUAL_AUTH_FAILED)}
    ),
    "few-logins": trouble("LoginBudgetLow", budget=1),
    "thirsty": trouble("ApiUsageHigh", changes={"api_usage": ApiUsage(93_000, 100_000)}),
    "skewed": trouble("ClockSkew", changes={"clock_skew": 400.0}),
    # --- certificates
    "expiring": ours("ClientCertificateExpiring", certificates=chain("CN=agent", days=_GONE + 25)),
    "expiring-soon": ours(
        "ClientCertificateExpiring",
        "ClientCertificateExpiringSoon",
        certificates=chain("CN=agent", days=_GONE + 4),
    ),
    "expired": shut(
        "ClientCertificateExpiring",
        "ClientCertificateExpiringSoon",
        "ClientCertificateExpired",
        "DoorRejected",
        auth=ClientAuth.REJECTED,
        reason=Reason.CLIENT_CERT_EXPIRED,
        alert="certificate_expired",
        changes={"client_chain": chain("CN=agent", days=_GONE - HALFWAY / 1440)},
    ),
    "ends-first": ours("ClientIntermediateEndsFirst", certificates=ends_first("CN=agent")),
    "server-expiring": theirs(
        "ServerCertificateExpiring", certificates=chain("CN=server", days=_GONE + 25)
    ),
    "server-expiring-soon": theirs(
        "ServerCertificateExpiring",
        "ServerCertificateExpiringSoon",
        certificates=chain("CN=server", days=_GONE + 4),
    ),
    "server-expired": theirs(
        "ServerCertificateExpiring",
        "ServerCertificateExpiringSoon",
        "ServerCertificateExpired",
        certificates=chain("CN=server", days=_GONE - 1),
    ),
    "server-ends-first": theirs(
        "ServerIntermediateEndsFirst", certificates=ends_first("CN=server")
    ),
    # --- the policy
    "violating": finding(
        "PolicyViolation", rule="root_not_in_cacerts", severity=Severity.CRITICAL, side=Side.SERVER
    ),
    "improvable": finding(rule="san_missing", severity=Severity.INFO),
    "renewal-broken": finding(
        "IdentityReloadFailing", rule="client_file_changed", identity_fails=True
    ),
    "excused": trouble(judged={"suppressed": [_EXCUSED], "not_evaluated": ["revoked"]}),
    "retiring": ending("SoapLoginRetirement", deadline="soap_login_retirement", days=20),
    "old-version": ending("ApiVersionRemoval", deadline="api_version_removal", days=20),
    # --- the agent's own
    "stuck": trouble("CycleMissing", "LoginMissing", stopped=True),
    "cut-off": _CUT_OFF,
    "cut-off-too": _CUT_OFF,
}


def text() -> str:
    """Return all of it, ready for promtool."""
    agents = (_watching(), _troubled(), _dead(), _stranger())
    return "".join([*(part for agent in agents for part in agent), "# EOF\n"])


def _moments() -> Iterator[tuple[int, datetime]]:
    for minute in range(MINUTES + 1):
        yield minute, START + timedelta(minutes=minute)


# --- what is scraped


def _of(agent: str) -> tuple[str, ...]:
    return tuple(name for name, wrong in TROUBLES.items() if wrong.agent == agent)


def _board(agent: str) -> Board:
    enforced = {"not-enforced": Enforcement()}
    return board(
        *(
            org(
                name,
                endpoint=Endpoint(f"{name}.my.salesforce.com"),
                labels=_labels(number),
                enforcement=enforced.get(name),
            )
            for number, name in enumerate(_of(agent))
        )
    )


def _watching() -> Iterator[str]:
    made = _board(WATCHING)
    instruments = _instruments()
    exposition = Exposition(made, instruments)
    for minute, now in _moments():
        if minute == HALFWAY:
            instruments.config_loaded(now)
        for name in _of(WATCHING):
            instruments.cycle_began(0.002 * (1 + minute % 3))
            _cycle(made, instruments, name, minute, now)
            instruments.cycle_ended()
        # The next cycle runs while the metrics are fetched.
        instruments.cycle_began(0.002)
        yield from _scraped(WATCHING, exposition, now)
        instruments.cycle_ended()


def _troubled() -> Iterator[str]:
    made = _board(TROUBLED)
    instruments = _instruments()
    exposition = Exposition(made, instruments)
    for minute, now in _moments():
        if minute >= HALFWAY:
            instruments.config_refused()
            instruments.internal_error(Component.POLICY)
        for name in _of(TROUBLED):
            _cycle(made, instruments, name, minute, now)
        yield from _scraped(TROUBLED, exposition, now)


def _dead() -> Iterator[str]:
    exposition = Exposition(Board(), _instruments())
    for minute, now in _moments():
        if minute < HALFWAY:
            yield from _scraped(DEAD, exposition, now)
        else:
            yield _about_the_scrape(DEAD, now, up=0, samples=0)


def _stranger() -> Iterator[str]:
    for _, now in _moments():
        yield _about_the_scrape(STRANGER, now, up=1, samples=0)


def _instruments() -> Instruments:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # as the daemon does; this process stands in for it
    instruments = Instruments(registry)
    instruments.config_loaded(START - timedelta(days=1))
    return instruments


def _labels(number: int) -> dict[str, str]:
    return {"team": ("integration", "sales")[number % 2], "tier": "1"}


def _cycle(made: Board, instruments: Instruments, name: str, minute: int, now: datetime) -> None:
    wrong = TROUBLES[name]
    began = minute == wrong.after
    if minute < wrong.after or minute % wrong.every:
        wrong = Trouble()
    if wrong.stopped:
        return
    made.in_maintenance(name, wrong.window)
    # The trouble may have ended the cycle early; else it shows in what is due.
    due = _due(name, minute)
    outcomes = {
        probe: outcome if isinstance(outcome, Skipped) else wrong.outcomes.get(probe, outcome)
        for probe, outcome in due.items()
    }
    if Probe.HANDSHAKE in wrong.outcomes:
        outcomes = dict(wrong.outcomes)
    elif wrong.breaker_open and not began and not minute % 5:
        outcomes[Probe.LOGIN] = Skipped(SkipCause.BREAKER_OPEN)
    usual = {
        "stages": {stage: seconds * (1 + minute % 3) for stage, seconds in STAGES.items()},
        "client_chain": chain(f"CN={name}"),
        "outcomes": outcomes,
    }
    if name == "healthy" and minute > HALFWAY:
        usual["client_chain"] = chain(f"CN={name}", not_before=END - timedelta(days=1), days=365)
    seen = result(name, now, **(usual | wrong.changes))
    told = Judgement(
        tuple(wrong.judged.get("violations", ())), tuple(wrong.judged.get("not_evaluated", ()))
    )
    judged = {"deadlines": DEADLINES, "causes": by_probe(seen, told)} | wrong.judged
    made.record(seen, **judged)
    made.login_limits(name, wrong.breaker_open, wrong.budget)
    if wrong.identity_fails:
        made.identity_failed(name)
    instruments.stages_took(seen.stages)


def _due(name: str, minute: int) -> dict[Probe, Outcome]:
    """Return the outcomes of a good cycle: logins every five minutes, refusals every hour."""
    outcomes: dict[Probe, Outcome] = dict(NOT_DUE)
    if minute % 5 == 0:
        outcomes |= {probe: ALL_WELL[probe] for probe in (Probe.LOGIN, Probe.SESSION)}
    if minute % 60 == 0:
        outcomes[Probe.REFUSAL] = ALL_WELL[Probe.REFUSAL]
        if name == "not-enforced":
            outcomes[Probe.ENFORCEMENT] = Success()
    return outcomes


# --- what Prometheus makes of it


def _scraped(instance: str, exposition: Exposition, now: datetime) -> Iterator[str]:
    if now.minute % SCRAPED_EVERY:
        return
    # Both formats hold the same samples, and this one is made in less time.
    lines = exposition.render(now, openmetrics=False).decode().split("\n")
    samples = 0
    for line in lines:
        if not line or line.startswith("#"):
            # A database keeps nothing of what the families are.
            continue
        samples += 1
        yield _sample(line, instance, now)
    yield _about_the_scrape(instance, now, up=1, samples=samples)


def _about_the_scrape(instance: str, now: datetime, *, up: int, samples: int) -> str:
    if now.minute % SCRAPED_EVERY:
        return ""
    about = {"up": up, "scrape_samples_scraped": samples, "scrape_duration_seconds": 0.02}
    return "".join(_sample(f"{name} {value}", instance, now) for name, value in about.items())


def _sample(line: str, instance: str, now: datetime) -> str:
    series, _, value = line.rpartition(" ")
    name, _, labels = series.partition("{")
    own = f'job="{JOB}",instance="{instance}"'
    labels = f"{own},{labels}" if labels else f"{own}}}"
    return f"{name}{{{labels} {value} {now.timestamp():.0f}\n"
