"""The families of one org, each a function of its Snapshot.

The decorator holds name and labels, the docstring is the help, so nothing is written twice. To add
a family: one function here. Nothing here reads a clock: what ages yields a Countdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from prometheus_client.core import Metric

from agent.certificate import Certificate
from agent.chain import role
from agent.login import METHODS
from agent.maintenance import Window
from agent.metrics.family import ALWAYS, FROM_ZERO, Family, Kind, empty
from agent.org import Org
from agent.policy import Suppressed
from agent.policy.rule import Severity, Side, Violation
from agent.result import ApiUsage, ClientAuth, Failure, Probe, Stage, Success, probes_of
from agent.state import ProbeStatus, SeenChain, Snapshot, Standing

INFO_VALUE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Countdown:
    """A value that ages: the time until `end` in units of `unit`, negative after it."""

    end: datetime
    unit: timedelta

    def at(self, now: datetime) -> float:
        """Return the value as of `now`."""
        return (self.end - now) / self.unit


_Sample = tuple[tuple[str, ...], float]
_AgingSample = tuple[tuple[str, ...], Countdown]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgFamily(Family):
    """A family of one org; its values may be countdowns.

    `part` is all of the snapshot that its samples are a function of: where that is as it was, so
    are they.
    """

    part: Callable[[Snapshot], object]
    samples: Callable[[Snapshot], Iterable[_Sample | _AgingSample]]

    def labelled(self, org: Org) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of an org's labels, and the values of those that are the operator's.

        `org` and the values of a sample come before these.
        """
        names = ("org", *self.labels)
        if not self.open_labels:
            return names, ()
        # Our own labels win: a dashboard joins on them.
        own = sorted(org.labels.keys() - set(names))
        return (*names, *own), tuple(_info_value(org.labels[name]) for name in own)

    def of(self, snapshot: Snapshot, now: datetime) -> Metric:
        """Return this family with the samples of one org."""
        org = snapshot.org
        names, own = self.labelled(org)
        metric = empty(self, names)
        for values, value in self.samples(snapshot):
            as_of_now = value.at(now) if isinstance(value, Countdown) else value
            metric.add_metric((org.name, *values, *own), as_of_now)
        return metric


_Probes = Mapping[Probe, ProbeStatus]
_REGISTERED: Final[list[OrgFamily]] = []
_Part = TypeVar("_Part")


def _family(
    name: str,
    kind: Kind,
    labels: tuple[str, ...],
    *,
    of: Callable[[Snapshot], _Part],
    emitted: str,
    open_labels: bool = False,
) -> Callable[[Callable[[_Part], Iterable[_Sample | _AgingSample]]], None]:
    """Make a family of a function of a part of a snapshot; its docstring is the help."""

    def register(samples: Callable[[_Part], Iterable[_Sample | _AgingSample]]) -> None:
        _register(
            OrgFamily(
                name=name,
                kind=kind,
                labels=labels,
                help=_sentence(samples.__doc__),
                emitted=emitted,
                open_labels=open_labels,
                part=of,
                samples=lambda snapshot: samples(of(snapshot)),
            )
        )

    return register


def _register(family: OrgFamily) -> None:
    if any(family.name == other.name for other in _REGISTERED):
        raise ValueError(f"there are two families named {family.name}")
    _REGISTERED.append(family)


def _sentence(docstring: str | None) -> str:
    if not docstring:
        raise ValueError("a family's function says in its docstring what the metric means")
    return " ".join(docstring.split())


def _info_value(text: str) -> str:
    """Return `text` fit for an info label: printable, at most INFO_VALUE_LENGTH characters."""
    if len(text) > INFO_VALUE_LENGTH:
        text = text[: INFO_VALUE_LENGTH - 1] + "…"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


# The parts that several families are made of; they are compared once for all of them.


def _the_org(snapshot: Snapshot) -> Org:
    return snapshot.org


def _the_probes(snapshot: Snapshot) -> _Probes:
    return snapshot.probes


def _the_violations(snapshot: Snapshot) -> Sequence[Violation]:
    return snapshot.violations


def _the_api_usage(snapshot: Snapshot) -> ApiUsage | None:
    return snapshot.api_usage


