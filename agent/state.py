"""What is known now: a Snapshot of each org, on the one Board, the only thing that changes.

A Snapshot remembers across cycles what a single result cannot: counters, the last chain that was
seen, since when a state lasts. It is frozen, so a reader in another thread needs no lock. This
module reads no clock and does no I/O: moments arrive with the results.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar

from agent.certificate import Certificate
from agent.diagnosis import Cause
from agent.maintenance import Window
from agent.org import Org
from agent.policy import Judgement, Suppressed
from agent.policy.rule import Side, Violation
from agent.reason import Reason
from agent.result import (
    ApiUsage,
    ClientAuth,
    Failure,
    Probe,
    ProbeResult,
    SkipCause,
    Skipped,
    Stage,
    Success,
    Undetermined,
    probes_of,
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Standing(StrEnum):
    """How a probe stands after its last run."""

    UNKNOWN = "unknown"  # it has not run yet
    SUCCESS = "success"
    FAILURE = "failure"
    UNDETERMINED = "undetermined"


def _frozen(mapping: Mapping[_Key, _Value]) -> Mapping[_Key, _Value]:
    return MappingProxyType(dict(mapping))


# One for all, of which there are several in each of thousands of orgs.
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


def _nothing() -> Mapping[Any, Any]:
    return _NOTHING


def _standing(last: Success | Failure | Undetermined | None) -> Standing:
    match last:
        case None:
            return Standing.UNKNOWN
        case Success():
            return Standing.SUCCESS
        case Failure():
            return Standing.FAILURE
        case Undetermined():
            return Standing.UNDETERMINED


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """One probe of one org, over all its runs.

    `last` is the outcome of the last run; a skipped run is none. An undetermined run is an attempt
    and replaces `last`, so that neither an old success nor an old failure is taken for news.
    `since` is the moment from which `standing` lasts; another reason for failing does not end it.
    `cause` is the best of the likely causes of the last run's failure, None where nothing tells.
    """

    attempts: int = 0
    failures: int = 0
    failures_by_reason: Mapping[Reason, int] = field(default_factory=_nothing)
    skipped: Mapping[SkipCause, int] = field(default_factory=_nothing)
    last: Success | Failure | Undetermined | None = None
    cause: Cause | None = None
    last_run: datetime | None = None
    last_success: datetime | None = None
    since: datetime | None = None

    @property
    def standing(self) -> Standing:
        """How the last run ended."""
        return _standing(self.last)

    @property
    def reason(self) -> Reason | None:
        """Why the last run did not succeed; None when it did, or when there was none."""
        return self.last.reason if isinstance(self.last, Failure | Undetermined) else None

    def ran(
        self,
        outcome: Success | Failure | Undetermined,
        at: datetime,
        cause: Cause | None = None,
    ) -> ProbeStatus:
        """Return the status after one more run."""
        failures, by_reason = self.failures, self.failures_by_reason
        if isinstance(outcome, Failure):
            failures, by_reason = failures + 1, _more(by_reason, outcome.reason)
        return ProbeStatus(
            attempts=self.attempts + 1,
            failures=failures,
            failures_by_reason=by_reason,
            skipped=self.skipped,
            last=outcome,
            cause=cause,
            last_run=at,
            last_success=at if isinstance(outcome, Success) else self.last_success,
            since=self.since if _standing(outcome) is self.standing else at,
        )

    def passed_over(self, cause: SkipCause, times: int = 1) -> ProbeStatus:
        """Return the status after runs that did not take place."""
        # Most probes are not due in most cycles, so this is as short as it can be.
        return ProbeStatus(
            self.attempts,
            self.failures,
            self.failures_by_reason,
            _more(self.skipped, cause, times),
            self.last,
            self.cause,
            self.last_run,
            self.last_success,
            self.since,
        )


@dataclass(frozen=True, slots=True)
class SeenChain:
    """Certificates as presented, leaf first, and the moment at which they were last seen."""

    certificates: tuple[Certificate, ...]
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Transition:
    """A change worth one line in the log: `probe` of `org` went from `before` to `after`.

    `lasted` is how long the state before had lasted, None when there was none. `cause` is the
    likely cause of a failure, `explained` whether it is another one than before. A failure for
    another reason or with another cause than before is a transition; a repeat is not.
    """

    org: str
    probe: Probe
    before: Standing
    after: Standing
    reason: Reason | None
    detail: str
    lasted: timedelta | None
    cause: Cause | None = None
    explained: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known of one org. `version` changes whenever anything in it does.

    `stages` are the seconds of the last run: the door's stages all come from the last cycle, login
    and session from the last cycle that logged in. `alert` is set only while the handshake fails.
    `tls_version`, `cipher_suite`, `api_usage`, `clock_skew` and `chains` keep what was last seen.
    `client_auth` is None before the first cycle; `breaker_open` and `budget_remaining` are None
    until they are told, and for an org without login. `maintenance` is the window that was in force
    when the last cycle began.
    """

    org: Org
    version: int
    probes: Mapping[Probe, ProbeStatus]
    cycles: int = 0
    stages: Mapping[Stage, float] = field(default_factory=_nothing)
    client_auth: ClientAuth | None = None
    tls_version: str | None = None
    cipher_suite: str | None = None
    alert: str | None = None
    chains: Mapping[Side, SeenChain] = field(default_factory=_nothing)
    violations: tuple[Violation, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    not_evaluated: tuple[str, ...] = ()
    deadlines: Mapping[str, datetime] = field(default_factory=_nothing)
    breaker_open: bool | None = None
    budget_remaining: int | None = None
    api_usage: ApiUsage | None = None
    clock_skew: float | None = None
    maintenance: Window | None = None
    identity_reload_failures: int = 0

    @property
    def since(self) -> Mapping[Probe, datetime]:
        """For each probe that ran, since when it stands as it does."""
        return {
            probe: status.since for probe, status in self.probes.items() if status.since is not None
        }

    @property
    def healthy(self) -> bool:
        """No probe's last run failed."""
        return not any(status.standing is Standing.FAILURE for status in self.probes.values())

    @property
    def judgement(self) -> Judgement:
        """How the org was judged last."""
        return Judgement(self.violations, self.not_evaluated, self.suppressed)

    def __repr__(self) -> str:
        """Say in one line how the org stands."""
        standings = ", ".join(
            f"{probe} {status.standing}" + (f" ({status.reason.value})" if status.reason else "")
            for probe, status in self.probes.items()
        )
        return f"<Snapshot {self.org.name}: {standings}, {self.cycles} cycles>"


@dataclass(frozen=True, slots=True)
class NetworkTransition:
    """The agent's own network came under suspicion, or is `suspect` no more; one line in the log.

    `orgs` are as many as cannot be reached; `lasted` is how long the suspicion lasted, None when it
    begins, or when it ends since there is no longer more than one org to tell by.
    """

    suspect: bool
    orgs: int
    lasted: timedelta | None = None


# What fails in one of these never got an answer from the org's own server.
_BEFORE_THE_SERVER: Final = frozenset({Stage.DNS, Stage.PROXY, Stage.TCP})


class _Network:
    """Suspects the agent's own network while no org can be reached.

    The suspicion begins when every org has failed in dns, proxy or tcp since any org last got
    further, and ends with the first that gets further. Two hosts at least must have failed: one
    alone cannot tell its server's trouble from ours. An org of which nothing was sent, as its files
    cannot be used, tells nothing either way. What a cycle costs does not depend on how many orgs
    there are.
    """

    def __init__(self) -> None:
        self.suspect = False
        self._since: datetime | None = None
        self._cut_off: dict[str, str] = {}  # the hosts of the orgs
        self._silent: set[str] = set()

    def heard(self, result: ProbeResult, host: str, orgs: int) -> NetworkTransition | None:
        """Take in a cycle of one of so many orgs."""
        if not result.stages:
            self.forget(result.org)
            self._silent.add(result.org)
        else:
            self._silent.discard(result.org)
            if result.stages.keys() <= _BEFORE_THE_SERVER:
                self._cut_off[result.org] = host
            else:
                self._cut_off.clear()
        return self.look(orgs, result.started_at)

    def forget(self, name: str) -> None:
        """Know nothing of the org."""
        self._cut_off.pop(name, None)
        self._silent.discard(name)

    def look(self, orgs: int, at: datetime | None) -> NetworkTransition | None:
        """Return what has changed, now that there are so many orgs."""
        cut_off = len(self._cut_off)
        if self.suspect:
            suspect = cut_off > 1
        else:
            suspect = cut_off + len(self._silent) == orgs and self._are_several()
        if suspect is self.suspect:
            return None
        self.suspect = suspect
        began, self._since = self._since, at if suspect else None
        return NetworkTransition(suspect, cut_off, at - began if at and began else None)

    def _are_several(self) -> bool:
        hosts = iter(self._cut_off.values())
        first = next(hosts, None)
        return any(host != first for host in hosts)


class Board:
    """The latest Snapshot of each org. One thread writes; any thread may read.

    `network_changed` is told when the agent's own network comes under suspicion and when it is
    cleared of it.
    """

    def __init__(
        self, network_changed: Callable[[NetworkTransition], None] = lambda _: None
    ) -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._network = _Network()
        self._network_changed = network_changed
        # One sequence for the whole board: an org that comes back under its old name must not
        # show a version that a cache has already seen.
        self._versions = itertools.count(1)

    def add(self, org: Org) -> None:
        """Start to know `org`; ValueError when one of its name is known already."""
        if org.name in self._snapshots:
            raise ValueError(f"there is an org named {org.name} already")
        self._snapshots[org.name] = Snapshot(
            org=org,
            version=next(self._versions),
            probes=_frozen({probe: ProbeStatus() for probe in probes_of(org)}),
        )

    def replace(self, org: Org) -> None:
        """Take the new settings of a known org and keep its counters; KeyError when it is unknown.

        What was seen of another identity, of another door or of another user is forgotten.
        """
        before = self._snapshots[org.name]
        after = replace(
            before,
            org=org,
            probes=_frozen(
                {probe: before.probes.get(probe, ProbeStatus()) for probe in probes_of(org)}
            ),
        )
        if org.identity != before.org.identity:
            after = replace(after, chains=_without(after.chains, Side.CLIENT))
        if org.endpoint != before.org.endpoint:
            after = replace(
                after,
                chains=_without(after.chains, Side.SERVER),
                stages=_NOTHING,
                client_auth=None,
                tls_version=None,
                cipher_suite=None,
                alert=None,
                clock_skew=None,
            )
        if org.login != before.org.login:
            after = replace(after, breaker_open=None, budget_remaining=None, api_usage=None)
        self._put(after)

    def remove(self, name: str) -> None:
        """Forget the org; nothing happens when it is unknown."""
        self._snapshots.pop(name, None)
        self._network.forget(name)
        self._tell(self._network.look(len(self._snapshots), None))

    def record(
        self,
        result: ProbeResult,
        *,
        violations: Iterable[Violation] = (),
        suppressed: Iterable[Suppressed] = (),
        not_evaluated: Iterable[str] = (),
        deadlines: Mapping[str, datetime] | None = None,
        causes: Mapping[Probe, tuple[Cause, ...]] | None = None,
        of: Org | None = None,
    ) -> tuple[Transition, ...]:
        """Take in one cycle and how it was judged; return the changes worth a line in the log.

        `causes` are those of the probes that failed, the best first.

        A result for an org, or of a probe, that a reload removed meanwhile changes nothing, nor
        does one of an org that was replaced: `of`, if given, is the very org that was probed.
        """
        before = self._current(result.org, of)
        if before is None:
            return ()
        probes = dict(before.probes)
        transitions: list[Transition] = []
        for probe, outcome in result.outcomes.items():
            status = probes.get(probe)
            if status is None:
                continue
            if isinstance(outcome, Skipped):
                probes[probe] = status.passed_over(outcome.cause)
                continue
            best = next(iter((causes or {}).get(probe, ())), None)
            probes[probe] = after = status.ran(outcome, result.started_at, best)
            if _news(after) != _news(status):
                transitions.append(_transition(result, probe, status, after))
        handshake = result.handshake
        failing = probes[Probe.HANDSHAKE].standing is Standing.FAILURE
        self._put(
            before,
            probes=_frozen(probes),
            cycles=before.cycles + 1,
            stages=_stages(before.stages, result.stages),
            client_auth=result.client_auth,
            tls_version=(handshake and handshake.tls_version) or before.tls_version,
            cipher_suite=(handshake and handshake.cipher_suite) or before.cipher_suite,
            alert=handshake.alert if handshake and failing else None,
            chains=_chains(before.chains, result),
            violations=tuple(violations),
            suppressed=tuple(suppressed),
            not_evaluated=tuple(not_evaluated),
            deadlines=_kept(before.deadlines, deadlines),
            api_usage=result.api_usage or before.api_usage,
            clock_skew=before.clock_skew if result.clock_skew is None else result.clock_skew,
        )
        self._tell(self._network.heard(result, before.org.endpoint.host, len(self._snapshots)))
        return tuple(transitions)

    def skipped(self, name: str, probe: Probe, cause: SkipCause, times: int = 1) -> None:
        """Count runs that did not take place; nothing happens when org or probe is unknown."""
        before = self._snapshots.get(name)
        if before is not None and probe in before.probes:
            after = {**before.probes, probe: before.probes[probe].passed_over(cause, times)}
            self._put(before, probes=_frozen(after))

    def login_limits(
        self,
        name: str,
        breaker_open: bool | None,  # noqa: FBT001 - a state that is told, not a switch
        budget_remaining: int | None,
        *,
        of: Org | None = None,
    ) -> None:
        """Take in whether logins are stopped and how many are left in this hour; `of` as above."""
        before = self._current(name, of)
        if before is None or before.org.login is None:
            return
        if (before.breaker_open, before.budget_remaining) != (breaker_open, budget_remaining):
            self._put(before, breaker_open=breaker_open, budget_remaining=budget_remaining)

    def in_maintenance(self, name: str, window: Window | None, *, of: Org | None = None) -> bool:
        """Take in the window that is in force, if any; return whether it is news. `of` as above."""
        before = self._current(name, of)
        if before is None or before.maintenance == window:
            return False
        self._put(before, maintenance=window)
        return True

    def identity_failed(self, name: str, *, of: Org | None = None) -> None:
        """Count a changed certificate, key or trust file that could not be used; `of` as above."""
        before = self._current(name, of)
        if before is not None:
            failures = before.identity_reload_failures + 1
            self._put(before, identity_reload_failures=failures)

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return every org's snapshot, in the order in which they were added; from any thread."""
        return tuple(self._snapshots.values())

    def get(self, name: str) -> Snapshot | None:
        """Return the org's snapshot, or None when it is unknown; from any thread."""
        return self._snapshots.get(name)

    def every_org_seen(self) -> bool:
        """Tell whether there are orgs and each has had at least one cycle; from any thread."""
        snapshots = self.snapshots()
        return bool(snapshots) and all(snapshot.cycles for snapshot in snapshots)

    @property
    def network_suspect(self) -> bool | None:
        """Whether the agent's own network seems to be down; None with fewer than two orgs."""
        return self._network.suspect if len(self._snapshots) > 1 else None

    def _tell(self, change: NetworkTransition | None) -> None:
        if change is not None:
            self._network_changed(change)

    def _current(self, name: str, of: Org | None) -> Snapshot | None:
        known = self._snapshots.get(name)
        # The very object: an org that a reload changed there and back is another one.
        return known if known is None or of is None or known.org is of else None

    def _put(self, before: Snapshot, **news: object) -> None:
        # Assignment to an existing key keeps the order and is atomic for readers.
        after = replace(before, version=next(self._versions), **news)  # type: ignore[arg-type] # by their names
        self._snapshots[before.org.name] = after


_OF_THE_LOGIN: Final = frozenset({Stage.LOGIN, Stage.SESSION})


def _stages(before: Mapping[Stage, float], now: Mapping[Stage, float]) -> Mapping[Stage, float]:
    # Most cycles do not log in; the durations of the last login stay readable between two.
    kept = {} if Stage.LOGIN in now else {s: before[s] for s in _OF_THE_LOGIN if s in before}
    merged = {**kept, **now}
    return _frozen({stage: merged[stage] for stage in Stage if stage in merged})


def _chains(before: Mapping[Side, SeenChain], result: ProbeResult) -> Mapping[Side, SeenChain]:
    presented = {Side.CLIENT: result.client_chain, Side.SERVER: result.server_chain}
    seen = {
        side: SeenChain(certificates, result.started_at)
        for side, certificates in presented.items()
        if certificates
    }
    merged = {**before, **seen}
    return _frozen({side: merged[side] for side in presented if side in merged})


def _news(status: ProbeStatus) -> tuple[Standing, Reason | None, str | None]:
    return status.standing, status.reason, status.cause.name if status.cause else None


def _transition(
    result: ProbeResult, probe: Probe, before: ProbeStatus, after: ProbeStatus
) -> Transition:
    return Transition(
        org=result.org,
        probe=probe,
        before=before.standing,
        after=after.standing,
        reason=after.reason,
        detail=after.last.detail if after.last else "",
        lasted=None if before.since is None else result.started_at - before.since,
        cause=after.cause,
        explained=_news(after)[-1] != _news(before)[-1],
    )


def _more(counts: Mapping[_Key, int], key: _Key, times: int = 1) -> Mapping[_Key, int]:
    return _frozen({**counts, key: counts.get(key, 0) + times})


def _kept(
    before: Mapping[str, datetime], now: Mapping[str, datetime] | None
) -> Mapping[str, datetime]:
    return before if now is None or now == before else _frozen(now)


def _without(chains: Mapping[Side, SeenChain], side: Side) -> Mapping[Side, SeenChain]:
    return _frozen({kept: chain for kept, chain in chains.items() if kept is not side})