# --- one org: what it is

ONCE_RUN: Final = "once the probe has run"


@_family(
    "sfmtls_org_info",
    Kind.GAUGE,
    ("host", "port", "api_version", "login_method"),
    of=_the_org,
    emitted=ALWAYS,
    open_labels=True,
)
def _org_info(org: Org) -> Iterator[_Sample]:
    """Facts of the org's configuration and the operator's own labels; to be joined on `org`."""
    login_method = "none" if org.login is None else METHODS[type(org.login)].name
    endpoint = org.endpoint
    values = (endpoint.host, str(endpoint.port), org.api_version, login_method)
    yield tuple(_info_value(value) for value in values), 1


# --- one org: its probes


@_family(
    "sfmtls_probe_success",
    Kind.GAUGE,
    ("probe",),
    of=_the_probes,
    emitted="unless the last run was undetermined or there was none",
)
def _probe_success(probes: _Probes) -> Iterator[_Sample]:
    """Whether the last run of the probe succeeded (1) or failed (0)."""
    for probe, status in probes.items():
        if isinstance(status.last, Success | Failure):
            yield (probe,), status.standing is Standing.SUCCESS


@_family(
    "sfmtls_probe_attempts_total",
    Kind.COUNTER,
    ("probe",),
    of=_the_probes,
    emitted="for each configured probe, from 0",
)
def _probe_attempts(probes: _Probes) -> Iterator[_Sample]:
    """How often the probe ran, whatever came of it."""
    for probe, status in probes.items():
        yield (probe,), status.attempts


@_family(
    "sfmtls_probe_failures_total",
    Kind.COUNTER,
    ("probe",),
    of=_the_probes,
    emitted="for each configured probe, from 0",
)
def _probe_failures(probes: _Probes) -> Iterator[_Sample]:
    """How often the probe failed; an undetermined run is no failure."""
    for probe, status in probes.items():
        yield (probe,), status.failures


@_family(
    "sfmtls_probe_failures_by_reason_total",
    Kind.COUNTER,
    ("probe", "reason"),
    of=_the_probes,
    emitted="from the first failure for this reason on",
)
def _probe_failures_by_reason(probes: _Probes) -> Iterator[_Sample]:
    """How often the probe failed for this reason; `sfmtls-agent reasons` explains each."""
    for probe, status in probes.items():
        for reason, count in status.failures_by_reason.items():
            yield (probe, reason.value), count


@_family(
    "sfmtls_probe_failing",
    Kind.GAUGE,
    ("probe", "reason"),
    of=_the_probes,
    emitted="only while the last run of the probe is a failure",
)
def _probe_failing(probes: _Probes) -> Iterator[_Sample]:
    """1 for the reason for which the probe fails now; `sfmtls-agent reasons` explains each."""
    for probe, status in probes.items():
        if isinstance(status.last, Failure):
            yield (probe, status.last.reason.value), 1


@_family(
    "sfmtls_probe_cause",
    Kind.GAUGE,
    ("probe", "cause", "confidence"),
    of=_the_probes,
    emitted="only while the last run of the probe is a failure whose cause can be told",
)
def _probe_cause(probes: _Probes) -> Iterator[_Sample]:
    """1 for the likeliest cause for which the probe fails now; docs/causes.md explains each."""
    for probe, status in probes.items():
        if status.cause is not None:
            yield (probe, status.cause.name, status.cause.confidence), 1


@_family(
    "sfmtls_probe_skipped_total",
    Kind.COUNTER,
    ("probe", "cause"),
    of=_the_probes,
    emitted="from the first skipped run for this cause on",
)
def _probe_skipped(probes: _Probes) -> Iterator[_Sample]:
    """How often the probe did not run although it is configured."""
    for probe, status in probes.items():
        for cause, count in status.skipped.items():
            yield (probe, cause), count


@_family(
    "sfmtls_probe_last_run_timestamp_seconds",
    Kind.GAUGE,
    ("probe",),
    of=_the_probes,
    emitted=ONCE_RUN,
)
def _probe_last_run(probes: _Probes) -> Iterator[_Sample]:
    """When the cycle of the probe's last run began, in Unix time."""
    for probe, status in probes.items():
        if status.last_run is not None:
            yield (probe,), status.last_run.timestamp()


@_family(
    "sfmtls_probe_last_success_timestamp_seconds",
    Kind.GAUGE,
    ("probe",),
    of=_the_probes,
    emitted="once the probe has succeeded",
)
def _probe_last_success(probes: _Probes) -> Iterator[_Sample]:
    """When the cycle of the probe's last successful run began, in Unix time."""
    for probe, status in probes.items():
        if status.last_success is not None:
            yield (probe,), status.last_success.timestamp()


@_family(
    "sfmtls_probe_interval_seconds",
    Kind.GAUGE,
    ("probe",),
    of=_the_org,
    emitted="for each configured probe",
)
def _probe_interval(org: Org) -> Iterator[_Sample]:
    """How often the probe is meant to run; alert when the last run is older than three of these."""
    intervals = {
        Probe.HANDSHAKE: org.interval,
        Probe.LOGIN: org.login_interval,
        Probe.SESSION: org.login_interval,
        Probe.REFUSAL: org.refusal_interval,
        Probe.ENFORCEMENT: org.enforcement.interval if org.enforcement else None,
    }
    for probe in probes_of(org):
        interval = intervals[probe]
        if interval is not None:
            yield (probe,), interval


@_family(
    "sfmtls_stage_duration_seconds",
    Kind.GAUGE,
    ("stage",),
    of=lambda s: s.stages,
    emitted="for each stage that began in the last cycle; login and session keep their last run",
)
def _stage_duration(stages: Mapping[Stage, float]) -> Iterator[_Sample]:
    """How long the stage took when it ran last, the failing stage included."""
    for stage, seconds in stages.items():
        yield (stage,), seconds


# --- one org: the door


@_family(
    "sfmtls_client_auth",
    Kind.GAUGE,
    ("state",),
    of=lambda s: s.client_auth,
    emitted="all states once a cycle has run; exactly one is 1",
)
def _client_auth(verdict: ClientAuth | None) -> Iterator[_Sample]:
    """Verdict of the server on our certificate in the last cycle."""
    if verdict is not None:
        for state in ClientAuth:
            yield (state,), state is verdict


@_family(
    "sfmtls_tls_info",
    Kind.GAUGE,
    ("version", "cipher_suite"),
    of=lambda s: (s.tls_version, s.cipher_suite),
    emitted="once a handshake got as far as that",
)
def _tls_info(negotiated: tuple[str | None, str | None]) -> Iterator[_Sample]:
    """TLS version and cipher suite of the last handshake that negotiated them."""
    version, cipher_suite = negotiated
    if version is not None:
        values = (version, cipher_suite or "")
        yield tuple(_info_value(value) for value in values), 1


@_family(
    "sfmtls_tls_alert_info",
    Kind.GAUGE,
    ("alert",),
    of=lambda s: s.alert,
    emitted="only while the handshake probe fails with an alert",
)
def _tls_alert_info(alert: str | None) -> Iterator[_Sample]:
    """TLS alert that the server sent in the last cycle, under its name in RFC 8446."""
    if alert is not None:
        yield (_info_value(alert),), 1


# --- one org: certificates, as they were seen last

ONCE_SEEN: Final = "once a chain of this side was seen, until the org or the certificate is gone"


# Without the moments, which change with every cycle.
_Chains = tuple[tuple[Side, tuple[Certificate, ...]], ...]


def _chains(snapshot: Snapshot) -> _Chains:
    return tuple((side, chain.certificates) for side, chain in snapshot.chains.items())


def _certificates(chains: _Chains) -> Iterator[tuple[Side, int, Certificate]]:
    for side, chain in chains:
        for position, certificate in enumerate(chain):
            yield side, position, certificate


@_family(
    "sfmtls_certificate_not_before_timestamp_seconds",
    Kind.GAUGE,
    ("side", "position"),
    of=_chains,
    emitted=ONCE_SEEN,
)
def _certificate_not_before(chains: _Chains) -> Iterator[_Sample]:
    """When the certificate begins to be valid, in Unix time; position 0 is the leaf."""
    for side, position, certificate in _certificates(chains):
        yield (side, str(position)), certificate.not_before.timestamp()


@_family(
    "sfmtls_certificate_not_after_timestamp_seconds",
    Kind.GAUGE,
    ("side", "position"),
    of=_chains,
    emitted=ONCE_SEEN,
)
def _certificate_not_after(chains: _Chains) -> Iterator[_Sample]:
    """When the certificate expires, in Unix time; position 0 is the leaf."""
    for side, position, certificate in _certificates(chains):
        yield (side, str(position)), certificate.not_after.timestamp()


@_family(
    "sfmtls_certificate_info",
    Kind.GAUGE,
    ("side", "position", "role", "subject", "issuer", "serial_number", "fingerprint_sha256"),
    of=_chains,
    emitted=ONCE_SEEN,
)
def _certificate_info(chains: _Chains) -> Iterator[_Sample]:
    """Whose certificate it is and how to find it elsewhere; to be joined on side and position."""
    for side, position, certificate in _certificates(chains):
        texts = (
            certificate.subject,
            certificate.issuer,
            certificate.serial_number,
            certificate.fingerprint_sha256,
        )
        named = (_info_value(text) for text in texts)
        yield (side, str(position), role(position, certificate), *named), 1


def _first_to_expire(chains: _Chains) -> Iterator[tuple[Side, Certificate]]:
    for side, chain in chains:
        yield side, min(chain, key=lambda certificate: certificate.not_after)


@_family("sfmtls_certificate_expiry_days", Kind.GAUGE, ("side",), of=_chains, emitted=ONCE_SEEN)
def _certificate_expiry_days(chains: _Chains) -> Iterator[_AgingSample]:
    """Days until the first certificate of the chain expires, then negative; as of the scrape."""
    for side, certificate in _first_to_expire(chains):
        yield (side,), Countdown(certificate.not_after, timedelta(days=1))


@_family(
    "sfmtls_certificate_lifetime_remaining_ratio",
    Kind.GAUGE,
    ("side",),
    of=_chains,
    emitted=ONCE_SEEN,
)
def _certificate_lifetime_remaining(chains: _Chains) -> Iterator[_AgingSample]:
    """Share of that certificate's life that is left: 1 when new, 0 at expiry, then negative."""
    for side, certificate in _first_to_expire(chains):
        lifetime = certificate.not_after - certificate.not_before
        # A certificate that ends before it begins has no lifetime to speak of.
        if lifetime > timedelta(0):
            yield (side,), Countdown(certificate.not_after, lifetime)


@_family(
    "sfmtls_certificate_observed_timestamp_seconds",
    Kind.GAUGE,
    ("side",),
    of=lambda s: s.chains,
    emitted=ONCE_SEEN,
)
def _certificate_observed(chains: Mapping[Side, SeenChain]) -> Iterator[_Sample]:
    """When the cycle began that saw this chain last, in Unix time."""
    for side, chain in chains.items():
        yield (side,), chain.observed_at.timestamp()


# --- one org: how it is judged


@_family(
    "sfmtls_policy_violation",
    Kind.GAUGE,
    ("rule", "severity", "side"),
    of=_the_violations,
    emitted="only while the rule is violated",
)
def _policy_violation(violations: Sequence[Violation]) -> Iterator[_Sample]:
    """1 for each rule that is violated now; side is empty when it is about the org."""
    # One series even when the rule is violated at several positions of the chain.
    for found in dict.fromkeys((v.rule, v.severity, v.side) for v in violations):
        yield found, 1


@_family(
    "sfmtls_policy_violations",
    Kind.GAUGE,
    ("severity",),
    of=_the_violations,
    emitted="always, for each severity",
)
def _policy_violations(violations: Sequence[Violation]) -> Iterator[_Sample]:
    """How many violations were found, each certificate counted."""
    for severity in Severity:
        yield (severity,), sum(found.severity == severity for found in violations)


@_family(
    "sfmtls_policy_suppressed",
    Kind.GAUGE,
    ("rule", "severity", "side"),
    of=lambda s: s.suppressed,
    emitted="only while the rule is violated and that is suppressed",
)
def _policy_suppressed(suppressed: Sequence[Suppressed]) -> Iterator[_Sample]:
    """1 for each rule that is violated now, as the configuration says it may; side as above."""
    found = (one.violation for one in suppressed)
    for labels in dict.fromkeys((v.rule, v.severity, v.side) for v in found):
        yield labels, 1


@_family(
    "sfmtls_policy_not_evaluated",
    Kind.GAUGE,
    ("rule",),
    of=lambda s: s.not_evaluated,
    emitted="only while the rule lacks its evidence",
)
def _policy_not_evaluated(rules: Sequence[str]) -> Iterator[_Sample]:
    """1 for each rule that could not be judged in the last cycle."""
    for rule in dict.fromkeys(rules):
        yield (rule,), 1


@_family(
    "sfmtls_deadline_timestamp_seconds",
    Kind.GAUGE,
    ("deadline",),
    of=lambda s: s.deadlines,
    emitted="for each deadline that concerns the org",
)
def _deadline(deadlines: Mapping[str, datetime]) -> Iterator[_Sample]:
    """When something that this org relies on is announced to end, in Unix time."""
    for deadline, moment in deadlines.items():
        yield (deadline,), moment.timestamp()


# --- one org: logins and what they tell


@_family(
    "sfmtls_login_breaker_open",
    Kind.GAUGE,
    (),
    of=lambda s: s.breaker_open,
    emitted="for an org with login",
)
def _login_breaker_open(is_open: bool | None) -> Iterator[_Sample]:  # noqa: FBT001 - a state
    """Whether logins are stopped, lest they lock the user out."""
    if is_open is not None:
        yield (), is_open


@_family(
    "sfmtls_login_budget_remaining",
    Kind.GAUGE,
    (),
    of=lambda s: s.budget_remaining,
    emitted="for an org with login",
)
def _login_budget_remaining(remaining: int | None) -> Iterator[_Sample]:
    """Logins left for this user in the current hour."""
    if remaining is not None:
        yield (), remaining


@_family(
    "sfmtls_api_requests_used",
    Kind.GAUGE,
    (),
    of=_the_api_usage,
    emitted="once a session call has told it",
)
def _api_requests_used(usage: ApiUsage | None) -> Iterator[_Sample]:
    """Count of API requests that the org has used in its window, from LimitInfoHeader."""
    if usage is not None:
        yield (), usage.used


@_family(
    "sfmtls_api_requests_limit",
    Kind.GAUGE,
    (),
    of=_the_api_usage,
    emitted="once a session call has told it",
)
def _api_requests_limit(usage: ApiUsage | None) -> Iterator[_Sample]:
    """Count of API requests that the org may use in its window, from LimitInfoHeader."""
    if usage is not None:
        yield (), usage.limit


@_family(
    "sfmtls_clock_skew_seconds",
    Kind.GAUGE,
    (),
    of=lambda s: s.clock_skew,
    emitted="once an answer carried a Date header",
)
def _clock_skew(skew: float | None) -> Iterator[_Sample]:
    """Their clock minus ours, from the Date header, which counts whole seconds."""
    if skew is not None:
        yield (), skew


@_family("sfmtls_maintenance", Kind.GAUGE, (), of=lambda s: s.maintenance, emitted=ALWAYS)
def _maintenance(window: Window | None) -> Iterator[_Sample]:
    """Whether the org is in planned maintenance, in which nobody logs in."""
    yield (), window is not None


@_family(
    "sfmtls_identity_reload_failures_total",
    Kind.COUNTER,
    (),
    of=lambda s: s.identity_reload_failures,
    emitted=FROM_ZERO,
)
def _identity_reload_failures(failures: int) -> Iterator[_Sample]:
    """How often a changed certificate, key or trust file could not be used; the old one stays."""
    yield (), failures


ORG_FAMILIES: Final[tuple[OrgFamily, ...]] = tuple(_REGISTERED)


def org_families(snapshot: Snapshot, now: datetime) -> Iterator[Metric]:
    """Yield every family of one org in the catalogue's order, also those without a sample now."""
    for family in ORG_FAMILIES:
        yield family.of(snapshot, now)
